//! What the control plane remembers: identities, policies, documents, nodes, targets, activations, tags, sessions and
//! settings, in SQLite.
//!
//! All SQL of the server is in this folder, one file per notion; the methods of [`Store`] are what a second
//! implementation (PostgreSQL, for several servers) has to answer. Who may ask for what is not decided here, and the
//! clock is not read here: instants are arguments. Text is bound, never put together (T-70).

mod access_keys;
mod accounts;
mod activations;
mod builtin;
mod documents;
mod error;
mod groups;
mod inline_policies;
mod load;
mod mfa_devices;
mod node_addresses;
mod nodes;
mod oidc_providers;
mod open;
mod page;
mod policies;
mod pushed_keys;
mod roles;
mod row;
mod sessions;
mod settings;
mod ssh_certificates;
mod ssh_keys;
mod tags;
mod targets;
#[cfg(test)]
mod tests;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

use sqlx::{Sqlite, SqlitePool, Transaction};

use munjigi_core::id::AccountId;
use munjigi_core::secret::MasterKeys;

pub use access_keys::{AccessKey, KeySecret, LastUsed, NewAccessKey};
pub use accounts::{NodeAccounts, StoredKeyFile, StoredRule};
pub use activations::{Activation, ActivationRequest, NewActivation};
pub use builtin::ADMINISTRATOR_ACCESS;
pub use documents::{DocumentVersion, NewDocument, NewVersion, Sharing, StoredDocument, VersionRef};
pub use error::{Kind, OpenError, StoreError};
pub use groups::Group;
pub use inline_policies::{InlinePolicy, Owner};
pub use load::{IdentityRows, PolicyInForce, SealedKey};
pub use mfa_devices::MfaDevice;
pub use nodes::{AgentKind, NewNode, Node, NodeFacts, NodeName, RegisterError};
pub use oidc_providers::OidcProvider;
pub use page::{InvalidToken, Page, PageTokens};
pub use policies::{NewPolicy, Policy, PolicyEntities, PolicyFilter, PolicyScope, PolicyVersion};
pub use pushed_keys::PushedKey;
pub use roles::{NewRole, Role, Trust};
pub use sessions::{SessionCursor, SessionEnd, SessionFilter, SessionRow};
pub use ssh_certificates::{IssuedCertificate, Revocation, Revoked, RevokedSsh};
pub use ssh_keys::{RegisteredKey, SshPublicKey};
pub use tags::{Tag, Tagged};
pub use targets::{CredentialChange, PutTarget, StoredTarget};
pub use users::User;

/// Quotas of IAM (`aws-api` section C.9 and the model), counted in the same transaction that adds one more.
pub mod quota {
    /// Access keys of one user.
    pub const ACCESS_KEYS_PER_USER: u64 = 2;
    /// SSH public keys of one user.
    pub const SSH_KEYS_PER_USER: u64 = 5;
    /// Groups that one user is in.
    pub const GROUPS_PER_USER: u64 = 10;
    /// Managed policies attached to one user or group.
    pub const ATTACHED_POLICIES: u64 = 10;
    /// Versions of one managed policy.
    pub const VERSIONS_PER_POLICY: u64 = 5;
    /// Tags on one resource.
    pub const TAGS_PER_RESOURCE: u64 = 50;
    /// Users of the account.
    pub const USERS: u64 = 5000;
    /// Groups of the account.
    pub const GROUPS: u64 = 300;
    /// Session documents of the account.
    pub const DOCUMENTS: u64 = 500;
    /// Targets of the account.
    pub const TARGETS: u64 = 5000;
    /// Account rules of the account; each is looked at for each person and node.
    pub const ACCOUNT_RULES: u64 = 200;
    /// Key files of the account.
    pub const ACCOUNT_KEY_FILES: u64 = 200;
    /// Versions of one document.
    pub const VERSIONS_PER_DOCUMENT: u64 = 1000;
    /// Accounts that one document is shared with.
    pub const SHARES_PER_DOCUMENT: u64 = 1000;
    /// Roles of the account.
    pub const ROLES: u64 = 1000;
    /// MFA devices of the account.
    pub const MFA_DEVICES: u64 = 5000;
    /// MFA devices of one user.
    pub const MFA_DEVICES_PER_USER: u64 = 8;
    /// OpenID Connect providers of the account.
    pub const OIDC_PROVIDERS: u64 = 100;
    /// Audiences of one OpenID Connect provider.
    pub const CLIENT_IDS_PER_PROVIDER: u64 = 100;
    /// Customer-managed policies of the account.
    pub const POLICIES: u64 = 1500;
}

/// The database. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// The one connection that writes: SQLite has one writer, and waiting here is fair where its busy loop is not.
    writer: SqlitePool,
    /// Connections that read a snapshot beside the writer.
    readers: SqlitePool,
    master: Arc<MasterKeys>,
    account: AccountId,
    pages: PageTokens,
}

impl Store {
    /// Returns the account that everything in this database belongs to; chosen at its creation.
    pub fn account(&self) -> &AccountId {
        &self.inner.account
    }

    /// Returns the maker and reader of page tokens; they stay valid over a restart.
    pub fn pages(&self) -> &PageTokens {
        &self.inner.pages
    }

    /// Returns the database's file.
    pub fn path(&self) -> &std::path::Path {
        &self.inner.path
    }

    /// Folds the write-ahead log into the file and closes all connections.
    pub async fn close(&self) {
        self.inner.readers.close().await;
        self.inner.writer.close().await;
    }

    fn master(&self) -> &MasterKeys {
        &self.inner.master
    }

    fn readers(&self) -> &SqlitePool {
        &self.inner.readers
    }

    /// Begins the one writing transaction there can be. Dropping it undoes it; while it is held no other connection is
    /// asked for (T-99).
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.inner.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Folds a name for uniqueness without regard to case.
fn fold(name: &str) -> String {
    name.to_lowercase()
}
