//! smux version 1: many connections inside the byte stream of one port session.
//!
//! A frame is version (1 byte, always 1), command (1), length (2, little-endian), stream id (4, little-endian), data. The
//! byte stream is that of all [`Output`](super::PayloadType::Output) payloads of a channel; frames begin and end anywhere in
//! it. The plugin's side opens streams, with the ids 3, 5, 7, …; an end of either side ends both directions of a stream:
//! version 1 has no half-close.
//!
//! Version 1 has no window per stream either. A slow stream is held back so: its bytes wait here until they are read, all
//! streams together up to [`MuxLimits::receive`]. Up to there the other streams go on. Beyond it
//! [`Mux::wants_input`] is false, the caller takes nothing more from the channel, nothing is acknowledged, and the
//! peer waits, with all streams: the protocol has no other way to tell it. In the other direction what a stream may
//! queue is bounded, and streams take turns frame by frame.

mod mux;
mod stream;

pub use mux::Mux;

/// Bytes in front of a frame's data.
pub const HEADER: usize = 8;
const VERSION: u8 = 1;

/// Which end of the multiplexer this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Opens streams, as the plugin does.
    Client,
    /// Accepts them, as the agent does.
    Server,
}

/// Bounds of a multiplexer, in bytes unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MuxLimits {
    /// Most streams at a time.
    pub streams: usize,
    /// Received bytes that wait to be read, all streams together, at which the peer is held back.
    pub receive: usize,
    /// Most bytes queued for sending on one stream.
    pub send: usize,
    /// Most bytes queued for sending on all streams together.
    pub send_together: usize,
    /// Most data in one frame that is sent.
    pub frame: usize,
}

impl Default for MuxLimits {
    /// Streams and receive buffer as in the plugin's own library (a backlog of 1024, 4 MiB). A frame with its header
    /// fits one message of our door.
    fn default() -> Self {
        Self {
            streams: 1024,
            receive: 4 * 1024 * 1024,
            send: 256 * 1024,
            send_together: 4 * 1024 * 1024,
            frame: 32 * 1024 - HEADER,
        }
    }
}

/// Something has happened on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MuxEvent {
    /// The peer opened it.
    Opened(u32),
    /// It has bytes to read, or its end. Read until there is nothing: more bytes are announced again, but not twice.
    Readable(u32),
    /// It was full and may be written to again.
    Writable(u32),
}

/// What reading a stream gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes.
    Data(bytes::Bytes),
    /// Nothing now; [`MuxEvent::Readable`] follows.
    Nothing,
    /// The peer has closed the stream, and all that it sent was read.
    End,
}

/// The peer breaks the protocol: the session must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// A frame of another version.
    #[error("a frame has version {0} instead of 1")]
    Version(u8),
    /// A command that version 1 does not have.
    #[error("a frame has the unknown command {0}")]
    Command(u8),
    /// A command that carries no data has some.
    #[error("a frame with command {0} carries data")]
    Length(u8),
    /// More came while the multiplexer did not want input.
    #[error("more bytes came than may wait to be read")]
    Overflow,
}

/// A stream cannot be opened or written to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// As many streams are open as may be.
    #[error("too many streams are open")]
    TooMany,
    /// What waits to be sent leaves no room for these bytes; none were taken.
    #[error("the stream's queue is full")]
    Full,
    /// The stream is closed, by this end or the other.
    #[error("the stream is closed")]
    Closed,
}

/// The commands of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Command {
    /// Opens a stream.
    Syn = 0,
    /// Closes it.
    Fin = 1,
    /// Carries its data.
    Psh = 2,
    /// Says that the session lives.
    Nop = 3,
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FrameHeader {
    command: Command,
    length: u16,
    stream: u32,
}

impl FrameHeader {
    fn parse(bytes: [u8; HEADER]) -> Result<Self, MuxError> {
        let [version, command, length_low, length_high, a, b, c, d] = bytes;
        if version != VERSION {
            return Err(MuxError::Version(version));
        }
        let length = u16::from_le_bytes([length_low, length_high]);
        let command = match command {
            0 => Command::Syn,
            1 => Command::Fin,
            2 => Command::Psh,
            3 => Command::Nop,
            _ => return Err(MuxError::Command(command)),
        };
        if command != Command::Psh && length != 0 {
            return Err(MuxError::Length(command as u8));
        }
        Ok(Self { command, length, stream: u32::from_le_bytes([a, b, c, d]) })
    }

    fn bytes(self) -> [u8; HEADER] {
        let [length_low, length_high] = self.length.to_le_bytes();
        let [a, b, c, d] = self.stream.to_le_bytes();
        [VERSION, self.command as u8, length_low, length_high, a, b, c, d]
    }
}

#[cfg(test)]
mod tests;
