//! `UpdateRole`: changes what a role is for and how long its sessions may last.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::{Description, EntityName, MaxSessionDuration};
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct UpdateRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// What it is for; stays if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// How long its sessions may last; stays if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<MaxSessionDuration>,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for UpdateRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateRole";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:UpdateRole", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let max_session = input.max_session_duration.map(MaxSessionDuration::duration);
        let description = input.description.as_deref();
        server.store.update_role(&input.role_name, description, max_session).await.map_err(refused)?;
        changed(server).await?;
        Ok(Output {})
    }
}
