//! `ListAccessKeys`: lists a user's access keys, without their secrets.

use std::sync::Arc;

use munjigi_core::id::AccessKeyId;
use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct ListAccessKeys;

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
    pub access_key_metadata: Vec<Key>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
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
    pub access_key_id: AccessKeyId,
    /// `Active` or `Inactive`.
    pub status: &'static str,
    /// When it was made.
    pub create_date: IsoTime,
}

impl Operation for ListAccessKeys {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListAccessKeys";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let name = require::meant(input.user_name.as_deref(), caller)?;
        Ok(vec![require::on_user(server, "iam:ListAccessKeys", name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let user = require::meant(input.user_name.as_deref(), call.caller())?;
        let paging = begin(call, server, &[user], input.marker.as_ref(), input.max_items)?;
        let keys = server.store.list_access_keys(user).await.map_err(refused)?;
        let page = paging.cut(keys, |key| key.id.to_string());
        let access_key_metadata = page.items.into_iter().map(|key| Key {
            user_name: key.user_name,
            access_key_id: key.id,
            status: if key.active { "Active" } else { "Inactive" },
            create_date: IsoTime(key.created),
        });
        Ok(Output {
            access_key_metadata: access_key_metadata.collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
