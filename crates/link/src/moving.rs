//! A stream that begins on the multiplexer of a link and goes on, when it carries much, on a lane of its own.
//!
//! Whoever reads and writes does not notice: no byte is lost, doubled or reordered, each direction keeps its own end,
//! and what is not certain to be an end is an error. How the two ends agree:
//!
//! - Each end knows of the lane before it lets the other end use it: the server marks the stream before it says "ready"
//!   on the lane, the dialling end before it says so in turn. Each moves its writing only after it has heard that word.
//! - A direction moves by ending where it is and going on with the lane. So an end is a real one if no lane is known
//!   here, and else the lane tells: its first bytes, or its own end.
//! - A direction that had really ended when a lane came ends on the lane too.
//! - A stream is over when both directions have ended and no lane is on its way any more: else one end would wait for the
//!   word of a lane that the other end does not know.
//!
//! A lane whose keys are worn is replaced by another in the same way. When the link ends, its streams end with it,
//! wherever they travel: they live by the same permission.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::error::{DialError, LinkError};
use crate::lane::{Lane, LaneToken};
use crate::stream::Stream;

/// After so many bytes, both directions together, a stream is worth a lane.
const BULK_BYTES: u64 = 512 * 1024;
/// By so much the limit grows when a lane could not be dialled.
const RETRY_FACTOR: u64 = 16;
/// How long the other end may take to say that it is ready.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(10);

/// Most lanes that one dialler dials at once.
const DIALED_AT_ONCE: usize = 8;

/// Dials a lane for the stream of a token.
pub type LaneDialer = Arc<dyn Fn(LaneToken) -> LaneDialing + Send + Sync>;
/// The dialling of a lane.
pub type LaneDialing = Pin<Box<dyn Future<Output = Result<Lane, DialError>> + Send>>;

/// Lets a dialler dial so many lanes at once that a burst of bulk is no flood to the server, where a connection that has
/// not proved itself yet is one of few (T-91). The others wait for their turn.
pub fn in_turn(dial: LaneDialer) -> LaneDialer {
    let turns = Arc::new(Semaphore::new(DIALED_AT_ONCE));
    Arc::new(move |token| {
        let (turns, dial) = (Arc::clone(&turns), Arc::clone(&dial));
        Box::pin(async move {
            // Never closed, so it only waits.
            let _turn = turns.acquire().await;
            dial(token).await
        })
    })
}

/// Where a stream waits for its lane. The accepting end registers it under a token.
#[derive(Default)]
pub struct Berth {
    state: Mutex<State>,
    /// Whether the state is another than [`State::Empty`].
    occupied: AtomicBool,
    /// Whether this end is dialling a lane.
    dialing: AtomicBool,
    /// Whether the stream has a lane.
    has_lane: AtomicBool,
    /// Whether the stream is polled in another runtime than the one in which its lanes come.
    elsewhere: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

#[derive(Default)]
enum State {
    /// No lane.
    #[default]
    Empty,
    /// The other end may know of a lane, and use it from now on.
    Offered,
    /// It is ready.
    Ready(Box<Lane>),
    /// It was offered and broke: the other end may have used it.
    Lost,
    /// The stream is gone.
    Gone,
}

impl fmt::Debug for Berth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Berth").finish_non_exhaustive()
    }
}

impl Berth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        let mut current = self.lock();
        if !matches!(*current, State::Gone) {
            self.occupied.store(!matches!(state, State::Empty), Ordering::Release);
            *current = state;
        }
        drop(current);
        self.reader.wake();
        self.writer.wake();
    }

    /// Tells whether the stream has a lane: it carries much.
    pub fn has_lane(&self) -> bool {
        self.has_lane.load(Ordering::Acquire)
    }

    /// Has the stream's lanes watched by the runtime in which it is polled next and from then on.
    pub fn goes_elsewhere(&self) {
        self.elsewhere.store(true, Ordering::Release);
    }

    /// Brings a lane on which this end is expected to speak first (the accepting one) or second. Waits until both
    /// ends have said that they are ready.
    pub(crate) async fn bring(&self, mut lane: Lane, side: LaneSide) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the stream has no use for a lane");
        let agree = async {
            if matches!(side, LaneSide::Dialled) {
                lane.hear_ready().await?;
            }
            // Before the other end can hear anything of it.
            {
                let mut state = self.lock();
                if !matches!(*state, State::Empty) {
                    return Err(gone());
                }
                *state = State::Offered;
                self.occupied.store(true, Ordering::Release);
            }
            let offered = Offered(Some(self));
            lane.say_ready().await?;
            if matches!(side, LaneSide::Accepted) {
                lane.hear_ready().await?;
            }
            offered.kept();
            self.set(State::Ready(Box::new(lane)));
            Ok(())
        };
        timeout(READY_LIMIT, agree).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Which end of a lane this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneSide {
    /// The one that dialled.
    Dialled,
    /// The one that was dialled.
    Accepted,
}

/// Sees to it that an offer which comes to nothing is known to have been made.
struct Offered<'a>(Option<&'a Berth>);

impl Offered<'_> {
    fn kept(mut self) {
        self.0 = None;
    }
}

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        if let Some(berth) = self.0 {
            berth.set(State::Lost);
        }
    }
}

/// See the head of this file. As with [`Stream`], `shutdown` ends the writing direction only, and dropping what has
/// not ended is seen as a reset by the other side.
pub struct MovingStream {
    /// Kept when both directions have left it: it knows when the link ends.
    stream: Stream,
    /// Bytes that were read too early.
    early: BytesMut,
    /// The lane on which both directions are; `None`: they are on `stream`.
    lane: Option<Box<Lane>>,
    /// The lane to which directions move.
    next: Option<Box<Lane>>,
    read_moved: bool,
    write_moved: bool,
    read_ended: bool,
    write_ended: bool,
    /// The lanes that it has are watched where it is polled.
    settled: bool,
    berth: Arc<Berth>,
    dialer: Option<Dialer>,
    /// What lives as long as the stream.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

struct Dialer {
    dial: LaneDialer,
    token: LaneToken,
    bytes: u64,
    dial_at: u64,
    task: Option<JoinHandle<()>>,
}

/// Tells that a lane is not being dialled any more.
struct Dialing(Arc<Berth>);

impl Drop for Dialing {
    fn drop(&mut self) {
        self.0.dialing.store(false, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }
}

impl Drop for Dialer {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl fmt::Debug for MovingStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = (self.read_moved, self.write_moved);
        f.debug_struct("MovingStream").field("lane", &self.lane).field("moved", &moved).finish_non_exhaustive()
    }
}

impl MovingStream {
    /// Takes a stream that stays where it is, for a peer that knows no lanes.
    pub fn staying(stream: Stream) -> Self {
        Self::new(stream, Arc::default(), None, None)
    }

    /// Takes a stream for which the other end may dial lanes, which are brought to `berth`. `keep` lives as long as
    /// the stream: the registration of its token.
    pub fn accepting(stream: Stream, berth: Arc<Berth>, keep: impl Any + Send + Sync) -> Self {
        Self::new(stream, berth, None, Some(Box::new(keep)))
    }

    /// Takes a stream for which this end dials a lane once it has carried much.
    pub fn dialing(stream: Stream, token: LaneToken, dial: LaneDialer) -> Self {
        let dialer = Dialer { dial, token, bytes: 0, dial_at: BULK_BYTES, task: None };
        Self::new(stream, Arc::default(), Some(dialer), None)
    }

    fn new(
        stream: Stream,
        berth: Arc<Berth>,
        dialer: Option<Dialer>,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Self {
        Self {
            stream,
            early: BytesMut::new(),
            lane: None,
            next: None,
            read_moved: false,
            write_moved: false,
            read_ended: false,
            write_ended: false,
            settled: false,
            berth,
            dialer,
            _keep: keep,
        }
    }

    /// Puts bytes in front that were read already.
    pub fn unread(&mut self, early: BytesMut) {
        debug_assert!(self.early.is_empty(), "bytes are unread once");
        self.early = early;
    }

    /// Returns what knows of its lanes.
    pub fn berth(&self) -> Arc<Berth> {
        Arc::clone(&self.berth)
    }

    /// Tells whether a direction travels on a lane.
    pub fn has_moved(&self) -> bool {
        self.lane.is_some() || self.read_moved || self.write_moved
    }

    /// Fails when the link has ended; else the task hears of it.
    fn check(&self, cx: &Context<'_>, direction: Direction) -> io::Result<()> {
        if !self.has_moved() {
            // The stream says so itself.
            return Ok(());
        }
        match self.stream.ended(cx, direction == Direction::Read) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Takes the lane if there is one, ends on it what has ended already, and dials one if it is time. `Err`: a lane
    /// was lost, and with it possibly bytes.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.read_moved && self.write_moved {
            self.lane = self.next.take();
            self.read_moved = false;
            self.write_moved = false;
        }
        if self.next.is_none() && self.berth.occupied.load(Ordering::Acquire) {
            let mut state = self.berth.lock();
            if matches!(*state, State::Ready(_))
                && let State::Ready(lane) = std::mem::take(&mut *state)
            {
                self.berth.occupied.store(false, Ordering::Release);
                self.berth.has_lane.store(true, Ordering::Release);
                self.next = Some(lane);
                self.settled = false;
                if let Some(dialer) = &mut self.dialer {
                    dialer.token = dialer.token.next();
                    dialer.task = None;
                }
            }
        }
        if !self.settled && self.berth.elsewhere.load(Ordering::Acquire) {
            for lane in [&mut self.lane, &mut self.next] {
                if let Some(moving) = lane.take() {
                    *lane = Some(Box::new(moving.settle()?));
                }
            }
            self.settled = true;
        }
        if self.write_ended
            && !self.write_moved
            && let Some(next) = &mut self.next
        {
            // Where it was it has ended; the other end waits for the word of the lane.
            if Pin::new(next.as_mut()).poll_shutdown(cx)?.is_ready() {
                self.write_moved = true;
            }
        }
        self.hear_end(cx)
    }

    /// A direction that had ended before the lane came ends on the lane too. That word is waited for, since closing a
    /// socket with unread bytes in it would throw away what the other side has not yet got.
    fn hear_end(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.read_ended || self.read_moved {
            return Ok(());
        }
        let Some(next) = &mut self.next else { return Ok(()) };
        let mut space = [0; 1];
        let mut nothing = ReadBuf::new(&mut space);
        match Pin::new(next.as_mut()).poll_read(cx, &mut nothing)? {
            Poll::Ready(()) if nothing.filled().is_empty() => self.read_moved = true,
            Poll::Ready(()) => return Err(LinkError::StreamReset.into()),
            Poll::Pending => {}
        }
        Ok(())
    }

    fn carried(&mut self, count: usize) {
        let Some(dialer) = &mut self.dialer else { return };
        dialer.bytes = dialer.bytes.saturating_add(count as u64);
        let due = match &self.lane {
            None => dialer.bytes >= dialer.dial_at,
            Some(lane) => lane.is_worn(),
        };
        if !due || self.next.is_some() {
            return;
        }
        if self.berth.dialing.load(Ordering::Acquire) || self.berth.occupied.load(Ordering::Acquire) {
            return;
        }
        if dialer.task.take().is_some() {
            // It came to nothing.
            dialer.dial_at = dialer.bytes.saturating_mul(RETRY_FACTOR);
            return;
        }
        self.berth.dialing.store(true, Ordering::Release);
        let (lane, dialing) = ((dialer.dial)(dialer.token.clone()), Dialing(Arc::clone(&self.berth)));
        dialer.task = Some(tokio::spawn(async move {
            let brought = match lane.await {
                Ok(lane) => dialing.0.bring(lane, LaneSide::Dialled).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = brought {
                tracing::debug!(error, "no lane for a stream that carries much");
            }
        }));
    }

    /// Returns where bytes are read, or `None` for the multiplexer.
    fn read_lane(&mut self) -> Option<&mut Lane> {
        if self.read_moved { self.next.as_deref_mut() } else { self.lane.as_deref_mut() }
    }

    fn write_lane(&mut self) -> Option<&mut Lane> {
        if self.write_moved { self.next.as_deref_mut() } else { self.lane.as_deref_mut() }
    }

    /// Reads where the direction is at the moment.
    fn poll_read_here(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.read_lane() {
            Some(lane) => Pin::new(lane).poll_read(cx, buf),
            None => Pin::new(&mut self.stream).poll_read(cx, buf),
        }
    }

    /// The direction has ended where it was: finds out whether it goes on. `true`: it does.
    fn poll_goes_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.read_moved {
            return Poll::Ready(Ok(false));
        }
        // First the waker, then the look: the lane may come in between.
        self.berth.reader.register(cx.waker());
        self.look(cx)?;
        if self.next.is_some() {
            return Poll::Ready(Ok(true));
        }
        match *self.berth.lock() {
            State::Empty | State::Gone => Poll::Ready(Ok(false)),
            State::Offered | State::Ready(_) => Poll::Pending,
            State::Lost => Poll::Ready(Err(LinkError::StreamReset.into())),
        }
    }

    /// Both directions have ended: waits until no lane is on its way any more, and lets none come.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.read_ended || !self.write_ended {
            return Poll::Ready(Ok(()));
        }
        // First the wakers, then the looks.
        self.berth.reader.register(cx.waker());
        self.berth.writer.register(cx.waker());
        if self.berth.dialing.load(Ordering::Acquire) && !self.berth.occupied.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.look(cx)?;
        if self.next.is_some() && !(self.read_moved && self.write_moved) {
            return Poll::Pending;
        }
        let mut state = self.berth.lock();
        match *state {
            State::Empty => *state = State::Gone,
            State::Offered | State::Ready(_) => return Poll::Pending,
            State::Lost | State::Gone => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Moves the writing direction if there is a lane to move to.
    fn poll_move_writing(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.next.is_none() || self.write_moved {
            return Poll::Ready(Ok(()));
        }
        match &mut self.lane {
            Some(lane) => ready!(Pin::new(lane.as_mut()).poll_shutdown(cx))?,
            None => ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?,
        }
        self.write_moved = true;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

impl AsyncRead for MovingStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read_ended {
            this.check(cx, Direction::Read)?;
            return this.poll_settle(cx);
        }
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if !this.early.is_empty() {
            let take = this.early.len().min(buf.remaining());
            buf.put_slice(this.early.get(..take).unwrap_or_default());
            this.early.advance(take);
            return Poll::Ready(Ok(()));
        }
        this.check(cx, Direction::Read)?;
        this.look(cx)?;
        loop {
            let before = buf.filled().len();
            match this.poll_read_here(cx, buf)? {
                Poll::Ready(()) if buf.filled().len() > before => {
                    this.carried(buf.filled().len() - before);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(()) => match ready!(this.poll_goes_on(cx))? {
                    true => this.read_moved = true,
                    false => {
                        this.read_ended = true;
                        return this.poll_settle(cx);
                    }
                },
                Poll::Pending => {
                    this.berth.reader.register(cx.waker());
                    if this.next.is_none() && this.berth.occupied.load(Ordering::Acquire) {
                        this.look(cx)?;
                    }
                    return Poll::Pending;
                }
            }
            this.look(cx)?;
        }
    }
}

impl AsyncWrite for MovingStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        this.check(cx, Direction::Write)?;
        this.look(cx)?;
        ready!(this.poll_move_writing(cx))?;
        let written = match this.write_lane() {
            Some(lane) => Pin::new(lane).poll_write(cx, buf),
            None => Pin::new(&mut this.stream).poll_write(cx, buf),
        };
        match written {
            Poll::Ready(Ok(count)) => this.carried(count),
            // A full window on the multiplexer is what a lane is for.
            Poll::Pending => {
                this.berth.writer.register(cx.waker());
                if this.next.is_none() && this.berth.occupied.load(Ordering::Acquire) {
                    cx.waker().wake_by_ref();
                }
            }
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx, Direction::Write)?;
        match this.write_lane() {
            Some(lane) => Pin::new(lane).poll_flush(cx),
            None => Pin::new(&mut this.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(cx, Direction::Write)?;
        if !this.write_ended {
            match this.write_lane() {
                Some(lane) => ready!(Pin::new(lane).poll_shutdown(cx))?,
                None => ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?,
            }
            this.write_ended = true;
        }
        // A lane that came too late for this direction still has to say that it has ended.
        this.look(cx)?;
        this.poll_settle(cx)
    }
}

impl Drop for MovingStream {
    fn drop(&mut self) {
        self.berth.set(State::Gone);
    }
}

#[cfg(test)]
mod tests;
