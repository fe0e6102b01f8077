//! Nodes that run AWS's agent: their control channels, and the data channels of their sessions.
//!
//! To the rest of the gateway such a node is a [`NodeLink`](super::nodes::NodeLink) like any other. What opens on it is
//! one end of a pipe; at the other end a [`session`] speaks our agent's side of the protocol and translates it to
//! what AWS's agent understands, so that hub, recording, limits and live view are those of any session. What is missing
//! is a second judge on the node: the grant is verified here, and AWS's agent believes its server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use munjigi_core::grant::{Epoch, Grant, GrantError, GrantJudge};
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::trust::TrustBundle;
use munjigi_core::wire::aws::payload::{AgentTaskComplete, ChannelClosed, json};
use munjigi_core::wire::aws::{AgentMessage, MessageId, MessageType};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::nodes::NodeStream;
use super::peer::FrameStream;
use super::websocket::WebSocket;
use crate::{Server, clock, lock, random};

mod control;
pub(crate) mod doors;
mod order;
mod session;
mod tokens;

/// Bytes that may lie in the pipe between a hub and its translator.
const PIPE_BYTES: usize = 64 * 1024;
/// Messages that may wait for a control channel.
const OUTGOING: usize = 32;
/// Events that may wait for a session.
const ARRIVALS: usize = 8;
/// How long a message may wait for a place in a control channel's queue.
const SEND_LIMIT: Duration = Duration::from_secs(5);

/// The OS user that AWS's agent makes for itself, with every right by sudo.
pub(crate) const AGENTS_OWN_USER: &str = "ssm-user";

/// What the gateway keeps about nodes with AWS's agent.
pub(crate) struct AwsNodes {
    /// Makes the epochs of this run of the server: its sessions cannot be taken for those of another run.
    run: [u8; 32],
    tokens: Mutex<tokens::Tokens>,
    sessions: Mutex<HashMap<SessionId, Live>>,
}

impl Default for AwsNodes {
    fn default() -> Self {
        Self { run: random::bytes(), tokens: Mutex::default(), sessions: Mutex::default() }
    }
}

/// A session that waits for, or has, its data channel.
struct Live {
    node: NodeId,
    arrivals: mpsc::Sender<Arrival>,
}

/// What comes from the node for a session beside its data channel's messages.
enum Arrival {
    /// The agent opened the session's data channel (again).
    DataChannel(Box<WebSocket>),
    /// The agent says that the session is over.
    Complete(Box<AgentTaskComplete>),
}

impl AwsNodes {
    /// Returns the epoch of a node. It lives through reconnects, because sessions do: each has a connection of its own.
    fn epoch(&self, node: &NodeId) -> Epoch {
        let text = [self.run.as_slice(), node.as_str().as_bytes()].concat();
        digest(&SHA256, &text).as_ref().try_into().unwrap_or([0; 32])
    }

    /// Tells whether the session is live and runs on this node.
    fn has(&self, session: &SessionId, node: &NodeId) -> bool {
        lock(&self.sessions).get(session).is_some_and(|live| live.node == *node)
    }

    /// Hands something to a session of this node. Returns it if there is no such session or it does not keep up.
    fn deliver(&self, session: &SessionId, node: &NodeId, arrival: Arrival) -> Result<(), Arrival> {
        let arrivals = match lock(&self.sessions).get(session).filter(|live| live.node == *node) {
            Some(live) => live.arrivals.clone(),
            None => return Err(arrival),
        };
        arrivals.try_send(arrival).map_err(mpsc::error::TrySendError::into_inner)
    }
}

/// A node's control channel, as what starts and ends sessions on it.
#[derive(Clone)]
pub(crate) struct AwsLink {
    server: Weak<Server>,
    node: NodeId,
    judge: Arc<Mutex<GrantJudge>>,
    /// To the control channel's task: messages for the agent.
    outgoing: mpsc::Sender<Bytes>,
}

impl AwsLink {
    /// Makes the link, and the queue that its control channel empties.
    fn new(server: &Arc<Server>, node: &NodeId) -> (Self, mpsc::Receiver<Bytes>) {
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let trust = TrustBundle { version: 1, keys: server.keys.trusted().to_vec() };
        let judge = GrantJudge::new(node.clone(), server.gateway.aws.epoch(node), trust);
        let server = Arc::downgrade(server);
        (Self { server, node: node.clone(), judge: Arc::new(Mutex::new(judge)), outgoing }, queue)
    }

    /// Opens a stream on which our agent's side of the protocol is spoken. `None` when the server stops.
    pub(super) fn open(&self) -> Option<NodeStream> {
        let server = self.server.upgrade()?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let (link, tasks) = (self.clone(), server.tasks.clone());
        tasks.spawn(async move { session::serve(&server, &link, FrameStream::new(far)).await });
        Some(Box::new(near))
    }

    /// Verifies a grant, in place of the privileged half that AWS's agent does not have.
    fn admit(&self, signed: &[u8]) -> Result<Grant, GrantError> {
        lock(&self.judge).admit(signed, clock::now())
    }

    /// Sends a message on the control channel. Returns whether it was taken; it may still be lost with the channel.
    async fn send(&self, kind: MessageType, payload: Bytes) -> bool {
        let Ok(message) = message(kind, payload).encode() else { return false };
        self.outgoing.send_timeout(message, SEND_LIMIT).await.is_ok()
    }
}

/// Makes a message outside the numbered streams.
fn message(kind: MessageType, payload: Bytes) -> AgentMessage {
    AgentMessage::new(kind, MessageId(*Uuid::new_v4().as_bytes()), unix_ms(), payload)
}

/// Makes the payload that ends a session on its agent.
fn channel_closed(session: &SessionId, node: &NodeId, reason: &str) -> Bytes {
    json(&ChannelClosed {
        message_id: Uuid::new_v4().to_string(),
        created_date: clock::now().to_iso_seconds(),
        destination_id: node.to_string(),
        session_id: session.to_string(),
        output: reason.to_owned(),
        ..ChannelClosed::default()
    })
}

/// Returns the time of day for a message's header.
fn unix_ms() -> u64 {
    u64::try_from(clock::now().0 / 1000).unwrap_or(1).max(1)
}
