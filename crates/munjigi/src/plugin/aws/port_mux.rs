//! A port session with many connections at a time: each local connection is a stream of smux inside the data channel.
//!
//! One loop owns channel and multiplexer; each connection has a task for reading and one for writing, which hold one
//! piece at a time and wait until the loop has taken it or gives the next. So nothing is queued without bound, and a
//! connection that nobody reads holds back itself.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use munjigi_core::wire::aws::smux::{HEADER, Mux, MuxEvent, MuxLimits, Read, Side, StreamError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Ended;
use super::data_channel::{DataChannel, Happened};
use super::handshake::PortKind;
use crate::client::forward::{Listener, Near};
use crate::client::signals::{Came, Signals};
use crate::plugin::note;
use crate::plugin::words::Words;

/// What a connection's task reads at once.
const READ_BYTES: usize = 64 * 1024;
/// Most bytes handed to a connection's writing task at once.
const WRITE_BYTES: usize = 256 * 1024;
/// Events of connections that wait for the loop; each connection has at most two.
const EVENTS: usize = 64;
/// Most bytes taken from the multiplexer at once.
const OUTPUT_BYTES: usize = 32 * 1024;
/// Old agents end a multiplexer on which nothing came for 30 s.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a connection's tasks say.
enum Said {
    /// Bytes were read; none: the program here has closed.
    Read(Bytes),
    /// Everything given was written.
    Wrote,
    /// The connection is broken.
    Broken(io::Error),
}

/// Everything that can happen to the loop.
enum Event {
    Accepted(io::Result<Near>),
    Connection(u32, Said),
    Channel(Happened),
    Came(Came),
    KeepAlive,
}

/// Carries the session to its end.
pub(crate) async fn run(
    channel: &mut DataChannel,
    port: &PortKind,
    listener: &Listener,
    words: &Words,
    signals: &mut Signals,
) -> io::Result<Ended> {
    let (events_tx, events) = mpsc::channel(EVENTS);
    let mut forward = Forward {
        channel,
        mux: Mux::new(Side::Client, MuxLimits::default()),
        connections: HashMap::new(),
        events_tx,
        events,
        keep_alive: (!port.features.no_keep_alive).then(|| Instant::now() + KEEP_ALIVE),
        words,
        any: false,
    };
    loop {
        forward.pump();
        let event = forward.next_event(listener, signals).await;
        if let Some(ended) = forward.take(event)? {
            return Ok(ended);
        }
    }
}

struct Forward<'r> {
    channel: &'r mut DataChannel,
    mux: Mux,
    connections: HashMap<u32, Connection>,
    /// From the tasks of all connections to the loop.
    events_tx: mpsc::Sender<(u32, Said)>,
    events: mpsc::Receiver<(u32, Said)>,
    /// When the next sign of life is due, towards old agents.
    keep_alive: Option<Instant>,
    words: &'r Words,
    /// Whether there was a connection yet.
    any: bool,
}

/// A local connection.
struct Connection {
    reading: JoinHandle<()>,
    /// Lets the reading task go on.
    go_on: mpsc::Sender<()>,
    /// Read and not yet taken by the multiplexer.
    held: Option<Bytes>,
    /// To the writing task; there is room when it is not `writing`.
    to_write: mpsc::Sender<Bytes>,
    writing: bool,
    /// The other side has closed; what is being written is the last.
    ending: bool,
}

impl Forward<'_> {
    async fn next_event(&mut self, listener: &Listener, signals: &mut Signals) -> Event {
        let wanted = self.mux.wants_input();
        let Self { channel, events, keep_alive, .. } = self;
        let due = *keep_alive;
        tokio::select! {
            came = signals.next() => Event::Came(came),
            accepted = listener.accept() => Event::Accepted(accepted),
            Some((id, said)) = events.recv() => Event::Connection(id, said),
            happened = channel.next(wanted) => Event::Channel(happened),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => Event::KeepAlive,
        }
    }

    fn take(&mut self, event: Event) -> io::Result<Option<Ended>> {
        match event {
            Event::Accepted(Ok(near)) => self.accepted(near)?,
            Event::Accepted(Err(error)) if is_passing(&error) => {}
            Event::Accepted(Err(error)) => {
                return Ok(Some(Ended::Failed(format!("no more connections can be taken: {error}"))));
            }
            Event::Connection(id, said) => self.said(id, said),
            Event::Channel(happened) => return self.happened(happened),
            Event::Came(Came::WindowChanged) => {}
            Event::Came(Came::Signal(signal)) => return Ok(Some(Ended::Interrupted(signal))),
            Event::KeepAlive => {
                self.keep_alive = Some(Instant::now() + KEEP_ALIVE);
                self.mux.keep_alive();
            }
        }
        Ok(None)
    }

    fn happened(&mut self, happened: Happened) -> io::Result<Option<Ended>> {
        Ok(match happened {
            Happened::Delivered(PayloadType::Output, bytes) => match self.mux.receive(bytes) {
                Ok(()) => None,
                Err(error) => Some(Ended::Failed(format!("the service broke the protocol: {error}"))),
            },
            Happened::Delivered(PayloadType::Flag, payload) => {
                if Flag::parse(&payload) == Some(Flag::ConnectToPortError) {
                    self.words.unreachable()?;
                }
                None
            }
            Happened::Delivered(kind, _) => {
                tracing::debug!(?kind, "a payload that a port session has no use for");
                None
            }
            Happened::Room => None,
            Happened::Say(text) => {
                note(&text);
                None
            }
            Happened::Closed(why) => Some(Ended::Closed(why)),
            Happened::Gone => Some(Ended::Gone),
            Happened::Failed(why) => Some(Ended::Failed(why)),
        })
    }

    fn accepted(&mut self, near: Near) -> io::Result<()> {
        let Ok(id) = self.mux.open() else {
            // Dropped: the program here sees its connection closed.
            note("too many connections at a time; one more was closed");
            return Ok(());
        };
        if !std::mem::replace(&mut self.any, true) {
            self.words.connected()?;
        }
        let (reader, writer) = tokio::io::split(near);
        let (go_on, may_read) = mpsc::channel(1);
        let (to_write, from_loop) = mpsc::channel(1);
        let reading = tokio::spawn(read(id, reader, may_read, self.events_tx.clone()));
        // Ends by itself when `to_write` is dropped, after it has written what it was given.
        tokio::spawn(write(id, writer, from_loop, self.events_tx.clone()));
        let connection = Connection { reading, go_on, held: None, to_write, writing: false, ending: false };
        self.connections.insert(id, connection);
        Ok(())
    }

    fn said(&mut self, id: u32, said: Said) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match said {
            Said::Read(bytes) if bytes.is_empty() => self.close(id),
            Said::Read(bytes) => {
                connection.held = Some(bytes);
                self.offer(id);
            }
            Said::Wrote => {
                connection.writing = false;
                self.read_on(id);
            }
            Said::Broken(error) => {
                tracing::debug!(%error, id, "a local connection broke");
                self.close(id);
            }
        }
    }

    /// Hands what was read to the multiplexer, or keeps it until that has room for all of it.
    fn offer(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let Some(held) = connection.held.take() else { return };
        match self.mux.write(id, held.clone()) {
            // There is always room for the word: the task waits for one at a time.
            Ok(()) => drop(connection.go_on.try_send(())),
            Err(StreamError::Full) => connection.held = Some(held),
            // The other side has closed, which is read soon.
            Err(StreamError::Closed | StreamError::TooMany) => {}
        }
    }

    /// Hands what came for a connection to its writing task, if that has nothing to do.
    fn read_on(&mut self, id: u32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.writing {
            return;
        }
        if connection.ending {
            // Everything was written: dropping the tasks closes the connection.
            self.close(id);
            return;
        }
        let mut piece = BytesMut::new();
        while piece.len() < WRITE_BYTES {
            match self.mux.read(id) {
                Read::Data(bytes) => piece.extend_from_slice(&bytes),
                Read::Nothing => break,
                Read::End => {
                    connection.ending = true;
                    break;
                }
            }
        }
        if !piece.is_empty() {
            connection.writing = true;
            // There is room: the task has said that it wrote the last piece.
            let _ = connection.to_write.try_send(piece.freeze());
        } else if connection.ending {
            self.close(id);
        }
    }

    fn close(&mut self, id: u32) {
        self.mux.close(id);
        if let Some(connection) = self.connections.remove(&id) {
            connection.reading.abort();
        }
    }

    /// Moves what waits in the multiplexer: its events to the connections, its bytes to the channel.
    fn pump(&mut self) {
        while let Some(event) = self.mux.next_event() {
            match event {
                MuxEvent::Readable(id) => self.read_on(id),
                MuxEvent::Writable(id) => self.offer(id),
                // Only this side opens streams.
                MuxEvent::Opened(id) => self.mux.close(id),
            }
        }
        loop {
            let room = self.channel.room();
            if room <= HEADER {
                return;
            }
            let Some(bytes) = self.mux.next_output(room.min(OUTPUT_BYTES)) else { return };
            if let Err(error) = self.channel.queue(PayloadType::Output, bytes) {
                // No more was taken than there is room for.
                tracing::error!(%error, "bytes of a port session were lost");
            }
        }
    }
}

/// Reads a connection piece by piece; each waits until the loop has taken the last one.
async fn read(
    id: u32,
    mut reader: ReadHalf<Near>,
    mut may_read: mpsc::Receiver<()>,
    events: mpsc::Sender<(u32, Said)>,
) {
    loop {
        let mut buffer = BytesMut::with_capacity(READ_BYTES);
        let said = match reader.read_buf(&mut buffer).await {
            Ok(_) => Said::Read(buffer.freeze()),
            Err(error) => Said::Broken(error),
        };
        if events.send((id, said)).await.is_err() || may_read.recv().await.is_none() {
            return;
        }
    }
}

/// Writes what the loop gives, and closes the connection when it gives no more.
async fn write(
    id: u32,
    mut writer: WriteHalf<Near>,
    mut pieces: mpsc::Receiver<Bytes>,
    events: mpsc::Sender<(u32, Said)>,
) {
    while let Some(piece) = pieces.recv().await {
        let said = match writer.write_all(&piece).await {
            Ok(()) => Said::Wrote,
            Err(error) => Said::Broken(error),
        };
        if events.send((id, said)).await.is_err() {
            break;
        }
    }
    // The program here may be gone; then there is nobody to tell the end.
    let _ = writer.shutdown().await;
}

/// Tells whether accepting failed for one connection only, or for want of descriptors that come back.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    ) || matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
