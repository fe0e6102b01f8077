//! `GetPolicy`: shows a managed policy without its text.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct GetPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The policy.
    pub policy: shape::Policy,
}

impl Operation for GetPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetPolicy";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:GetPolicy", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let arn = &call.input().policy_arn;
        let policy = server.store.policy(arn).await.map_err(refused)?;
        // Built-in policies have no tags.
        let tags =
            if policy.builtin { Vec::new() } else { server.store.tags(Tagged::Policy(arn)).await.map_err(refused)? };
        Ok(Output { policy: shape::Policy::new(policy, tags) })
    }
}
