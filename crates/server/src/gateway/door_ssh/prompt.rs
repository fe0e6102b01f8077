//! A socket whose first bytes are acknowledged at once.
//!
//! OpenSSH's client turns Nagle's algorithm off only when its session runs. Until then it holds a small packet back while
//! the one before is not acknowledged, and an acknowledgement that has nothing to travel with waits 40 ms: twice in a
//! login, which is more than all its arithmetic. A server cannot change the client; it can acknowledge.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Reads after which acknowledgements take their time again. A login and the first requests of a session have about twenty.
const READS: u32 = 64;

/// A connection at the door's port.
pub(crate) struct Prompt {
    socket: TcpStream,
    reads_left: u32,
}

impl Prompt {
    /// Wraps a connection from which nothing was read yet.
    pub(crate) const fn new(socket: TcpStream) -> Self {
        Self { socket, reads_left: READS }
    }
}

impl AsyncRead for Prompt {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() && self.reads_left > 0 {
            self.reads_left -= 1;
            acknowledge(&self.socket);
        }
        read
    }
}

/// Sends the acknowledgement that waits for something to travel with. The kernel forgets the wish with the next answer, so it
/// is said anew for each.
fn acknowledge(socket: &TcpStream) {
    // A socket that refuses it is about to fail anyway.
    let _ = socket.set_quickack(true);
}

impl AsyncWrite for Prompt {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
