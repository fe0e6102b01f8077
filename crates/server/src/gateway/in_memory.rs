//! A stream of frames between two tasks of this server: what a door that adapts another protocol has between itself and the
//! hub. Frames are handed over as they are; nothing is written as bytes, copied and read again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use munjigi_core::wire::{Frame, FrameError, FrameSet};
use munjigi_link::framed::FramedError;
use tokio::task::coop::poll_proceed;

use crate::lock;

/// What a frame counts beside its data, bytes: so that many small ones have a bound too.
const FRAME: usize = 64;

/// One direction.
#[derive(Default)]
struct Way {
    frames: VecDeque<Frame>,
    /// Weight of all of them.
    waiting: usize,
    /// The writing side has closed it.
    closed: bool,
    /// One of its ends is gone; a reader still gets what was handed over before.
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Way {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Returns what a frame counts against the bound. Only data has a length of weight: everything else is small, or sent once.
fn weight(frame: &Frame) -> usize {
    match frame {
        Frame::Input { data, .. } | Frame::Output { data, .. } => FRAME + data.len(),
        _ => FRAME,
    }
}

/// The reading end of a direction.
pub struct MemoryReader(Arc<Mutex<Way>>);

/// The writing end of a direction.
pub struct MemoryWriter {
    way: Arc<Mutex<Way>>,
    /// Bytes that may wait for the reader.
    capacity: usize,
    /// Fed, and not handed over yet.
    fed: VecDeque<Frame>,
    pending: usize,
}

/// Makes both ends of one direction.
pub(super) fn direction(capacity: usize) -> (MemoryWriter, MemoryReader) {
    let way = Arc::<Mutex<Way>>::default();
    (MemoryWriter { way: way.clone(), capacity, fed: VecDeque::new(), pending: 0 }, MemoryReader(way))
}

impl MemoryReader {
    /// Returns the next frame; `None` at an orderly end. Safe to drop and call again.
    pub async fn read(&self, allowed: FrameSet) -> Result<Option<Frame>, FramedError> {
        let Some(frame) = poll_fn(|cx| self.poll(cx)).await? else { return Ok(None) };
        match allowed.contains(frame.kind()) {
            true => Ok(Some(frame)),
            false => Err(FrameError::Unexpected(frame.kind()).into()),
        }
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, FramedError>> {
        // As whatever else a task reads from: one that always finds something lets others go first now and then.
        let turn = ready!(poll_proceed(cx));
        let mut way = lock(&self.0);
        match way.frames.pop_front() {
            Some(frame) => {
                way.waiting = way.waiting.saturating_sub(weight(&frame));
                if way.frames.is_empty() {
                    // An idle session keeps nothing.
                    way.frames = VecDeque::new();
                }
                if let Some(writer) = way.writer.take() {
                    writer.wake();
                }
                turn.made_progress();
                Poll::Ready(Ok(Some(frame)))
            }
            None if way.closed || way.gone => Poll::Ready(Ok(None)),
            None => {
                way.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl MemoryWriter {
    /// Takes a frame; [`Self::flush`] hands it over. The caller bounds what it feeds by [`Self::pending`].
    pub fn feed(&mut self, frame: &Frame) {
        self.pending += weight(frame);
        self.fed.push_back(frame.clone());
    }

    /// Returns the bytes fed and not yet handed over.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// Tells whether everything fed was handed over.
    pub fn is_flushed(&self) -> bool {
        self.fed.is_empty()
    }

    /// Hands over everything fed. Safe to drop and call again.
    pub async fn flush(&mut self) -> Result<(), FramedError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<Result<(), FramedError>> {
        let mut way = lock(&self.way);
        while let Some(frame) = self.fed.pop_front() {
            if way.gone {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe).into()));
            }
            // One that is larger than the bound goes alone.
            if way.waiting > 0 && way.waiting + weight(&frame) > self.capacity {
                self.fed.push_front(frame);
                way.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let weight = weight(&frame);
            way.waiting += weight;
            self.pending = self.pending.saturating_sub(weight);
            way.frames.push_back(frame);
            if let Some(reader) = way.reader.take() {
                reader.wake();
            }
        }
        self.fed = VecDeque::new();
        Poll::Ready(Ok(()))
    }

    /// Hands over what is left and ends the direction.
    pub async fn close(&mut self) -> Result<(), FramedError> {
        self.flush().await?;
        let mut way = lock(&self.way);
        way.closed = true;
        way.wake();
        Ok(())
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        let mut way = lock(&self.0);
        way.gone = true;
        way.frames = VecDeque::new();
        way.wake();
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        let mut way = lock(&self.way);
        way.gone = true;
        way.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use munjigi_core::session::OutputStream;

    use super::*;

    const ALL: FrameSet = FrameSet::FROM_AGENT;

    fn output(offset: u64, length: usize) -> Frame {
        Frame::Output { offset, stream: OutputStream::Stdout, data: Bytes::from(vec![b'x'; length]) }
    }

    #[tokio::test]
    async fn frames_come_in_order_though_the_futures_are_dropped() {
        let (mut writer, reader) = direction(2000);
        let sent: Vec<Frame> = (0..500).map(|n| output(n * 300, 300)).collect();
        let frames = sent.clone();
        let writing = tokio::spawn(async move {
            for frame in &frames {
                writer.feed(frame);
                while !writer.is_flushed() {
                    let _ = tokio::time::timeout(Duration::from_micros(50), writer.flush()).await;
                }
                assert_eq!(writer.pending(), 0);
            }
            writer.close().await.unwrap();
        });
        let mut received = Vec::new();
        loop {
            match tokio::time::timeout(Duration::from_micros(50), reader.read(ALL)).await {
                Ok(Ok(Some(frame))) => received.push(frame),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => {}
            }
            let way = lock(&reader.0);
            assert!(way.waiting <= 2000 && way.waiting == way.frames.iter().map(weight).sum::<usize>());
        }
        writing.await.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn a_writer_waits_for_a_reader_that_does_not_read() {
        let (mut writer, reader) = direction(1000);
        for _ in 0..10 {
            writer.feed(&output(0, 400));
        }
        assert!(tokio::time::timeout(Duration::from_millis(20), writer.flush()).await.is_err());
        assert_eq!(writer.pending(), 8 * (400 + FRAME));
        writer.feed(&output(0, 30_000));
        for _ in 0..11 {
            tokio::select! {
                frame = reader.read(ALL) => assert!(frame.unwrap().is_some()),
                flushed = writer.flush(), if !writer.is_flushed() => flushed.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn ends_are_told() {
        let (mut writer, reader) = direction(1000);
        writer.feed(&output(0, 5));
        writer.flush().await.unwrap();
        drop(writer);
        assert!(reader.read(ALL).await.unwrap().is_some(), "what was handed over is there");
        assert!(reader.read(ALL).await.unwrap().is_none());
        let (mut writer, reader) = direction(1000);
        drop(reader);
        writer.feed(&output(0, 5));
        assert!(writer.flush().await.is_err());
        let (mut writer, reader) = direction(1000);
        writer.feed(&Frame::Detach);
        writer.flush().await.unwrap();
        let refused = reader.read(ALL).await;
        assert!(matches!(refused, Err(FramedError::Frame(FrameError::Unexpected(_)))));
    }
}
