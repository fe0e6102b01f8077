//! `TagRole`: sets tags of a role over earlier ones of the same key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct TagRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// Tags.
    pub tags: TagList,
}

impl Operation for TagRole {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "TagRole";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"RoleName":"example","Tags":[{"Key":"k","Value":"v"}]}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let requirement = require::on_role(server, "iam:TagRole", &input.role_name).await?;
        Ok(vec![requirement.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.put_tags(Tagged::Role(&input.role_name), &input.tags).await.map_err(refused)?;
        changed(server).await
    }
}
