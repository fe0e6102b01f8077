//! The doors of AWS's agent: a signed POST gives a token for a channel, a signed upgrade and that token open it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::secret::Secret;
use munjigi_core::wire::aws::message::MAX_MESSAGE;
use munjigi_core::wire::aws::payload::{MESSAGE_SCHEMA_VERSION, OpenControlChannel, OpenDataChannel, parse};
use percent_encoding::percent_decode_str;
use tokio::time::Instant;

use super::tokens::Place;
use super::{Arrival, control};
use crate::api::error::ApiError;
use crate::api::operation::{Effect, Service};
use crate::api::serve::{Received, authenticate};
use crate::api::ssm::own_node;
use crate::door::{Event, Outcome, RequestMeta, Who, failures};
use crate::gateway::websocket::{self, Message, Terms, WebSocket};
use crate::http::{Body, Connected, read_body};
use crate::identity::Unauthenticated;
use crate::{Server, lock};

/// How long the agent may take to send its first message (T-91).
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Largest body of a POST, bytes; the agent sends a hundred.
const MAX_BODY_BYTES: usize = 16 * 1024;
const SERVICE: Service = Service::SsmMessages;
/// What ends the agent's attempts to bring a data channel back.
const TERMINATED: &str = "Session is already terminated";

/// The two kinds of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Control,
    Data,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    kind: Kind,
    /// The node or session that the path names, not parsed yet.
    name: String,
    /// POST: give a token. Otherwise: open it.
    creates: bool,
}

impl Asked {
    /// Reads what a request asks for; `None` if it is not for AWS's agent. A data channel without `Authorization` is a
    /// client's.
    pub(crate) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Option<Self> {
        let (kind, name) = if let Some(name) = path.strip_prefix("/v1/control-channel/") {
            (Kind::Control, name)
        } else {
            (Kind::Data, path.strip_prefix("/v1/data-channel/")?)
        };
        let creates = method == Method::POST;
        let opens = method == Method::GET && (kind == Kind::Control || headers.contains_key(AUTHORIZATION));
        let name = percent_decode_str(name).decode_utf8().ok()?.into_owned();
        (creates || opens).then_some(Self { kind, name, creates })
    }

    fn event(&self) -> &'static str {
        match (self.kind, self.creates) {
            (Kind::Control, true) => "CreateControlChannel",
            (Kind::Control, false) => "OpenControlChannel",
            (Kind::Data, true) => "CreateDataChannel",
            (Kind::Data, false) => "OpenDataChannel",
        }
    }

    /// Returns the channel, if this node may have it.
    fn place(&self, server: &Server, node: &NodeId) -> Result<Place, ApiError> {
        if self.kind == Kind::Control {
            return match NodeId::parse(&self.name) {
                Ok(named) if named == *node => Ok(Place::Control(named)),
                _ => Err(own_node::other_node(node, self.event())),
            };
        }
        // A session that is over, of another node, or that never was: the node learns nothing of which.
        let gone = || ApiError::bad("BadRequestException", TERMINATED);
        let session = SessionId::parse(&self.name).map_err(|_| gone())?;
        if server.gateway.aws.has(&session, node) { Ok(Place::Data(node.clone(), session)) } else { Err(gone()) }
    }
}

/// Answers a request for a channel.
pub(crate) async fn channel_door(
    server: &Arc<Server>,
    request: Request<Incoming>,
    connected: Arc<Connected>,
    meta: RequestMeta,
    asked: Asked,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (body, upgradable) = if asked.creates {
        match read_body(body, MAX_BODY_BYTES).await {
            Ok(bytes) => (bytes, None),
            Err(refusal) => return *refusal,
        }
    } else {
        (Bytes::new(), Some(Request::from_parts(parts.clone(), body)))
    };
    let mut received = Received {
        method: parts.method,
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: parts.headers,
        body,
        meta,
    };
    let (node, place) = match admit(server, &mut received, &connected, &asked).await {
        Ok(admitted) => admitted,
        Err(error) => return refusal(&error),
    };
    match upgradable {
        None => create(server, &asked, place),
        Some(request) => open(server, request, received.meta, node, place),
    }
}

/// Verifies who asks and whether it may; a refusal is in the trail.
async fn admit(
    server: &Arc<Server>,
    received: &mut Received,
    connected: &Connected,
    asked: &Asked,
) -> Result<(NodeId, Place), ApiError> {
    let authenticated = match authenticate(server, received, SERVICE.signing_name()) {
        Ok(authenticated) => authenticated,
        Err(Unauthenticated { error, presented }) => {
            let who = Who::Unknown(presented.as_deref());
            record(server, &received.meta, who, asked, &error).await;
            return Err(error);
        }
    };
    connected.authenticated();
    let caller = authenticated.caller;
    let admitted = own_node::calling(server, &caller, asked.event())
        .await
        .and_then(|node| asked.place(server, &node.id).map(|place| (node.id, place)));
    if let Err(error) = &admitted {
        record(server, &received.meta, Who::Caller(&caller), asked, error).await;
    }
    admitted
}

async fn record(server: &Server, meta: &RequestMeta, who: Who<'_>, asked: &Asked, error: &ApiError) {
    let event = Event::named(server, meta, who, SERVICE, asked.event(), Effect::Write);
    failures::record(server, meta.source_ip, event.complete(Outcome::Failure(error))).await;
}

fn create(server: &Server, asked: &Asked, place: Place) -> Response<Body> {
    let Some(token) = lock(&server.gateway.aws.tokens).give(place, Instant::now()) else {
        return refusal(&ApiError::Throttled);
    };
    // The token is of base64url: nothing in it needs escaping.
    let name = asked.event();
    let body = format!(
        "<{name}Response><MessageSchemaVersion>{MESSAGE_SCHEMA_VERSION}</MessageSchemaVersion>\
         <TokenValue>{token}</TokenValue></{name}Response>"
    );
    xml(StatusCode::CREATED, body)
}

fn open(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    meta: RequestMeta,
    node: NodeId,
    place: Place,
) -> Response<Body> {
    // The agent pings every 54 s by itself, and what it sends counts: one that lives is never asked.
    let terms = Terms { max_message: MAX_MESSAGE, ping_interval: Duration::from_secs(60), ..Terms::default() };
    let (response, upgrading) = match websocket::upgrade(&mut request, terms) {
        Ok(accepted) => accepted,
        Err(refusal) => return *refusal,
    };
    let server_in_task = server.clone();
    server.tasks.spawn(async move {
        let server = server_in_task;
        let opened = server.stop.run_until_cancelled(async {
            let mut socket = upgrading.complete().await.ok()?;
            // Nothing is ever answered to the first message: one that will not do ends the connection.
            shows_token(&server, &mut socket, &place).await.then_some(socket)
        });
        let Some(Some(socket)) = opened.await else { return };
        match place {
            Place::Control(_) => control::serve(server, node, socket, meta.source_ip).await,
            // The session may have ended meanwhile; then the socket is dropped and the agent told when it comes again.
            Place::Data(_, session) => {
                drop(server.gateway.aws.deliver(&session, &node, Arrival::DataChannel(Box::new(socket))));
            }
        }
    });
    response
}

/// Reads the first message, and tells whether it holds the token of this channel.
async fn shows_token(server: &Server, socket: &mut WebSocket, place: &Place) -> bool {
    let Ok(Ok(Message::Text(text))) = tokio::time::timeout(OPEN_LIMIT, socket.receive()).await else { return false };
    let token: Option<Secret<String>> = match place {
        Place::Control(_) => {
            parse::<OpenControlChannel>("open message", text.as_bytes()).ok().map(|open| open.token_value)
        }
        Place::Data(..) => parse::<OpenDataChannel>("open message", text.as_bytes()).ok().map(|open| open.token_value),
    };
    token.is_some_and(|token| lock(&server.gateway.aws.tokens).take(token.expose(), place, Instant::now()))
}

/// Writes a refusal as the agent reads it: it looks for the code as the name of an element.
fn refusal(error: &ApiError) -> Response<Body> {
    if let ApiError::Internal(cause) = error {
        tracing::error!(cause = format!("{cause:#}"), "a channel of AWS's agent failed by a fault of the server");
    }
    let status = match error {
        ApiError::Denied(_) | ApiError::Signature(_) | ApiError::InvalidClientToken => StatusCode::FORBIDDEN,
        other => other.status(SERVICE),
    };
    let code = error.code(SERVICE);
    let message = quick_xml::escape::escape(error.to_string()).into_owned();
    xml(status, format!("<{code}><Message>{message}</Message></{code}>"))
}

fn xml(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_channel_without_authorization_is_a_clients() {
        let none = HeaderMap::new();
        let signed = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("AWS4-HMAC-SHA256 x"))]);
        let asked = |method: &Method, path: &str, headers: &HeaderMap| {
            Asked::of(method, path, headers).map(|asked| (asked.event(), asked.name))
        };
        let some = |event, name: &str| Some((event, name.to_owned()));
        let (control, data) = ("/v1/control-channel/mi-1", "/v1/data-channel/a%40b-1");
        assert_eq!(asked(&Method::POST, control, &none), some("CreateControlChannel", "mi-1"));
        assert_eq!(asked(&Method::GET, control, &none), some("OpenControlChannel", "mi-1"));
        assert_eq!(asked(&Method::POST, data, &none), some("CreateDataChannel", "a@b-1"));
        assert_eq!(asked(&Method::GET, data, &signed), some("OpenDataChannel", "a@b-1"));
        assert_eq!(asked(&Method::GET, data, &none), None);
        assert_eq!(asked(&Method::DELETE, data, &signed), None);
        assert_eq!(asked(&Method::GET, "/v1/other/x", &signed), None);
        assert_eq!(asked(&Method::GET, "/v1/data-channel/%ff", &signed), None);
    }
}
