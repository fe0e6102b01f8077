//! `UploadSSHPublicKey`: registers an SSH public key of a user. It lets its owner in at the SSH door, and on nodes whose
//! sshd asks the agent.

use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::changed;
use super::names::{EntityName, PublicKeyBody};
use super::refuse::refused;
use super::require;
use super::ssh_key::{SSHPublicKey, parse};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::StoreError;

/// The operation.
pub struct UploadSSHPublicKey;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
    /// The key: a line of an `.pub` file, the form of RFC 4716, or an RSA key in PEM.
    #[serde(rename = "SSHPublicKeyBody")]
    pub body: PublicKeyBody,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {
    /// The key as it was uploaded.
    #[serde(rename = "SSHPublicKey")]
    pub key: SSHPublicKey,
}

impl Operation for UploadSSHPublicKey {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "UploadSSHPublicKey";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"UserName":"example","SSHPublicKeyBody":
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:UploadSSHPublicKey", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let key = parse(&input.body)?;
        let made = server.store.register_ssh_key(&input.user_name, &key, call.request().time).await;
        let made = made.map_err(|error| match error {
            StoreError::Exists { name, .. } => ApiError::refused(
                "DuplicateSSHPublicKey",
                StatusCode::BAD_REQUEST,
                format!("The SSH public key {name} is registered already, with this user or another one."),
            ),
            other => refused(other),
        })?;
        changed(server).await?;
        Ok(Output { key: SSHPublicKey::of(made, input.body.trim().to_owned()) })
    }
}
