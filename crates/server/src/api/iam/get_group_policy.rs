//! `GetGroupPolicy`: shows an inline policy of a group.

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
pub struct GetGroupPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group.
    pub group_name: EntityName,
    /// The policy.
    pub policy_name: EntityName,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The group.
    pub group_name: EntityName,
    /// The policy.
    pub policy_name: String,
    /// Its text, percent-encoded.
    pub policy_document: String,
}

impl Operation for GetGroupPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetGroupPolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"GroupName":"example","PolicyName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_group(server, "iam:GetGroupPolicy", &input.group_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let owner = Owner::Group(&input.group_name);
        let policy = server.store.inline_policy(owner, &input.policy_name).await.map_err(refused)?;
        Ok(Output {
            group_name: input.group_name.clone(),
            policy_name: policy.name,
            policy_document: encoded(&policy.document),
        })
    }
}
