//! The commands with which `scp` and `rsync` ask a host for files over SSH, as what they are: copies, to be judged like
//! copies and not like commands.
//!
//! Only what is exactly such a command is taken; what is merely similar stays a command, for whoever judges those. Nothing
//! here is ever given to a shell.

mod rsync;
pub mod rsync_link;
mod scp;
#[cfg(test)]
mod tests;
mod words;

pub use rsync::RsyncCall;
pub use scp::{ScpCall, ScpSide};
pub use words::{PathPattern, Word, WordError, words};

/// Longest command that is looked at, in bytes.
pub const MAX_COMMAND: usize = 64 * 1024;
/// Most paths of one command.
pub const MAX_PATHS: usize = 256;

/// A command for files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileCommand {
    /// `scp -t` or `scp -f`: the protocol of rcp.
    Scp(ScpCall),
    /// `rsync --server`.
    Rsync(RsyncCall),
}

/// Why a command for files is not served. The texts are for the person who typed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileCommandError {
    /// An option that is not taken.
    #[error("{program} was asked for {option:?}, which is not served here; leave it out")]
    Option {
        /// `scp` or `rsync`.
        program: &'static str,
        /// The option as it came.
        option: String,
    },
    /// Paths are missing, or there are too many.
    #[error("{0} was given no path, or more than it takes")]
    Paths(&'static str),
    /// A path that cannot be taken.
    #[error("a path has at most 4095 bytes of UTF-8 without control characters")]
    Path,
    /// Names of a remote source that hang on how it was written.
    #[error("rsync -R from a node is not served here; name the directories without it")]
    Relative,
    /// Arguments that come inside of the protocol, unread.
    #[error("rsync -s hides its arguments from whoever has to judge them; leave it out")]
    Secluded,
}

impl FileCommand {
    /// Looks at a command of an SSH client. `None`: it is no command for files.
    pub fn of(command: &[u8]) -> Result<Option<Self>, FileCommandError> {
        if command.len() > MAX_COMMAND {
            return Ok(None);
        }
        let Ok(words) = words(command) else { return Ok(None) };
        let Some((program, arguments)) = words.split_first() else { return Ok(None) };
        match program.text() {
            b"scp" => Ok(ScpCall::parse(arguments)?.map(Self::Scp)),
            b"rsync" if arguments.first().is_some_and(|word| word.text() == b"--server") => {
                RsyncCall::parse(arguments).map(Self::Rsync).map(Some)
            }
            _ => Ok(None),
        }
    }
}
