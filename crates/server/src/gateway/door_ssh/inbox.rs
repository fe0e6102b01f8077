//! What a client sends on a connection's bulk channels, until somebody takes it: counted in bytes, and given back to the
//! client's window only when it was taken.
//!
//! russh would give the window back on arrival, and wait with the whole connection for a reader that is slow; so data of
//! these channels comes here instead (decision 0025). A channel begins with a small window. One whose reader keeps up
//! borrows more from what the connection has in common, so that all channels together hold no more than that (T-95).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use russh::ChannelId;
use russh::server::Handle;
use tokio::io::ReadBuf;

use crate::lock;

/// Window of a channel that begins. A few packets: requests and keystrokes need no more.
pub(crate) const FIRST_WINDOW: u32 = 128 * 1024;
/// Largest window of a channel: 100 ms of 1.3 Gbit/s.
const MAX_WINDOW: u32 = 16 * 1024 * 1024;
/// Window up to which whoever keeps up borrows, as large as OpenSSH's own. OpenSSH's client keeps what it may send in one buffer
/// that it copies again and again while it drains, so more is lent only where it is needed: over a long way. Where it is not, the
/// larger one made uploads through a `ProxyCommand`, whose pipe takes 64 KiB at a time, slower by a factor of two to ten.
const EASY_WINDOW: u32 = 2 * 1024 * 1024;
/// A reader that waits so long for the answer to a grown window is at the end of a long way: at less, [`EASY_WINDOW`] carries
/// 400 Mbit/s and more.
const LONG_WAIT: Duration = Duration::from_millis(40);
/// So many of such waits in a row are none for a turn on a busy machine.
const LONG_WAITS: u32 = 2;
/// What all channels of a connection may borrow together beyond their first windows.
const COMMON: u32 = 16 * 1024 * 1024;
/// Data shorter than this is put together, so that what many small packets cost is their bytes.
const SMALL: usize = 1024;

/// The inboxes of one connection.
pub(crate) struct Inboxes {
    open: Mutex<HashMap<ChannelId, Arc<Shared>>>,
    /// Left of [`COMMON`].
    common: Arc<AtomicU32>,
}

impl Default for Inboxes {
    fn default() -> Self {
        Self { open: Mutex::default(), common: Arc::new(AtomicU32::new(COMMON)) }
    }
}

impl Inboxes {
    /// Opens the inbox of a channel; what comes for it is kept from now on. The channel begins with [`FIRST_WINDOW`].
    pub(super) fn open(self: &Arc<Self>, id: ChannelId, handle: Handle) -> Inbox {
        Inbox { id, handle, shared: self.shared(id), all: self.clone() }
    }

    /// Takes note that the client has confirmed a channel of ours.
    pub(crate) fn confirmed(&self, id: ChannelId) {
        self.shared(id);
    }

    fn shared(&self, id: ChannelId) -> Arc<Shared> {
        let shared = || Arc::new(Shared { state: Mutex::new(State::new()), common: self.common.clone() });
        lock(&self.open).entry(id).or_insert_with(shared).clone()
    }

    /// Takes what came for a channel; returns what is for no inbox. Data beside the stream (`ext`) has no meaning on these
    /// channels and is dropped.
    pub(crate) fn take(&self, id: ChannelId, ext: Option<u32>, data: Bytes) -> Option<Bytes> {
        let Some(shared) = lock(&self.open).get(&id).cloned() else { return Some(data) };
        lock(&shared.state).put(data, ext.is_some());
        None
    }

    /// Takes note that the client sends no more data on a channel.
    pub(crate) fn ended(&self, id: ChannelId) {
        self.mark(id, |state| state.ended = true);
    }

    /// Takes note that the client has closed a channel.
    pub(crate) fn closed(&self, id: ChannelId) {
        self.mark(id, |state| state.closed = true);
    }

    fn mark(&self, id: ChannelId, how: impl FnOnce(&mut State)) {
        let shared = lock(&self.open).get(&id).cloned();
        if let Some(shared) = shared {
            let mut state = lock(&shared.state);
            how(&mut state);
            state.wake();
        }
    }
}

/// What a channel and its reader share.
struct Shared {
    state: Mutex<State>,
    common: Arc<AtomicU32>,
}

#[derive(Default)]
struct State {
    /// In order; behind it comes `small`.
    large: VecDeque<Bytes>,
    small: BytesMut,
    /// Bytes in both.
    queued: usize,
    /// What the client may have on its way and here together.
    window: u32,
    /// Of that, what was borrowed.
    borrowed: u32,
    /// Taken, and not yet given back to the client.
    taken: u32,
    ended: bool,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// What came in all.
    received: u64,
    /// What the client was allowed to have sent in all, each time that this grew and as far as it was not yet reached: the
    /// oldest first, at most three, since each allows half a window more.
    allowed: VecDeque<u64>,
    /// Since when the reader waits for a client that had sent all that it knew it might.
    waiting: Option<Instant>,
    /// How many of such waits were long, one after another, since the window grew last.
    long_waits: u32,
}

impl State {
    fn new() -> Self {
        Self { window: FIRST_WINDOW, allowed: VecDeque::from([u64::from(FIRST_WINDOW)]), ..Self::default() }
    }

    /// Takes note that the reader waits. Only a client that has just sent as much as one of its windows allowed waits for the
    /// way; any other one has nothing to say.
    fn waits(&mut self) {
        if self.allowed.contains(&self.received) {
            self.waiting.get_or_insert_with(Instant::now);
        }
    }

    fn waited(&mut self, time: Duration) {
        self.long_waits = if time >= LONG_WAIT { self.long_waits.saturating_add(1) } else { 0 };
    }

    fn came(&mut self, count: usize) {
        if let Some(since) = self.waiting.take() {
            self.waited(since.elapsed());
        }
        self.received = self.received.saturating_add(count as u64);
        while self.allowed.pop_front_if(|allowed| *allowed < self.received).is_some() {}
    }

    fn put(&mut self, data: Bytes, drop: bool) {
        self.came(data.len());
        if drop {
            // The window enforces that it is no more than that.
            self.taken = self.taken.saturating_add(u32::try_from(data.len()).unwrap_or(u32::MAX));
        } else {
            self.queued = self.queued.saturating_add(data.len());
            if data.len() < SMALL {
                self.small.extend_from_slice(&data);
            } else {
                if !self.small.is_empty() {
                    self.large.push_back(std::mem::take(&mut self.small).freeze());
                }
                self.large.push_back(data);
            }
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Moves bytes to the reader.
    fn get(&mut self, buf: &mut ReadBuf<'_>) {
        let mut moved = 0;
        while buf.remaining() > 0 {
            if self.large.is_empty() && !self.small.is_empty() {
                self.large.push_back(std::mem::take(&mut self.small).freeze());
            }
            let Some(first) = self.large.front_mut() else { break };
            let count = first.len().min(buf.remaining());
            buf.put_slice(first.get(..count).unwrap_or_default());
            first.advance(count);
            moved += count;
            if first.is_empty() {
                self.large.pop_front();
            }
        }
        self.queued = self.queued.saturating_sub(moved);
        self.taken = self.taken.saturating_add(u32::try_from(moved).unwrap_or(u32::MAX));
    }

    /// Returns the next piece, not longer than a packet or what was put together; empty if there is none.
    fn piece(&mut self) -> Bytes {
        let piece = self.large.pop_front().unwrap_or_else(|| std::mem::take(&mut self.small).freeze());
        self.queued = self.queued.saturating_sub(piece.len());
        self.taken = self.taken.saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
        piece
    }

    /// Returns by how much the client's window shall grow now, if it shall: when half of it was taken. A reader that
    /// has left nothing was waiting for the client, and gets twice as much as long as there is something to borrow; beyond
    /// [`EASY_WINDOW`] only over a long way.
    fn grow(&mut self, common: &AtomicU32) -> Option<u32> {
        if self.taken < self.window / 2 {
            return None;
        }
        let mut amount = std::mem::take(&mut self.taken);
        let most = if self.long_waits >= LONG_WAITS { MAX_WINDOW } else { EASY_WINDOW };
        if self.queued == 0 && self.window < most {
            let more = self.window.min(MAX_WINDOW - self.window);
            if common.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more)).is_ok() {
                self.borrowed += more;
                self.window += more;
                self.long_waits = 0;
                amount = amount.saturating_add(more);
            }
        }
        let allowed = self.received.saturating_add(u64::from(self.window)).saturating_sub(self.queued as u64);
        self.allowed.push_back(allowed);
        Some(amount)
    }
}

/// A channel's reading side. Dropping it gives back what was borrowed.
pub(super) struct Inbox {
    id: ChannelId,
    handle: Handle,
    shared: Arc<Shared>,
    all: Arc<Inboxes>,
}

impl Inbox {
    /// Reads as [`tokio::io::AsyncRead`] does. A channel that was closed before its data ended is broken.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        self.poll_with(cx, |state| state.get(buf)).map_ok(Option::unwrap_or_default)
    }

    /// Takes a piece of what came; empty at the end of data.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<Bytes>> {
        self.poll_with(cx, State::piece).map_ok(Option::unwrap_or_default)
    }

    /// Waits until there is something to take; `None`: nothing more comes.
    fn poll_with<T>(
        &self,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut State) -> T,
    ) -> Poll<std::io::Result<Option<T>>> {
        let mut state = lock(&self.shared.state);
        if state.queued > 0 {
            let taken = take(&mut state);
            if let Some(amount) = state.grow(&self.shared.common).filter(|_| !state.closed) {
                self.handle.grow_window(self.id, amount);
            }
            return Poll::Ready(Ok(Some(taken)));
        }
        match (state.ended, state.closed) {
            (true, _) => Poll::Ready(Ok(None)),
            (false, true) => Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into())),
            (false, false) => {
                state.reader = Some(cx.waker().clone());
                state.waits();
                Poll::Pending
            }
        }
    }

    /// Tells whether the client has closed the channel; if not, the task hears of it once it has.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> bool {
        let mut state = lock(&self.shared.state);
        if !state.closed {
            state.writer = Some(cx.waker().clone());
        }
        state.closed
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        lock(&self.all.open).remove(&self.id);
        let borrowed = std::mem::take(&mut lock(&self.shared.state).borrowed);
        self.shared.common.fetch_add(borrowed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(state: &mut State, most: usize) -> Vec<u8> {
        let mut memory = vec![0; most];
        let mut buf = ReadBuf::new(&mut memory);
        state.get(&mut buf);
        buf.filled().to_vec()
    }

    fn state() -> State {
        State::new()
    }

    #[test]
    fn bytes_come_out_in_order_whatever_the_sizes() {
        let mut state = state();
        let mut expected = Vec::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..2000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let data: Vec<u8> = (0..seed % 3000).map(|i| (seed.wrapping_add(i) % 251) as u8).collect();
            expected.extend_from_slice(&data);
            state.put(Bytes::from(data), false);
        }
        assert_eq!(state.queued, expected.len());
        let mut got = Vec::new();
        while state.queued > 0 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            got.extend(read(&mut state, 1 + (seed % 5000) as usize));
        }
        assert!(got == expected && state.large.is_empty() && state.small.is_empty());
        assert_eq!(state.taken as usize, expected.len());
    }

    #[test]
    fn many_small_packets_cost_their_bytes() {
        let mut state = state();
        for _ in 0..FIRST_WINDOW {
            state.put(Bytes::from_static(b"x"), false);
        }
        assert!(state.large.is_empty() && state.small.capacity() <= 2 * FIRST_WINDOW as usize);
    }

    #[test]
    fn the_window_comes_back_only_for_what_was_taken() {
        let common = AtomicU32::new(0);
        let mut state = state();
        state.put(Bytes::from(vec![0; FIRST_WINDOW as usize]), false);
        assert_eq!(state.grow(&common), None, "arrival gives nothing back");
        read(&mut state, FIRST_WINDOW as usize / 2 - 1);
        assert_eq!(state.grow(&common), None);
        read(&mut state, 1);
        assert_eq!(state.grow(&common), Some(FIRST_WINDOW / 2));
        assert_eq!(state.grow(&common), None);
        state.put(Bytes::from(vec![0; FIRST_WINDOW as usize / 2]), true);
        assert_eq!(state.grow(&common), Some(FIRST_WINDOW / 2), "what is dropped counts as taken");
    }

    #[test]
    fn who_keeps_up_borrows_until_nothing_is_left() {
        let common = AtomicU32::new(3 * FIRST_WINDOW);
        let mut quick = state();
        let turn = |state: &mut State| {
            let window = state.window as usize;
            state.put(Bytes::from(vec![0; window]), false);
            read(state, window);
            state.grow(&common).unwrap()
        };
        assert_eq!(turn(&mut quick), 2 * FIRST_WINDOW);
        assert_eq!(turn(&mut quick), 4 * FIRST_WINDOW);
        assert_eq!((quick.window, quick.borrowed), (4 * FIRST_WINDOW, 3 * FIRST_WINDOW));
        assert_eq!(turn(&mut quick), 4 * FIRST_WINDOW, "nothing is left");
        let mut slow = state();
        common.store(COMMON, Ordering::Relaxed);
        slow.put(Bytes::from(vec![0; FIRST_WINDOW as usize]), false);
        read(&mut slow, FIRST_WINDOW as usize / 2);
        assert_eq!(slow.grow(&common), Some(FIRST_WINDOW / 2), "who is behind borrows nothing");
        assert_eq!(common.load(Ordering::Relaxed), COMMON);
    }

    #[test]
    fn a_window_has_a_largest_size() {
        let common = AtomicU32::new(u32::MAX);
        let mut state = state();
        let turn = |state: &mut State, long_waits| {
            (state.taken, state.long_waits) = (state.window, long_waits);
            state.grow(&common).unwrap();
            state.window
        };
        for _ in 0..32 {
            turn(&mut state, LONG_WAITS - 1);
        }
        assert_eq!(state.window, EASY_WINDOW, "a short way needs no more");
        for _ in 0..32 {
            turn(&mut state, LONG_WAITS);
        }
        assert_eq!(state.window, MAX_WINDOW);
    }

    /// Lets as much come as the client may send, or `less`, after the reader has waited for so long; takes it.
    fn round(state: &mut State, less: usize, waited: Duration) {
        state.waits();
        if state.waiting.take().is_some() {
            state.waited(waited);
        }
        let count = state.window as usize - state.taken as usize - less;
        state.put(Bytes::from(vec![0; count]), false);
        read(state, count);
        state.grow(&AtomicU32::new(COMMON));
    }

    #[test]
    fn a_long_way_is_known_by_waits_for_the_answer_to_a_window() {
        let mut state = state();
        for _ in 0..64 {
            round(&mut state, 0, LONG_WAIT);
        }
        assert_eq!(state.window, MAX_WINDOW);
        assert!(state.allowed.len() <= 3);
    }

    #[test]
    fn who_has_nothing_to_say_for_a_while_is_not_far_away() {
        let mut state = state();
        for _ in 0..64 {
            // It had not sent all that it might when the wait began.
            round(&mut state, 1, LONG_WAIT * 10);
        }
        assert!(state.window <= EASY_WINDOW && state.long_waits == 0, "{} {}", state.window, state.long_waits);
        assert!(state.allowed.len() <= 3);
    }

    #[test]
    fn one_long_wait_alone_is_one_for_a_turn() {
        let mut state = state();
        for number in 0..64 {
            round(&mut state, 0, if number % 2 == 0 { LONG_WAIT } else { Duration::ZERO });
        }
        assert_eq!(state.window, EASY_WINDOW);
    }
}
