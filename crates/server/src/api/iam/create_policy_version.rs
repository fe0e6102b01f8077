//! `CreatePolicyVersion`: adds a version to a managed policy and, if wanted, puts it in force.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::changed;
use super::document::check_managed;
use super::names::PolicyDocument;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct CreatePolicyVersion;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// The policy's text.
    pub policy_document: PolicyDocument,
    /// Whether it comes into force.
    #[serde(default)]
    pub set_as_default: bool,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The version.
    pub policy_version: shape::PolicyVersion,
}

impl Operation for CreatePolicyVersion {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreatePolicyVersion";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","PolicyDocument":"{}"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_policy(server, "iam:CreatePolicyVersion", &input.policy_arn).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let document = &input.policy_document;
        check_managed(document)?;
        let (arn, now) = (&input.policy_arn, call.request().time);
        let made = server.store.create_policy_version(arn, document, input.set_as_default, now).await;
        let version = made.map_err(refused)?;
        changed(server).await?;
        Ok(Output { policy_version: shape::PolicyVersion::new(&version, false) })
    }
}
