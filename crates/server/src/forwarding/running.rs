//! Connections of forward sessions are judged again while they run: when policies change, and as the bytes grow that
//! policies ask for.

use std::sync::Arc;
use std::time::Duration;

use crate::Server;
use crate::clock;
use crate::door::RequestMeta;
use crate::gateway::Handle;
use crate::gateway::ports::{Ledger, Reached};
use crate::identity::Principal;
use crate::revoke;

use super::{Reaching, judge};

/// How often sessions whose bytes matter are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// Cuts the connections of a session that would not be made now.
pub(crate) async fn judge_running(server: &Server, handle: &Handle, owner: &Principal) {
    let Some(ledger) = &handle.ports else { return };
    let request = RequestMeta { time: clock::now(), ..handle.facts.request.clone() };
    let carried = ledger.carried();
    for Reached { number, endpoint, address } in ledger.reached() {
        let reaching = Reaching::of(&endpoint, &handle.facts).at(address).after(carried);
        match judge(server, owner, &handle.facts, reaching, &request).await {
            Ok(judged) => {
                if let Some(why) = judged.denial {
                    tracing::info!(session = %handle.facts.id, number, why, "connection cut");
                    ledger.cut(number, &format!("policy: {why}"));
                }
            }
            // An outage is no revocation (T-17, T-27): the next look decides.
            Err(error) => tracing::error!(%error, "a running connection could not be judged"),
        }
    }
}

/// Watches a session whose owner's policies ask for its bytes, once for each session, until it is over.
pub(crate) fn watch_bytes(server: &Arc<Server>, handle: &Handle, ledger: &Arc<Ledger>) {
    if !ledger.begin_watching() {
        return;
    }
    let (server, handle, ledger) = (server.clone(), handle.clone(), ledger.clone());
    let tasks = server.tasks.clone();
    tasks.spawn(async move {
        let mut judged = 0;
        loop {
            let stop = server.stop.run_until_cancelled(tokio::time::sleep(EVERY));
            if ledger.over().run_until_cancelled(stop).await.flatten().is_none() {
                return;
            }
            let carried = ledger.carried();
            if carried == judged {
                continue;
            }
            judged = carried;
            // A session whose owner is gone is ended elsewhere.
            if let Some(owner) = revoke::owner(&server, &handle.facts) {
                judge_running(&server, &handle, &owner).await;
            }
        }
    });
}
