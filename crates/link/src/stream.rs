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

use crate::connection::{Lane, Slot};
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
    lane: Arc<Lane>,
    slot: Slot,
    shut: bool,
}

impl Stream {
    pub(crate) fn new(raw: yamux::Stream, mut slot: Slot) -> Self {
        let lane = slot.enter(number_of(&raw));
        Self { raw: raw.compat(), lane, slot, shut: false }
    }

    /// Why the stream is of no use any more.
    fn over(&self) -> LinkError {
        match self.slot.link_ended() {
            Some(reason) if !self.lane.reset.load(Ordering::Acquire) => LinkError::Ended(reason),
            _ => LinkError::StreamReset,
        }
    }

    fn poll_written<T>(&self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(Ok(value)) => Poll::Ready(Ok(value)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(self.over().into())),
            Poll::Pending => {
                self.lane.writer.register(cx.waker());
                // The end may have come before the waker was in place.
                match self.slot.link_ended() {
                    Some(_) => Poll::Ready(Err(self.over().into())),
                    None => Poll::Pending,
                }
            }
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
            Poll::Ready(_) if this.lane.finished.load(Ordering::Acquire) => Poll::Ready(Ok(())),
            Poll::Ready(_) => Poll::Ready(Err(this.over().into())),
            Poll::Pending => {
                this.lane.reader.register(cx.waker());
                match this.slot.link_ended() {
                    Some(_) if this.lane.finished.load(Ordering::Acquire) => Poll::Ready(Ok(())),
                    Some(_) => Poll::Ready(Err(this.over().into())),
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
