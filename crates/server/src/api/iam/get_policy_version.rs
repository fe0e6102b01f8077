//! `GetPolicyVersion`: shows a version of a managed policy with its text.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::VersionId;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct GetPolicyVersion;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// The version.
    pub version_id: VersionId,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The version.
    pub policy_version: shape::PolicyVersion,
}

impl Operation for GetPolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetPolicyVersion";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","VersionId":"v1"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:GetPolicyVersion", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let found = server.store.policy_version(&input.policy_arn, input.version_id.number()).await;
        Ok(Output { policy_version: shape::PolicyVersion::new(&found.map_err(refused)?, true) })
    }
}
