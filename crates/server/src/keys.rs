//! The deployment's keys: root, grant and checkpoint keys, sealed in the database under the master key. The only room
//! of the server that holds the grant key (T-20); a server without it can start nothing.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use munjigi_core::secret::Secret;
use munjigi_core::time::Timestamp;
use munjigi_core::trust::{KeyId, KeyPurpose, TrustBundle, TrustedKey};

use crate::store::Store;

/// How long nodes believe a key from the time it was made.
const KEY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Setting that holds when the keys were made, microseconds in big-endian.
const CREATED: &str = "keys-created";
/// Version of the trust bundle; rises when a key is added or dropped.
const BUNDLE_VERSION: u64 = 1;

/// The keys.
pub struct Keys {
    root_public: [u8; 32],
    grant: Ed25519KeyPair,
    grant_id: KeyId,
    /// Shared with the trail's thread, which signs.
    checkpoint: Arc<Ed25519KeyPair>,
    checkpoint_id: KeyId,
    bundle: TrustBundle,
    signed_bundle: Vec<u8>,
}

impl Keys {
    /// Reads the keys from the database, making those that are not there.
    pub async fn open(store: &Store, now: Timestamp) -> anyhow::Result<Self> {
        let created = match store.setting(CREATED).await? {
            Some(bytes) => {
                let bytes: [u8; 8] = bytes.as_slice().try_into().context("the setting keys-created is damaged")?;
                Timestamp(i64::from_be_bytes(bytes))
            }
            None => {
                store.set_setting(CREATED, &now.0.to_be_bytes()).await?;
                now
            }
        };
        let (root, root_public) = key(store, "root-key").await?;
        let (grant, grant_public) = key(store, "grant-key").await?;
        let (checkpoint, checkpoint_public) = key(store, "checkpoint-key").await?;
        let trusted = |purpose, public: [u8; 32]| TrustedKey {
            id: KeyId::of(&public),
            purpose,
            public,
            not_before: Timestamp(created.0.saturating_sub(5 * 60 * 1_000_000)),
            not_after: created.plus(KEY_LIFE),
        };
        let bundle = TrustBundle {
            version: BUNDLE_VERSION,
            keys: vec![trusted(KeyPurpose::Grant, grant_public), trusted(KeyPurpose::Checkpoint, checkpoint_public)],
        };
        // The root signs the bundle and is not kept in memory afterwards.
        let signed_bundle = bundle.sign(&root);
        Ok(Self {
            root_public,
            grant,
            grant_id: KeyId::of(&grant_public),
            checkpoint: Arc::new(checkpoint),
            checkpoint_id: KeyId::of(&checkpoint_public),
            bundle,
            signed_bundle,
        })
    }

    /// Returns the public half of the deployment's root, which agents pin when they join.
    pub fn root_public(&self) -> &[u8; 32] {
        &self.root_public
    }

    /// Returns the trust bundle, signed by the root.
    pub fn signed_bundle(&self) -> &[u8] {
        &self.signed_bundle
    }

    /// Returns the keys that are trusted and what for.
    pub fn trusted(&self) -> &[TrustedKey] {
        &self.bundle.keys
    }

    /// Returns the key that signs grants, with its id.
    pub fn grant(&self) -> (KeyId, &Ed25519KeyPair) {
        (self.grant_id, &self.grant)
    }

    /// Returns the key that signs audit checkpoints, with its id.
    pub fn checkpoint(&self) -> (KeyId, &Arc<Ed25519KeyPair>) {
        (self.checkpoint_id, &self.checkpoint)
    }
}

async fn key(store: &Store, name: &str) -> anyhow::Result<(Ed25519KeyPair, [u8; 32])> {
    let seed = match store.secret_setting(name).await.with_context(|| format!("failed to open the {name}"))? {
        Some(seed) => seed,
        None => {
            let mut seed = vec![0; 32];
            rand::fill(&mut seed).context("the system has no randomness")?;
            let seed = Secret::new(seed);
            store
                .set_secret_setting(name, seed.expose())
                .await
                .with_context(|| format!("failed to store the {name}"))?;
            seed
        }
    };
    let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
        .map_err(|_| anyhow::anyhow!("the {name} in the database is damaged; restore the database from a backup"))?;
    let public = pair.public_key().as_ref().try_into().context("a public key has not 32 bytes")?;
    Ok((pair, public))
}
