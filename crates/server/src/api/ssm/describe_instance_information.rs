//! `DescribeInstanceInformation`: lists nodes with what is known of them.

use std::sync::Arc;

use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::filter::{Filter, NodeFilter, OldFilter};
use super::managed_node::{PingStatus, ping_status};
use super::pages::{MaxResults, begin};
use super::refuse::refused;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{Node, Page};

/// Nodes read at once.
const BATCH: usize = 500;

/// The operation.
pub struct DescribeInstanceInformation;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// All must hold; the old form, which does not go together with the new one.
    #[serde(default)]
    pub instance_information_filter_list: Vec<OldFilter>,
    /// All must hold.
    #[serde(default)]
    pub filters: Vec<Filter>,
    /// How many at most; 50 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<MaxResults<5, 50>>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The nodes.
    pub instance_information_list: Vec<Shown>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// A node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown {
    /// Its id.
    pub instance_id: NodeId,
    /// Whether it is connected.
    pub ping_status: PingStatus,
    /// When it was last heard of; now while it is connected.
    pub last_ping_date_time: EpochTime,
    /// The agent's version.
    pub agent_version: String,
    /// Whether that is this server's own version.
    pub is_latest_version: bool,
    /// Always `Linux`.
    pub platform_type: &'static str,
    /// Its operating system.
    pub platform_name: String,
    /// Version of the operating system.
    pub platform_version: String,
    /// The activation it registered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_id: Option<String>,
    /// The role of that activation.
    pub iam_role: String,
    /// When it registered.
    pub registration_date: EpochTime,
    /// Always `ManagedInstance`.
    pub resource_type: &'static str,
    /// Its name.
    pub name: String,
    /// The address it last came from.
    #[serde(rename = "IPAddress", skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The host's own name.
    pub computer_name: String,
}

impl Shown {
    fn new(node: Node, ping_status: PingStatus, now: Timestamp) -> Self {
        let last = if ping_status == PingStatus::Online { now } else { node.last_seen };
        Self {
            instance_id: node.id,
            ping_status,
            last_ping_date_time: EpochTime(last),
            is_latest_version: node.facts.agent_version == env!("CARGO_PKG_VERSION"),
            agent_version: node.facts.agent_version,
            platform_type: "Linux",
            platform_name: node.facts.platform_name,
            platform_version: node.facts.platform_version,
            activation_id: node.activation.map(|id| id.to_string()),
            iam_role: node.iam_role,
            registration_date: EpochTime(node.registered),
            resource_type: "ManagedInstance",
            name: node.name,
            ip_address: node.ip_address,
            computer_name: node.facts.hostname,
        }
    }
}

impl Operation for DescribeInstanceInformation {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DescribeInstanceInformation";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:DescribeInstanceInformation")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let input = call.input();
        let filters = NodeFilter::read(&input.filters, &input.instance_information_filter_list)?;
        let parameters = serde_json::to_string(&(&input.filters, &input.instance_information_filter_list));
        let limit = input.max_results.map_or(50, MaxResults::get);
        let token = input.next_token.as_deref();
        let paging = begin(call, server, &parameters.map_err(ApiError::internal)?, token, limit)?;
        let now = call.request().time;
        let mut found = Vec::new();
        let mut after = paging.after.clone();
        while found.len() <= limit {
            let page = server.store.list_nodes(after.as_deref(), BATCH).await.map_err(refused)?;
            let with_status = page.items.into_iter().map(|node| (ping_status(server, &node, now), node));
            found.extend(with_status.filter(|(status, node)| filters.iter().all(|filter| filter.holds(node, *status))));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let page = Page::cut(found, limit, |(_, last)| last.id.to_string());
        Ok(Output {
            instance_information_list: page
                .items
                .into_iter()
                .map(|(status, node)| Shown::new(node, status, now))
                .collect(),
            next_token: paging.token(page.next)?,
        })
    }
}
