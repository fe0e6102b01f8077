//! `ListPolicies`: lists managed policies, built-in ones and the account's own.

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
use crate::store::{PolicyFilter, PolicyScope};

/// The operation.
pub struct ListPolicies;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Which policies; all if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// Only those attached to something.
    #[serde(default)]
    pub only_attached: bool,
    /// Only those whose path begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<PathPrefix>,
    /// Only those used so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_usage_filter: Option<Usage>,
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
    pub policies: Vec<shape::Policy>,
    /// Whether there is more.
    pub is_truncated: bool,
    /// Where the page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub marker: Option<String>,
}

/// Whose policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Scope {
    /// All.
    All,
    /// Those that come with the program.
    #[serde(rename = "AWS")]
    Aws,
    /// The account's own.
    Local,
}

/// What policies are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum Usage {
    /// Attached to a user or group.
    PermissionsPolicy,
    /// Bounding a user.
    PermissionsBoundary,
}

impl Operation for ListPolicies {
    const SERVICE: Service = Service::Iam;
    const NAME: &'static str = "ListPolicies";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        Ok(vec![Requirement::new("iam:ListPolicies", server.deployment.policy(prefix, ""))])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let prefix = input.path_prefix.as_deref().unwrap_or("/");
        let parameters = format!("{:?} {:?} {}", input.scope, input.policy_usage_filter, input.only_attached);
        let paging = begin(call, server, &[prefix, &parameters], input.marker.as_ref(), input.max_items)?;
        let filter = PolicyFilter {
            scope: match input.scope {
                None | Some(Scope::All) => PolicyScope::All,
                Some(Scope::Aws) => PolicyScope::Builtin,
                Some(Scope::Local) => PolicyScope::Own,
            },
            attached: input.only_attached || input.policy_usage_filter == Some(Usage::PermissionsPolicy),
            bounding: input.policy_usage_filter == Some(Usage::PermissionsBoundary),
        };
        let listed = server.store.list_policies(filter, prefix, paging.after.as_deref(), paging.limit).await;
        let page = listed.map_err(refused)?;
        Ok(Output {
            policies: page.items.into_iter().map(|policy| shape::Policy::new(policy, Vec::new())).collect(),
            is_truncated: page.next.is_some(),
            marker: paging.token(page.next)?,
        })
    }
}
