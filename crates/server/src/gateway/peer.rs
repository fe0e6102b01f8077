//! The two ends of a live session as the hub holds them: the primary client and the node.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use munjigi_core::wire::{Frame, FrameError, FrameSet};
use munjigi_link::Stream;
use munjigi_link::framed::{FrameReader, FrameWriter, FramedError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::in_memory::{MemoryReader, MemoryWriter, direction};
use super::log::Chunk;
use crate::lock;

/// Any door's incoming half.
pub type BoxRead = Box<dyn AsyncRead + Send + Sync + Unpin>;
/// Any door's outgoing half.
pub type BoxWrite = Box<dyn AsyncWrite + Send + Sync + Unpin>;

/// A stream of frames in both directions. Every door brings one: the link as it is, others through an adapter.
pub struct FrameStream {
    /// Incoming frames.
    pub reader: PeerReader,
    /// Outgoing frames.
    pub writer: PeerWriter,
    /// The link's stream below both, if it is one; see [`FrameStream::into_link`].
    whole: Option<Whole>,
}

/// Where frames come from.
pub enum PeerReader {
    /// A stream of bytes.
    Bytes(FrameReader<BoxRead>),
    /// Another task of this server.
    Memory(MemoryReader),
}

impl PeerReader {
    /// Returns the next frame; `None` at an orderly end. Safe to drop and call again.
    pub async fn read(&mut self, allowed: FrameSet) -> Result<Option<Frame>, FramedError> {
        match self {
            Self::Bytes(reader) => reader.read(allowed).await,
            Self::Memory(reader) => reader.read(allowed).await,
        }
    }
}

/// Where frames go.
pub enum PeerWriter {
    /// A stream of bytes.
    Bytes(FrameWriter<BoxWrite>),
    /// Another task of this server.
    Memory(MemoryWriter),
}

impl PeerWriter {
    /// Takes a frame; [`Self::flush`] sends it. The caller bounds what it feeds by [`Self::pending`].
    pub fn feed(&mut self, frame: &Frame) -> Result<(), FrameError> {
        match self {
            Self::Bytes(writer) => writer.feed(frame),
            Self::Memory(writer) => {
                writer.feed(frame);
                Ok(())
            }
        }
    }

    /// Returns the bytes fed and not yet handed on.
    pub fn pending(&self) -> usize {
        match self {
            Self::Bytes(writer) => writer.pending(),
            Self::Memory(writer) => writer.pending(),
        }
    }

    /// Tells whether everything fed has been sent.
    pub fn is_flushed(&self) -> bool {
        match self {
            Self::Bytes(writer) => writer.is_flushed(),
            Self::Memory(writer) => writer.is_flushed(),
        }
    }

    /// Sends everything fed. Safe to drop and call again.
    pub async fn flush(&mut self) -> Result<(), FramedError> {
        match self {
            Self::Bytes(writer) => writer.flush().await,
            Self::Memory(writer) => writer.flush().await,
        }
    }

    /// Feeds one frame and sends it.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), FramedError> {
        self.feed(frame)?;
        self.flush().await
    }

    /// Sends what is left and ends the sending half.
    pub async fn close(&mut self) -> Result<(), FramedError> {
        match self {
            Self::Bytes(writer) => writer.close().await,
            Self::Memory(writer) => writer.close().await,
        }
    }
}

/// A link's stream whose halves are used from one task, or from two that do not wait for each other.
#[derive(Clone)]
struct Whole(Arc<Mutex<Stream>>);

impl AsyncRead for Whole {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_read(cx, buf)
    }
}

impl AsyncWrite for Whole {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *lock(&self.0)).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *lock(&self.0)).poll_shutdown(cx)
    }
}

impl FrameStream {
    /// Takes a byte stream for a stream of frames.
    pub fn new<S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static>(stream: S) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::of_bytes(Box::new(read), Box::new(write), None)
    }

    /// As [`FrameStream::new`] for a stream of a link, which can be taken back when no more frames travel on it.
    pub fn of_link(stream: Stream) -> Self {
        let whole = Whole(Arc::new(Mutex::new(stream)));
        Self::of_bytes(Box::new(whole.clone()), Box::new(whole.clone()), Some(whole))
    }

    fn of_bytes(read: BoxRead, write: BoxWrite, whole: Option<Whole>) -> Self {
        let (reader, writer) = (FrameReader::new(read), FrameWriter::new(write));
        Self { reader: PeerReader::Bytes(reader), writer: PeerWriter::Bytes(writer), whole }
    }

    /// Returns the link's stream, with the bytes that came behind the last frame that was read. What was fed is flushed
    /// before. `None`: it is no stream of a link.
    pub fn into_link(self) -> Option<(Stream, BytesMut)> {
        let Self { reader: PeerReader::Bytes(reader), writer, whole } = self else { return None };
        let (read, early) = reader.into_parts();
        drop((read, writer));
        let stream = Arc::into_inner(whole?.0)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some((stream, early))
    }

    /// Makes both ends of a stream in memory, for a door that adapts another protocol: its own end, and the hub's. Each
    /// direction holds about `capacity` bytes.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let ((down, from_hub), (up, from_door)) = (direction(capacity), direction(capacity));
        let end = |reader, writer| Self {
            reader: PeerReader::Memory(reader),
            writer: PeerWriter::Memory(writer),
            whole: None,
        };
        (end(from_hub, up), end(from_door, down))
    }

    /// Feeds a frame of ours. Ours are within the limits by construction; one that is not is left out and logged.
    pub fn feed(&mut self, frame: &Frame) {
        if let Err(error) = self.writer.feed(frame) {
            tracing::error!(%error, kind = ?frame.kind(), "a frame of ours is over the limits");
        }
    }
}

/// The primary client.
pub struct ClientEnd {
    /// Its stream.
    pub stream: FrameStream,
    /// Offset of the next output it gets.
    pub cursor: u64,
    /// Whether it was told `Accepted`; before that it gets no output.
    pub accepted: bool,
    /// Whether the session's end was fed to it.
    pub end_fed: bool,
    /// Output that is no longer in memory, read from the recording by a task of its own.
    pub backlog: Option<mpsc::Receiver<Result<Chunk, String>>>,
}

impl ClientEnd {
    /// Takes a client whose output begins at `cursor`.
    pub fn new(stream: FrameStream, cursor: u64) -> Self {
        Self { stream, cursor, accepted: false, end_fed: false, backlog: None }
    }

    /// Feeds output, which continues at the cursor.
    pub fn feed_output(&mut self, chunk: Chunk) {
        self.cursor = chunk.end();
        self.stream.feed(&Frame::Output { offset: chunk.offset, stream: chunk.stream, data: chunk.data });
    }
}

/// The node's side of a session.
pub enum NodeEnd {
    /// The start was sent; the node has not answered.
    Starting(FrameStream, Instant),
    /// The program runs.
    Running(FrameStream),
    /// The link is gone since then; the program may live on.
    Away(Instant),
    /// The program's end is known; only what was fed is still to be sent.
    Done(Option<FrameStream>),
}

impl NodeEnd {
    /// Returns the stream, if there is one.
    pub fn stream(&mut self) -> Option<&mut FrameStream> {
        match self {
            Self::Starting(stream, _) | Self::Running(stream) => Some(stream),
            Self::Done(stream) => stream.as_mut(),
            Self::Away(_) => None,
        }
    }

    /// Tells whether the program runs and the node is reachable.
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }

    /// Returns what the node may send now; `None` when nothing is read from it.
    pub fn allowed(&self) -> Option<FrameSet> {
        match self {
            Self::Starting(..) => Some(FrameSet::ANSWER),
            Self::Running(_) => Some(FrameSet::FROM_AGENT),
            Self::Away(_) | Self::Done(_) => None,
        }
    }
}

/// Bytes are missing before the ones that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap;

/// Cuts from `data`, which begins at `offset`, what lies before `next`. `None`: nothing new. `Err`: it begins behind
/// `next`, something in between is missing.
pub fn continue_at(next: u64, offset: u64, data: Bytes) -> Result<Option<Bytes>, Gap> {
    let Some(known) = next.checked_sub(offset) else { return Err(Gap) };
    match usize::try_from(known) {
        Ok(known) if known < data.len() => Ok(Some(data.slice(known..))),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_continues_is_taken() {
        let data = || Bytes::from_static(b"abcd");
        assert_eq!(continue_at(10, 10, data()), Ok(Some(data())));
        assert_eq!(continue_at(12, 10, data()), Ok(Some(Bytes::from_static(b"cd"))));
        assert_eq!(continue_at(14, 10, data()), Ok(None));
        assert_eq!(continue_at(u64::MAX, 0, data()), Ok(None));
        assert_eq!(continue_at(9, 10, data()), Err(Gap));
    }
}
