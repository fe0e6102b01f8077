//! A channel of a connection: what comes from the client, and what goes to it within the window that it opens.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use munjigi_core::session::{ExitStatus, TerminalSize};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelWriteHalf, Sig};
use tokio::io::{AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::Conn;
use super::inbox::Inbox;
use crate::lock;

/// Number of the stream for errors (RFC 4254 section 5.2).
const STDERR: u32 = 1;

/// Most signals that wait for a program; more are dropped, as of equal ones the kernel keeps one.
const MAX_SIGNALS: usize = 16;

/// A channel of a session: what the client says in it, and the way back.
pub(crate) struct SshChannel {
    /// What was sent and nobody took yet; the client's window follows it.
    inbox: Inbox,
    controls: Arc<Controls>,
    sender: ChannelSender,
    /// Cancelled when the connection is over.
    ended: CancellationToken,
    /// The end of data was told.
    eof: bool,
}

/// What a channel is told beside its data. It does not wait behind that: Ctrl-C must not stand behind a paste that nobody
/// takes.
#[derive(Debug, Default)]
pub(super) struct Controls(Mutex<Told>);

#[derive(Debug, Default)]
struct Told {
    /// The newest size; earlier ones are of no interest.
    size: Option<TerminalSize>,
    signals: VecDeque<String>,
    reader: Option<Waker>,
}

impl Controls {
    /// Tells the terminal's size.
    pub(super) fn resize(&self, size: TerminalSize) {
        self.tell(|told| told.size = Some(size));
    }

    /// Tells a signal for the program.
    pub(super) fn signal(&self, signal: &Sig) {
        self.tell(|told| {
            if told.signals.len() < MAX_SIGNALS {
                told.signals.push_back(name(signal));
            }
        });
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        let mut told = lock(&self.0);
        what(&mut told);
        if let Some(reader) = told.reader.take() {
            reader.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Option<Incoming> {
        let mut told = lock(&self.0);
        let next = told.size.take().map(Incoming::Resize);
        let next = next.or_else(|| told.signals.pop_front().map(Incoming::Signal));
        if next.is_none() {
            told.reader = Some(cx.waker().clone());
        }
        next
    }
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
    /// Opens the reading side of a channel; what comes for it is kept from now on.
    pub(super) fn open(conn: &Conn, sender: ChannelSender) -> Self {
        let inbox = conn.forwards.inboxes.open(sender.id(), sender.handle().clone());
        Self { inbox, controls: Arc::default(), sender, ended: conn.ended.clone(), eof: false }
    }

    /// Returns where the channel is told of sizes and signals.
    pub(super) fn controls(&self) -> Arc<Controls> {
        self.controls.clone()
    }

    /// Returns the way to the client.
    pub(crate) fn sender(&self) -> ChannelSender {
        self.sender.clone()
    }

    /// Returns what comes next; `None` when the connection is gone. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Option<Incoming> {
        let ended = self.ended.clone();
        ended.run_until_cancelled(poll_fn(|cx| self.poll_next(cx))).await
    }

    /// As [`Self::next`], but leaves data where it is, which holds the client back.
    pub(crate) async fn next_but_data(&mut self) -> Option<Incoming> {
        let ended = self.ended.clone();
        ended.run_until_cancelled(poll_fn(|cx| self.poll_beside(cx))).await
    }

    /// Reads data; sizes and signals stay where they are. Nothing is read at the end of data, and of a channel that was closed.
    pub(super) fn poll_data(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<()> {
        self.inbox.poll_read(cx, buf).map(drop)
    }

    /// Tells whether the client has closed the channel; if not, the task hears of it once it has.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> bool {
        self.inbox.poll_closed(cx)
    }

    fn poll_beside(&self, cx: &mut Context<'_>) -> Poll<Incoming> {
        match self.controls.poll(cx) {
            Some(told) => Poll::Ready(told),
            None if self.inbox.poll_closed(cx) => Poll::Ready(Incoming::Closed),
            None => Poll::Pending,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Incoming> {
        if let Some(told) = self.controls.poll(cx) {
            return Poll::Ready(told);
        }
        if self.eof {
            return self.poll_beside(cx);
        }
        match ready!(self.inbox.poll_take(cx)) {
            Ok(data) if data.is_empty() => {
                self.eof = true;
                Poll::Ready(Incoming::Eof)
            }
            Ok(data) => Poll::Ready(Incoming::Data(data)),
            Err(_) => Poll::Ready(Incoming::Closed),
        }
    }
}

impl ChannelSender {
    /// Takes a channel. It keeps `place` as long as anybody can send.
    pub(super) fn new(channel: Channel<Msg>, handle: Handle, place: OwnedSemaphorePermit) -> Self {
        // The reading half goes: nothing may wait in it, or the connection would wait for it.
        let (_, write) = channel.split();
        Self(Arc::new(Shared { write, handle, _place: place }))
    }

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

    /// Returns a writer of data of the stream for errors.
    pub(super) fn writer_of_errors(&self) -> Box<dyn AsyncWrite + Send + Sync + Unpin> {
        Box::new(self.0.write.make_writer_ext(Some(STDERR)))
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
