//! The identities in memory: looked up on every request, replaced as a whole after every change (revocation, T-6).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use munjigi_core::arn::Deployment;
use munjigi_core::id::{AccessKeyId, SshKeyId, UniqueId};
use munjigi_core::policy::NamedPolicy;
use munjigi_core::ssh::{Fingerprint, PublicKey};
use tokio::sync::watch;

use super::{Caller, Principal, Role, load};
use crate::clock;
use crate::store::{RevokedSsh, Store, StoreError};

/// What the store hands over: every principal with compiled policies, every access key with its sealed secret.
#[derive(Debug, Default)]
pub struct LoadedIdentities {
    /// All users.
    pub principals: Vec<Principal>,
    /// All roles.
    pub roles: Vec<Role>,
    /// All managed policies, by their ARNs: what sessions may be made with.
    pub managed: HashMap<Box<str>, NamedPolicy>,
    /// All access keys.
    pub keys: Vec<AccessKey>,
    /// All registered SSH public keys.
    pub ssh_keys: Vec<SshKey>,
    /// What SSH's authorities have revoked.
    pub revoked_ssh: Arc<RevokedSsh>,
}

/// A registered SSH public key.
#[derive(Debug, Clone)]
pub struct SshKey {
    /// Its id.
    pub id: SshKeyId,
    /// The unique id of the user whose key it is.
    pub owner: UniqueId,
    /// Inactive keys let nobody in.
    pub active: bool,
    /// The key.
    pub key: PublicKey,
}

/// An access key as stored.
#[derive(Debug, Clone)]
pub struct AccessKey {
    /// Its id.
    pub id: AccessKeyId,
    /// The unique id of the user whose key it is.
    pub owner: UniqueId,
    /// Inactive keys authenticate nobody.
    pub active: bool,
    /// The secret, sealed; opened only to derive a signing key.
    pub sealed_secret: Vec<u8>,
}

#[derive(Debug, Default)]
struct Snapshot {
    version: u64,
    /// The number of the reload that made it.
    reload: u64,
    by_arn: HashMap<Box<str>, Arc<Principal>>,
    by_unique_id: HashMap<UniqueId, Arc<Principal>>,
    roles: HashMap<UniqueId, Arc<Role>>,
    roles_by_arn: HashMap<Box<str>, Arc<Role>>,
    managed: HashMap<Box<str>, NamedPolicy>,
    keys: HashMap<AccessKeyId, AccessKey>,
    /// A key is registered once: it must name one user.
    ssh_keys: HashMap<Fingerprint, SshKey>,
    revoked_ssh: Arc<RevokedSsh>,
}

/// The identities that hold now.
pub struct Identities {
    deployment: Deployment,
    snapshot: ArcSwap<Snapshot>,
    /// Tells the new version after each change; sent by [`Identities::replace`], received by whoever re-judges.
    version_tx: watch::Sender<u64>,
    /// How many reloads have begun; see [`Identities::reload`].
    reloads: AtomicU64,
}

impl Identities {
    /// Builds the first snapshot, version 1: nobody is known before the first [`Identities::reload`].
    pub fn new(deployment: Deployment) -> Self {
        let (version_tx, _) = watch::channel(1);
        let snapshot = ArcSwap::from_pointee(Snapshot { version: 1, ..Snapshot::default() });
        Self { deployment, snapshot, version_tx, reloads: AtomicU64::new(0) }
    }

    /// Returns where the identities live.
    pub(super) fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// Loads everything anew after a change in the store and replaces the snapshot; its version is one higher.
    ///
    /// Reloads overtake each other: each takes its number before it reads, and one that read earlier never replaces
    /// what a later one has read, which holds the earlier one's change too.
    pub async fn reload(&self, store: &Store) -> Result<(), StoreError> {
        let number = self.reloads.fetch_add(1, Ordering::SeqCst) + 1;
        let loaded = load::compile(store.load_identities().await?, &self.deployment);
        self.version_tx.send_if_modified(|version| {
            let newer = self.snapshot.load().reload < number;
            if newer {
                *version = version.saturating_add(1);
                self.snapshot.store(Arc::new(Snapshot::build(*version, number, loaded)));
            }
            newer
        });
        Ok(())
    }

    /// Returns the number of the snapshot that holds now.
    pub fn version(&self) -> u64 {
        self.snapshot.load().version
    }

    /// Returns a receiver that sees every new version (or the newest of several).
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.version_tx.subscribe()
    }

    /// Finds a principal by its resource name.
    pub fn by_arn(&self, arn: &str) -> Option<Arc<Principal>> {
        self.snapshot.load().by_arn.get(arn).cloned()
    }

    /// Finds a principal by its unchanging id.
    pub fn by_unique_id(&self, id: &UniqueId) -> Option<Arc<Principal>> {
        self.snapshot.load().by_unique_id.get(id).cloned()
    }

    /// Finds a role by its unchanging id.
    pub fn role(&self, id: &UniqueId) -> Option<Arc<Role>> {
        self.snapshot.load().roles.get(id).cloned()
    }

    /// Finds a role by its resource name.
    pub fn role_by_arn(&self, arn: &str) -> Option<Arc<Role>> {
        self.snapshot.load().roles_by_arn.get(arn).cloned()
    }

    /// Finds a managed policy by its resource name.
    pub fn managed_policy(&self, arn: &str) -> Option<NamedPolicy> {
        self.snapshot.load().managed.get(arn).cloned()
    }

    /// Returns the caller as it is now: with its policies of this moment, or not at all once its key is gone, inactive
    /// or somebody else's, or its temporary credentials have ended (T-6). Links outlive changes; what comes over them
    /// is judged by this.
    pub fn present(&self, caller: &Caller) -> Option<Caller> {
        let former = caller.principal();
        let principal = match (former.statement(), caller.access_key(), caller.ssh()) {
            (Some(statement), ..) => self.of_statement(statement).filter(|_| !statement.has_expired(clock::now()))?,
            (None, Some(key), _) => self.by_access_key(key)?.1,
            (None, None, Some(_)) => self.by_unique_id(former.unique_id.as_ref()?)?,
            (None, None, None) => return None,
        };
        if principal.unique_id != former.unique_id {
            return None;
        }
        match caller.ssh() {
            Some(proof) => {
                let holds = self.ssh_proof_holds(proof, &principal) && !proof.has_expired(clock::now());
                holds.then(|| Caller::of_ssh(principal, proof.clone()))
            }
            None => Some(Caller::new(principal, caller.access_key().cloned())),
        }
    }

    /// Returns what SSH's authorities have revoked.
    pub fn revoked_ssh(&self) -> Arc<RevokedSsh> {
        self.snapshot.load().revoked_ssh.clone()
    }

    /// Finds a registered SSH public key, also an inactive one, and its owner.
    pub fn ssh_key(&self, fingerprint: &Fingerprint) -> Option<(SshKey, Arc<Principal>)> {
        let snapshot = self.snapshot.load();
        let key = snapshot.ssh_keys.get(fingerprint)?;
        let owner = snapshot.by_unique_id.get(&key.owner)?;
        Some((key.clone(), owner.clone()))
    }

    /// Returns all active SSH public keys with their owners, in the order of their ids.
    pub fn active_ssh_keys(&self) -> Vec<(SshKey, Arc<Principal>)> {
        let snapshot = self.snapshot.load();
        let owned = |key: &SshKey| Some((key.clone(), snapshot.by_unique_id.get(&key.owner)?.clone()));
        let mut keys: Vec<_> = snapshot.ssh_keys.values().filter(|key| key.active).filter_map(owned).collect();
        keys.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
        keys
    }

    /// Finds an active access key and its owner.
    pub fn by_access_key(&self, id: &AccessKeyId) -> Option<(AccessKey, Arc<Principal>)> {
        let snapshot = self.snapshot.load();
        let key = snapshot.keys.get(id).filter(|key| key.active)?;
        let owner = snapshot.by_unique_id.get(&key.owner)?;
        Some((key.clone(), owner.clone()))
    }
}

impl Snapshot {
    fn build(version: u64, reload: u64, loaded: LoadedIdentities) -> Self {
        let mut snapshot = Self { version, reload, ..Self::default() };
        for principal in loaded.principals {
            let principal = Arc::new(principal);
            snapshot.by_arn.insert(principal.arn.as_str().into(), principal.clone());
            if let Some(id) = principal.unique_id.clone() {
                snapshot.by_unique_id.insert(id, principal);
            }
        }
        for role in loaded.roles {
            let role = Arc::new(role);
            snapshot.roles_by_arn.insert(role.arn.as_str().into(), role.clone());
            snapshot.roles.insert(role.id.clone(), role);
        }
        snapshot.managed = loaded.managed;
        snapshot.keys = loaded.keys.into_iter().map(|key| (key.id.clone(), key)).collect();
        snapshot.revoked_ssh = loaded.revoked_ssh;
        snapshot.ssh_keys = loaded.ssh_keys.into_iter().map(|key| (key.key.fingerprint(), key)).collect();
        snapshot
    }
}
