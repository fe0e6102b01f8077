//! `ListRoles`: lists roles by path.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{Marker, MaxItems, PathPrefix};
use super::page::begin;
use super::refuse::refused;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct ListRoles;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Only those whose path begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathPrefix>,
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
    /// The roles.
    pub roles: Vec<shape::Role>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for ListRoles {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListRoles";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        Ok(vec![Requirement::new("iam:ListRoles", server.deployment.role(prefix, ""))])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        let paging = begin(call, server, &[prefix], input.marker.as_ref(), input.max_items)?;
        let page = server.store.list_roles(prefix, paging.after.as_deref(), paging.limit).await.map_err(refused)?;
        let roles = page.items.into_iter().map(|role| shape::Role::listed(server, role)).collect();
        Ok(Output { roles, is_truncated: page.next.is_some(), marker: paging.token(page.next)? })
    }
}
