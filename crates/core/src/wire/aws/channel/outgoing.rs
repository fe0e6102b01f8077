//! What is sent: numbered, kept until acknowledged, sent again when overdue or on a new socket, held by the window.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::Millis;
use super::super::message::{AgentMessage, FLAG_SYN, PayloadType};
use super::limits::{ChannelLimits, OVERHEAD};
use super::rtt::Rtt;
use super::window::Window;
use super::{Full, MessageIds, Role};

/// Most messages between the oldest that is not acknowledged and the newest: AWS's plugin keeps 10 000 that come early
/// and drops what comes beyond.
const MOST_AHEAD: usize = 8_000;
/// After how many attempts on a socket a message of an earlier one no longer keeps the next from being sent.
const ATTEMPTS: usize = 3;
/// Up to how many attempts the time from the first one to the acknowledgement counts as a measurement. On a socket an
/// answer that came late is far more likely than a lost one, and a path slower than the first timeout would otherwise
/// never be measured; more attempts speak for a peer that refused.
const MEASURED_ATTEMPTS: u32 = 5;

/// A message in the stream.
#[derive(Debug)]
struct Entry {
    kind: PayloadType,
    /// Payload and [`OVERHEAD`].
    bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Never sent.
    Waiting(Bytes),
    /// Sent at least once and not acknowledged.
    Sent(Sent),
    /// Acknowledged while an older one is not.
    Acknowledged,
}

#[derive(Debug)]
struct Sent {
    frame: Bytes,
    /// The socket on which it was sent first.
    first_epoch: u32,
    /// How often it was sent on the present socket.
    attempts: u32,
    /// When it was sent first and last on the present socket.
    first_at: Millis,
    at: Millis,
    /// Its places in the order of all transmissions: first and last on the present socket.
    first_order: u64,
    last_order: u64,
    /// Counts towards what is in flight.
    in_flight: bool,
}

/// The sending half of a channel.
#[derive(Debug)]
pub(super) struct Outgoing {
    role: Role,
    limits: ChannelLimits,
    /// Everything not acknowledged, and what is between; the front never is acknowledged.
    entries: VecDeque<Entry>,
    /// Number of the front.
    first: i64,
    /// How many entries, from the front, were sent on the present socket.
    sent: usize,
    /// Bytes sent on the present socket, and on no earlier one, that the peer may still be busy with.
    in_flight: usize,
    /// Bytes never sent, overhead included.
    waiting: usize,
    /// Entries not acknowledged.
    open: usize,
    /// Counts sockets.
    epoch: u32,
    /// Counts transmissions.
    order: u64,
    /// The peer has taken data in order: its handler stands.
    peer_is_ready: bool,
    rtt: Rtt,
    window: Window,
    /// Before this nothing new is sent.
    not_before: Millis,
    /// When the oldest message was acknowledged last.
    progress: Millis,
}

impl Outgoing {
    pub(super) fn new(role: Role, limits: ChannelLimits) -> Self {
        Self {
            role,
            entries: VecDeque::new(),
            first: 0,
            sent: 0,
            in_flight: 0,
            waiting: 0,
            open: 0,
            epoch: 0,
            order: 0,
            peer_is_ready: false,
            rtt: Rtt::default(),
            window: Window::new(&limits),
            not_before: Millis(0),
            progress: Millis(0),
            limits,
        }
    }

    pub(super) fn queue(&mut self, kind: PayloadType, mut payload: Bytes) -> Result<(), Full> {
        if payload.len() > self.room() {
            return Err(Full);
        }
        if matches!(kind, PayloadType::Output | PayloadType::StdErr) {
            while payload.len() > self.limits.payload {
                let piece = payload.split_to(cut(&payload, self.limits.payload));
                self.push(kind, piece);
            }
        }
        self.push(kind, payload);
        Ok(())
    }

    fn push(&mut self, kind: PayloadType, payload: Bytes) {
        if !payload.is_empty() {
            let bytes = payload.len() + OVERHEAD;
            self.waiting += bytes;
            self.open += 1;
            self.entries.push_back(Entry { kind, bytes, state: State::Waiting(payload) });
        }
    }

    pub(super) fn room(&self) -> usize {
        (self.window.bytes() + self.limits.queue).saturating_sub(self.waiting + self.in_flight)
    }

    pub(super) const fn unacknowledged(&self) -> usize {
        self.open
    }

    /// Returns the next frame: the oldest one again if it is overdue, else the next one in order.
    pub(super) fn next_transmission(&mut self, now: Millis, unix_ms: u64, ids: &mut MessageIds) -> Option<Bytes> {
        if self.overdue().is_some_and(|due| due <= now) {
            return self.transmit(0, now, unix_ms, ids);
        }
        // Acknowledged entries before the next one to send are behind a gap that an earlier socket left.
        while self.entries.get(self.sent).is_some_and(|entry| matches!(entry.state, State::Acknowledged)) {
            self.sent += 1;
        }
        if now < self.not_before || !self.may_send() {
            return None;
        }
        let frame = self.transmit(self.sent, now, unix_ms, ids);
        self.sent += 1;
        self.not_before = now.after(self.limits.gap_ms);
        frame
    }

    /// Tells whether the next entry may go out now.
    fn may_send(&self) -> bool {
        let Some(next) = self.entries.get(self.sent) else { return false };
        // AWS's plugin looks for handshake messages only in order, and refuses without a word what comes before its
        // handler stands, or on a port before the first local connection: so one message at a time until the first is taken.
        // That bounds what it piles up behind the refused one, too.
        if !self.peer_is_ready || next.kind.is_handshake_of_agent() {
            return self.only_old_numbers();
        }
        let fits = self.in_flight == 0 || self.in_flight + next.bytes <= self.window.bytes();
        // What an earlier socket carried already goes out at once: it fitted that socket's window.
        (fits || matches!(next.state, State::Sent(_))) && self.sent < MOST_AHEAD
    }

    /// Tells whether nothing is out that the peer may still have to take: nothing at all, or messages of earlier sockets
    /// that it does not answer because it had them already.
    fn only_old_numbers(&self) -> bool {
        let mut out = self.entries.iter().take(self.sent).filter_map(|entry| match &entry.state {
            State::Sent(sent) => Some(sent),
            State::Waiting(_) | State::Acknowledged => None,
        });
        let Some(oldest) = out.next() else { return true };
        let mut wanted = ATTEMPTS;
        for sent in out {
            // Only the oldest is sent again, so each of its attempts speaks for one more.
            wanted += 1;
            if sent.first_epoch == self.epoch {
                return false;
            }
        }
        oldest.first_epoch < self.epoch && usize::try_from(oldest.attempts).is_ok_and(|attempts| attempts >= wanted)
    }

    /// The peer sent data of the session: its handler stands.
    pub(super) const fn peer_spoke(&mut self) {
        self.peer_is_ready = true;
    }

    fn transmit(&mut self, index: usize, now: Millis, unix_ms: u64, ids: &mut MessageIds) -> Option<Bytes> {
        let sequence = self.first.saturating_add(i64::try_from(index).ok()?);
        let again_on_this_socket = index < self.sent;
        let entry = self.entries.get_mut(index)?;
        self.order += 1;
        if let State::Waiting(payload) = &mut entry.state {
            let message = AgentMessage {
                sequence,
                // Only AWS's agent marks the beginning of its stream.
                flags: if sequence == 0 && self.role == Role::Agent { FLAG_SYN } else { 0 },
                payload_type: entry.kind,
                ..AgentMessage::new(self.role.sends(), ids.next(), unix_ms, std::mem::take(payload))
            };
            // Type and payload are within bounds, so that encoding cannot fail; a message without a frame would be
            // sent as nothing.
            let frame = message.encode().unwrap_or_default();
            self.waiting -= entry.bytes;
            self.in_flight += entry.bytes;
            let (first_epoch, first_order, last_order) = (self.epoch, self.order, self.order);
            entry.state = State::Sent(Sent {
                frame,
                first_epoch,
                attempts: 0,
                first_at: now,
                at: now,
                first_order,
                last_order,
                in_flight: true,
            });
        }
        let State::Sent(sent) = &mut entry.state else { return None };
        sent.attempts = sent.attempts.saturating_add(1);
        sent.at = now;
        sent.last_order = self.order;
        if !again_on_this_socket {
            sent.first_order = self.order;
            sent.first_at = now;
        }
        Some(sent.frame.clone())
    }

    /// Returns when the oldest message becomes overdue; only the oldest is ever sent again on the same socket, as by
    /// AWS's programs: a socket loses nothing in the middle. While older ones are being acknowledged it is not overdue
    /// (RFC 6298, 5.3): a slow link would carry everything twice.
    fn overdue(&self) -> Option<Millis> {
        if self.sent == 0 {
            return None;
        }
        let State::Sent(sent) = &self.entries.front()?.state else { return None };
        Some(sent.at.max(self.progress).after(self.rtt.timeout(sent.attempts, self.peer_is_ready)))
    }

    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let paced = self.may_send().then_some(self.not_before);
        [self.overdue(), paced].into_iter().flatten().min()
    }

    /// Takes the acknowledgement of a number; one that is unknown or comes twice changes nothing.
    pub(super) fn acknowledged(&mut self, sequence: i64, now: Millis) {
        let index = sequence.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(index) = index else { return };
        let on_this_socket = index < self.sent;
        let Some(entry) = self.entries.get_mut(index) else { return };
        let State::Sent(sent) = &entry.state else { return };
        let (bytes, order) = (entry.bytes, sent.first_order);
        let (attempts, took) = (sent.attempts, now.since(sent.first_at));
        if index == 0 && !is_handshake(entry.kind) {
            self.peer_is_ready = true;
        }
        let in_flight = self.in_flight;
        if sent.in_flight {
            self.in_flight -= bytes;
        }
        entry.state = State::Acknowledged;
        self.open -= 1;
        if index == 0 {
            self.progress = now;
        }
        if on_this_socket {
            if attempts <= MEASURED_ATTEMPTS {
                self.rtt.measured(took);
            }
            if attempts == 1 {
                self.window.acknowledged(bytes, in_flight, took, now);
            }
            self.pass(order);
        }
        self.drop_acknowledged();
    }

    /// A message with that place in the order was acknowledged. The socket keeps the order, so what was sent on it before
    /// has arrived too, and is no longer in flight.
    ///
    /// AWS's plugin never acknowledges a number twice. If it got a message and its acknowledgement was lost with the
    /// socket, no attempt will ever be answered, and waiting for it never ends. So a message that was first sent on an
    /// earlier socket counts as delivered here: it has arrived again and was not taken, although the peer's handler stands
    /// (handshake messages are taken without one). AWS's agent does acknowledge again; towards it nothing is given up.
    fn pass(&mut self, order: u64) {
        for entry in self.entries.iter_mut().take(self.sent) {
            let State::Sent(sent) = &mut entry.state else { continue };
            if sent.first_order > order {
                break;
            }
            if sent.last_order > order {
                continue;
            }
            if std::mem::take(&mut sent.in_flight) {
                self.in_flight -= entry.bytes;
            }
            let would_be_taken = self.peer_is_ready || is_handshake(entry.kind);
            if would_be_taken && self.role == Role::Agent && sent.first_epoch < self.epoch {
                entry.state = State::Acknowledged;
                self.open -= 1;
            }
        }
    }

    fn drop_acknowledged(&mut self) {
        while self.entries.front().is_some_and(|entry| matches!(entry.state, State::Acknowledged)) {
            self.entries.pop_front();
            self.first = self.first.saturating_add(1);
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Begins a socket: everything not acknowledged goes out again, in order, through a new window.
    pub(super) fn resume(&mut self, now: Millis) {
        self.epoch = self.epoch.saturating_add(1);
        self.sent = 0;
        self.in_flight = 0;
        self.window = Window::new(&self.limits);
        self.not_before = now;
        for entry in &mut self.entries {
            if let State::Sent(sent) = &mut entry.state {
                sent.attempts = 0;
                sent.in_flight = false;
            }
        }
    }
}

pub(super) const fn is_handshake(kind: PayloadType) -> bool {
    kind.is_handshake_of_agent() || matches!(kind, PayloadType::HandshakeResponse | PayloadType::EncChallengeResponse)
}

/// Where to divide bytes so that at most `most` (4 or more) go first and no UTF-8 character is split, if it is text.
fn cut(bytes: &[u8], most: usize) -> usize {
    let is_continuation = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (most.saturating_sub(3)..=most).rev().find(|at| !is_continuation(*at)).unwrap_or(most).max(1)
}
