//! `GetAccessKeyLastUsed`: tells when and for what an access key was last used.

use std::sync::Arc;

use munjigi_core::id::AccessKeyId;
use serde::{Deserialize, Serialize};

use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::IsoTime;
use crate::identity::Caller;

/// The operation.
pub struct GetAccessKeyLastUsed;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The key.
    pub access_key_id: AccessKeyId,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// Whose key it is.
    pub user_name: String,
    /// Its latest use.
    pub access_key_last_used: Used,
}

/// The latest use of a key.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Used {
    /// When; absent if it was never used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used_date: Option<IsoTime>,
    /// Which service; `N/A` if it was never used.
    pub service_name: String,
    /// Which region; `N/A` if it was never used.
    pub region: String,
}

impl Operation for GetAccessKeyLastUsed {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetAccessKeyLastUsed";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"AccessKeyId":"AKIAAAAAAAAAAAAAAAAA"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let action = "iam:GetAccessKeyLastUsed";
        Ok(vec![match server.store.access_key(&input.access_key_id).await {
            Ok(key) => require::on_user(server, action, &key.user_name).await?,
            // Absent keys belong to nobody: only who may ask about every user learns that there is none.
            Err(_) => Requirement::any(action),
        }])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let key = server.store.access_key(&call.input().access_key_id).await.map_err(refused)?;
        let access_key_last_used = match key.last_used {
            Some(used) => {
                Used { last_used_date: Some(IsoTime(used.time)), service_name: used.service, region: used.region }
            }
            None => Used { last_used_date: None, service_name: "N/A".to_owned(), region: "N/A".to_owned() },
        };
        Ok(Output { user_name: key.user_name, access_key_last_used })
    }
}
