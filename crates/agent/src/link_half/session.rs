//! One session in the link half: one task between the program's descriptors, its ring, and a stream to the server.
//!
//! The task lives as long as the session; streams come and go. It never blocks in one direction while the other could
//! go on: every wait is an arm of one `select!`, and frames from the server are always read, so that both ways can be
//! full at once without a stall.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::SessionId;
use munjigi_core::session::ExitStatus;
use munjigi_core::wire::message::{End, Exit, Open, Rejoin, Rejoined, open};
use munjigi_core::wire::{Frame, FrameKind, FrameSet};
use munjigi_link::framed::{FrameReader, FrameWriter, FramedError};
use munjigi_link::{Opener, Stream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::halves::ToSpawn;
use crate::ring::{Cursor, Ring};

use super::port::Port;
use super::program::{Program, Read};
use super::spawn_client::SpawnClient;

/// Most output that waits in the stream's writer; a keystroke's echo is never behind more than this.
const WRITER_FULL: usize = 64 * 1024;
/// Most input that waits for the program. The client sends at most 256 KiB unacknowledged; what comes beyond this is
/// dropped like any gap, and sent again by whoever kept it.
const INPUT_FULL: usize = 512 * 1024;
/// Input that is acknowledged at once, in bytes; a client may have 256 KiB on the way.
const ACK_BYTES: u64 = 32 * 1024;
/// How long less input waits for output to travel with. Nobody waits for this answer.
const ACK_AFTER: Duration = Duration::from_millis(10);
/// Before a stream that ended by itself is opened again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// Events that wait for a session's task.
const EVENTS_WAITING: usize = 8;
/// What a server may say to a session that came back.
const TO_REJOINING: FrameSet = FrameSet::of(&[FrameKind::Rejoined, FrameKind::Refused]);

/// The two directions of a session's stream.
pub(crate) struct Attached {
    pub(crate) reader: FrameReader<ReadHalf<Stream>>,
    pub(crate) writer: FrameWriter<WriteHalf<Stream>>,
}

impl Attached {
    /// Takes a stream apart.
    pub(crate) fn new(stream: Stream) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self { reader: FrameReader::new(read), writer: FrameWriter::new(write) }
    }

    /// Puts the stream together again, when no more frames travel on it, with the bytes that came behind the last one.
    pub(crate) fn into_stream(self) -> (Stream, BytesMut) {
        let (read, early) = self.reader.into_parts();
        (read.unsplit(self.writer.into_inner()), early)
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How, if it is known.
    pub(crate) status: Option<ExitStatus>,
    /// Why, when it did not end by itself; else empty.
    pub(crate) detail: String,
}

/// What a session's task is told.
pub(crate) enum Event {
    /// The stream on which the session was asked for, its `Accepted` already in the writer.
    Attach(Box<Attached>, Opener),
    /// A new link stands: come back on it.
    Reconnect(Opener),
    /// The program has ended.
    Ended(Ended),
}

/// Reaches a session's task.
#[derive(Clone)]
pub(crate) struct Handle {
    events: mpsc::Sender<Event>,
    port: Option<Arc<Port>>,
}

impl Handle {
    /// Returns what connections need, if it is a port session.
    pub(crate) fn port(&self) -> Option<&Arc<Port>> {
        self.port.as_ref()
    }

    /// Tells the session something; nothing happens when it is over.
    pub(crate) async fn tell(&self, event: Event) {
        // The receiver is gone only when the session is, and then there is nobody to tell.
        let _ = self.events.send(event).await;
    }
}

/// The session's end of its stream.
struct Link {
    attached: Attached,
    /// What the server may say now.
    expected: FrameSet,
    /// What is sent next; `None` until the server said where to go on.
    cursor: Option<Cursor>,
    /// Last value of `InputAck` sent; `None` when it must be said anew.
    input_acked: Option<u64>,
    /// Whether `Exit` was sent.
    exit_sent: bool,
}

/// A session.
pub(crate) struct Session {
    id: SessionId,
    ring: Ring,
    program: Program,
    spawn: Arc<SpawnClient>,
    /// From the dispatcher: streams, new links, the program's end.
    events: mpsc::Receiver<Event>,
    link: Option<Link>,
    opener: Option<Opener>,
    rejoin_at: Option<Instant>,
    /// When input is acknowledged for which no output came.
    ack_at: Option<Instant>,
    /// Wakes the task then, or earlier: it is not set back when the output came, as setting a timer makes the runtime look
    /// again at once, for every key.
    ack_timer: Pin<Box<Sleep>>,
    /// Input taken from the server and not yet by the program.
    input: VecDeque<Bytes>,
    input_waiting: usize,
    /// Where the input ends, once that was said.
    input_end: Option<u64>,
    input_ended: bool,
    ended: Option<Ended>,
    /// Whether everything that the program wrote is in the ring.
    drained: bool,
    /// The connections, if it is a port session.
    port: Option<Arc<Port>>,
}

/// Everything that can happen to a session.
enum Wake {
    Event(Option<Event>),
    Frame(Result<Option<Frame>, FramedError>),
    Flushed(Result<(), FramedError>),
    Output(usize),
    Input,
    Acknowledge,
    Rejoin,
}

impl Session {
    /// Builds the session and what reaches it.
    pub(crate) fn new(
        id: SessionId,
        ring: Ring,
        program: Program,
        ended: Option<Ended>,
        spawn: Arc<SpawnClient>,
        endpoints: Option<Vec<Endpoint>>,
    ) -> (Self, Handle) {
        let (sender, events) = mpsc::channel(EVENTS_WAITING);
        let port = endpoints.map(|endpoints| Arc::new(Port::new(id.clone(), endpoints)));
        let handle = Handle { events: sender, port: port.clone() };
        let session = Self {
            id,
            ring,
            program,
            spawn,
            events,
            link: None,
            opener: None,
            rejoin_at: None,
            ack_at: None,
            ack_timer: Box::pin(sleep_until(Instant::now())),
            input: VecDeque::new(),
            input_waiting: 0,
            input_end: None,
            input_ended: false,
            ended,
            drained: false,
            port,
        };
        (session, handle)
    }

    /// Serves the session until the server has recorded its end, or nobody can reach it any more.
    pub(crate) async fn run(mut self) {
        self.serve().await;
        self.close_connections();
    }

    fn close_connections(&self) {
        if let Some(port) = &self.port {
            port.close();
        }
    }

    async fn serve(&mut self) {
        loop {
            self.drain();
            self.feed();
            let over = match self.next().await {
                Wake::Event(Some(event)) => self.take_event(event).await,
                Wake::Event(None) => true,
                Wake::Frame(Ok(Some(frame))) => self.take_frame(frame).await,
                Wake::Frame(Ok(None) | Err(_)) | Wake::Flushed(Err(_)) => self.lose_stream(),
                Wake::Flushed(Ok(())) => false,
                Wake::Output(index) => self.take_output(index),
                Wake::Input => self.write_input().await,
                // Each turn sends what is due.
                Wake::Acknowledge => false,
                Wake::Rejoin => self.rejoin().await,
            };
            if over {
                return;
            }
        }
    }

    async fn next(&mut self) -> Wake {
        let Self { link, program, ring, events, input, rejoin_at, ack_at, ack_timer, .. } = self;
        if let Some(at) = ack_at.filter(|_| ack_timer.is_elapsed()) {
            ack_timer.as_mut().reset(at);
        }
        let (frames, writing) = match link {
            Some(Link { attached: Attached { reader, writer }, expected, .. }) => {
                let unsent = (!writer.is_flushed()).then_some(writer);
                (Some((reader, *expected)), unsent)
            }
            None => (None, None),
        };
        let (has_room, has_input) = (ring.has_room(), !input.is_empty());
        tokio::select! {
            event = events.recv() => Wake::Event(event),
            frame = async {
                match frames {
                    Some((reader, expected)) => reader.read(expected).await,
                    None => std::future::pending().await,
                }
            } => Wake::Frame(frame),
            result = async {
                match writing {
                    Some(writer) => writer.flush().await,
                    None => std::future::pending().await,
                }
            } => Wake::Flushed(result),
            // A full ring is not filled: the program stops, nothing is dropped (T-95).
            index = program.output_ready(), if has_room => Wake::Output(index),
            () = program.input_ready(), if has_input => Wake::Input,
            () = ack_timer.as_mut(), if ack_at.is_some() => Wake::Acknowledge,
            () = at(*rejoin_at), if rejoin_at.is_some() => Wake::Rejoin,
        }
    }

    async fn take_event(&mut self, event: Event) -> bool {
        match event {
            Event::Attach(attached, opener) => {
                let cursor = self.ring.seek(self.ring.output_tail());
                self.link = Some(Link {
                    attached: *attached,
                    expected: FrameSet::TO_AGENT,
                    cursor,
                    input_acked: Some(0),
                    exit_sent: false,
                });
                self.opener = Some(opener);
                false
            }
            Event::Reconnect(opener) => {
                self.opener = Some(opener);
                self.rejoin().await
            }
            Event::Ended(ended) => {
                self.close_connections();
                self.ended.get_or_insert(ended);
                false
            }
        }
    }

    /// Opens a stream on the link and says which session is back and how far it is.
    async fn rejoin(&mut self) -> bool {
        (self.rejoin_at, self.ack_at, self.link) = (None, None, None);
        let Some(opener) = &self.opener else { return false };
        let Ok(stream) = opener.open().await else {
            // The link is gone again, or has as many streams as it can: the next link or moment decides.
            return self.lose_stream();
        };
        let mut attached = Attached::new(stream);
        let wish = open::Wish::Rejoin(Rejoin {
            session_id: self.id.to_string(),
            input_received: self.ring.input_received(),
            output_from: self.ring.output_tail(),
            output_end: self.ring.output_head(),
        });
        if attached.writer.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).is_err() {
            return false;
        }
        self.link = Some(Link { attached, expected: TO_REJOINING, cursor: None, input_acked: None, exit_sent: false });
        false
    }

    fn lose_stream(&mut self) -> bool {
        self.link = None;
        self.ack_at = None;
        self.rejoin_at = self.opener.is_some().then(|| Instant::now() + REJOIN_AFTER);
        false
    }

    async fn take_frame(&mut self, frame: Frame) -> bool {
        match frame {
            Frame::Input { offset, data } => {
                self.queue_input(offset, data);
                // A key reaches the program in the same turn.
                return self.write_input().await;
            }
            Frame::InputEnd { offset } => {
                self.input_end = Some(offset);
                return self.write_input().await;
            }
            Frame::OutputAck(offset) => self.forget_output(offset),
            Frame::Resize(size) => self.program.resize(size),
            Frame::Signal(signal) => {
                return self.ask(&ToSpawn::Signal { session: self.id.clone(), signal }).await;
            }
            Frame::End(end) => return self.take_end(&end).await,
            Frame::Rejoined(rejoined) => self.take_rejoined(&rejoined),
            // The server knows the session no more: nobody would ever record it.
            Frame::Refused(_) => return self.forget().await,
            // The set of allowed frames lets nothing else through.
            _ => {}
        }
        false
    }

    /// Takes input that follows what is there: earlier bytes are duplicates, later ones a gap that is sent again.
    fn queue_input(&mut self, offset: u64, mut data: Bytes) {
        let received = self.ring.input_received() + self.input_waiting as u64;
        let Some(known) = received.checked_sub(offset) else { return };
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        if known >= data.len() || self.input_waiting + data.len() > INPUT_FULL {
            return;
        }
        data.advance(known);
        self.input_waiting += data.len();
        self.input.push_back(data);
    }

    /// Hands waiting input to the program as far as it takes it, then its end if that has come.
    async fn write_input(&mut self) -> bool {
        while let Some(first) = self.input.front_mut() {
            match self.program.write(first) {
                Some(0) => break,
                Some(count) => {
                    self.ring.add_input(count as u64);
                    self.input_waiting -= count.min(self.input_waiting);
                    first.advance(count.min(first.len()));
                    if first.is_empty() {
                        self.input.pop_front();
                    }
                }
                // The program reads no more; what it did not take stays unacknowledged.
                None => {
                    self.input.clear();
                    self.input_waiting = 0;
                }
            }
        }
        let at_end = self.input_end.is_some_and(|end| self.ring.input_received() >= end);
        if at_end && self.input.is_empty() && !self.input_ended {
            self.input_ended = true;
            self.program.end_input();
            if !self.program.has_terminal() {
                return self.ask(&ToSpawn::InputEnd { session: self.id.clone() }).await;
            }
        }
        false
    }

    fn forget_output(&mut self, offset: u64) {
        let sent = self.link.as_ref().and_then(|link| link.cursor).map_or(0, |cursor| cursor.offset());
        // Nobody can have stored what was not sent.
        self.ring.forget_before(offset.min(sent));
    }

    fn take_rejoined(&mut self, rejoined: &Rejoined) {
        let from = rejoined.output_stored.clamp(self.ring.output_tail(), self.ring.output_head());
        let cursor = self.ring.seek(from);
        if let Some(link) = &mut self.link {
            link.cursor = cursor;
            link.expected = FrameSet::TO_AGENT;
        }
        self.ring.forget_before(from);
    }

    async fn take_end(&mut self, _end: &End) -> bool {
        if self.link.as_ref().is_some_and(|link| link.exit_sent) {
            return self.forget().await;
        }
        self.close_connections();
        self.ask(&ToSpawn::End { session: self.id.clone() }).await
    }

    /// All is recorded, or never will be: lets the privileged half forget the session.
    async fn forget(&mut self) -> bool {
        self.ask(&ToSpawn::Forget { session: self.id.clone() }).await;
        if let Some(link) = &mut self.link {
            // An orderly end where possible; the session is over either way.
            let _ = tokio::time::timeout(REJOIN_AFTER, link.attached.writer.close()).await;
        }
        true
    }

    async fn ask(&self, message: &ToSpawn) -> bool {
        // Without the privileged half the dispatcher tells every session to end.
        let _ = self.spawn.send(message).await;
        false
    }

    fn take_output(&mut self, index: usize) -> bool {
        // Several short reads become one packet; long ones take turns with everything else.
        for _ in 0..8 {
            if self.program.read(index, &mut self.ring) != Read::Some {
                break;
            }
        }
        false
    }

    /// Once the program has ended, takes what is left without waiting for more.
    fn drain(&mut self) {
        if self.ended.is_some() && !self.drained {
            self.drained = self.program.read_rest(&mut self.ring);
        }
    }

    /// Puts what the server shall hear into the writer, as far as it has room.
    fn feed(&mut self) {
        let Some(link) = &mut self.link else { return };
        let Link { attached: Attached { writer, .. }, cursor: Some(cursor), input_acked, exit_sent, .. } = link else {
            return;
        };
        let before = cursor.offset();
        while writer.pending() < WRITER_FULL {
            let Some((piece, next)) = self.ring.next(*cursor) else { break };
            if writer.feed_output(piece.offset, piece.stream, piece.bytes).is_err() {
                break;
            }
            *cursor = next;
        }
        let received = self.ring.input_received();
        if *input_acked != Some(received) {
            // The answer to a key is its echo; the acknowledgement travels with it instead of waking everybody twice.
            let due = self.ack_at.is_some_and(|at| at <= Instant::now());
            let many = input_acked.is_none_or(|acked| received.saturating_sub(acked) >= ACK_BYTES);
            if due || many || cursor.offset() != before || self.ended.is_some() {
                *input_acked = Some(received);
                self.ack_at = None;
                // It fits any buffer.
                drop(writer.feed(&Frame::InputAck(received)));
            } else {
                self.ack_at.get_or_insert_with(|| Instant::now() + ACK_AFTER);
            }
        }
        let all_sent = cursor.offset() == self.ring.output_head();
        if let Some(ended) = self.ended.as_ref().filter(|_| self.drained && all_sent && !*exit_sent) {
            *exit_sent = writer.feed(&Frame::Exit(exit_message(ended, self.ring.output_head()))).is_ok();
        }
    }
}

fn exit_message(ended: &Ended, output_end: u64) -> Exit {
    let (code, signal, core_dumped) = match &ended.status {
        Some(ExitStatus::Code(code)) => (Some(*code), None, false),
        Some(ExitStatus::Signal { name, core_dumped }) => (None, Some(name.clone()), *core_dumped),
        None => (None, None, false),
    };
    Exit { output_end, code, signal, core_dumped, detail: ended.detail.clone() }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
