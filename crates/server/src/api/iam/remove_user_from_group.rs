//! `RemoveUserFromGroup`: takes a user out of a group.

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
pub struct RemoveUserFromGroup;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group.
    pub group_name: EntityName,
    /// The user.
    pub user_name: EntityName,
}

impl Operation for RemoveUserFromGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "RemoveUserFromGroup";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"GroupName":"example","UserName":"example"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_group(server, "iam:RemoveUserFromGroup", &input.group_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.remove_user_from_group(&input.group_name, &input.user_name).await.map_err(refused)?;
        let user = server.store.user(&input.user_name).await.map_err(refused)?;
        server.accounts.removed_by_hand(&user.id);
        changed(server).await
    }
}
