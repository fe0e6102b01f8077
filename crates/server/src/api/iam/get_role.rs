//! `GetRole`: shows a role.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::EntityName;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct GetRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The role.
    pub role: shape::Role,
}

impl Operation for GetRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetRole";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"RoleName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:GetRole", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let name = &call.input().role_name;
        let role = server.store.role(name).await.map_err(refused)?;
        let tags = server.store.tags(Tagged::Role(name)).await.map_err(refused)?;
        Ok(Output { role: shape::Role::new(server, role, tags) })
    }
}
