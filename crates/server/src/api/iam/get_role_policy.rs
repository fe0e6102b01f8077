//! `GetRolePolicy`: shows an inline policy of a role.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::encoded;
use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Owner;

/// The operation.
pub struct GetRolePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// The policy.
    pub policy_name: EntityName,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The role.
    pub role_name: EntityName,
    /// The policy.
    pub policy_name: String,
    /// Its text, percent-encoded.
    pub policy_document: String,
}

impl Operation for GetRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetRolePolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","PolicyName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:GetRolePolicy", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let owner = Owner::Role(&input.role_name);
        let policy = server.store.inline_policy(owner, &input.policy_name).await.map_err(refused)?;
        Ok(Output {
            role_name: input.role_name.clone(),
            policy_name: policy.name,
            policy_document: encoded(&policy.document),
        })
    }
}
