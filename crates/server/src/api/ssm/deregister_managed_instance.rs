//! `DeregisterManagedInstance`: forgets a node: its key is worth nothing from now on and its sessions end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::managed_node::{on_node, parse_node, removed};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeregisterManagedInstance;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The node.
    pub instance_id: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for DeregisterManagedInstance {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DeregisterManagedInstance";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"InstanceId":"mi-00000000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let node = parse_node(&input.instance_id)?;
        Ok(vec![on_node(server, "ssm:DeregisterManagedInstance", &node).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let node = parse_node(&call.input().instance_id)?;
        server.store.deregister_node(&node).await.map_err(refused)?;
        removed(server, &node).await;
        Ok(Output {})
    }
}
