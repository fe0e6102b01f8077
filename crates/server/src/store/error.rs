//! What can go wrong with the store: at opening, and with one request. Callers turn these into answers of the API.

use std::path::{Path, PathBuf};

use munjigi_core::secret::EnvelopeError;

/// Why a database was not opened or created.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file. A new one is only made by [`super::Store::create`].
    #[error("the database {0} does not exist; restore it from a backup, or start with an empty data directory")]
    Missing(PathBuf),
    /// A new database was wanted and there is one already.
    #[error("the database {0} exists already")]
    Exists(PathBuf),
    /// The file is something else: empty, foreign, or overwritten.
    #[error("{0} is not a database of munjigi, or its head is damaged; restore it from a backup")]
    NotOurs(PathBuf),
    /// SQLite's own check found damage.
    #[error("the database {path} is damaged ({found}); restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says about it.
        found: String,
    },
    /// Written by a newer program (T-18).
    #[error("the database {path} has schema {found}, newer than this program knows; run the newer munjigi")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema's version.
        found: i64,
    },
    /// A migration that was applied is not the one that this program carries.
    #[error("schema {found} of the database {path} was made by another build; run the munjigi that made it")]
    OtherBuild {
        /// The file.
        path: PathBuf,
        /// The version that differs.
        found: i64,
    },
    /// The secrets in it are sealed with another master key.
    #[error("the master key does not fit the database {0}; put back the master key that belongs to it")]
    OtherMasterKey(PathBuf),
    /// Another process holds it.
    #[error("the database {0} is locked by another process; stop the other munjigi server first")]
    Locked(PathBuf),
    /// It cannot be written.
    #[error("the database {0} cannot be written; check the owner, mode and mount of its directory")]
    ReadOnly(PathBuf),
    /// The disk is full.
    #[error("the disk that holds the database {0} is full; free some space")]
    Full(PathBuf),
    /// Anything else of the file system.
    #[error("the database {path} could not be opened: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Anything else of SQLite.
    #[error("the database {path} could not be opened: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: sqlx::Error,
    },
    /// A request made while opening failed.
    #[error("the database {path} could not be prepared: {source}")]
    Prepare {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: StoreError,
    },
}

/// Primary result codes of SQLite, <https://www.sqlite.org/rescode.html>; the extended ones carry them in the low byte.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READONLY: i32 = 8;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const NOTADB: i32 = 26;
}

impl OpenError {
    /// Names what stands behind an error of SQLite.
    pub(super) fn from_sqlx(path: &Path, source: sqlx::Error) -> Self {
        let path = path.to_owned();
        let found = source
            .as_database_error()
            .and_then(|error| Some((error.code()?.parse::<i32>().ok()? & 0xff, error.message().to_owned())));
        match found {
            Some((code::BUSY | code::LOCKED, _)) => Self::Locked(path),
            Some((code::READONLY | code::CANTOPEN, _)) => Self::ReadOnly(path),
            Some((code::FULL, _)) => Self::Full(path),
            Some((code::NOTADB, _)) => Self::NotOurs(path),
            Some((code::CORRUPT, found)) => Self::Damaged { path, found },
            _ => Self::Database { path, source },
        }
    }
}

/// The kinds of things that requests name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IAM user.
    User,
    /// An IAM group.
    Group,
    /// An IAM role.
    Role,
    /// A virtual MFA device.
    MfaDevice,
    /// An OpenID Connect provider.
    OidcProvider,
    /// A managed or inline policy.
    Policy,
    /// A version of a managed policy.
    PolicyVersion,
    /// A permissions boundary of a user.
    Boundary,
    /// An access key.
    AccessKey,
    /// An SSH public key.
    SshKey,
    /// An activation.
    Activation,
    /// A node.
    Node,
    /// A target.
    Target,
    /// An account rule.
    AccountRule,
    /// Keys of a group.
    AccountKeyFile,
    /// A session.
    Session,
    /// A session document.
    Document,
    /// A version of a session document.
    DocumentVersion,
    /// The text of a session document.
    DocumentContent,
}

impl Kind {
    /// Returns the word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Role => "role",
            Self::MfaDevice => "MFA device",
            Self::OidcProvider => "OpenID Connect provider",
            Self::Policy => "policy",
            Self::PolicyVersion => "policy version",
            Self::Boundary => "permissions boundary",
            Self::AccessKey => "access key",
            Self::SshKey => "SSH public key",
            Self::Activation => "activation",
            Self::Node => "node",
            Self::Target => "target",
            Self::AccountRule => "account rule",
            Self::AccountKeyFile => "key file",
            Self::Session => "session",
            Self::Document => "document",
            Self::DocumentVersion => "document version",
            Self::DocumentContent => "document content",
        }
    }
}

/// Why a request to the store failed. Nothing of it has happened then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Named but not there.
    #[error("the {} `{name}` does not exist", kind.as_str())]
    NotFound {
        /// What was wanted.
        kind: Kind,
        /// By which name or id.
        name: String,
    },
    /// The name is taken, without regard to case.
    #[error("a {} named `{name}` exists already", kind.as_str())]
    Exists {
        /// What was to be made.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// Something still hangs on what was to be deleted.
    #[error("the {} `{name}` still has {left}; remove them first", kind.as_str())]
    InUse {
        /// What was to be deleted.
        kind: Kind,
        /// Its name.
        name: String,
        /// What is left.
        left: &'static str,
    },
    /// A quota is reached.
    #[error("no more than {limit} {what}")]
    Limit {
        /// What there would be too many of.
        what: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// The thing is in a state that forbids it.
    #[error("{0}")]
    Refused(&'static str),
    /// A stored value is not what this program would have written; the row counts as absent (T-101).
    #[error("the stored {what} of `{row}` cannot be read; restore the database from a backup")]
    Unreadable {
        /// Which value.
        what: &'static str,
        /// Of which row.
        row: String,
    },
    /// A secret does not open, or none can be sealed.
    #[error("a sealed secret of the database does not open: {0}")]
    Seal(#[from] EnvelopeError),
    /// The database itself failed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Tells whether the database refused a row because its key is taken.
    pub(super) fn is_taken(error: &sqlx::Error) -> bool {
        error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
    }

    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        Self::NotFound { kind, name: name.to_owned() }
    }
}
