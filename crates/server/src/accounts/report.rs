//! What nodes did with accounts, into the trail. A node speaks for itself alone (T-32) and may lie: its words are checked in
//! form, bounded, and decide nothing but what is shown and whether its own sessions start.

use std::sync::Arc;

use anyhow::Context as _;
use munjigi_core::grant::valid_os_user;
use munjigi_core::id::NodeId;
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{AccountLine, AccountReport, MAX_ACCOUNT_LINES};
use serde_json::json;

use super::tell;
use crate::Server;
use crate::service_event::service_event;

/// Most bytes of a detail that go into the trail.
const MAX_DETAIL: usize = 256;

/// Takes a report that nobody asked for, such as on what had failed and was tried again.
pub(crate) async fn changed_on_node(server: &Arc<Server>, node: &NodeId, report: AccountReport) -> anyhow::Result<()> {
    let known = server.accounts.known(node);
    let _one = known.pushing.lock().await;
    let mut told = server.store.account_node(node).await?;
    if report.version == 0 || report.version > told.version {
        tracing::warn!(%node, "a node reports on an account bundle that it was never told");
        return Ok(());
    }
    told.recorded = take(server, node, &report, told.recorded).await?;
    server.store.set_account_node(node, told).await?;
    server.accounts.know(node, |known| {
        let is_newer = known.report.as_ref().is_none_or(|held| held.version <= report.version);
        if is_newer {
            known.report = Some(report);
        }
    });
    Ok(())
}

/// Takes a report; returns the number of the newest change that is in the trail now.
pub(super) async fn take(
    server: &Arc<Server>,
    node: &NodeId,
    report: &AccountReport,
    recorded: u64,
) -> anyhow::Result<u64> {
    let mut recorded = recorded;
    for change in report.changes.iter().take(MAX_ACCOUNT_LINES) {
        if change.number <= recorded {
            continue;
        }
        recorded = change.number;
        let Some(name) = event_name(&change.what).filter(|_| valid_os_user(&change.os_user)) else {
            tracing::warn!(%node, "a node reported a change of an account that is none");
            continue;
        };
        server.accounts.changed_there(node, change);
        let details = json!({
            "target": node,
            "osUser": change.os_user,
            "detail": shown(&change.detail),
            "time": Timestamp(change.at_micros).to_iso_seconds(),
        });
        server.audit.append(service_event(server, name, details, None)).await.context("failed to audit an account")?;
    }
    for problem in report.problems.iter().take(MAX_ACCOUNT_LINES) {
        if !valid_os_user(&problem.os_user)
            || !server.accounts.alert(format!("{node} {}: {}", problem.os_user, sentence(problem)))
        {
            continue;
        }
        let name = if problem.what == "conflict" { "AccountConflict" } else { "AccountFailed" };
        let details = json!({ "target": node, "osUser": problem.os_user });
        tracing::warn!(%node, user = problem.os_user, why = shown(&problem.detail), "an account is not as it should be");
        tell(server, name, details, Some((name, shown(&problem.detail)))).await;
    }
    Ok(recorded)
}

/// Returns the name under which a change stands in the trail.
fn event_name(what: &str) -> Option<&'static str> {
    Some(match what {
        "created" => "AccountCreated",
        "adopted" => "AccountAdopted",
        "unlocked" => "AccountUnlocked",
        "changed" => "AccountChanged",
        "locked" => "AccountLocked",
        "removed" => "AccountRemoved",
        "settled" => "AccountSettled",
        _ => return None,
    })
}

/// Returns a node's words as they are shown.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect()
}

/// Returns what is wrong as people read it.
pub(super) fn sentence(problem: &AccountLine) -> String {
    format!("{}: {}", shown(&problem.what), shown(&problem.detail))
}
