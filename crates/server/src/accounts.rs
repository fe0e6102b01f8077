//! People's accounts on nodes: planned from rules, groups and people, told to each node in a signed bundle, and reported
//! back into the trail.
//!
//! [`watch`] looks after every change and at least every ten minutes. What a round may take away is decided by
//! [`munjigi_core::account::plan`], whose first rule is that an answer that failed removes nobody (T-27).

mod build;
mod ensure;
mod just_in_time;
pub(crate) mod keys;
mod push;
mod report;
mod round;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use munjigi_core::grant::Epoch;
use munjigi_core::id::{NodeId, UniqueId};
use munjigi_core::wire::message::{AccountLine, AccountReport};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::identity::Principal;
use crate::service_event::service_event;
use crate::store::Node;
use crate::{Server, lock};

pub(crate) use ensure::{check_usable, ensure};
use just_in_time::WantedAccounts;
pub(crate) use just_in_time::{Present, present};
pub(crate) use report::{changed_on_node, shown};
pub(crate) use round::{confirm, round};
pub(crate) use view::View;

/// Between looks without a change, give or take a fifth (R10).
const EVERY: Duration = Duration::from_secs(600);
/// Between looks while accounts made just in time wait to be forgotten.
const SOON: Duration = Duration::from_secs(30);
/// Changes that come together are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Between the two complete rounds after which somebody leaves (R11).
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// For how long an account made just in time is told to its node without a session of its owner.
const WANTED: Duration = Duration::from_secs(300);
/// Most alerts that are remembered so that each is told once.
const MAX_ALERTS: usize = 10_000;

/// What the server knows of accounts beside the database.
#[derive(Default)]
pub(crate) struct Accounts {
    /// Rules, people and names as they were read last.
    view: Mutex<Arc<View>>,
    /// Held while a round or a claim of a name is under way: the pairs have one writer.
    planning: tokio::sync::Mutex<()>,
    /// Rises when rules, key files or nodes change; sent by operations and links, received by [`watch`].
    changes: watch::Sender<u64>,
    /// Told when an account was made just in time, so that it is not forgotten to be forgotten; heard by [`watch`].
    asked: tokio::sync::Notify,
    /// Principals that somebody removed from a group or deleted since the last complete round.
    explicit: Mutex<BTreeSet<String>>,
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// Accounts made just in time: which are wanted, and whose they are.
    just_in_time: Mutex<WantedAccounts>,
    alerts: Mutex<HashSet<String>>,
}

/// What is known of a node's accounts.
#[derive(Default, Clone)]
pub(crate) struct Known {
    /// The run of the agent that was told, a digest of what, and when.
    told: Option<(Epoch, [u8; 32], Instant)>,
    /// What it answered last.
    pub(crate) report: Option<AccountReport>,
    /// One bundle at a time.
    pushing: Arc<tokio::sync::Mutex<()>>,
    /// Whether somebody waits already to tell it what holds then.
    queued: Arc<AtomicBool>,
}

impl Accounts {
    /// Has everything looked at again, soon.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Notes that somebody was taken out of a group or deleted by a call: no absence of data, but a decision.
    pub(crate) fn removed_by_hand(&self, principal: &UniqueId) {
        lock(&self.explicit).insert(principal.to_string());
    }

    /// Returns the OS user that rules give a principal on a node, from what was read last; see [`View::fresh`].
    pub(crate) fn os_user(&self, principal: &Principal, node: &Node) -> Option<String> {
        let id = principal.unique_id.as_ref()?;
        self.view().os_user(id.as_str(), node)
    }

    /// Returns what was read last.
    pub(crate) fn view(&self) -> Arc<View> {
        lock(&self.view).clone()
    }

    /// Returns what is known of a node's accounts.
    pub(crate) fn known(&self, node: &NodeId) -> Known {
        lock(&self.nodes).entry(node.clone()).or_default().clone()
    }

    fn know(&self, node: &NodeId, change: impl FnOnce(&mut Known)) {
        change(lock(&self.nodes).entry(node.clone()).or_default());
    }

    /// Tells whether an alert is new.
    fn alert(&self, text: String) -> bool {
        let mut alerts = lock(&self.alerts);
        if alerts.len() >= MAX_ALERTS {
            alerts.clear();
        }
        alerts.insert(text)
    }

    /// Returns what is wrong with an account on a node, by the node's last answer.
    fn problem(&self, node: &NodeId, os_user: &str) -> Option<AccountLine> {
        let report = self.known(node).report?;
        report.problems.into_iter().find(|problem| problem.os_user == os_user)
    }
}

/// Why the watch woke.
enum Woken {
    /// Something changed, or it is time.
    Look,
    /// An account was made just in time: nothing is to be looked at now, but soon.
    Asked,
}

/// Looks after accounts until the server stops.
pub(crate) async fn watch(server: Arc<Server>) {
    let stop = server.stop.clone();
    let mut identities = server.identities.changed();
    let mut nodes = server.nodes_changed.subscribe();
    let mut changes = server.accounts.changes.subscribe();
    let mut next = Instant::now() + DEBOUNCE;
    loop {
        let woken = stop.run_until_cancelled(async {
            tokio::select! {
                changed = identities.changed() => changed.is_ok().then_some(Woken::Look),
                changed = nodes.changed() => changed.is_ok().then_some(Woken::Look),
                changed = changes.changed() => changed.is_ok().then_some(Woken::Look),
                () = tokio::time::sleep_until(next) => Some(Woken::Look),
                () = server.accounts.asked.notified() => Some(Woken::Asked),
            }
        });
        match woken.await.flatten() {
            Some(Woken::Look) => {}
            Some(Woken::Asked) => {
                next = next.min(Instant::now() + SOON);
                continue;
            }
            None => return,
        }
        if stop.run_until_cancelled(tokio::time::sleep(DEBOUNCE)).await.is_none() {
            return;
        }
        identities.mark_unchanged();
        nodes.mark_unchanged();
        changes.mark_unchanged();
        let Some(done) = stop.run_until_cancelled(round(&server)).await else { return };
        next = Instant::now()
            + match done {
                Ok(true) => SECOND_LOOK,
                Ok(false) if !lock(&server.accounts.just_in_time).is_empty() => SOON,
                Ok(false) => jittered(EVERY),
                Err(error) => {
                    // Nothing was taken away; the next look decides.
                    tracing::error!(error = format!("{error:#}"), "people's accounts could not be looked at");
                    jittered(SOON)
                }
            };
    }
}

/// Returns a time that differs from the given one by up to a fifth, so that servers do not look together (L2).
fn jittered(time: Duration) -> Duration {
    let [random] = crate::random::bytes::<1>();
    time.mul_f64(0.8 + 0.4 * f64::from(random) / 255.0)
}

/// Writes an event into the trail; a trail that takes none is said in the log, as nobody waits.
async fn tell(server: &Server, name: &str, details: Value, failure: Option<(&'static str, String)>) {
    if let Err(error) = server.audit.append(service_event(server, name, details, failure)).await {
        tracing::error!(%error, name, "an event of people's accounts could not be audited");
    }
}
