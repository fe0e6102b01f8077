//! `ListGroupsForUser`: lists the groups that a user is in.

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
pub struct ListGroupsForUser;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The user.
    pub user_name: EntityName,
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
    /// The groups.
    pub groups: Vec<shape::Group>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for ListGroupsForUser {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListGroupsForUser";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"UserName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_user(server, "iam:ListGroupsForUser", &input.user_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let paging = begin(call, server, &[&input.user_name], input.marker.as_ref(), input.max_items)?;
        let user = server.store.user(&input.user_name).await.map_err(refused)?;
        let page = server.store.groups_of_user(&user, paging.after.as_deref(), paging.limit).await.map_err(refused)?;
        let groups = page.items.into_iter().map(|group| shape::Group::new(server, group)).collect();
        Ok(Output { groups, is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
