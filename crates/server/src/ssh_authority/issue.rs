//! Certificates for people: what one says, and its signature. Who may have it was decided before.

use anyhow::Context as _;
use ipnet::IpNet;
use munjigi_core::arn::Arn;
use munjigi_core::id::UniqueId;
use munjigi_core::ssh::certificate::{FORCE_COMMAND, PRINCIPAL_EXTENSION, SOURCE_ADDRESS, principal_extension};
use munjigi_core::ssh::{Fingerprint, PublicKey};
use munjigi_core::time::Timestamp;
use russh::keys::Certificate;
use russh::keys::ssh_key;
use russh::keys::ssh_key::certificate::{Builder, CertType};

use super::host::seconds;
use super::keyring::Keyring;
use crate::random;

/// How far the clocks of nodes may be behind ours.
pub(super) const CLOCK_SLACK_SECONDS: u64 = 60;

/// What a certificate is to say.
#[derive(Debug)]
pub struct NewCertificate<'a> {
    /// The key.
    pub key: &'a PublicKey,
    /// Its key id, for people.
    pub key_id: &'a str,
    /// The owner.
    pub owner: &'a Arn,
    /// The owner's unchanging id.
    pub owner_id: &'a UniqueId,
    /// The OS users; at least one.
    pub os_users: &'a [String],
    /// From where; empty for anywhere.
    pub sources: &'a [IpNet],
    /// The only command.
    pub force_command: Option<&'a str>,
    /// What it permits: names of extensions.
    pub extensions: &'a [&'static str],
    /// From when.
    pub issued: Timestamp,
    /// Until when.
    pub expires: Timestamp,
}

/// A certificate, and what it can be found by.
#[derive(Debug)]
pub struct SignedCertificate {
    /// The certificate.
    pub certificate: Certificate,
    /// Its serial number: random, below 2^53, never 0.
    pub serial: u64,
    /// Fingerprint of the authority that signed it.
    pub authority: Fingerprint,
}

/// Signs a certificate with the authority's current key.
pub(super) fn sign(authority: &Keyring, new: &NewCertificate<'_>) -> anyhow::Result<SignedCertificate> {
    // To OpenSSH, none would be everybody (T-22).
    anyhow::ensure!(!new.os_users.is_empty(), "a certificate needs an OS user");
    let signer = authority.current().context("the user authority has no key")?;
    let key = ssh_key::PublicKey::from_bytes(new.key.blob()).context("the key cannot be certified")?;
    // Random, so that a database from a backup gives no number a second time.
    let serial = (u64::from_be_bytes(random::bytes()) >> 11).max(1);
    let from = seconds(new.issued).saturating_sub(CLOCK_SLACK_SECONDS);
    let mut builder = Builder::new(random::bytes::<32>(), key.key_data().clone(), from, seconds(new.expires))?;
    builder.serial(serial)?.cert_type(CertType::User)?.key_id(new.key_id)?;
    for os_user in new.os_users {
        builder.valid_principal(os_user)?;
    }
    if let Some(command) = new.force_command {
        builder.critical_option(FORCE_COMMAND, command)?;
    }
    if !new.sources.is_empty() {
        let list: Vec<String> = new.sources.iter().map(ToString::to_string).collect();
        builder.critical_option(SOURCE_ADDRESS, list.join(","))?;
    }
    for name in new.extensions {
        builder.extension(*name, "")?;
    }
    builder.extension(PRINCIPAL_EXTENSION, principal_extension(new.owner, new.owner_id))?;
    let certificate = signer.sign(builder).context("the user authority could not sign")?;
    Ok(SignedCertificate { certificate, serial, authority: signer.fingerprint() })
}
