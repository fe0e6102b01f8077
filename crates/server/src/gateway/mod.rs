//! The gateway: connected nodes, live sessions, and the doors through which people reach them.
//!
//! It relays what was decided elsewhere: it knows no policy and no SQL. A session is a [`hub::Hub`] task; everybody
//! else holds a [`Handle`] to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::EndReason;
use tokio::sync::{mpsc, oneshot, watch};

mod backlog;
pub(crate) mod copying;
pub mod door_aws;
pub(crate) mod door_lane;
pub(crate) mod door_link;
pub(crate) mod door_ssh;
pub mod facts;
pub(crate) mod files;
mod forward;
pub mod hub;
mod in_memory;
pub(crate) mod incoming;
pub mod inspect;
pub(crate) mod lanes;
pub mod launch;
pub mod log;
pub(crate) mod node_aws;
pub mod nodes;
pub mod peer;
pub mod ports;
pub mod push_key;
pub mod serve;
pub mod starts;
mod timers;
pub(crate) mod tunnel;
mod watch_stream;
pub mod websocket;

use facts::{Outcome, SessionFacts};
use hub::Order;
use peer::FrameStream;

use crate::recording::Recorder;

/// Orders that may wait for a hub.
const ORDERS: usize = 16;
/// How long a prepared session waits for its client (the life of its token).
const PREPARED_LIFE: Duration = Duration::from_secs(60);
/// How long the last bytes of a stream may take before it is dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(30);

/// A session that was allowed, is in the trail, and has its recording open, but does not run yet. Made by
/// `StartSession` alone.
pub struct Prepared {
    /// What was decided.
    pub facts: SessionFacts,
    /// Its recording, with the start in it.
    pub recorder: Recorder,
}

/// A live session as others see it.
#[derive(Clone)]
pub struct Handle {
    /// What is fixed about it.
    pub facts: Arc<SessionFacts>,
    /// Its log, for readers.
    pub log: Arc<log::SessionLog>,
    /// Becomes `Some` when it is over.
    pub outcome: watch::Receiver<Option<Arc<Outcome>>>,
    /// The connections of a port session; `None` for other kinds. [`ports::PortSession`] makes them.
    pub ports: Option<Arc<ports::Ledger>>,
    orders: mpsc::Sender<Order>,
}

impl Handle {
    /// Hands an order to the hub. Returns it if the session is over.
    pub async fn order(&self, order: Order) -> Result<(), Order> {
        self.orders.send(order).await.map_err(|unsent| unsent.0)
    }
}

/// Connected nodes and live sessions of this server.
#[derive(Default)]
pub struct Gateway {
    /// The connected nodes.
    pub nodes: nodes::Nodes,
    /// Channels of nodes with AWS's agent.
    pub(crate) aws: node_aws::AwsNodes,
    /// Streams that wait for a lane.
    pub(crate) lanes: Arc<lanes::Lanes>,
    /// Ports on which nodes listen for sessions.
    pub(crate) listeners: incoming::Listeners,
    /// Wishes granted lately.
    pub starts: starts::Starts,
    /// Certificates with which targets are stood for.
    pub(crate) certificates: inspect::Certificates,
    /// Keys with which statements of PostgreSQL are cancelled.
    pub(crate) cancel_keys: inspect::CancelKeys,
    /// Data channels of AWS's clients.
    pub channels: door_aws::registry::Registry,
    sessions: Mutex<HashMap<SessionId, Handle>>,
    prepared: Mutex<HashMap<SessionId, Prepared>>,
}

impl Gateway {
    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Handle>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Prepared>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the node is connected.
    pub fn node_online(&self, node: &NodeId) -> bool {
        self.nodes.get(node).is_some()
    }

    /// Cuts the node's link and ends its sessions: it was deregistered.
    pub async fn drop_node(&self, node: &NodeId) {
        let of_node: Vec<Handle> =
            self.sessions().values().filter(|handle| handle.facts.node == *node).cloned().collect();
        for handle in of_node {
            end(&handle, EndReason::Revoked, "the node was deregistered").await;
        }
        if let Some(link) = self.nodes.get(node) {
            link.cancel.cancel();
            self.nodes.remove(&link);
        }
    }

    /// Returns a live session.
    pub fn session(&self, id: &SessionId) -> Option<Handle> {
        self.sessions().get(id).cloned()
    }

    /// Returns all live sessions.
    pub fn live(&self) -> Vec<Handle> {
        self.sessions().values().cloned().collect()
    }

    /// Ends a session and waits until it is over. Returns whether it was live.
    pub async fn end_session(&self, id: &SessionId, reason: EndReason, message: &str) -> bool {
        let Some(handle) = self.session(id) else { return false };
        let (done, over) = oneshot::channel();
        let order = Order::End { reason, message: message.to_owned(), done: Some(done) };
        if handle.order(order).await.is_ok() {
            // An error means that the hub is gone: over as well.
            let _ = over.await;
        }
        true
    }

    /// Returns how many sessions a principal has, by its ARN: live ones and those that wait for their client.
    pub fn sessions_of(&self, owner: &str) -> usize {
        let live = self.sessions().values().filter(|handle| handle.facts.owner == owner).count();
        live + self.prepared().values().filter(|prepared| prepared.facts.owner == owner).count()
    }

    /// Returns how many live sessions a node has.
    pub fn sessions_on(&self, node: &NodeId) -> usize {
        self.sessions().values().filter(|handle| handle.facts.node == *node).count()
    }

    /// Keeps a prepared session until its client comes for it.
    pub fn keep_prepared(&self, prepared: Prepared) {
        self.prepared().insert(prepared.facts.id.clone(), prepared);
    }

    /// Tells whether the session waits for its client.
    pub fn is_prepared(&self, id: &SessionId) -> bool {
        self.prepared().contains_key(id)
    }

    /// Hands the prepared session to whoever starts it; a second one gets nothing.
    pub fn take_prepared(&self, id: &SessionId) -> Option<Prepared> {
        self.prepared().remove(id)
    }

    /// Returns how long a prepared session may wait.
    pub fn prepared_life() -> Duration {
        PREPARED_LIFE
    }

    fn remember(&self, handle: Handle) {
        self.sessions().insert(handle.facts.id.clone(), handle);
    }

    /// Forgets a session that is over.
    pub fn forget(&self, id: &SessionId) {
        self.sessions().remove(id);
    }
}

/// Orders a session's end without waiting for it.
pub async fn end(handle: &Handle, reason: EndReason, message: &str) {
    // An error means that it is over already.
    let _ = handle.order(Order::End { reason, message: message.to_owned(), done: None }).await;
}

/// Sends what was fed to a stream and closes it, for at most [`CLOSE_LIMIT`].
pub(crate) fn close_in_background(mut stream: FrameStream) {
    tokio::spawn(async move {
        // A peer that takes nothing more loses the last words; it left.
        let _ = tokio::time::timeout(CLOSE_LIMIT, stream.writer.close()).await;
    });
}
