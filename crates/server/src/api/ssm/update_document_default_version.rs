//! `UpdateDocumentDefaultVersion`: chooses the version that sessions use.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Reference, VersionText};
use super::names::DocumentName;
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::VersionRef;

/// The operation.
pub struct UpdateDocumentDefaultVersion;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: DocumentName,
    /// The version's number.
    pub document_version: VersionText,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// What is the default now.
    pub description: DefaultVersion,
}

impl Operation for UpdateDocumentDefaultVersion {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "UpdateDocumentDefaultVersion";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"Example","DocumentVersion":"1"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:UpdateDocumentDefaultVersion").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let reference = Reference::read(server, &input.name);
        let name = reference.changeable()?;
        let VersionRef::Number(number) = input.document_version.0 else {
            return Err(ApiError::Validation("DocumentVersion must be the number of a version".to_owned()));
        };
        let (document, version) = server.store.set_default_document_version(name, number).await.map_err(refused)?;
        server.preferences.changed();
        Ok(Output {
            description: DefaultVersion {
                name: document.name,
                default_version: version.version.to_string(),
                default_version_name: version.version_name,
            },
        })
    }
}

/// What is the default version of a document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DefaultVersion {
    /// The document.
    pub name: String,
    /// Its default version.
    pub default_version: String,
    /// The name of that version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_version_name: Option<String>,
}
