//! A WebSocket of AWS's data channel protocol, dialled: the plain upgrade that AWS's own plugin makes, over the same
//! proxies, time limits and checked TLS as a link.
//!
//! Knows neither tokens nor messages; who dials says on it who he is.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Sink as _, Stream as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
pub use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::answer::{Answered, Expected, accept_of};
use crate::dial::{DialOptions, Target, limited, tls_to};
use crate::error::{DialError, EndReason};
use crate::{MAX_HEAD_BYTES, tls};

/// Largest message accepted (T-93). A data channel's largest from AWS's agent has 142 000 bytes.
const MAX_RECEIVED_MESSAGE: usize = 256 * 1024;
/// What the WebSocket reads at once.
const READ_BUFFER: usize = 32 * 1024;
/// Bytes collected before they go to the socket without being asked: small messages share a packet.
const WRITE_BUFFER: usize = 16 * 1024;
/// What may wait in the WebSocket for the socket.
const MAX_WRITE_BUFFER: usize = 512 * 1024;
/// What the request calls this program.
const USER_AGENT: &str = concat!("munjigi/", env!("CARGO_PKG_VERSION"));

/// An open WebSocket. Its four `poll` functions are those of `Sink` and `Stream`, so that one task can read and write
/// in a single wait.
pub struct WebSocket {
    inner: WebSocketStream<Answered<TlsStream<TcpStream>>>,
    /// A message that came together with the answer to the upgrade.
    early: Option<Message>,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

/// Dials `options.server` and upgrades `path`, which is taken as it is, query included. Returns once the server has
/// agreed: a proxy in between may not take what comes early.
pub async fn dial(options: &DialOptions, path: &str) -> Result<WebSocket, DialError> {
    let target = Target::of(&options.server)?;
    let failed = |why: String| DialError::Tls { peer: target.name(), why };
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(DialError::BadRequest("its path does not begin with / or has characters that no path has".into()));
    }
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).map_err(|_| failed("the system gave no random bytes".to_owned()))?;
    let key = STANDARD.encode(nonce);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: {USER_AGENT}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n",
        target.host_header()
    );
    if request.len() > MAX_HEAD_BYTES {
        let why = format!("its head has {} bytes, more than {MAX_HEAD_BYTES}", request.len());
        return Err(DialError::BadRequest(why));
    }
    let mut io = tls_to(&target, options).await?;
    tls::bound_buffer(io.get_mut().1);
    let upgrade = async {
        io.write_all(request.as_bytes()).await?;
        io.flush().await?;
        let io = Answered::expecting(io, Expected { accept: accept_of(key.as_bytes()), tell: None });
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_RECEIVED_MESSAGE))
            .max_frame_size(Some(MAX_RECEIVED_MESSAGE));
        let inner = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
        let mut socket = WebSocket { inner, early: None };
        socket.answered().await?;
        Ok(socket)
    };
    limited("waiting for the answer of", &target.name(), options.timeouts.answer, upgrade)
        .await?
        .map_err(|error| reason(error).into())
}

/// Says why a WebSocket failed.
pub fn reason(error: WebSocketError) -> EndReason {
    match error {
        WebSocketError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<EndReason>()) {
            Some(reason) => reason.clone(),
            None => EndReason::Broken(error.to_string()),
        },
        WebSocketError::Protocol(
            tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        ) => EndReason::Broken("it ended without a goodbye".to_owned()),
        WebSocketError::ConnectionClosed | WebSocketError::AlreadyClosed => EndReason::ClosedByPeer,
        other => EndReason::Protocol(other.to_string()),
    }
}

impl WebSocket {
    /// Waits for the answer to the upgrade.
    async fn answered(&mut self) -> Result<(), WebSocketError> {
        std::future::poll_fn(|cx| match Pin::new(&mut self.inner).poll_next(cx) {
            Poll::Ready(Some(Ok(message))) => {
                self.early = Some(message);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(None) => Poll::Ready(Err(WebSocketError::ConnectionClosed)),
            Poll::Pending if self.inner.get_ref().is_expecting() => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
        })
        .await
    }

    /// Waits until a message may be handed over by [`Self::start_send`].
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Pin::new(&mut self.inner).poll_ready(cx)
    }

    /// Takes a message for sending, after [`Self::poll_ready`].
    pub fn start_send(&mut self, message: Message) -> Result<(), WebSocketError> {
        Pin::new(&mut self.inner).start_send(message)
    }

    /// Sends everything taken.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Waits for the next message; pings are answered by the way. `None` when the other side closed in good order.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WebSocketError>>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(Some(Ok(early)));
        }
        Pin::new(&mut self.inner).poll_next(cx)
    }

    /// Sends a message at once, for the first words on a channel.
    pub async fn send(&mut self, message: Message) -> Result<(), WebSocketError> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }
}
