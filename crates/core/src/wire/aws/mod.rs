//! What AWS's own programs speak: the messages of data and control channel, their JSON payloads, the state of one
//! channel, and the multiplexer inside port sessions.
//!
//! Bytes and state only. Time is an argument ([`Millis`]), ids come from a seed, and sockets live elsewhere. Three
//! ends use it: our door (the agent's side, towards AWS's plugin), our own plugin (the client's side, towards AWS's
//! service or us) and our server (the client's side, towards AWS's agent).

pub mod channel;
pub mod message;
pub mod payload;
pub mod smux;

pub use channel::{Channel, ChannelError, ChannelLimits, Full, Role};
pub use message::{AgentMessage, MessageError, MessageId, MessageType, PayloadType, Reader};

/// Milliseconds of a monotonic clock whose zero the caller chooses; one channel sees one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// Returns the instant that many milliseconds later.
    pub const fn after(self, milliseconds: u64) -> Self {
        Self(self.0.saturating_add(milliseconds))
    }

    /// Returns how many milliseconds have passed since an earlier instant, or 0.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
