//! WebSockets that carry messages: AWS's data and control channels, and the tunnel of Instance Connect.
//!
//! It checks the upgrade, reassembles fragments within a limit, answers and sends pings, notices silence, and lets
//! one task read and write at once. It knows neither who may connect nor what a message means; who may connect is
//! decided by the route, before [`upgrade`] or by the first message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink as _, Stream as _};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use munjigi_link::{accept, tls};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message as WsMessage, Utf8Bytes};

use crate::http::{Body, problem};

/// How long the connection may take to change hands after the 101.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
/// How long a goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// What is read at once, bytes: one TLS record. Allocated for the life of the connection.
const READ_BUFFER: usize = 16 * 1024;
/// Bytes of messages that are collected before they are handed to TLS.
const WRITE_BUFFER: usize = 16 * 1024;
/// What frame heads and pongs add to the messages in the buffer, bytes.
const WRITE_SLACK: usize = 16 * 1024;
/// Pings that may stay unanswered before the peer counts as gone.
const MISSED_PINGS: u8 = 2;
/// Longest reason in a close frame, bytes (RFC 6455, 5.5.1).
const MAX_REASON: usize = 123;

/// What a WebSocket may do.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Largest message in either direction, bytes, after reassembly (T-93).
    pub max_message: usize,
    /// Silence after which a ping is sent.
    pub ping_interval: Duration,
    /// How long each of two pings may stay unanswered. Whatever the peer sends is an answer.
    pub ping_answer: Duration,
}

impl Default for Terms {
    /// For the data channel and its like: a dead peer is noticed within 45 seconds.
    fn default() -> Self {
        Self { max_message: 256 * 1024, ping_interval: Duration::from_secs(25), ping_answer: Duration::from_secs(10) }
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

/// Why there are no more messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// The peer said goodbye.
    #[error("the peer closed the connection")]
    Closed,
    /// The connection ended without a goodbye.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The peer answers no pings.
    #[error("the peer has been silent for {} s", .0.as_secs())]
    Silent(Duration),
    /// A message is over [`Terms::max_message`].
    #[error("a message has more than {0} bytes")]
    TooLarge(usize),
    /// The peer does not keep to RFC 6455.
    #[error("the peer does not speak WebSocket as it should: {0}")]
    Protocol(String),
}

/// What [`WebSocket::event`] saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message has arrived.
    Received(Message),
    /// There is room: [`WebSocket::put`] may be called, as long as [`WebSocket::has_room`].
    Writable,
}

/// Checks an upgrade request. `Ok`: the 101, and what [`Upgrading::complete`] makes of the connection once the 101 is
/// returned to the caller. `Err`: the refusal to return.
pub fn upgrade(
    request: &mut Request<Incoming>,
    terms: Terms,
) -> Result<(Response<Body>, Upgrading), Box<Response<Body>>> {
    match accept::websocket(request) {
        Ok(accept) => {
            let response = accept::switching(&accept).map(|()| Body::default());
            Ok((response, Upgrading { on: hyper::upgrade::on(request), terms }))
        }
        Err(error) => Err(Box::new(problem(error.status(), "InvalidWebSocketRequest", &error.to_string()))),
    }
}

/// A connection that is about to become a WebSocket.
pub struct Upgrading {
    on: OnUpgrade,
    terms: Terms,
}

impl Upgrading {
    /// Waits until the 101 is sent. For a task of its own.
    pub async fn complete(self) -> Result<WebSocket, WebSocketError> {
        let broken = |what: &dyn std::fmt::Display| WebSocketError::Broken(what.to_string());
        let upgraded = tokio::time::timeout(UPGRADE_LIMIT, self.on)
            .await
            .map_err(|_| broken(&"it was not taken over in time"))?
            .map_err(|error| broken(&error))?;
        let parts = upgraded
            .downcast::<TokioIo<TlsStream<TcpStream>>>()
            .map_err(|_| broken(&"it is not the TLS connection it was"))?;
        let mut stream = parts.io.into_inner();
        tls::bound_buffer(stream.get_mut().1);
        Ok(WebSocket::new(stream, parts.read_buf, self.terms).await)
    }
}

/// The server's end of a WebSocket. One task owns it; every method can be left at its await and called again.
pub struct WebSocket<S = TlsStream<TcpStream>> {
    ws: Box<WebSocketStream<S>>,
    terms: Terms,
    /// Bytes put since everything was last flushed.
    collected: usize,
    unflushed: bool,
    /// Whether the last event was room, so that a busy writer and a busy reader take turns.
    wrote_last: bool,
    heard: Instant,
    unanswered: u8,
    watch: Pin<Box<Sleep>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Takes over a connection; `leftover` was read behind the request's head.
    pub async fn new(io: S, leftover: Bytes, terms: Terms) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + terms.max_message + WRITE_SLACK)
            .max_message_size(Some(terms.max_message))
            .max_frame_size(Some(terms.max_message));
        let now = Instant::now();
        Self {
            ws: Box::new(WebSocketStream::from_partially_read(io, leftover.into(), Role::Server, Some(config)).await),
            terms,
            collected: 0,
            unflushed: false,
            wrote_last: false,
            heard: now,
            unanswered: 0,
            watch: Box::pin(tokio::time::sleep_until(now + terms.ping_interval)),
        }
    }

    /// Waits for the next message or, if `wants_to_send`, for room. What was put is sent meanwhile.
    pub async fn event(&mut self, wants_to_send: bool) -> Result<Event, WebSocketError> {
        std::future::poll_fn(|cx| self.poll_event(cx, wants_to_send)).await
    }

    /// Waits for room without reading, which holds back a peer that sends too much. Silence is not noticed meanwhile.
    pub async fn writable(&mut self) -> Result<(), WebSocketError> {
        self.flush().await
    }

    /// Waits for the next message.
    pub async fn receive(&mut self) -> Result<Message, WebSocketError> {
        loop {
            if let Event::Received(message) = self.event(false).await? {
                return Ok(message);
            }
        }
    }

    /// Tells whether another message may be put without waiting.
    pub fn has_room(&self) -> bool {
        self.collected < WRITE_BUFFER
    }

    /// Takes a message for sending, after [`Event::Writable`]; [`Self::event`], [`Self::flush`] and [`Self::close`]
    /// send it.
    pub fn put(&mut self, message: Message) -> Result<(), WebSocketError> {
        let message = match message {
            Message::Text(text) => WsMessage::Text(Utf8Bytes::from(text)),
            Message::Binary(bytes) => WsMessage::Binary(bytes),
        };
        self.collected += message.len();
        self.unflushed = true;
        Pin::new(&mut self.ws).start_send(message).map_err(|error| self.told(error))
    }

    /// Waits until everything put is handed to the system. Nothing is read meanwhile: the caller limits the time.
    pub async fn flush(&mut self) -> Result<(), WebSocketError> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends what was put and a goodbye, then waits for the peer to hang up; for at most [`CLOSE_LIMIT`]. Closing at
    /// once would throw away what the peer has not read yet.
    pub async fn close(mut self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(MAX_REASON);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let reason = Utf8Bytes::from(reason.get(..end).unwrap_or_default());
        let goodbye = async {
            self.flush().await?;
            let sent = Pin::new(&mut self.ws).start_send(WsMessage::Close(Some(CloseFrame { code, reason })));
            sent.map_err(|error| self.told(error))?;
            self.flush().await?;
            loop {
                self.receive().await?;
            }
        };
        // A peer that is gone, or does not hang up, loses the last words only.
        let _: Result<Result<(), WebSocketError>, _> = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
    }

    fn poll_event(&mut self, cx: &mut Context<'_>, wants_to_send: bool) -> Poll<Result<Event, WebSocketError>> {
        loop {
            self.poll_watch(cx)?;
            let sent = if self.unflushed { self.poll_flush(cx)? } else { Poll::Ready(()) };
            let writable = wants_to_send && sent.is_ready();
            if writable && !self.wrote_last {
                self.wrote_last = true;
                return Poll::Ready(Ok(Event::Writable));
            }
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) => {
                    self.heard();
                    if let Some(message) = self.received(message)? {
                        self.wrote_last = false;
                        return Poll::Ready(Ok(Event::Received(message)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(self.told(error))),
                Poll::Ready(None) => return Poll::Ready(Err(WebSocketError::Closed)),
                Poll::Pending if writable => return Poll::Ready(Ok(Event::Writable)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WebSocketError>> {
        ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(|error| self.told(error))?;
        self.unflushed = false;
        self.collected = 0;
        Poll::Ready(Ok(()))
    }

    fn received(&mut self, message: WsMessage) -> Result<Option<Message>, WebSocketError> {
        match message {
            WsMessage::Text(text) => Ok(Some(Message::Text(text.as_str().to_owned()))),
            WsMessage::Binary(bytes) => Ok(Some(Message::Binary(bytes))),
            WsMessage::Ping(_) => {
                // The answer is in the buffer already.
                self.unflushed = true;
                Ok(None)
            }
            WsMessage::Pong(_) | WsMessage::Frame(_) => Ok(None),
            WsMessage::Close(_) => Err(WebSocketError::Closed),
        }
    }

    fn heard(&mut self) {
        self.heard = Instant::now();
        if std::mem::take(&mut self.unanswered) > 0 {
            self.watch.as_mut().reset(self.heard + self.terms.ping_interval);
        }
    }

    /// Sends a ping when there was silence, and gives up when pings stay unanswered.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> Result<(), WebSocketError> {
        while self.watch.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let quiet = now.saturating_duration_since(self.heard);
            if self.unanswered == 0 && quiet < self.terms.ping_interval {
                // Set rarely, not with each message: it fires, sees that there was traffic, and is set again.
                self.watch.as_mut().reset(self.heard + self.terms.ping_interval);
            } else if self.unanswered >= MISSED_PINGS {
                return Err(WebSocketError::Silent(quiet));
            } else {
                self.unanswered += 1;
                self.watch.as_mut().reset(now + self.terms.ping_answer);
                // A socket that takes nothing would not carry the ping either; it counts as unanswered.
                if !self.unflushed {
                    let ping = WsMessage::Ping(Bytes::from_static(b"munjigi"));
                    Pin::new(&mut self.ws).start_send(ping).map_err(|error| self.told(error))?;
                    self.unflushed = true;
                }
            }
        }
        Ok(())
    }

    fn told(&self, error: WsError) -> WebSocketError {
        match error {
            WsError::ConnectionClosed | WsError::AlreadyClosed => WebSocketError::Closed,
            WsError::Io(error) => WebSocketError::Broken(error.to_string()),
            WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                WebSocketError::Broken("it ended without a goodbye".to_owned())
            }
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => WebSocketError::TooLarge(self.terms.max_message),
            other => WebSocketError::Protocol(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
