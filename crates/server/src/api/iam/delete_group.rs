//! `DeleteGroup`: deletes a group that has no users and policies any more.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::changed;
use super::names::EntityName;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteGroup;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group.
    pub group_name: EntityName,
}

impl Operation for DeleteGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteGroup";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"GroupName":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_group(server, "iam:DeleteGroup", &input.group_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        server.store.delete_group(&call.input().group_name).await.map_err(refused)?;
        changed(server).await
    }
}
