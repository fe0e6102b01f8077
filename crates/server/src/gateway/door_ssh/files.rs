//! Files over an SSH connection: the subsystem `sftp`, and the commands of `scp` and `rsync`, which are served here as what
//! they are instead of being run.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use munjigi_core::file_command::FileCommand;
use munjigi_core::session::ExitStatus;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::channel::{ChannelSender, Gone, Incoming, SshChannel};
use super::{Asked, Conn};
use crate::gateway::files::{self, FileEnd, FileWish};

/// Bytes between the channel and what serves it, each way (T-95).
const BUFFER: usize = 512 * 1024;
/// Most bytes that are sent to the client at once.
const PIECE: usize = 128 * 1024;
/// Bytes of standard error that may wait.
const ERRORS: usize = 16 * 1024;

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
        sender.error_data(Bytes::from(format!("munjigi: {}\n", ended.message))).await?;
    }
    sender.eof().await?;
    sender.exit(&ExitStatus::Code(i32::try_from(ended.status).unwrap_or(255))).await?;
    sender.close().await
}

/// Carries the channel's bytes to whoever serves them, and back.
async fn carry(conn: &Conn, wish: FileWish<'_>, service: files::FileService, channel: SshChannel) -> FileEnd {
    let sender = channel.sender();
    let (near, far) = tokio::io::duplex(BUFFER);
    let (errors_near, errors_far) = tokio::io::duplex(ERRORS);
    let (from_server, to_server) = tokio::io::split(near);
    let incoming = receive(channel, to_server);
    let outgoing = async {
        let (out, errors) =
            tokio::join!(send(from_server, &sender, Stream::Output), send(errors_near, &sender, Stream::Errors));
        out.and(errors)
    };
    // On the heap: the task would hold it from its beginning otherwise.
    let serving = Box::pin(files::serve(&conn.server, wish, service, far, errors_far));
    let serving = async {
        tokio::pin!(incoming);
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => ended,
            // What has ended is only the client's direction; its stream was told.
            () = &mut incoming => serving.await,
        }
    };
    let (ended, sent) = tokio::join!(serving, outgoing);
    match sent {
        Ok(()) => ended,
        Err(Gone) => FileEnd { status: 1, message: "the client is gone".to_owned() },
    }
}

/// Takes the client's bytes until its direction ends.
async fn receive(mut channel: SshChannel, mut to: tokio::io::WriteHalf<DuplexStream>) {
    while let Some(incoming) = channel.next().await {
        match incoming {
            Incoming::Data(data) => {
                if to.write_all(&data).await.is_err() {
                    return;
                }
            }
            Incoming::Eof | Incoming::Closed => break,
            Incoming::Resize(_) | Incoming::Signal(_) => {}
        }
    }
    // Whoever served it may be done already.
    let _ = to.shutdown().await;
}

/// Sends what is served until it ends. What nobody hears any more is dropped, so that whoever serves comes to its end.
async fn send<R: AsyncRead + Unpin>(mut from: R, sender: &ChannelSender, stream: Stream) -> Result<(), Gone> {
    let mut buffer = BytesMut::new();
    let mut result = Ok(());
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return result,
            Ok(_) => {}
        }
        let piece = buffer.split().freeze();
        if result.is_ok() {
            result = match stream {
                Stream::Output => sender.data(piece).await,
                Stream::Errors => sender.error_data(piece).await,
            };
        }
    }
}

/// Which of a channel's streams.
#[derive(Clone, Copy)]
enum Stream {
    Output,
    Errors,
}
