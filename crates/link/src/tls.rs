//! TLS as the link uses it: pinned roots, one crypto provider, and the value that binds a signature to a session.
//!
//! There is deliberately no way to skip verification (T-86): development trust is adding a root.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConnectionCommon, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};

use crate::error::DialError;

/// The only application protocol offered; the WebSocket upgrade is HTTP/1.1.
const ALPN: &[u8] = b"http/1.1";
/// Label of the exporter (RFC 8446 section 7.5), our own.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-munjigi-link-v1";
/// Largest PEM file with roots in bytes.
const MAX_ROOTS_PEM_BYTES: usize = 1024 * 1024;
/// Ciphertext that waits inside TLS for the socket, bytes; what lies here is ahead of the next keystroke.
const TLS_BUFFER_BYTES: usize = 32 * 1024;

/// The certificates this deployment's servers are trusted by (T-29): no public roots, nothing else.
#[derive(Clone)]
pub struct PinnedRoots {
    store: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
}

impl PinnedRoots {
    /// Reads the content of a PEM file with one or more root certificates.
    pub fn from_pem(pem: &[u8]) -> Result<Self, DialError> {
        let bad = |why: String| DialError::BadRoots { why };
        if pem.len() > MAX_ROOTS_PEM_BYTES {
            return Err(bad(format!("the file has more than {MAX_ROOTS_PEM_BYTES} bytes")));
        }
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(format!("the PEM file is damaged ({error})")))?;
        if certificates.is_empty() {
            return Err(bad("the PEM file holds no certificate".to_owned()));
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| bad(format!("a certificate is damaged ({error})")))?;
        }
        Ok(Self { store: Arc::new(store), certificates })
    }

    /// Takes the certificates that this machine trusts, for servers that are none of ours (AWS's service). What cannot
    /// be used is left out: systems carry old curiosities along.
    pub fn from_certificates(certificates: Vec<CertificateDer<'static>>) -> Result<Self, DialError> {
        let mut store = RootCertStore::empty();
        let (usable, _left_out) = store.add_parsable_certificates(certificates.iter().cloned());
        if usable == 0 {
            return Err(DialError::BadRoots { why: "this machine has no root certificate".to_owned() });
        }
        Ok(Self { store: Arc::new(store), certificates })
    }

    /// Returns the SHA-256 of each root in hexadecimal, for people to compare at join (T-29).
    pub fn fingerprints(&self) -> Vec<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.certificates.iter().map(|root| hex(digest::digest(&digest::SHA256, root).as_ref())).collect()
    }
}

impl fmt::Debug for PinnedRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PinnedRoots").field(&self.fingerprints()).finish()
    }
}

/// Given explicitly everywhere, so that no other crate's choice of provider can matter.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The oldest TLS that a connection may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OldestTls {
    /// 1.3 (T-35): for everything that goes to a server of ours.
    #[default]
    Tls13,
    /// 1.2: for AWS's service, and for ours behind a proxy that ends the TLS. A link refuses it all the same.
    Tls12,
}

/// Makes the dialling side's configuration: the pinned roots, no resumption, no early data.
pub(crate) fn client_config(roots: &PinnedRoots, oldest: OldestTls) -> Result<Arc<ClientConfig>, rustls::Error> {
    let versions: &[_] = match oldest {
        OldestTls::Tls13 => &[&TLS13],
        OldestTls::Tls12 => &[&TLS13, &TLS12],
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(Arc::clone(&roots.store))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// As [`client_config`] with TLS 1.3, for a lane: its records are not rustls's business, so the keys may be taken out.
pub(crate) fn lane_config(roots: &PinnedRoots) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = Arc::unwrap_or_clone(client_config(roots, OldestTls::Tls13)?);
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Makes the server's configuration: TLS 1.3, and 1.2 for the programs people already have; the link itself is
/// refused on anything below 1.3 by [`binding_of`].
///
/// `chain` is the server's certificate and intermediates, leaf first.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // No tickets: each costs a packet and memory, and a reconnecting agent must sign again anyway.
    config.send_tls13_tickets = 0;
    // For lanes; who takes the keys out has the connection anyway.
    config.enable_secret_extraction = true;
    Ok(Arc::new(config))
}

/// Returns the value that a signature must cover so that it is good on this TLS session only, or says why the session
/// cannot carry a link. Two sessions never share it, so a man in the middle with a certificate gains nothing.
pub fn binding_of(connection: &ServerConnection) -> Result<[u8; 32], BindingError> {
    binding(connection, connection.protocol_version())
}

/// As [`binding_of`], for the dialling side.
pub(crate) fn binding_of_client(connection: &rustls::ClientConnection) -> Result<[u8; 32], BindingError> {
    binding(connection, connection.protocol_version())
}

fn binding<Data>(
    connection: &ConnectionCommon<Data>,
    version: Option<ProtocolVersion>,
) -> Result<[u8; 32], BindingError> {
    if version != Some(ProtocolVersion::TLSv1_3) {
        return Err(BindingError::NotTls13);
    }
    connection
        .export_keying_material([0; 32], EXPORTER_LABEL, None)
        .map_err(|error| BindingError::Exporter(error.to_string()))
}

/// Keeps what waits inside TLS small, so that a keystroke overtakes bulk (performance rules). Call once per
/// connection that carries a link.
pub fn bound_buffer<Data>(connection: &mut ConnectionCommon<Data>) {
    connection.set_buffer_limit(Some(TLS_BUFFER_BYTES));
}

/// Why a TLS session cannot carry a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The session is older than TLS 1.3 (T-35).
    #[error("the link requires TLS 1.3, this connection uses an older version")]
    NotTls13,
    /// The handshake is not complete, or the library failed.
    #[error("the TLS session gave no exporter value: {0}")]
    Exporter(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusable_root_files_are_refused_with_a_reason() {
        let huge = vec![b'x'; MAX_ROOTS_PEM_BYTES + 1];
        let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        for (pem, word) in [
            (&b""[..], "holds no certificate"),
            (b"hello", "holds no certificate"),
            (&damaged[..], "a certificate is damaged"),
            (&cut[..], "damaged"),
            (&huge[..], "more than"),
        ] {
            let error = PinnedRoots::from_pem(pem).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
