//! `CreateUser`: makes a user, with a path, tags and a permissions boundary if wanted.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use serde::{Deserialize, Serialize};

use super::changed;
use super::names::{Path, UserName};
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;

/// The operation.
pub struct CreateUser;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its path; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The user.
    pub user_name: UserName,
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
    /// The user.
    pub user: shape::User,
}

impl Operation for CreateUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateUser";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"UserName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let path = input.path.as_deref().unwrap_or("/");
        let arn = server.deployment.user(path, &input.user_name);
        let mut create = Requirement::new("iam:CreateUser", &arn).of_type("AWS::IAM::User");
        create = create.request_tags(input.tags.pairs());
        if let Some(boundary) = &input.permissions_boundary {
            create = create.with("iam:PermissionsBoundary", boundary.as_str());
        }
        let mut needed = vec![create];
        if !input.tags.is_empty() {
            let tag = Requirement::new("iam:TagUser", &arn).of_type("AWS::IAM::User");
            needed.push(tag.request_tags(input.tags.pairs()));
        }
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let path = input.path.as_deref().unwrap_or("/");
        let boundary = input.permissions_boundary.as_ref();
        let made = server.store.create_user(&input.user_name, path, boundary, &input.tags, call.request().time).await;
        let user = made.map_err(refused)?;
        changed(server).await?;
        Ok(Output { user: shape::User::new(server, user, input.tags.to_vec()) })
    }
}
