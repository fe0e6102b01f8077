//! Channels that the client opens towards the node: `-L`, `-D`, `-W`, sockets, and jumps.

use std::sync::Arc;

use munjigi_core::endpoint::{Endpoint, NodePath};
use russh::server::ChannelOpenHandle;

use super::goal::{Goal, Named};
use super::refusal::Refusal;
use super::sessions::Aim;
use super::stream::ChannelStream;
use crate::gateway::door_ssh::channel::ChannelSender;
use crate::gateway::door_ssh::{self, Conn, Origin, Road};
use crate::gateway::forward;
use crate::gateway::inspect::Context;
use crate::gateway::ports::PortStream;
use crate::identity::Caller;

/// Serves a channel that asks for a host and port.
pub(crate) async fn open_tcp(
    conn: Arc<Conn>,
    channel: ChannelSender,
    (host, port): (String, u32),
    reply: ChannelOpenHandle,
) {
    let goal = async { Goal::of(&conn, &allowed(&conn)?, &host, port).await };
    match goal.await {
        Ok(Goal::Forward(aim, endpoint)) => connect(&conn, channel, &aim, endpoint, reply).await,
        Ok(Goal::Inner(node)) if conn.may_jump => inner(&conn, channel, node, reply).await,
        Ok(Goal::Inner(_)) => reply.reject(Refusal::prohibited("there is no jump inside a jump").failure()).await,
        Err(refusal) => reply.reject(refusal.failure()).await,
    }
}

/// Serves a channel that asks for a socket of the node.
pub(crate) async fn open_unix(conn: Arc<Conn>, channel: ChannelSender, path: String, reply: ChannelOpenHandle) {
    let asked = async { Ok::<_, Refusal>((own_node(&conn).await?, Endpoint::Unix(NodePath::new(&path)?))) };
    match asked.await {
        Ok((aim, endpoint)) => connect(&conn, channel, &aim, Some(endpoint), reply).await,
        Err(refusal) => reply.reject(refusal.failure()).await,
    }
}

/// Returns who asks. Refuses forwards to whoever is bound to one command: they would be a way around it.
fn allowed(conn: &Conn) -> Result<Caller, Refusal> {
    match conn.forced_command() {
        Some(_) => Err(Refusal::prohibited("what you logged in with is for one command and forwards nothing")),
        None => present(conn),
    }
}

/// Returns who has logged in, as long as what was proved is good.
pub(super) fn present(conn: &Conn) -> Result<Caller, Refusal> {
    conn.caller().ok_or_else(|| Refusal::prohibited("what you logged in with is no longer valid"))
}

/// Returns what a session with the login's node is.
pub(super) async fn own_node(conn: &Conn) -> Result<Aim, Refusal> {
    match Named::of(conn, &allowed(conn)?).await? {
        Named::Node(node) | Named::Unseen(node) => Ok(Aim::Node(node.to_owned())),
        Named::Nothing => Err(Refusal::prohibited("this login names no node: log in as NODE@… or OSUSER%NODE@…")),
    }
}

async fn connect(
    conn: &Arc<Conn>,
    channel: ChannelSender,
    aim: &Aim,
    endpoint: Option<Endpoint>,
    reply: ChannelOpenHandle,
) {
    match stands(conn, aim, endpoint).await {
        Ok((connection, eyes)) => {
            let stream = ChannelStream::accept(&conn.forwards.inboxes, channel, reply);
            forward::carry(&conn.server, stream, connection, eyes).await;
        }
        Err(refusal) => reply.reject(refusal.failure()).await,
    }
}

/// Makes the connection before the channel is accepted, so that the client hears what became of it.
async fn stands(
    conn: &Arc<Conn>,
    aim: &Aim,
    endpoint: Option<Endpoint>,
) -> Result<(PortStream, Option<Context>), Refusal> {
    conn.permits_forward(false).map_err(Refusal::prohibited)?;
    let session = conn.forwards.sessions.get(conn, aim).await?;
    let caller = present(conn)?;
    let connection = session.connect_to(endpoint, &caller, &conn.request()).await?;
    let eyes = forward::eyes(&conn.server, &session, &connection).await?;
    Ok((connection, eyes))
}

/// Serves another SSH connection inside a channel: the client logs in again, at the node it names, with the end of its
/// encryption here. Whoever is inside is who is outside.
async fn inner(conn: &Arc<Conn>, channel: ChannelSender, host: String, reply: ChannelOpenHandle) {
    let Some(caller) = conn.caller() else { return };
    let origin = Origin { peer: conn.peer, pass: None, road: Road::Inner { caller, host } };
    let stream = ChannelStream::accept(&conn.forwards.inboxes, channel, reply);
    Box::pin(door_ssh::serve(&conn.server, stream, origin)).await;
}
