//! Forwards over an SSH connection: `-L`, `-D`, `-W`, `-R`, sockets, the agent, jumps and the way through to a node's own
//! sshd.
//!
//! A connection has one forward session for its node, begun when the first is wanted, and one for each target that is
//! reached: what policy is asked, what is refused, recorded, counted and cut is that of `munjigi forward`. Here are the
//! channels only.

mod agent;
mod goal;
mod local;
mod passthrough;
mod refusal;
mod remote;
mod sessions;
mod stream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

pub(crate) use agent::OfferedAgent;
pub(crate) use local::{open_tcp, open_unix};
pub(crate) use passthrough::PassedThrough;
pub(crate) use refusal::Refusal;
pub(crate) use remote::{Place, Returning, cancel, listen_tcp, listen_unix};

use sessions::Sessions;

use super::Conn;
use super::inbox::Inboxes;

/// What the forwards of one connection share.
#[derive(Default)]
pub(crate) struct Forwards {
    /// What the client has sent on its channels.
    pub(crate) inboxes: Arc<Inboxes>,
    sessions: Sessions,
    /// Where nodes listen for this connection, as the client named it; cancelling one ends it.
    listeners: Mutex<HashMap<Place, CancellationToken>>,
}

/// Tells whether a login names no node that there is, and its owner may know that.
pub(crate) async fn names_no_node(conn: &Conn) -> bool {
    let Some(caller) = conn.caller() else { return false };
    matches!(goal::Named::of(conn, &caller).await, Ok(goal::Named::Nothing))
}
