//! `UpdateDocument`: adds a version to a session document. It does not become the default one by itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Description, Format, Found, Reference, VersionText, check};
use super::names::{DisplayName, DocumentName, TargetType, VersionName};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{NewVersion, VersionRef};

/// The operation.
pub struct UpdateDocument;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: DocumentName,
    /// The new text, at most 64 KB.
    pub content: String,
    /// The version that is updated: `$LATEST` or the newest one's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_version: Option<VersionText>,
    /// How the text is written; JSON if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_format: Option<Format>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<DisplayName>,
    /// The name of the new version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_name: Option<VersionName>,
    /// The kind of resource it is for; it stays what it was at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<TargetType>,
    /// Files beside it; session documents have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<serde_json::Value>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The document.
    pub document_description: Description,
}

impl Operation for UpdateDocument {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "UpdateDocument";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"Example","DocumentVersion":"$LATEST","Content":"{}"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:UpdateDocument").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        if !input.attachments.is_empty() {
            return Err(ApiError::Validation("a session document has no Attachments".to_owned()));
        }
        let reference = Reference::read(server, &input.name);
        let name = reference.changeable()?;
        let newest = match input.document_version.as_ref().map(|version| &version.0) {
            Some(VersionRef::Latest) => None,
            Some(VersionRef::Number(number)) => Some(*number),
            _ => {
                let message = "DocumentVersion must be $LATEST or the number of the newest version";
                return Err(ApiError::bad("InvalidDocumentVersion", message));
            }
        };
        reference.find(server, &VersionRef::Latest).await?;
        check(name, &input.content, input.document_format)?;
        let new = NewVersion {
            content: &input.content,
            version_name: input.version_name.as_deref(),
            display_name: input.display_name.as_deref(),
        };
        let made = server.store.add_document_version(name, newest, &new, call.request().time).await;
        let (document, version) = made.map_err(refused)?;
        server.preferences.changed();
        Ok(Output { document_description: Found::stored(server, document, version).describe() })
    }
}
