//! Accounts that are made for sessions: which are wanted on a node at present, and which are there.
//!
//! What is kept here is lost when the server stops; running sessions say it again, so that their accounts stay.

use std::collections::HashMap;
use std::sync::Arc;

use munjigi_core::account::bundle::AccountMode;
use munjigi_core::account::plan::Rights;
use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::AccountLine;
use tokio::time::Instant;

use super::round::rights;
use super::{Accounts, View, WANTED};
use crate::store::Node;
use crate::{Server, clock, lock};

/// Wanted accounts by node and name.
pub(super) type WantedAccounts = HashMap<(NodeId, String), Wanted>;

/// An account that somebody asked for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The unchanging id of its owner.
    pub(super) principal: String,
    /// When it was asked for last.
    asked: Instant,
    /// Since when it is on the node, by the node's word; `None`: it is not, or not yet.
    made: Option<Timestamp>,
}

/// An account that is on a node for sessions.
pub(crate) struct Present {
    /// Its name.
    pub(crate) os_user: String,
    /// Its user id where it has to be made.
    pub(crate) uid: u32,
    /// Its owner's ARN.
    pub(crate) owner: String,
    /// Whether a session runs as it.
    pub(crate) in_use: bool,
    /// Since when it is there; `None` if it could not be made.
    pub(crate) since: Option<Timestamp>,
    /// What it has.
    pub(crate) rights: Rights,
}

impl Accounts {
    /// Notes that an account is asked for.
    pub(super) fn want(&self, node: &NodeId, os_user: &str, principal: &str) {
        let mut wanted = lock(&self.just_in_time);
        let one = wanted.entry((node.clone(), os_user.to_owned())).or_insert_with(|| Wanted::by(principal, None));
        (one.principal, one.asked) = (principal.to_owned(), Instant::now());
    }

    /// Notes what a node did with an account.
    pub(super) fn changed_there(&self, node: &NodeId, change: &AccountLine) {
        let os_user = change.os_user.as_str();
        if change.what == "settled" {
            // Should it happen again, it is told again.
            lock(&self.alerts).retain(|alert| !alert.starts_with(&format!("{node} {os_user}: ")));
        }
        if let Some(wanted) = lock(&self.just_in_time).get_mut(&(node.clone(), os_user.to_owned())) {
            match change.what.as_str() {
                // A node's clock may be wrong, but nothing happened in the future.
                "created" | "adopted" | "unlocked" => wanted.made = Some(Timestamp(change.at_micros).min(clock::now())),
                "locked" | "removed" => wanted.made = None,
                _ => {}
            }
        }
    }
}

impl Wanted {
    fn by(principal: &str, made: Option<Timestamp>) -> Self {
        Self { principal: principal.to_owned(), asked: Instant::now(), made }
    }
}

/// Takes up the accounts of sessions that run: the server may have been started again since they were asked for.
fn take_up_running(server: &Server, view: &View) {
    for handle in server.gateway.live() {
        let facts = &handle.facts;
        let Some(owner) = facts.owner_id.as_ref().map(ToString::to_string) else { continue };
        if view.pairs.0.iter().any(|pair| pair.os_user == facts.os_user && pair.principal == owner) {
            let key = (facts.node.clone(), facts.os_user.clone());
            lock(&server.accounts.just_in_time).entry(key).or_insert_with(|| Wanted::by(&owner, Some(facts.started)));
        }
    }
}

/// Returns the accounts that are wanted on a node, and their owners.
pub(super) fn wanted(server: &Server, view: &View, node: &NodeId) -> Vec<(String, String)> {
    take_up_running(server, view);
    let wanted = lock(&server.accounts.just_in_time);
    let here = wanted.iter().filter(|((id, _), _)| id == node);
    here.map(|((_, os_user), wanted)| (os_user.clone(), wanted.principal.clone())).collect()
}

/// Forgets accounts that nobody asked for lately and nobody uses, and those that no rule gives any more.
pub(super) fn forget_unwanted(server: &Arc<Server>, view: &View, nodes: &HashMap<&NodeId, &Node>) {
    take_up_running(server, view);
    let live = server.gateway.live();
    lock(&server.accounts.just_in_time).retain(|(id, os_user), wanted| {
        let used = live.iter().any(|handle| handle.facts.node == *id && handle.facts.os_user == *os_user);
        let given = nodes.get(id).and_then(|node| view.entitlement(&wanted.principal, node));
        given.is_some_and(|given| given.mode == AccountMode::JustInTime)
            && (used || Instant::now().saturating_duration_since(wanted.asked) < WANTED)
    });
}

/// Returns the accounts that are on a node for sessions, or could not be made, in the order of their names.
pub(crate) fn present(server: &Server, node: &Node) -> Vec<Present> {
    let (view, live) = (server.accounts.view(), server.gateway.live());
    take_up_running(server, &view);
    let listed: Vec<(String, Wanted)> = {
        let wanted = lock(&server.accounts.just_in_time);
        let here = wanted.iter().filter(|((id, _), _)| *id == node.id);
        here.map(|((_, os_user), wanted)| (os_user.clone(), wanted.clone())).collect()
    };
    let one = |(os_user, wanted): (String, Wanted)| {
        let in_use = live.iter().any(|handle| handle.facts.node == node.id && handle.facts.os_user == os_user);
        let is_problem = server.accounts.problem(&node.id, &os_user).is_some();
        let given = view.entitlement(&wanted.principal, node)?;
        if given.mode != AccountMode::JustInTime || !(in_use || is_problem || wanted.made.is_some()) {
            return None;
        }
        let pair = view.pairs.0.iter().find(|pair| pair.os_user == os_user && pair.principal == wanted.principal)?;
        let owner = view.people.get(&wanted.principal)?.arn.clone();
        Some(Present { uid: pair.uid, os_user, owner, in_use, since: wanted.made, rights: rights(given) })
    };
    let mut present: Vec<Present> = listed.into_iter().filter_map(one).collect();
    present.sort_by(|one, other| one.os_user.cmp(&other.os_user));
    present
}
