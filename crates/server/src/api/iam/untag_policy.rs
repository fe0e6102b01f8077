//! `UntagPolicy`: removes tags of a managed policy by key.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::changed;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagKeys;
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct UntagPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// Keys of tags.
    pub tag_keys: TagKeys,
}

impl Operation for UntagPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UntagPolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","TagKeys":["k"]}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let requirement = require::on_policy(server, "iam:UntagPolicy", &input.policy_arn).await?;
        Ok(vec![requirement.with_many("aws:TagKeys", input.tag_keys.iter().cloned())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.remove_tags(Tagged::Policy(&input.policy_arn), &input.tag_keys).await.map_err(refused)?;
        changed(server).await
    }
}
