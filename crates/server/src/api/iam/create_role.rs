//! `CreateRole`: makes a role with its trust policy, and with tags and a permissions boundary if wanted.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::changed;
use super::document::check_trust;
use super::names::{Description, MaxSessionDuration, Path, PolicyDocument, RoleName};
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::NewRole;

/// The operation.
pub struct CreateRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its path; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The role.
    pub role_name: RoleName,
    /// Who may assume it.
    pub assume_role_policy_document: PolicyDocument,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Description>,
    /// How long its sessions may last; an hour if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_session_duration: Option<MaxSessionDuration>,
    /// The managed policy that bounds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions_boundary: Option<Arn>,
    /// Tags.
    #[serde(default)]
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The role.
    pub role: shape::Role,
}

impl Operation for CreateRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateRole";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","AssumeRolePolicyDocument":"{}"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let arn = server.deployment.role(input.path.as_deref().unwrap_or("/"), &input.role_name);
        let mut create = Requirement::new("iam:CreateRole", &arn).of_type("AWS::IAM::Role");
        create = create.request_tags(input.tags.pairs());
        if let Some(boundary) = &input.permissions_boundary {
            create = create.with("iam:PermissionsBoundary", boundary.as_str());
        }
        let mut needed = vec![create];
        if !input.tags.is_empty() {
            let tag = Requirement::new("iam:TagRole", &arn).of_type("AWS::IAM::Role");
            needed.push(tag.request_tags(input.tags.pairs()));
        }
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let trust = check_trust(server, &input.assume_role_policy_document)?;
        let new = NewRole {
            name: &input.role_name,
            path: input.path.as_deref().unwrap_or("/"),
            description: input.description.as_deref(),
            trust: &trust,
            max_session: input.max_session_duration.unwrap_or_default().duration(),
            boundary: input.permissions_boundary.as_ref(),
            tags: &input.tags,
        };
        let role = server.store.create_role(&new, call.request().time).await.map_err(refused)?;
        changed(server).await?;
        Ok(Output { role: shape::Role::new(server, role, input.tags.to_vec()) })
    }
}
