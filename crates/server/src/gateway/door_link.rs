//! The link's door: who dials is proved here, before anything is multiplexed; then the link is served.
//!
//! A client signs the upgrade with Signature Version 4 for the service `munjigi`, a node with its own key. Both cover
//! the binding of this TLS session and the hello, so that neither can be used on another connection.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use munjigi_core::id::NodeId;
use munjigi_core::sigv4::SigV4Error;
use munjigi_core::wire::hello::{NodeHello, Role, ServerHello, VERSION_MAX, node_link_message};
use munjigi_link::accept::{self, PendingUpgrade, Upgrade};
use munjigi_link::{BINDING_HEADER, Connection, HELLO_HEADER, Limits, tls};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Effect, Service};
use crate::api::serve::{Received, authenticate};
use crate::door::{Event, Outcome, RequestMeta, Via, Who, failures};
use crate::gateway::serve::{self, AuthenticatedNode};
use crate::http::{Body, Connected, problem};
use crate::identity::{Caller, Unauthenticated};
use crate::store::StoreError;

/// The name under which refused links stand in the trail.
const EVENT_NAME: &str = "OpenLink";
/// Begins a node's `Authorization`.
const NODE_SCHEME: &str = "Munjigi-Node ";
const SERVICE: Service = Service::Munjigi;

/// Who is at the other end of a link.
pub(crate) enum Peer {
    /// A client, with the principal that signed.
    Client(Caller),
    /// The agent of a node, with what it says of itself.
    Node(NodeId, Box<NodeHello>),
}

/// Why a link is not opened.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) error: ApiError,
    pub(super) presented: Option<String>,
}

/// Answers an upgrade request. A link that is accepted is served in a task of its own.
pub(crate) async fn link_door(
    server: &Arc<Server>,
    mut request: Request<Incoming>,
    connected: Arc<Connected>,
    mut meta: RequestMeta,
) -> Response<Body> {
    meta.via = Via::Link;
    let pending = match Upgrade::parse(&request) {
        Ok(pending) => pending,
        Err(error) => return problem(error.status(), error.code(), &error.to_string()),
    };
    let peer = match authenticate_peer(server, &request, &pending, &connected, &mut meta).await {
        Ok(peer) => peer,
        Err(Refused { status, error, presented }) => {
            let event =
                Event::named(server, &meta, Who::Unknown(presented.as_deref()), SERVICE, EVENT_NAME, Effect::Write);
            failures::record(server, meta.source_ip, event.complete(Outcome::Failure(&error))).await;
            return problem(status, error.code(SERVICE), &error.to_string());
        }
    };
    connected.authenticated();
    let limits = match &peer {
        Peer::Client(_) => Limits::client(),
        Peer::Node(..) => Limits::agent(),
    };
    let hello = ServerHello {
        version: pending.version().min(VERSION_MAX),
        software: concat!("munjigi/", env!("CARGO_PKG_VERSION")).to_owned(),
        server_time_micros: meta.time.0,
        ping_interval_secs: u32::try_from(limits.ping_interval.as_secs()).unwrap_or(10),
        trust_bundle: match &peer {
            Peer::Client(_) => Vec::new(),
            Peer::Node(..) => server.keys.signed_bundle().to_vec(),
        },
    };
    let response = match pending.response(&hello) {
        Ok(response) => response.map(|()| Body::default()),
        Err(cause) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", &cause.to_string()),
    };
    let upgrading = hyper::upgrade::on(&mut request);
    let server_in_task = server.clone();
    server.tasks.spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let Ok(parts) = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() else {
            return tracing::error!("an upgraded connection is not the TLS connection it was");
        };
        let mut stream = parts.io.into_inner();
        tls::bound_buffer(stream.get_mut().1);
        let connection = accept::run(stream, parts.read_buf, limits);
        serve(server_in_task, connection, peer, meta).await;
    });
    response
}

/// Serves a link until it ends.
async fn serve(server: Arc<Server>, connection: Connection, peer: Peer, request: RequestMeta) {
    match peer {
        Peer::Client(caller) => serve::client(server, connection, caller, request).await,
        Peer::Node(node, hello) => {
            // The hello was checked when it was parsed: the epoch has its length.
            let epoch = hello.epoch.as_slice().try_into().unwrap_or([0; 32]);
            let address = request.source_ip;
            serve::node(server, connection, AuthenticatedNode { node, epoch, hello: *hello, address }).await;
        }
    }
}

/// Verifies that whoever sent an upgrade request is who it says, on this TLS session.
pub(super) async fn authenticate_peer(
    server: &Arc<Server>,
    request: &Request<Incoming>,
    pending: &PendingUpgrade,
    connected: &Connected,
    meta: &mut RequestMeta,
) -> Result<Peer, Refused> {
    let refused = |status, error| Refused { status, error, presented: None };
    let binding = connected.binding.as_ref().map_err(|cause| {
        refused(StatusCode::BAD_REQUEST, ApiError::Signature(SigV4Error::Malformed(binding_problem(cause))))
    })?;
    if !pending.is_bound_to(binding) {
        let cause = "x-munjigi-binding is not that of this TLS session; a proxy that ends TLS cannot carry a link";
        return Err(refused(StatusCode::FORBIDDEN, ApiError::Signature(SigV4Error::Malformed(cause))));
    }
    let is_node = pending.hello().role == i32::from(Role::Agent);
    if is_node {
        return node(server, request.headers(), pending, binding).await;
    }
    if !signs_link_headers(request.headers()) {
        let cause = SigV4Error::NotSigned(format!("{BINDING_HEADER};{HELLO_HEADER}"));
        return Err(refused(StatusCode::FORBIDDEN, ApiError::Signature(cause)));
    }
    let mut received = Received {
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned(),
        headers: request.headers().clone(),
        body: Bytes::new(),
        meta: meta.clone(),
    };
    match authenticate(server, &mut received, SERVICE.signing_name()) {
        Ok(authenticated) => {
            *meta = received.meta;
            Ok(Peer::Client(authenticated.caller))
        }
        Err(Unauthenticated { error, presented }) => Err(Refused { status: StatusCode::FORBIDDEN, error, presented }),
    }
}

fn binding_problem(cause: &tls::BindingError) -> &'static str {
    match cause {
        tls::BindingError::NotTls13 => "the link requires TLS 1.3, this connection uses an older version",
        tls::BindingError::Exporter(_) => "this TLS session cannot carry a link",
    }
}

/// Tells whether the signature covers binding and hello; what it does not cover proves nothing.
fn signs_link_headers(headers: &HeaderMap) -> bool {
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = text.split("SignedHeaders=").nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap_or_default();
    [BINDING_HEADER, HELLO_HEADER].iter().all(|name| signed.split(';').any(|own| own == *name))
}

/// Verifies a node's signature with the public key that it registered.
async fn node(
    server: &Server,
    headers: &HeaderMap,
    pending: &PendingUpgrade,
    binding: &[u8; 32],
) -> Result<Peer, Refused> {
    let refused = |presented: Option<&NodeId>, error| Refused {
        status: StatusCode::FORBIDDEN,
        error,
        presented: presented.map(ToString::to_string),
    };
    let malformed = || refused(None, ApiError::Signature(SigV4Error::Malformed("a node signs with Munjigi-Node")));
    let (claimed, signature) = headers.get(AUTHORIZATION).and_then(node_credentials).ok_or_else(malformed)?;
    let hello = pending.hello().node.clone().filter(|hello| hello.node_id == claimed.as_str()).ok_or_else(malformed)?;
    let hello_header = headers.get(HELLO_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(malformed)?;

    let message = node_link_message(binding, hello_header);
    let verifies = |public_key: &[u8]| {
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, public_key)
            .verify(&message, &signature)
            .is_ok()
    };
    // A node that is not registered and one that signs wrongly are refused alike.
    match server.store.node(&claimed).await {
        Ok(node) if verifies(&node.public_key) => Ok(Peer::Node(claimed, Box::new(hello))),
        Ok(_) => Err(refused(Some(&claimed), ApiError::InvalidClientToken)),
        Err(StoreError::NotFound { .. }) => Err(refused(Some(&claimed), ApiError::InvalidClientToken)),
        Err(cause) => Err(Refused {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            ..refused(Some(&claimed), ApiError::internal(cause))
        }),
    }
}

/// Reads `Munjigi-Node Credential=<node id>, Signature=<base64>`.
fn node_credentials(header: &http::HeaderValue) -> Option<(NodeId, [u8; 64])> {
    let rest = header.to_str().ok()?.strip_prefix(NODE_SCHEME)?;
    let (credential, signature) = rest.split_once(',')?;
    let node = NodeId::parse(credential.trim().strip_prefix("Credential=")?).ok()?;
    let signature = STANDARD.decode(signature.trim().strip_prefix("Signature=")?).ok()?;
    Some((node, signature.try_into().ok()?))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod form_tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn node_credentials_have_one_form() {
        let good = format!("Munjigi-Node Credential=mi-0123456789abcdef0, Signature={}", STANDARD.encode([7; 64]));
        let read = |text: &str| node_credentials(&HeaderValue::from_str(text).unwrap());
        assert_eq!(read(&good).unwrap().1, [7; 64]);
        for bad in [
            "",
            "Munjigi-Node",
            "Bearer x",
            &good.replace("mi-0", "i-0"),
            &good.replace("Signature=", "Signature=AAAA"),
            &good.replace(", ", " "),
            &good.replace("Credential", "credential"),
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_signature_counts_only_if_it_covers_binding_and_hello() {
        let headers = |signed: &str| {
            let text = format!("AWS4-HMAC-SHA256 Credential=x, SignedHeaders={signed}, Signature=00");
            HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&text).unwrap())])
        };
        assert!(signs_link_headers(&headers("host;x-amz-date;x-munjigi-binding;x-munjigi-hello")));
        assert!(!signs_link_headers(&headers("host;x-amz-date;x-munjigi-hello")));
        assert!(!signs_link_headers(&headers("host;x-amz-date;x-munjigi-binding;x-munjigi-hello2")));
        assert!(!signs_link_headers(&HeaderMap::new()));
    }
}
