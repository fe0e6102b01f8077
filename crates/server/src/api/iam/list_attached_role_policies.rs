//! `ListAttachedRolePolicies`: lists the managed policies attached to a role.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{EntityName, Marker, MaxItems, PathPrefix};
use super::page::begin;
use super::refuse::refused;
use super::require;
use super::shape;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;
use crate::store::Owner;

/// The operation.
pub struct ListAttachedRolePolicies;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_name: EntityName,
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
    /// The policies.
    pub attached_policies: Vec<shape::AttachedPolicy>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

impl Operation for ListAttachedRolePolicies {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListAttachedRolePolicies";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"RoleName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![require::on_role(server, "iam:ListAttachedRolePolicies", &input.role_name).await?])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        let owner = Owner::Role(&input.role_name);
        let paging = begin(call, server, &[&input.role_name, prefix], input.marker.as_ref(), input.max_items)?;
        let policies = server.store.attached_policies(owner, prefix).await.map_err(refused)?;
        let page = paging.cut(policies, |policy| policy.arn.to_string());
        Ok(Output {
            attached_policies: page.items.into_iter().map(shape::AttachedPolicy::from).collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
