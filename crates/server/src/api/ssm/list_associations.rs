//! `ListAssociations`: AWS's agent asks which documents it shall apply by itself. There are none here.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::own_node;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct ListAssociations;

/// Its input is not looked at: the answer is the same for every filter. The agent names itself by its credentials.
#[derive(Debug, Deserialize, Serialize)]
pub struct Input {}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Always empty.
    pub associations: [(); 0],
}

impl Operation for ListAssociations {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ListAssociations";
    const EFFECT: Effect = Effect::Read;
    const ACCESS: Access = Access::Node;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::calling(server, caller, Self::NAME).await?;
        Ok(Vec::new())
    }

    async fn run(_: &Authorized<Self>, _: &Arc<Server>) -> Result<Output, ApiError> {
        Ok(Output { associations: [] })
    }
}
