//! Serves an authenticated link: the streams that a client opens, and the sessions that a node brings back.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::Epoch;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::{EndReason, environment_allowed};
use munjigi_core::ssh::login_name::PASSTHROUGH_SUFFIX;
use munjigi_core::wire::hello::NodeHello;
use munjigi_core::wire::message::{
    Accepted, AccountReport, AttachSession, Connect, End, Logins, OpenPrepared, OpenSession, Parameter, Pty, Refused,
    Rejoin, SshWish, open,
};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::{Connection, MovingStream, Opener, Stream};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::door_ssh::forwards::PassedThrough;
use super::hub::Order;
use super::incoming::Client;
use super::lanes::LaneOwner;
use super::launch::{Surroundings, launch};
use super::nodes::{Admission, NodeLink, NodeOpener};
use super::peer::FrameStream;
use super::ports::{PortSession, PortStream};
use super::{close_in_background, copying, door_ssh, incoming, ports, watch_stream};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::munjigi::AttachSession as AttachOperation;
use crate::api::munjigi::OpenDataChannel;
use crate::api::munjigi::attach_session::{AttachMode, AttachSessionInput};
use crate::api::munjigi::open_data_channel::OpenDataChannelInput;
use crate::api::operation::Service;
use crate::api::ssm::StartSession;
use crate::api::ssm::start_session::{NativeStart, StartSessionInput};
use crate::clock;
use crate::door::{self, RequestMeta};
use crate::forwarding;
use crate::identity::{Caller, Principal};
use crate::ssh_logins::Unreported;

/// How long the opener of a stream may take to say what it is for (T-91).
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Longest text that names a node, characters (the AWS model's `Target`).
const MAX_TARGET: usize = 400;

/// Serves a client's link until it ends. `request` describes the upgrade; each stream is a request of its own.
pub async fn client(server: Arc<Server>, mut connection: Connection, caller: Caller, request: RequestMeta) {
    let stop = server.stop.clone();
    let mut changed = server.identities.changed();
    loop {
        let stream = tokio::select! {
            stream = connection.accept() => stream,
            // The link goes with the key that opened it, and everything on the link with it (T-6, T-104).
            changed = changed.changed() => match server.identities.present(&caller) {
                Some(_) if changed.is_ok() => continue,
                _ => None,
            },
            () = stop.cancelled() => None,
        };
        let (Some(stream), Some(caller)) = (stream, server.identities.present(&caller)) else { break };
        let (server, request) = (server.clone(), request.again());
        let tasks = server.tasks.clone();
        let opener = connection.opener();
        tasks.spawn(async move { client_stream(&server, &caller, request, stream, opener).await });
    }
    connection.close().await;
}

async fn client_stream(server: &Arc<Server>, caller: &Caller, request: RequestMeta, stream: Stream, opener: Opener) {
    let mut stream = FrameStream::of_link(stream);
    let opened = tokio::time::timeout(OPEN_LIMIT, stream.reader.read(FrameSet::OPENING)).await;
    let wish = match opened {
        Ok(Ok(Some(Frame::Open(open)))) => open.wish,
        // Nothing, not in time, or not a frame: there is nobody to answer.
        _ => return,
    };
    match wish {
        Some(open::Wish::Session(mut wish)) => match wish.forward.take() {
            Some(forward) => super::forward::start(server, caller, request, stream, wish, forward).await,
            None => start(server, caller, request, stream, wish).await,
        },
        Some(open::Wish::Attach(wish)) => attach(server, caller, request, stream, wish).await,
        Some(open::Wish::Prepared(wish)) => begin(server, caller, request, stream, wish).await,
        Some(open::Wish::Ssh(wish)) => ssh(server, caller, &request, stream, wish).await,
        Some(open::Wish::Connect(wish)) => connect(server, caller, &request, stream, &wish, opener).await,
        Some(
            open::Wish::Start(_)
            | open::Wish::Rejoin(_)
            | open::Wish::Key(_)
            | open::Wish::Accounts(_)
            | open::Wish::AccountsChanged(_)
            | open::Wish::SshTrust(_)
            | open::Wish::Logins(_)
            | open::Wish::Incoming(_),
        )
        | None => {
            let message = "this server does not know what the stream is for; is the client newer than the server?";
            refuse(stream, "UnsupportedWish", message.to_owned(), "", &request);
        }
    }
}

pub(super) fn refuse(mut stream: FrameStream, code: &str, message: String, reason: &str, request: &RequestMeta) {
    let (code, reason, request_id) = (code.to_owned(), reason.to_owned(), request.request_id.to_string());
    stream.feed(&Frame::Refused(Refused { code, message, reason, request_id }));
    close_in_background(stream);
}

pub(super) fn refuse_error(stream: FrameStream, error: &ApiError, request: &RequestMeta) {
    refuse(stream, error.code(Service::Ssm), error.to_string(), error.reason().unwrap_or_default(), request);
}

async fn start(server: &Arc<Server>, caller: &Caller, request: RequestMeta, stream: FrameStream, wish: OpenSession) {
    let OpenSession {
        target,
        document,
        reason,
        command,
        os_user,
        pty,
        environment,
        client_token,
        port,
        parameters,
        forward: _,
    } = wish;
    let terminal = pty.as_ref().and_then(Pty::size);
    let term = pty.as_ref().map(|pty| pty.term.clone()).unwrap_or_default();
    if pty.is_some() && (terminal.is_none() || !environment_allowed("TERM", &term)) {
        let message = "a terminal has 1 to 4096 rows and columns, and a TERM of letters, digits and + . _ -".to_owned();
        return refuse(stream, "ValidationException", message, "", &request);
    }
    let port = match port.map(|port| Destination::new(&port.host, u16::try_from(port.port).unwrap_or(0))) {
        Some(Err(error)) => return refuse(stream, "ValidationException", error.to_string(), "", &request),
        Some(Ok(_)) if pty.is_some() || !command.is_empty() || !os_user.is_empty() => {
            let message = "a port session has no terminal, no command and no OS user";
            return refuse(stream, "ValidationException", message.to_owned(), "", &request);
        }
        Some(Ok(destination)) => Some(destination),
        None => None,
    };
    let native = NativeStart { command, by_shell: false, variables: Vec::new(), os_user, terminal, term, port };
    let mut given: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for Parameter { name, value } in parameters {
        given.entry(name).or_default().push(value);
    }
    let input = StartSessionInput { parameters: given, ..StartSessionInput::native(target, document, reason, native) };
    let granted = server.gateway.starts.of(caller.principal().arn.as_str(), &client_token, Instant::now());
    let mut is_first = false;
    let started = granted.get_or_try_init(async || {
        is_first = true;
        // In a box of its own, which is gone when the session runs.
        let call = Box::pin(door::call::<StartSession>(server, caller, input, request.clone()));
        call.await.map(|output| output.session_id)
    });
    match started.await {
        Ok(session_id) if !is_first => repeated(server, caller, request, stream, session_id, pty).await,
        Ok(session_id) => match server.gateway.take_prepared(session_id) {
            Some(prepared) => launch(server, prepared, Surroundings { pty, environment }, stream).await,
            None => {
                refuse(stream, "InternalServerError", "the session was lost before it started".to_owned(), "", &request)
            }
        },
        Err(error) => refuse_error(stream, &error, &request),
    }
}

/// Begins a session that a call of StartSession has prepared for this caller. The token opens one channel, this stream
/// or AWS's WebSocket, and policy is asked as for that.
async fn begin(server: &Arc<Server>, caller: &Caller, request: RequestMeta, stream: FrameStream, wish: OpenPrepared) {
    let OpenPrepared { session_id, token, pty, environment } = wish;
    let Ok(id) = SessionId::parse(&session_id) else {
        return refuse(stream, "ValidationException", format!("{session_id:?} is no session id"), "", &request);
    };
    match server.gateway.channels.tokens.spend(&id, &token, Instant::now()) {
        Ok(given) if given.principal().arn == caller.principal().arn => {}
        Ok(_) => {
            let message = format!("the token of session {id} was given to somebody else");
            return refuse(stream, "AccessDeniedException", message, "NotTheOwner", &request);
        }
        // Spent already: the answer to an earlier wish was lost on its way.
        Err(_) if server.gateway.session(&id).is_some() => {
            let again = AttachSession { session_id, watch: false, output_from: 0, from_end: false, pty };
            return attach(server, caller, request, stream, again).await;
        }
        Err(error) => return refuse(stream, "AccessDeniedException", error.to_string(), "", &request),
    }
    let input = OpenDataChannelInput { session_id: id.clone(), client_id: String::new(), client_version: None };
    if let Err(error) = door::call::<OpenDataChannel>(server, caller, input, request.clone()).await {
        return refuse_error(stream, &error, &request);
    }
    match server.gateway.take_prepared(&id) {
        Some(prepared) => launch(server, prepared, Surroundings { pty, environment }, stream).await,
        None => refuse(stream, "SessionEnded", format!("session {id} is over"), "", &request),
    }
}

/// Gives a repeated wish the session that it got the first time; that one may be starting just now.
pub(super) async fn repeated(
    server: &Arc<Server>,
    caller: &Caller,
    request: RequestMeta,
    stream: FrameStream,
    id: &SessionId,
    pty: Option<Pty>,
) {
    let wish = AttachSession { session_id: id.to_string(), watch: false, output_from: 0, from_end: false, pty };
    let is_known = async {
        while server.gateway.session(id).is_none() && crate::sessions::past(server, id).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // After that `attach` says what is the matter.
    let _ = tokio::time::timeout(OPEN_LIMIT, is_known).await;
    attach(server, caller, request, stream, wish).await;
}

async fn attach(server: &Arc<Server>, caller: &Caller, request: RequestMeta, stream: FrameStream, wish: AttachSession) {
    let Ok(session_id) = SessionId::parse(&wish.session_id) else {
        return refuse(stream, "ValidationException", format!("{:?} is no session id", wish.session_id), "", &request);
    };
    let mode = if wish.watch { AttachMode::Watch } else { AttachMode::Primary };
    let input = AttachSessionInput { session_id: session_id.clone(), mode };
    if let Err(error) = door::call::<AttachOperation>(server, caller, input, request.clone()).await {
        return refuse_error(stream, &error, &request);
    }
    let Some(handle) = server.gateway.session(&session_id) else {
        return attach_past(server, request, stream, session_id, wish).await;
    };
    if wish.watch {
        return watch(server, &handle, stream, &wish, caller, request).await;
    }
    if let Err(Order::Attach(stream, wish)) = handle.order(Order::Attach(stream, wish)).await {
        // It ended between the look-up and the order.
        attach_past(server, request, stream, session_id, wish).await;
    }
}

/// Makes a connection of the caller's port session and carries it; only its owner reaches it.
async fn connect(
    server: &Arc<Server>,
    caller: &Caller,
    request: &RequestMeta,
    stream: FrameStream,
    wish: &Connect,
    opener: Opener,
) {
    let handle = SessionId::parse(&wish.session_id).ok().and_then(|id| server.gateway.session(&id));
    let session = handle.as_ref().and_then(|handle| PortSession::of(server, handle));
    let Some(session) = session else {
        let message = format!("there is no live port session {:?}", wish.session_id);
        return refuse(stream, "DoesNotExistException", message, "", request);
    };
    let (facts, owner) = (&session.handle().facts, caller.principal());
    if owner.unique_id.is_none() || facts.owner_id != owner.unique_id || facts.owner != owner.arn.to_string() {
        let message = format!("session {} belongs to somebody else", facts.id);
        return refuse(stream, "AccessDeniedException", message, "NotTheOwner", request);
    }
    let endpoint = match wish.endpoint.as_ref().map(Endpoint::try_from).transpose() {
        Ok(endpoint) => endpoint,
        Err(error) => return refuse(stream, "ValidationException", error.to_string(), "", request),
    };
    let listen = endpoint.clone().filter(Endpoint::listens);
    let reached = endpoint.as_ref().or_else(|| facts.endpoints.first());
    let files = reached.and_then(copying::direction).zip(reached.cloned());
    let connection = match session.connect_to(endpoint, caller, request).await {
        Ok(connection) => connection,
        Err(error) => return refuse(stream, error.code(), error.to_string(), "", request),
    };
    if let Some((direction, endpoint)) = files {
        let Ok(judge) = forwarding::file_judge(server, caller, facts, &endpoint, request).await else {
            let error = ports::PortError::NotJudged;
            return refuse(stream, error.code(), error.to_string(), "", request);
        };
        let journal = session.journal(&connection);
        let Some(client) = accept_connection(server, owner, stream, &session, &connection).await else { return };
        return copying::relay(server, facts, client, connection, journal, (direction, judge)).await;
    }
    let eyes = match super::forward::eyes(server, &session, &connection).await {
        Ok(eyes) => eyes,
        Err(error) => return refuse(stream, error.code(), error.to_string(), "", request),
    };
    // For as long as the stream lasts, who connects there is offered to this client.
    let _registered = listen.map(|listen| {
        incoming::register(server, facts.id.clone(), connection.listener(), Client::Link(opener), listen)
    });
    let Some(client) = accept_connection(server, owner, stream, &session, &connection).await else { return };
    match eyes {
        None => ports::relay_bulk(server, client, connection).await,
        eyes => super::forward::carry(server, client, connection, eyes).await,
    }
}

/// Is the server of an SSH connection that the caller's own client brings.
async fn ssh(server: &Arc<Server>, caller: &Caller, request: &RequestMeta, stream: FrameStream, wish: SshWish) {
    if wish.node.is_empty() || wish.node.chars().count() > MAX_TARGET {
        let message = "a node's name, id or tag has 1 to 400 characters";
        return refuse(stream, "ValidationException", message.to_owned(), "", request);
    }
    if let Some(node) = wish.node.strip_suffix(PASSTHROUGH_SUFFIX) {
        return pass_through(server, caller, request, stream, node).await;
    }
    let accepted = Accepted { host_authorities: host_authorities(server), ..Accepted::default() };
    let Some(client) = accept(server, caller.principal(), stream, accepted).await else { return };
    let road = door_ssh::Road::Link { caller: caller.clone(), node: wish.node };
    // The link's own port says nothing about this connection.
    let origin = door_ssh::Origin { peer: SocketAddr::new(request.source_ip, 0), pass: None, road };
    door_ssh::serve(server, client, origin).await;
}

/// Returns the public keys of those who vouch for hosts.
fn host_authorities(server: &Server) -> Vec<String> {
    // Each is one of ours, and can be written.
    server.ssh_authority.host().believed(clock::now()).filter_map(|key| key.public().to_openssh().ok()).collect()
}

/// Carries an SSH connection of the caller's to the node's own sshd, unread.
async fn pass_through(server: &Arc<Server>, caller: &Caller, request: &RequestMeta, stream: FrameStream, node: &str) {
    let through = match PassedThrough::open(server, caller, request, node).await {
        Ok(through) => through,
        Err(refusal) => return refuse(stream, refusal.code(), refusal.to_string(), "", request),
    };
    let host_key = through.host_key(server).unwrap_or_default();
    let accepted = Accepted { host_authorities: host_authorities(server), host_key, ..Accepted::default() };
    let client = accept(server, caller.principal(), stream, accepted).await;
    through.carry(server, client).await;
}

/// Answers that the connection stands; returns the client's end of it.
async fn accept_connection(
    server: &Arc<Server>,
    owner: &Principal,
    stream: FrameStream,
    session: &PortSession,
    connection: &PortStream,
) -> Option<MovingStream> {
    let accepted = Accepted {
        session_id: session.handle().facts.id.to_string(),
        address: connection.address().to_owned(),
        listener: connection.listener(),
        ..Accepted::default()
    };
    accept(server, owner, stream, accepted).await
}

/// Answers that a stream carries bytes from now on; returns the client's end of it. With the token in the answer the
/// client may dial a lane.
async fn accept(
    server: &Arc<Server>,
    owner: &Principal,
    stream: FrameStream,
    accepted: Accepted,
) -> Option<MovingStream> {
    let (stream, early) = stream.into_link()?;
    let (mut client, token) = server.gateway.lanes.expect(stream, LaneOwner::client(owner));
    let lane = token.map(|token| Bytes::copy_from_slice(token.as_bytes())).unwrap_or_default();
    let accepted = Accepted { lane, ..accepted };
    let mut answer = BytesMut::new();
    // It fits a frame by far.
    let _ = Frame::Accepted(Box::new(accepted)).encode(&mut answer);
    let answering = async {
        client.write_all(&answer).await?;
        client.flush().await
    };
    if !matches!(tokio::time::timeout(OPEN_LIMIT, answering).await, Ok(Ok(()))) {
        return None;
    }
    client.unread(early);
    Some(client)
}

async fn watch(
    server: &Arc<Server>,
    handle: &super::Handle,
    mut stream: FrameStream,
    wish: &AttachSession,
    caller: &Caller,
    request: RequestMeta,
) {
    let visible = handle.log.visible();
    let cursor = if wish.from_end { visible } else { wish.output_from.min(visible) };
    let who = &caller.principal().arn;
    let accepted = Accepted {
        session_id: handle.facts.id.to_string(),
        node_id: handle.facts.node.to_string(),
        node_name: handle.facts.node_name.clone(),
        os_user: handle.facts.os_user.clone(),
        output_from: cursor,
        has_pty: handle.facts.pty,
        ..Accepted::default()
    };
    stream.feed(&Frame::Accepted(Box::new(accepted)));
    // The session may end at any moment; then there is nothing left to mark.
    let _ = handle.order(Order::Watcher(format!("{who} watches"))).await;
    let watched = tokio::select! {
        watched = watch_stream::live(server, handle, &mut stream, cursor) => watched,
        () = crate::revoke::watching_ends(server, caller, &handle.facts.id, &request) => {
            let message = EndReason::Revoked.sentence().to_owned();
            let reason = EndReason::Revoked.as_str().to_owned();
            stream.feed(&Frame::End(End { reason, message, exit: None }));
            stream.writer.close().await
        }
    };
    if let Err(error) = watched {
        tracing::debug!(%error, "watcher gone");
    }
    let _ = handle.order(Order::Watcher(format!("{who} no longer watches"))).await;
}

/// Serves somebody who comes back to a session that is over: the rest of its output, then its end.
pub(crate) async fn attach_past(
    server: &Arc<Server>,
    request: RequestMeta,
    mut stream: FrameStream,
    session_id: SessionId,
    wish: AttachSession,
) {
    match crate::sessions::past(server, &session_id).await {
        Ok(past) => {
            let cursor = if wish.from_end { past.output_end } else { wish.output_from.min(past.output_end) };
            let accepted = Accepted {
                session_id: session_id.to_string(),
                node_id: past.node.to_string(),
                node_name: past.node_name,
                os_user: past.os_user,
                // Never less than what was confirmed: a client that comes back takes that for lost input.
                input_from: past.input_end,
                output_from: cursor,
                ..Accepted::default()
            };
            stream.feed(&Frame::Accepted(Box::new(accepted)));
            if let Err(error) =
                watch_stream::past(server, &session_id, &mut stream, cursor, past.output_end, past.end).await
            {
                tracing::debug!(%error, "reader of a past session gone");
            }
        }
        Err(error) => refuse_error(stream, &error, &request),
    }
}

/// A node that proved its key.
pub struct AuthenticatedNode {
    /// Its id.
    pub node: NodeId,
    /// This run of its agent.
    pub epoch: Epoch,
    /// What it says of itself.
    pub hello: NodeHello,
    /// Where it dials from.
    pub address: IpAddr,
}

impl AuthenticatedNode {
    /// Makes the link's entry; `None` if the node may not connect now (T-31).
    pub fn admit(&self, server: &Server, connection: &Connection) -> Option<NodeLink> {
        let only_user = Some(self.hello.only_user.clone()).filter(|user| !user.is_empty());
        let link = NodeLink {
            node: self.node.clone(),
            epoch: self.epoch,
            only_user,
            ssh_host_key: Some(self.hello.ssh_host_key.clone()).filter(|key| !key.is_empty()),
            address: self.address,
            since: clock::now(),
            opener: NodeOpener::Link(connection.opener()),
            cancel: CancellationToken::new(),
        };
        (server.gateway.nodes.admit(link.clone()) == Admission::Admitted).then_some(link)
    }
}

/// Serves a node's link until it ends.
pub async fn node(server: Arc<Server>, mut connection: Connection, node: AuthenticatedNode) {
    let Some(_place) = server.gateway.nodes.place(&node.node) else {
        tracing::debug!(node = %node.node, "a node dials faster than its links end");
        connection.close().await;
        return;
    };
    let Some(link) = node.admit(&server, &connection) else {
        crate::sessions::node_refused(&server, &node).await;
        connection.close().await;
        return;
    };
    for handle in server.gateway.live().iter().filter(|h| h.facts.node == link.node && h.facts.epoch != link.epoch) {
        super::end(handle, EndReason::AgentDied, EndReason::AgentDied.sentence()).await;
    }
    crate::sessions::node_connected(&server, &node).await;
    server.accounts.changed();
    server.tasks.spawn(crate::ssh_authority::watch::tell_new(server.clone(), link.clone()));
    let stop = server.stop.clone();
    loop {
        let accepted = tokio::select! {
            stream = connection.accept() => stream,
            () = link.cancel.cancelled() => None,
            () = stop.cancelled() => None,
        };
        let Some(stream) = accepted else { break };
        let (server, node) = (server.clone(), link.node.clone());
        let tasks = server.tasks.clone();
        tasks.spawn(async move { node_stream(&server, &node, stream).await });
    }
    link.cancel.cancel();
    server.gateway.nodes.remove(&link);
    connection.close().await;
    crate::sessions::node_disconnected(&server, &link.node).await;
}

async fn node_stream(server: &Arc<Server>, node: &NodeId, stream: Stream) {
    let mut stream = FrameStream::of_link(stream);
    let opened = tokio::time::timeout(OPEN_LIMIT, stream.reader.read(FrameSet::OPENING)).await;
    let Ok(Ok(Some(Frame::Open(open)))) = opened else { return };
    match open.wish {
        Some(open::Wish::Incoming(wish)) => incoming::serve(server, node, stream, wish).await,
        Some(open::Wish::Rejoin(rejoin)) => rejoined(server, node, stream, rejoin).await,
        Some(open::Wish::Logins(logins)) => logins_reported(server, node, stream, logins).await,
        Some(open::Wish::AccountsChanged(report)) => accounts_changed(server, node, stream, report).await,
        _ => {}
    }
}

/// Writes logins into the trail, then lets the node forget them.
async fn logins_reported(server: &Arc<Server>, node: &NodeId, mut stream: FrameStream, logins: Logins) {
    match crate::ssh_logins::reported(server, node, logins).await {
        Ok(()) => stream.feed(&Frame::Accepted(Box::default())),
        Err(error) => {
            let code = match error {
                Unreported::Malformed(_) => "ValidationException",
                Unreported::Later => "ServiceUnavailableException",
            };
            let (code, message) = (code.to_owned(), error.to_string());
            stream.feed(&Frame::Refused(Refused { code, message, ..Refused::default() }));
        }
    }
    close_in_background(stream);
}

/// Takes note of what became of a node's accounts, then lets the node stop saying it.
async fn accounts_changed(server: &Arc<Server>, node: &NodeId, mut stream: FrameStream, report: AccountReport) {
    match crate::accounts::changed_on_node(server, node, report).await {
        Ok(()) => stream.feed(&Frame::Accepted(Box::default())),
        Err(error) => {
            tracing::error!(%node, error = format!("{error:#}"), "a report on accounts was not taken");
            let (code, message) = ("ServiceUnavailableException".to_owned(), "try again later".to_owned());
            stream.feed(&Frame::Refused(Refused { code, message, ..Refused::default() }));
        }
    }
    close_in_background(stream);
}

/// Hands a session that the node still has to its hub. A node reaches only sessions that name it (T-32).
async fn rejoined(server: &Arc<Server>, node: &NodeId, stream: FrameStream, rejoin: Rejoin) {
    let handle = SessionId::parse(&rejoin.session_id)
        .ok()
        .and_then(|id| server.gateway.session(&id))
        .filter(|handle| handle.facts.node == *node);
    let unsent = match handle {
        Some(handle) => match handle.order(Order::Rejoin(stream, rejoin)).await {
            Ok(()) => return,
            Err(Order::Rejoin(stream, _)) => stream,
            Err(_) => return,
        },
        None => stream,
    };
    let mut stream = unsent;
    let message = "the server knows no such live session of this node".to_owned();
    stream.feed(&Frame::Refused(Refused { code: "SessionEnded".to_owned(), message, ..Refused::default() }));
    close_in_background(stream);
}
