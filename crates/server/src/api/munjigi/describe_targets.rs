//! `DescribeTargets`: the targets with everything but their passwords, and how many of their nodes are connected.

use std::sync::Arc;

use munjigi_core::target::TargetName;
use serde::{Deserialize, Serialize};

use super::target::{Shown, refused};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::pages::{MaxResults, begin};
use crate::identity::Caller;
use crate::targets;

/// Targets in an answer when the caller does not say; their certificates make them large.
const DEFAULT_RESULTS: usize = 50;
/// Most names in one call.
const MAX_NAMES: usize = 50;

/// The operation.
pub struct DescribeTargets;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Only these, each of which must be there and be allowed; all if not given, for those who may see all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<TargetName>,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The targets, in the order of their names or of the question.
    pub targets: Vec<Shown>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

impl Operation for DescribeTargets {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeTargets";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        const ACTION: &str = "munjigi:DescribeTargets";
        if input.names.len() > MAX_NAMES {
            return Err(ApiError::Validation(format!("no more than {MAX_NAMES} names in one call")));
        }
        if input.names.is_empty() {
            return Ok(vec![Requirement::any(ACTION)]);
        }
        let mut needed = Vec::new();
        for name in &input.names {
            let found = targets::find(server, name.as_str()).await.map_err(refused)?;
            needed.push(targets::requirement(server, ACTION, name, found.as_ref()));
        }
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let limit = input.max_results.map_or(DEFAULT_RESULTS, MaxResults::get);
        let (found, next_token) = if input.names.is_empty() {
            let paging = begin(call, server, "", input.next_token.as_deref(), limit)?;
            let page = server.store.list_targets(paging.after.as_deref(), limit).await.map_err(refused)?;
            (page.items, paging.token(page.next)?)
        } else {
            let mut found = Vec::new();
            for name in &input.names {
                found.push(server.store.target(name).await.map_err(refused)?);
            }
            (found, None)
        };
        let nodes = targets::all_nodes(server).await?;
        let targets = found.into_iter().map(|target| Shown::of(server, target, &nodes)).collect();
        Ok(Output { targets, next_token })
    }
}
