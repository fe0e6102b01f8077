//! The stream below an SSH connection: it can be cut from outside, and carries little before somebody has logged in.
//!
//! russh answers no order while keys are exchanged, so a connection that shall end is ended below it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Stage;

/// Most bytes that a client may send before it has logged in (T-91, T-93). A login with a post-quantum key exchange and
/// ten certificates has about 30 KiB.
const MAX_BEFORE_LOGIN: usize = 256 * 1024;

/// A stream that ends when its token is cancelled.
pub(super) struct Cut<S> {
    inner: S,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    stage: watch::Receiver<Stage>,
    /// Bytes that may come before the login.
    left: Option<usize>,
}

impl<S> Cut<S> {
    /// Wraps a stream. `stage` tells when somebody has logged in.
    pub(super) fn new(inner: S, token: CancellationToken, stage: watch::Receiver<Stage>) -> Self {
        let cancelled = Box::pin(token.cancelled_owned());
        Self { inner, cancelled, stage, left: Some(MAX_BEFORE_LOGIN) }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cancelled.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }

    /// Counts what came before the login.
    fn count(&mut self, bytes: usize) -> io::Result<()> {
        let Some(left) = self.left else { return Ok(()) };
        if *self.stage.borrow() == Stage::In {
            self.left = None;
            return Ok(());
        }
        self.left = Some(left.checked_sub(bytes).ok_or(io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Cut<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = polled {
            self.count(buf.filled().len().saturating_sub(before))?;
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cut<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
