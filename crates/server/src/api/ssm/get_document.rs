//! `GetDocument`: returns the text of a document, as it was given.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Format, Reference, VersionText, version_ref};
use super::names::{DocumentText, VersionName};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;

/// The operation.
pub struct GetDocument;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name or ARN.
    pub name: DocumentText,
    /// Which version; the default one if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_version: Option<VersionText>,
    /// The same by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_name: Option<VersionName>,
    /// In which form; the text is the same in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_format: Option<Format>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The document.
    pub name: String,
    /// When the version was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_date: Option<EpochTime>,
    /// Its name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The version's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_name: Option<String>,
    /// The version.
    pub document_version: String,
    /// Always `Active`.
    pub status: &'static str,
    /// The text.
    pub content: String,
    /// Its type.
    pub document_type: String,
    /// How the text is written.
    pub document_format: Format,
}

impl Operation for GetDocument {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "GetDocument";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Name":"Example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:GetDocument").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let wanted = version_ref(input.document_version.as_ref(), input.version_name.as_deref())?;
        let found = Reference::read(server, &input.name).find(server, &wanted).await?;
        Ok(Output {
            name: found.name,
            created_date: found.created.map(EpochTime),
            display_name: found.version.display_name,
            version_name: found.version.version_name,
            document_version: found.version.version.to_string(),
            status: "Active",
            content: found.version.content,
            document_type: found.document_type,
            // A text in JSON is one in YAML too (YAML 1.2, section 1.3), so that it serves every form as it is.
            document_format: input.document_format.unwrap_or(Format::Json),
        })
    }
}
