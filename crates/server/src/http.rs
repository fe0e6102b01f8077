//! The one port: TLS, HTTP/1.1 and the few routes; what a route does is decided elsewhere.
//!
//! Every wait on a peer has a limit, every request runs in a task of its own (a client that leaves does not stop it
//! half way), and a panic in one is that request's error alone.

mod approve;
mod gate;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, REFERER, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use munjigi_link::tls::{BindingError, binding_of};
use rustls::ServerConfig;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use uuid::Uuid;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::replay::{Answer, Connection};
use crate::api::serve::{self, Received};
use crate::clock;
use crate::door::{RequestMeta, TlsDetails, Via};
use crate::gateway::node_aws::doors;
use crate::gateway::{door_aws, door_lane, door_link, door_ssh, tunnel};

use gate::Gate;
pub(crate) use gate::Pass;

/// How long a peer may say nothing before it hears that this is SSH too. With the time that it has for its answer the
/// first byte has 5 seconds (T-91).
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the TLS handshake may take (T-91).
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a request's head may take, and how long a connection stays open without a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How long writing a few bytes to a peer that speaks no TLS may take.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);
/// Largest body, bytes (T-93).
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Largest head, bytes (T-93).
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most headers (T-93).
const MAX_HEADERS: usize = 64;
/// Longest header value that is kept for audit and policies, bytes.
const MAX_KEPT_BYTES: usize = 1024;
/// Pause after the system refused a connection for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What a peer that speaks plain HTTP is told.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\
    content-length: 57\r\n\r\nthis port speaks HTTPS only: write https:// in the URL.\r\n";

/// The answer's body.
pub(crate) type Body = Full<Bytes>;

/// What the listener keeps beside the server's state.
struct Front {
    server: Arc<Server>,
    acceptor: TlsAcceptor,
    gate: Arc<Gate>,
    /// One permit for each request that is worked on.
    requests: Semaphore,
}

/// What is known of a connection once its handshake is done.
pub(crate) struct Connected {
    /// The peer's address.
    pub(crate) peer: SocketAddr,
    /// What TLS agreed on.
    pub(crate) tls: TlsDetails,
    /// What a link's signature must cover.
    pub(crate) binding: Result<[u8; 32], BindingError>,
    pass: Pass,
}

impl Connected {
    /// Takes note that the peer has proved itself: it no longer counts as unauthenticated.
    pub(crate) fn authenticated(&self) {
        self.pass.authenticated();
    }
}

/// What is spoken at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// TLS and SSH; the first byte tells.
    Both,
    /// SSH alone.
    Ssh,
}

/// Accepts connections until the server stops: at its port, and at the one where SSH is all that is spoken, if there is
/// one. Both have the same limits together.
pub(crate) async fn listen(
    server: Arc<Server>,
    listener: TcpListener,
    ssh: Option<TcpListener>,
    tls: Arc<ServerConfig>,
) {
    let limits = &server.config.limits;
    let front = Arc::new(Front {
        acceptor: TlsAcceptor::from(tls),
        gate: Gate::new(limits.unauthenticated, limits.unauthenticated_per_address),
        requests: Semaphore::new(limits.requests),
        server: server.clone(),
    });
    if let Some(ssh) = ssh {
        server.tasks.spawn(accept(front.clone(), ssh, Spoken::Ssh));
    }
    accept(front, listener, Spoken::Both).await;
}

async fn accept(front: Arc<Front>, listener: TcpListener, spoken: Spoken) {
    let server = front.server.clone();
    while let Some(accepted) = server.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((socket, peer)) => match front.gate.admit(peer.ip(), rand::random()) {
                Some(pass) => {
                    server.tasks.spawn(connection(front.clone(), socket, peer, pass, spoken));
                }
                None => tracing::debug!(%peer, "too many connections without authentication"),
            },
            Err(cause) => {
                tracing::warn!(%cause, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(front: Arc<Front>, mut socket: TcpStream, peer: SocketAddr, pass: Pass, spoken: Spoken) {
    let stop = &front.server.stop;
    let stream = match stop.run_until_cancelled(first_word(&mut socket, spoken)).await {
        Some(Some(Speaks::Tls)) => stop.run_until_cancelled(handshake(&front, socket, peer)).await.flatten(),
        Some(Some(Speaks::Ssh)) => {
            let origin = door_ssh::Origin { peer, pass: Some(pass), road: door_ssh::Road::Port };
            return door_ssh::serve(&front.server, door_ssh::prompt::Prompt::new(socket), origin).await;
        }
        Some(None) | None => None,
    };
    let Some(stream) = stream else { return };
    let session = stream.get_ref().1;
    let tls = TlsDetails {
        version: session.protocol_version().map_or_else(String::new, |version| match version {
            rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
            rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        }),
        cipher_suite: session
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")),
    };
    let connected = Arc::new(Connected { peer, tls, binding: binding_of(session), pass });
    let service = service_fn(|request| respond(front.clone(), connected.clone(), request));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .max_buf_size(4 * MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = front.server.stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%peer, %cause, "connection ended");
    }
}

/// What a peer speaks.
enum Speaks {
    Tls,
    Ssh,
}

/// Finds out by the first byte what a peer speaks; `None` if it is nothing that is spoken here.
async fn first_word(socket: &mut TcpStream, spoken: Spoken) -> Option<Speaks> {
    // A socket that refuses its options is about to fail anyway.
    let _ = munjigi_link::dial::tune(socket);
    if spoken == Spoken::Ssh {
        return Some(Speaks::Ssh);
    }
    let mut first = [0];
    match tokio::time::timeout(PATIENCE, socket.peek(&mut first)).await {
        Ok(Ok(1..)) => {}
        Ok(_) => return None,
        // It waits for the server's word, as in SSH either side may speak first (RFC 4253 section 4.2).
        Err(_) => return Some(Speaks::Ssh),
    }
    match first {
        // `SSH-2.0-…`
        [b'S'] => Some(Speaks::Ssh),
        [byte] if byte.is_ascii_uppercase() => {
            farewell(socket, PLAIN_HTTP).await;
            None
        }
        _ => Some(Speaks::Tls),
    }
}

async fn handshake(front: &Front, socket: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
    match tokio::time::timeout(HANDSHAKE_LIMIT, front.acceptor.accept(socket)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(cause)) => {
            tracing::debug!(%peer, %cause, "TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

async fn farewell(socket: &mut (impl AsyncWrite + Unpin), text: &[u8]) {
    // Nobody waits for it: a peer that does not read it sees a closed connection.
    let _ = tokio::time::timeout(FAREWELL_LIMIT, async {
        socket.write_all(text).await?;
        socket.shutdown().await
    })
    .await;
}

async fn respond(
    front: Arc<Front>,
    connected: Arc<Connected>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let request_id = Uuid::new_v4();
    // A task of its own: the work goes on when the client leaves, and a panic ends nothing else.
    let work = tokio::spawn(front.server.tasks.track_future(route(front.clone(), connected, request, request_id)));
    let mut response = match work.await {
        Ok(response) => response,
        Err(failed) => {
            let panics = front.server.panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed).saturating_add(1);
            tracing::error!(%request_id, panics, panic = failed.is_panic(), "a request's task failed");
            problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure", "an internal error; see the server's log")
        }
    };
    let id = response.headers().get("x-amzn-requestid").cloned();
    if let (None, Ok(value)) = (id, HeaderValue::from_str(&request_id.to_string())) {
        response.headers_mut().insert(HeaderName::from_static("x-amzn-requestid"), value);
    }
    Ok(response)
}

async fn route(
    front: Arc<Front>,
    connected: Arc<Connected>,
    request: Request<Incoming>,
    request_id: Uuid,
) -> Response<Body> {
    let server = &front.server;
    let path = request.uri().path();
    if request.method() == Method::GET && path == "/healthz" {
        return json(StatusCode::OK, "{\"status\":\"ok\"}".to_owned());
    }
    if !is_own_host(server, request.headers()) {
        let message = "the Host header names no host of this server; add the name to `names` in its settings";
        return problem(StatusCode::MISDIRECTED_REQUEST, "MisdirectedRequest", message);
    }
    if request.method() == Method::GET && path.starts_with(approve::PATH) {
        return approve::page(&server.deployment.region);
    }
    let meta = meta(server, &connected, request.headers(), request_id);
    if let Some(asked) = doors::Asked::of(request.method(), path, request.headers()) {
        return doors::channel_door(server, request, connected, meta, asked).await;
    }
    if path == tunnel::PATH {
        return tunnel::tunnel_door(server, request, connected, meta).await;
    }
    if path == munjigi_link::LINK_PATH {
        return door_link::link_door(server, request, connected, meta).await;
    }
    if path == munjigi_link::LANE_PATH {
        return door_lane::lane_door(server, request, connected, meta).await;
    }
    if path.starts_with(door_aws::DATA_CHANNEL_PATH) {
        return door_aws::data_channel(server, request, connected, meta);
    }
    let is_api = path == "/" && matches!(*request.method(), Method::POST | Method::GET);
    if !is_api || request.headers().contains_key("smithy-protocol") {
        // Among others the CBOR protocol, which no served model names (aws-api A.1).
        return json(StatusCode::NOT_FOUND, "{}".to_owned());
    }
    let Ok(_working) = front.requests.try_acquire() else {
        let busy = ApiError::Unavailable("the server has all hands full; try again");
        return from_answer(serve::shed(request.headers(), &busy, request_id));
    };
    let (parts, body) = request.into_parts();
    let body = match read_body(body, MAX_BODY_BYTES).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    let received = Received { method: parts.method, target, headers: parts.headers, body, meta };
    // Behind a proxy several clients may share a connection.
    let shared =
        server.config.trusted_proxies.iter().any(|network| network.contains(&connected.peer.ip().to_canonical()));
    let alone = connected.binding.as_ref().ok().copied().filter(|_| !shared);
    let connection = alone.map(|session| Connection { session, address: connected.peer.ip() });
    from_answer(serve::serve(server.clone(), received, connection, || connected.authenticated()).await)
}

/// Reads a body of at most `most` bytes, or makes the answer that refuses it.
pub(crate) async fn read_body(body: Incoming, most: usize) -> Result<Bytes, Box<Response<Body>>> {
    let refused = |status, code, message: &str| Err(Box::new(problem(status, code, message)));
    let too_large = || {
        let message = format!("the request's body has more than {} KiB", most / 1024);
        refused(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", &message)
    };
    if body.size_hint().lower() > most as u64 {
        return too_large();
    }
    match tokio::time::timeout(BODY_LIMIT, Limited::new(body, most).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(cause)) if cause.is::<LengthLimitError>() => too_large(),
        Ok(Err(_)) => refused(StatusCode::BAD_REQUEST, "IncompleteBody", "the request's body broke off"),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", "the request's body took too long"),
    }
}

/// Describes a request.
fn meta(server: &Server, connected: &Connected, headers: &HeaderMap, request_id: Uuid) -> RequestMeta {
    let text = |name: HeaderName| {
        let value = headers.get(name)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let mut end = text.len().min(MAX_KEPT_BYTES);
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.get(..end).map(str::to_owned)
    };
    RequestMeta {
        request_id,
        time: clock::now(),
        source_ip: serve::source_ip(server, connected.peer.ip(), headers),
        user_agent: text(USER_AGENT).unwrap_or_default(),
        referer: text(REFERER),
        tls: Some(connected.tls.clone()),
        host: text(HOST).unwrap_or_default(),
        region: server.config.region.clone(),
        invocation_id: text(HeaderName::from_static("amz-sdk-invocation-id")).filter(|id| !id.is_empty()),
        via: Via::Api,
    }
}

/// Tells whether the `Host` is one of ours (T-47).
fn is_own_host(server: &Server, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let name = name.parse::<IpAddr>().map_or(name, |ip| ip.to_canonical().to_string());
    server.names.contains(&name)
}

/// Makes an error answer for what is no API call.
pub(crate) fn problem(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    json(status, serde_json::json!({ "__type": code, "message": message }).to_string())
}

fn json(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn from_answer(answer: Answer) -> Response<Body> {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Ok(value) = HeaderValue::from_str(&answer.request_id.to_string()) {
        headers.insert(HeaderName::from_static("x-amzn-requestid"), value);
    }
    response
}
