//! `GetSSHPublicKey`: returns a user's SSH public key as OpenSSH writes it, or in PEM.

use std::sync::Arc;

use munjigi_core::id::SshKeyId;
use serde::{Deserialize, Serialize};

use super::names::EntityName;
use super::refuse::refused;
use super::require;
use super::ssh_key::SSHPublicKey;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct GetSSHPublicKey;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// The key.
    #[serde(rename = "SSHPublicKeyId")]
    pub id: SshKeyId,
    /// How it is wanted.
    pub encoding: Encoding,
}

/// The forms of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Encoding {
    /// A line of an `.pub` file.
    Ssh,
    /// PEM; RSA keys alone have it.
    Pem,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {
    /// The key.
    #[serde(rename = "SSHPublicKey")]
    pub key: SSHPublicKey,
}

impl Operation for GetSSHPublicKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetSSHPublicKey";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"UserName":"example","SSHPublicKeyId":"APKAAAAAAAAAAAAAAAAA","Encoding":"SSH"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:GetSSHPublicKey", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let found = server.store.ssh_key(&input.user_name, &input.id).await.map_err(refused)?;
        let body = match input.encoding {
            Encoding::Ssh => format!("{} {}", found.key.line(), found.key.comment()).trim_end().to_owned(),
            Encoding::Pem => found.key.to_pem().ok_or_else(|| {
                let message =
                    format!("a key of the type {} has no PEM form; ask for the encoding SSH", found.key.kind());
                ApiError::bad("UnrecognizedPublicKeyEncoding", message)
            })?,
        };
        Ok(Output { key: SSHPublicKey::of(found, body) })
    }
}
