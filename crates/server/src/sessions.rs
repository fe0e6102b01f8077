//! The book of sessions: what the gateway reports goes into the store and the trail, and comes back after a restart.
//!
//! Changes of state are written by one task behind a bounded queue, so that no session waits for the database; the
//! end of a session is written before anybody is told of it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::id::{NodeId, SessionId, UniqueId};
use munjigi_core::recording::{Connection, Event, EventKind};
use munjigi_core::session::{EndReason, SessionKind, SessionStatus};
use munjigi_core::wire::message::End;
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::prepare::Judged;
use crate::clock;
use crate::door::{RequestMeta, Via};
use crate::forwarding;
use crate::gateway::facts::{Outcome, SessionFacts};
use crate::gateway::launch;
use crate::gateway::ports::Ended;
use crate::gateway::serve::AuthenticatedNode;
use crate::recording::{Recorder, RecordingError, Recovered, SealedRecording};
use crate::service_event::service_event;
use crate::store::{AgentKind, NodeFacts, SessionEnd, SessionRow};

/// Changes that may wait to be written.
const QUEUE: usize = 4096;

/// A change of a live session's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A client is attached and the program reachable.
    Attached,
    /// No client, or no node; it can be resumed.
    Detached,
    /// Being ended.
    Ending,
}

impl Change {
    fn status(self) -> SessionStatus {
        match self {
            Self::Attached => SessionStatus::Connected,
            Self::Detached => SessionStatus::Disconnected,
            Self::Ending => SessionStatus::Terminating,
        }
    }
}

/// Where changes are handed in.
pub struct Book {
    changes: mpsc::Sender<(SessionId, Change)>,
}

impl Book {
    /// Opens the book; the receiver goes to [`keep`].
    pub fn new() -> (Self, mpsc::Receiver<(SessionId, Change)>) {
        let (changes, received) = mpsc::channel(QUEUE);
        (Self { changes }, received)
    }
}

/// Writes changes until the server stops; a burst is one transaction.
pub async fn keep(server: Arc<Server>, mut changes: mpsc::Receiver<(SessionId, Change)>) {
    let mut batch = Vec::new();
    while server.stop.run_until_cancelled(changes.recv_many(&mut batch, 256)).await.is_some_and(|count| count > 0) {
        let statuses: Vec<(SessionId, SessionStatus)> =
            batch.drain(..).map(|(session, change)| (session, change.status())).collect();
        if let Err(error) = server.store.set_session_statuses(&statuses).await {
            tracing::error!(%error, "session states could not be written");
        }
    }
}

/// Reports a change of state.
pub async fn changed(server: &Server, facts: &SessionFacts, change: Change) {
    // The queue is the back-pressure; its receiver lives as long as the server.
    let _ = server.book.changes.send((facts.id.clone(), change)).await;
    if change == Change::Attached && clock::now().since(facts.started).as_secs() > 0 {
        let event = service_event(server, "ResumeSession", session_details(facts), None);
        if let Err(error) = server.audit.append(event).await {
            tracing::error!(%error, "a resume could not be audited");
        }
    }
}

fn session_details(facts: &SessionFacts) -> serde_json::Value {
    json!({
        "sessionId": facts.id,
        "target": facts.node,
        "targetName": facts.node_name,
        "owner": facts.owner,
        "osUser": facts.os_user,
        "documentName": facts.document,
    })
}

/// Writes the end of a session into store and trail.
pub async fn ended(
    server: &Server,
    facts: &SessionFacts,
    outcome: &Outcome,
    sealed: Result<SealedRecording, RecordingError>,
) {
    let (hash, bytes_in, bytes_out, recording) = match &sealed {
        Ok(sealed) => (Some(hex::encode(sealed.hash)), sealed.bytes_in, sealed.bytes_out, Some(sealed.path.clone())),
        Err(_) => (None, 0, outcome.output_end, None),
    };
    let end = SessionEnd {
        time: outcome.at,
        reason: outcome.reason,
        exit: outcome.exit.clone(),
        recording_hash: hash.clone(),
        bytes_in,
        bytes_out,
    };
    let mut details = session_details(facts);
    if let Some(map) = details.as_object_mut() {
        map.insert("endReason".into(), json!(outcome.reason));
        map.insert("message".into(), json!(outcome.message));
        map.insert("exit".into(), json!(outcome.exit));
        map.insert("durationSeconds".into(), json!(outcome.at.since(facts.started).as_secs_f64()));
        map.insert("bytesIn".into(), json!(bytes_in));
        map.insert("bytesOut".into(), json!(bytes_out));
        map.insert("recordingId".into(), json!(facts.id));
        map.insert("recording".into(), json!(recording));
        map.insert("recordingHash".into(), json!(hash));
        if facts.kind == SessionKind::Port {
            map.insert("destination".into(), json!(facts.destination().map(ToString::to_string)));
            map.insert("endpoints".into(), json!(facts.endpoints));
            map.insert("forward".into(), json!(facts.forward));
            map.insert("connections".into(), json!(outcome.connections));
        }
    }
    let failure = sealed.err().map(|error| ("RecordingFailed", error.to_string()));
    let event = service_event(server, "EndSession", details, failure);
    // Store and trail are independent files: both waits run together.
    let (stored, audited) = tokio::join!(server.store.finish_session(&facts.id, &end), server.audit.append(event));
    if let Err(error) = stored {
        tracing::error!(session = %facts.id, %error, "the end of a session could not be stored");
    }
    if let Err(error) = audited {
        tracing::error!(session = %facts.id, %error, "the end of a session could not be audited");
    }
}

/// Writes the end of a session whose recording cannot be written: it does not start, or does not go on.
pub async fn unrecorded(server: &Server, facts: &SessionFacts, error: RecordingError) {
    let (reason, message, at) = (EndReason::RecordingFailed, error.to_string(), clock::now());
    let outcome = Outcome { reason, message, exit: None, output_end: 0, at, connections: None };
    ended(server, facts, &outcome, Err(error)).await;
}

/// What somebody who comes back to a finished session needs.
pub struct Past {
    /// Its node.
    pub node: NodeId,
    /// The node's name then.
    pub node_name: String,
    /// The OS user.
    pub os_user: String,
    /// Input bytes in all, as recorded.
    pub input_end: u64,
    /// Output bytes in all.
    pub output_end: u64,
    /// The frame that tells the end.
    pub end: End,
}

/// Looks up a session that is over.
pub async fn past(server: &Server, id: &SessionId) -> Result<Past, ApiError> {
    let row = server.store.session(id).await.map_err(ApiError::internal)?;
    let Some(end) = row.end else {
        return Err(ApiError::bad(
            "DoesNotExistException",
            format!("session {id} is neither running nor over; try again"),
        ));
    };
    // What a port session carried is not in its recording.
    let output_end = if row.kind == SessionKind::Port { 0 } else { end.bytes_out };
    let outcome = Outcome {
        reason: end.reason,
        message: end.reason.sentence().to_owned(),
        exit: end.exit,
        output_end,
        at: end.time,
        connections: None,
    };
    Ok(Past {
        node: row.node,
        node_name: row.node_name,
        os_user: row.os_user,
        input_end: end.bytes_in,
        output_end,
        end: outcome.to_end(),
    })
}

/// Takes back the sessions that an earlier run of this server left to their nodes, and ends those it cannot.
pub async fn take_back(server: &Arc<Server>) -> anyhow::Result<usize> {
    let mut taken = 0;
    for row in server.store.unfinished_sessions().await? {
        let reopened = server.recordings.reopen(&row.id, mode(&row)).await;
        if let Ok((recorder, recovered)) = &reopened {
            lose_connections(server, &facts_of(&row), recorder, recovered).await;
        }
        match reopened {
            // The numbers of its data channel are gone with the former run of this server.
            Ok((recorder, recovered)) if cannot_come_back(server, &row).await => {
                let reason = EndReason::ServerRestarted;
                let sealed = recorder.seal(reason, None).await;
                let (message, at) = (reason.sentence().to_owned(), clock::now());
                let outcome =
                    Outcome { reason, message, exit: None, output_end: recovered.output_end, at, connections: None };
                ended(server, &facts_of(&row), &outcome, sealed).await;
            }
            Ok((recorder, recovered)) => {
                let held = launch::Held {
                    output_end: recovered.output_end,
                    input_end: recovered.input_end,
                    last_connection: recovered.last_connection,
                };
                let facts = facts_of(&row);
                if facts.over_api {
                    server.gateway.channels.lost(&facts.id);
                }
                launch::take_back(server, facts, recorder, held);
                taken += 1;
            }
            Err(error) => {
                tracing::error!(session = %row.id, %error, "a session's recording cannot be continued; it is ended");
                unrecorded(server, &facts_of(&row), error).await;
            }
        }
    }
    Ok(taken)
}

/// Writes into recording and trail that the connections which the former run of this server carried are over.
async fn lose_connections(server: &Server, facts: &SessionFacts, recorder: &Recorder, recovered: &Recovered) {
    for (number, lost) in &recovered.open {
        let at = clock::now();
        let end = Connection::Lost { number: *number, why: "the server stopped".to_owned() };
        let micros = u64::try_from(at.since(facts.started).as_micros()).unwrap_or(u64::MAX);
        let event = EventKind::Connection(Box::new(end.clone()));
        if let Err(error) = recorder.append(Event { at: micros.max(recovered.last_at), kind: event }) {
            tracing::error!(session = %facts.id, %error, "that a connection was lost could not be recorded");
        }
        if facts.forward.is_some() {
            let (endpoint, address) = (lost.destination.clone(), lost.address.clone());
            let opened = facts.started.plus(Duration::from_micros(lost.at));
            forwarding::closed(server, facts, &Ended { opened, at, endpoint, address, end }).await;
        }
    }
}

/// Tells whether the session runs on a node with AWS's agent.
async fn cannot_come_back(server: &Server, row: &SessionRow) -> bool {
    server.store.node(&row.node).await.is_ok_and(|node| node.agent == AgentKind::Aws)
}

fn mode(row: &SessionRow) -> crate::recording::Mode {
    if row.limits.strict_recording { crate::recording::Mode::Strict } else { crate::recording::Mode::Normal }
}

fn facts_of(row: &SessionRow) -> SessionFacts {
    let judged = serde_json::from_value::<Judged>(row.decision.clone()).ok();
    let request = RequestMeta {
        request_id: Uuid::new_v4(),
        time: row.started,
        source_ip: judged.as_ref().map_or(Ipv4Addr::UNSPECIFIED.into(), |judged| judged.source_ip),
        user_agent: judged.as_ref().map(|judged| judged.user_agent.clone()).unwrap_or_default(),
        referer: None,
        tls: None,
        host: judged.as_ref().map(|judged| judged.host.clone()).unwrap_or_default(),
        region: judged.as_ref().map(|judged| judged.region.clone()).unwrap_or_default(),
        invocation_id: None,
        via: Via::Link,
    };
    SessionFacts {
        id: row.id.clone(),
        node: row.node.clone(),
        epoch: judged.as_ref().map_or([0; 32], |judged| judged.epoch),
        node_name: row.node_name.clone(),
        owner: row.owner_arn.clone(),
        // Behind the id of a role stands the name of the session.
        owner_id: row.owner_id.split(':').next().and_then(|id| UniqueId::parse(id).ok()),
        credentials: judged.as_ref().and_then(|judged| judged.credentials.clone()),
        access_key: row.access_key.clone(),
        ssh: judged.as_ref().and_then(|judged| judged.ssh.clone()),
        os_user: row.os_user.clone(),
        kind: row.kind,
        command: row.command.clone().unwrap_or_default(),
        by_shell: judged.as_ref().is_some_and(|judged| judged.by_shell),
        endpoints: judged.as_ref().map(|judged| judged.endpoints.clone()).unwrap_or_default(),
        forward: judged.as_ref().and_then(|judged| judged.forward.clone()),
        port_properties: judged.as_ref().map(|judged| judged.port_properties.clone()).unwrap_or_default(),
        separated: judged.as_ref().and_then(|judged| judged.separated.clone()),
        pty: judged.as_ref().is_some_and(|judged| judged.pty),
        over_api: judged.as_ref().is_some_and(|judged| judged.over_api),
        document: row.document.clone(),
        reason: row.reason.clone(),
        started: row.started,
        limits: row.limits.clone(),
        privileged: judged.as_ref().is_some_and(|judged| judged.privileged),
        // Only a start needs these; this session has started.
        profile: String::new(),
        variables: Vec::new(),
        policy_version: 0,
        client: [0; 32],
        record_input: judged.as_ref().is_some_and(|judged| judged.record_input),
        needs: judged.map(|judged| judged.needs).unwrap_or_default(),
        request,
    }
}

/// Reports a node that connected.
pub async fn node_connected(server: &Server, node: &AuthenticatedNode) {
    let hello = &node.hello;
    let platform = hello.platform.clone().unwrap_or_default();
    let facts = NodeFacts {
        hostname: hello.hostname.clone(),
        platform_name: platform.os_name,
        platform_version: platform.os_version,
        architecture: platform.arch,
        agent_version: hello.agent_version.clone(),
    };
    let address = node.address.to_string();
    if let Err(error) = server.store.node_seen(&node.node, &facts, Some(&address), clock::now()).await {
        tracing::error!(node = %node.node, %error, "what a node says of itself could not be stored");
    }
    node_event(server, "NodeConnected", &node.node, Some(&address), None).await;
}

/// Reports a node whose agent, AWS's, opened its control channel. What it says of itself comes another way.
pub async fn aws_agent_connected(server: &Server, node: &NodeId, address: IpAddr) {
    if let Err(error) = server.store.nodes_alive(std::slice::from_ref(node), clock::now()).await {
        tracing::error!(%node, %error, "when a node was last seen could not be stored");
    }
    node_event(server, "NodeConnected", node, Some(&address.to_string()), None).await;
}

/// Reports a node whose link ended.
pub async fn node_disconnected(server: &Server, node: &NodeId) {
    node_event(server, "NodeDisconnected", node, None, None).await;
    if let Err(error) = server.store.nodes_alive(std::slice::from_ref(node), clock::now()).await {
        tracing::error!(%node, %error, "when a node was last seen could not be stored");
    }
}

/// Reports a second agent with a connected node's key: a clone, until somebody says otherwise (T-31).
pub async fn node_refused(server: &Server, node: &AuthenticatedNode) {
    let address = node.address.to_string();
    let message =
        "another run of this node's agent is connected; if this repeats, the node's key was copied".to_owned();
    node_event(server, "NodeRefused", &node.node, Some(&address), Some(("NodeAlreadyConnected", message))).await;
}

async fn node_event(
    server: &Server,
    name: &str,
    node: &NodeId,
    address: Option<&str>,
    failure: Option<(&'static str, String)>,
) {
    let event = service_event(server, name, json!({ "target": node, "sourceIPAddress": address }), failure);
    if let Err(error) = server.audit.append(event).await {
        tracing::error!(%node, %error, name, "a node's event could not be audited");
    }
}
