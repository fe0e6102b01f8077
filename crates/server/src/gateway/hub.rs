//! The hub: one task per live session, between its node, its log and its primary client.
//!
//! The hub knows input bytes, output bytes, resize, signal, exit status and offsets; it knows no policy, no SQL and
//! not which door a client came through. What the node prints is appended to the log first and delivered from it.
//! The loop names everything that can happen in [`Happened`]; each is one method.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::sync::Arc;

use munjigi_core::session::{EndReason, TerminalSize};
use munjigi_core::wire::message::{AttachSession, Rejoin};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

mod client;
mod end;
mod node;
mod orders;

use super::facts::{Outcome, SessionFacts};
use super::log::{LogRead, SessionLog};
use super::peer::{ClientEnd, FrameStream, NodeEnd};
use super::ports::{ConnectionSummary, Ends, Ledger};
use super::timers::Times;
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
    /// Somebody watches now, or no longer: a line for the recording and for the person.
    Watcher(String),
}

/// Everything that can happen to a session.
enum Happened {
    ClientFlushed(Result<(), FramedError>),
    NodeFlushed(Result<(), FramedError>),
    Ordered(Option<Order>),
    FromClient(Result<Option<Frame>, FramedError>),
    Backlog(Option<Result<super::log::Chunk, String>>),
    FromNode(Result<Option<Frame>, FramedError>),
    Connections,
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
    /// The connections of a port session.
    ports: Option<Arc<Ledger>>,
    connections: ConnectionSummary,
    /// Connections of a forward session that ended, for the trail.
    ends: Ends,
    /// The rate by which connections were held up, for the trail.
    held_up_at: Option<NonZeroU64>,
    /// Number of the newest event in the recording, as the recorder counts them.
    recorded: u64,
    /// Under strict recording: up to which recorded event how many events of statements are not yet on the disk.
    unstored: VecDeque<(u64, u64)>,
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
    /// The connections of a port session.
    pub ports: Option<Arc<Ledger>>,
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
            ports: parts.ports,
            connections: ConnectionSummary::default(),
            ends: Ends::default(),
            held_up_at: None,
            recorded: 0,
            unstored: VecDeque::new(),
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
        let from_client = if self.ports.is_some() { FrameSet::FROM_PORT_CLIENT } else { FrameSet::FROM_CLIENT };
        // Connections and statements wait in the ledger while the recording is behind (T-95).
        let ports = self.ports.as_deref().filter(|_| self.may_record());
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
            frame = read(client_read, read_client.then_some(from_client)) => Happened::FromClient(frame),
            piece = receive(client_backlog, feed_client) => Happened::Backlog(piece),
            frame = read(node_read, allowed.filter(|_| read_node)) => Happened::FromNode(frame),
            () = connections(ports) => Happened::Connections,
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
            Happened::Connections => self.record_connections(),
            Happened::Stored => self.stored(),
            Happened::Finished(outcome) => self.finished(outcome),
            Happened::TimePassed => self.time_passed().await,
        }
        self.audit_ends().await;
    }

    /// The node is read only while the log's readers and the recording keep up (T-95).
    fn may_read_node(&self) -> bool {
        let lag = self.client.as_ref().map_or(0, |client| self.log.end().saturating_sub(client.cursor));
        lag < CLIENT_LAG && self.may_record()
    }

    /// The recording keeps up. A broken one takes nothing more, but the node's word that the program is gone must be
    /// heard.
    fn may_record(&self) -> bool {
        let behind = |recorder: &Recorder| recorder.backlog() >= RECORDER_LAG && !self.recording_is_broken;
        self.recorder.as_ref().is_some_and(|recorder| !behind(recorder))
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

    async fn change(&self, change: Change) {
        crate::sessions::changed(&self.server, &self.facts, change).await;
    }
}

async fn flush_fed(writer: Option<&mut super::peer::PeerWriter>) -> Result<(), FramedError> {
    match writer.filter(|writer| !writer.is_flushed()) {
        Some(writer) => writer.flush().await,
        None => std::future::pending().await,
    }
}

async fn read(
    reader: Option<&mut super::peer::PeerReader>,
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

async fn connections(ports: Option<&Ledger>) {
    match ports {
        Some(ports) => ports.changed().await,
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
                Outcome { reason, message, exit: None, output_end: 0, at: clock::now(), connections: None }
            }
        },
        None => std::future::pending().await,
    }
}
