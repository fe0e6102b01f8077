//! `ListDocumentVersions`: lists the versions of a document, newest first.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Format, Found, Reference};
use super::names::DocumentText;
use super::pages::{MaxResults, begin};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{DocumentVersion, Page, VersionRef};

/// The operation.
pub struct ListDocumentVersions;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name or ARN.
    pub name: DocumentText,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The versions.
    pub document_versions: Vec<ShownVersion>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl Operation for ListDocumentVersions {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ListDocumentVersions";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Name":"Example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:ListDocumentVersions").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let limit = input.max_results.map_or(50, MaxResults::get);
        let paging = begin(call, server, &input.name, input.next_token.as_deref(), limit)?;
        let found = Reference::read(server, &input.name).find(server, &VersionRef::Default).await?;
        let page = if found.is_built_in() {
            Page { items: vec![found.version.clone()], next: None }
        } else {
            let after = paging.after.as_ref().and_then(|after| after.parse().ok());
            server.store.list_document_versions(&found.name, after, limit).await.map_err(refused)?.1
        };
        let next_token = paging.token(page.next)?;
        Ok(Output {
            document_versions: page.items.into_iter().map(|version| ShownVersion::new(&found, version)).collect(),
            next_token,
        })
    }
}

/// A version; members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShownVersion {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
    document_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_date: Option<EpochTime>,
    is_default_version: bool,
    document_format: Format,
    status: &'static str,
}

impl ShownVersion {
    fn new(document: &Found, version: DocumentVersion) -> Self {
        Self {
            name: document.name.clone(),
            display_name: version.display_name,
            is_default_version: version.version == document.default_version,
            document_version: version.version.to_string(),
            version_name: version.version_name,
            created_date: (!document.is_built_in()).then_some(EpochTime(version.created)),
            document_format: Format::Json,
            status: "Active",
        }
    }
}
