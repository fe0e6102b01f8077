//! `GetUser`: shows a user; without a name the caller.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::EntityName;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct GetUser;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user; the caller if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<EntityName>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The user.
    pub user: shape::User,
}

impl Operation for GetUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetUser";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:GetUser", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let name = require::meant(call.input().user_name.as_deref(), call.caller())?;
        let user = server.store.user(name).await.map_err(refused)?;
        let tags = server.store.tags(Tagged::User(name)).await.map_err(refused)?;
        Ok(Output { user: shape::User::new(server, user, tags) })
    }
}
