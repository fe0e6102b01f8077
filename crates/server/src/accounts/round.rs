//! One look at rules, people and nodes: what each node's accounts shall be, written down, told, and sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use munjigi_core::account::bundle::{AccountMode, MAX_ACCOUNTS};
use munjigi_core::account::names::local_name;
use munjigi_core::account::pairs::Pairs;
use munjigi_core::account::plan::{Desired, Rights, Round, Row, State, What, plan};
use munjigi_core::account::rule::{Entitlement, Person, entitle};
use munjigi_core::id::NodeId;
use munjigi_core::session::EndReason;
use munjigi_core::time::Timestamp;
use serde_json::json;

use super::{View, just_in_time, push, tell};
use crate::api::os_user::RUN_AS_TAG;
use crate::store::{AgentKind, Node, StoreError};
use crate::{Server, clock, gateway, lock, targets};

/// Looks once. Returns whether a second look is to follow at once: somebody is missing for the first time.
pub(crate) async fn round(server: &Arc<Server>) -> anyhow::Result<bool> {
    let (nodes, again) = {
        let _planning = server.accounts.planning.lock().await;
        plan_all(server).await?
    };
    for (node, _) in nodes {
        if server.gateway.nodes.get(&node.id).is_some() {
            push::push_soon(server, node);
        }
    }
    Ok(again)
}

/// Notes a person's word that held accounts of a node may leave: all of them, or those that are named. Returns which.
pub(crate) async fn confirm(server: &Server, node: &NodeId, os_users: &[String]) -> Result<Vec<String>, StoreError> {
    let _planning = server.accounts.planning.lock().await;
    let mut rows = server.store.accounts_of_node(node).await?;
    let mut confirmed = Vec::new();
    let meant = |row: &&mut Row| row.held && (os_users.is_empty() || os_users.contains(&row.os_user));
    for row in rows.iter_mut().filter(meant) {
        row.confirmed = true;
        confirmed.push(row.os_user.clone());
    }
    server.store.set_node_accounts(node, &rows).await?;
    Ok(confirmed)
}

/// Plans every node's accounts. What cannot be read ends the round before anything was taken away.
async fn plan_all(server: &Arc<Server>) -> anyhow::Result<(Vec<(Node, Vec<Row>)>, bool)> {
    let now = clock::now();
    let explicit = lock(&server.accounts.explicit).clone();
    let view = View::read(server).await.context("failed to read rules and people")?;
    let nodes = targets::all_nodes(server).await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut former = server.store.node_accounts().await.context("failed to read the accounts of nodes")?;
    let (mut pairs, mut planned, mut again) = (view.pairs.clone(), Vec::new(), false);
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for node in nodes.into_iter().filter(|node| node.agent == AgentKind::Munjigi) {
        let rows = former.remove(node.id.as_str()).unwrap_or_default();
        let desired = desired(server, &view, &node, &mut pairs, &mut needed, now).await;
        let round = Round { now, complete: true, desired: &desired, explicit: &explicit };
        let next = plan(&rows, round);
        if next.rows != rows {
            server.store.set_node_accounts(&node.id, &next.rows).await.context("failed to store a node's accounts")?;
        }
        for (os_user, what) in &next.events {
            event(server, &node, &next.rows, os_user, *what).await;
        }
        again |= next.rows.iter().any(|row| is_due(row, now));
        needed.extend(
            next.rows.iter().filter(|row| !matches!(row.state, State::Removed(_))).map(|row| row.os_user.clone()),
        );
        planned.push((node, next.rows));
    }
    if !former.is_empty() {
        server
            .store
            .forget_accounts_of_gone_nodes()
            .await
            .context("failed to forget accounts of nodes that are gone")?;
    }
    let nodes = planned.iter().map(|(node, _)| (&node.id, node)).collect();
    just_in_time::forget_unwanted(server, &view, &nodes);
    needed.extend(lock(&server.accounts.just_in_time).keys().map(|(_, os_user)| os_user.clone()));
    pairs.release_unless(|pair| needed.contains(&pair.os_user), now);
    server.store.set_account_pairs(&view.pairs, &pairs).await.context("failed to store the local names")?;
    *lock(&server.accounts.view) = Arc::new(view.with_pairs(pairs));
    lock(&server.accounts.explicit).retain(|principal| !explicit.contains(principal));
    end_sessions_of_who_left(server, &view, &planned).await;
    Ok((planned, again))
}

/// Tells whether a second look decides about an account: it is missing for the first time, or its grace is over already.
fn is_due(row: &Row, now: Timestamp) -> bool {
    match row.state {
        State::Active => row.missing == 1,
        State::Locked(since) => now.since(since).as_secs() >= row.rights.grace_secs,
        State::Removed(_) => false,
    }
}

/// Returns the synchronised accounts that rules give on a node; who can have none is an alert and stops nobody (L12).
async fn desired(
    server: &Arc<Server>,
    view: &View,
    node: &Node,
    pairs: &mut Pairs,
    needed: &mut BTreeSet<String>,
    now: Timestamp,
) -> Vec<Desired> {
    let rules = view.rules_on(node);
    let mut found: BTreeMap<String, Desired> = BTreeMap::new();
    if rules.is_empty() {
        return Vec::new();
    }
    for person in view.people.values() {
        let Some(entitlement) = entitle(&rules, person) else { continue };
        let form = entitlement.form.to_string();
        if entitlement.mode == AccountMode::JustInTime {
            // Made when it is asked for; the name stays the person's meanwhile.
            let own = pairs.0.iter().find(|pair| pair.principal == person.principal && pair.form == form);
            needed.extend(own.map(|pair| pair.os_user.clone()));
            continue;
        }
        let Some(text) = entitlement.name_of(person) else { continue };
        let named = match local_name(text, entitlement.mapping) {
            Ok(name) => pairs.claim(&person.principal, &form, &name, now).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match named {
            Ok(pair) if found.len() < MAX_ACCOUNTS => {
                let one = Desired {
                    os_user: pair.os_user.clone(),
                    uid: pair.uid,
                    principal: person.principal.clone(),
                    owner: person.arn.clone(),
                    rights: rights(entitlement),
                };
                found.insert(pair.os_user, one);
            }
            Ok(_) => refuse(server, person, &format!("{} has as many accounts as it can have", node.name)).await,
            Err(why) => refuse(server, person, &why).await,
        }
    }
    found.into_values().collect()
}

pub(super) fn rights(entitlement: Entitlement) -> Rights {
    Rights {
        groups: entitlement.groups,
        sudo: Rights::of_sudo(entitlement.sudo),
        shell: entitlement.shell,
        grace_secs: entitlement.grace.as_secs(),
        remove_home: entitlement.remove_home,
    }
}

/// Says once that a person gets no account.
async fn refuse(server: &Arc<Server>, person: &Person, why: &str) {
    if server.accounts.alert(format!("{}: {why}", person.principal)) {
        tracing::warn!(user = person.name, why, "a person gets no account");
        let details = json!({ "principalArn": person.arn, "userName": person.name });
        tell(server, "AccountNameRefused", details, Some(("AccountNameRefused", why.to_owned()))).await;
    }
}

async fn event(server: &Arc<Server>, node: &Node, rows: &[Row], os_user: &str, what: What) {
    let row = rows.iter().find(|row| row.os_user == os_user);
    let name = match what {
        What::Added | What::Returned => "AccountGranted",
        What::Changed => "AccountRightsChanged",
        What::Left => "AccountWithdrawn",
        What::Removed => "AccountGraceEnded",
        What::Held => "AccountRemovalHeld",
    };
    let details = json!({
        "target": node.id,
        "osUser": os_user,
        "uid": row.map(|row| row.uid),
        "principalArn": row.map(|row| row.owner.clone()),
        "groups": row.map(|row| row.rights.groups.clone()),
        "sudo": row.map(|row| row.rights.sudo.clone()),
    });
    let failure = (what == What::Held).then(|| {
        let text = format!(
            "too many accounts would leave {} at once, so none does; `munjigi account confirm {}` lets them go",
            node.name, node.name
        );
        ("ConfirmationNeeded", text)
    });
    tell(server, name, details, failure).await;
}

/// Ends sessions that run as an account that its owner had by a rule and has no more: at once, whatever the grace (T-104).
async fn end_sessions_of_who_left(server: &Arc<Server>, view: &View, planned: &[(Node, Vec<Row>)]) {
    for handle in server.gateway.live() {
        let facts = &handle.facts;
        let Some(owner) = facts.owner_id.as_ref().map(ToString::to_string) else { continue };
        let own = view.pairs.0.iter().any(|pair| pair.os_user == facts.os_user && pair.principal == owner);
        let Some((node, rows)) = planned.iter().find(|(node, _)| node.id == facts.node) else { continue };
        let tagged = view.people.get(&owner).and_then(|person| person.tags.get(RUN_AS_TAG));
        let gone = match rows.iter().find(|row| row.os_user == facts.os_user) {
            // Held is not gone: nothing happens to running sessions before a person has said so.
            Some(row) => row.state != State::Active,
            None => view.entitlement(&owner, node).is_none(),
        };
        if own && gone && tagged != Some(&facts.os_user) {
            let why = format!("no account rule gives its owner the account {} on this node any more", facts.os_user);
            gateway::end(&handle, EndReason::Revoked, &why).await;
        }
    }
}
