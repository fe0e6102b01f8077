//! `DescribeDocument`: describes a document and one of its versions.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::{Description, Reference, VersionText, version_ref};
use super::names::{DocumentText, VersionName};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct DescribeDocument;

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
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The document.
    pub document: Description,
}

impl Operation for DescribeDocument {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DescribeDocument";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"Name":"Example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let document = Reference::read(server, &input.name);
        Ok(vec![document.requirement(server, "ssm:DescribeDocument").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let wanted = version_ref(input.document_version.as_ref(), input.version_name.as_deref())?;
        let found = Reference::read(server, &input.name).find(server, &wanted).await?;
        Ok(Output { document: found.describe() })
    }
}
