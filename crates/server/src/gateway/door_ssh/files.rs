//! Files over an SSH connection: the subsystem `sftp`. It is not served yet: it is refused with a reason.

use std::sync::Arc;

use super::{Asked, Conn};

/// What a client wants to do with files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileService {
    /// The subsystem `sftp`.
    Sftp,
}

impl FileService {
    /// Returns what a subsystem is.
    pub(super) fn of_subsystem(name: &str) -> Option<Self> {
        (name == "sftp").then_some(Self::Sftp)
    }

    /// Returns what a command is, if it is one that this server serves itself instead of running it.
    pub(super) fn of_command(_command: &[u8]) -> Option<Self> {
        None
    }
}

/// Serves files until the channel ends.
pub(super) async fn serve(_conn: Arc<Conn>, asked: Asked, _service: FileService) {
    let text = "munjigi: this server does not serve files over SSH; use munjigi cp\n";
    // An error means that nobody is left to be told.
    let _ = asked.channel.sender().refuse(text, 1).await;
}
