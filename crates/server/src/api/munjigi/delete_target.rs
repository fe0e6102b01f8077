//! `DeleteTarget`: forgets a target with its credential; sessions that were opened for it end.

use std::sync::Arc;

use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::target::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::managed_node::tags_changed;
use crate::identity::Caller;
use crate::targets;

/// The operation.
pub struct DeleteTarget;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The target.
    pub name: TargetName,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for DeleteTarget {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DeleteTarget";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let found = targets::find(server, input.name.as_str()).await.map_err(refused)?;
        Ok(vec![targets::requirement(server, "munjigi:DeleteTarget", &input.name, found.as_ref())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        server.store.delete_target(&call.input().name).await.map_err(refused)?;
        tags_changed(server);
        Ok(Output {})
    }
}
