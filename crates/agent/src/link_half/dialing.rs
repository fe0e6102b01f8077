//! Keeps the one link to the server standing: dial, serve what the server opens, back off, dial again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::SessionId;
use munjigi_core::terminal_modes::TerminalModes;
use munjigi_core::wire::hello::{Hello, NodeHello, Role, VERSION_MAX, VERSION_MIN};
use munjigi_core::wire::message::{Accepted, Connect, Pty, Refused, StartOnNode, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::backoff::Backoff;
use munjigi_link::connection::Limits;
use munjigi_link::dial::{DialOptions, Dialed, SignError, SignedHeaders, UpgradeToSign, dial};
use munjigi_link::lane_upgrade::dial_lane;
use munjigi_link::moving::in_turn;
use munjigi_link::tls::PinnedRoots;
use munjigi_link::{LaneDialer, LaneToken, Opener, Stream};
use tokio::time::{sleep, timeout};

use crate::destinations::{Destinations, Rule};
use crate::halves::{ChannelError, Configure, Start, Terminal, ToSpawn};
use crate::{clock, inventory};

use super::Sessions;
use super::account_changes::AccountChanges;
use super::accounts;
use super::logins::Logins;
use super::port::Ports;
use super::session::{Attached, Event};
use super::spawn_client::{Answer, SpawnClient, StartRefused};

/// Within this the first frame of a stream must be there.
const OPENING: Duration = Duration::from_secs(10);
/// Most sessions that a hello can name; the server learns of the others when they come back.
const NAMED_SESSIONS: usize = 64;

/// Dials for ever; returns only when dialling makes no sense.
pub(super) async fn keep_dialing(
    configure: Configure,
    spawn: Arc<SpawnClient>,
    sessions: Arc<Sessions>,
    logins: Arc<Logins>,
    changes: &AccountChanges,
) -> anyhow::Result<()> {
    let server = configure.server.parse().context("the server's address in agent.json is no URL")?;
    let roots = PinnedRoots::from_pem(&configure.ca).context("the roots in agent.json are unusable")?;
    let rules = configure.denied_destinations.iter().filter_map(|rule| Rule::parse(rule)).collect();
    let ports = Arc::new(Ports::new(Destinations::new(rules), &server));
    let options = DialOptions { limits: Limits::agent(), ..DialOptions::new(server, roots) };
    let lanes = lane_dialer(&options, &configure, &spawn);
    let mut backoff = Backoff::new();
    loop {
        let begun = clock::monotonic();
        let why = match connect(&options, &configure, &spawn, &sessions).await {
            Ok(dialed) => {
                logins.connected(dialed.connection.opener());
                changes.connected(dialed.connection.opener());
                serve(dialed, &spawn, &sessions, &ports, &lanes).await
            }
            Err(why) => why,
        };
        logins.disconnected();
        changes.disconnected();
        backoff.after_connection(begun.elapsed());
        let wait = backoff.after_failure();
        tracing::info!(why, wait_ms = wait.as_millis(), "the link is down");
        // Without the privileged half this process ends; its end of the channel is seen elsewhere.
        let _ = spawn.send(&ToSpawn::Offline { why }).await;
        sleep(wait).await;
    }
}

async fn connect(
    options: &DialOptions,
    configure: &Configure,
    spawn: &Arc<SpawnClient>,
    sessions: &Sessions,
) -> Result<Dialed, String> {
    let live: Vec<String> = sessions.all().into_iter().take(NAMED_SESSIONS).map(|(id, _)| id.to_string()).collect();
    let hello = hello(configure, &live);
    let sign = |upgrade| sign(upgrade, configure.node.to_string(), Arc::clone(spawn));
    let mut dialed = dial(options, &hello, sign).await.map_err(|error| error.to_string())?;
    let server = dialed.established().await.map_err(|error| error.to_string())?;
    if !server.trust_bundle.is_empty() {
        // Without the privileged half this process ends.
        let _ = spawn.send(&ToSpawn::Trust { bundle: server.trust_bundle }).await;
    }
    let _ = spawn.send(&ToSpawn::Online).await;
    Ok(dialed)
}

/// Makes what dials lanes: proved as the link is, by the node's key in the privileged half.
fn lane_dialer(options: &DialOptions, configure: &Configure, spawn: &Arc<SpawnClient>) -> LaneDialer {
    let (options, node, spawn) = (options.clone(), configure.node.to_string(), Arc::clone(spawn));
    // Its sessions do not matter on a lane: the token names the stream.
    let hello = hello(configure, &[]);
    in_turn(Arc::new(move |token: LaneToken| {
        let (options, hello, node, spawn) = (options.clone(), hello.clone(), node.clone(), Arc::clone(&spawn));
        Box::pin(async move { dial_lane(&options, &hello, &token, |upgrade| sign(upgrade, node, spawn)).await })
    }))
}

async fn sign(upgrade: UpgradeToSign, node: String, spawn: Arc<SpawnClient>) -> Result<SignedHeaders, SignError> {
    let signature = spawn.sign(upgrade.binding, upgrade.hello).await?;
    let value = format!("Munjigi-Node Credential={node}, Signature={}", STANDARD.encode(signature));
    Ok(vec![("authorization".to_owned(), value)])
}

fn hello(configure: &Configure, live: &[String]) -> Hello {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        software: format!("munjigi/{version}"),
        role: Role::Agent.into(),
        node: Some(NodeHello {
            node_id: configure.node.to_string(),
            epoch: configure.epoch.to_vec(),
            hostname: inventory::hostname(),
            platform: Some(inventory::platform()),
            agent_version: version,
            sessions: live.to_vec(),
            names: vec![configure.name.clone()],
            only_user: configure.only_user.clone(),
            ssh_host_key: configure.ssh_host_key.clone(),
        }),
    }
}

/// Serves a standing link; returns why it ended.
async fn serve(
    dialed: Dialed,
    spawn: &Arc<SpawnClient>,
    sessions: &Arc<Sessions>,
    ports: &Arc<Ports>,
    lanes: &LaneDialer,
) -> String {
    let mut connection = dialed.connection;
    let opener = connection.opener();
    sessions.reconnect(&opener).await;
    let learning = Arc::clone(ports);
    // Bounded by the limit of a lookup; no session waits for it.
    tokio::spawn(async move { learning.learn_server().await });
    while let Some(stream) = connection.accept().await {
        let opened = Opened {
            opener: opener.clone(),
            spawn: Arc::clone(spawn),
            sessions: Arc::clone(sessions),
            lanes: Arc::clone(lanes),
        };
        tokio::spawn(open_stream(stream, opened, Arc::clone(ports)));
    }
    connection.closed().await.to_string()
}

/// What a stream that the server opened may need.
struct Opened {
    opener: Opener,
    spawn: Arc<SpawnClient>,
    sessions: Arc<Sessions>,
    /// For streams that carry much.
    lanes: LaneDialer,
}

/// Takes a stream that the server opened: a start, a connection of a port session, or nothing.
async fn open_stream(stream: Stream, opened: Opened, ports: Arc<Ports>) {
    let mut attached = Attached::new(stream);
    // Without a first frame there is nothing to answer to.
    let opening = timeout(OPENING, attached.reader.read(FrameSet::OPENING)).await;
    let Ok(Ok(Some(Frame::Open(open)))) = opening else { return };
    match open.wish {
        Some(open::Wish::Start(wish)) => start(attached, wish, opened).await,
        Some(open::Wish::Accounts(wish)) => accounts::take(attached, &wish, &opened.spawn).await,
        Some(open::Wish::Key(wish)) => {
            let answer = opened.spawn.key(wish.grant.to_vec()).await;
            say_taken(attached, answer).await;
        }
        Some(open::Wish::SshTrust(wish)) => {
            let answer = opened.spawn.ssh_trust(wish.document.to_vec()).await;
            say_taken(attached, answer).await;
        }
        Some(open::Wish::Connect(wish)) => connect_port(attached, wish, &opened, &ports).await,
        _ => {
            let message = "an agent starts sessions and connects for them, nothing else";
            refuse(attached, refusal("UnsupportedOperation", message)).await;
        }
    }
}

/// Makes a connection of a port session that this node has: its grants say where to.
async fn connect_port(attached: Attached, wish: Connect, opened: &Opened, ports: &Ports) {
    let handle = SessionId::parse(&wish.session_id).ok().and_then(|id| opened.sessions.get(&id));
    match handle.as_ref().and_then(|handle| handle.port()) {
        Some(port) => ports.serve(attached, port, wish, &opened.spawn, &opened.lanes, &opened.opener).await,
        None => refuse(attached, refusal("SessionEnded", "this node has no such port session")).await,
    }
}

/// Answers the server once the privileged half has taken, or refused, what the server sent for it.
async fn say_taken(mut attached: Attached, answer: Result<Answer, ChannelError>) {
    let why = match answer {
        Ok(Ok(_)) => {
            let answer = async {
                // It fits a frame by far.
                drop(attached.writer.feed(&Frame::Accepted(Box::default())));
                attached.writer.close().await
            };
            // A server that does not listen any more has told its caller that it may not have come.
            let _ = timeout(OPENING, answer).await;
            return;
        }
        Ok(Err(why)) => why,
        Err(error) => refusal("InternalServerError", &error.to_string()),
    };
    refuse(attached, why).await;
}

async fn start(mut attached: Attached, start: StartOnNode, opened: Opened) {
    let Opened { opener, spawn, .. } = opened;
    let start = match wish(start) {
        Ok(start) => start,
        Err(why) => return refuse(attached, why).await,
    };
    let (description, handle) = match spawn.start(start).await {
        Ok(Ok(started)) => started,
        Ok(Err(why)) => return refuse(attached, why).await,
        Err(error) => return refuse(attached, refusal("InternalServerError", &error.to_string())).await,
    };
    let accepted = Accepted {
        session_id: description.session.to_string(),
        os_user: description.os_user,
        has_pty: description.terminal,
        process_id: description.process_id,
        ..Accepted::default()
    };
    // It fits a frame by far; sent by the session's task with its first output.
    drop(attached.writer.feed(&Frame::Accepted(Box::new(accepted))));
    handle.tell(Event::Attach(Box::new(attached), opener)).await;
}

/// Reads a server's wish; what is in it is checked here only as far as this half needs it.
fn wish(start: StartOnNode) -> Result<Start, StartRefused> {
    let terminal = match start.pty {
        Some(pty) => Some(terminal(pty).ok_or_else(|| refusal("ValidationException", "the terminal's size is wrong"))?),
        None => None,
    };
    let environment = start.environment.into_iter().collect();
    Ok(Start { request: 0, grant: start.grant.to_vec(), terminal, environment })
}

fn terminal(pty: Pty) -> Option<Terminal> {
    let size = pty.size()?;
    // A name that may not pass becomes the one that every system knows.
    let term = if pty.term.len() <= 64 { pty.term } else { "dumb".to_owned() };
    // No terminal is refused for modes that cannot be read: it gets the node's own.
    let modes = TerminalModes::decode(&pty.modes).unwrap_or_default();
    Some(Terminal { term, size, modes })
}

pub(super) fn refusal(code: &str, message: &str) -> StartRefused {
    StartRefused { code: code.to_owned(), message: message.to_owned(), reason: code.to_owned() }
}

pub(super) async fn refuse(mut attached: Attached, why: StartRefused) {
    let StartRefused { code, message, reason } = why;
    let refused = Frame::Refused(Refused { code, message, reason, request_id: String::new() });
    let answer = async {
        attached.writer.send(&refused).await?;
        attached.writer.close().await
    };
    // The server may be gone by now.
    let _ = timeout(OPENING, answer).await;
}
