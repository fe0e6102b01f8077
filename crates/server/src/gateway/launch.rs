//! From a prepared session to a running one: sign the grant, open the stream to the node, start the hub.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::{Action, Grant, MAX_LIFE};
use munjigi_core::session::{EndReason, SessionKind, environment_allowed};
use munjigi_core::wire::message::{Open, Pty, Refused, StartOnNode, open};
use munjigi_core::wire::{Frame, FrameSet};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::facts::{Outcome, SessionFacts};
use super::hub::{Beginning, Hub, HubParts};
use super::log::SessionLog;
use super::nodes::NodeLink;
use super::peer::FrameStream;
use super::ports::{Granted, Ledger, PortSession};
use super::{Handle, ORDERS, Prepared, close_in_background};
use crate::Server;
use crate::clock;
use crate::recording::Recorder;

/// How long the node may take to start a port session.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of control frames that may wait between a port session's hub and its door.
const CONTROL_BUFFER: usize = 64 * 1024;

/// What the program gets beside what was decided.
pub struct Surroundings {
    /// The client's terminal, if the session has one.
    pub pty: Option<Pty>,
    /// The client's environment; only what the allow-list lets through goes on (T-78).
    pub environment: BTreeMap<String, String>,
}

/// Starts a prepared session for a client. A failure ends the session and tells the client.
pub async fn launch(server: &Arc<Server>, prepared: Prepared, around: Surroundings, client: FrameStream) {
    let Prepared { facts, recorder } = prepared;
    match open_on_node(server, &facts, &around).await {
        Ok(node) => {
            let size = around.pty.as_ref().and_then(Pty::size);
            let held = Held::default();
            spawn(server, facts, recorder, Beginning::Start(node), Some(client), size, held);
        }
        Err(message) => {
            let mut client = client;
            let code = "TargetNotConnected".to_owned();
            client.feed(&Frame::Refused(Refused { code, message: message.clone(), ..Refused::default() }));
            abandon(server, &facts, recorder, message).await;
            close_in_background(client);
        }
    }
}

/// Starts a prepared port session for a door that makes its connections itself. Returns with it the stream on which the
/// hub tells of its end; as long as it is held, the session has a client. A failure is for people.
pub(super) async fn launch_ports(
    server: &Arc<Server>,
    prepared: Prepared,
) -> Result<(PortSession, FrameStream), String> {
    let id = prepared.facts.id.clone();
    let (mut control, hub) = FrameStream::pair(CONTROL_BUFFER);
    launch(server, prepared, Surroundings { pty: None, environment: BTreeMap::new() }, hub).await;
    match tokio::time::timeout(START_LIMIT, control.reader.read(FrameSet::ANSWER)).await {
        Ok(Ok(Some(Frame::Accepted(_)))) => {}
        Ok(Ok(Some(Frame::Refused(refused)))) => return Err(refused.message),
        _ => {
            let why = "the node did not start the session in time";
            server.gateway.end_session(&id, EndReason::StartFailed, why).await;
            return Err(why.to_owned());
        }
    }
    let session = server.gateway.session(&id).and_then(|handle| PortSession::of(server, &handle));
    Ok((session.ok_or("the session ended")?, control))
}

/// Ends a session that was prepared and never ran.
pub async fn abandon(server: &Arc<Server>, facts: &SessionFacts, recorder: Recorder, message: String) {
    let sealed = recorder.seal(EndReason::StartFailed, None).await;
    let (reason, at) = (EndReason::StartFailed, clock::now());
    let outcome = Outcome { reason, message, exit: None, output_end: 0, at, connections: None };
    crate::sessions::ended(server, facts, &outcome, sealed).await;
}

async fn open_on_node(server: &Server, facts: &SessionFacts, around: &Surroundings) -> Result<FrameStream, String> {
    let not_connected = || format!("{} is not connected.", facts.node);
    let action = action(facts).ok_or("the session has no destination")?;
    let link =
        server.gateway.nodes.get(&facts.node).filter(|link| link.epoch == facts.epoch).ok_or_else(not_connected)?;
    let stream = link.open().await.map_err(|error| format!("{} ({error})", not_connected()))?;
    let mut stream = FrameStream::new(stream);
    let (key_id, key) = server.keys.grant();
    let start = StartOnNode {
        grant: Bytes::from(grant(facts, action, &link).sign(key_id, key)),
        pty: around.pty.clone().filter(|_| facts.pty),
        environment: around
            .environment
            .iter()
            .filter(|(name, value)| environment_allowed(name, value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    };
    stream.feed(&Frame::Open(Box::new(Open { wish: Some(open::Wish::Start(start)) })));
    Ok(stream)
}

/// The grant says exactly what was decided, for exactly this run of the node's agent (T-23).
fn grant(facts: &SessionFacts, action: Action, link: &NodeLink) -> Grant {
    let now = clock::now();
    Grant {
        id: crate::random::bytes(),
        session: facts.id.clone(),
        node: facts.node.clone(),
        epoch: link.epoch,
        subject: facts.owner.clone(),
        client: facts.client,
        os_user: facts.os_user.clone(),
        action,
        variables: facts.variables.clone(),
        pty: facts.pty,
        strict_recording: facts.limits.strict_recording,
        privileged: facts.privileged,
        policy_version: facts.policy_version,
        not_before: now,
        expires: now.plus(MAX_LIFE),
    }
}

/// Returns a signed grant with which the session reaches one more endpoint.
pub(super) fn extension(server: &Server, facts: &SessionFacts, endpoint: &Endpoint, link: &NodeLink) -> Bytes {
    let (key_id, key) = server.keys.grant();
    Bytes::from(grant(facts, Action::Extend(vec![endpoint.clone()]), link).sign(key_id, key))
}

fn action(facts: &SessionFacts) -> Option<Action> {
    match facts.kind {
        SessionKind::Shell => Some(Action::Shell { profile: facts.profile.clone() }),
        SessionKind::Command if facts.by_shell => Some(Action::ShellCommand(facts.command.concat())),
        SessionKind::Command => Some(Action::Command(facts.command.clone())),
        SessionKind::Port => Some(Action::Connect(facts.endpoints.clone())),
    }
}

/// What a recording holds when its hub begins.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    /// Offset behind the output.
    pub output_end: u64,
    /// Offset behind the input.
    pub input_end: u64,
    /// Number of the newest connection of a port session.
    pub last_connection: u64,
}

/// Takes back a session from before the server's restart; its node will bring it.
pub fn take_back(server: &Arc<Server>, facts: SessionFacts, recorder: Recorder, held: Held) {
    spawn(server, facts, recorder, Beginning::TakenBack, None, None, held);
}

fn spawn(
    server: &Arc<Server>,
    facts: SessionFacts,
    recorder: Recorder,
    beginning: Beginning,
    client: Option<FrameStream>,
    size: Option<munjigi_core::session::TerminalSize>,
    held: Held,
) {
    let facts = Arc::new(facts);
    let log = Arc::new(SessionLog::new(held.output_end));
    let (orders_tx, orders) = mpsc::channel(ORDERS);
    let (outcome_tx, outcome) = watch::channel(None);
    let ports = (facts.kind == SessionKind::Port).then(|| {
        let granted = Granted::new(facts.endpoints.clone());
        let ledger = Ledger::new(held.last_connection, facts.limits.idle_counts_output, granted);
        Arc::new(ledger.with_rate(server.config.limits.forward_bytes_per_second))
    });
    let handle = Handle { facts: facts.clone(), log: log.clone(), outcome, ports: ports.clone(), orders: orders_tx };
    server.gateway.remember(handle);
    let parts = HubParts {
        server: server.clone(),
        facts,
        log,
        recorder,
        orders,
        outcome: outcome_tx,
        size,
        input_end: held.input_end,
        ports,
    };
    let hub = Hub::new(parts, beginning, client);
    let stop = server.stop.clone();
    server.tasks.spawn(async move {
        let started = Instant::now();
        let ended = stop.run_until_cancelled(hub.run()).await.is_some();
        tracing::debug!(ended, seconds = started.elapsed().as_secs(), "session task stopped");
    });
}
