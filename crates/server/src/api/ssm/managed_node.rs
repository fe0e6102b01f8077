//! Nodes as the operations of SSM name them: ids, what is needed to touch one, whether it is there, and what follows
//! when one changes.

use std::time::Duration;

use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::Requirement;
use crate::api::tag;
use crate::store::{Node, StoreError};

/// How long after it was last heard of a node without a link counts as online (aws-api C.4).
const HEARTBEAT: Duration = Duration::from_secs(5 * 60);
/// How long after it was last heard of a node is given up.
const INACTIVE_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether a node is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PingStatus {
    /// It is connected, or was within the last five minutes.
    Online,
    /// It was not heard of since.
    ConnectionLost,
    /// It was not heard of for 30 days.
    Inactive,
}

impl PingStatus {
    /// Returns the word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "Online",
            Self::ConnectionLost => "ConnectionLost",
            Self::Inactive => "Inactive",
        }
    }
}

/// Tells whether a node is there.
pub(crate) fn ping_status(server: &Server, node: &Node, now: Timestamp) -> PingStatus {
    let silent = now.since(node.last_seen);
    if server.gateway.node_online(&node.id) || silent < HEARTBEAT {
        PingStatus::Online
    } else if silent < INACTIVE_AFTER {
        PingStatus::ConnectionLost
    } else {
        PingStatus::Inactive
    }
}

/// Has running sessions judged again after a node's tags changed: conditions may ask for them.
pub(crate) fn tags_changed(server: &Server) {
    server.nodes_changed.send_modify(|version| *version = version.wrapping_add(1));
}

/// Cuts the link of a node that is registered no more and ends its sessions.
pub(crate) async fn removed(server: &Server, node: &NodeId) {
    server.gateway.drop_node(node).await;
    server.nodes_changed.send_modify(|version| *version = version.wrapping_add(1));
}

/// Reads a node's id.
pub(super) fn parse_node(text: &str) -> Result<NodeId, ApiError> {
    NodeId::parse_either(text).map_err(|error| ApiError::bad("InvalidInstanceId", error.to_string()))
}

/// Requires an action on a node; its tags are condition keys. A node that does not exist has the ARN it would have.
pub(super) async fn on_node(server: &Server, action: &'static str, id: &NodeId) -> Result<Requirement, ApiError> {
    let requirement = Requirement::new(action, server.deployment.node(id)).of_type("AWS::SSM::ManagedInstance");
    match server.store.node(id).await {
        Ok(node) => Ok(requirement.resource_tags(tag::pairs(&node.tags))),
        Err(StoreError::NotFound { .. }) => Ok(requirement),
        Err(error) => Err(refused(error)),
    }
}
