//! The host key of the deployment's SSH door, and certificates that it shows: one for each set of names under which
//! somebody may come to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::time::Timestamp;
use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::{Certificate, PrivateKey, PublicKey};

use super::keyring::Keyring;
use crate::{lock, random};

/// How long certificates of hosts are good: a node that is offline for a month is still believed (as T-38).
pub(super) const HOST_LIFE: Duration = Duration::from_secs(30 * 86_400);
/// A certificate is made anew when it is older.
pub(super) const HOST_RENEWAL: Duration = Duration::from_secs(86_400);
/// How far the clocks of clients may be behind.
const CLOCK_SLACK: Duration = Duration::from_secs(300);
/// Most certificates kept; all are forgotten when there are more, and made again as they are wanted.
const MAX_CACHED: usize = 1024;
/// Most names of one certificate; OpenSSH takes 256.
const MAX_NAMES: usize = 64;

/// What an SSH server shows to its clients.
#[derive(Clone)]
pub struct HostKey {
    /// The key.
    pub key: PrivateKey,
    /// The certificate of the host authority for it.
    pub certificate: Certificate,
}

/// Certificates that were made for the door, by their names.
#[derive(Default)]
pub(super) struct HostCertificates {
    made: Mutex<HashMap<String, (Timestamp, Arc<HostKey>)>>,
}

impl HostCertificates {
    /// Returns the key with a certificate for names, made when it is not there or old.
    pub(super) fn get(
        &self,
        authority: &Keyring,
        key: &PrivateKey,
        names: &[String],
        now: Timestamp,
    ) -> anyhow::Result<Arc<HostKey>> {
        let place = names.join(",");
        if let Some((made, known)) = lock(&self.made).get(&place)
            && now.since(*made) < HOST_RENEWAL
            && *made <= now
        {
            return Ok(known.clone());
        }
        let certificate = certify(authority, key.public_key(), "munjigi:gateway", names, now)?;
        let host_key = Arc::new(HostKey { key: key.clone(), certificate });
        let mut made = lock(&self.made);
        if made.len() >= MAX_CACHED {
            made.clear();
        }
        made.insert(place, (now, host_key.clone()));
        Ok(host_key)
    }

    /// Forgets all, after a rotation of the authority.
    pub(super) fn clear(&self) {
        lock(&self.made).clear();
    }
}

/// Signs a certificate for a host's key. Names are those of the caller's choice: it vouches that they are the host's.
pub(super) fn certify(
    authority: &Keyring,
    key: &PublicKey,
    key_id: &str,
    names: &[String],
    now: Timestamp,
) -> anyhow::Result<Certificate> {
    // Empty would mean every host (T-22).
    anyhow::ensure!(!names.is_empty(), "a host certificate needs a name");
    let signer = authority.current().context("the host authority has no key")?;
    let from = seconds(now).saturating_sub(CLOCK_SLACK.as_secs());
    let to = seconds(now.plus(HOST_LIFE));
    let mut builder = Builder::new(random::bytes::<32>(), key.key_data().clone(), from, to)?;
    builder.serial(u64::from_be_bytes(random::bytes()) >> 1)?.cert_type(CertType::Host)?.key_id(key_id)?;
    for name in names.iter().take(MAX_NAMES) {
        builder.valid_principal(name)?;
    }
    signer.sign(builder).context("the host authority could not sign")
}

/// Returns an instant as certificates have it.
pub(super) fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.0.div_euclid(1_000_000)).unwrap_or(0)
}
