//! Why a recording could not be made, continued or read.

use std::io;
use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::recording::{HeaderError, Tampered, WriteError};

/// Why a recording could not be made, continued or read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// There is no recording of the session.
    #[error("there is no recording of session {0}")]
    NotFound(SessionId),
    /// The session has a recording already; a second one is never begun.
    #[error("session {0} already has a recording")]
    Exists(SessionId),
    /// The recording is being written.
    #[error("the recording of session {0} is being written")]
    InUse(SessionId),
    /// A sealed recording is never continued.
    #[error("the recording of session {0} is sealed")]
    Sealed(SessionId),
    /// The disk is too full for a new session.
    #[error("the disk of the data directory is full: free space on it before starting sessions")]
    DiskFull,
    /// The recorder can take no more: the disk failed or was full. The session is to be ended.
    #[error("the recording failed: {0}")]
    Failed(Arc<str>),
    /// More was appended than may wait for the disk; whoever appends ignored [`super::Recorder::backlog`].
    #[error("more output waits to be recorded than the bound allows")]
    Overrun,
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopped,
    /// The head of the file is damaged, or its key cannot be opened.
    #[error("the recording cannot be read: {0}")]
    Header(#[from] HeaderError),
    /// A record is not the one that was written.
    #[error("the recording cannot be read: {0}")]
    Damaged(#[from] Tampered),
    /// Events could not become records.
    #[error(transparent)]
    Format(#[from] WriteError),
    /// The file system refused.
    #[error("failed to {what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the file system said.
        source: io::Error,
    },
}

impl RecordingError {
    /// Adds what was being done to an error of the file system.
    pub(super) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
