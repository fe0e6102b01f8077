//! `LeaveNode`: a node takes its leave; its key is worth nothing from now on and its sessions end.
//!
//! Open to all, because a node has no access key: it proves by its own key that it is the one that leaves.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::enrol::leave_message;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::managed_node::removed;
use crate::api::ssm::refuse::refused;
use crate::identity::Caller;
use crate::store::StoreError;

/// How far the node's clock may be off.
const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// The operation.
pub struct LeaveNode;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The node.
    pub node_id: NodeId,
    /// When it signed, microseconds since 1970.
    pub timestamp: Timestamp,
    /// Signature by its key, in base 64, over the message of `wire::enrol`.
    pub signature: String,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for LeaveNode {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "LeaveNode";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Open;
    const EXAMPLE: &'static str = r#"{"NodeId":"mi-00000000000000000","Timestamp":0,"Signature":""}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        // An unknown node and a wrong signature look alike.
        let refuse = || ApiError::bad("InvalidSignature", "this is not signed by a node that is registered here");
        let time = input.timestamp;
        let now = call.request().time;
        if now.since(time) > CLOCK_SKEW || time.since(now) > CLOCK_SKEW {
            let message = "the node's clock differs by more than 5 minutes from the server's; set it and try again";
            return Err(ApiError::bad("RequestExpired", message));
        }
        let node = match server.store.node(&input.node_id).await {
            Ok(node) => node,
            Err(StoreError::NotFound { .. }) => return Err(refuse()),
            Err(error) => return Err(refused(error)),
        };
        let signature = STANDARD.decode(&input.signature).map_err(|_| refuse())?;
        let message = leave_message(&node.id, time);
        UnparsedPublicKey::new(&ED25519, &node.public_key).verify(&message, &signature).map_err(|_| refuse())?;
        server.store.deregister_node(&node.id).await.map_err(refused)?;
        removed(server, &node.id).await;
        Ok(Output {})
    }
}
