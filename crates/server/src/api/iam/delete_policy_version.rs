//! `DeletePolicyVersion`: deletes a version of a managed policy that is not in force.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::names::VersionId;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeletePolicyVersion;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// The version.
    pub version_id: VersionId,
}

impl Operation for DeletePolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeletePolicyVersion";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","VersionId":"v1"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:DeletePolicyVersion", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let removed = server.store.delete_policy_version(&input.policy_arn, input.version_id.number()).await;
        removed.map_err(refused)
    }
}
