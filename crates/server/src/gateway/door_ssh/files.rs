//! Files over an SSH connection: the subsystem `sftp`, and the commands of `scp` and `rsync`, which are served here as what
//! they are instead of being run.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use munjigi_core::file_command::FileCommand;
use munjigi_core::session::ExitStatus;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::channel::{ChannelSender, Gone, SshChannel};
use super::{Asked, Conn};
use crate::gateway::files::{self, FileEnd, FileWish};

/// Longest message to a person, characters.
const MAX_MESSAGE: usize = 2048;

/// What a client wants to do with files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FileService {
    /// It is served.
    Served(files::FileService),
    /// It cannot be, and why.
    Refused(String),
}

impl FileService {
    /// Returns what a subsystem is.
    pub(super) fn of_subsystem(name: &str) -> Option<Self> {
        (name == "sftp").then_some(Self::Served(files::FileService::Sftp))
    }

    /// Returns what a command is, if it is one that this server serves itself instead of running it.
    pub(super) fn of_command(command: &[u8]) -> Option<Self> {
        match FileCommand::of(command) {
            Ok(None) => None,
            Ok(Some(command)) => Some(Self::Served(files::FileService::Command(command))),
            Err(error) => Some(Self::Refused(error.to_string())),
        }
    }
}

/// Serves files until the channel ends.
pub(super) async fn serve(conn: Arc<Conn>, asked: Asked, service: FileService) {
    let Asked { channel, .. } = asked;
    let sender = channel.sender();
    let served = match service {
        FileService::Refused(why) => Err(why),
        FileService::Served(service) => match (conn.caller(), conn.login.node.as_deref()) {
            (Some(caller), Some(node)) => {
                let os_user = conn.login.os_user.as_deref();
                let wish = FileWish { caller: &caller, request: &conn.request(), target: node, os_user };
                Ok(carry(&conn, wish, service, channel).await)
            }
            (None, _) => Err("your access has ended".to_owned()),
            (_, None) => Err("name a node: scp and sftp go to NODE@this-server, or through it with -J".to_owned()),
        },
    };
    let ended = served.unwrap_or_else(|message| FileEnd { status: 1, message });
    // An error means that nobody is left to be told.
    let _ = tell(&sender, &ended).await;
}

async fn tell(sender: &ChannelSender, ended: &FileEnd) -> Result<(), Gone> {
    if !ended.message.is_empty() {
        // It may hold a node's words (T-13).
        let message: String = ended.message.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        sender.error_data(Bytes::from(format!("munjigi: {message}\n"))).await?;
    }
    sender.eof().await?;
    sender.exit(&ExitStatus::Code(i32::try_from(ended.status).unwrap_or(255))).await?;
    sender.close().await
}

/// Carries the channel's bytes to whoever serves them, and back.
async fn carry(conn: &Conn, wish: FileWish<'_>, service: files::FileService, channel: SshChannel) -> FileEnd {
    let channel = Arc::new(channel);
    let output = Outlet::new(&channel, channel.sender().writer(), &conn.ended);
    let errors = Outlet::new(&channel, channel.sender().writer_of_errors(), &conn.ended);
    let stream = ChannelBytes { ended: Box::pin(conn.ended.clone().cancelled_owned()), channel, output };
    // On the heap: the task would hold it from its beginning otherwise.
    Box::pin(files::serve(&conn.server, wish, service, stream, errors)).await
}

/// A channel's bytes, both ways. Reading ends with the client's direction, with the channel, and with the connection.
struct ChannelBytes {
    channel: Arc<SshChannel>,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    output: Outlet,
}

impl AsyncRead for ChannelBytes {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.channel.poll_data(cx, buf) {
            Poll::Pending if self.ended.as_mut().poll(cx).is_ready() => Poll::Ready(Ok(())),
            polled => polled.map(Ok),
        }
    }
}

impl AsyncWrite for ChannelBytes {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.output).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

/// One of a channel's streams to the client. What nobody hears any more is dropped, so that whoever serves comes to its end.
/// What is written to one goes behind what was written to another before: a program may end its client by what it prints.
struct Outlet {
    channel: Arc<SshChannel>,
    /// Waits for the client's window.
    writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
    is_heard: bool,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Outlet {
    fn new(
        channel: &Arc<SshChannel>,
        writer: Box<dyn AsyncWrite + Send + Sync + Unpin>,
        ended: &CancellationToken,
    ) -> Self {
        let ended = Box::pin(ended.clone().cancelled_owned());
        Self { channel: Arc::clone(channel), writer, is_heard: true, ended }
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.channel.poll_closed(cx) || self.ended.as_mut().poll(cx).is_ready() {
            self.is_heard = false;
        }
        if self.is_heard && !buf.is_empty() {
            match ready!(Pin::new(&mut self.writer).poll_write(cx, buf)) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(_) => self.is_heard = false,
            }
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is written is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of the channel's data is told with how it ended.
        Poll::Ready(Ok(()))
    }
}
