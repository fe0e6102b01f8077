//! One stream of a link: bytes both ways in order, each direction with its own flow control and its own end.
//!
//! Unlike the multiplexer's own stream it never takes a broken link or a dropped stream for an orderly end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _};

use crate::connection::{Signs, Slot};
use crate::error::LinkError;

/// A stream. `shutdown` ends the writing direction only; dropping ends both, and if the writing direction was not shut
/// down before, the other side sees a reset.
///
/// Up to 256 KiB wait unread in each direction (the peer's window), then the writer waits. Errors carry a
/// [`LinkError`] (see [`LinkError::of`]).
#[derive(Debug)]
pub struct Stream {
    // Dropped before `slot`: the multiplexer lets go of the stream before its place is given away.
    raw: Compat<yamux::Stream>,
    signs: Arc<Signs>,
    slot: Slot,
    shut: bool,
}

impl Stream {
    pub(crate) fn new(raw: yamux::Stream, mut slot: Slot) -> Self {
        let signs = slot.enter(number_of(&raw));
        Self { raw: raw.compat(), signs, slot, shut: false }
    }

    /// Why the stream is of no use any more. `None` only while the connection's task is still finding out why the link
    /// ends: the multiplexer wakes streams before it says so. [`Shared::finish`](crate::connection::Shared) follows.
    fn over(&self) -> Option<LinkError> {
        if self.signs.reset.load(Ordering::Acquire) {
            return Some(LinkError::StreamReset);
        }
        self.slot.link_ended().map(LinkError::Ended)
    }

    /// Tells why the link ended, if it did; else the task that asks hears of it, as whoever reads or writes the stream
    /// does.
    pub(crate) fn ended(&self, cx: &Context<'_>, reads: bool) -> Option<LinkError> {
        // First the waker, then the look: the end may come in between.
        let waker = if reads { &self.signs.reader } else { &self.signs.writer };
        waker.register(cx.waker());
        self.slot.link_ended().map(LinkError::Ended)
    }

    /// Turns what the multiplexer said of a write into what the caller hears.
    fn poll_written<T>(&self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Ok(value)) = written {
            return Poll::Ready(Ok(value));
        }
        // First the waker, then the look: the end may come in between.
        self.signs.writer.register(cx.waker());
        match self.over() {
            Some(error) => Poll::Ready(Err(error.into())),
            None => Poll::Pending,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.shut {
            // Before the multiplexer learns of it, as fields are dropped after this.
            self.slot.abandon();
        }
    }
}

/// The multiplexer shows its stream numbers only as text.
fn number_of(raw: &yamux::Stream) -> u32 {
    raw.id().to_string().parse().unwrap_or(0)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.raw).poll_read(cx, buf) {
            Poll::Ready(Ok(())) if buf.filled().len() > before => Poll::Ready(Ok(())),
            // The multiplexer reports every end in the same way; here the good one is told from the others.
            ended => {
                this.signs.reader.register(cx.waker());
                if ended.is_pending() && this.slot.link_ended().is_none() {
                    return Poll::Pending;
                }
                match this.over() {
                    _ if this.signs.finished.load(Ordering::Acquire) => Poll::Ready(Ok(())),
                    Some(error) => Poll::Ready(Err(error.into())),
                    None => Poll::Pending,
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.shut {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = Pin::new(&mut this.raw).poll_write(cx, buf);
        this.poll_written(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.raw).poll_flush(cx);
        this.poll_written(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shut {
            return Poll::Ready(Ok(()));
        }
        let closed = Pin::new(&mut this.raw).poll_shutdown(cx);
        let closed = this.poll_written(cx, closed);
        this.shut = matches!(closed, Poll::Ready(Ok(())));
        closed
    }
}
