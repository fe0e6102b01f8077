//! The stream below an SSH connection: it can be cut from outside, carries little before somebody has logged in, and reads
//! ahead.
//!
//! russh answers no order while keys are exchanged, so a connection that shall end is ended below it. And it reads a
//! packet's length by itself, then the packet, then nothing at all: three system calls for a key, which are one here.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Stage;

/// Most bytes that a client may send before it has logged in (T-91, T-93). A login with a post-quantum key exchange and
/// ten certificates has about 30 KiB.
const MAX_BEFORE_LOGIN: usize = 256 * 1024;
/// Bytes that are read ahead. More is wanted only by packets that have more, and they are read where they belong.
const AHEAD: usize = 1024;

/// A stream that ends when its token is cancelled.
pub(super) struct Cut<S> {
    inner: S,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
    stage: watch::Receiver<Stage>,
    /// Bytes that may come before the login.
    left: Option<usize>,
    ahead: Ahead,
}

/// What was read and not yet asked for.
struct Ahead {
    bytes: Box<[u8; AHEAD]>,
    from: usize,
    to: usize,
}

impl Ahead {
    /// Moves bytes to where they are wanted; says whether there were any.
    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let there = self.bytes.get(self.from..self.to).unwrap_or_default();
        let taken = there.get(..buf.remaining()).unwrap_or(there);
        buf.put_slice(taken);
        self.from += taken.len();
        !taken.is_empty()
    }
}

impl<S> Cut<S> {
    /// Wraps a stream. `stage` tells when somebody has logged in.
    pub(super) fn new(inner: S, token: CancellationToken, stage: watch::Receiver<Stage>) -> Self {
        let cancelled = Box::pin(token.cancelled_owned());
        let ahead = Ahead { bytes: Box::new([0; AHEAD]), from: 0, to: 0 };
        Self { inner, cancelled, stage, left: Some(MAX_BEFORE_LOGIN), ahead }
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
        let this = &mut *self;
        if this.ahead.give(buf) || buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= AHEAD {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
            return Poll::Ready(this.count(buf.filled().len().saturating_sub(before)));
        }
        let mut space = ReadBuf::new(this.ahead.bytes.as_mut_slice());
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut space))?;
        let came = space.filled().len();
        (this.ahead.from, this.ahead.to) = (0, came);
        this.count(came)?;
        this.ahead.give(buf);
        Poll::Ready(Ok(()))
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn cut<S>(inner: S) -> (Cut<S>, watch::Sender<Stage>, CancellationToken) {
        let (stage, stages) = watch::channel(Stage::LoggingIn);
        let token = CancellationToken::new();
        (Cut::new(inner, token.clone(), stages), stage, token)
    }

    #[tokio::test]
    async fn bytes_come_in_order_whatever_is_asked_for() {
        let sent: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
        let (mut near, far) = tokio::io::duplex(3000);
        let (mut cut, ..) = cut(far);
        let writer = tokio::spawn({
            let sent = sent.clone();
            async move { near.write_all(&sent).await.unwrap() }
        });
        let (mut got, mut wanted) = (Vec::new(), 1_usize);
        while got.len() < sent.len() {
            wanted = (wanted * 7 + 3) % 4999;
            let mut piece = vec![0; wanted.clamp(1, sent.len() - got.len())];
            cut.read_exact(&mut piece).await.unwrap();
            got.extend(piece);
        }
        writer.await.unwrap();
        assert!(got == sent);
        assert_eq!(cut.read(&mut [0; 8]).await.unwrap(), 0, "the end is told");
    }

    #[tokio::test]
    async fn little_comes_before_a_login_and_as_much_as_wanted_behind_it() {
        let endless = || tokio::io::repeat(7);
        let inner = || tokio::io::join(endless(), tokio::io::sink());
        let (mut early, _stage, _token) = cut(inner());
        let mut many = vec![0; MAX_BEFORE_LOGIN];
        early.read_exact(&mut many[..MAX_BEFORE_LOGIN - AHEAD]).await.unwrap();
        assert!(early.read_exact(&mut many[..2 * AHEAD]).await.is_err());
        let (mut late, stage, token) = cut(inner());
        stage.send(Stage::In).unwrap();
        late.read_exact(&mut many).await.unwrap();
        late.read_exact(&mut many[..5]).await.unwrap();
        token.cancel();
        assert!(late.read(&mut many[..5]).await.is_err(), "cut, whatever was read ahead");
    }
}
