//! `CreateDocument`: keeps a session document; its first version is the default one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Description, Format, Found, Reference, SESSION, check};
use super::names::{DisplayName, DocumentName, TargetType, VersionName};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::{NewDocument, NewVersion, VersionRef};

/// How reserved names begin, in any case (aws-api C.5); longer ones of AWS begin with these.
const RESERVED: [&str; 3] = ["aws", "amazon", "amzn"];

/// The operation.
pub struct CreateDocument;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name; beginnings that AWS reserves are refused.
    pub name: DocumentName,
    /// Its text, at most 64 KB.
    pub content: String,
    /// Its type; only `Session` is kept here, and AWS's default is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_type: Option<String>,
    /// How the text is written; JSON if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_format: Option<Format>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<DisplayName>,
    /// The name of its first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_name: Option<VersionName>,
    /// The kind of resource it is for; kept and shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_type: Option<TargetType>,
    /// Tags of the document.
    #[serde(default)]
    pub tags: TagList,
    /// Other documents that it needs; session documents need none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<serde_json::Value>,
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

impl Operation for CreateDocument {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "CreateDocument";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"Example","DocumentType":"Session","Content":"{\"schemaVersion\":\"1.0\",\"sessionType\":\"Port\",\"properties\":{\"portNumber\":\"22\"}}"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        let requirement = document.requirement(server, "ssm:CreateDocument").await?;
        Ok(vec![requirement.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let lower = input.name.to_ascii_lowercase();
        if let Some(reserved) = RESERVED.iter().find(|reserved| lower.starts_with(**reserved)) {
            return Err(ApiError::Validation(format!("names that begin with {reserved} are reserved")));
        }
        if input.document_type.as_deref() != Some(SESSION) {
            let message = "only session documents are kept here: set DocumentType to Session";
            return Err(ApiError::Validation(message.to_owned()));
        }
        if !input.requires.is_empty() || !input.attachments.is_empty() {
            let message = "a session document has neither Requires nor Attachments";
            return Err(ApiError::Validation(message.to_owned()));
        }
        check(&input.name, &input.content, input.document_format)?;
        let new = NewDocument {
            name: &input.name,
            document_type: SESSION,
            target_type: input.target_type.as_deref(),
            created_by: call.caller().principal().arn.as_str(),
            first: NewVersion {
                content: &input.content,
                version_name: input.version_name.as_deref(),
                display_name: input.display_name.as_deref(),
            },
            tags: &input.tags,
        };
        server.store.create_document(&new, call.request().time).await.map_err(refused)?;
        server.preferences.changed();
        let (document, version) = server.store.document(&input.name, &VersionRef::Latest).await.map_err(refused)?;
        Ok(Output { document_description: Found::stored(server, document, version).describe() })
    }
}
