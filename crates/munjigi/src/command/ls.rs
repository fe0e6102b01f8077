//! `munjigi ls`: the nodes, and which of them are connected; or the targets behind them.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::{Finish, looking, note, print, print_json, target};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{Epoch, ListNodes, Node, NodeList};
use crate::client::clock;
use crate::client::table;
use crate::client::text::duration;

/// List the nodes
#[derive(Debug, Args)]
#[command(
    visible_alias = "nodes",
    after_help = "Examples:\n  munjigi ls\n  munjigi ls tag:Role=web --output json\n  munjigi ls --targets"
)]
pub(crate) struct Arguments {
    /// Only these: a name, an id, the head of an id, or tag:Key=Value
    node: Option<String>,
    /// List the targets instead: named services that are reached through nodes
    #[arg(long, conflicts_with = "node")]
    targets: bool,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    if arguments.targets {
        return looking(&arguments.place, async |api| target::list(api, arguments.output.output).await).await;
    }
    let nodes = looking(&arguments.place, async |api| list(api, arguments.node.as_deref()).await).await?;
    match arguments.output.output {
        Format::Json => print_json(&nodes.iter().map(Line::of).collect::<Vec<_>>())?,
        Format::Table if nodes.is_empty() => {
            note("no nodes; `aws ssm create-activation` and then `munjigi agent join` on a machine add one");
        }
        Format::Table => print(&table::render(&HEADER, &nodes.iter().map(row).collect::<Vec<_>>()))?,
    }
    Ok(Finish::Done)
}

/// Asks for all nodes that a wish names.
pub(super) async fn list(api: &mut Api, target: Option<&str>) -> anyhow::Result<Vec<Node>> {
    let mut request = ListNodes { target: target.map(str::to_owned), next_token: None };
    let mut nodes = Vec::new();
    loop {
        let page: NodeList = api.munjigi("ListNodes", &request).await.doing(api.context(), "cannot list the nodes")?;
        nodes.extend(page.nodes);
        match page.next_token {
            Some(token) => request.next_token = Some(token),
            None => return Ok(nodes),
        }
    }
}

/// A node as programs read it; the members are part of the command line's contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    id: &'a str,
    name: &'a str,
    state: &'a str,
    since: Option<String>,
    registered: Option<String>,
    hostname: &'a str,
    platform: &'a str,
    platform_version: &'a str,
    architecture: &'a str,
    agent: &'a str,
    agent_version: &'a str,
    tags: BTreeMap<&'a str, &'a str>,
}

impl<'a> Line<'a> {
    fn of(node: &'a Node) -> Self {
        let iso = |instant: Option<Epoch>| instant.map(|instant| instant.timestamp().to_iso_seconds());
        Self {
            id: &node.node_id,
            name: &node.name,
            state: &node.state,
            since: iso(node.since),
            registered: iso(node.registered_at),
            hostname: &node.hostname,
            platform: &node.platform_name,
            platform_version: &node.platform_version,
            architecture: &node.architecture,
            agent: &node.agent,
            agent_version: &node.agent_version,
            tags: node.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect(),
        }
    }
}

const HEADER: [&str; 7] = ["NAME", "ID", "STATE", "PLATFORM", "AGENT", "TAGS", "SINCE"];

fn row(node: &Node) -> Vec<String> {
    let tags: Vec<String> = node.tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect();
    let since = node.since.map(|since| duration(clock::now().since(since.timestamp())));
    vec![
        node.name.clone(),
        node.node_id.clone(),
        node.state.clone(),
        format!("{} {} {}", node.platform_name, node.platform_version, node.architecture).trim().to_owned(),
        format!("{} {}", node.agent, node.agent_version).trim().to_owned(),
        tags.join(","),
        since.unwrap_or_default(),
    ]
}
