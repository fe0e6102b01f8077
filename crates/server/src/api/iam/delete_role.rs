//! `DeleteRole`: deletes a role that has no policies any more. Its sessions end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
}

impl Operation for DeleteRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteRole";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:DeleteRole", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        server.store.delete_role(&call.input().role_name).await.map_err(refused)?;
        changed(server).await
    }
}
