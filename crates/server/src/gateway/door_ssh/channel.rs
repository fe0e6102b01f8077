//! A channel of a connection: what comes from the client, and what goes to it within the window that it opens.

use std::sync::Arc;

use bytes::Bytes;
use munjigi_core::session::{ExitStatus, TerminalSize};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncWrite;
use tokio::sync::OwnedSemaphorePermit;

use super::terminal;

/// Number of the stream for errors (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// A channel that the client has opened, or we have towards it.
pub(crate) struct SshChannel {
    read: ChannelReadHalf,
    sender: ChannelSender,
}

/// The way to the client. What is sent goes in order; data waits for the window that the client opens, and nothing else
/// of the connection waits with it.
#[derive(Clone)]
pub(crate) struct ChannelSender(Arc<Shared>);

struct Shared {
    write: ChannelWriteHalf<Msg>,
    handle: Handle,
    /// The channel's place among those of the connection.
    _place: OwnedSemaphorePermit,
}

/// What comes from the client.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Data.
    Data(Bytes),
    /// No more data comes.
    Eof,
    /// The client closed the channel.
    Closed,
    /// The terminal has another size.
    Resize(TerminalSize),
    /// A signal for the program, its name without `SIG`.
    Signal(String),
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the SSH connection is gone")]
pub(crate) struct Gone;

impl SshChannel {
    /// Takes a channel. It keeps `place` until both ways are gone.
    pub(super) fn new(channel: Channel<Msg>, handle: Handle, place: OwnedSemaphorePermit) -> Self {
        let (read, write) = channel.split();
        Self { read, sender: ChannelSender(Arc::new(Shared { write, handle, _place: place })) }
    }

    /// Returns the way to the client.
    pub(crate) fn sender(&self) -> ChannelSender {
        self.sender.clone()
    }

    /// Returns what comes next; `None` when the connection is gone. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        loop {
            return Some(match self.read.wait().await? {
                ChannelMsg::Data { data } => Incoming::Data(data),
                ChannelMsg::Eof => Incoming::Eof,
                ChannelMsg::Close => Incoming::Closed,
                ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } => {
                    Incoming::Resize(terminal::size([col_width, row_height, pix_width, pix_height]))
                }
                ChannelMsg::Signal { signal } => Incoming::Signal(name(&signal)),
                // What was answered when it came, and what says nothing to a server.
                _ => continue,
            });
        }
    }
}

impl ChannelSender {
    /// Returns the channel's number.
    pub(crate) fn id(&self) -> ChannelId {
        self.0.write.id()
    }

    /// Returns what carries orders to the connection.
    pub(super) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Returns a writer of data; its end is the end of data.
    pub(super) fn writer(&self) -> Box<dyn AsyncWrite + Send + Sync + Unpin> {
        Box::new(self.0.write.make_writer())
    }

    /// Sends data, as much at a time as the client's window lets through.
    pub(crate) async fn data(&self, data: Bytes) -> Result<(), Gone> {
        self.0.write.data_bytes(data).await.map_err(|_| Gone)
    }

    /// Sends data of the stream for errors.
    pub(crate) async fn error_data(&self, data: Bytes) -> Result<(), Gone> {
        self.0.write.extended_data_bytes(STDERR, data).await.map_err(|_| Gone)
    }

    /// Says that no more data comes.
    pub(crate) async fn eof(&self) -> Result<(), Gone> {
        self.0.write.eof().await.map_err(|_| Gone)
    }

    /// Says how the program ended.
    pub(crate) async fn exit(&self, exit: &ExitStatus) -> Result<(), Gone> {
        match exit {
            // The protocol's number has no sign; programs' have eight bits.
            ExitStatus::Code(code) => self.0.write.exit_status(code.cast_unsigned()).await.map_err(|_| Gone),
            ExitStatus::Signal { name, core_dumped } => {
                let name = Sig::Custom(name.clone());
                let sent =
                    self.0.handle.exit_signal_request(self.id(), name, *core_dumped, String::new(), String::new());
                sent.await.map_err(|()| Gone)
            }
        }
    }

    /// Closes the channel.
    pub(crate) async fn close(&self) -> Result<(), Gone> {
        self.0.write.close().await.map_err(|_| Gone)
    }

    /// Says on the stream for errors why there is nothing to be had, and ends the channel.
    pub(crate) async fn refuse(&self, text: &str, status: i32) -> Result<(), Gone> {
        self.error_data(Bytes::from(text.replace('\n', "\r\n"))).await?;
        self.exit(&ExitStatus::Code(status)).await?;
        self.eof().await?;
        self.close().await
    }
}

/// Returns a signal's name without `SIG`.
fn name(signal: &Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    }
    .to_owned()
}
