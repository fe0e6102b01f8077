//! Before a session starts as an account that a rule gives: the account is there, on the node's own word.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::account::bundle::AccountMode;
use munjigi_core::account::names::local_name;
use munjigi_core::account::plan::State;

use super::report::sentence;
use super::{View, push, round};
use crate::api::error::ApiError;
use crate::identity::Principal;
use crate::store::{AgentKind, Node};
use crate::{Server, clock, lock};

/// How long a start waits for an account.
const LIMIT: Duration = Duration::from_secs(60);

/// Sees to it that an OS user which a rule gives to this principal on this node is there; others are not this function's
/// business. Call it once the start is allowed and before anything is granted.
pub(crate) async fn ensure(
    server: &Arc<Server>,
    node: &Node,
    os_user: &str,
    principal: &Principal,
) -> Result<(), ApiError> {
    let Some(id) = principal.unique_id.as_ref().filter(|_| node.agent == AgentKind::Munjigi) else { return Ok(()) };
    let view = View::fresh(server).await.map_err(ApiError::internal)?;
    if view.os_user(id.as_str(), node).as_deref() != Some(os_user) {
        return Ok(());
    }
    let Some(mode) = view.entitlement(id.as_str(), node).map(|given| given.mode) else { return Ok(()) };
    let making = async {
        match mode {
            AccountMode::JustInTime => just_in_time(server, node, os_user, id.as_str()).await,
            AccountMode::Synchronised => synchronised(server, node, os_user).await,
        }
    };
    let refused = |why: String| {
        let node = &node.name;
        ApiError::bad("TargetNotConnected", format!("the account {os_user} is not ready on {node} ({why}); try again"))
    };
    match tokio::time::timeout(LIMIT, making).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(refused(format!("{error:#}"))),
        Err(_) => return Err(refused(format!("the node did not make it within {} s", LIMIT.as_secs()))),
    }
    check_usable(server, node, os_user, principal)
}

/// Refuses an account that a rule gives to this principal and that is not as it should be on the node, by the node's last
/// word: a stranger's account of that name must not become this person's.
pub(crate) fn check_usable(server: &Server, node: &Node, os_user: &str, principal: &Principal) -> Result<(), ApiError> {
    if server.accounts.os_user(principal, node).as_deref() != Some(os_user) {
        return Ok(());
    }
    match server.accounts.problem(&node.id, os_user) {
        Some(problem) => {
            let (name, why) = (&node.name, sentence(&problem));
            Err(ApiError::bad("TargetNotConnected", format!("the account {os_user} cannot be used on {name}: {why}")))
        }
        None => Ok(()),
    }
}

/// Has the account told to the node anew: it may have been removed since it was told last.
async fn just_in_time(server: &Arc<Server>, node: &Node, os_user: &str, principal: &str) -> anyhow::Result<()> {
    {
        let _planning = server.accounts.planning.lock().await;
        let view = View::fresh(server).await?;
        let mut pairs = view.pairs.clone();
        let given = view.entitlement(principal, node).context("no rule gives it any more")?;
        let person = view.people.get(principal).context("the person is gone")?;
        let text = given.name_of(person).context("the person has no such tag")?;
        let name = local_name(text, given.mapping)?;
        pairs.claim(principal, &given.form.to_string(), &name, clock::now())?;
        server.store.set_account_pairs(&view.pairs, &pairs).await?;
        *lock(&server.accounts.view) = Arc::new(view.with_pairs(pairs));
        server.accounts.want(&node.id, os_user, principal);
    }
    // One that is in use is there, and stays for a while behind its last session.
    let live = server.gateway.live();
    let used = live.iter().any(|handle| handle.facts.node == node.id && handle.facts.os_user == os_user);
    push::push(server, node, !used).await?;
    server.accounts.asked.notify_one();
    Ok(())
}

/// Waits for the round that gives it, if it is not given yet, and for the node.
async fn synchronised(server: &Arc<Server>, node: &Node, os_user: &str) -> anyhow::Result<()> {
    let rows = server.store.accounts_of_node(&node.id).await?;
    if !rows.iter().any(|row| row.os_user == os_user && row.state == State::Active) {
        round(server).await?;
    }
    // What this run of the agent was told already is not told again, unless something is wrong that may be right by now.
    let is_problem = server.accounts.problem(&node.id, os_user).is_some();
    push::push(server, node, is_problem).await.map(drop)
}
