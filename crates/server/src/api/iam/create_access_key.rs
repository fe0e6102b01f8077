//! `CreateAccessKey`: makes an access key; its secret is shown this once.

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
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct CreateAccessKey;

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
    /// The key with its secret.
    pub access_key: NewKey,
}

/// The new key.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NewKey {
    /// Whose key it is.
    pub user_name: String,
    /// Its id.
    pub access_key_id: AccessKeyId,
    /// Always `Active`.
    pub status: &'static str,
    /// The secret, shown this once.
    pub secret_access_key: String,
    /// When it was made.
    pub create_date: IsoTime,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Operation for CreateAccessKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "CreateAccessKey";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["SecretAccessKey"];
    const EXAMPLE: &'static str = r#"{"UserName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:CreateAccessKey", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let user = require::meant(call.input().user_name.as_deref(), call.caller())?;
        let made = server.store.create_access_key(user, call.request().time).await.map_err(refused)?;
        changed(server).await?;
        Ok(Output {
            access_key: NewKey {
                user_name: made.key.user_name,
                access_key_id: made.key.id,
                status: "Active",
                secret_access_key: made.secret.expose().clone(),
                create_date: IsoTime(made.key.created),
            },
        })
    }
}
