//! `PutRolePermissionsBoundary`: bounds what a role may do by a managed policy.

use std::sync::Arc;

use munjigi_core::arn::Arn;
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
pub struct PutRolePermissionsBoundary;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// The managed policy that bounds it.
    pub permissions_boundary: Arn,
}

impl Operation for PutRolePermissionsBoundary {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "PutRolePermissionsBoundary";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"RoleName":"example","PermissionsBoundary":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let action = "iam:PutRolePermissionsBoundary";
        let requirement = require::on_role(server, action, &input.role_name).await?;
        Ok(vec![requirement.with("iam:PermissionsBoundary", input.permissions_boundary.as_str())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.set_role_boundary(&input.role_name, Some(&input.permissions_boundary)).await.map_err(refused)?;
        changed(server).await
    }
}
