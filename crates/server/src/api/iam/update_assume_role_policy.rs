//! `UpdateAssumeRolePolicy`: changes who may assume a role.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::document::check_trust;
use super::names::{EntityName, PolicyDocument};
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct UpdateAssumeRolePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// Who may assume it.
    pub policy_document: PolicyDocument,
}

impl Operation for UpdateAssumeRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UpdateAssumeRolePolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","PolicyDocument":"{}"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:UpdateAssumeRolePolicy", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let trust = check_trust(server, &input.policy_document)?;
        server.store.set_trust(&input.role_name, &trust).await.map_err(refused)?;
        changed(server).await
    }
}
