//! EC2 Instance Connect: keys that sshd on a node accepts for a minute (aws-api C.1).

pub mod open_tunnel;
mod send_serial_console_ssh_public_key;
pub mod send_ssh_public_key;

pub use send_serial_console_ssh_public_key::SendSerialConsoleSSHPublicKey;
pub use send_ssh_public_key::SendSSHPublicKey;

use munjigi_core::id::NodeId;
use munjigi_core::ssh::PublicKey;

use super::error::ApiError;
use super::operation::Requirement;
use super::tag;
use crate::Server;
use crate::store::StoreError;

/// CloudFormation's name of what a key is sent to.
const INSTANCE: &str = "AWS::EC2::Instance";

/// Reads the id of a node: `i-…`, or `mi-…` as this server has it.
fn instance(text: &str) -> Result<NodeId, ApiError> {
    NodeId::parse_either(text).map_err(|_| {
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        ApiError::Validation(format!("InstanceId `{shown}` is not `i-` or `mi-` and 17 hexadecimal digits"))
    })
}

/// Reads a key; 80 to 4096 characters.
fn public_key(text: &str) -> Result<PublicKey, ApiError> {
    if !(80..=4096).contains(&text.chars().count()) {
        return Err(ApiError::Validation("SSHPublicKey has 80 to 4096 characters".to_owned()));
    }
    PublicKey::parse(text).map_err(|error| ApiError::Validation(format!("SSHPublicKey: {error}")))
}

/// Requires an action on a node as an instance; one that does not exist has the name it would have.
async fn on_instance(server: &Server, action: &'static str, id: &NodeId) -> Result<Requirement, ApiError> {
    let requirement = Requirement::new(action, server.deployment.instance(id)).of_type(INSTANCE);
    match server.store.node(id).await {
        Ok(node) => Ok(requirement.resource_tags(tag::pairs(&node.tags))),
        Err(StoreError::NotFound { .. }) => Ok(requirement),
        Err(error) => Err(ApiError::internal(error)),
    }
}
