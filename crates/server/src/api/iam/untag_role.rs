//! `UntagRole`: removes tags of a role by key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagKeys;
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct UntagRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// Keys of tags.
    pub tag_keys: TagKeys,
}

impl Operation for UntagRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UntagRole";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","TagKeys":["k"]}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let requirement = require::on_role(server, "iam:UntagRole", &input.role_name).await?;
        Ok(vec![requirement.with_many("aws:TagKeys", input.tag_keys.iter().cloned())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.remove_tags(Tagged::Role(&input.role_name), &input.tag_keys).await.map_err(refused)?;
        changed(server).await
    }
}
