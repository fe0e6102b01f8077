//! How a lane comes to be: the dialling end's request and its answer, and the server's side of both.
//!
//! The request is a link's own, hello, binding and signature included, with another path, another protocol and the
//! stream's token. From the moment of the request until the server's word on the lane itself the dialling end is
//! silent, and reads no byte beyond the record it needs: then no byte is left inside rustls on either side when its
//! keys are taken out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode};
use munjigi_core::wire::hello::Hello;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::server::TlsStream;

use crate::accept::{PendingUpgrade, Upgrade, UpgradeError};
use crate::dial::{DialOptions, SignError, SignedHeaders, Target, UpgradeToSign, handshake_error, limited, reach};
use crate::error::{DialError, Refusal};
use crate::lane::{LANE_HEADER, LANE_PATH, LANE_PROTOCOL, Lane, LaneToken};
use crate::moving::{Berth, LaneSide};
use crate::{MAX_HEAD_BYTES, MAX_HEADERS, tls};

/// Length of a TLS record's head.
const RECORD_HEAD: usize = 5;

/// Dials a lane for the stream of a token. It is ready once [`crate::MovingStream`] has it.
pub async fn dial_lane<F, Fut>(
    options: &DialOptions,
    hello: &Hello,
    token: &LaneToken,
    sign: F,
) -> Result<Lane, DialError>
where
    F: FnOnce(UpgradeToSign) -> Fut,
    Fut: Future<Output = Result<SignedHeaders, SignError>>,
{
    let hello = hello.to_header().map_err(|error| DialError::BadRequest(error.to_string()))?;
    let target = Target::of(&options.server)?;
    let failed = |why: String| DialError::Tls { peer: target.name(), why };
    let tcp = reach(&target, options).await?;
    tune(&tcp).map_err(|error| DialError::Unreachable { peer: target.name(), why: error.to_string() })?;
    let config = tls::lane_config(&options.roots).map_err(|error| failed(error.to_string()))?;
    let handshake = TlsConnector::from(config).connect(target.tls_name(), WholeRecords::new(tcp));
    let mut io = limited("the TLS handshake with", &target.name(), options.timeouts.tls, handshake)
        .await?
        .map_err(|error| handshake_error(&error, target.name()))?;
    let binding = tls::binding_of_client(io.get_ref().1).map_err(|error| failed(error.to_string()))?;
    let to_sign = UpgradeToSign {
        method: "GET",
        path: LANE_PATH,
        host: target.host_header(),
        binding,
        binding_header: URL_SAFE_NO_PAD.encode(binding),
        hello,
        lane: Some(URL_SAFE_NO_PAD.encode(token.as_bytes())),
    };
    let signed = limited("signing the request to", &target.name(), options.timeouts.sign, sign(to_sign.clone()))
        .await?
        .map_err(|error| DialError::Sign(Arc::from(error)))?;
    let request = to_sign.head(&format!("upgrade: {LANE_PROTOCOL}\r\n"), &signed)?;
    let ask = async {
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        answer(&mut io).await
    };
    limited("waiting for the answer of", &target.name(), options.timeouts.answer, ask)
        .await?
        .map_err(|error| failed(error.to_string()))?
        .map_err(DialError::Refused)?;
    let (io, session) = io.into_inner();
    let secrets = session.dangerous_extract_secrets().map_err(|error| failed(error.to_string()))?;
    Lane::new(io.into_inner(), secrets).map_err(|error| failed(error.to_string()))
}

/// Sets what the connection of a lane has: no Nagle, bounded silence. Unlike on a link the kernel may hold as much
/// unsent as it likes: nothing here waits behind anything else.
fn tune(socket: &TcpStream) -> io::Result<()> {
    crate::dial::tune(socket)?;
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(u32::MAX)
}

/// Reads the answer's head, and not a byte more.
async fn answer(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Result<(), Refusal>> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the answer {why}"));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(invalid("has a head of more than 16 KiB"));
        }
        // From rustls, which has the whole record: no system call for each byte.
        head.push(io.read_u8().await?);
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return Err(invalid("is not HTTP/1.1")),
    }
    let status = response.code.unwrap_or(0);
    if status != StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        let message = "the server gives no lane to this stream".to_owned();
        return Ok(Err(Refusal { status, code: String::new(), message }));
    }
    let upgrades = |header: &&httparse::Header<'_>| {
        header.name.eq_ignore_ascii_case("upgrade") && header.value == LANE_PROTOCOL.as_bytes()
    };
    match response.headers.iter().find(upgrades) {
        Some(_) => Ok(Ok(())),
        None => Err(invalid("upgrades to something else than a lane")),
    }
}

/// A connection that is never read beyond the end of the TLS record at which it is.
struct WholeRecords {
    io: TcpStream,
    head: [u8; RECORD_HEAD],
    head_filled: usize,
    body_left: usize,
}

impl WholeRecords {
    fn new(io: TcpStream) -> Self {
        Self { io, head: [0; RECORD_HEAD], head_filled: 0, body_left: 0 }
    }

    fn into_inner(self) -> TcpStream {
        self.io
    }

    fn follow(&mut self, bytes: &[u8]) {
        if self.body_left > 0 {
            self.body_left = self.body_left.saturating_sub(bytes.len());
            return;
        }
        for (space, byte) in self.head.iter_mut().skip(self.head_filled).zip(bytes) {
            *space = *byte;
        }
        self.head_filled += bytes.len();
        if self.head_filled >= RECORD_HEAD {
            let [.., high, low] = self.head;
            self.head_filled = 0;
            self.body_left = usize::from(u16::from_be_bytes([high, low]));
        }
    }
}

impl AsyncRead for WholeRecords {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let most = if this.body_left > 0 { this.body_left } else { RECORD_HEAD - this.head_filled };
        let mut space = [0; 2048];
        let most = most.min(buf.remaining()).min(space.len());
        let mut part = ReadBuf::new(space.get_mut(..most).unwrap_or_default());
        ready!(Pin::new(&mut this.io).poll_read(cx, &mut part))?;
        this.follow(part.filled());
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WholeRecords {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

/// A well-formed request for a lane, of a peer whose identity is still to be verified.
#[derive(Debug)]
pub struct PendingLane {
    /// Hello and binding, as of a link's request.
    pub upgrade: PendingUpgrade,
    /// The stream's token.
    pub token: LaneToken,
}

/// Checks method, headers, binding, hello and token of a request for a lane. The body is not looked at.
pub fn parse<B>(request: &Request<B>) -> Result<PendingLane, UpgradeError> {
    let upgrade = Upgrade::parse_lane(request, LANE_PROTOCOL)?;
    let name = HeaderName::from_static(LANE_HEADER);
    let token = crate::accept::one(request.headers(), name.clone(), TOKEN)?;
    let token = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| LaneToken::from_bytes(&bytes));
    let token = token.ok_or(UpgradeError::Header { name, expected: TOKEN })?;
    Ok(PendingLane { upgrade, token })
}

const TOKEN: &str = "16 bytes in base64url without padding";

/// Makes the 101; the body is empty.
pub fn switching() -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(LANE_PROTOCOL));
    response
}

/// Brings an upgraded connection to the stream that waits at `berth`. `leftover` is what was read behind the request's
/// head: nothing, or the peer keeps to no rule. `keep` lives as long as the lane.
pub async fn bring(
    mut io: TlsStream<TcpStream>,
    leftover: Bytes,
    berth: &Berth,
    keep: impl std::any::Any + Send + Sync,
) -> io::Result<()> {
    if !leftover.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "bytes came before the lane was there"));
    }
    io.flush().await?;
    let (tcp, session) = io.into_inner();
    tune(&tcp)?;
    let secrets = session.dangerous_extract_secrets().map_err(io::Error::other)?;
    let mut lane = Lane::new(tcp, secrets)?;
    lane.keep(keep);
    berth.bring(lane, LaneSide::Accepted).await
}
