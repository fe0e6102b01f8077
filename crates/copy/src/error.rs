//! Why a copy as a whole fails. What happens to one entry is reported with that entry, and the rest goes on.

use munjigi_core::copy::CopyError;

/// Why nothing more is copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CopyFailure {
    /// The other end is gone before all was said.
    #[error("the connection to the other end broke")]
    Gone,
    /// The other end broke the protocol.
    #[error("the other end does not keep to the copy protocol: {0}")]
    Protocol(#[from] CopyError),
    /// The other end gave up.
    #[error("{why}")]
    Refused {
        /// For programs.
        code: String,
        /// For people.
        why: String,
    },
    /// This end cannot go on.
    #[error("{why}")]
    Here {
        /// For programs.
        code: &'static str,
        /// For people.
        why: String,
    },
}

impl CopyFailure {
    /// Builds a failure of this end.
    pub fn here(code: &'static str, why: impl Into<String>) -> Self {
        Self::Here { code, why: why.into() }
    }
}

/// Says an error of the system in words for people.
pub(crate) fn words(errno: nix::Error) -> String {
    match errno {
        nix::Error::ENOENT => "no such file or directory".to_owned(),
        nix::Error::EACCES | nix::Error::EPERM => "permission denied".to_owned(),
        nix::Error::ENOSPC => "no space is left on the device".to_owned(),
        nix::Error::EDQUOT => "the disk quota is used up".to_owned(),
        nix::Error::EISDIR => "a directory is in its place".to_owned(),
        nix::Error::ENOTDIR => "part of its path is no directory".to_owned(),
        nix::Error::ELOOP => "a symbolic link is in its place".to_owned(),
        nix::Error::EROFS => "the file system is read-only".to_owned(),
        nix::Error::EFBIG => "the file is larger than may be".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

/// Tells whether an error will meet every further file too.
pub(crate) fn is_lasting(errno: nix::Error) -> bool {
    matches!(errno, nix::Error::ENOSPC | nix::Error::EDQUOT | nix::Error::EROFS | nix::Error::EIO)
}
