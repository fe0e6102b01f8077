//! Judges running sessions again when the identities change, and at least once a minute, and ends those that would
//! not be allowed to start now (T-6: within 5 seconds of the change).

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::destination::Destination;
use munjigi_core::id::SessionId;
use munjigi_core::session::EndReason;

use crate::api::ec2::place::Place;
use crate::api::ec2_instance_connect::open_tunnel;
use crate::api::munjigi::attach_session::WATCH_ACTION;
use crate::api::os_user::{choose_user_requirement, privileged_requirement};
use crate::api::ssm::document::{PREFERENCES, Reference};
use crate::api::ssm::start_session::{command_line, document_requirement, running, start_requirement, to};
use crate::api::ssm::terminate_session::{find, session_requirement};
use crate::clock;
use crate::door::{self, RequestMeta};
use crate::gateway::facts::SessionFacts;
use crate::gateway::{Handle, end};
use crate::identity::{Caller, Principal};
use crate::store::{StoreError, VersionRef};
use crate::{Server, forwarding};

/// How often sessions are judged without a change: conditions on time and day end sessions too (iam-policy 7).
const EVERY: Duration = Duration::from_secs(60);

/// Watches until the server stops.
pub(crate) async fn watch(server: Arc<Server>) {
    let stop = server.stop.clone();
    let mut changed = server.identities.changed();
    let mut nodes_changed = server.nodes_changed.subscribe();
    loop {
        let woken = stop.run_until_cancelled(async {
            tokio::select! {
                changed = changed.changed() => changed.is_ok(),
                changed = nodes_changed.changed() => changed.is_ok(),
                () = tokio::time::sleep(EVERY) => true,
            }
        });
        if woken.await != Some(true) {
            return;
        }
        for handle in server.gateway.live() {
            if let Some(why) = revoked(&server, &handle).await {
                tracing::info!(session = %handle.facts.id, why, "session revoked");
                end(&handle, EndReason::Revoked, &why).await;
            }
        }
    }
}

/// Returns a session's owner as it is now; `None` if it, or what it proved itself with, is gone.
pub(crate) fn owner(server: &Server, facts: &SessionFacts) -> Option<Arc<Principal>> {
    match &facts.credentials {
        // Their age alone ends no session: who was let in stays until policy says otherwise.
        Some(statement) => server.identities.of_statement(statement),
        None => facts.owner_id.as_ref().and_then(|id| server.identities.by_unique_id(id)),
    }
}

/// Returns why the session may not go on, if so. What cannot be judged is not allowed (T-11).
async fn revoked(server: &Server, handle: &Handle) -> Option<String> {
    let facts = &handle.facts;
    let Some(owner) = owner(server, facts) else {
        return Some("its owner, or the key that its owner had, was removed".to_owned());
    };
    if let (Some(key), None) = (&facts.access_key, &facts.credentials)
        && server.identities.by_access_key(key).is_none_or(|(_, holder)| holder.unique_id != owner.unique_id)
    {
        return Some("the access key it was started with was deleted or made inactive".to_owned());
    }
    if let Some(proof) = &facts.ssh
        && !server.identities.ssh_proof_holds(proof, &owner)
    {
        return Some(
            "the key or certificate that its owner came in with was removed, revoked or made inactive".to_owned(),
        );
    }
    let node = match server.store.node(&facts.node).await {
        Ok(node) => node,
        Err(StoreError::NotFound { .. }) => return Some("its node was deregistered".to_owned()),
        Err(error) => {
            // An outage is no revocation (T-17, T-27): the next look decides.
            tracing::error!(%error, "a running session could not be judged");
            return None;
        }
    };
    let destination = facts.destination();
    let line = command_line(facts.kind, &facts.command, facts.by_shell);
    let mut needs = match facts.needs.tunnel {
        Some((address, duration)) => {
            let port = destination.map_or(0, Destination::port);
            let endpoint = Place::of(&server.deployment).endpoint;
            vec![open_tunnel::requirement(server, &endpoint, Some(&node), address, port, duration)]
        }
        None if facts.forward.is_some() => match forwarding::standing(server, facts, node.clone()).await {
            Ok(Ok(needs)) => needs,
            Ok(Err(gone)) => return Some(gone.message),
            Err(error) => {
                // As above: no revocation.
                tracing::error!(%error, "a running session could not be judged");
                return None;
            }
        },
        None => {
            let start = to(start_requirement(server, &node, facts.needs.document), destination);
            vec![running(start, line.as_deref())]
        }
    };
    if facts.needs.document {
        if document_is_gone(server, &facts.document).await {
            return Some("its session document was deleted".to_owned());
        }
        match document_requirement(server, &facts.document).await {
            Ok(requirement) => needs.push(running(to(requirement, destination), line.as_deref())),
            Err(error) => {
                // As above: no revocation.
                tracing::error!(%error, "a running session could not be judged");
                return None;
            }
        }
    }
    needs.extend(facts.needs.chosen_user.then(|| choose_user_requirement(server, &node, &facts.os_user)));
    needs.extend(facts.privileged.then(|| privileged_requirement(server, &node, &facts.os_user)));
    let request = RequestMeta { time: clock::now(), ..facts.request.clone() };
    if let Err(denial) = door::judge(server, &owner, needs, &request).1 {
        return Some(denial.message);
    }
    if facts.forward.is_some() {
        forwarding::judge_running(server, handle, &owner).await;
    }
    None
}

/// Tells whether a document that a session was started with is deleted (T-104). The account's preferences are no such
/// document: without them the built-in ones hold.
async fn document_is_gone(server: &Server, name: &str) -> bool {
    let found = Reference::read(server, name).find(server, &VersionRef::Default).await;
    name != PREFERENCES && found.is_err_and(|error| !error.is_fault())
}

/// Returns when a watcher may watch no longer. Judged like running sessions: at each change, and once a minute.
pub(crate) async fn watching_ends(server: &Server, caller: &Caller, session: &SessionId, request: &RequestMeta) {
    let mut changed = server.identities.changed();
    loop {
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(EVERY) => {}
        }
        let Some(caller) = server.identities.present(caller) else { return };
        // An outage is no revocation (T-17): the next look decides.
        let Ok(row) = find(server, session).await else { continue };
        let needs = vec![session_requirement(server, WATCH_ACTION, session, row.as_ref())];
        let request = RequestMeta { time: clock::now(), ..request.clone() };
        if door::judge(server, caller.principal(), needs, &request).1.is_err() {
            return;
        }
    }
}
