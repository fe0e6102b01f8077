//! `DeleteAccessKey`: deletes an access key, which ends its sessions.

use std::sync::Arc;

use munjigi_core::id::AccessKeyId;
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
pub struct DeleteAccessKey;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user; the caller if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<EntityName>,
    /// The key.
    pub access_key_id: AccessKeyId,
}

impl Operation for DeleteAccessKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteAccessKey";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"AccessKeyId":"AKIAAAAAAAAAAAAAAAAA"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:DeleteAccessKey", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        let user = require::meant(input.user_name.as_deref(), call.caller())?;
        server.store.delete_access_key(user, &input.access_key_id).await.map_err(refused)?;
        changed(server).await
    }
}
