//! Judging an OpenSSH user certificate: whether an authority of ours vouches, now and here, for its holder as an OS user.
//!
//! That the holder has the key in it is proved elsewhere; here only the paper is read. Every reason to refuse has its
//! own error. Stricter than OpenSSH: a certificate without principals is good for nobody (T-22), one that lives longer
//! than any we issue is refused, and so is one that does not name its owner.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use ssh_key::{Algorithm, Certificate};

use super::Fingerprint;
use super::krl::{Revocations, RevokedBy};
use crate::arn::Arn;
use crate::grant::valid_os_user;
use crate::id::UniqueId;
use crate::time::Timestamp;

/// Name of our own extension: the owner's ARN, a blank, and its unique id. sshd ignores extensions that it does not know.
pub const PRINCIPAL_EXTENSION: &str = "principal@munjigi";
/// Extension that lets its owner have a terminal.
pub const PERMIT_PTY: &str = "permit-pty";
/// Extension that lets its owner forward ports and sockets.
pub const PERMIT_PORT_FORWARDING: &str = "permit-port-forwarding";
/// Extension that lets its owner forward an agent.
pub const PERMIT_AGENT_FORWARDING: &str = "permit-agent-forwarding";
/// Extension that lets its owner's `~/.ssh/rc` run.
pub const PERMIT_USER_RC: &str = "permit-user-rc";
/// Critical option with the only command.
pub const FORCE_COMMAND: &str = "force-command";
/// Critical option with the addresses it may be used from.
pub const SOURCE_ADDRESS: &str = "source-address";
/// Most OS users of a certificate.
pub const MAX_PRINCIPALS: usize = 16;
/// Most address ranges of a certificate.
pub const MAX_SOURCES: usize = 32;
/// Longest forced command in bytes.
pub const MAX_FORCED_COMMAND: usize = 1024;
/// Longest text of somebody else that a message repeats, in characters.
const MAX_SHOWN: usize = 64;

/// By what a certificate is judged.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Fingerprints of the authorities that are believed.
    pub authorities: &'a [Fingerprint],
    /// What they have revoked.
    pub revoked: &'a Revocations,
    /// The present.
    pub now: Timestamp,
    /// Where it is used from.
    pub source: IpAddr,
    /// As whom its holder wants in; `None` if that is not known yet.
    pub os_user: Option<&'a str>,
    /// The longest that any certificate was made for.
    pub max_life: Duration,
}

/// What a good certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its serial number.
    pub serial: u64,
    /// Its key id, for people.
    pub key_id: String,
    /// The owner's ARN when it was issued.
    pub owner: Arn,
    /// The owner's unchanging id: of a user, or of the role of a session.
    pub owner_id: UniqueId,
    /// The OS users that it is good for; at least one.
    pub os_users: Vec<String>,
    /// Where it may be used from; empty for anywhere.
    pub sources: Vec<IpNet>,
    /// The only command, if there is one.
    pub force_command: Option<String>,
    /// When it ends.
    pub expires: Timestamp,
    /// The key in it.
    pub key: Fingerprint,
    /// Who signed it.
    pub authority: Fingerprint,
    /// What it lets its holder do.
    pub permits: Permits,
}

/// What extensions let a holder do; what is not there is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Permits {
    /// Have a terminal.
    pub pty: bool,
    /// Forward ports and sockets.
    pub port_forwarding: bool,
    /// Forward an agent.
    pub agent_forwarding: bool,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Signed by somebody else, or by an authority whose time is over.
    #[error("the certificate is signed by {0}, which is no authority of this deployment, or not any more")]
    UnknownAuthority(Fingerprint),
    /// Signed with SHA-1, which can be forged (T-35).
    #[error("the certificate is signed with SHA-1; have it signed with `ssh-keygen -t rsa-sha2-512`")]
    WeakSignature,
    /// What it says is not what was signed.
    #[error("the certificate was altered: its signature does not fit")]
    Altered,
    /// It is a host's.
    #[error("the certificate is a host's and proves nobody")]
    HostCertificate,
    /// Revoked by number.
    #[error("the certificate with the serial number {0} was revoked")]
    RevokedSerial(u64),
    /// Revoked by key id.
    #[error("certificates with the key id `{0}` were revoked")]
    RevokedKeyId(String),
    /// The key in it was revoked.
    #[error("the key {0} was revoked")]
    RevokedKey(Fingerprint),
    /// Its time has not come.
    #[error("the certificate is valid only from {0} on")]
    NotYetValid(Timestamp),
    /// Its time is over.
    #[error("the certificate ended at {0}; log in again")]
    Expired(Timestamp),
    /// It lives longer than any certificate that is issued.
    #[error("the certificate lives for {0} s, longer than any that is issued here")]
    LifeTooLong(u64),
    /// It names no OS user: that is nobody (T-22).
    #[error("the certificate names no OS user, so it is good for nobody")]
    NoPrincipals,
    /// It names too many, or what cannot be an OS user.
    #[error("the certificate names `{0}`, which cannot be an OS user, or too many")]
    BadPrincipal(String),
    /// It is not good for the wished OS user.
    #[error("the certificate is not good for the OS user `{wished}`, only for {has}")]
    WrongPrincipal {
        /// Who was wished.
        wished: String,
        /// Who it is good for.
        has: String,
    },
    /// A condition that is not known here, and so not met.
    #[error("the certificate has the critical option `{0}`, which is not known here")]
    UnknownCriticalOption(String),
    /// Its addresses cannot be read.
    #[error("the certificate's source-address `{0}` is no list of addresses")]
    BadSourceAddress(String),
    /// Used from elsewhere.
    #[error("the certificate may be used from {allowed} only, not from {source_address}")]
    OtherSource {
        /// Where it was used from.
        source_address: IpAddr,
        /// Where it may be.
        allowed: String,
    },
    /// Its command is empty, too long, or holds a NUL.
    #[error("the certificate's force-command is no command")]
    BadForceCommand,
    /// It does not say who owns it.
    #[error("the certificate does not name its owner")]
    NoOwner,
}

impl CertificateError {
    /// Returns the word for the reason in the trail.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownAuthority(_) => "CertificateAuthorityUnknown",
            Self::WeakSignature => "CertificateSignatureWeak",
            Self::Altered => "CertificateAltered",
            Self::HostCertificate => "CertificateOfHost",
            Self::RevokedSerial(_) | Self::RevokedKeyId(_) | Self::RevokedKey(_) => "CertificateRevoked",
            Self::NotYetValid(_) => "CertificateNotYetValid",
            Self::Expired(_) => "CertificateExpired",
            Self::LifeTooLong(_) => "CertificateLifeTooLong",
            Self::NoPrincipals => "CertificateWithoutPrincipals",
            Self::BadPrincipal(_) => "CertificatePrincipalInvalid",
            Self::WrongPrincipal { .. } => "CertificatePrincipalMismatch",
            Self::UnknownCriticalOption(_) => "CertificateOptionUnknown",
            Self::BadSourceAddress(_) => "CertificateSourceAddressInvalid",
            Self::OtherSource { .. } => "CertificateSourceAddressMismatch",
            Self::BadForceCommand => "CertificateForceCommandInvalid",
            Self::NoOwner => "CertificateWithoutOwner",
        }
    }
}

/// Judges a certificate. The first reason to refuse it is the error; nothing that it says is believed before its
/// signature is.
pub fn judge(certificate: &Certificate, rules: &Rules<'_>) -> Result<CertificateFacts, CertificateError> {
    let authority_blob = encoded(certificate.signature_key());
    let authority = Fingerprint::of(&authority_blob);
    if !rules.authorities.contains(&authority) {
        return Err(CertificateError::UnknownAuthority(authority));
    }
    if matches!(certificate.signature().algorithm(), Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(CertificateError::WeakSignature);
    }
    certificate.verify_signature().map_err(|_| CertificateError::Altered)?;
    if !certificate.cert_type().is_user() {
        return Err(CertificateError::HostCertificate);
    }
    let (serial, key) = (certificate.serial(), Fingerprint::of(&encoded(certificate.public_key())));
    match rules.revoked.find(&authority_blob, serial, certificate.key_id(), &key) {
        Some(RevokedBy::Serial) => return Err(CertificateError::RevokedSerial(serial)),
        Some(RevokedBy::KeyId) => return Err(CertificateError::RevokedKeyId(shown(certificate.key_id()))),
        Some(RevokedBy::Key) => return Err(CertificateError::RevokedKey(key)),
        None => {}
    }
    let expires = judge_times(certificate, rules)?;
    let options = judge_options(certificate, rules.source)?;
    let os_users = judge_principals(certificate.valid_principals(), rules.os_user)?;
    let (owner, owner_id) = owner(certificate).ok_or(CertificateError::NoOwner)?;
    let permits = |name| certificate.extensions().contains_key(name);
    Ok(CertificateFacts {
        serial,
        key_id: certificate.key_id().to_owned(),
        owner,
        owner_id,
        os_users,
        sources: options.sources,
        force_command: options.force_command,
        expires,
        key,
        authority,
        permits: Permits {
            pty: permits(PERMIT_PTY),
            port_forwarding: permits(PERMIT_PORT_FORWARDING),
            agent_forwarding: permits(PERMIT_AGENT_FORWARDING),
        },
    })
}

/// Reads the end of a certificate, and refuses one that is not valid now: from "valid after" on, until before "valid
/// before" (PROTOCOL.certkeys).
fn judge_times(certificate: &Certificate, rules: &Rules<'_>) -> Result<Timestamp, CertificateError> {
    let (from, to) = (certificate.valid_after(), certificate.valid_before());
    let (begins, ends) = (instant(from), instant(to));
    if rules.now < begins {
        return Err(CertificateError::NotYetValid(begins));
    }
    if ends <= rules.now {
        return Err(CertificateError::Expired(ends));
    }
    let life = to.saturating_sub(from);
    if life > rules.max_life.as_secs() {
        return Err(CertificateError::LifeTooLong(life));
    }
    Ok(ends)
}

struct Options {
    sources: Vec<IpNet>,
    force_command: Option<String>,
}

fn judge_options(certificate: &Certificate, source: IpAddr) -> Result<Options, CertificateError> {
    let mut options = Options { sources: Vec::new(), force_command: None };
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            FORCE_COMMAND if valid_forced_command(value) => options.force_command = Some(value.clone()),
            FORCE_COMMAND => return Err(CertificateError::BadForceCommand),
            SOURCE_ADDRESS => {
                let bad = || CertificateError::BadSourceAddress(shown(value));
                options.sources = read_sources(value.split(',')).ok_or_else(bad)?;
                let source_address = source.to_canonical();
                if !options.sources.iter().any(|net| net.contains(&source_address)) {
                    return Err(CertificateError::OtherSource { source_address, allowed: shown(value) });
                }
            }
            _ => return Err(CertificateError::UnknownCriticalOption(shown(name))),
        }
    }
    Ok(options)
}

fn judge_principals(principals: &[String], wished: Option<&str>) -> Result<Vec<String>, CertificateError> {
    if principals.is_empty() {
        return Err(CertificateError::NoPrincipals);
    }
    if let Some(bad) = principals.iter().enumerate().find(|(n, name)| *n >= MAX_PRINCIPALS || !valid_os_user(name)) {
        return Err(CertificateError::BadPrincipal(shown(bad.1)));
    }
    match wished {
        Some(wished) if !principals.iter().any(|name| name == wished) => {
            let has = principals.join(", ");
            Err(CertificateError::WrongPrincipal { wished: shown(wished), has })
        }
        _ => Ok(principals.to_vec()),
    }
}

/// Reads addresses and ranges; `None` if there is none, there are too many, or one is neither.
pub fn read_sources<'a>(texts: impl IntoIterator<Item = &'a str>) -> Option<Vec<IpNet>> {
    let mut sources = Vec::new();
    for text in texts {
        if sources.len() >= MAX_SOURCES {
            return None;
        }
        let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))?;
        sources.push(range.trunc());
    }
    (!sources.is_empty()).then_some(sources)
}

/// Tells whether the text may be a forced command: not empty, bounded, on one line.
pub fn valid_forced_command(command: &str) -> bool {
    !command.trim().is_empty() && command.len() <= MAX_FORCED_COMMAND && !command.chars().any(char::is_control)
}

/// Writes our extension's content.
pub fn principal_extension(owner: &Arn, id: &UniqueId) -> String {
    format!("{owner} {id}")
}

fn owner(certificate: &Certificate) -> Option<(Arn, UniqueId)> {
    let (arn, id) = certificate.extensions().get(PRINCIPAL_EXTENSION)?.split_once(' ')?;
    Some((Arn::parse(arn).ok()?, UniqueId::parse(id).ok()?))
}

/// Returns a key in SSH's own encoding; nothing for one that cannot be written, which fits no authority.
fn encoded(key: &ssh_key::public::KeyData) -> Vec<u8> {
    ssh_key::PublicKey::from(key.clone()).to_bytes().unwrap_or_default()
}

fn instant(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests;
