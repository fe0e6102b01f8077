//! Takes the HTTP answer to the upgrade off the front of the stream, after the first WebSocket bytes were already sent.
//!
//! The dialling side does not wait for the 101: its first stream bytes travel with the request. So the answer is read
//! here, by the reader that the WebSocket is built on, when it arrives; anything but a proper 101 ends the link with
//! the server's own words.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf as _, Bytes};
use munjigi_core::wire::hello::ServerHello;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::error::{EndReason, Refusal};
use crate::{HELLO_HEADER, MAX_HEAD_BYTES, MAX_HEADERS};

/// Largest body of a refusal in bytes.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// Most characters of a refusal's body that are shown when it is not our JSON.
const SHOWN_BODY_CHARS: usize = 200;
/// How much is read from the connection at once while the answer is awaited.
const READ_BYTES: usize = 2048;

/// Returns the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455 section 4.2.2).
pub(crate) fn accept_of(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(context.finish().as_ref())
}

/// A connection whose reading side still has, or had, an answer in front.
#[derive(Debug)]
pub(crate) struct Answered<S> {
    io: S,
    state: State,
    /// The peer stopped reading before its last words were read; see [`Answered::write_result`].
    writes_vanish: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing in front (any more); these bytes came with the head.
    Passed(Bytes),
    /// Bytes of the head so far.
    Head(Vec<u8>, Expected),
    /// A refusal's body so far.
    Body(RefusalBody),
    /// The answer was bad, this is why.
    Failed(EndReason),
}

/// What a good answer contains, and who wants to know.
#[derive(Debug)]
pub(crate) struct Expected {
    /// The right `Sec-WebSocket-Accept`.
    pub(crate) accept: String,
    /// Receives the server's hello when the 101 has come; dropped if it never comes. `None` for a WebSocket that is no
    /// link, whose answer has no hello.
    pub(crate) tell: Option<oneshot::Sender<ServerHello>>,
}

#[derive(Debug)]
struct RefusalBody {
    status: u16,
    framing: Framing,
    bytes: Vec<u8>,
}

/// How the body's end is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilEnd,
}

impl<S> Answered<S> {
    /// The dialling side: an answer is to come.
    pub(crate) fn expecting(io: S, expected: Expected) -> Self {
        Self { io, state: State::Head(Vec::new(), expected), writes_vanish: false }
    }

    /// The accepting side: nothing is in front except bytes that were read too early.
    pub(crate) fn passed(io: S, leftover: Bytes) -> Self {
        // Empty bytes can keep the buffer they were cut from.
        let leftover = if leftover.is_empty() { Bytes::new() } else { leftover };
        Self { io, state: State::Passed(leftover), writes_vanish: false }
    }

    /// Whether the answer is still to come.
    pub(crate) fn is_expecting(&self) -> bool {
        !matches!(self.state, State::Passed(_))
    }

    /// A peer that says goodbye, or refuses, may close before it has read everything, which makes our writes fail.
    /// Its last words still wait in our receive buffer and are worth more than "broken pipe". So from then on bytes
    /// that cannot be sent any more are let go, and reading finds out why: a socket that cannot be written to also
    /// ends for reading.
    fn write_result(&mut self, result: io::Result<usize>, length: usize) -> usize {
        result.unwrap_or_else(|_told_by_reading| {
            self.writes_vanish = true;
            length
        })
    }
}

impl State {
    /// Takes in bytes, or the end of the connection when there are none.
    fn advance(self, read: &[u8]) -> Self {
        match self {
            Self::Head(mut head, expected) => {
                if read.is_empty() {
                    return Self::Failed(EndReason::Broken("it ended before the server's answer".to_owned()));
                }
                head.extend_from_slice(read);
                parse_head(head, expected)
            }
            Self::Body(mut body) => {
                body.bytes.extend_from_slice(read);
                if read.is_empty() || body.is_complete() {
                    Self::Failed(EndReason::Refused(body.into_refusal()))
                } else {
                    Self::Body(body)
                }
            }
            other => other,
        }
    }
}

fn parse_head(head: Vec<u8>, expected: Expected) -> State {
    let protocol = |why: &str| State::Failed(EndReason::Protocol(format!("the answer to the upgrade {why}")));
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(&head) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD_BYTES => length,
        Ok(httparse::Status::Partial) if head.len() < MAX_HEAD_BYTES => return State::Head(head, expected),
        Ok(_) => return protocol("has a head of more than 16 KiB"),
        Err(_) => return protocol("is not HTTP/1.1; is this the server's port?"),
    };
    let one = |name: &str| {
        let mut found = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        found.next().filter(|_| found.next().is_none()).map(|header| header.value)
    };
    let rest = head.get(length..).unwrap_or_default();
    let status = response.code.unwrap_or(0);
    if status != 101 {
        let chunked = one("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        let length =
            one("content-length").and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| text.parse().ok());
        let framing = match (chunked, length) {
            (true, _) => Framing::Chunked,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilEnd,
        };
        let body = RefusalBody { status, framing, bytes: rest.to_vec() };
        return match body.is_complete() {
            true => State::Failed(EndReason::Refused(body.into_refusal())),
            false => State::Body(body),
        };
    }
    if !one("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
        return protocol("upgrades to something else than WebSocket");
    }
    if one("sec-websocket-accept") != Some(expected.accept.as_bytes()) {
        return protocol("has a wrong Sec-WebSocket-Accept; something in between may answer for the server");
    }
    if one("sec-websocket-extensions").is_some() || one("sec-websocket-protocol").is_some() {
        return protocol("names extensions that were not asked for");
    }
    let leftover = Bytes::copy_from_slice(rest);
    let Some(tell) = expected.tell else { return State::Passed(leftover) };
    let Some(hello) = one(HELLO_HEADER) else { return protocol("lacks the server's hello") };
    match ServerHello::from_header(hello) {
        Ok(hello) => {
            // The caller may not care about the hello; the link stands all the same.
            let _uninterested = tell.send(hello);
            State::Passed(leftover)
        }
        Err(error) => protocol(&format!("is unusable: {error}")),
    }
}

impl RefusalBody {
    fn is_complete(&self) -> bool {
        self.bytes.len() >= MAX_REFUSAL_BYTES
            || match self.framing {
                Framing::Length(length) => self.bytes.len() >= length,
                Framing::Chunked => dechunk(&self.bytes).1,
                Framing::UntilEnd => false,
            }
    }

    fn into_refusal(self) -> Refusal {
        #[derive(serde::Deserialize)]
        struct Told {
            #[serde(rename = "__type", default)]
            code: String,
            #[serde(default, alias = "Message")]
            message: String,
        }
        let mut body = match self.framing {
            Framing::Chunked => dechunk(&self.bytes).0,
            Framing::Length(length) => self.bytes.get(..length).unwrap_or(&self.bytes).to_vec(),
            Framing::UntilEnd => self.bytes,
        };
        body.truncate(MAX_REFUSAL_BYTES);
        let told = serde_json::from_slice(&body).unwrap_or_else(|_| Told {
            code: String::new(),
            message: String::from_utf8_lossy(&body).chars().take(SHOWN_BODY_CHARS).collect(),
        });
        Refusal { status: self.status, code: printable(&told.code), message: printable(told.message.trim()) }
    }
}

/// Keeps escape sequences of an unauthenticated answer away from the terminal (T-57).
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns what the chunks so far contain, and whether the last one has come (RFC 9112 section 7.1).
fn dechunk(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((start, length))) = httparse::parse_chunk_size(bytes) {
        let chunk = bytes.get(start..).unwrap_or_default();
        if length == 0 {
            return (body, true);
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        body.extend_from_slice(chunk.get(..length).unwrap_or(chunk));
        let Some(rest) = chunk.get(length.saturating_add(2)..) else { break };
        bytes = rest;
    }
    (body, false)
}

impl<S: AsyncRead + Unpin> AsyncRead for Answered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Passed(leftover) if leftover.is_empty() => return Pin::new(&mut this.io).poll_read(cx, buf),
                State::Passed(leftover) => {
                    let take = leftover.len().min(buf.remaining());
                    buf.put_slice(&leftover.split_to(take));
                    if !leftover.has_remaining() {
                        *leftover = Bytes::new();
                    }
                    return Poll::Ready(Ok(()));
                }
                State::Failed(reason) => return Poll::Ready(Err(io::Error::other(reason.clone()))),
                State::Head(..) | State::Body(_) => {
                    let mut space = [0; READ_BYTES];
                    let mut read = ReadBuf::new(&mut space);
                    match ready!(Pin::new(&mut this.io).poll_read(cx, &mut read)) {
                        Ok(()) => {}
                        // A reset after a refusal's beginning still leaves a refusal.
                        Err(_) if matches!(this.state, State::Body(_)) => read.clear(),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    let state = std::mem::replace(&mut this.state, State::Passed(Bytes::new()));
                    this.state = state.advance(read.filled());
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.writes_vanish {
            return Poll::Ready(Ok(buf.len()));
        }
        let result = ready!(Pin::new(&mut this.io).poll_write(cx, buf));
        Poll::Ready(Ok(this.write_result(result, buf.len())))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.writes_vanish {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut this.io).poll_flush(cx));
        this.write_result(result.map(|()| 0), 0);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
