//! `ListSSHPublicKeys`: lists a user's SSH public keys, without their texts.

use std::sync::Arc;

use munjigi_core::id::SshKeyId;
use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use super::ssh_key::status;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct ListSSHPublicKeys;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user; the caller if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<EntityName>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The keys.
    #[serde(rename = "SSHPublicKeys")]
    pub keys: Vec<Key>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// A key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Key {
    /// Whose key it is.
    pub user_name: String,
    /// Its id.
    #[serde(rename = "SSHPublicKeyId")]
    pub id: SshKeyId,
    /// `Active` or `Inactive`.
    pub status: &'static str,
    /// When it was registered.
    pub upload_date: IsoTime,
}

impl Operation for ListSSHPublicKeys {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListSSHPublicKeys";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:ListSSHPublicKeys", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let user = require::meant(input.user_name.as_deref(), call.caller())?;
        let paging = begin(call, server, &[user], input.marker.as_ref(), input.max_items)?;
        let keys = server.store.list_ssh_keys(user).await.map_err(refused)?;
        let page = paging.cut(keys, |key| key.id.to_string());
        let keys = page.items.into_iter().map(|key| Key {
            user_name: key.user_name,
            id: key.id,
            status: status(key.active),
            upload_date: IsoTime(key.uploaded),
        });
        Ok(Output { keys: keys.collect(), is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
