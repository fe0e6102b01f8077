//! `ListInstanceAssociations`: AWS's agent asks which documents it shall apply by itself. There are none here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::own_node;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct ListInstanceAssociations;

/// Its input. The agent's versions differ, so unknown members are let be.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The node.
    pub instance_id: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Always empty.
    pub associations: [(); 0],
}

impl Operation for ListInstanceAssociations {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ListInstanceAssociations";
    const EFFECT: Effect = Effect::Read;
    const ACCESS: Access = Access::Node;
    const EXAMPLE: &'static str = r#"{"InstanceId":"mi-00000000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::named(server, caller, Self::NAME, &input.instance_id).await?;
        Ok(Vec::new())
    }

    async fn run(_: &Authorized<Self>, _: &Arc<Server>) -> Result<Output, ApiError> {
        Ok(Output { associations: [] })
    }
}
