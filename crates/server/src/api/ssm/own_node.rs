//! What AWS's agent may do: everything made for it, about its own node, as long as that node is registered and the
//! operator lets such nodes in.

use munjigi_core::id::NodeId;

use super::refuse::refused;
use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::identity::Caller;
use crate::store::{AgentKind, Node, StoreError};

/// Returns the node that calls.
pub(crate) async fn calling(server: &Server, caller: &Caller, operation: &str) -> Result<Node, ApiError> {
    let Some(id) = caller.principal().node() else {
        let arn = &caller.principal().arn;
        let message =
            format!("User: {arn} is not authorized to perform: {operation} because it is for AWS's agent alone");
        return Err(ApiError::Denied(Denial { reason: "KindOfCredentials", message }));
    };
    check_setting(server)?;
    match server.store.node(id).await {
        Ok(node) if node.agent == AgentKind::Aws => Ok(node),
        Ok(_) | Err(StoreError::NotFound { .. }) => {
            let message = format!(
                "{id} is not authorized to perform: {operation} because it is not registered as a node \
                                   with AWS's agent; register it with a new activation"
            );
            Err(ApiError::Denied(Denial { reason: "NotRegistered", message }))
        }
        Err(error) => Err(refused(error)),
    }
}

/// Returns the node that calls, if it is the one that the call names. Which other nodes there are is not said.
pub(crate) async fn named(server: &Server, caller: &Caller, operation: &str, named: &str) -> Result<Node, ApiError> {
    let node = calling(server, caller, operation).await?;
    if NodeId::parse(named).is_ok_and(|named| named == node.id) {
        Ok(node)
    } else {
        Err(other_node(&node.id, operation))
    }
}

/// Makes the refusal of a call that names another node than its own.
pub(crate) fn other_node(node: &NodeId, operation: &str) -> ApiError {
    let message =
        format!("{node} is not authorized to perform: {operation} because a node may call it for itself alone");
    ApiError::Denied(Denial { reason: "NotThisNode", message })
}

/// Refuses AWS's agents if the operator does not want them.
pub(crate) fn check_setting(server: &Server) -> Result<(), ApiError> {
    if server.config.nodes.aws_agents {
        return Ok(());
    }
    let message = "this server takes no nodes with AWS's agent; install Munjigi's own, or set nodes.aws_agents = true";
    Err(ApiError::Denied(Denial { reason: "AwsAgentsRefused", message: message.to_owned() }))
}
