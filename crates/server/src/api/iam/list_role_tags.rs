//! `ListRoleTags`: lists the tags of a role.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::{Tag, Tagged};

/// The operation.
pub struct ListRoleTags;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// How many entries at most; 100 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_items: Option<MaxItems>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The tags.
    pub tags: Vec<Tag>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for ListRoleTags {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListRoleTags";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"RoleName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:ListRoleTags", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let paging = begin(call, server, &[&input.role_name], input.marker.as_ref(), input.max_items)?;
        let tags = server.store.tags(Tagged::Role(&input.role_name)).await.map_err(refused)?;
        let page = paging.cut(tags, |tag| tag.key.to_lowercase());
        Ok(Output { tags: page.items, is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
