//! `TagPolicy`: sets tags of a managed policy over earlier ones of the same key.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::changed;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct TagPolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The managed policy.
    pub policy_arn: Arn,
    /// Tags.
    pub tags: TagList,
}

impl Operation for TagPolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "TagPolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"PolicyArn":"arn:aws:iam::aws:policy/ReadOnlyAccess","Tags":[{"Key":"k","Value":"v"}]}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let requirement = require::on_policy(server, "iam:TagPolicy", &input.policy_arn).await?;
        Ok(vec![requirement.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.put_tags(Tagged::Policy(&input.policy_arn), &input.tags).await.map_err(refused)?;
        changed(server).await
    }
}
