//! `UpdateManagedInstancePublicKey`: AWS's agent replaces its RSA key; it signs the call with the old one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::own_node;
use super::refuse::refused;
use super::register_managed_instance::node_key;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct UpdateManagedInstancePublicKey;

/// Its input. The agent's versions differ, so unknown members are let be.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The new key: base 64 of its `SubjectPublicKeyInfo`.
    pub new_public_key: String,
    /// Always `Rsa`.
    #[serde(default)]
    pub new_public_key_type: String,
}

/// Its output.
#[derive(Debug, Serialize)]
pub struct Output {}

impl Operation for UpdateManagedInstancePublicKey {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "UpdateManagedInstancePublicKey";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::NodeKey;
    const EXAMPLE: &'static str = r#"{"NewPublicKey":"","NewPublicKeyType":"Rsa"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::calling(server, caller, Self::NAME).await?;
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let key = node_key(&input.new_public_key, &input.new_public_key_type)?;
        let node = own_node::calling(server, call.caller(), Self::NAME).await?;
        let replaced = server.store.replace_node_key(&node.id, &node.public_key, key.as_der()).await;
        if !replaced.map_err(refused)? {
            return Err(ApiError::bad("TooManyUpdates", "the node's key was replaced by another call just now"));
        }
        Ok(Output {})
    }
}
