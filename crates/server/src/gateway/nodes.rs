//! Which nodes are connected, and how to open a stream to one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::grant::Epoch;
use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use munjigi_link::{Berth, LaneToken, Opener};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::lanes::{LaneOwner, Lanes};
use super::node_aws::AwsLink;
use crate::lock;

/// How long opening a stream to a node may take.
const OPEN_LIMIT: Duration = Duration::from_secs(5);

/// Most links of one node that come, stand or go at a time: the one that stands, and those whose beginning or end is still being
/// stored. A node that dials faster than its coming and going can be written down waits, and not the server's memory (T-95).
const MAX_LINKS_OF_A_NODE: usize = 4;

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> ByteStream for S {}

/// A stream to a node's agent, on which the agent's side of our protocol is spoken.
pub type NodeStream = Box<dyn ByteStream>;

/// Why no stream to a node was opened; for people.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It took longer than [`OPEN_LIMIT`].
    #[error("the node did not take a new stream within {} s", OPEN_LIMIT.as_secs())]
    TimedOut,
    /// The link ended or is full.
    #[error(transparent)]
    Link(#[from] munjigi_link::LinkError),
    /// This server stops.
    #[error("the server stops")]
    Stopping,
}

/// What opens streams to a node's agent.
#[derive(Clone)]
pub(crate) enum NodeOpener {
    /// The standing link of our agent.
    Link(Opener),
    /// The control channel of AWS's, behind a translator.
    Aws(AwsLink),
}

/// One node's standing link.
#[derive(Clone)]
pub struct NodeLink {
    /// The node.
    pub node: NodeId,
    /// This run of its agent; grants name it (T-24).
    pub epoch: Epoch,
    /// The one OS user an unprivileged agent can serve.
    pub only_user: Option<String>,
    /// The public host key of the node's own sshd, as the agent says; vouched for under the node's own names.
    pub ssh_host_key: Option<String>,
    /// Where the agent dialled from.
    pub address: IpAddr,
    /// Since when.
    pub since: Timestamp,
    /// Opens streams to the agent.
    pub(crate) opener: NodeOpener,
    /// Ends the link.
    pub cancel: CancellationToken,
}

impl NodeLink {
    /// Returns how long a message to the agent and its answer took last, if that was measured yet.
    pub fn round_trip(&self) -> Option<Duration> {
        match &self.opener {
            NodeOpener::Link(opener) => opener.round_trip(),
            NodeOpener::Aws(_) => None,
        }
    }

    /// Tells whether the agent is ours and not AWS's.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self.opener, NodeOpener::Link(_))
    }

    /// Opens a stream to the node's agent that may carry much: with the token it may dial a lane for it.
    pub(crate) async fn open_moving(&self, lanes: &Arc<Lanes>) -> Result<Moving, OpenError> {
        let NodeOpener::Link(opener) = &self.opener else {
            return Ok(Moving { stream: self.open().await?, berth: None, token: None });
        };
        let opened = tokio::time::timeout(OPEN_LIMIT, opener.open()).await;
        let (stream, token) =
            lanes.expect(opened.map_err(|_| OpenError::TimedOut)??, LaneOwner::Node(self.node.clone()));
        let berth = Some(stream.berth());
        Ok(Moving { stream: Box::new(stream), berth, token })
    }

    /// Opens a stream to the node's agent.
    pub async fn open(&self) -> Result<NodeStream, OpenError> {
        match &self.opener {
            NodeOpener::Link(opener) => {
                let opened = tokio::time::timeout(OPEN_LIMIT, opener.open()).await;
                Ok(Box::new(opened.map_err(|_| OpenError::TimedOut)??))
            }
            NodeOpener::Aws(link) => link.open().ok_or(OpenError::Stopping),
        }
    }
}

/// A stream to a node that may carry much.
pub(crate) struct Moving {
    /// Its bytes.
    pub(crate) stream: NodeStream,
    /// What knows of its lanes, if it may have any.
    pub(crate) berth: Option<Arc<Berth>>,
    /// With this a lane may be dialled for it.
    pub(crate) token: Option<LaneToken>,
}

/// What became of a node that connected.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is the node's link now.
    Admitted,
    /// Another run of the node's agent holds a live link: a clone, or a restart whose old link is not yet known to be
    /// dead (T-31).
    AlreadyConnected,
}

/// The connected nodes.
#[derive(Default)]
pub struct Nodes {
    links: Mutex<HashMap<NodeId, NodeLink>>,
    /// How many links of each come, stand or go.
    places: Arc<Mutex<HashMap<NodeId, usize>>>,
}

/// The place of one link, from its beginning until its end is stored.
#[derive(Debug)]
pub struct LinkPlace {
    places: Arc<Mutex<HashMap<NodeId, usize>>>,
    node: NodeId,
}

impl Drop for LinkPlace {
    fn drop(&mut self) {
        let mut places = lock(&self.places);
        if let Some(count) = places.get_mut(&self.node) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                places.remove(&self.node);
            }
        }
    }
}

impl Nodes {
    fn links(&self) -> std::sync::MutexGuard<'_, HashMap<NodeId, NodeLink>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a place for one more link of a node; `None` if as many as may be come, stand or go already.
    pub fn place(&self, node: &NodeId) -> Option<LinkPlace> {
        let mut places = lock(&self.places);
        let count = places.entry(node.clone()).or_default();
        if *count >= MAX_LINKS_OF_A_NODE {
            return None;
        }
        *count += 1;
        Some(LinkPlace { places: self.places.clone(), node: node.clone() })
    }

    /// Makes `link` its node's link. A new link of the same run of the agent replaces the old one (its network
    /// changed under it); one of another run does not.
    pub fn admit(&self, link: NodeLink) -> Admission {
        let mut links = self.links();
        if let Some(old) = links.get(&link.node) {
            if old.epoch != link.epoch && !old.cancel.is_cancelled() {
                return Admission::AlreadyConnected;
            }
            old.cancel.cancel();
        }
        links.insert(link.node.clone(), link);
        Admission::Admitted
    }

    /// Forgets a link that ended, unless a newer one has taken its place.
    pub fn remove(&self, ended: &NodeLink) {
        let mut links = self.links();
        if links.get(&ended.node).is_some_and(|link| link.since == ended.since && link.epoch == ended.epoch) {
            links.remove(&ended.node);
        }
    }

    /// Returns a node's link.
    pub fn get(&self, node: &NodeId) -> Option<NodeLink> {
        self.links().get(node).cloned()
    }

    /// Returns all links.
    pub fn all(&self) -> Vec<NodeLink> {
        self.links().values().cloned().collect()
    }

    /// Returns how many nodes are connected.
    pub fn count(&self) -> usize {
        self.links().len()
    }
}

/// Shared handle.
pub type SharedNodes = Arc<Nodes>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_as_many_places_as_it_may_and_gets_them_back() {
        let nodes = Nodes::default();
        let [one, other] = [0, 1].map(|number| NodeId::parse(&format!("mi-{number:017x}")).unwrap());
        let mut places: Vec<_> = (0..MAX_LINKS_OF_A_NODE).map(|_| nodes.place(&one).unwrap()).collect();
        assert!(nodes.place(&one).is_none());
        assert!(nodes.place(&other).is_some(), "of another node");
        places.pop();
        places.push(nodes.place(&one).unwrap());
        assert!(nodes.place(&one).is_none());
        places.clear();
        assert!(lock(&nodes.places).is_empty());
    }
}
