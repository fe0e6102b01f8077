//! `DescribeAccounts`: the accounts of nodes, synchronised ones as they shall be and those made just in time as they are,
//! and what the nodes say of them.

use std::sync::Arc;

use munjigi_core::account::plan::{Rights, Row, State};
use munjigi_core::id::NodeId;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::accounts::{self, Present, shown};
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::target::Target;
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::Node;
use crate::targets;

/// The operation.
pub struct DescribeAccounts;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// Only of this node, by name, id or tag; of all if not given, for those who may see all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The nodes that have accounts, or would have some.
    pub nodes: Vec<NodeAccounts>,
}

/// A node's accounts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeAccounts {
    /// The node.
    pub node_id: NodeId,
    /// Its name.
    pub node_name: String,
    /// Whether it lets its accounts be managed; absent if it has not said yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<bool>,
    /// Accounts whose removal waits for a person.
    pub held: usize,
    /// The accounts.
    pub accounts: Vec<Account>,
    /// What the node says is wrong.
    pub problems: Vec<Problem>,
}

/// An account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Account {
    /// Its name.
    pub os_user: String,
    /// Its user id where it has to be made.
    pub uid: u32,
    /// Whose it is.
    pub principal_arn: String,
    /// `synchronised` or `just-in-time`.
    pub mode: &'static str,
    /// `active`, `held`, `locked` or `removed`; of one made just in time, `in-use` or `idle`.
    pub state: &'static str,
    /// Since when it is locked or removed; of one made just in time, since when it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<EpochTime>,
    /// Local groups.
    pub groups: Vec<String>,
    /// Rights by sudo.
    pub sudo: Vec<String>,
    /// Shell.
    pub shell: String,
}

/// Something that is not as it should be.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Problem {
    /// The account.
    pub os_user: String,
    /// `conflict` or `failed`.
    pub what: String,
    /// The node's words.
    pub detail: String,
}

impl Operation for DescribeAccounts {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "DescribeAccounts";
    const EFFECT: Effect = Effect::Read;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        const ACTION: &str = "munjigi:DescribeAccounts";
        match &input.target {
            Some(text) => Ok(Target::resolve(server, text).await?.requirements(server, ACTION, text)),
            None => Ok(vec![Requirement::any(ACTION)]),
        }
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let nodes = match &call.input().target {
            Some(text) => vec![Target::resolve(server, text).await?.into_node(text)?],
            None => targets::all_nodes(server).await?,
        };
        let mut rows_of = server.store.node_accounts().await.map_err(ApiError::internal)?;
        let named = call.input().target.is_some();
        let nodes = nodes.into_iter().filter_map(|node| {
            let rows = rows_of.remove(node.id.as_str()).unwrap_or_default();
            let known = server.accounts.known(&node.id).report.is_some();
            let present = accounts::present(server, &node);
            (named || known || !rows.is_empty() || !present.is_empty()).then(|| describe(server, node, rows, present))
        });
        Ok(Output { nodes: nodes.collect() })
    }
}

fn describe(server: &Server, node: Node, rows: Vec<Row>, present: Vec<Present>) -> NodeAccounts {
    let report = server.accounts.known(&node.id).report;
    let problems = report.iter().flat_map(|report| &report.problems).map(|problem| Problem {
        os_user: shown(&problem.os_user),
        what: shown(&problem.what),
        detail: shown(&problem.detail),
    });
    NodeAccounts {
        managed: report.as_ref().map(|report| report.managed),
        held: rows.iter().filter(|row| row.held).count(),
        problems: problems.collect(),
        accounts: rows.into_iter().map(account).chain(present.into_iter().map(just_in_time)).collect(),
        node_id: node.id,
        node_name: node.name,
    }
}

fn account(row: Row) -> Account {
    let (state, since) = match row.state {
        State::Active if row.held => ("held", None),
        State::Active => ("active", None),
        State::Locked(since) => ("locked", Some(EpochTime(since))),
        State::Removed(since) => ("removed", Some(EpochTime(since))),
    };
    listed(row.os_user, row.uid, row.owner, "synchronised", state, since, row.rights)
}

fn just_in_time(present: Present) -> Account {
    let (state, since) = (if present.in_use { "in-use" } else { "idle" }, present.since.map(EpochTime));
    listed(present.os_user, present.uid, present.owner, "just-in-time", state, since, present.rights)
}

fn listed(
    os_user: String,
    uid: u32,
    principal_arn: String,
    mode: &'static str,
    state: &'static str,
    since: Option<EpochTime>,
    rights: Rights,
) -> Account {
    let Rights { groups, sudo, shell, .. } = rights;
    Account { os_user, uid, principal_arn, mode, state, since, groups, sudo, shell }
}
