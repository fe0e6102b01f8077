//! `AddTagsToResource`: sets tags of a node or document over earlier ones of the same key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::managed_node::tags_changed;
use super::tagged::Resource;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;

/// The operation.
pub struct AddTagsToResource;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// What kind of thing; `ManagedInstance` or `Document`.
    pub resource_type: String,
    /// The node's id, or the document's name.
    pub resource_id: String,
    /// The tags.
    pub tags: TagList,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for AddTagsToResource {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "AddTagsToResource";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"ResourceType":"ManagedInstance","ResourceId":"mi-00000000000000000","Tags":[{"Key":"k","Value":"v"}]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        Ok(vec![resource.requirement(server, "ssm:AddTagsToResource").await?.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        server.store.put_tags(resource.tagged()?, &input.tags).await.map_err(|error| resource.refused(error))?;
        tags_changed(server);
        Ok(Output {})
    }
}
