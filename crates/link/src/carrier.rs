//! The WebSocket as a stream of bytes: what the multiplexer reads from and writes to.
//!
//! Everything that waits on the socket lives here, in the one task that polls it: collecting small writes into one
//! message, noticing silence, measuring the round trip. It knows just enough of the multiplexer's frames (12-byte
//! heads) to keep a frame in one message and to tell a stream's good end from a bad one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures_util::{Sink as _, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use munjigi_core::wire::hello::ServerHello;

use crate::answer::{Answered, Expected};
use crate::connection::{Limits, Shared};
use crate::error::EndReason;

/// Largest message this side sends, bytes of payload: with the WebSocket's 8 bytes it fills one TLS record.
const MAX_SENT_MESSAGE: usize = 16 * 1024 - 8;
/// Largest payload of the multiplexer's data frames, so that a frame with its head fits one message.
pub(crate) const SPLIT_SEND_SIZE: usize = MAX_SENT_MESSAGE - HEAD_BYTES;
/// Largest message accepted (T-93).
const MAX_RECEIVED_MESSAGE: usize = 64 * 1024;
/// What the WebSocket reads at once; allocated for the life of the link, so it is small (G17).
const READ_BUFFER: usize = 4 * 1024;
/// What may wait in the WebSocket for the socket: one message, and pongs.
const MAX_WRITE_BUFFER: usize = 64 * 1024;

/// The multiplexer's frame head (yamux specification): version, type, flags, stream, length.
const HEAD_BYTES: usize = 12;
const TYPE_DATA: u8 = 0;
const TYPE_WINDOW: u8 = 1;
const TYPE_PING: u8 = 2;
const TYPE_GO_AWAY: u8 = 3;
const FLAG_SYN: u16 = 1;
const FLAG_ACK: u16 = 2;
const FLAG_FIN: u16 = 4;
const FLAG_RST: u16 = 8;

/// Pings that may stay unanswered before the link ends.
const MISSED_PINGS: u8 = 2;

/// See the head of this file.
pub(crate) struct Carrier<S> {
    ws: WebSocketStream<Answered<S>>,
    shared: Arc<Shared>,
    /// The message being collected.
    outgoing: Vec<u8>,
    /// Whether something was handed to the WebSocket that is not known to be flushed.
    unflushed: bool,
    /// Bytes of the current outgoing frame's body that are still to come.
    outgoing_body: usize,
    /// The rest of the message being read.
    incoming: Bytes,
    incoming_frame: IncomingFrame,
    watch: Watch,
    /// The writing direction of the connection is shut down.
    shut: bool,
}

/// Where the reader stands in the other side's frames.
#[derive(Debug, Default)]
struct IncomingFrame {
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    body_left: usize,
}

/// Notices silence.
struct Watch {
    sleep: Pin<Box<Sleep>>,
    interval: Duration,
    answer: Duration,
    /// The answer to the upgrade is awaited, and this is the limit.
    awaiting: Option<Duration>,
    /// Where the server's hello arrives from [`Answered`], and whom to pass it to.
    hello: Option<(oneshot::Receiver<ServerHello>, oneshot::Sender<ServerHello>)>,
    heard: Instant,
    unanswered: u8,
    ping_number: u64,
    ping_sent: Option<Instant>,
}

/// What the dialling side still waits for.
pub(crate) struct Awaited {
    /// The right `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// How long the answer may take.
    pub(crate) limit: Duration,
    /// Receives the server's hello.
    pub(crate) tell: oneshot::Sender<ServerHello>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    /// The dialling side, right after the request was written.
    pub(crate) async fn dialled(io: S, awaited: Awaited, limits: &Limits, shared: Arc<Shared>) -> Self {
        let (tell, hello) = oneshot::channel();
        let io = Answered::expecting(io, Expected { accept: awaited.accept, tell: Some(tell) });
        let mut watch = Watch::new(limits);
        watch.sleep.as_mut().reset(Instant::now() + awaited.limit);
        watch.awaiting = Some(awaited.limit);
        watch.hello = Some((hello, awaited.tell));
        Self::new(io, Role::Client, watch, shared).await
    }

    /// The accepting side, right after the 101 was written; `leftover` was read behind the request.
    pub(crate) async fn accepted(io: S, leftover: Bytes, limits: &Limits, shared: Arc<Shared>) -> Self {
        Self::new(Answered::passed(io, leftover), Role::Server, Watch::new(limits), shared).await
    }

    async fn new(io: Answered<S>, role: Role, watch: Watch, shared: Arc<Shared>) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(MAX_RECEIVED_MESSAGE))
            .max_frame_size(Some(MAX_RECEIVED_MESSAGE));
        Self {
            ws: WebSocketStream::from_raw_socket(io, role, Some(config)).await,
            shared,
            outgoing: Vec::new(),
            unflushed: false,
            outgoing_body: 0,
            incoming: Bytes::new(),
            incoming_frame: IncomingFrame::default(),
            watch,
            shut: false,
        }
    }

    /// Records the reason before the multiplexer, and through it any stream, learns that the link is over.
    fn fail(&self, reason: EndReason) -> io::Error {
        self.shared.set_reason(reason.clone());
        io::Error::other(reason)
    }

    fn fail_ws(&self, error: WsError) -> io::Error {
        self.fail(match error {
            WsError::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<EndReason>()) {
                Some(reason) => reason.clone(),
                None => EndReason::Broken(error.to_string()),
            },
            WsError::Protocol(tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                EndReason::Broken("it ended without a goodbye".to_owned())
            }
            WsError::ConnectionClosed | WsError::AlreadyClosed => EndReason::ClosedByPeer,
            other => EndReason::Protocol(other.to_string()),
        })
    }

    /// Hands the collected message to the WebSocket.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = match ready!(Pin::new(&mut self.ws).poll_ready(cx)) {
            // Taking the buffer also releases its memory; an idle link keeps none.
            Ok(()) => {
                Pin::new(&mut self.ws).start_send(Message::Binary(Bytes::from(std::mem::take(&mut self.outgoing))))
            }
            Err(error) => Err(error),
        };
        self.unflushed = true;
        Poll::Ready(sent.map_err(|error| self.fail_ws(error)))
    }

    /// Sends everything that was collected.
    fn poll_send_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.outgoing.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.ws).poll_flush(cx)).map_err(|error| self.fail_ws(error))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes the beginning of a frame, whole, so that frame and message agree.
    fn poll_write_head(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(head) = buf.first_chunk::<HEAD_BYTES>() else {
            return Poll::Ready(Err(self.fail(EndReason::Internal)));
        };
        let head = Head::of(head);
        // The multiplexer measures its round trip once, to let windows grow; ours never grow. Not sending that ping
        // keeps the answer to it away too, and with it the only case in which this side would stop reading because
        // it cannot write: two such sides would wait for each other for good.
        if head.kind == TYPE_PING && head.flags & FLAG_ACK == 0 {
            return Poll::Ready(Ok(HEAD_BYTES));
        }
        let body = if head.kind == TYPE_DATA { head.length } else { 0 };
        if !self.outgoing.is_empty() && self.outgoing.len() + HEAD_BYTES + body > MAX_SENT_MESSAGE {
            ready!(self.poll_send(cx))?;
        }
        let start = self.outgoing.len();
        self.outgoing.extend_from_slice(buf.get(..HEAD_BYTES).unwrap_or_default());
        // Where the multiplexer would call a dropped stream an orderly end.
        if head.flags & (FLAG_FIN | FLAG_RST) != 0
            && self.shared.take_abandoned(head.stream)
            && let Some(flags) = self.outgoing.get_mut(start + 2..start + 4)
        {
            flags.copy_from_slice(&((head.flags & !FLAG_FIN) | FLAG_RST).to_be_bytes());
        }
        self.outgoing_body = body;
        Poll::Ready(Ok(HEAD_BYTES))
    }

    fn poll_write_body(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.outgoing.len() >= MAX_SENT_MESSAGE {
            ready!(self.poll_send(cx))?;
        }
        let take = buf.len().min(self.outgoing_body).min(MAX_SENT_MESSAGE - self.outgoing.len());
        self.outgoing.extend_from_slice(buf.get(..take).unwrap_or_default());
        self.outgoing_body -= take;
        Poll::Ready(Ok(take))
    }

    /// Sends pings and gives up when it is time. Never waits.
    fn poll_watch(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.watch.sleep.as_mut().poll(cx).is_ready() {
            if let Some(limit) = self.watch.awaiting {
                return Err(self.fail(EndReason::NoAnswer(limit)));
            }
            let now = Instant::now();
            let quiet = now.saturating_duration_since(self.watch.heard);
            if self.watch.unanswered == 0 && quiet < self.watch.interval {
                let due = self.watch.heard + self.watch.interval;
                self.watch.sleep.as_mut().reset(due);
            } else if self.watch.unanswered >= MISSED_PINGS {
                return Err(self.fail(EndReason::PeerSilent(quiet)));
            } else {
                self.watch.unanswered += 1;
                self.watch.sleep.as_mut().reset(now + self.watch.answer);
                self.ping(cx, now)?;
            }
        }
        Ok(())
    }

    fn ping(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        // A socket that takes nothing would not carry the ping either; it counts as unanswered.
        if let Poll::Ready(ready) = Pin::new(&mut self.ws).poll_ready(cx) {
            self.watch.ping_number = self.watch.ping_number.wrapping_add(1);
            self.watch.ping_sent = Some(now);
            let payload = Bytes::copy_from_slice(&self.watch.ping_number.to_be_bytes());
            ready
                .and_then(|()| Pin::new(&mut self.ws).start_send(Message::Ping(payload)))
                .map_err(|error| self.fail_ws(error))?;
            self.unflushed = true;
        }
        Ok(())
    }

    /// Anything heard proves the other side alive; the first thing heard proves that the answer has come.
    fn heard(&mut self) {
        self.watch.heard = Instant::now();
        self.watch.unanswered = 0;
        if self.watch.awaiting.is_some() && !self.ws.get_ref().is_expecting() {
            self.established();
        }
    }

    fn established(&mut self) {
        self.watch.awaiting = None;
        self.watch.heard = Instant::now();
        if let Some((mut hello, tell)) = self.watch.hello.take()
            && let Ok(hello) = hello.try_recv()
        {
            self.watch.interval = self.watch.interval.min(Duration::from_secs(u64::from(hello.ping_interval_secs)));
            // The caller may have lost interest; the link stands all the same.
            let _uninterested = tell.send(hello);
        }
        let due = self.watch.heard + self.watch.interval;
        self.watch.sleep.as_mut().reset(due);
    }

    /// Takes in the next message.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Incoming>> {
        let message = Pin::new(&mut self.ws).poll_next(cx);
        if self.watch.awaiting.is_some() && !self.ws.get_ref().is_expecting() {
            self.established();
        }
        let message = match ready!(message) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Err(self.fail_ws(error))),
            None => {
                self.shared.set_reason(EndReason::ClosedByPeer);
                return Poll::Ready(Ok(Incoming::End));
            }
        };
        self.heard();
        Poll::Ready(match message {
            Message::Binary(bytes) => {
                self.incoming = bytes;
                Ok(Incoming::More)
            }
            // The WebSocket answers by itself, with its next write or read.
            Message::Ping(_) => {
                self.unflushed = true;
                Ok(Incoming::More)
            }
            Message::Pong(number) => {
                if number[..] == self.watch.ping_number.to_be_bytes()
                    && let Some(sent) = self.watch.ping_sent.take()
                {
                    self.shared.set_round_trip(sent.elapsed());
                }
                Ok(Incoming::More)
            }
            Message::Close(_) => {
                self.shared.set_reason(EndReason::ClosedByPeer);
                // The WebSocket's own goodbye, if it can still be sent.
                let _best_effort = Pin::new(&mut self.ws).poll_flush(cx);
                Ok(Incoming::End)
            }
            Message::Text(_) | Message::Frame(_) => {
                Err(self.fail(EndReason::Protocol("a text message, where only bytes belong".to_owned())))
            }
        })
    }
}

enum Incoming {
    More,
    End,
}

impl Watch {
    fn new(limits: &Limits) -> Self {
        let now = Instant::now();
        Self {
            sleep: Box::pin(tokio::time::sleep_until(now + limits.ping_interval)),
            interval: limits.ping_interval,
            answer: limits.ping_answer,
            awaiting: None,
            hello: None,
            heard: now,
            unanswered: 0,
            ping_number: 0,
            ping_sent: None,
        }
    }
}

/// The parts of a frame's head that matter here.
struct Head {
    kind: u8,
    flags: u16,
    stream: u32,
    length: usize,
}

impl Head {
    fn of(bytes: &[u8; HEAD_BYTES]) -> Self {
        let [_version, kind, f0, f1, s0, s1, s2, s3, l0, l1, l2, l3] = *bytes;
        Self {
            kind,
            flags: u16::from_be_bytes([f0, f1]),
            stream: u32::from_be_bytes([s0, s1, s2, s3]),
            length: usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX),
        }
    }
}

impl IncomingFrame {
    /// Follows the other side's frames and tells streams how their reading direction ended.
    fn follow(&mut self, mut bytes: &[u8], shared: &Shared) {
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skip = self.body_left.min(bytes.len());
                self.body_left -= skip;
                bytes = bytes.get(skip..).unwrap_or_default();
                continue;
            }
            for (space, byte) in self.head.iter_mut().skip(self.head_filled).zip(bytes) {
                *space = *byte;
            }
            let take = bytes.len().min(HEAD_BYTES - self.head_filled);
            bytes = bytes.get(take..).unwrap_or_default();
            self.head_filled += take;
            if self.head_filled == HEAD_BYTES {
                self.head_filled = 0;
                self.note(&Head::of(&self.head), shared);
            }
        }
    }

    fn note(&mut self, head: &Head, shared: &Shared) {
        use std::sync::atomic::Ordering;

        if head.kind == TYPE_DATA {
            self.body_left = head.length;
        }
        if head.kind == TYPE_GO_AWAY {
            // Before the multiplexer ends the streams.
            shared.set_reason(match head.length {
                0 => EndReason::ClosedByPeer,
                code => EndReason::Protocol(format!("it sent goodbye with error code {code}")),
            });
        }
        let ends = head.flags & (FLAG_FIN | FLAG_RST) != 0 && matches!(head.kind, TYPE_DATA | TYPE_WINDOW);
        if ends && head.flags & FLAG_SYN != 0 {
            shared.set_born_finished(head.stream);
        } else if ends && let Some(signs) = shared.signs(head.stream) {
            if head.flags & FLAG_RST != 0 {
                signs.reset.store(true, Ordering::Release);
            } else if !signs.reset.load(Ordering::Acquire) {
                signs.finished.store(true, Ordering::Release);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Carrier<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.incoming.is_empty() {
            this.poll_watch(cx)?;
            // Before waiting for more, what was collected goes out: nothing lingers, nothing needs a timer.
            if let Poll::Ready(sent) = this.poll_send_all(cx) {
                sent?;
            }
            match ready!(this.poll_message(cx))? {
                Incoming::More => {}
                Incoming::End => return Poll::Ready(Ok(())),
            }
        }
        let take = this.incoming.len().min(buf.remaining());
        let part = this.incoming.split_to(take);
        if !this.incoming.has_remaining() {
            // Lets the WebSocket reuse its buffer.
            this.incoming = Bytes::new();
        }
        this.incoming_frame.follow(&part, &this.shared);
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Carrier<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written =
            if this.outgoing_body == 0 { this.poll_write_head(cx, buf) } else { this.poll_write_body(cx, buf) };
        this.shared.set_blocked(written.is_pending());
        if written.is_pending() {
            // Silence must be noticed also while nothing can be written.
            this.poll_watch(cx)?;
        }
        written
    }

    /// Does nothing: the multiplexer flushes after every frame, but frames are collected until every stream had its
    /// turn, and go out when the multiplexer next reads, which it does before it waits.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send_all(cx))?;
        ready!(Pin::new(&mut this.ws).poll_close(cx)).map_err(|error| this.fail_ws(error))?;
        if !this.shut {
            ready!(Pin::new(this.ws.get_mut()).poll_shutdown(cx))?;
            this.shut = true;
        }
        // Closing a socket with unread bytes in it would throw away what it has not yet sent. The driver bounds this.
        let mut sink = [0; 1024];
        loop {
            let mut read = ReadBuf::new(&mut sink);
            match ready!(Pin::new(this.ws.get_mut()).poll_read(cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}
