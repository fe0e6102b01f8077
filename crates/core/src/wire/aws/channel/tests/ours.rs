//! Our own end in the tests: a channel with something to send and a reader of its own speed.

use bytes::Bytes;

use super::world::End;
use super::{NOON, Random};
use crate::wire::aws::message::Reader;
use crate::wire::aws::{AgentMessage, Channel, ChannelLimits, Millis, PayloadType, Role};

pub(super) struct Ours {
    pub(super) channel: Channel,
    /// Messages to send, last first.
    pub(super) source: Vec<(PayloadType, Bytes)>,
    /// Everything that was delivered.
    pub(super) sink: Vec<u8>,
    pub(super) kinds: Vec<PayloadType>,
    /// Takes what was delivered at most this late; 0: at once.
    pub(super) dawdles: u64,
    reads_at: Option<Millis>,
    random: Random,
}

impl Ours {
    pub(super) fn new(role: Role, limits: ChannelLimits, random: Random) -> Self {
        Self {
            channel: Channel::new(role, [3; 16], limits),
            source: Vec::new(),
            sink: Vec::new(),
            kinds: Vec::new(),
            dawdles: 0,
            reads_at: None,
            random,
        }
    }

    /// Sends these bytes in pieces of random size, at most `most` each.
    pub(super) fn sending(mut self, bytes: &[u8], most: u64) -> Self {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(1 + self.random.below(most) as usize));
            self.source.insert(0, (PayloadType::Output, Bytes::copy_from_slice(piece)));
            rest = after;
        }
        self
    }

    pub(super) fn say(&mut self, kind: PayloadType, payload: impl Into<Bytes>) {
        self.source.insert(0, (kind, payload.into()));
    }

    pub(super) fn is_done(&self) -> bool {
        self.source.is_empty() && self.channel.unacknowledged() == 0
    }

    fn take(&mut self) {
        while let Some((kind, payload)) = self.channel.next_delivery() {
            self.kinds.push(kind);
            self.sink.extend_from_slice(&payload);
        }
    }
}

impl End for Ours {
    fn receive(&mut self, frame: Bytes, now: Millis) {
        let message = AgentMessage::decode(frame, Reader::Client).unwrap();
        // Publications and the like are the caller's.
        let _ = self.channel.receive(message, now);
        if self.dawdles > 0 {
            self.reads_at.get_or_insert(now.after(self.random.below(self.dawdles)));
        } else {
            self.take();
        }
    }

    fn transmit(&mut self, now: Millis) -> Option<Bytes> {
        if self.reads_at.is_some_and(|at| at <= now) {
            self.reads_at = None;
            self.take();
        }
        while let Some((_, payload)) = self.source.last()
            && payload.len() <= self.channel.room()
            && let Some((kind, payload)) = self.source.pop()
        {
            self.channel.queue(kind, payload).unwrap();
        }
        self.channel.next_transmission(now, NOON + now.0)
    }

    fn timeout(&self) -> Option<Millis> {
        [self.channel.next_timeout(), self.reads_at].into_iter().flatten().min()
    }

    fn lost(&mut self) {
        self.channel.pause();
    }

    fn restored(&mut self, now: Millis) {
        self.channel.resume(now);
    }
}
