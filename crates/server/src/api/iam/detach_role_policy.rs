//! `DetachRolePolicy`: detaches a managed policy from a role.

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
use crate::store::Owner;

/// The operation.
pub struct DetachRolePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// The managed policy.
    pub policy_arn: Arn,
}

impl Operation for DetachRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DetachRolePolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let requirement = require::on_role(server, "iam:DetachRolePolicy", &input.role_name).await?;
        Ok(vec![requirement.with("iam:PolicyARN", input.policy_arn.as_str())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let owner = Owner::Role(&input.role_name);
        server.store.detach_policy(owner, &input.policy_arn).await.map_err(refused)?;
        changed(server).await
    }
}
