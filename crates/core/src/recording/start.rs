//! What the first event of a recording says about its session.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::id::{NodeId, SessionId};
use crate::session::{SessionKind, TerminalSize};
use crate::time::Timestamp;

/// Who did what where: the first event of every recording, encrypted like all others. Stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartMeta {
    /// The session; the same as in the file's header.
    pub session: SessionId,
    /// The session's kind.
    pub kind: SessionKind,
    /// ARN of the principal who started it.
    pub principal: String,
    /// The node it runs on.
    pub node: NodeId,
    /// The node's name at the start.
    #[serde(default)]
    pub node_name: String,
    /// The OS user the program runs as.
    #[serde(default)]
    pub os_user: String,
    /// The program and its arguments; empty for a login shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// What the connections of a port session may go to from its start on; empty for other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// The terminal's first size; `None` without a terminal.
    #[serde(default)]
    pub terminal: Option<TerminalSize>,
    /// The terminal's type (`TERM`).
    #[serde(default)]
    pub term: Option<String>,
    /// When the session started; times of events count from here.
    pub started: Timestamp,
    /// The reason given for the session.
    #[serde(default)]
    pub reason: Option<String>,
}
