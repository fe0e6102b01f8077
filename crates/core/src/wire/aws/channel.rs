//! One end of a data channel: numbers, acknowledgements, order, retransmission and a window, over whichever socket
//! stands at the moment.
//!
//! The other end is a program of AWS or another [`Channel`]. Numbers and what is not acknowledged outlive the socket:
//! [`Channel::pause`] when it is lost, [`Channel::resume`] when the next one stands. Messages outside the numbering
//! (`channel_closed`, `agent_session_state`, publications) and the meaning of payloads are the caller's.
//!
//! The caller's loop: [`receive`](Channel::receive) what the socket brings while [`wants_input`](Channel::wants_input),
//! take [`next_delivery`](Channel::next_delivery), [`queue`](Channel::queue) what fits [`room`](Channel::room), write what
//! [`next_transmission`](Channel::next_transmission) returns until it returns nothing, sleep until
//! [`next_timeout`](Channel::next_timeout).

mod incoming;
mod limits;
mod outgoing;
mod rtt;
mod window;

use bytes::Bytes;

pub use limits::ChannelLimits;

use self::incoming::Incoming;
use self::outgoing::Outgoing;
use super::Millis;
use super::message::{AgentMessage, FLAG_FIN, FLAG_SYN, MessageError, MessageId, MessageType, PayloadType};
use super::payload::{Acknowledge, PayloadError, json, parse};

/// Which of AWS's two programs this end plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends `output_stream_data`, receives `input_stream_data`: our door, towards a plugin.
    Agent,
    /// Sends `input_stream_data`, receives `output_stream_data`: our plugin, and our server towards AWS's agent.
    Client,
}

impl Role {
    /// Returns the type of the stream data that this end sends.
    pub const fn sends(self) -> MessageType {
        match self {
            Self::Agent => MessageType::OutputStreamData,
            Self::Client => MessageType::InputStreamData,
        }
    }

    /// Returns the type of the stream data that this end receives.
    pub const fn receives(self) -> MessageType {
        match self {
            Self::Agent => MessageType::InputStreamData,
            Self::Client => MessageType::OutputStreamData,
        }
    }
}

/// Nothing more can be queued now; nothing of the payload was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel's queue is full")]
pub struct Full;

/// Why a received message was dropped. The channel is unharmed; AWS's programs drop such messages without a word.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The message is neither stream data for this end nor an acknowledgement.
    #[error("a message of type {0} does not belong to the stream")]
    Foreign(MessageType),
    /// The acknowledgement cannot be read.
    #[error("an acknowledgement cannot be read: {0}")]
    Acknowledgement(#[from] PayloadError),
}

/// Both directions of a data channel, seen from one end.
#[derive(Debug)]
pub struct Channel {
    role: Role,
    outgoing: Outgoing,
    incoming: Incoming,
    ids: MessageIds,
    paused: bool,
}

impl Channel {
    /// Begins a channel. The seed is random; message ids are made of it.
    pub fn new(role: Role, seed: [u8; 16], limits: ChannelLimits) -> Self {
        Self {
            role,
            outgoing: Outgoing::new(role, limits),
            incoming: Incoming::new(limits),
            ids: MessageIds(u128::from_be_bytes(seed)),
            paused: false,
        }
    }

    /// Puts a payload next in the stream. Bytes ([`PayloadType::Output`], [`PayloadType::StdErr`]) are divided into
    /// as many messages as the limits ask for, between characters where there are any; everything else stays whole.
    /// An empty payload is nothing. Refused as a whole if it is larger than [`room`](Self::room).
    pub fn queue(&mut self, kind: PayloadType, payload: Bytes) -> Result<(), Full> {
        self.outgoing.queue(kind, payload)
    }

    /// Returns how many bytes may be queued now. It follows the window, so that a slow peer slows its source.
    pub fn room(&self) -> usize {
        self.outgoing.room()
    }

    /// Takes stream data or an acknowledgement. Stream data that comes early is kept within the limits, what does not
    /// fit is dropped and comes again.
    pub fn receive(&mut self, message: AgentMessage, now: Millis) -> Result<(), ChannelError> {
        if message.kind == MessageType::Acknowledge {
            let acknowledge: Acknowledge = parse("acknowledgement", &message.payload)?;
            self.outgoing.acknowledged(acknowledge.acknowledged_message_sequence_number, now);
            Ok(())
        } else if message.kind == self.role.receives() {
            if !outgoing::is_handshake(message.payload_type) {
                self.outgoing.peer_spoke();
            }
            self.incoming.receive(message, now);
            Ok(())
        } else {
            Err(ChannelError::Foreign(message.kind))
        }
    }

    /// Takes the next payload in order. Taking it acknowledges it: whoever is not ready leaves it, and the peer is
    /// held back.
    pub fn next_delivery(&mut self) -> Option<(PayloadType, Bytes)> {
        self.incoming.take()
    }

    /// Tells whether something came behind what never did: what is between is missing for as long as this is so.
    pub fn has_gap(&self) -> bool {
        self.incoming.has_gap()
    }

    /// Tells whether the socket shall be read on. Not reading it holds back a peer that has no window of its own;
    /// what comes beyond the limits nevertheless is dropped without acknowledgement.
    pub fn wants_input(&self) -> bool {
        self.incoming.wants_input()
    }

    /// Returns the next message for the socket: acknowledgements first, then what is overdue, then new data as far as
    /// the window permits. `unix_ms` is the time of day for the header, in milliseconds since 1970.
    pub fn next_transmission(&mut self, now: Millis, unix_ms: u64) -> Option<Bytes> {
        if self.paused {
            return None;
        }
        if let Some((id, sequence)) = self.incoming.next_acknowledgement(now) {
            let payload = json(&Acknowledge::new(&self.role.receives(), id, sequence));
            let mut message = AgentMessage::new(MessageType::Acknowledge, self.ids.next(), unix_ms.max(1), payload);
            message.flags = FLAG_SYN | FLAG_FIN;
            // Type and payload are ours and within bounds, so that encoding cannot fail.
            return message.encode().ok();
        }
        self.outgoing.next_transmission(now, unix_ms.max(1), &mut self.ids)
    }

    /// Returns when [`next_transmission`](Self::next_transmission) may have something again, provided that it has
    /// nothing now; `None` if only a call of another method can change that.
    pub fn next_timeout(&self) -> Option<Millis> {
        if self.paused {
            return None;
        }
        let times = [self.outgoing.next_timeout(), self.incoming.next_timeout()];
        times.into_iter().flatten().min()
    }

    /// Returns how many messages were queued and are not acknowledged yet. AWS's plugin never repeats an
    /// acknowledgement that was lost with its socket: whoever waits for 0 needs a time limit.
    pub fn unacknowledged(&self) -> usize {
        self.outgoing.unacknowledged()
    }

    /// The socket is gone: nothing is sent until [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.paused = true;
    }

    /// A new socket stands: everything not acknowledged is sent again, numbers go on.
    pub fn resume(&mut self, now: Millis) {
        self.paused = false;
        self.outgoing.resume(now);
    }

    /// Writes a message outside the numbering, such as `channel_closed`, with an id of this channel.
    pub fn control(&mut self, kind: MessageType, payload: Bytes, unix_ms: u64) -> Result<Bytes, MessageError> {
        let mut message = AgentMessage::new(kind, self.ids.next(), unix_ms.max(1), payload);
        if message.kind == MessageType::AgentSessionState {
            // AWS's agent sets both flags on this one.
            message.flags = FLAG_SYN | FLAG_FIN;
        }
        message.encode()
    }
}

/// Makes version 4 UUIDs from a seed: a counter, mixed. They name messages and protect nothing.
#[derive(Debug)]
struct MessageIds(u128);

impl MessageIds {
    fn next(&mut self) -> MessageId {
        // SplitMix64 (Steele, Lea, Flood 2014) on both halves of a Weyl sequence.
        const STEP: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
        self.0 = self.0.wrapping_add(STEP);
        let value = (u128::from(mix((self.0 >> 64) as u64)) << 64) | u128::from(mix(self.0 as u64));
        let version = (value & !(0xf << 76)) | (0x4 << 76);
        let variant = (version & !(0x3 << 62)) | (0x2 << 62);
        MessageId(variant.to_be_bytes())
    }
}

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
