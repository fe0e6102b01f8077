//! `DeleteActivation`: deletes an activation; the nodes that registered with it stay.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteActivation;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The activation.
    pub activation_id: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for DeleteActivation {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DeleteActivation";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"ActivationId":"00000000-0000-0000-0000-000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:DeleteActivation")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let id = &call.input().activation_id;
        let id = Uuid::parse_str(id)
            .map_err(|_| ApiError::bad("InvalidActivationId", format!("{} is no activation id", id.escape_debug())))?;
        server.store.delete_activation(&id).await.map_err(refused)?;
        Ok(Output {})
    }
}
