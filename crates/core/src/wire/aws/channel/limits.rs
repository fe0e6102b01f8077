//! How much a channel sends at once and keeps: chosen by who is at the other end.

/// What a message costs beyond its payload, for the window and the queue: a peer that takes nothing must not make a
/// million messages of one byte out of a mebibyte.
pub(super) const OVERHEAD: usize = 256;

/// Bounds of one channel. Sizes are bytes of payload; in windows and queue each message counts for a little more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLimits {
    /// Most bytes of terminal or connection in one message.
    pub payload: usize,
    /// Window with which a socket begins.
    pub window_first: usize,
    /// Window to which a slow peer is brought down.
    pub window_least: usize,
    /// Window to which a quick peer is brought up.
    pub window_most: usize,
    /// How much more than the window may be queued, so that the next message is at hand when the window opens.
    pub queue: usize,
    /// Least time between two new messages of stream data, in milliseconds; 0: none.
    pub gap_ms: u64,
    /// Most bytes that are kept until they are taken, and again as many that came before their turn.
    ///
    /// INVARIANT: at least twice what an honest peer has in flight. What finds no room is refused, and a peer that has just
    /// changed sockets may take a refusal for a number that is known here.
    pub receive: usize,
    /// Most messages that are kept until they are taken, and again as many that came before their turn.
    pub receive_messages: usize,
}

impl ChannelLimits {
    /// For our door, towards AWS's plugin or one that behaves like it.
    ///
    /// Payload: the plugin reads whole WebSocket messages without a limit of its own and hands the payload on in one
    /// piece; its 1024 bytes and its pause of a millisecond bind only what it sends. 32 KiB is what one frame of our
    /// link brings, so that nothing is divided, one digest and one acknowledgement serve 32 times as much as in AWS's
    /// service, and a key's echo waits behind no more than that.
    ///
    /// Window: the plugin has none and acknowledges a message once its handler has written it, so acknowledgements
    /// are its pace. What we send beyond them lies in socket buffers, and after a break in its reorder buffer of 10 000
    /// messages, beyond which it drops. 1 MiB in flight are 32 messages (never near that) and carry 50 MB/s at a round trip
    /// of 20 ms; the least, 64 KiB, still carries 3 MB/s there, and is all that an interrupted `cat` prints on.
    ///
    /// Receiving: the plugin remembers 10 000 messages of at most 1024 bytes and drops the oldest then. Room for all of them
    /// means that nothing it may have to send again is ever dropped here.
    pub const fn towards_plugin() -> Self {
        Self {
            payload: 32 * 1024,
            window_first: 4 * (32 * 1024 + OVERHEAD),
            window_least: 2 * (32 * 1024 + OVERHEAD),
            window_most: 32 * (32 * 1024 + OVERHEAD),
            queue: 2 * (32 * 1024 + OVERHEAD),
            gap_ms: 0,
            receive: 10_000 * 1024,
            receive_messages: 10_000,
        }
    }

    /// For our server, towards AWS's agent: 1024 bytes per message as every client of it sends, because it writes a
    /// message to the terminal in one piece before it reads the next. It keeps 100 000 messages that come early.
    pub const fn towards_agent() -> Self {
        Self {
            payload: 1024,
            window_first: 32 * 1024,
            window_least: 8 * 1024,
            window_most: 512 * 1024,
            queue: 64 * 1024,
            gap_ms: 0,
            receive: 4 * 1024 * 1024,
            receive_messages: 10_000,
        }
    }

    /// For our plugin, towards AWS's service: as [`towards_agent`](Self::towards_agent), and no quicker than the
    /// original, which sleeps a millisecond after each message; the service was never shown more.
    pub const fn towards_aws() -> Self {
        Self { gap_ms: 1, ..Self::towards_agent() }
    }
}
