//! The hub: one task per live session, between its node, its log and its primary client.
//!
//! The hub knows input bytes, output bytes, resize, signal, exit status and offsets; it knows no policy, no SQL and
//! not which door a client came through. What the node prints is appended to the log first and delivered from it.
//! The loop names everything that can happen in [`Happened`]; each is one method.

use std::sync::Arc;

use bytes::Bytes;
use munjigi_core::recording::{Event, EventKind, InputData};
use munjigi_core::session::{EndReason, ExitStatus, OutputStream, TerminalSize};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{Accepted, AttachSession, End, Exit, Notice, Pty, Refused, Rejoin, Rejoined};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::facts::{Outcome, SessionFacts, exit_status};
use super::log::{LogRead, SessionLog};
use super::peer::{ClientEnd, FrameStream, NodeEnd, continue_at};
use super::timers::{Due, Times};
use super::{backlog, close_in_background};
use crate::Server;
use crate::clock;
use crate::recording::{Progress, Recorder};
use crate::sessions::Change;

/// Output that may be in the log and not yet with the attached client before the node is no longer read, in bytes.
/// Together with the stream's window (256 KiB) it stays within T-95.
const CLIENT_LAG: u64 = 256 * 1024;
/// Recording not yet written before the node is no longer read, in bytes (T-95).
const RECORDER_LAG: usize = 512 * 1024;
/// Bytes fed to a client's stream ahead of what it takes.
const FEED_AHEAD: usize = 48 * 1024;
/// Bytes of input fed towards the node ahead of what it takes.
const INPUT_AHEAD: usize = 64 * 1024;

/// What others may ask of a session. Sent by the doors and the API, received by the hub.
pub enum Order {
    /// A client wants to be the primary one. A former one is sent away.
    Attach(FrameStream, AttachSession),
    /// The node came back with the session.
    Rejoin(FrameStream, Rejoin),
    /// End it.
    End {
        /// Why.
        reason: EndReason,
        /// For people.
        message: String,
        /// Told when the session is over.
        done: Option<oneshot::Sender<()>>,
    },
    /// Somebody watches now, or no longer: a line for the recording.
    Mark(String),
}

/// Everything that can happen to a session.
enum Happened {
    ClientFlushed(Result<(), FramedError>),
    NodeFlushed(Result<(), FramedError>),
    Ordered(Option<Order>),
    FromClient(Result<Option<Frame>, FramedError>),
    Backlog(Option<Result<super::log::Chunk, String>>),
    FromNode(Result<Option<Frame>, FramedError>),
    Stored,
    Finished(Outcome),
    TimePassed,
}

/// How the hub begins.
pub enum Beginning {
    /// A new session: the start was fed to the node's stream.
    Start(FrameStream),
    /// A session from before the server's restart: wait for its node.
    TakenBack,
}

/// One live session.
pub struct Hub {
    server: Arc<Server>,
    facts: Arc<SessionFacts>,
    log: Arc<SessionLog>,
    recorder: Option<Recorder>,
    progress: watch::Receiver<Progress>,
    orders: mpsc::Receiver<Order>,
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    node: NodeEnd,
    client: Option<ClientEnd>,
    /// A client that waits until the node is back, and where its output begins.
    waiting: Option<(FrameStream, AttachSession)>,
    /// Next input offset that goes to the node.
    input_next: u64,
    input_acked: u64,
    /// Input before this offset is in the recording.
    input_recorded: u64,
    output_acked: u64,
    size: Option<TerminalSize>,
    times: Times,
    /// Why the session is being ended, once somebody ordered it.
    ending: Option<(EndReason, String)>,
    recording_is_broken: bool,
    finishing: Option<JoinHandle<Outcome>>,
    finished: Option<Arc<Outcome>>,
    done: Vec<oneshot::Sender<()>>,
}

/// What [`Hub::new`] needs.
pub struct HubParts {
    /// Shared state.
    pub server: Arc<Server>,
    /// The session.
    pub facts: Arc<SessionFacts>,
    /// Its log, at the end of what is recorded.
    pub log: Arc<SessionLog>,
    /// Writes the recording.
    pub recorder: Recorder,
    /// Orders from outside.
    pub orders: mpsc::Receiver<Order>,
    /// Told how it ended.
    pub outcome: watch::Sender<Option<Arc<Outcome>>>,
    /// Size of the terminal at the start.
    pub size: Option<TerminalSize>,
    /// Offset behind the input that is recorded.
    pub input_end: u64,
}

impl Hub {
    /// Builds the hub; [`Self::run`] is its task.
    pub fn new(parts: HubParts, beginning: Beginning, client: Option<FrameStream>) -> Self {
        let now = Instant::now();
        let mut times = Times::new(now, clock::now().since(parts.facts.started), &parts.facts.limits);
        let node = match beginning {
            Beginning::Start(stream) => {
                times.starting = Some(now);
                NodeEnd::Starting(stream, now)
            }
            Beginning::TakenBack => {
                times.without_node = Some(now);
                NodeEnd::Away(now)
            }
        };
        times.without_client = client.is_none().then_some(now);
        Self {
            progress: parts.recorder.progress(),
            server: parts.server,
            facts: parts.facts,
            recorder: Some(parts.recorder),
            orders: parts.orders,
            outcome: parts.outcome,
            node,
            client: client.map(|stream| ClientEnd::new(stream, 0)),
            waiting: None,
            input_next: 0,
            input_acked: 0,
            input_recorded: parts.input_end,
            output_acked: parts.log.end(),
            log: parts.log,
            size: parts.size,
            times,
            ending: None,
            recording_is_broken: false,
            finishing: None,
            finished: None,
            done: Vec::new(),
        }
    }

    /// Runs the session to its end.
    pub async fn run(mut self) {
        let timer = sleep_until(Instant::now());
        tokio::pin!(timer);
        loop {
            self.deliver();
            if self.is_over() {
                break;
            }
            let due =
                self.times.next(&self.facts.limits).filter(|_| self.finishing.is_none() && self.finished.is_none());
            // The timer is only ever brought forward; one that fires early looks, finds nothing due and is set again.
            if let Some(due) = due.filter(|due| *due < timer.deadline() || timer.is_elapsed()) {
                timer.as_mut().reset(due);
            }
            let happened = self.next(timer.as_mut(), due.is_some()).await;
            self.handle(happened).await;
        }
        if let Some(client) = self.client.take() {
            close_in_background(client.stream);
        }
        if let NodeEnd::Done(Some(stream)) = self.node {
            close_in_background(stream);
        }
        for done in self.done.drain(..) {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
    }

    async fn next(&mut self, timer: std::pin::Pin<&mut tokio::time::Sleep>, timed: bool) -> Happened {
        let read_node = self.may_read_node();
        let read_client = self.may_read_client();
        let feed_client = self.client.as_ref().is_some_and(|client| client.stream.writer.pending() < FEED_AHEAD);
        let allowed = self.node.allowed();
        // One mutable borrow per arm: take the ends apart first.
        let (mut client_read, mut client_write, mut client_backlog) = (None, None, None);
        if let Some(client) = &mut self.client {
            client_read = Some(&mut client.stream.reader);
            client_write = Some(&mut client.stream.writer);
            client_backlog = client.backlog.as_mut();
        }
        let (mut node_read, mut node_write) = (None, None);
        if let Some(stream) = self.node.stream() {
            node_read = Some(&mut stream.reader);
            node_write = Some(&mut stream.writer);
        }
        tokio::select! {
            biased;
            sent = flush_fed(client_write) => Happened::ClientFlushed(sent),
            sent = flush_fed(node_write) => Happened::NodeFlushed(sent),
            order = self.orders.recv(), if !self.orders.is_closed() || !self.orders.is_empty() => Happened::Ordered(order),
            frame = read(client_read, read_client.then_some(FrameSet::FROM_CLIENT)) => Happened::FromClient(frame),
            piece = receive(client_backlog, feed_client) => Happened::Backlog(piece),
            frame = read(node_read, allowed.filter(|_| read_node)) => Happened::FromNode(frame),
            changed = self.progress.changed(), if self.recorder.is_some() => {
                if changed.is_err() {
                    tracing::debug!("the recording's writer is gone");
                }
                Happened::Stored
            }
            outcome = finish(self.finishing.as_mut()) => Happened::Finished(outcome),
            () = timer, if timed => Happened::TimePassed,
        }
    }

    async fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::ClientFlushed(Ok(())) | Happened::NodeFlushed(Ok(())) => {}
            Happened::ClientFlushed(Err(error)) => self.client_lost(&error.to_string()).await,
            Happened::NodeFlushed(Err(error)) => self.node_lost(&error.to_string()).await,
            Happened::Ordered(Some(order)) => self.ordered(order).await,
            Happened::Ordered(None) => {}
            Happened::FromClient(Ok(Some(frame))) => self.heard_client(frame).await,
            Happened::FromClient(Ok(None)) => self.client_lost("the client closed the stream").await,
            Happened::FromClient(Err(error)) => self.client_lost(&error.to_string()).await,
            Happened::Backlog(piece) => self.backlog(piece).await,
            Happened::FromNode(Ok(Some(frame))) => self.heard_node(frame).await,
            Happened::FromNode(Ok(None)) => self.node_lost("the node closed the stream").await,
            Happened::FromNode(Err(error)) => self.node_lost(&error.to_string()).await,
            Happened::Stored => self.stored(),
            Happened::Finished(outcome) => self.finished(outcome),
            Happened::TimePassed => self.time_passed().await,
        }
    }

    /// The node is read only while the log's readers and the recording keep up (T-95).
    fn may_read_node(&self) -> bool {
        let lag = self.client.as_ref().map_or(0, |client| self.log.end().saturating_sub(client.cursor));
        let backlog = self.recorder.as_ref().map_or(0, Recorder::backlog);
        // A broken recording takes nothing more, but the node's word that the program is gone must be heard.
        self.recorder.is_some() && lag < CLIENT_LAG && (backlog < RECORDER_LAG || self.recording_is_broken)
    }

    /// The client is read only while the node takes its input. While the node is away input is read and dropped: the
    /// client keeps it and is asked for it again when the node is back.
    fn may_read_client(&mut self) -> bool {
        self.node.stream().is_none_or(|stream| stream.writer.pending() < INPUT_AHEAD)
    }

    /// The session is over, and everybody was told.
    fn is_over(&mut self) -> bool {
        let node_told = self.node.stream().is_none_or(|stream| stream.writer.is_flushed());
        let client_told = self.client.as_ref().is_none_or(|client| client.end_fed && client.stream.writer.is_flushed());
        self.finished.is_some() && node_told && client_told
    }

    /// Feeds the client what is visible and its stream takes.
    fn deliver(&mut self) {
        let Some(client) = self.client.as_mut().filter(|client| client.accepted && client.backlog.is_none()) else {
            return;
        };
        while client.stream.writer.pending() < FEED_AHEAD {
            match self.log.read(client.cursor) {
                LogRead::Chunk(chunk) => client.feed_output(chunk),
                LogRead::OnDisk(until) => {
                    client.backlog = Some(backlog::read(&self.server, &self.facts.id, client.cursor, until));
                    return;
                }
                LogRead::AtEnd => break,
            }
        }
        if let Some(outcome) = self.finished.as_ref().filter(|_| client.cursor >= self.log.visible() && !client.end_fed)
        {
            client.stream.feed(&Frame::End(outcome.to_end()));
            client.end_fed = true;
        }
    }

    async fn backlog(&mut self, piece: Option<Result<super::log::Chunk, String>>) {
        let Some(client) = self.client.as_mut() else { return };
        match piece {
            Some(Ok(chunk)) => client.feed_output(chunk),
            Some(Err(error)) => self.client_lost(&format!("its backlog could not be read: {error}")).await,
            // Read up to where memory began; what followed since is found by `deliver`.
            None => client.backlog = None,
        }
    }

    // ---- orders

    async fn ordered(&mut self, order: Order) {
        match order {
            Order::Attach(stream, wish) => self.attach(stream, wish).await,
            Order::Rejoin(stream, rejoin) => self.rejoin(stream, &rejoin).await,
            Order::End { reason, message, done } => {
                self.done.extend(done);
                self.end(reason, message).await;
            }
            Order::Mark(text) => self.mark(text),
        }
    }

    async fn attach(&mut self, stream: FrameStream, wish: AttachSession) {
        if let Some(mut former) = self.client.take() {
            let message = "another client of yours took this session over".to_owned();
            former.stream.feed(&Frame::End(End { reason: "taken-over".to_owned(), message, exit: None }));
            close_in_background(former.stream);
        }
        if let Some((former, _)) = self.waiting.take() {
            close_in_background(former);
        }
        if self.node.is_running() || self.finishing.is_some() || self.finished.is_some() {
            self.accept(stream, &wish).await;
        } else {
            // Until the node tells how much input it has, a new client cannot know where its own begins.
            self.waiting = Some((stream, wish));
        }
    }

    /// Makes the stream the primary client.
    async fn accept(&mut self, stream: FrameStream, wish: &AttachSession) {
        let end = self.log.visible();
        let cursor = if wish.from_end { end } else { wish.output_from.min(end) };
        let mut client = ClientEnd::new(stream, cursor);
        client.stream.feed(&Frame::Accepted(Box::new(self.accepted(cursor))));
        client.accepted = true;
        self.client = Some(client);
        self.times.without_client = None;
        self.mark(format!("client attached at output {cursor}"));
        self.change(Change::Attached).await;
        if let Some(size) = wish.pty.as_ref().and_then(Pty::size) {
            self.resize(size);
        }
    }

    fn accepted(&self, output_from: u64) -> Accepted {
        Accepted {
            session_id: self.facts.id.to_string(),
            node_id: self.facts.node.to_string(),
            node_name: self.facts.node_name.clone(),
            os_user: self.facts.os_user.clone(),
            input_from: self.input_next,
            output_from,
            resume_window_secs: u32::try_from(self.facts.limits.resume_window.as_secs()).unwrap_or(u32::MAX),
            has_pty: self.facts.pty,
            pty: None,
            process_id: 0,
        }
    }

    async fn rejoin(&mut self, mut stream: FrameStream, rejoin: &Rejoin) {
        if self.finishing.is_some() || self.finished.is_some() {
            let message = "the session is over".to_owned();
            stream.feed(&Frame::Refused(Refused { code: "SessionEnded".to_owned(), message, ..Refused::default() }));
            close_in_background(stream);
            return;
        }
        let stored = self.log.end();
        stream.feed(&Frame::Rejoined(Rejoined { output_stored: stored }));
        self.node = NodeEnd::Running(stream);
        self.times.without_node = None;
        self.times.starting = None;
        if rejoin.output_from > stored {
            // The node forgot output that this server had acknowledged and no longer has: a power failure took it.
            self.recording_failed(&format!("{} bytes of output are lost", rejoin.output_from - stored));
        }
        if rejoin.input_received > self.input_recorded {
            // Typed and taken before this server was killed; what it was is not known, how much it was is.
            self.record_input(rejoin.input_received, Bytes::new());
        }
        self.input_next = rejoin.input_received;
        self.input_acked = self.input_acked.max(rejoin.input_received);
        self.output_acked = 0;
        self.stored();
        if let Some(size) = self.size {
            self.feed_node(&Frame::Resize(size));
        }
        self.mark("the node is back".to_owned());
        if let Some((stream, wish)) = self.waiting.take() {
            self.accept(stream, &wish).await;
        } else if self.client.as_ref().is_some_and(|client| !client.accepted) {
            self.started().await;
        } else if let Some(client) = &mut self.client {
            client.stream.feed(&Frame::InputWanted(rejoin.input_received));
            client.stream.feed(&Frame::InputAck(rejoin.input_received));
            let text = "the node is reachable again".to_owned();
            client.stream.feed(&Frame::Notice(Notice { text }));
        }
        let (attached, ending) = (self.client.is_some(), self.ending.clone());
        self.change(if attached { Change::Attached } else { Change::Detached }).await;
        if let Some((reason, message)) = ending {
            self.feed_node(&Frame::End(End { reason: reason.as_str().to_owned(), message, exit: None }));
        }
    }

    /// Orders the end of the session; the node says when the program is gone.
    async fn end(&mut self, reason: EndReason, message: String) {
        if self.finishing.is_some() || self.finished.is_some() {
            return;
        }
        if self.ending.is_none() {
            self.ending = Some((reason, message.clone()));
            self.mark(format!("ending: {message}"));
            self.change(Change::Ending).await;
        }
        match &self.node {
            // The run of the agent that had the program is gone: nobody is left to answer.
            _ if reason == EndReason::AgentDied => self.finish(reason, None),
            NodeEnd::Starting(..) | NodeEnd::Running(_) => {
                self.times.ending.get_or_insert_with(Instant::now);
                self.feed_node(&Frame::End(End { reason: reason.as_str().to_owned(), message, exit: None }));
            }
            NodeEnd::Away(_) | NodeEnd::Done(_) => self.finish(reason, None),
        }
    }

    // ---- client

    async fn heard_client(&mut self, frame: Frame) {
        match frame {
            Frame::Input { offset, data } => self.input(offset, data),
            Frame::InputEnd { offset } if offset == self.input_next => self.feed_node(&Frame::InputEnd { offset }),
            // Out of turn: it is sent again behind the input that is still missing.
            Frame::InputEnd { .. } => {}
            Frame::Resize(size) => self.resize(size),
            Frame::Signal(signal) => self.feed_node(&Frame::Signal(signal)),
            Frame::Detach => self.client_gone("the client detached").await,
            Frame::End(_) => self.end(EndReason::Terminated, "the person ended the session".to_owned()).await,
            // FrameSet::FROM_CLIENT lets nothing else through.
            _ => {}
        }
    }

    fn input(&mut self, offset: u64, data: Bytes) {
        if self.node.stream().is_none() || self.ending.is_some() {
            return;
        }
        // A gap means that the client was asked to go back and has not yet heard it.
        let Ok(Some(data)) = continue_at(self.input_next, offset, data) else { return };
        let offset = self.input_next;
        self.input_next += data.len() as u64;
        self.times.active = Instant::now();
        self.record_input(offset, data.clone());
        self.feed_node(&Frame::Input { offset, data });
    }

    /// Records input. What was recorded before (it is sent again after a broken link) is left out; what is missing
    /// before `offset` (it was taken while no server could record it) is recorded as so many bytes.
    fn record_input(&mut self, offset: u64, data: Bytes) {
        let from = self.input_recorded;
        if offset > from {
            self.record(EventKind::Input { offset: from, data: InputData::Hidden(offset - from) });
            self.input_recorded = offset;
        }
        let Ok(Some(new)) = continue_at(self.input_recorded, offset, data) else { return };
        let offset = self.input_recorded;
        self.input_recorded += new.len() as u64;
        let data = match self.facts.record_input {
            true => InputData::Bytes(new),
            false => InputData::Hidden(new.len() as u64),
        };
        self.record(EventKind::Input { offset, data });
    }

    fn resize(&mut self, size: TerminalSize) {
        if self.size != Some(size) {
            self.size = Some(size);
            self.record(EventKind::Resize(size));
            self.feed_node(&Frame::Resize(size));
        }
    }

    async fn client_lost(&mut self, why: &str) {
        if self.client.is_some() {
            tracing::debug!(session = %self.facts.id, why, "client lost");
            self.client_gone(&format!("client lost: {why}")).await;
        }
    }

    async fn client_gone(&mut self, why: &str) {
        let told = self.client.take().is_some_and(|client| client.end_fed);
        if told || self.finished.is_some() {
            return;
        }
        self.times.without_client = Some(Instant::now());
        self.mark(why.to_owned());
        self.change(Change::Detached).await;
    }

    // ---- node

    fn feed_node(&mut self, frame: &Frame) {
        if let Some(stream) = self.node.stream() {
            stream.feed(frame);
        }
    }

    async fn heard_node(&mut self, frame: Frame) {
        match frame {
            Frame::Accepted(_) => self.started().await,
            Frame::Refused(refused) => self.start_refused(refused),
            Frame::Output { offset, stream, data } => self.output(offset, stream, data).await,
            Frame::InputAck(offset) => self.input_acknowledged(offset),
            Frame::Exit(exit) => self.exited(exit),
            Frame::Notice(notice) => self.notify(notice.text),
            // The allow-lists let nothing else through.
            _ => {}
        }
    }

    async fn started(&mut self) {
        let node = std::mem::replace(&mut self.node, NodeEnd::Done(None));
        self.node = match node {
            NodeEnd::Starting(stream, _) => NodeEnd::Running(stream),
            other => other,
        };
        self.times.starting = None;
        let accepted = self.accepted(0);
        if let Some(client) = &mut self.client {
            client.stream.feed(&Frame::Accepted(Box::new(accepted)));
            client.accepted = true;
            self.change(Change::Attached).await;
        } else if let Some((stream, wish)) = self.waiting.take() {
            self.accept(stream, &wish).await;
        }
    }

    fn start_refused(&mut self, refused: Refused) {
        if let Some(mut client) = self.client.take() {
            client.stream.feed(&Frame::Refused(refused.clone()));
            close_in_background(client.stream);
        }
        self.ending = Some((EndReason::StartFailed, refused.message));
        self.finish(EndReason::StartFailed, None);
    }

    async fn output(&mut self, offset: u64, stream: OutputStream, data: Bytes) {
        let Ok(new) = continue_at(self.log.end(), offset, data) else {
            self.node_lost("the node left out output").await;
            return;
        };
        let Some(data) = new.filter(|_| !self.recording_is_broken) else { return };
        let bytes = data.clone();
        self.record(EventKind::Output { stream, offset: self.log.end(), bytes });
        self.log.append(stream, data);
        if self.facts.limits.idle_counts_output {
            self.times.active = Instant::now();
        }
        if !self.facts.limits.strict_recording {
            self.log.show(self.log.end());
        }
        if self.client.is_none() {
            self.trim();
        }
    }

    fn input_acknowledged(&mut self, offset: u64) {
        if offset > self.input_acked && offset <= self.input_next {
            self.input_acked = offset;
            if let Some(client) = &mut self.client {
                client.stream.feed(&Frame::InputAck(offset));
            }
        }
    }

    fn exited(&mut self, exit: Exit) {
        if exit.output_end != self.log.end() {
            self.mark(format!("the node counts {} bytes of output, the recording {}", exit.output_end, self.log.end()));
        }
        let reason = self.ending.as_ref().map_or(EndReason::Exited, |(reason, _)| *reason);
        let status = exit_status(&exit);
        // Only a half that lost the other one does not know how the program ended.
        let reason = if status.is_none() && reason == EndReason::Exited { EndReason::AgentDied } else { reason };
        self.finish(reason, status);
    }

    async fn node_lost(&mut self, why: &str) {
        if matches!(self.node, NodeEnd::Away(_)) {
            return;
        }
        tracing::debug!(session = %self.facts.id, why, "node lost");
        let was_starting = matches!(self.node, NodeEnd::Starting(..));
        if matches!(self.node, NodeEnd::Done(_)) {
            self.node = NodeEnd::Done(None);
            return;
        }
        let now = Instant::now();
        self.node = NodeEnd::Away(now);
        self.times.without_node = Some(now);
        self.times.ending = None;
        self.mark(format!("node lost: {why}"));
        if was_starting {
            // Whether the program started is not known; if it did, the node comes back with it.
            self.times.starting = Some(self.times.starting.unwrap_or(now));
        }
        if let Some((reason, _)) = self.ending {
            // It was being ended anyway; a node that comes back with it is told that it is over.
            self.finish(reason, None);
            return;
        }
        self.notify("the node is out of reach; the session goes on when it is back".to_owned());
        self.change(Change::Detached).await;
    }

    fn notify(&mut self, text: String) {
        if let Some(client) = self.client.as_mut().filter(|client| client.accepted) {
            client.stream.feed(&Frame::Notice(Notice { text }));
        }
    }

    // ---- recording

    fn at(&self) -> u64 {
        u64::try_from(clock::now().since(self.facts.started).as_micros()).unwrap_or(u64::MAX)
    }

    fn record(&mut self, kind: EventKind) {
        if self.recording_is_broken {
            return;
        }
        let event = Event { at: self.at(), kind };
        let failed = self.recorder.as_ref().and_then(|recorder| recorder.append(event).err());
        if let Some(error) = failed {
            self.recording_failed(&error.to_string());
        }
    }

    fn mark(&mut self, text: String) {
        self.record(EventKind::Marker { text });
    }

    /// A session that cannot be recorded stops (design idea 1).
    fn recording_failed(&mut self, why: &str) {
        if !self.recording_is_broken {
            self.recording_is_broken = true;
            tracing::error!(session = %self.facts.id, why, "a recording failed; its session is ended");
            let message = format!("the recording could not be written: {why}");
            self.ending = Some((EndReason::RecordingFailed, message.clone()));
            self.times.ending.get_or_insert_with(Instant::now);
            let reason = EndReason::RecordingFailed.as_str().to_owned();
            self.feed_node(&Frame::End(End { reason, message, exit: None }));
        }
    }

    fn stored(&mut self) {
        let progress = self.progress.borrow_and_update().clone();
        if let Some(why) = &progress.failed {
            self.recording_failed(why);
            return;
        }
        let strict = self.facts.limits.strict_recording;
        let stored = if strict { progress.durable_output } else { progress.written_output };
        if strict {
            self.log.show(stored);
        }
        if stored > self.output_acked {
            self.output_acked = stored;
            self.feed_node(&Frame::OutputAck(stored));
        }
        self.trim();
    }

    fn trim(&mut self) {
        let written = self.progress.borrow().written_output;
        let needed = self.client.as_ref().map_or(written, |client| client.cursor.min(written));
        self.log.trim(needed);
    }

    // ---- the end

    async fn time_passed(&mut self) {
        match self.times.due(Instant::now(), &self.facts.limits) {
            Due::Nothing => {}
            Due::Warn(text) => {
                self.mark(text.clone());
                self.notify(text);
            }
            Due::End(EndReason::NodeLost) => {
                self.ending.get_or_insert_with(|| (EndReason::NodeLost, EndReason::NodeLost.sentence().to_owned()));
                let reason = self.ending.as_ref().map_or(EndReason::NodeLost, |(reason, _)| *reason);
                self.finish(reason, None);
            }
            Due::End(reason) => self.end(reason, reason.sentence().to_owned()).await,
            Due::StartTimedOut => {
                let message = "the node did not answer in time; `munjigi doctor` on it may know why".to_owned();
                self.start_refused(Refused { code: "TargetNotConnected".to_owned(), message, ..Refused::default() });
            }
            Due::EndTimedOut => {
                let reason = self.ending.as_ref().map_or(EndReason::Terminated, |(reason, _)| *reason);
                self.mark("the node did not confirm the end".to_owned());
                self.finish(reason, None);
            }
        }
    }

    /// Seals the recording, then writes the end into store and trail; [`Self::finished`] follows.
    fn finish(&mut self, reason: EndReason, exit: Option<ExitStatus>) {
        let Some(recorder) = self.recorder.take() else { return };
        let (server, facts) = (self.server.clone(), self.facts.clone());
        let message = self.ending.take().map_or_else(|| reason.sentence().to_owned(), |(_, message)| message);
        let output_end = self.log.end();
        let at: Timestamp = clock::now();
        self.finishing = Some(tokio::spawn(async move {
            let sealed = recorder.seal(reason, exit.clone()).await;
            let outcome = Outcome { reason, message, exit, output_end, at };
            crate::sessions::ended(&server, &facts, &outcome, sealed).await;
            outcome
        }));
    }

    fn finished(&mut self, outcome: Outcome) {
        self.finishing = None;
        self.log.show(self.log.end());
        let outcome = Arc::new(outcome);
        // "Recorded, forget the session."
        self.feed_node(&Frame::OutputAck(self.log.end()));
        self.feed_node(&Frame::End(outcome.to_end()));
        self.node = match std::mem::replace(&mut self.node, NodeEnd::Done(None)) {
            NodeEnd::Running(stream) | NodeEnd::Starting(stream, _) => NodeEnd::Done(Some(stream)),
            _ => NodeEnd::Done(None),
        };
        if let Some((mut stream, _)) = self.waiting.take() {
            let message = outcome.message.clone();
            stream.feed(&Frame::Refused(Refused { code: "SessionEnded".to_owned(), message, ..Refused::default() }));
            close_in_background(stream);
        }
        self.server.gateway.forget(&self.facts.id);
        self.outcome.send_replace(Some(outcome.clone()));
        self.finished = Some(outcome);
    }

    async fn change(&self, change: Change) {
        crate::sessions::changed(&self.server, &self.facts, change).await;
    }
}

async fn flush_fed(
    writer: Option<&mut munjigi_link::framed::FrameWriter<super::peer::BoxWrite>>,
) -> Result<(), FramedError> {
    match writer.filter(|writer| !writer.is_flushed()) {
        Some(writer) => writer.flush().await,
        None => std::future::pending().await,
    }
}

async fn read(
    reader: Option<&mut munjigi_link::framed::FrameReader<super::peer::BoxRead>>,
    allowed: Option<FrameSet>,
) -> Result<Option<Frame>, FramedError> {
    match reader.zip(allowed) {
        Some((reader, allowed)) => reader.read(allowed).await,
        None => std::future::pending().await,
    }
}

async fn receive<T>(receiver: Option<&mut mpsc::Receiver<T>>, wanted: bool) -> Option<T> {
    match receiver.filter(|_| wanted) {
        Some(receiver) => receiver.recv().await,
        None => std::future::pending().await,
    }
}

async fn finish(task: Option<&mut JoinHandle<Outcome>>) -> Outcome {
    match task {
        Some(task) => match task.await {
            Ok(outcome) => outcome,
            Err(error) => {
                tracing::error!(%error, "the end of a session could not be written");
                let reason = EndReason::RecordingFailed;
                let message = reason.sentence().to_owned();
                Outcome { reason, message, exit: None, output_end: 0, at: clock::now() }
            }
        },
        None => std::future::pending().await,
    }
}
