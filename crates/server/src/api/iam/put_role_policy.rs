//! `PutRolePolicy`: stores an inline policy of a role over one of the same name.

use std::sync::Arc;

use munjigi_core::policy::{PolicyKind, size};
use serde::{Deserialize, Serialize};

use super::changed;
use super::document::{fits, parse};
use super::names::{EntityName, PolicyDocument};
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{InlinePolicy, Owner};

/// The operation.
pub struct PutRolePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// The policy.
    pub policy_name: EntityName,
    /// The policy's text.
    pub policy_document: PolicyDocument,
}

impl Operation for PutRolePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "PutRolePolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","PolicyName":"example","PolicyDocument":"{}"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:PutRolePolicy", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let document = &input.policy_document;
        parse(document, PolicyKind::Identity)?;
        let owner = Owner::Role(&input.role_name);
        let quota = |all: &[InlinePolicy]| fits(all, size::ROLE_INLINE_TOTAL);
        server.store.put_inline_policy(owner, &input.policy_name, document, quota).await.map_err(refused)?;
        changed(server).await
    }
}
