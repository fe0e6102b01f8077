//! A channel as a stream of bytes, for whoever carries connections.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use russh::server::ChannelOpenHandle;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gateway::door_ssh::channel::ChannelSender;
use crate::gateway::door_ssh::inbox::{FIRST_WINDOW, Inbox, Inboxes};

/// A channel's bytes, both ways. `shutdown` ends the direction to the client; dropping it closes the channel.
pub(crate) struct ChannelStream {
    inbox: Inbox,
    /// Waits for the client's window, so that one channel never holds up another.
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    sender: ChannelSender,
}

impl ChannelStream {
    /// Accepts a channel that the client wishes to open.
    pub(super) fn accept(inboxes: &Arc<Inboxes>, sender: ChannelSender, reply: ChannelOpenHandle) -> Self {
        // Data can come only afterwards, and the inbox is there for it.
        let stream = Self::confirmed(inboxes, sender);
        reply.accept_with_window(FIRST_WINDOW);
        stream
    }

    /// Takes a channel that the client has confirmed.
    pub(super) fn confirmed(inboxes: &Arc<Inboxes>, sender: ChannelSender) -> Self {
        let inbox = inboxes.open(sender.id(), sender.handle().clone());
        Self { inbox, writer: sender.writer(), sender }
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.inbox.poll_read(cx, buf)
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.inbox.poll_closed(cx) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match buf.is_empty() {
            true => Poll::Ready(Ok(0)),
            false => Pin::new(&mut self.writer).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Who has closed the channel needs no end any more.
        if self.inbox.poll_closed(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

impl Drop for ChannelStream {
    fn drop(&mut self) {
        let sender = self.sender.clone();
        // Behind what was written, which may still wait for its turn. Outside of a runtime nothing is left to be closed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { sender.close().await });
        }
    }
}
