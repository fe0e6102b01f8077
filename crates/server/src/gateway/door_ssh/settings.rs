//! What the door offers of SSH: key exchanges, ciphers, the host key, and the library's own limits behind ours.
//!
//! T-35: nothing weak is there to be negotiated. No SHA-1, no CBC, no compression (T-97), strict key exchange only with
//! ciphers that authenticate what they encrypt.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::ssh::login_name::HOST_SUFFIX;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::server::Config;
use russh::{Limits, MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use super::Road;
use super::inbox::FIRST_WINDOW;
use crate::{Server, clock};

/// What the door says of itself before keys are exchanged.
const BANNER: &str = concat!("SSH-2.0-Munjigi_", env!("CARGO_PKG_VERSION"));
/// How long a refused login takes at least, whatever the reason: nobody shall learn from it which keys are known (T-90).
const REJECTION_TIME: Duration = Duration::from_millis(100);
/// Logins that may be refused on one connection, the probe for methods among them; sshd's `MaxAuthTries` and one.
const MAX_REFUSALS: usize = 7;
/// Largest data packet, bytes.
const PACKET: u32 = 32 * 1024;
/// Requests that wait for a channel's task, sizes of its terminal above all; data waits in inboxes. When they are full the
/// connection is not read.
const CHANNEL_MESSAGES: usize = 32;
/// Messages towards the client that wait for a connection's task, each of at most a packet's size.
const CONNECTION_MESSAGES: usize = 16;
/// Bytes and time after which keys are exchanged anew (RFC 4253 section 9).
const REKEY_BYTES: usize = 1 << 30;
const REKEY_TIME: Duration = Duration::from_secs(3600);
/// A client that says nothing for so long is asked whether it is there, so that what lies between keeps the connection.
/// Nobody is sent away for not answering: a suspended `ssh` does not. Dead peers are TCP's business.
const KEEPALIVE: Duration = Duration::from_secs(60);

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const CIPHERS: &[cipher::Name] = &[cipher::AES_256_GCM, cipher::AES_128_GCM, cipher::CHACHA20_POLY1305];
/// Never used, as each cipher brings its own; some clients want to see one.
const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];
/// Signatures that people may log in with, and the host key's.
const SIGNATURES: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::SkEcdsaSha2NistP256,
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

/// What OpenSSH's programs begin their version lines with.
const OPENSSH: &[u8] = b"SSH-2.0-OpenSSH_";
/// The major version from which each of them has AES-GCM (since 6.2).
const OPENSSH_WITH_GCM: u32 = 7;

/// Leaves ChaCha20 out for clients that would choose it although they have AES-GCM (decision 0026): OpenSSH's, which goes
/// by its own list and not by what the machines are good at.
pub(super) fn adapt(server: &Server, client: &[u8], config: &mut Config) {
    if !server.config.ssh.chacha20 && has_aes() && knows_gcm(client) {
        config.preferred.cipher.to_mut().retain(|name| *name != cipher::CHACHA20_POLY1305);
    }
}

/// Says whether a version line is that of a program which certainly has AES-GCM.
fn knows_gcm(client: &[u8]) -> bool {
    let Some(version) = client.strip_prefix(OPENSSH) else { return false };
    let digits = version.split(|byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    let major = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u32>().ok());
    major.is_some_and(|major| major >= OPENSSH_WITH_GCM)
}

/// Says whether this machine has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Returns how one may log in: without a key only where the server's settings let logins be approved.
fn methods(server: &Server) -> MethodSet {
    match server.config.ssh.approvals {
        true => MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]),
        false => MethodSet::from(&[MethodKind::PublicKey][..]),
    }
}

/// Returns what a new connection is offered.
pub(super) fn of(server: &Server, road: &Road) -> anyhow::Result<Arc<Config>> {
    let host = server.ssh_authority.host_key(&names(server, road), clock::now())?;
    Ok(Arc::new(Config {
        server_id: SshId::Standard(Cow::Borrowed(BANNER)),
        methods: methods(server),
        auth_rejection_time: REJECTION_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host.key.clone()],
        certificates: vec![host.certificate.clone()],
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_TIME),
        window_size: FIRST_WINDOW,
        maximum_packet_size: PACKET,
        channel_buffer_size: CHANNEL_MESSAGES,
        event_buffer_size: CONNECTION_MESSAGES,
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(SIGNATURES),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        max_auth_attempts: MAX_REFUSALS,
        // Ours stand in front of it.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 0,
        nodelay: true,
    }))
}

/// Returns the names under which a client may have come: this server's own, or those of the node that it stands for. They
/// are no promise about the node: who may vouch for hosts vouches for this server in its place.
fn names(server: &Server, road: &Road) -> Vec<String> {
    match road {
        Road::Port => server.names.iter().cloned().collect(),
        Road::Link { node, .. } | Road::Inner { host: node, .. } => {
            vec![node.clone(), format!("{node}{HOST_SUFFIX}")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_that_certainly_have_aes_gcm_are_left_with_it() {
        for (line, knows) in [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u10", true),
            ("SSH-2.0-OpenSSH_10.0", true),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", false),
            ("SSH-2.0-OpenSSH_6.6.1", false),
            ("SSH-2.0-OpenSSH_", false),
            ("SSH-2.0-OpenSSH_99999999999", false),
            ("SSH-2.0-PuTTY_Release_0.78", false),
            ("SSH-2.0-paramiko_3.5.1", false),
            ("", false),
        ] {
            assert_eq!(knows_gcm(line.as_bytes()), knows, "{line}");
        }
    }
}
