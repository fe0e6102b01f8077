//! What the follower keeps of requests that are under way, and what it finds in their answers.

use munjigi_core::recording::FileChange;
use munjigi_core::sftp::{Handle, Response, SftpError, Status};

use super::steps::Place;
use crate::gateway::copying::outbox::Noted;

/// Why nothing more is carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// The client does not speak SFTP.
    #[error("the client does not keep to SFTP: {0}")]
    Client(SftpError),
    /// The client speaks an old version.
    #[error("the client speaks SFTP before version 3")]
    Version,
    /// The node does not speak SFTP as asked.
    #[error("the node does not keep to SFTP")]
    Node,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// It goes on, as it now is.
    On,
    /// It ends here.
    Here,
}

/// Something to be written down; what was denied is answered once that is.
pub(super) struct Event {
    pub(super) what: Noted,
    /// The client's answer.
    pub(super) denied: Option<Vec<u8>>,
}

/// What an answer of the node is the answer to.
pub(super) enum Pending {
    Version,
    /// A path of the request that is being resolved.
    Place(usize),
    /// Nothing has to be done.
    Plain {
        client: u32,
    },
    Open {
        client: u32,
        request: Vec<u8>,
        places: Vec<Place>,
    },
    Read {
        client: u32,
        handle: Handle,
        offset: u64,
        length: u32,
    },
    Write {
        client: u32,
        handle: Handle,
        offset: u64,
        length: u64,
    },
    CopyData {
        client: u32,
        from: (Handle, u64),
        to: (Handle, u64),
        length: u64,
    },
    SizeAtClose {
        handle: Handle,
    },
    SizeAtCopy {
        handle: Handle,
    },
    Close {
        client: u32,
        handle: Handle,
    },
    Resize {
        client: u32,
        handle: Handle,
        size: u64,
        change: Box<FileChange>,
    },
    Change {
        client: u32,
        change: Box<FileChange>,
    },
}

/// The request by path whose paths are being resolved.
pub(super) struct Resolving {
    pub(super) client: u32,
    pub(super) packet: Vec<u8>,
    pub(super) places: Vec<Option<Place>>,
    pub(super) failed: Option<(Status, Vec<u8>)>,
}

/// Something to be written down that nobody waits for.
pub(super) fn told(what: Noted) -> Event {
    Event { what, denied: None }
}

/// Returns why something failed, from an answer that is a status.
pub(super) fn failure(answer: &Response<'_>) -> Result<Option<String>, Broken> {
    match answer {
        Response::Status { status: Status::Ok, .. } => Ok(None),
        Response::Status { status, text } => Ok(Some(words(*status, text))),
        _ => Err(Broken::Node),
    }
}

/// Says a failure in words, for people.
pub(super) fn words(status: Status, text: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(400).collect();
    if text.is_empty() { format!("{status:?}") } else { text }
}
