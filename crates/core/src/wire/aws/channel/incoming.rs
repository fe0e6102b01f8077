//! What arrives: put in order, kept until it is taken, acknowledged.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::Millis;
use super::super::message::{AgentMessage, MessageId, PREFIX, PayloadType};
use super::limits::ChannelLimits;

/// Most acknowledgements that wait for the socket; further ones are dropped, their messages come again.
const MOST_ACKNOWLEDGEMENTS: usize = 16 * 1024;
/// How long a message may wait to be taken before it is acknowledged all the same, in milliseconds. It is safe here, and
/// AWS's plugin ends the session after 3000 attempts, which is five minutes of a program that does not read.
const LATE: u64 = 60_000;

/// A message whose turn has not come.
#[derive(Debug)]
struct Arrived {
    id: MessageId,
    kind: PayloadType,
    payload: Bytes,
    at: Millis,
    acknowledged: bool,
}

impl Arrived {
    /// What it costs to keep, header included: tiny payloads are not free.
    fn bytes(&self) -> usize {
        self.payload.len() + PREFIX
    }
}

/// The receiving half of a channel.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Most bytes in `ready`, and in `early`.
    most_bytes: usize,
    /// Most messages in `ready`, and in `early`.
    most_messages: usize,
    /// Number of the next message that belongs behind `ready`.
    next: i64,
    /// In order, waiting to be taken; the last one has number `next` - 1.
    ready: VecDeque<Arrived>,
    ready_bytes: usize,
    /// How many of `ready`, from the front, are known to be acknowledged.
    ready_acknowledged: usize,
    /// Behind a gap, by number.
    early: BTreeMap<i64, Arrived>,
    early_bytes: usize,
    acknowledgements: VecDeque<(MessageId, i64)>,
}

impl Incoming {
    pub(super) const fn new(limits: ChannelLimits) -> Self {
        Self {
            most_bytes: limits.receive,
            most_messages: limits.receive_messages,
            next: 0,
            ready: VecDeque::new(),
            ready_bytes: 0,
            ready_acknowledged: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            acknowledgements: VecDeque::new(),
        }
    }

    /// Takes a message of stream data.
    pub(super) fn receive(&mut self, message: AgentMessage, now: Millis) {
        let AgentMessage { sequence, id, payload_type: kind, payload, .. } = message;
        let arrived = Arrived { id, kind, payload, at: now, acknowledged: false };
        if sequence < self.next {
            self.receive_again(sequence, id);
        } else if sequence > self.next {
            self.receive_early(sequence, arrived);
        } else if self.ready.len() < self.most_messages && self.ready_bytes < self.most_bytes {
            self.push_ready(arrived);
            while let Some(entry) = self.early.first_entry().filter(|entry| *entry.key() == self.next) {
                let arrived = entry.remove();
                self.early_bytes -= arrived.bytes();
                self.push_ready(arrived);
            }
        }
    }

    /// A number that was here before: its acknowledgement was lost or came too soon (AWS's programs note what they sent
    /// only after sending it), so it is acknowledged again, unless it still waits to be taken.
    fn receive_again(&mut self, sequence: i64, id: MessageId) {
        let back = usize::try_from(self.next - sequence.max(self.next - i64::from(u32::MAX))).unwrap_or(usize::MAX);
        let waiting = self.ready.len().checked_sub(back).and_then(|index| self.ready.get(index));
        if waiting.is_none_or(|arrived| arrived.acknowledged) {
            self.acknowledge(id, sequence);
        }
    }

    /// Kept, and acknowledged at once as AWS's programs do it: a gap is before it, so nobody can take it.
    fn receive_early(&mut self, sequence: i64, mut arrived: Arrived) {
        let id = arrived.id;
        if !self.early.contains_key(&sequence) {
            if self.early.len() >= self.most_messages || self.early_bytes >= self.most_bytes {
                return;
            }
            arrived.acknowledged = true;
            self.early_bytes += arrived.bytes();
            self.early.insert(sequence, arrived);
        }
        self.acknowledge(id, sequence);
    }

    fn push_ready(&mut self, arrived: Arrived) {
        self.next = self.next.saturating_add(1);
        self.ready_bytes += arrived.bytes();
        self.ready.push_back(arrived);
    }

    /// Takes the next payload in order and acknowledges it.
    pub(super) fn take(&mut self) -> Option<(PayloadType, Bytes)> {
        let sequence = self.next - i64::try_from(self.ready.len()).ok()?;
        let arrived = self.ready.pop_front()?;
        self.ready_bytes -= arrived.bytes();
        self.ready_acknowledged = self.ready_acknowledged.saturating_sub(1);
        if !arrived.acknowledged {
            self.acknowledge(arrived.id, sequence);
        }
        Some((arrived.kind, arrived.payload))
    }

    /// Tells whether a message came before its turn and waits for those before it.
    pub(super) fn has_gap(&self) -> bool {
        !self.early.is_empty()
    }

    /// Half of the room is kept for what is already on its way when the socket is read no more.
    pub(super) fn wants_input(&self) -> bool {
        self.ready.len() < self.most_messages / 2
            && self.ready_bytes < self.most_bytes / 2
            && self.acknowledgements.len() < MOST_ACKNOWLEDGEMENTS / 2
    }

    fn acknowledge(&mut self, id: MessageId, sequence: i64) {
        if self.acknowledgements.len() < MOST_ACKNOWLEDGEMENTS {
            self.acknowledgements.push_back((id, sequence));
        }
    }

    /// Returns the next message to acknowledge.
    pub(super) fn next_acknowledgement(&mut self, now: Millis) -> Option<(MessageId, i64)> {
        while self.next_timeout().is_some_and(|due| due <= now) {
            let behind = i64::try_from(self.ready.len() - self.ready_acknowledged).ok()?;
            let arrived = self.ready.get_mut(self.ready_acknowledged)?;
            arrived.acknowledged = true;
            let id = arrived.id;
            self.ready_acknowledged += 1;
            self.acknowledge(id, self.next - behind);
        }
        self.acknowledgements.pop_front()
    }

    /// Returns when the next message becomes [`LATE`].
    pub(super) fn next_timeout(&self) -> Option<Millis> {
        let waiting = self.ready.get(self.ready_acknowledged)?;
        Some(waiting.at.after(LATE))
    }

    /// Number of the next message from the peer.
    #[cfg(test)]
    pub(super) const fn next(&self) -> i64 {
        self.next
    }

    /// How many messages wait to be taken, how many came early, how many acknowledgements wait.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.ready.len(), self.early.len(), self.acknowledgements.len())
    }
}
