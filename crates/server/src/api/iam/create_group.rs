//! `CreateGroup`: makes a group.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::{EntityName, Path};
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct CreateGroup;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its path; `/` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// The group.
    pub group_name: EntityName,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The group.
    pub group: shape::Group,
}

impl Operation for CreateGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateGroup";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"GroupName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let arn = server.deployment.group(input.path.as_deref().unwrap_or("/"), &input.group_name);
        Ok(vec![Requirement::new("iam:CreateGroup", arn).of_type("AWS::IAM::Group")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let path = input.path.as_deref().unwrap_or("/");
        let group = server.store.create_group(&input.group_name, path, call.request().time).await.map_err(refused)?;
        changed(server).await?;
        Ok(Output { group: shape::Group::new(server, group) })
    }
}
