//! AWS's two programs, as far as their end of a data channel goes: rule by rule from what was seen of them, without
//! the codec's helpers for channels, and with the weaknesses they have.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde_json::{Value, json};

use super::world::End;
use super::{NOON, Random};
use crate::wire::aws::message::{AgentMessage, MessageId, MessageType, PayloadType, Reader};
use crate::wire::aws::{Millis, Role};

/// The program ends the session after so many attempts at one message; only the plugin does.
const MOST_RESENDS: u32 = 3000;
const TICK: u64 = 100;

struct Kept {
    sequence: i64,
    frame: Bytes,
    /// When it was sent; a resend does not change it.
    sent: u64,
    /// Only from here on an acknowledgement finds it: the program notes what it sent after sending it.
    noted: u64,
    resends: u32,
}

/// Plugin ([`Role::Client`]) or agent ([`Role::Agent`]) as AWS ships them.
pub(super) struct Reference {
    role: Role,
    random: Random,
    /// Session data is refused without a word until then.
    pub(super) ready_at: Option<u64>,
    /// The handler is installed so long after HandshakeComplete; `None`: no handshake takes place.
    pub(super) installs_after: Option<u64>,
    /// How many messages are kept that come early.
    early_limit: usize,
    kept_limit: usize,
    // Receiving
    expected: i64,
    early: BTreeMap<i64, AgentMessage>,
    pub(super) most_early: usize,
    /// Early messages that found no place.
    pub(super) refused_early: u64,
    pub(super) handshakes: Vec<PayloadType>,
    /// Handshake messages that were printed, because they came out of the reorder buffer.
    pub(super) misread: u64,
    pub(super) sink: Vec<u8>,
    pub(super) closed: bool,
    // Sending
    pub(super) source: VecDeque<(PayloadType, Bytes)>,
    next: i64,
    kept: VecDeque<Kept>,
    pub(super) dropped: u64,
    pub(super) gave_up: bool,
    /// It waits for this much time between two messages it sends.
    pub(super) pause: u64,
    next_read: u64,
    next_tick: u64,
    rtt: f64,
    deviation: f64,
    timeout: f64,
    outbox: VecDeque<Bytes>,
    up: bool,
    now: u64,
}

impl Reference {
    pub(super) fn new(role: Role, random: Random) -> Self {
        let limit = if role == Role::Client { 10_000 } else { 100_000 };
        Self {
            role,
            random,
            ready_at: None,
            installs_after: None,
            early_limit: limit,
            kept_limit: limit,
            expected: 0,
            early: BTreeMap::new(),
            most_early: 0,
            refused_early: 0,
            handshakes: Vec::new(),
            misread: 0,
            sink: Vec::new(),
            closed: false,
            source: VecDeque::new(),
            next: 0,
            kept: VecDeque::new(),
            dropped: 0,
            gave_up: false,
            pause: 1,
            next_read: 0,
            next_tick: TICK,
            rtt: 100.0,
            deviation: 0.0,
            timeout: 200.0,
            outbox: VecDeque::new(),
            up: true,
            now: 0,
        }
    }

    /// Has these bytes to send, in the pieces of at most 1024 bytes in which it reads them.
    pub(super) fn sending(mut self, bytes: &[u8]) -> Self {
        let pieces = bytes.chunks(1024).map(|piece| (PayloadType::Output, Bytes::copy_from_slice(piece)));
        self.source.extend(pieces);
        self
    }

    /// A smaller reorder buffer than the program has, so that a test reaches its end.
    pub(super) fn with_early_limit(mut self, limit: usize) -> Self {
        self.early_limit = limit;
        self
    }

    pub(super) fn is_done(&self) -> bool {
        self.source.is_empty() && self.kept.is_empty()
    }

    fn is_ready(&self) -> bool {
        self.ready_at.is_some_and(|at| at <= self.now)
    }

    fn acknowledge(&mut self, message: &AgentMessage) {
        let payload = json!({
            "AcknowledgedMessageType": message.kind.name(),
            "AcknowledgedMessageId": message.id.to_string(),
            "AcknowledgedMessageSequenceNumber": message.sequence,
            "IsSequentialMessage": true,
        });
        let id = MessageId(self.random.next().to_be_bytes().repeat(2).try_into().unwrap());
        let mut ack = AgentMessage::new(MessageType::Acknowledge, id, NOON, payload.to_string());
        ack.flags = 3;
        self.outbox.push_back(ack.encode().unwrap());
    }

    fn receive_stream(&mut self, message: AgentMessage) {
        if message.sequence < self.expected {
            if self.role == Role::Agent {
                self.acknowledge(&message);
            }
        } else if message.sequence > self.expected {
            if self.early.len() >= self.early_limit {
                self.refused_early += 1;
                return;
            }
            self.acknowledge(&message);
            self.early.insert(message.sequence, message);
            self.most_early = self.most_early.max(self.early.len());
        } else if self.take_in_order(&message) {
            self.expected += 1;
            while let Some(message) = self.early.remove(&self.expected) {
                // Straight to the session's handler, whatever it is.
                self.misread += u64::from(message.payload_type.is_handshake_of_agent());
                self.sink.extend_from_slice(&message.payload);
                self.expected += 1;
            }
        }
    }

    fn take_in_order(&mut self, message: &AgentMessage) -> bool {
        let kind = message.payload_type;
        let is_handshake = kind.is_handshake_of_agent()
            || matches!(kind, PayloadType::HandshakeResponse | PayloadType::EncChallengeResponse);
        if is_handshake {
            self.acknowledge(message);
            self.handshakes.push(kind);
            if let (PayloadType::HandshakeComplete, Some(after)) = (kind, self.installs_after) {
                self.ready_at = Some(self.now + after);
            }
            return true;
        }
        if self.role == Role::Client && self.installs_after.is_none() && kind == PayloadType::Output {
            // Without a handshake the first output is taken for proof of a shell.
            self.ready_at.get_or_insert(self.now);
        }
        if !self.is_ready() {
            return false;
        }
        self.sink.extend_from_slice(&message.payload);
        self.acknowledge(message);
        true
    }

    fn receive_acknowledge(&mut self, message: &AgentMessage) {
        let value: Value = serde_json::from_slice(&message.payload).unwrap();
        let sequence = value["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
        let now = self.now;
        let Some(index) = self.kept.iter().position(|kept| kept.sequence == sequence && kept.noted <= now) else {
            return;
        };
        let Some(kept) = self.kept.remove(index) else { return };
        let measured = (now - kept.sent) as f64;
        self.deviation = 0.75 * self.deviation + 0.25 * (self.rtt - measured).abs();
        self.rtt = 0.875 * self.rtt + 0.125 * measured;
        self.timeout = (self.rtt + (4.0 * self.deviation).max(10.0)).min(1000.0);
    }

    fn resend(&mut self) -> Option<Bytes> {
        if self.next_tick > self.now {
            return None;
        }
        self.next_tick = self.now + TICK;
        let oldest = self.kept.front_mut()?;
        if (self.now - oldest.sent) as f64 <= self.timeout {
            return None;
        }
        oldest.resends += 1;
        self.gave_up |= self.role == Role::Client && oldest.resends > MOST_RESENDS;
        Some(oldest.frame.clone())
    }

    fn send_new(&mut self) -> Option<Bytes> {
        // Both read their terminal or connection only once they would also write to it.
        if self.next_read > self.now || !self.is_ready() {
            return None;
        }
        let (payload_type, payload) = self.source.pop_front()?;
        self.next_read = self.now + self.pause;
        let sequence = self.next;
        self.next += 1;
        let id = MessageId(self.random.next().to_be_bytes().repeat(2).try_into().unwrap());
        let message = AgentMessage {
            sequence,
            flags: u64::from(sequence == 0 && self.role == Role::Agent),
            payload_type,
            ..AgentMessage::new(self.role.sends(), id, NOON, payload)
        };
        let frame = message.encode().unwrap();
        if self.kept.len() >= self.kept_limit {
            self.dropped += 1;
            if self.role == Role::Agent {
                return Some(frame);
            }
            self.kept.pop_front();
        }
        let noted = self.now + self.random.below(3);
        self.kept.push_back(Kept { sequence, frame: frame.clone(), sent: self.now, noted, resends: 0 });
        Some(frame)
    }
}

impl End for Reference {
    fn receive(&mut self, frame: Bytes, now: Millis) {
        self.now = now.0;
        let reader = if self.role == Role::Client { Reader::Client } else { Reader::Agent };
        let Ok(message) = AgentMessage::decode(frame, reader) else { return };
        match &message.kind {
            MessageType::Acknowledge => self.receive_acknowledge(&message),
            MessageType::ChannelClosed => self.closed = true,
            kind if *kind == self.role.receives() => self.receive_stream(message),
            _ => {}
        }
    }

    fn transmit(&mut self, now: Millis) -> Option<Bytes> {
        self.now = now.0;
        if self.closed || self.gave_up || !self.up {
            return None;
        }
        self.outbox.pop_front().or_else(|| self.resend()).or_else(|| self.send_new())
    }

    fn timeout(&self) -> Option<Millis> {
        let ready = self.ready_at.filter(|_| !self.source.is_empty());
        let read = ready.map(|at| at.max(self.next_read));
        let tick = (!self.kept.is_empty()).then_some(self.next_tick);
        [read, tick].into_iter().flatten().min().map(Millis)
    }

    /// What it had written to the socket is gone with it, acknowledgements included.
    fn lost(&mut self) {
        self.up = false;
        self.outbox.clear();
    }

    fn restored(&mut self, now: Millis) {
        self.up = true;
        self.now = now.0;
    }
}
