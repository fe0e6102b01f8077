//! `ListTagsForResource`: lists the tags of a node or document.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tagged::Resource;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Tag;

/// The operation.
pub struct ListTagsForResource;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// What kind of thing; `ManagedInstance` or `Document`.
    pub resource_type: String,
    /// The node's id, or the document's name.
    pub resource_id: String,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The tags.
    pub tag_list: Vec<Tag>,
}

impl Operation for ListTagsForResource {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ListTagsForResource";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"ResourceType":"ManagedInstance","ResourceId":"mi-00000000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        Ok(vec![resource.requirement(server, "ssm:ListTagsForResource").await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        let tag_list = server.store.tags(resource.tagged()?).await.map_err(|error| resource.refused(error))?;
        Ok(Output { tag_list })
    }
}
