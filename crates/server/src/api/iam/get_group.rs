//! `GetGroup`: shows a group and a page of its users.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems};
use super::page::begin;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct GetGroup;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The group.
    pub group_name: EntityName,
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
    /// The group.
    pub group: shape::Group,
    /// Its users.
    pub users: Vec<shape::User>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for GetGroup {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "GetGroup";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"GroupName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_group(server, "iam:GetGroup", &input.group_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let paging = begin(call, server, &[&input.group_name], input.marker.as_ref(), input.max_items)?;
        let group = server.store.group(&input.group_name).await.map_err(refused)?;
        let page = server.store.users_in_group(&group, paging.after.as_deref(), paging.limit).await.map_err(refused)?;
        Ok(Output {
            group: shape::Group::new(server, group),
            users: page.items.into_iter().map(|user| shape::User::new(server, user, Vec::new())).collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
