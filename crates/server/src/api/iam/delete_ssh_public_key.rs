//! `DeleteSSHPublicKey`: removes a user's SSH public key, which ends the sessions begun with it.

use std::sync::Arc;

use munjigi_core::id::SshKeyId;
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
pub struct DeleteSSHPublicKey;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// The key.
    #[serde(rename = "SSHPublicKeyId")]
    pub id: SshKeyId,
}

impl Operation for DeleteSSHPublicKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "DeleteSSHPublicKey";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"UserName":"example","SSHPublicKeyId":"APKAAAAAAAAAAAAAAAAA"}"#;
    type Input = Input;
    type Output = ();

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:DeleteSSHPublicKey", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<(), ApiError> {
        let input = call.input();
        server.store.delete_ssh_key(&input.user_name, &input.id).await.map_err(refused)?;
        changed(server).await
    }
}
