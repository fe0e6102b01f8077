//! A standing link as its two ends see it, the same on both: open streams, accept streams, learn why it ended.
//!
//! One task owns the socket and the multiplexer (`driver`); everything here only talks to it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::{EndReason, LinkError};
use crate::lane::LaneToken;
use crate::moving::{LaneDialer, MovingStream};
use crate::stream::Stream;

/// Requests to open a stream that may wait for the connection's task.
const OPENS_WAITING: usize = 32;

/// Bounds of one link.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most streams open at once that this side opened, and as many again that the other side opened.
    pub max_streams: usize,
    /// Most streams that wait for [`Connection::accept`]; further ones are refused.
    pub accept_backlog: usize,
    /// A ping is sent when nothing was heard for this long.
    pub ping_interval: Duration,
    /// Each of two pings may stay unanswered for this long, then the link ends.
    pub ping_answer: Duration,
    /// How long an orderly close may take before the connection is dropped.
    pub close: Duration,
}

impl Limits {
    /// For a link to or from an agent: 512 streams each way. With 10 s and 5 s silence is noticed after 20 s.
    pub fn agent() -> Self {
        Self {
            max_streams: 512,
            accept_backlog: 512,
            ping_interval: Duration::from_secs(10),
            ping_answer: Duration::from_secs(5),
            close: Duration::from_secs(1),
        }
    }

    /// For a link to or from a client: 320 streams each way, which is all connections of a forward and some.
    pub fn client() -> Self {
        Self { max_streams: 320, accept_backlog: 320, ..Self::agent() }
    }
}

/// One end of a standing link. Dropping it closes the link and thereby every stream in it.
#[derive(Debug)]
pub struct Connection {
    opener: Opener,
    /// From the connection's task: streams that the other side opened.
    accepted: mpsc::Receiver<Box<Stream>>,
}

/// Opens streams on a link; cheap to clone. It does not keep the link alive.
#[derive(Debug, Clone)]
pub struct Opener {
    /// To the connection's task: wishes for a new stream.
    opens: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    shared: Arc<Shared>,
}

/// The connection task's ends of the two queues.
pub(crate) struct TaskEnds {
    pub(crate) opens: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    pub(crate) accepted: mpsc::Sender<Box<Stream>>,
}

impl Connection {
    /// Makes the handle and what the connection's task needs to serve it.
    pub(crate) fn new(limits: &Limits) -> (Self, TaskEnds, Arc<Shared>) {
        let shared = Arc::new(Shared::new(limits.max_streams));
        let (opens_tx, opens_rx) = mpsc::channel(OPENS_WAITING);
        let (accepted_tx, accepted_rx) = mpsc::channel(limits.accept_backlog.max(1));
        let opener = Opener { opens: opens_tx, shared: Arc::clone(&shared) };
        (Self { opener, accepted: accepted_rx }, TaskEnds { opens: opens_rx, accepted: accepted_tx }, shared)
    }

    /// Returns what opens streams on this link.
    pub fn opener(&self) -> Opener {
        self.opener.clone()
    }

    /// Waits for the next stream that the other side opened, `None` when the link has ended. A stream appears when
    /// its first bytes arrive.
    pub async fn accept(&mut self) -> Option<Stream> {
        self.accepted.recv().await.map(|stream| *stream)
    }

    /// Completes with the reason when the link has ended, whoever ended it.
    pub fn closed(&self) -> impl Future<Output = EndReason> + Send + 'static {
        self.opener.closed()
    }

    /// Says with what lanes are dialled for the streams of this link; the first word stays.
    pub fn set_lanes(&self, lanes: LaneDialer) {
        let _first_stays = self.opener.shared.lanes.set(lanes);
    }

    /// Says goodbye, bounded by [`Limits::close`], and waits until the connection is gone. What was written before is
    /// sent, and the other side's goodbye is awaited: one round trip. Whoever cannot wait drops the connection instead.
    /// Returns why the link ended: another reason than [`EndReason::ClosedHere`] came first.
    pub async fn close(self) -> EndReason {
        self.opener.shared.close_wanted.cancel();
        self.closed().await
    }

    /// As [`Opener::round_trip`].
    pub fn round_trip(&self) -> Option<Duration> {
        self.opener.round_trip()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.opener.shared.close_wanted.cancel();
    }
}

impl Opener {
    /// Opens a stream. No byte is sent yet: the other side learns of it with the first bytes written, so opening
    /// costs no round trip and an unused stream costs nothing.
    pub async fn open(&self) -> Result<Stream, LinkError> {
        if let Some(reason) = self.shared.reason() {
            return Err(LinkError::Ended(reason));
        }
        let slot = Slot::take(&self.shared, Side::Here)?;
        let (answer_tx, answer_rx) = oneshot::channel();
        let ended = |_| LinkError::Ended(self.shared.reason_or_internal());
        // Waiting here is the backpressure on whoever opens faster than the task can serve.
        self.opens.send(answer_tx).await.map_err(|_| ended(()))?;
        let raw = answer_rx.await.map_err(|_| ended(()))?;
        Ok(Stream::new(raw, slot))
    }

    /// Returns the round trip of the last answered ping, `None` before the first: pings are sent only when nothing
    /// was heard for a while.
    pub fn round_trip(&self) -> Option<Duration> {
        match self.shared.round_trip_micros.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// Takes a stream of this link on which `token` came for a lane; it is dialled when the stream has carried much.
    pub fn moving(&self, stream: Stream, token: &[u8]) -> MovingStream {
        match (LaneToken::from_bytes(token), self.shared.lanes.get()) {
            (Some(token), Some(lanes)) => MovingStream::dialing(stream, token, Arc::clone(lanes)),
            _ => MovingStream::staying(stream),
        }
    }

    /// As [`Connection::closed`].
    pub fn closed(&self) -> impl Future<Output = EndReason> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move {
            shared.done.cancelled().await;
            shared.reason_or_internal()
        }
    }
}

/// What the connection's task, the handles and the streams share.
pub(crate) struct Shared {
    /// Why the link ended; set once, before any stream learns that it did.
    reason: OnceLock<EndReason>,
    /// Cancelled by the owner to ask for an orderly close.
    pub(crate) close_wanted: CancellationToken,
    /// Cancelled by the task as its last act.
    done: CancellationToken,
    /// What dials lanes, on the dialling side.
    lanes: OnceLock<LaneDialer>,
    /// Round trip of the last answered ping; 0 before the first.
    round_trip_micros: AtomicU64,
    /// The socket takes nothing at the moment.
    blocked: AtomicBool,
    max_streams: usize,
    opened_here: AtomicUsize,
    opened_by_peer: AtomicUsize,
    /// The number of the last stream whose first frame was also its last; 0 before. It is entered before the next
    /// frame is read, so one is enough.
    born_finished: AtomicU32,
    /// Streams that were dropped without having ended their direction, until the multiplexer says so to the other side:
    /// it calls that an orderly end when the other side has ended its own. Bounded by the streams there may be.
    abandoned: Mutex<HashSet<u32>>,
    /// The live streams by their number in the multiplexer. Held for single map operations only.
    signs: Mutex<HashMap<u32, Arc<Signs>>>,
}

/// What the connection's task tells one stream beside its bytes.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    /// Who waits to read.
    pub(crate) reader: AtomicWaker,
    /// Who waits to write.
    pub(crate) writer: AtomicWaker,
    /// The other side has finished writing in good order.
    pub(crate) finished: AtomicBool,
    /// The other side has dropped the stream.
    pub(crate) reset: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("reason", &self.reason.get()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(max_streams: usize) -> Self {
        Self {
            reason: OnceLock::new(),
            close_wanted: CancellationToken::new(),
            done: CancellationToken::new(),
            lanes: OnceLock::new(),
            round_trip_micros: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            max_streams,
            opened_here: AtomicUsize::new(0),
            opened_by_peer: AtomicUsize::new(0),
            born_finished: AtomicU32::new(0),
            abandoned: Mutex::new(HashSet::new()),
            signs: Mutex::new(HashMap::new()),
        }
    }

    /// Records why the link ends; the first reason stays.
    pub(crate) fn set_reason(&self, reason: EndReason) {
        // A later reason is a consequence of the first.
        let _first_stays = self.reason.set(reason);
    }

    /// Returns why the link ended, if it did.
    pub(crate) fn reason(&self) -> Option<EndReason> {
        self.reason.get().cloned()
    }

    fn reason_or_internal(&self) -> EndReason {
        self.reason().unwrap_or(EndReason::Internal)
    }

    /// Wakes everybody; the connection's task does this when it ends, however it ends.
    pub(crate) fn finish(&self) {
        self.set_reason(EndReason::Internal);
        let signs: Vec<_> = self.signs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for signs in signs {
            signs.reader.wake();
            signs.writer.wake();
        }
        self.done.cancel();
    }

    pub(crate) fn set_round_trip(&self, round_trip: Duration) {
        let micros = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1);
        self.round_trip_micros.store(micros, Ordering::Relaxed);
    }

    /// Says whether the socket takes bytes; see [`Shared::is_blocked`].
    pub(crate) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// While the socket is blocked, the multiplexer does not clear away dropped streams, so no new ones are opened.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// Notes that the stream which is about to be entered has already ended for reading.
    pub(crate) fn set_born_finished(&self, number: u32) {
        self.born_finished.store(number, Ordering::Release);
    }

    /// Returns the live stream of this number.
    pub(crate) fn signs(&self, number: u32) -> Option<Arc<Signs>> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// Takes note that a stream is being dropped whose direction from here has not ended.
    fn set_abandoned(&self, number: u32) {
        if self.reason.get().is_none() {
            self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).insert(number);
        }
    }

    /// Tells whether the end of a stream, which is about to be sent, is none in truth.
    pub(crate) fn take_abandoned(&self, number: u32) -> bool {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }

    fn counter(&self, side: Side) -> &AtomicUsize {
        match side {
            Side::Here => &self.opened_here,
            Side::Peer => &self.opened_by_peer,
        }
    }
}

/// Which end opened a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Here,
    Peer,
}

/// A stream's place among the allowed ones; given back when it is dropped.
///
/// INVARIANT: the multiplexer never holds more live streams than there are slots: above its own limit it would end
/// the whole connection.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    side: Side,
    number: Option<u32>,
}

impl Slot {
    /// Takes a place, or says that all are taken.
    pub(crate) fn take(shared: &Arc<Shared>, side: Side) -> Result<Self, LinkError> {
        let limit = shared.max_streams;
        shared
            .counter(side)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| (count < limit).then_some(count + 1))
            .map_err(|_| LinkError::TooManyStreams { limit })?;
        Ok(Self { shared: Arc::clone(shared), side, number: None })
    }

    /// Enters the stream among the live ones.
    pub(crate) fn enter(&mut self, number: u32) -> Arc<Signs> {
        let signs = Arc::new(Signs::default());
        signs.finished.store(self.shared.born_finished.load(Ordering::Acquire) == number, Ordering::Release);
        self.number = Some(number);
        self.shared.signs.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::clone(&signs));
        signs
    }

    /// See [`Shared::set_abandoned`].
    pub(crate) fn abandon(&self) {
        if let Some(number) = self.number {
            self.shared.set_abandoned(number);
        }
    }

    /// Returns why the link ended, if it did.
    pub(crate) fn link_ended(&self) -> Option<EndReason> {
        self.shared.reason()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.shared.signs.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        }
        self.shared.counter(self.side).fetch_sub(1, Ordering::AcqRel);
    }
}
