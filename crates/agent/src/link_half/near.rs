//! The node's end of a connection: a TCP socket that was dialled here, or a stream socket from the privileged half.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket.
#[derive(Debug)]
pub(super) enum Near {
    /// To a checked address.
    Tcp(TcpStream),
    /// Connected, or made, as the session's OS user.
    Unix(UnixStream),
}

impl Near {
    /// Takes a stream socket of the privileged half over; call inside the runtime.
    pub(super) fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket).map(Self::Unix)
    }

    /// Has the socket watched by the runtime in which this is called, instead of the one that it came from.
    pub(super) fn settled(self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => TcpStream::from_std(socket.into_std()?).map(Self::Tcp),
            Self::Unix(socket) => UnixStream::from_std(socket.into_std()?).map(Self::Unix),
        }
    }

    /// Lets the peer see a reset, where there is such a thing, when the socket is dropped.
    pub(super) fn reset(&self) {
        if let Self::Tcp(socket) = self {
            // A socket that is broken already cannot be broken further.
            let _ = socket.set_zero_linger();
        }
    }
}

impl AsyncRead for Near {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Near {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
