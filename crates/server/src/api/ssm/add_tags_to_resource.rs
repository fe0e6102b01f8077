//! `AddTagsToResource`: sets tags of a node over earlier ones of the same key.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::managed_node::{on_node, parse_resource, tags_changed};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::TagList;
use crate::identity::Caller;
use crate::store::Tagged;

/// The operation.
pub struct AddTagsToResource;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// What kind of thing; only `ManagedInstance` has tags here.
    pub resource_type: String,
    /// The node.
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
        let node = parse_resource(&input.resource_type, &input.resource_id)?;
        Ok(vec![on_node(server, "ssm:AddTagsToResource", &node).await?.request_tags(input.tags.pairs())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let node = parse_resource(&input.resource_type, &input.resource_id)?;
        server.store.put_tags(Tagged::Node(&node), &input.tags).await.map_err(refused)?;
        tags_changed(server);
        Ok(Output {})
    }
}
