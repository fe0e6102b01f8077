//! The authorities that vouch in SSH: one for people, whose certificates our door and plain sshd take, and one for
//! hosts, so that nobody is asked about host keys. Their private keys are in this room only (T-36).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use munjigi_core::secret::Secret;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::ssh::krl::Revocations;
use munjigi_core::time::Timestamp;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use tokio::sync::watch as watch_channel;

use crate::config::Config;
use crate::random;
use crate::store::{Revocation, RevokedSsh, Store};

mod host;
mod import;
mod issue;
mod keyring;
mod rsa;
pub(crate) mod watch;

pub use host::HostKey;
pub use import::{ImportError, ImportedKey};
pub use issue::{NewCertificate, SignedCertificate};
pub use keyring::{AuthorityKey, Keyring, RotateError, Stage, fingerprint};

/// Sealed setting with the keys of the authority for people.
const USER_KEYS: &str = "ssh-user-authority";
/// Sealed setting with the keys of the authority for hosts.
const HOST_KEYS: &str = "ssh-host-authority";
/// Sealed setting with the seed of the door's own host key.
const DOOR_KEY: &str = "ssh-host-key";

/// Longer than the longest life of a certificate by as much as clocks may differ.
const OVERLAP_SLACK: Duration = Duration::from_secs(3600);

/// Returns the longest that a certificate of ours can be good for, with what is allowed for clocks.
pub(crate) fn longest_life(config: &Config) -> Duration {
    config.ssh.max_certificate_life + Duration::from_secs(2 * issue::CLOCK_SLACK_SECONDS)
}

/// One of the two authorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityKind {
    /// The one that vouches for people.
    User,
    /// The one that vouches for hosts.
    Host,
}

/// Why an authority was not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// Its keys say no.
    #[error(transparent)]
    Refused(#[from] RotateError),
    /// The new keys were not stored; the old ones hold.
    #[error("the authority's new keys could not be stored: {0}")]
    Failed(#[from] crate::store::StoreError),
    /// The new keys could not be written; the old ones hold.
    #[error("the authority's new keys could not be written")]
    Unwritable,
}

/// The authorities of a deployment.
pub struct SshAuthority {
    user: ArcSwap<Keyring>,
    host: ArcSwap<Keyring>,
    door: PrivateKey,
    door_certificates: host::HostCertificates,
    /// Held while keys are replaced, so that no rotation undoes another.
    rotating: tokio::sync::Mutex<()>,
    /// Tells after each rotation; received by whoever tells nodes.
    changed: watch_channel::Sender<()>,
    /// Version of the last document for a node.
    version: AtomicU64,
}

impl SshAuthority {
    /// Reads the keys from the database, making those that are not there.
    pub async fn open(store: &Store, now: Timestamp) -> anyhow::Result<Self> {
        let user = keyring(store, USER_KEYS, now).await?;
        let host = keyring(store, HOST_KEYS, now).await?;
        let seed = match store.secret_setting(DOOR_KEY).await.context("failed to open the SSH host key")? {
            Some(seed) => seed,
            None => {
                let seed = Secret::new(random::bytes::<32>().to_vec());
                store.set_secret_setting(DOOR_KEY, seed.expose()).await.context("failed to store the SSH host key")?;
                seed
            }
        };
        let seed = seed.expose().as_slice().try_into().map_err(|_| damaged(DOOR_KEY))?;
        Ok(Self {
            user: ArcSwap::from_pointee(user),
            host: ArcSwap::from_pointee(host),
            door: PrivateKey::from(Ed25519Keypair::from_seed(seed)),
            door_certificates: host::HostCertificates::default(),
            rotating: tokio::sync::Mutex::new(()),
            changed: watch_channel::Sender::new(()),
            version: AtomicU64::new(0),
        })
    }

    /// Returns the keys that vouch for people.
    pub fn user(&self) -> Arc<Keyring> {
        self.user.load_full()
    }

    /// Returns the keys that vouch for hosts.
    pub fn host(&self) -> Arc<Keyring> {
        self.host.load_full()
    }

    /// Returns what the SSH door shows to a client that came under one of these names (host names and addresses,
    /// without ports): the deployment's host key, and a certificate for all of them. Made once a day for each list.
    /// The caller vouches for the names; an empty list is an error (T-22).
    pub fn host_key(&self, names: &[String], now: Timestamp) -> anyhow::Result<Arc<HostKey>> {
        self.door_certificates.get(&self.host(), &self.door, names, now)
    }

    /// Signs a certificate for a person. The caller has decided that the person may have it, and remembers it.
    pub fn issue(&self, new: &NewCertificate<'_>) -> anyhow::Result<SignedCertificate> {
        issue::sign(&self.user(), new)
    }

    /// Returns the fingerprints of the authorities for people that are believed now.
    pub fn believed(&self, now: Timestamp) -> Vec<Fingerprint> {
        self.user().believed(now).map(AuthorityKey::fingerprint).collect()
    }

    /// Returns what is revoked, for each authority for people that is believed now.
    pub fn revocations(&self, revoked: &RevokedSsh, now: Timestamp) -> Revocations {
        let mut all = Revocations::default();
        let user = self.user();
        let authorities: Vec<_> = user.believed(now).filter_map(|key| key.public().to_bytes().ok()).collect();
        for entry in &revoked.entries {
            match entry {
                Revocation::Serial(serial) => {
                    authorities.iter().for_each(|authority| all.revoke_serial(authority, *serial));
                }
                Revocation::KeyId(id) => authorities.iter().for_each(|authority| all.revoke_key_id(authority, id)),
                Revocation::Key(key) => all.revoke_key(*key),
            }
        }
        all
    }

    /// Returns the version of the next document for a node: the time in microseconds, and higher than every one before.
    fn next_version(&self, now: Timestamp) -> u64 {
        let now = u64::try_from(now.0).unwrap_or(0);
        let higher = |last: u64| Some(now.max(last.saturating_add(1)));
        match self.version.fetch_update(Ordering::SeqCst, Ordering::SeqCst, higher) {
            Ok(last) | Err(last) => now.max(last.saturating_add(1)),
        }
    }

    /// Has an authority sign with its next key from now on, or with one that is brought. What the former key signed is
    /// honoured until it ends: `life` is the longest that it signed for. Without `honour` former keys are believed no
    /// more from this moment.
    pub async fn rotate(
        &self,
        store: &Store,
        kind: AuthorityKind,
        brought: Option<ImportedKey>,
        life: Duration,
        honour: bool,
        now: Timestamp,
    ) -> Result<(), RotationError> {
        let (place, name) = match kind {
            AuthorityKind::User => (&self.user, USER_KEYS),
            AuthorityKind::Host => (&self.host, HOST_KEYS),
        };
        let life = if kind == AuthorityKind::Host { host::HOST_LIFE } else { life };
        let overlap = if honour { life + OVERLAP_SLACK } else { Duration::ZERO };
        let _rotating = self.rotating.lock().await;
        let rotated = match brought {
            Some(key) => place.load().imported(key.into_key(), now, overlap)?,
            None => place.load().rotated(Secret::new(random::bytes::<32>()).expose(), now, overlap)?,
        };
        store.set_secret_setting(name, rotated.to_bytes().ok_or(RotationError::Unwritable)?.expose()).await?;
        place.store(Arc::new(rotated));
        self.changed.send_replace(());
        if kind == AuthorityKind::Host {
            self.door_certificates.clear();
        }
        Ok(())
    }
}

async fn keyring(store: &Store, name: &str, now: Timestamp) -> anyhow::Result<Keyring> {
    if let Some(stored) = store.secret_setting(name).await.with_context(|| format!("failed to open the {name}"))? {
        return Keyring::from_bytes(stored.expose()).ok_or_else(|| damaged(name));
    }
    let seeds = [Secret::new(random::bytes::<32>()), Secret::new(random::bytes::<32>())];
    let [current, next] = &seeds;
    let made = Keyring::new(current.expose(), next.expose(), now);
    let written = made.to_bytes().with_context(|| format!("failed to write the {name}"))?;
    store.set_secret_setting(name, written.expose()).await.with_context(|| format!("failed to store the {name}"))?;
    Ok(made)
}

fn damaged(name: &str) -> anyhow::Error {
    anyhow::anyhow!("the {name} in the database is damaged; restore the database from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::testing::TestServer;

    #[tokio::test]
    async fn keys_are_made_once_and_the_door_shows_certificates_for_its_names() {
        let test = TestServer::start().await;
        let store = &test.server().store;
        let now = clock::now();
        let first = SshAuthority::open(store, now).await.unwrap();
        let again = SshAuthority::open(store, now).await.unwrap();
        let believed = |authority: &SshAuthority| {
            let (user, host) = (authority.user(), authority.host());
            user.believed(now).chain(host.believed(now)).map(AuthorityKey::fingerprint).collect::<Vec<_>>()
        };
        assert_eq!(believed(&first), believed(&again));
        assert_eq!(believed(&first).len(), 4);
        let names = ["web-1".to_owned(), "web-1.munjigi".to_owned()];
        let shown = first.host_key(&names, now).unwrap();
        assert_eq!(shown.certificate.valid_principals(), names);
        assert_eq!(shown.key.public_key(), again.door.public_key());
        assert!(shown.certificate.cert_type().is_host());
        let authority = first.host().current().unwrap().public().fingerprint(Default::default());
        shown.certificate.validate_at(host::seconds(now), [&authority]).unwrap();
        // The same names get the same certificate, until it is a day old.
        assert!(Arc::ptr_eq(&shown, &first.host_key(&names, now).unwrap()));
        assert!(!Arc::ptr_eq(&shown, &first.host_key(&names, now.plus(host::HOST_RENEWAL)).unwrap()));
        assert!(first.host_key(&[], now).is_err());
        test.stop().await;
    }
}
