//! The door of tunnels: `GET /openTunnel`, a WebSocket whose binary frames are the bytes of one TCP connection to a
//! node (aws-api C.2). The URL is signed, lives for a minute and is good once. What it opens is a port session like
//! any other: listed, limited, ended, and recorded by its connection's ends, bytes and hash.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use munjigi_core::session::EndReason;
use munjigi_core::wire::{Frame, FrameSet};
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::launch::launch_ports;
use super::peer::FrameStream;
use super::ports::{PortSession, PortStream, send};
use super::websocket::{self, Event, Message, Terms, WebSocket, WebSocketError};
use crate::Server;
use crate::api::ec2_instance_connect::open_tunnel::{OpenTunnel, OpenTunnelInput};
use crate::api::error::ApiError;
use crate::api::operation::{Effect, Service};
use crate::api::serve::{Received, authenticate_once};
use crate::door::{self, Outcome, RequestMeta, Who, failures};
use crate::http::{Body, Connected};
use crate::identity::Unauthenticated;

/// Where tunnels open.
pub(crate) const PATH: &str = "/openTunnel";
/// Longest life of a tunnel's URL (T-46); AWS's client signs for as long.
const URL_LIFE: Duration = Duration::from_secs(60);
/// Most bytes in one message to the client. It takes more; smaller ones keep the other direction quick.
const MAX_CHUNK: usize = 32 * 1024;

/// Why a tunnel does not open; the client prints the text.
struct Refused(StatusCode, String);

impl Refused {
    fn new(error: &ApiError) -> Self {
        let status = match error {
            ApiError::Denied(_) | ApiError::Signature(_) | ApiError::InvalidClientToken => StatusCode::FORBIDDEN,
            error => error.status(Service::Ec2InstanceConnect),
        };
        Self(status, format!("{}: {error}", error.code(Service::Ec2InstanceConnect)))
    }

    fn response(self) -> Response<Body> {
        let Self(status, text) = self;
        // One plain line (aws-api C.2).
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        let mut response = Response::new(Full::new(Bytes::from(line + "\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

/// Answers a request for a tunnel. One that opens is carried in a task of its own.
pub(crate) async fn tunnel_door(
    server: &Arc<Server>,
    request: Request<Incoming>,
    connected: Arc<Connected>,
    meta: RequestMeta,
) -> Response<Body> {
    open(server, request, connected, meta).await.unwrap_or_else(Refused::response)
}

async fn open(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    connected: Arc<Connected>,
    meta: RequestMeta,
) -> Result<Response<Body>, Refused> {
    let mut received = Received {
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or(PATH, |target| target.as_str()).to_owned(),
        headers: request.headers().clone(),
        body: Bytes::new(),
        meta,
    };
    let authenticated =
        match authenticate_once(server, &mut received, Service::Ec2InstanceConnect.signing_name(), URL_LIFE) {
            Ok(authenticated) => authenticated,
            Err(Unauthenticated { error, presented }) => {
                let who = Who::Unknown(presented.as_deref());
                let service = Service::Ec2InstanceConnect;
                let event = door::Event::named(server, &received.meta, who, service, "OpenTunnel", Effect::Write);
                failures::record(server, received.meta.source_ip, event.complete(Outcome::Failure(&error))).await;
                return Err(Refused::new(&error));
            }
        };
    connected.authenticated();
    let input = input(request.uri().query().unwrap_or_default())
        .map_err(|why| Refused(StatusCode::BAD_REQUEST, format!("ValidationException: {why}")))?;
    let (response, upgrading) = websocket::upgrade(&mut request, Terms::default()).map_err(|response| {
        Refused(response.status(), "a tunnel opens with a WebSocket upgrade, version 13".to_owned())
    })?;
    let output = door::call::<OpenTunnel>(server, &authenticated.caller, input, received.meta)
        .await
        .map_err(|error| Refused::new(&error))?;
    let prepared = server.gateway.take_prepared(&output.session_id);
    let prepared =
        prepared.ok_or_else(|| Refused(StatusCode::INTERNAL_SERVER_ERROR, "the session was lost".to_owned()))?;
    let id = prepared.facts.id.clone();
    let unavailable = |why: String| Refused(StatusCode::BAD_GATEWAY, why);
    let (session, mut control) = launch_ports(server, prepared).await.map_err(unavailable)?;
    let stream = match session.connect().await {
        Ok(stream) => stream,
        Err(error) => {
            server.gateway.end_session(&id, EndReason::StartFailed, &error.to_string()).await;
            return Err(unavailable(format!("{}: {error}", error.code())));
        }
    };
    let server_in_task = server.clone();
    server.tasks.spawn(async move {
        let message = match upgrading.complete().await {
            Ok(socket) => carry(socket, stream, session, &mut control).await,
            Err(error) => error.to_string(),
        };
        server_in_task.gateway.end_session(&id, EndReason::Terminated, &message).await;
    });
    Ok(response)
}

/// Reads the URL's parameters. That none stands twice was checked with the signature.
fn input(query: &str) -> Result<OpenTunnelInput, String> {
    let (mut endpoint, mut port, mut address, mut duration) = (None, None, None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "instanceConnectEndpointId" => endpoint = Some(value.into_owned()),
            "remotePort" => port = Some(value.parse().map_err(|_| "remotePort is a number up to 65535")?),
            "privateIpAddress" => address = Some(value.parse().map_err(|_| "privateIpAddress is an IPv4 address")?),
            "maxTunnelDuration" => {
                duration = Some(value.parse().map_err(|_| "maxTunnelDuration is a number of seconds")?);
            }
            // Of the signature, or of a newer client.
            _ => {}
        }
    }
    Ok(OpenTunnelInput {
        instance_connect_endpoint_id: endpoint.ok_or("instanceConnectEndpointId is missing")?,
        remote_port: port.ok_or("remotePort is missing")?,
        private_ip_address: address.ok_or("privateIpAddress is missing")?,
        max_tunnel_duration: duration,
    })
}

/// Carries bytes until either end has ended or the session is over; says goodbye; returns why it ended.
async fn carry(mut socket: WebSocket, stream: PortStream, session: PortSession, control: &mut FrameStream) -> String {
    let (code, why) = tokio::select! {
        ended = pump(&mut socket, stream) => ended,
        why = over(control) => why,
        () = session.over() => (CloseCode::Normal, "the tunnel's session ended".to_owned()),
    };
    // The client ends quietly for 1000 and prints the reason for anything else.
    socket.close(code, &why).await;
    why
}

/// Waits for the session's end, as its hub tells a client.
async fn over(control: &mut FrameStream) -> (CloseCode, String) {
    loop {
        match control.reader.read(FrameSet::TO_CLIENT).await {
            Ok(Some(Frame::End(end))) => {
                let reason = EndReason::parse(&end.reason);
                let quiet =
                    matches!(reason, Some(EndReason::MaximumDuration | EndReason::Exited | EndReason::Terminated));
                let code = if quiet { CloseCode::Normal } else { CloseCode::Policy };
                let sentence = reason.map_or("the session ended", EndReason::sentence);
                return (code, if end.message.is_empty() { sentence.to_owned() } else { end.message });
            }
            Ok(Some(_)) => {}
            _ => return (CloseCode::Away, "the tunnel's session ended".to_owned()),
        }
    }
}

async fn pump(socket: &mut WebSocket, stream: PortStream) -> (CloseCode, String) {
    let (mut from_node, mut to_node) = tokio::io::split(stream);
    let mut buffer = BytesMut::with_capacity(MAX_CHUNK);
    // At most one piece waits in each direction: who does not read stops the other from sending.
    let (mut to_client, mut incoming) = (None::<Bytes>, Bytes::new());
    let (mut unflushed, mut unsent) = (false, false);
    loop {
        if !incoming.is_empty()
            && socket.has_room()
            && let Some(chunk) = to_client.take()
        {
            unflushed = true;
            if let Err(error) = socket.put(Message::Binary(chunk)) {
                return (CloseCode::Away, error.to_string());
            }
        }
        let reads = incoming.is_empty();
        tokio::select! {
            read = from_node.read_buf(&mut buffer), if to_client.is_none() => match read {
                Ok(0) => return (CloseCode::Normal, "the node closed the connection".to_owned()),
                Ok(_) => to_client = Some(buffer.split().freeze()),
                Err(error) => return (CloseCode::Normal, error.to_string()),
            },
            sent = send(&mut to_node, &mut incoming, &mut unsent), if unsent || !incoming.is_empty() => {
                if let Err(error) = sent {
                    return (CloseCode::Normal, error.to_string());
                }
            }
            step = step(socket, reads, to_client.is_some(), unflushed) => match step {
                Ok(Step::Flushed) => unflushed = false,
                Ok(Step::Event(Event::Received(Message::Binary(bytes)))) => incoming = bytes,
                Ok(Step::Event(Event::Received(Message::Text(_)))) => {
                    return (CloseCode::Unsupported, "a tunnel carries binary messages only".to_owned());
                }
                Ok(Step::Event(Event::Writable)) => {
                    if let Some(chunk) = to_client.take()
                        && let Err(error) = socket.put(Message::Binary(chunk))
                    {
                        return (CloseCode::Away, error.to_string());
                    }
                }
                Err(error) => return (CloseCode::Normal, error.to_string()),
            },
        }
        buffer.reserve(MAX_CHUNK);
    }
}

/// What became of the client's side.
enum Step {
    /// Everything put is sent.
    Flushed,
    /// Something came, or there is room.
    Event(Event),
}

/// Takes one step on the client's side; can be left at its await. While the node does not take what came, nothing more
/// is read from the client, but it still gets output.
async fn step(
    socket: &mut WebSocket,
    reads: bool,
    wants_to_send: bool,
    unflushed: bool,
) -> Result<Step, WebSocketError> {
    match (reads, unflushed) {
        (true, _) => socket.event(wants_to_send).await.map(Step::Event),
        (false, true) => socket.flush().await.map(|()| Step::Flushed),
        (false, false) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_names_endpoint_port_and_node() {
        let good = "instanceConnectEndpointId=eice-0a&remotePort=22&privateIpAddress=100.64.0.5&X-Amz-Expires=60";
        let read = input(good).unwrap();
        assert_eq!((read.remote_port, read.max_tunnel_duration), (22, None));
        assert_eq!(input(&format!("{good}&maxTunnelDuration=600")).unwrap().max_tunnel_duration, Some(600));
        for bad in [
            "",
            "instanceConnectEndpointId=eice-0a&remotePort=22",
            "instanceConnectEndpointId=eice-0a&remotePort=65536&privateIpAddress=100.64.0.5",
            "instanceConnectEndpointId=eice-0a&remotePort=22&privateIpAddress=localhost",
            &format!("{good}&maxTunnelDuration=-1"),
        ] {
            assert!(input(bad).is_err(), "{bad}");
        }
    }
}
