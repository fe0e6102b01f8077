//! `RemoveTagsFromResource`: removes tags of a node by key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::managed_node::tags_changed;
use super::tagged::Resource;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagKeys;
use crate::identity::Caller;

/// The operation.
pub struct RemoveTagsFromResource;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// What kind of thing; `ManagedInstance` or `Document`.
    pub resource_type: String,
    /// The node's id, or the document's name.
    pub resource_id: String,
    /// The keys.
    pub tag_keys: TagKeys,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {}

impl Operation for RemoveTagsFromResource {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "RemoveTagsFromResource";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str =
        r#"{"ResourceType":"ManagedInstance","ResourceId":"mi-00000000000000000","TagKeys":["k"]}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        Ok(vec![
            resource
                .requirement(server, "ssm:RemoveTagsFromResource")
                .await?
                .with_many("aws:TagKeys", input.tag_keys.iter().cloned()),
        ])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let resource = Resource::read(server, &input.resource_type, &input.resource_id)?;
        server.store.remove_tags(resource.tagged()?, &input.tag_keys).await.map_err(|error| resource.refused(error))?;
        tags_changed(server);
        Ok(Output {})
    }
}
