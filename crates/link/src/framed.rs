//! Frames over a stream of the link: a reader and a writer that can be left and taken up again at any await.
//!
//! Both keep their bytes between calls, so a `select!` that drops one of their futures loses nothing. Buffers grow
//! with the traffic and shrink when it ends: an idle session costs a few hundred bytes.

use std::io;

use bytes::{Buf, BytesMut};
use munjigi_core::session::OutputStream;
use munjigi_core::wire::{Frame, FrameError, FrameSet};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Smallest and first room for reading, in bytes.
const READ_LEAST: usize = 1024;
/// Most room for reading, in bytes: one whole frame and a bit.
const READ_MOST: usize = 68 * 1024;
/// Capacity above which the writer's buffer is given back once it is empty, in bytes.
const WRITE_KEEP: usize = 4096;

/// Why no further frame came or went.
#[derive(Debug, thiserror::Error)]
pub enum FramedError {
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    /// The peer sent what may not be sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended inside a frame.
    #[error("the stream ended inside a frame")]
    Torn,
}

/// Reads frames.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    room: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Begins reading.
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: BytesMut::new(), room: READ_LEAST }
    }

    /// Reads the next frame; `None` at an orderly end. Safe to drop and call again.
    pub async fn read(&mut self, allowed: FrameSet) -> Result<Option<Frame>, FramedError> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer, allowed)? {
                return Ok(Some(frame));
            }
            self.buffer.reserve(self.room);
            let count = self.stream.read_buf(&mut self.buffer).await?;
            if count == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(FramedError::Torn) };
            }
            self.room = if count >= self.room {
                (self.room * 2).min(READ_MOST)
            } else if count < self.room / 4 {
                (self.room / 2).max(READ_LEAST)
            } else {
                self.room
            };
        }
    }
}

impl<R> FrameReader<R> {
    /// Returns the stream, to write an answer on it; whoever reads from it tears frames.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Returns the stream and the bytes that were read from it and are no part of a frame yet.
    pub fn into_parts(self) -> (R, BytesMut) {
        (self.stream, self.buffer)
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    buffer: BytesMut,
    flushed: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Begins writing.
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: BytesMut::new(), flushed: true }
    }

    /// Puts a frame into the buffer; [`Self::flush`] sends it. The caller bounds what it feeds by [`Self::pending`].
    pub fn feed(&mut self, frame: &Frame) -> Result<(), FrameError> {
        frame.encode(&mut self.buffer)?;
        self.flushed = false;
        Ok(())
    }

    /// As [`Self::feed`] for an `Output` frame, straight from where the bytes lie.
    pub fn feed_output(&mut self, offset: u64, stream: OutputStream, data: &[u8]) -> Result<(), FrameError> {
        Frame::encode_output(offset, stream, data, &mut self.buffer)?;
        self.flushed = false;
        Ok(())
    }

    /// Returns the bytes fed and not yet handed to the stream.
    pub fn pending(&self) -> usize {
        self.buffer.len()
    }

    /// Tells whether everything fed has been sent.
    pub fn is_flushed(&self) -> bool {
        self.flushed
    }

    /// Sends everything fed. Safe to drop and call again.
    pub async fn flush(&mut self) -> Result<(), FramedError> {
        while self.buffer.has_remaining() {
            // Waiting here is the back-pressure: the peer's window is full.
            if self.stream.write_buf(&mut self.buffer).await? == 0 {
                return Err(FramedError::Io(io::ErrorKind::WriteZero.into()));
            }
        }
        self.stream.flush().await?;
        self.flushed = true;
        if self.buffer.capacity() > WRITE_KEEP {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    /// Feeds one frame and sends it.
    pub async fn send(&mut self, frame: &Frame) -> Result<(), FramedError> {
        self.feed(frame)?;
        self.flush().await
    }

    /// Sends what is left and closes the stream's sending half.
    pub async fn close(&mut self) -> Result<(), FramedError> {
        self.flush().await?;
        self.stream.shutdown().await?;
        Ok(())
    }
}

impl<W> FrameWriter<W> {
    /// Returns the stream. What was fed and not flushed is lost.
    pub fn into_inner(self) -> W {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ALL: FrameSet = FrameSet::FROM_AGENT;

    fn output(offset: u64, length: usize) -> Frame {
        Frame::Output { offset, stream: OutputStream::Stdout, data: vec![b'x'; length].into() }
    }

    #[tokio::test]
    async fn frames_cross_a_pipe_narrower_than_they_are_though_the_futures_are_dropped() {
        let (near, far) = tokio::io::duplex(100);
        let sent: Vec<Frame> = (0..50).map(|n| output(n * 3000, 3000)).collect();
        let frames = sent.clone();
        let writer = tokio::spawn(async move {
            let mut writer = FrameWriter::new(near);
            for frame in &frames {
                writer.feed(frame).unwrap();
                while !writer.is_flushed() {
                    // Dropped after a moment, taken up again: nothing may be lost or doubled.
                    let _ = tokio::time::timeout(Duration::from_micros(50), writer.flush()).await;
                }
            }
            writer.close().await.unwrap();
        });
        let mut reader = FrameReader::new(far);
        let mut received = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_micros(50), reader.read(ALL)).await {
                Ok(Ok(Some(frame))) => received.push(frame),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {}
            }
        }
        writer.await.unwrap();
        assert_eq!(received, sent);
    }

    #[tokio::test]
    async fn an_end_inside_a_frame_is_an_error() {
        let (mut near, far) = tokio::io::duplex(100);
        near.write_all(&[18, 0, 0, 20, 1]).await.unwrap();
        drop(near);
        assert!(matches!(FrameReader::new(far).read(ALL).await, Err(FramedError::Torn)));
    }
}
