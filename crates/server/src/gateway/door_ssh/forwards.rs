//! Forwards over an SSH connection: `-L`, `-D`, `-R`, `-J`, Unix sockets and the agent. None is served yet: each is refused.

use std::sync::Arc;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::sync::OwnedSemaphorePermit;

use super::Conn;

/// A channel that the client wishes to open, and its place among those of the connection.
pub(super) type Opening = (Channel<Msg>, OwnedSemaphorePermit);

/// What the forwards of one connection share.
#[derive(Debug, Default)]
pub(crate) struct Forwards {}

/// Connects a channel to a host and port, as seen from the node.
pub(super) async fn open_tcp(_conn: Arc<Conn>, _channel: Opening, _to: (String, u32), reply: ChannelOpenHandle) {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
}

/// Connects a channel to a Unix socket on the node.
pub(super) async fn open_unix(_conn: Arc<Conn>, _channel: Opening, _path: String, reply: ChannelOpenHandle) {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
}

/// Listens on the node; a port of 0 becomes the one that was chosen. Called from the connection's one task, so it must
/// not take long.
pub(super) async fn listen_tcp(_conn: &Arc<Conn>, _address: &str, _port: &mut u32) -> bool {
    false
}

/// Listens no longer.
pub(super) async fn cancel_tcp(_conn: &Arc<Conn>, _address: &str, _port: u32) -> bool {
    false
}

/// Listens on a Unix socket on the node.
pub(super) async fn listen_unix(_conn: &Arc<Conn>, _path: &str) -> bool {
    false
}

/// Listens there no longer.
pub(super) async fn cancel_unix(_conn: &Arc<Conn>, _path: &str) -> bool {
    false
}

/// Tells whether the client's agent may be offered to programs on the node.
pub(super) fn may_offer_agent(_conn: &Conn) -> bool {
    false
}
