//! A lane: a TLS connection of its own that carries one stream's bytes, and nothing else.
//!
//! No multiplexer, no window and no frames of ours: records of TLS carry the bytes, TLS's own `close_notify` ends a
//! direction, TCP's window is the window. A connection that ends without it is an error, never an end.

use std::any::Any;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use rustls::ExtractedSecrets;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use zeroize::ZeroizeOnDrop;

use crate::pool::Buffer;
use crate::record::{MAX_CONTENT, MAX_RECORD, Opened, Opener, RecordError, Sealer, WORN_RECORDS, first};

/// The path on which lanes are dialled.
pub const LANE_PATH: &str = "/lane/v1";
/// What the request upgrades to.
pub const LANE_PROTOCOL: &str = "munjigi-lane";
/// Request header with the base64url of the [`LaneToken`].
pub const LANE_HEADER: &str = "x-munjigi-lane";
/// The one byte that each end sends first: the server's says that it waits at the stream, the dialling end's that it
/// has heard so. Only then may anything move.
const READY: u8 = b'R';

/// Names one stream to which one lane may be dialled, once. Whoever presents it must also prove to be the same
/// principal or node as the one it was given to.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
pub struct LaneToken([u8; Self::BYTES]);

impl LaneToken {
    /// Its length in bytes.
    pub const BYTES: usize = 16;

    /// Makes a new one; `None` if the system gives no random bytes.
    pub fn random() -> Option<Self> {
        let mut token = Self([0; Self::BYTES]);
        rand::fill(&mut token.0).ok().map(|()| token)
    }

    /// Takes the bytes that came from the other side; `None` if they are no token.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// Returns the bytes, for whom the token is made for.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns what the server keeps of it: looking that up tells nothing about the token by its time.
    pub fn digest(&self) -> [u8; 32] {
        let mut key = [0; 32];
        for (space, byte) in key.iter_mut().zip(digest(&SHA256, &self.0).as_ref()) {
            *space = *byte;
        }
        key
    }

    /// Returns the token of the lane that replaces this one's when its keys are worn.
    pub fn next(&self) -> Self {
        let mut context = aws_lc_rs::digest::Context::new(&SHA256);
        context.update(b"munjigi-next-lane");
        context.update(&self.0);
        let mut next = Self([0; Self::BYTES]);
        for (space, byte) in next.0.iter_mut().zip(context.finish().as_ref()) {
            *space = *byte;
        }
        next
    }
}

impl fmt::Debug for LaneToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LaneToken(..)")
    }
}

/// See the head of this file. `shutdown` ends the writing direction; dropping ends both at once, which the other side
/// takes for a broken connection unless both had ended.
pub struct Lane<S = TcpStream> {
    io: S,
    sealer: Sealer,
    opener: Opener,
    /// Records as they came.
    raw: Buffer,
    /// Content of a record that did not fit where it was wanted.
    content: Buffer,
    /// Records that wait for the socket.
    out: Buffer,
    read_ended: bool,
    /// The end of the writing direction is in `out` or sent.
    write_ended: bool,
    /// What lives as long as the lane.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl<S> fmt::Debug for Lane<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("read", &self.opener.records()).field("written", &self.sealer.records()).finish()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lane<S> {
    /// Goes on where rustls stopped. `io` must not have given rustls anything that it has not handed out.
    pub(crate) fn new(io: S, secrets: ExtractedSecrets) -> io::Result<Self> {
        Ok(Self {
            io,
            sealer: Sealer::new(secrets.tx).map_err(broken)?,
            opener: Opener::new(secrets.rx).map_err(broken)?,
            raw: Buffer::default(),
            content: Buffer::default(),
            out: Buffer::default(),
            read_ended: false,
            write_ended: false,
            _keep: None,
        })
    }

    /// Keeps `keep` for as long as the lane lives: a place among the allowed ones.
    pub fn keep(&mut self, keep: impl Any + Send + Sync) {
        self._keep = Some(Box::new(keep));
    }

    /// Sends this end's readiness.
    pub(crate) async fn say_ready(&mut self) -> io::Result<()> {
        self.write_all(&[READY]).await?;
        self.flush().await
    }

    /// Waits for the other end's.
    pub(crate) async fn hear_ready(&mut self) -> io::Result<()> {
        match self.read_u8().await? {
            READY => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a lane did not begin as lanes do")),
        }
    }

    /// Tells whether the lane is to be replaced, because its keys have protected much.
    pub(crate) fn is_worn(&self) -> bool {
        self.sealer.records().max(self.opener.records()) >= WORN_RECORDS
    }

    /// Opens what is there, into `buf` as far as it fits. Returns whether anything was read, or the end.
    fn open(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let before = buf.filled().len();
        while !self.read_ended {
            let Some(record) = first(self.raw.filled()).map_err(broken)? else { break };
            let (space, length) = (record.space(), record.len());
            let fits = buf.remaining() >= space;
            if !fits && buf.filled().len() > before {
                break;
            }
            let opened = match fits {
                true => self.opener.open(record, buf.initialize_unfilled_to(space)),
                false => self.opener.open(record, self.content.space()),
            };
            self.raw.consume(length);
            match opened.map_err(broken)? {
                Opened::End => self.read_ended = true,
                Opened::Content(count) if fits => buf.advance(count),
                Opened::Content(count) => {
                    self.content.fill(count);
                    self.take_content(buf);
                }
            }
            if !fits && buf.filled().len() > before {
                break;
            }
        }
        Ok(self.read_ended || buf.filled().len() > before)
    }

    fn take_content(&mut self, buf: &mut ReadBuf<'_>) {
        let take = self.content.filled().len().min(buf.remaining());
        buf.put_slice(self.content.filled().get(..take).unwrap_or_default());
        self.content.consume(take);
        self.content.release();
    }

    /// Sends the records that wait.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, self.out.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.out.consume(count),
            }
        }
        self.out.release();
        Poll::Ready(Ok(()))
    }
}

impl Lane {
    /// Has the socket watched by the runtime in which this is called, instead of the one that it came from.
    pub(crate) fn settle(self) -> io::Result<Self> {
        let io = TcpStream::from_std(self.io.into_std()?)?;
        Ok(Self { io, ..self })
    }
}

/// Turns what is wrong with a record into an error of the stream.
fn broken(error: RecordError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Lane<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.content.is_empty() {
            this.take_content(buf);
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.open(buf)? {
                return Poll::Ready(Ok(()));
            }
            if this.raw.room() < MAX_RECORD {
                this.raw.pack();
            }
            let mut space = ReadBuf::new(this.raw.space());
            let read = Pin::new(&mut this.io).poll_read(cx, &mut space);
            let count = space.filled().len();
            this.raw.fill(count);
            match read {
                Poll::Ready(Ok(())) if count > 0 => {}
                Poll::Ready(Ok(())) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    this.raw.release();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lane<S> {
    /// Encrypts as much as there is room for. What is encrypted goes out when it is much, or with the next flush.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if this.out.room() < MAX_RECORD {
            ready!(this.poll_send(cx))?;
        }
        let mut taken = 0;
        while this.out.room() >= MAX_RECORD {
            let rest = buf.get(taken..).unwrap_or_default();
            let (take, length) = this.sealer.content(rest, this.out.space()).map_err(broken)?;
            if take == 0 {
                break;
            }
            this.out.fill(length);
            taken += take;
        }
        if taken == buf.len() && this.out.room() >= MAX_RECORD && taken < MAX_CONTENT {
            return Poll::Ready(Ok(taken));
        }
        // Much is there. Whether the socket takes it now or later, these bytes were taken.
        if let Poll::Ready(Err(error)) = this.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.write_ended {
            if this.out.room() < MAX_RECORD {
                ready!(this.poll_send(cx))?;
            }
            if let Some(length) = this.sealer.end(this.out.space()).map_err(broken)? {
                this.out.fill(length);
                this.write_ended = true;
            }
        }
        this.poll_send(cx)
    }
}
