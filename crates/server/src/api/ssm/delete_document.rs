//! `DeleteDocument`: deletes a session document, or one of its versions that is not the default one.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Reference, VersionText, version_ref};
use super::managed_node::tags_changed;
use super::names::{DocumentName, VersionName};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DeleteDocument;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Its name.
    pub name: DocumentName,
    /// A version; the whole document if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_version: Option<VersionText>,
    /// The same by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_name: Option<VersionName>,
    /// Changes nothing: session documents have nothing that would keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for DeleteDocument {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DeleteDocument";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"Name":"Example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:DeleteDocument").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let one = input.document_version.is_some() || input.version_name.is_some();
        let wanted = version_ref(input.document_version.as_ref(), input.version_name.as_deref())?;
        let reference = Reference::read(server, &input.name);
        let name = reference.changeable()?;
        server.store.delete_document(name, one.then_some(&wanted)).await.map_err(refused)?;
        server.preferences.changed();
        // Sessions that were started with it are judged again (T-104).
        tags_changed(server);
        Ok(Output {})
    }
}
