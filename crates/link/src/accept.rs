//! The accepting side: checks an upgrade request, makes the 101, and runs the link on the upgraded connection.
//!
//! The server routes requests to [`LINK_PATH`](crate::LINK_PATH) here itself. Whether the caller may connect is
//! decided between [`Upgrade::parse`] and [`PendingUpgrade::response`], in the server's own room, by verifying the
//! request's signature and that it is bound to this TLS session.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use http::header::{SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use munjigi_core::wire::hello::{Hello, HelloError, ServerHello};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::answer::accept_of;
use crate::carrier::Carrier;
use crate::connection::{Connection, Limits};
use crate::{BINDING_HEADER, HELLO_HEADER, driver};

/// The checks of an upgrade request.
#[derive(Debug)]
pub struct Upgrade;

/// A well-formed upgrade request of a peer whose identity is still to be verified.
#[derive(Debug)]
pub struct PendingUpgrade {
    hello: Hello,
    version: u32,
    binding: [u8; 32],
    accept: String,
}

/// Why a request is not an upgrade to a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// Another method than GET.
    #[error("a WebSocket is opened with GET")]
    NotGet,
    /// No `Upgrade: websocket` with `Connection: upgrade`, or an older HTTP version.
    #[error("this path is opened by an HTTP/1.1 upgrade to WebSocket; a proxy in between may not pass upgrades")]
    NotAnUpgrade,
    /// Another WebSocket version than 13.
    #[error("only WebSocket version 13 is spoken here")]
    WebSocketVersion,
    /// A header is missing, doubled or malformed.
    #[error("the header {name} must be there once and hold {expected}")]
    Header {
        /// The header's name.
        name: HeaderName,
        /// What it should hold.
        expected: &'static str,
    },
    /// The hello was not accepted.
    #[error(transparent)]
    Hello(#[from] HelloError),
}

impl UpgradeError {
    /// Returns the HTTP status to answer with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAnUpgrade | Self::WebSocketVersion | Self::Hello(HelloError::NoCommonVersion { .. }) => {
                StatusCode::UPGRADE_REQUIRED
            }
            Self::Header { .. } | Self::Hello(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the `__type` to answer with.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Hello(HelloError::NoCommonVersion { .. }) => "LinkVersionNotSupported",
            _ => "InvalidLinkRequest",
        }
    }
}

impl Upgrade {
    /// Checks method, WebSocket headers, binding and hello, and agrees on the version. The body is not looked at.
    pub fn parse<B>(request: &Request<B>) -> Result<PendingUpgrade, UpgradeError> {
        Self::bound(request, websocket(request)?)
    }

    /// As [`Upgrade::parse`] for a lane, which upgrades to `protocol` instead of WebSocket.
    pub(crate) fn parse_lane<B>(request: &Request<B>, protocol: &str) -> Result<PendingUpgrade, UpgradeError> {
        upgrades_to(request, protocol)?;
        Self::bound(request, String::new())
    }

    fn bound<B>(request: &Request<B>, accept: String) -> Result<PendingUpgrade, UpgradeError> {
        let headers = request.headers();
        const BINDING: &str = "32 bytes in base64url without padding";
        let name = HeaderName::from_static(BINDING_HEADER);
        let binding = one(headers, name.clone(), BINDING)?;
        let binding = URL_SAFE_NO_PAD
            .decode(binding)
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(UpgradeError::Header { name, expected: BINDING })?;
        let hello = one(headers, HeaderName::from_static(HELLO_HEADER), "a hello in base64url without padding")?;
        let hello = Hello::from_header(hello.as_bytes())?;
        let version = hello.negotiate()?;
        Ok(PendingUpgrade { hello, version, binding, accept })
    }
}

impl PendingUpgrade {
    /// Returns what the peer says of itself; not to be believed before the signature is verified.
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Returns the agreed protocol version, for the answer's hello.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Says whether the request was made for this TLS session, whose value is `tls::binding_of`. The signature must
    /// cover the header, else this says nothing.
    pub fn is_bound_to(&self, binding: &[u8; 32]) -> bool {
        verify_slices_are_equal(&self.binding, binding).is_ok()
    }

    /// Makes the 101; the body is empty.
    pub fn response(&self, hello: &ServerHello) -> Result<Response<()>, HelloError> {
        let mut response = switching(&self.accept);
        let hello = HeaderValue::try_from(hello.to_header()?).map_err(|_| HelloError::Malformed)?;
        response.headers_mut().insert(HeaderName::from_static(HELLO_HEADER), hello);
        Ok(response)
    }
}

/// Checks that a request asks for a WebSocket (RFC 6455, 4.2.1) and returns the right `Sec-WebSocket-Accept`. No
/// extension and no subprotocol is agreed on, whatever was offered.
pub fn websocket<B>(request: &Request<B>) -> Result<String, UpgradeError> {
    let headers = request.headers();
    upgrades_to(request, "websocket")?;
    if one(headers, SEC_WEBSOCKET_VERSION, "13")?.as_bytes() != b"13" {
        return Err(UpgradeError::WebSocketVersion);
    }
    const KEY: &str = "16 bytes in base64";
    let key = one(headers, SEC_WEBSOCKET_KEY, KEY)?.as_bytes();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        return Err(UpgradeError::Header { name: SEC_WEBSOCKET_KEY, expected: KEY });
    }
    Ok(accept_of(key))
}

/// Checks that a request is a GET that upgrades to `protocol`.
fn upgrades_to<B>(request: &Request<B>, protocol: &str) -> Result<(), UpgradeError> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(UpgradeError::NotGet);
    }
    let upgrades = request.version() == http::Version::HTTP_11
        && lists(headers, &CONNECTION, "upgrade")
        && lists(headers, &UPGRADE, protocol);
    if upgrades { Ok(()) } else { Err(UpgradeError::NotAnUpgrade) }
}

/// Makes the 101 with what [`websocket`] returned.
pub fn switching(accept: &str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 of a digest is a header value; an empty one would only make the peer hang up.
    let accept = HeaderValue::from_str(accept).unwrap_or(HeaderValue::from_static(""));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

/// Runs the link on an upgraded connection, in a task of its own on the current runtime. `leftover` is what was read
/// behind the request's head: the peer sends its first stream bytes without waiting for the 101.
pub fn run<S>(io: S, leftover: Bytes, limits: Limits) -> Connection
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, ends, shared) = Connection::new(&limits);
    let carrier = {
        let (limits, shared) = (limits.clone(), shared.clone());
        async move { Carrier::accepted(io, leftover, &limits, shared).await }
    };
    driver::spawn(carrier, yamux::Mode::Server, limits, ends, shared);
    connection
}

/// Returns the header if it is there exactly once.
pub(crate) fn one<'a>(
    headers: &'a HeaderMap,
    name: HeaderName,
    expected: &'static str,
) -> Result<&'a HeaderValue, UpgradeError> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        _ => Err(UpgradeError::Header { name, expected }),
    }
}

/// Says whether a comma-separated header lists a word.
fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}
