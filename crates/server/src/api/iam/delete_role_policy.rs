//! `DeleteRolePolicy`: deletes an inline policy of a role.

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
use crate::store::Owner;

/// The operation.
pub struct DeleteRolePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// The policy.
    pub policy_name: EntityName,
}

impl Operation for DeleteRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteRolePolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","PolicyName":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:DeleteRolePolicy", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let owner = Owner::Role(&input.role_name);
        server.store.delete_inline_policy(owner, &input.policy_name).await.map_err(refused)?;
        changed(server).await
    }
}
