//! `CreatePolicy`: makes a managed policy with its first version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::document::check_managed;
use super::names::{Description, EntityName, Path, PolicyDocument};
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::NewPolicy;

/// The operation.
pub struct CreatePolicy;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub policy_name: EntityName,
    /// Its path; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The policy's text.
    pub policy_document: PolicyDocument,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// Tags.
    #[serde(default)]
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The policy.
    pub policy: shape::Policy,
}

impl Operation for CreatePolicy {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreatePolicy";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"PolicyName":"example","PolicyDocument":"{}"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let arn = server.deployment.policy(input.path.as_deref().unwrap_or("/"), &input.policy_name);
        let create = Requirement::new("iam:CreatePolicy", &arn).of_type("AWS::IAM::Policy");
        let mut needed = vec![create.request_tags(input.tags.pairs())];
        if !input.tags.is_empty() {
            let tag = Requirement::new("iam:TagPolicy", &arn).of_type("AWS::IAM::Policy");
            needed.push(tag.request_tags(input.tags.pairs()));
        }
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        check_managed(&input.policy_document)?;
        let path = input.path.as_deref().unwrap_or("/");
        let new = NewPolicy {
            arn: &server.deployment.policy(path, &input.policy_name),
            name: &input.policy_name,
            path,
            description: input.description.as_deref(),
            document: &input.policy_document,
            tags: &input.tags,
        };
        let policy = server.store.create_policy(&new, call.request().time).await.map_err(refused)?;
        changed(server).await?;
        Ok(Output { policy: shape::Policy::new(policy, input.tags.to_vec()) })
    }
}
