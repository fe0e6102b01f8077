//! `ListNodes`: the nodes by what people call them, with tags and whether each is connected now.

use std::sync::Arc;

use munjigi_core::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::pages::{MaxResults, begin};
use crate::api::ssm::refuse::refused;
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{Node, Page, Tag};

/// Nodes read at once.
const BATCH: usize = 500;
/// Nodes in an answer when the caller does not say.
const DEFAULT_RESULTS: usize = 500;
/// Longest target in characters, as in `StartSession`.
const MAX_TARGET: usize = 400;

/// The operation.
pub struct ListNodes;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Only nodes with this name, id, head of an id, or `tag:Key=Value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How many at most; 500 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<1, 1000>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The nodes.
    pub nodes: Vec<Shown>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its id.
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// `Online` while it has its link, else `Offline`.
    pub state: &'static str,
    /// When it was last heard of, for a node that is offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<EpochTime>,
    /// When it registered.
    pub registered_at: EpochTime,
    /// The host's own name.
    pub hostname: String,
    /// Its operating system.
    pub platform_name: String,
    /// Version of the operating system.
    pub platform_version: String,
    /// Its processor.
    pub architecture: String,
    /// The kind of agent: `munjigi`, or `aws` for AWS's, which cannot verify grants.
    pub agent: &'static str,
    /// The agent's version.
    pub agent_version: String,
    /// Its tags.
    pub tags: Vec<Tag>,
}

impl Operation for ListNodes {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ListNodes";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        // It tells what `DescribeInstanceInformation` tells, so the same permission opens it.
        Ok(vec![Requirement::any("ssm:DescribeInstanceInformation")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let target = input.target.as_deref().unwrap_or_default();
        if target.chars().count() > MAX_TARGET {
            return Err(ApiError::Validation(format!("a target has at most {MAX_TARGET} characters")));
        }
        let limit = input.max_results.map_or(DEFAULT_RESULTS, MaxResults::get);
        let paging = begin(call, server, target, input.next_token.as_deref(), limit)?;
        let mut found = Vec::new();
        let mut after = paging.after.clone();
        while found.len() <= limit {
            let page = server.store.list_nodes(after.as_deref(), BATCH).await.map_err(refused)?;
            found.extend(page.items.into_iter().filter(|node| target.is_empty() || is_meant(node, target)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let page = Page::cut(found, limit, |last| last.id.to_string());
        Ok(Output {
            nodes: page.items.into_iter().map(|node| Shown::new(server, node)).collect(),
            next_token: paging.token(page.next)?,
        })
    }
}

/// Tells whether a target means a node: its name without regard to case, its id or the head of it, or one of its tags.
fn is_meant(node: &Node, target: &str) -> bool {
    if let Some((key, value)) = target.strip_prefix("tag:").and_then(|tag| tag.split_once('=')) {
        return node.tags.iter().any(|tag| tag.key == key && tag.value == value);
    }
    let id = node.id.as_str();
    node.name.to_lowercase() == target.to_lowercase()
        || id.starts_with(target)
        || id.strip_prefix("mi-").is_some_and(|id| id.starts_with(target))
}

impl Shown {
    fn new(server: &Server, node: Node) -> Self {
        let online = server.gateway.node_online(&node.id);
        Self {
            node_id: node.id,
            name: node.name,
            state: if online { "Online" } else { "Offline" },
            since: (!online).then_some(EpochTime(node.last_seen)),
            registered_at: EpochTime(node.registered),
            hostname: node.facts.hostname,
            platform_name: node.facts.platform_name,
            platform_version: node.facts.platform_version,
            architecture: node.facts.architecture,
            agent: node.agent.as_str(),
            agent_version: node.facts.agent_version,
            tags: node.tags,
        }
    }
}
