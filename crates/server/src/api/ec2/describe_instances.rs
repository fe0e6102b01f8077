//! `ec2:DescribeInstances`: nodes as instances, with the addresses and places that Instance Connect's clients need.

use std::net::Ipv4Addr;
use std::sync::Arc;

use munjigi_core::id::NodeId;
use serde::{Deserialize, Serialize};

use super::filter::{self, Filter};
use super::{dry_run, place::Place};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::paging::Paging;
use crate::identity::Caller;
use crate::store::{Node, Page, Tag};

/// Nodes read at once.
const BATCH: usize = 500;
/// Most ids of a call.
const MAX_IDS: usize = 1000;
/// Pages have 5 to 1000 instances.
const PAGE: std::ops::RangeInclusive<u16> = 5..=1000;

/// Lists nodes as instances.
pub struct DescribeInstances;

/// Members as in the AWS model, as far as they mean something here.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeInstancesInput {
    /// Only these.
    #[serde(rename = "InstanceId", default, skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<String>,
    /// Only those that fit all.
    #[serde(rename = "Filter", default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// Length of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u16>,
    /// Where the page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// Only tell whether it would be allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DescribeInstancesOutput {
    /// One reservation for each instance.
    pub reservation_set: Vec<Reservation>,
    /// Where the next page begins.
    pub next_token: Option<String>,
}

/// What EC2 wraps instances in.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    reservation_id: String,
    owner_id: String,
    instances_set: Vec<Instance>,
}

/// A node as an instance. It has no public address, so clients take the tunnel.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_id: String,
    instance_state: State,
    private_ip_address: Ipv4Addr,
    vpc_id: String,
    subnet_id: String,
    placement: Placement,
    tag_set: Vec<ShownTag>,
    launch_time: String,
    platform_details: &'static str,
    architecture: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    iam_instance_profile: Option<Profile>,
}

#[derive(Debug, Serialize)]
struct State {
    code: u8,
    name: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Placement {
    availability_zone: String,
}

#[derive(Debug, Serialize)]
struct Profile {
    arn: String,
}

/// A tag as ec2 writes it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ShownTag {
    pub(super) key: String,
    pub(super) value: String,
}

/// Returns a node's tags; its name is its tag `Name` unless it has one.
pub(super) fn shown_tags(node: &Node) -> Vec<ShownTag> {
    let own = node.tags.iter().map(|Tag { key, value }| ShownTag { key: key.clone(), value: value.clone() });
    let mut tags: Vec<ShownTag> = own.collect();
    if !tags.iter().any(|tag| tag.key == "Name") {
        tags.push(ShownTag { key: "Name".to_owned(), value: node.name.clone() });
    }
    tags
}

impl Instance {
    fn of(server: &Server, node: &Node, address: Ipv4Addr, place: &Place) -> Self {
        let connected = server.gateway.node_online(&node.id);
        let (code, name) = if connected { (16, "running") } else { (80, "stopped") };
        Self {
            instance_id: node.id.instance_id(),
            instance_state: State { code, name },
            private_ip_address: address,
            vpc_id: place.vpc.clone(),
            subnet_id: place.subnet.clone(),
            placement: Placement { availability_zone: place.zone.clone() },
            tag_set: shown_tags(node),
            launch_time: node.registered.to_iso_seconds(),
            platform_details: "Linux/UNIX",
            architecture: node.facts.architecture.clone(),
            iam_instance_profile: (!node.iam_role.is_empty()).then(|| Profile {
                arn: format!("arn:aws:iam::{}:instance-profile/{}", server.deployment.account, node.iam_role),
            }),
        }
    }

    fn fits(&self, filter: &Filter) -> bool {
        match filter.name.as_str() {
            "instance-id" => filter.fits(&self.instance_id),
            "instance-state-name" => filter.fits(self.instance_state.name),
            "instance-state-code" => filter.fits(&self.instance_state.code.to_string()),
            "private-ip-address" => filter.fits(&self.private_ip_address.to_string()),
            "vpc-id" => filter.fits(&self.vpc_id),
            "subnet-id" => filter.fits(&self.subnet_id),
            "availability-zone" => filter.fits(&self.placement.availability_zone),
            "tag-key" => self.tag_set.iter().any(|tag| filter.fits(&tag.key)),
            name => name
                .strip_prefix("tag:")
                .is_some_and(|key| self.tag_set.iter().any(|tag| tag.key == key && filter.fits(&tag.value))),
        }
    }
}

fn known(name: &str) -> bool {
    let names = [
        "instance-id",
        "instance-state-name",
        "instance-state-code",
        "private-ip-address",
        "vpc-id",
        "subnet-id",
        "availability-zone",
        "tag-key",
    ];
    names.contains(&name) || name.strip_prefix("tag:").is_some_and(|key| !key.is_empty())
}

impl Operation for DescribeInstances {
    const SERVICE: Service = Service::Ec2;
    const NAME: &'static str = "DescribeInstances";
    const EFFECT: Effect = Effect::Read;
    type Input = DescribeInstancesInput;
    type Output = DescribeInstancesOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ec2:DescribeInstances")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        dry_run(input.dry_run)?;
        filter::check(&input.filters, known)?;
        let place = Place::of(&server.deployment);
        let mut next_token = None;
        let instances = if input.instance_ids.is_empty() {
            let limit = match input.max_results {
                Some(count) if !PAGE.contains(&count) => {
                    return Err(ApiError::Validation("MaxResults must be 5 to 1000.".to_owned()));
                }
                count => usize::from(count.unwrap_or(*PAGE.end())),
            };
            let parameters = serde_json::to_string(&input.filters).map_err(ApiError::internal)?;
            let paging = Paging::begin(call, server, &[&parameters], input.next_token.as_deref(), limit)
                .map_err(|error| ApiError::Validation(error.to_string()))?;
            let page = listed(server, &place, &input.filters, paging.after.clone(), limit).await?;
            next_token = paging.token(page.next)?;
            page.items
        } else {
            let named = named(server, &place, &input.instance_ids).await?;
            named.into_iter().filter(|one| input.filters.iter().all(|filter| one.fits(filter))).collect()
        };
        let account = server.deployment.account.to_string();
        let wrap = |instance: Instance| Reservation {
            reservation_id: instance.instance_id.replacen("i-", "r-", 1),
            owner_id: account.clone(),
            instances_set: vec![instance],
        };
        Ok(DescribeInstancesOutput { reservation_set: instances.into_iter().map(wrap).collect(), next_token })
    }
}

/// Returns the instances that were asked for by id; all must exist.
async fn named(server: &Server, place: &Place, ids: &[String]) -> Result<Vec<Instance>, ApiError> {
    if ids.len() > MAX_IDS {
        return Err(ApiError::Validation(format!("no more than {MAX_IDS} instance ids")));
    }
    let mut nodes = Vec::with_capacity(ids.len());
    for text in ids {
        let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
        let id = NodeId::parse_either(text).map_err(|_| {
            ApiError::bad("InvalidInstanceID.Malformed", format!("Invalid id: \"{shown}\" (expecting \"i-...\")"))
        })?;
        let absent =
            || ApiError::bad("InvalidInstanceID.NotFound", format!("The instance ID '{shown}' does not exist"));
        match server.store.node(&id).await {
            Ok(node) => nodes.push(node),
            Err(crate::store::StoreError::NotFound { .. }) => return Err(absent()),
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
    instances(server, place, nodes).await
}

async fn listed(
    server: &Server,
    place: &Place,
    filters: &[Filter],
    mut after: Option<String>,
    limit: usize,
) -> Result<Page<Instance>, ApiError> {
    let mut found = Vec::new();
    while found.len() <= limit {
        let page = server.store.list_nodes(after.as_deref(), BATCH).await.map_err(ApiError::internal)?;
        let all = instances(server, place, page.items).await?;
        found.extend(all.into_iter().filter(|one| filters.iter().all(|filter| one.fits(filter))));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    // Pages continue behind a node's own id.
    Ok(Page::cut(found, limit, |last| last.instance_id.replacen("i-", "mi-", 1)))
}

async fn instances(server: &Server, place: &Place, nodes: Vec<Node>) -> Result<Vec<Instance>, ApiError> {
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.id.clone()).collect();
    let addresses = server.store.node_addresses(&ids).await.map_err(ApiError::internal)?;
    let instance = |node: &Node| Some(Instance::of(server, node, *addresses.get(&node.id)?, place));
    Ok(nodes.iter().filter_map(instance).collect())
}
