//! `ModifyDocumentPermission`: changes with whom a session document is shared. This deployment has one account, so it is kept and shown and lets nobody in.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::Reference;
use super::names::{DocumentName, ShareAccount};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Sharing;

/// Most accounts in one call.
const MAX_ACCOUNTS: usize = 20;

/// The operation.
pub struct ModifyDocumentPermission;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: DocumentName,
    /// `Share`.
    pub permission_type: String,
    /// Accounts to share with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub account_ids_to_add: Vec<ShareAccount>,
    /// Accounts to share with no longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub account_ids_to_remove: Vec<ShareAccount>,
    /// `$DEFAULT`, `$LATEST` or `$ALL`; the default version if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_document_version: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for ModifyDocumentPermission {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ModifyDocumentPermission";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"Example","PermissionType":"Share"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:ModifyDocumentPermission").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        check_permission_type(&input.permission_type)?;
        if input.account_ids_to_add.len() > MAX_ACCOUNTS || input.account_ids_to_remove.len() > MAX_ACCOUNTS {
            let message = format!("no more than {MAX_ACCOUNTS} accounts in one call");
            return Err(ApiError::bad("DocumentPermissionLimit", message));
        }
        let version = input.shared_document_version.as_deref().unwrap_or("$DEFAULT");
        if !["$DEFAULT", "$LATEST", "$ALL"].contains(&version) {
            let message = "SharedDocumentVersion is $DEFAULT, $LATEST or $ALL";
            return Err(ApiError::Validation(message.to_owned()));
        }
        let lower = |accounts: &[ShareAccount]| -> Vec<String> {
            accounts.iter().map(|account| account.to_ascii_lowercase()).collect()
        };
        let (add, remove) = (lower(&input.account_ids_to_add), lower(&input.account_ids_to_remove));
        let reference = Reference::read(server, &input.name);
        let name = reference.changeable()?;
        let sharing = Sharing { add: &add, remove: &remove, version };
        server.store.share_document(name, &sharing).await.map_err(refused)?;
        Ok(Output {})
    }
}

/// Refuses kinds of permission other than `Share`.
pub(super) fn check_permission_type(kind: &str) -> Result<(), ApiError> {
    if kind == "Share" {
        return Ok(());
    }
    Err(ApiError::bad("InvalidPermissionType", "the only permission type of documents is Share"))
}
