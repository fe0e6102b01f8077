//! The authorities that vouch in SSH: one for people, whose certificates our door and plain sshd take, and one for
//! hosts, so that nobody is asked about host keys. Their private keys are in this room only (T-36).

use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use munjigi_core::secret::Secret;
use munjigi_core::time::Timestamp;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::private::Ed25519Keypair;

use crate::random;
use crate::store::Store;

mod host;
mod keyring;

pub use host::HostKey;
pub use keyring::{AuthorityKey, Keyring, RotateError, Stage, fingerprint};

/// Sealed setting with the keys of the authority for people.
const USER_KEYS: &str = "ssh-user-authority";
/// Sealed setting with the keys of the authority for hosts.
const HOST_KEYS: &str = "ssh-host-authority";
/// Sealed setting with the seed of the door's own host key.
const DOOR_KEY: &str = "ssh-host-key";

/// The authorities of a deployment.
pub struct SshAuthority {
    user: ArcSwap<Keyring>,
    host: ArcSwap<Keyring>,
    door: PrivateKey,
    door_certificates: host::HostCertificates,
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
}

async fn keyring(store: &Store, name: &str, now: Timestamp) -> anyhow::Result<Keyring> {
    if let Some(stored) = store.secret_setting(name).await.with_context(|| format!("failed to open the {name}"))? {
        return Keyring::from_bytes(stored.expose()).ok_or_else(|| damaged(name));
    }
    let seeds = [Secret::new(random::bytes::<32>()), Secret::new(random::bytes::<32>())];
    let [current, next] = &seeds;
    let made = Keyring::new(current.expose(), next.expose(), now);
    store
        .set_secret_setting(name, made.to_bytes().expose())
        .await
        .with_context(|| format!("failed to store the {name}"))?;
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
