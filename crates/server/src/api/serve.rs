//! One API request from its bytes to the bytes of its answer: route, authenticate, answer repetitions, pass the door.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use munjigi_core::id::{AccessKeyId, NodeId};
use munjigi_core::sigv4;

use super::dispatch::{self, Routed, Unrouted};
use super::error::ApiError;
use super::operation::{Access, Effect, Service};
use super::replay::{self, Answer, Begin, Connection, Names};
use crate::Server;
use crate::door::{Event, Outcome, RequestMeta, Who, failures};
use crate::identity::{Authenticated, Caller, Unauthenticated, authenticate_node};
use crate::store::{LastUsed, StoreError};

/// A request as it was received.
pub(crate) struct Received {
    pub(crate) method: Method,
    /// Path and query as in the request line.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) meta: RequestMeta,
}

impl Received {
    fn query(&self) -> Option<&str> {
        self.target.split_once('?').map(|(_, query)| query)
    }
}

/// Serves a request. `connection` is how it came if nobody but its client speaks on it; `authenticated` is called once
/// the caller has proved itself.
pub(crate) async fn serve(
    server: Arc<Server>,
    mut received: Received,
    connection: Option<Connection>,
    authenticated: impl FnOnce() + Send,
) -> Answer {
    let request_id = received.meta.request_id;
    let routed = dispatch::route(&received.method, received.query(), &received.headers, &received.body);
    let routed = match routed {
        Ok(routed) => routed,
        Err(Unrouted { service, error }) => return dispatch::refusal(service, &error, request_id),
    };
    let entry = routed.entry;
    let proved = |authenticated: Authenticated| (authenticated.caller, Some(authenticated.replay_id));
    let service = entry.service.signing_name();
    let caller = match entry.access {
        Access::Open => Ok((Caller::anonymous(), None)),
        Access::NodeKey => authenticate_by_node_key(&server, &mut received, service).await.map(proved),
        Access::Policy | Access::Caller | Access::Node => {
            authenticate_within(&server, &mut received, service, entry.presigned).map(proved)
        }
    };
    let (caller, replay_id) = match caller {
        Ok(caller) => caller,
        Err(Unauthenticated { error, presented }) => {
            let who = Who::Unknown(presented.as_deref());
            let event = Event::named(&server, &received.meta, who, entry.service, entry.name, entry.effect);
            let record = event.complete(Outcome::Failure(&error));
            failures::record(&server, received.meta.source_ip, record).await;
            return dispatch::refusal(entry.service, &error, request_id);
        }
    };
    if let Err(error) = still_registered(&server, &caller).await {
        let event =
            Event::named(&server, &received.meta, Who::Caller(&caller), entry.service, entry.name, entry.effect);
        failures::record(&server, received.meta.source_ip, event.complete(Outcome::Failure(&error))).await;
        return dispatch::refusal(entry.service, &error, request_id);
    }
    if replay_id.is_some() {
        authenticated();
    }
    let node = caller.principal().node().map(NodeId::as_str);
    let names = match (entry.effect, &replay_id, caller.access_key().map(AccessKeyId::as_str).or(node)) {
        (Effect::Write, Some(replay_id), Some(key)) => {
            let key = key.as_bytes();
            let invocation = received
                .meta
                .invocation_id
                .as_ref()
                .map(|id| replay::key(&[b"invocation", key, entry.name.as_bytes(), id.as_bytes(), &received.body]));
            Names { signature: replay::key(&[b"signature", key, replay_id]), invocation, connection }
        }
        _ => return run(server, routed, received, caller).await,
    };
    match server.replays.begin(&names, received.meta.time) {
        Begin::First(running) => {
            let answer = run(server, routed, received, caller).await;
            running.answered(&answer);
            answer
        }
        Begin::Again(earlier) => {
            let again = "this request was carried out already and its answer is no longer kept; sign a new one";
            let gone = ApiError::bad("RequestAlreadyCarriedOut", again);
            earlier.answer().await.unwrap_or_else(|| dispatch::refusal(entry.service, &gone, request_id))
        }
        Begin::Full => dispatch::refusal(entry.service, &ApiError::Throttled, request_id),
    }
}

async fn run(server: Arc<Server>, routed: Routed, received: Received, caller: Caller) -> Answer {
    let entry = routed.entry;
    let request_id = received.meta.request_id;
    let result = match routed.input(&received.body) {
        Ok(input) => (entry.invoke)(server, caller, input, received.meta).await,
        Err(error) => {
            let who = Who::Caller(&caller);
            let event = Event::named(&server, &received.meta, who, entry.service, entry.name, entry.effect);
            let record = event.complete(Outcome::Failure(&error));
            match crate::door::store(&server, record).await {
                Ok(()) => Err(error),
                Err(unstored) => Err(unstored),
            }
        }
    };
    dispatch::answer(entry.service, entry.name, result, request_id)
}

/// Refuses the credentials of a node that was deregistered since they were issued (T-104). Everybody else passes.
pub(crate) async fn still_registered(server: &Server, caller: &Caller) -> Result<(), ApiError> {
    let Some(node) = caller.principal().node() else { return Ok(()) };
    match server.store.node(node).await {
        Ok(_) => Ok(()),
        Err(StoreError::NotFound { .. }) => Err(ApiError::InvalidClientToken),
        Err(cause) => Err(ApiError::internal(cause)),
    }
}

/// Verifies the signature of a request and fills in the region it was signed for. A presigned request is refused.
pub(crate) fn authenticate(
    server: &Arc<Server>,
    received: &mut Received,
    service: &'static str,
) -> Result<Authenticated, Unauthenticated> {
    authenticate_within(server, received, service, None)
}

/// Verifies a presigned request that lives for at most `life` and is good once (T-46, T-49).
pub(crate) fn authenticate_once(
    server: &Arc<Server>,
    received: &mut Received,
    service: &'static str,
    life: Duration,
) -> Result<Authenticated, Unauthenticated> {
    let authenticated = authenticate_within(server, received, service, Some(life))?;
    let presented = authenticated.caller.access_key().map(ToString::to_string);
    let key = presented.as_deref().unwrap_or_default().as_bytes();
    let signature = replay::key(&[b"signature", key, &authenticated.replay_id]);
    let names = Names { signature, invocation: None, connection: None };
    let error = match server.replays.begin(&names, received.meta.time) {
        Begin::First(running) => {
            running.used();
            return Ok(authenticated);
        }
        Begin::Again(_) => ApiError::bad("RequestAlreadyCarriedOut", "this URL was used already; sign a new one"),
        Begin::Full => ApiError::Throttled,
    };
    Err(Unauthenticated { error, presented })
}

/// Verifies a request that a node signed with its own key, and fills in the region it was signed for.
async fn authenticate_by_node_key(
    server: &Server,
    received: &mut Received,
    service: &str,
) -> Result<Authenticated, Unauthenticated> {
    let headers: Vec<(&str, &[u8])> =
        received.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = sigv4::Request {
        method: received.method.as_str(),
        target: &received.target,
        headers: &headers,
        body: &received.body,
    };
    let authenticated = authenticate_node(server, &request, service, received.meta.time).await?;
    received.meta.region.clone_from(&authenticated.region);
    Ok(authenticated)
}

fn authenticate_within(
    server: &Arc<Server>,
    received: &mut Received,
    service: &'static str,
    presigned: Option<Duration>,
) -> Result<Authenticated, Unauthenticated> {
    let headers: Vec<(&str, &[u8])> =
        received.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let request = sigv4::Request {
        method: received.method.as_str(),
        target: &received.target,
        headers: &headers,
        body: &received.body,
    };
    let now = received.meta.time;
    let authenticated = server.authenticator.authenticate(server, &request, service, presigned, now)?;
    received.meta.region.clone_from(&authenticated.region);
    if let (true, Some(key)) = (authenticated.use_is_due, authenticated.caller.access_key().cloned()) {
        let used = LastUsed { time: now, service: service.to_owned(), region: authenticated.region.clone() };
        let server_in_task = server.clone();
        server.tasks.spawn(async move {
            if let Err(cause) = server_in_task.store.record_key_use(&key, &used).await {
                tracing::warn!(%key, %cause, "the use of an access key could not be written down");
            }
        });
    }
    Ok(authenticated)
}

/// Returns the answer to a request that the server has no room for, in the form the client expects.
pub(crate) fn shed(headers: &HeaderMap, error: &ApiError, request_id: uuid::Uuid) -> Answer {
    let service = if headers.contains_key("x-amz-target") { Service::Ssm } else { Service::Sts };
    dispatch::refusal(service, error, request_id)
}

/// Returns the client's address: the peer's, or what trusted proxies say of it, from the last to the first (T-47).
pub(crate) fn source_ip(server: &Server, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let trusted = |ip: IpAddr| server.config.trusted_proxies.iter().any(|network| network.contains(&ip));
    let peer = peer.to_canonical();
    if !trusted(peer) {
        return peer;
    }
    let forwarded: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut source = peer;
    for text in forwarded.iter().rev() {
        let Ok(ip) = text.trim().parse::<IpAddr>() else { break };
        source = ip.to_canonical();
        if !trusted(source) {
            break;
        }
    }
    source
}
