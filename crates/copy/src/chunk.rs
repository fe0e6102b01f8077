//! Bytes on their way between a thread that works on files and whatever carries them, in pieces that are used again.

use std::sync::{Arc, Mutex, PoisonError};

use munjigi_core::copy::{Decoder, HEADER_BYTES, Kinds, Message, Piece, data_header};
use tokio::sync::mpsc;

use crate::error::CopyFailure;

/// Most bytes of a chunk. Large enough that threads are seldom woken, small enough for a processor's cache.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that wait in a channel. With those in the hands of both ends a direction has at most 1 MiB.
pub const CHUNKS_WAITING: usize = 2;
/// A chunk with at least so many bytes goes on its way.
const ENOUGH: usize = 128 * 1024;
/// Buffers kept for use again.
const KEPT: usize = 4;

/// Some bytes of the stream. Its buffer is used again when it is dropped.
#[derive(Debug)]
pub struct Chunk {
    bytes: Vec<u8>,
    pool: Pool,
}

impl Chunk {
    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the buffer, to be filled.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let mut kept = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            kept.push(bytes);
        }
    }
}

/// Buffers of one direction.
#[derive(Debug, Clone, Default)]
pub struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    /// Returns an empty chunk with room for [`CHUNK_BYTES`].
    pub fn take(&self) -> Chunk {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Chunk { bytes: kept.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES)), pool: self.clone() }
    }
}

/// Makes the channel of one direction.
pub fn channel() -> (mpsc::Sender<Chunk>, mpsc::Receiver<Chunk>) {
    mpsc::channel(CHUNKS_WAITING)
}

/// The outgoing direction: messages and data, put together to large chunks.
#[derive(Debug)]
pub struct Out {
    channel: mpsc::Sender<Chunk>,
    pool: Pool,
    chunk: Chunk,
}

impl Out {
    /// Begins.
    pub fn new(channel: mpsc::Sender<Chunk>) -> Self {
        let pool = Pool::default();
        Self { channel, chunk: pool.take(), pool }
    }

    /// Appends a message. Waits while the channel is full.
    pub fn message(&mut self, message: &Message) -> Result<(), CopyFailure> {
        message.encode(&mut self.chunk.bytes);
        self.send_if(ENOUGH)
    }

    /// Appends a data message that `fill` writes: at most `most` bytes, and what fits the chunk. Returns what it
    /// returned; with 0 or an error nothing is appended.
    pub fn data<E>(
        &mut self,
        most: u64,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Result<usize, E>, CopyFailure> {
        let begin = self.chunk.bytes.len();
        let room = CHUNK_BYTES.saturating_sub(begin + HEADER_BYTES).max(1);
        let room = usize::try_from(most).unwrap_or(usize::MAX).min(room);
        self.chunk.bytes.resize(begin + HEADER_BYTES + room, 0);
        let filled = fill(self.chunk.bytes.get_mut(begin + HEADER_BYTES..).unwrap_or_default());
        let count = filled.as_ref().map_or(0, |count| (*count).min(room));
        let end = if count == 0 { begin } else { begin + HEADER_BYTES + count };
        self.chunk.bytes.truncate(end);
        if let Some(place) = self.chunk.bytes.get_mut(begin..begin + HEADER_BYTES) {
            place.copy_from_slice(&data_header(count));
        }
        self.send_if(ENOUGH)?;
        Ok(filled)
    }

    /// Sends what is there.
    pub fn flush(&mut self) -> Result<(), CopyFailure> {
        self.send_if(1)
    }

    fn send_if(&mut self, least: usize) -> Result<(), CopyFailure> {
        if self.chunk.bytes.len() < least {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, self.pool.take());
        // Waiting here is the back-pressure: whoever carries the chunks is slower than the disk.
        self.channel.blocking_send(chunk).map_err(|_| CopyFailure::Gone)
    }
}

/// The incoming direction.
#[derive(Debug)]
pub struct In {
    channel: mpsc::Receiver<Chunk>,
    chunk: Option<Chunk>,
    /// How much of the chunk was used.
    used: usize,
}

impl In {
    /// Begins.
    pub fn new(channel: mpsc::Receiver<Chunk>) -> Self {
        Self { channel, chunk: None, used: 0 }
    }

    /// Returns what has not been used yet, waiting for it; `None` at the end of the stream.
    pub fn rest(&mut self) -> Option<&[u8]> {
        while self.is_used_up() {
            self.chunk = Some(self.channel.blocking_recv()?);
            self.used = 0;
        }
        self.chunk.as_ref().and_then(|chunk| chunk.bytes.get(self.used..))
    }

    /// Notes that all but the last `left` bytes of [`Self::rest`] were used.
    pub fn use_all_but(&mut self, left: usize) {
        self.used = self.chunk.as_ref().map_or(0, |chunk| chunk.bytes.len().saturating_sub(left));
    }

    /// Tells whether further bytes are there without waiting.
    pub fn has_more(&self) -> bool {
        !self.is_used_up() || !self.channel.is_empty()
    }

    fn is_used_up(&self) -> bool {
        self.chunk.as_ref().is_none_or(|chunk| self.used >= chunk.bytes.len())
    }

    /// Reads one message, and nothing behind it.
    pub fn message(&mut self, allowed: Kinds) -> Result<Message, CopyFailure> {
        let mut decoder = Decoder::default();
        loop {
            let Some(mut input) = self.rest() else { return Err(CopyFailure::Gone) };
            let piece = decoder.next(&mut input, allowed)?;
            let left = input.len();
            let message = match piece {
                Some(Piece::Message(message)) => Some(message),
                _ => None,
            };
            self.use_all_but(left);
            if let Some(message) = message {
                return Ok(message);
            }
        }
    }
}
