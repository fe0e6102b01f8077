//! `DescribeDocumentPermission`: tells with whom a session document is shared.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::Reference;
use super::modify_document_permission::check_permission_type;
use super::names::DocumentName;
use super::pages::{MaxResults, begin};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DescribeDocumentPermission;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: DocumentName,
    /// `Share`.
    pub permission_type: String,
    /// How many at most; 20 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 200>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The accounts.
    pub account_ids: Vec<String>,
    /// The accounts and what they see.
    pub account_sharing_info_list: Vec<Shared>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl Operation for DescribeDocumentPermission {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DescribeDocumentPermission";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Name":"Example","PermissionType":"Share"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:DescribeDocumentPermission").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        check_permission_type(&input.permission_type)?;
        let limit = input.max_results.map_or(20, MaxResults::get);
        let paging = begin(call, server, &input.name, input.next_token.as_deref(), limit)?;
        let reference = Reference::read(server, &input.name);
        let shares = server.store.document_shares(reference.changeable()?).await.map_err(refused)?;
        let page = paging.cut(shares, |(account, _)| account.clone());
        let next_token = paging.token(page.next)?;
        let shared = |(account_id, shared_document_version)| Shared { account_id, shared_document_version };
        let account_sharing_info_list: Vec<Shared> = page.items.into_iter().map(shared).collect();
        let account_ids = account_sharing_info_list.iter().map(|one| one.account_id.clone()).collect();
        Ok(Output { account_ids, account_sharing_info_list, next_token })
    }
}

/// An account that the document is shared with.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shared {
    /// The account, or `all`.
    pub account_id: String,
    /// What it sees.
    pub shared_document_version: String,
}
