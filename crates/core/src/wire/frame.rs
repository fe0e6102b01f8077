//! Frames: the unit in which everything travels in a stream of the link.
//!
//! Layout: kind (1 byte), length of the payload (3 bytes, big-endian), payload. Data frames carry their offset in
//! the session's byte count, so that either end can go on after a broken link and recognise what it already has.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::message::{Accepted, End, Exit, Go, Notice, Open, Refused, Rejoined, Resolved};
use crate::session::{OutputStream, Signal, TerminalSize};

/// Bytes in front of every payload.
pub const HEADER: usize = 4;
/// Largest payload of a frame (T-93).
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Most bytes of input or output that one frame carries; small enough that a keystroke behind it does not wait.
pub const MAX_DATA: usize = 32 * 1024;

/// The kinds of frame, by the byte that names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame of a stream: what the stream is for.
    Open = 1,
    /// The opener's wish was granted.
    Accepted = 2,
    /// The opener's wish was refused; the stream ends.
    Refused = 3,
    /// Answer to an agent that came back with a live session.
    Rejoined = 4,
    /// Answer of an agent that shall connect: what the host's name stands for.
    Resolved = 5,
    /// Answer to that: which of the addresses may be connected to.
    Go = 6,
    /// Bytes typed, from the client towards the program.
    Input = 16,
    /// The client's input has ended (end of file).
    InputEnd = 17,
    /// Bytes printed, from the program towards the client.
    Output = 18,
    /// The node has taken all input before this offset.
    InputAck = 19,
    /// The server has stored all output before this offset.
    OutputAck = 20,
    /// The client shall send its input again from this offset.
    InputWanted = 21,
    /// The terminal has a new size.
    Resize = 22,
    /// A signal for the program.
    Signal = 23,
    /// The program has ended; follows its last output.
    Exit = 24,
    /// The session has ended, and why; last frame of a session.
    End = 25,
    /// A message for the person at the terminal.
    Notice = 26,
    /// The client leaves; the session lives on for the resume window.
    Detach = 27,
}

impl FrameKind {
    const ALL: [Self; 18] = [
        Self::Open,
        Self::Accepted,
        Self::Refused,
        Self::Rejoined,
        Self::Resolved,
        Self::Go,
        Self::Input,
        Self::InputEnd,
        Self::Output,
        Self::InputAck,
        Self::OutputAck,
        Self::InputWanted,
        Self::Resize,
        Self::Signal,
        Self::Exit,
        Self::End,
        Self::Notice,
        Self::Detach,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The kinds that a state of the protocol accepts; anything else ends the stream before its body is read (T-34).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSet(u32);

impl FrameSet {
    /// Builds the set of the given kinds.
    pub const fn of(kinds: &[FrameKind]) -> Self {
        let mut bits = 0_u32;
        let mut rest = kinds;
        while let [first, tail @ ..] = rest {
            bits |= 1 << (*first as u8);
            rest = tail;
        }
        Self(bits)
    }

    /// Tells whether the kind is in the set.
    pub const fn contains(self, kind: FrameKind) -> bool {
        self.0 & (1 << (kind as u8)) != 0
    }

    /// First frame of a stream.
    pub const OPENING: Self = Self::of(&[FrameKind::Open]);
    /// What an opener of a session, an attach or a watch may hear first.
    pub const ANSWER: Self = Self::of(&[FrameKind::Accepted, FrameKind::Refused]);
    /// What a server may hear from an agent that shall say what a name stands for before it connects.
    pub const RESOLUTION: Self = Self::of(&[FrameKind::Resolved, FrameKind::Refused]);
    /// What an agent may hear once it has said so.
    pub const VERDICT: Self = Self::of(&[FrameKind::Go, FrameKind::Refused]);
    /// What a server accepts from the primary client of a session.
    pub const FROM_CLIENT: Self = Self::of(&[
        FrameKind::Input,
        FrameKind::InputEnd,
        FrameKind::Resize,
        FrameKind::Signal,
        FrameKind::Detach,
        FrameKind::End,
    ]);
    /// What a server accepts from the client of a port session, whose bytes travel in streams of their own.
    pub const FROM_PORT_CLIENT: Self = Self::of(&[FrameKind::Detach, FrameKind::End]);
    /// What a server accepts from somebody who only watches.
    pub const FROM_WATCHER: Self = Self::of(&[FrameKind::Detach]);
    /// What a client accepts once its wish was granted.
    pub const TO_CLIENT: Self = Self::of(&[
        FrameKind::Output,
        FrameKind::InputAck,
        FrameKind::InputWanted,
        FrameKind::Resize,
        FrameKind::Notice,
        FrameKind::End,
    ]);
    /// What a server accepts from an agent in a running session.
    pub const FROM_AGENT: Self =
        Self::of(&[FrameKind::Output, FrameKind::InputAck, FrameKind::Exit, FrameKind::Notice]);
    /// What an agent accepts in a running session.
    pub const TO_AGENT: Self = Self::of(&[
        FrameKind::Input,
        FrameKind::InputEnd,
        FrameKind::OutputAck,
        FrameKind::Resize,
        FrameKind::Signal,
        FrameKind::End,
    ]);
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// What the stream is for.
    Open(Box<Open>),
    /// The wish was granted.
    Accepted(Box<Accepted>),
    /// The wish was refused.
    Refused(Refused),
    /// A live session of a returning agent was recognised.
    Rejoined(Rejoined),
    /// What a host's name stands for.
    Resolved(Resolved),
    /// Which of the addresses may be connected to.
    Go(Go),
    /// Input bytes; `offset` counts input bytes of the session from its start.
    Input {
        /// Offset of the first byte.
        offset: u64,
        /// At most [`MAX_DATA`] bytes.
        data: Bytes,
    },
    /// Input ends at this offset.
    InputEnd {
        /// Count of input bytes before the end.
        offset: u64,
    },
    /// Output bytes; `offset` counts the bytes of both output streams together from the session's start.
    Output {
        /// Offset of the first byte.
        offset: u64,
        /// Which of the two output streams the bytes belong to.
        stream: OutputStream,
        /// At most [`MAX_DATA`] bytes.
        data: Bytes,
    },
    /// The node took all input before this offset.
    InputAck(u64),
    /// The server stored all output before this offset.
    OutputAck(u64),
    /// Send input again from this offset.
    InputWanted(u64),
    /// New terminal size.
    Resize(TerminalSize),
    /// Signal for the program.
    Signal(Signal),
    /// The program's end.
    Exit(Exit),
    /// The session's end; from a client or server towards the agent, the order to end it.
    End(End),
    /// Text for the person.
    Notice(Notice),
    /// The client leaves.
    Detach,
}

/// Why bytes are no frame. All of these end the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The kind byte is unknown to this version.
    #[error("frame kind {0} is unknown to this version")]
    UnknownKind(u8),
    /// The kind is known but may not come now (T-34).
    #[error("a {0:?} frame may not come at this point of the stream")]
    Unexpected(FrameKind),
    /// The length exceeds [`MAX_PAYLOAD`] (T-93).
    #[error("a frame of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLarge(usize),
    /// The payload is not what the kind demands.
    #[error("the payload of a {0:?} frame is malformed")]
    Malformed(FrameKind),
}

impl Frame {
    /// Returns the frame's kind.
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::Open(_) => FrameKind::Open,
            Self::Accepted(_) => FrameKind::Accepted,
            Self::Refused(_) => FrameKind::Refused,
            Self::Rejoined(_) => FrameKind::Rejoined,
            Self::Resolved(_) => FrameKind::Resolved,
            Self::Go(_) => FrameKind::Go,
            Self::Input { .. } => FrameKind::Input,
            Self::InputEnd { .. } => FrameKind::InputEnd,
            Self::Output { .. } => FrameKind::Output,
            Self::InputAck(_) => FrameKind::InputAck,
            Self::OutputAck(_) => FrameKind::OutputAck,
            Self::InputWanted(_) => FrameKind::InputWanted,
            Self::Resize(_) => FrameKind::Resize,
            Self::Signal(_) => FrameKind::Signal,
            Self::Exit(_) => FrameKind::Exit,
            Self::End(_) => FrameKind::End,
            Self::Notice(_) => FrameKind::Notice,
            Self::Detach => FrameKind::Detach,
        }
    }

    /// Appends the frame to `out`. Fails if its payload is over [`MAX_PAYLOAD`]; `out` is then unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let length = self.payload_len();
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(length));
        }
        out.reserve(HEADER + length);
        // The length fits 24 bits: it was just compared with MAX_PAYLOAD.
        out.put_u32((u32::from(self.kind() as u8) << 24) | u32::try_from(length).unwrap_or(0));
        match self {
            Self::Open(message) => put(message.as_ref(), out),
            Self::Accepted(message) => put(message.as_ref(), out),
            Self::Refused(message) => put(message, out),
            Self::Rejoined(message) => put(message, out),
            Self::Resolved(message) => put(message, out),
            Self::Go(message) => put(message, out),
            Self::Exit(message) => put(message, out),
            Self::End(message) => put(message, out),
            Self::Notice(message) => put(message, out),
            Self::Input { offset, data } => {
                out.put_u64(*offset);
                out.put_slice(data);
            }
            Self::Output { offset, stream, data } => {
                out.put_u64(*offset);
                out.put_u8(stream.to_byte());
                out.put_slice(data);
            }
            Self::InputEnd { offset: number }
            | Self::InputAck(number)
            | Self::OutputAck(number)
            | Self::InputWanted(number) => out.put_u64(*number),
            Self::Resize(size) => {
                for side in [size.rows, size.columns, size.width_pixels, size.height_pixels] {
                    out.put_u16(side);
                }
            }
            Self::Signal(signal) => out.put_u8(signal.to_byte()),
            Self::Detach => {}
        }
        Ok(())
    }

    /// Appends an `Output` frame without owning its bytes. Fails beyond [`MAX_DATA`]; `out` is then unchanged.
    pub fn encode_output(offset: u64, stream: OutputStream, data: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
        if data.len() > MAX_DATA {
            return Err(FrameError::TooLarge(data.len()));
        }
        let length = 9 + data.len();
        out.reserve(HEADER + length);
        // The length fits 24 bits: MAX_DATA does.
        out.put_u32((u32::from(FrameKind::Output as u8) << 24) | u32::try_from(length).unwrap_or(0));
        out.put_u64(offset);
        out.put_u8(stream.to_byte());
        out.put_slice(data);
        Ok(())
    }

    fn payload_len(&self) -> usize {
        match self {
            Self::Open(message) => message.encoded_len(),
            Self::Accepted(message) => message.encoded_len(),
            Self::Refused(message) => message.encoded_len(),
            Self::Rejoined(message) => message.encoded_len(),
            Self::Resolved(message) => message.encoded_len(),
            Self::Go(message) => message.encoded_len(),
            Self::Exit(message) => message.encoded_len(),
            Self::End(message) => message.encoded_len(),
            Self::Notice(message) => message.encoded_len(),
            Self::Input { data, .. } => 8 + data.len(),
            Self::Output { data, .. } => 9 + data.len(),
            Self::InputEnd { .. } | Self::InputAck(_) | Self::OutputAck(_) | Self::InputWanted(_) => 8,
            Self::Resize(_) => 8,
            Self::Signal(_) => 1,
            Self::Detach => 0,
        }
    }

    /// Takes one frame from the front of `buffer`; `None` when more bytes are needed. A kind outside `allowed` is
    /// refused before its body is looked at, a length over the limit before anything is reserved for it.
    pub fn decode(buffer: &mut BytesMut, allowed: FrameSet) -> Result<Option<Self>, FrameError> {
        let Some(head) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let word = u32::from_be_bytes(*head);
        let [kind_byte, ..] = *head;
        let kind = FrameKind::from_byte(kind_byte).ok_or(FrameError::UnknownKind(kind_byte))?;
        if !allowed.contains(kind) {
            return Err(FrameError::Unexpected(kind));
        }
        let length = usize::try_from(word & 0x00ff_ffff).unwrap_or(usize::MAX);
        if length > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < HEADER + length {
            return Ok(None);
        }
        buffer.advance(HEADER);
        let payload = buffer.split_to(length).freeze();
        Self::parse(kind, payload).map(Some)
    }

    fn parse(kind: FrameKind, mut payload: Bytes) -> Result<Self, FrameError> {
        let malformed = FrameError::Malformed(kind);
        let frame = match kind {
            FrameKind::Open => Self::Open(get(kind, payload)?),
            FrameKind::Accepted => Self::Accepted(get(kind, payload)?),
            FrameKind::Refused => Self::Refused(*get(kind, payload)?),
            FrameKind::Rejoined => Self::Rejoined(*get(kind, payload)?),
            FrameKind::Resolved => Self::Resolved(*get(kind, payload)?),
            FrameKind::Go => Self::Go(*get(kind, payload)?),
            FrameKind::Exit => Self::Exit(*get(kind, payload)?),
            FrameKind::End => Self::End(*get(kind, payload)?),
            FrameKind::Notice => Self::Notice(*get(kind, payload)?),
            FrameKind::Input => {
                let offset = payload.try_get_u64().map_err(|_| malformed.clone())?;
                Self::Input { offset, data: bounded(kind, payload, offset)? }
            }
            FrameKind::Output => {
                let offset = payload.try_get_u64().map_err(|_| malformed.clone())?;
                let stream = payload.try_get_u8().ok().and_then(OutputStream::from_byte).ok_or(malformed)?;
                Self::Output { offset, stream, data: bounded(kind, payload, offset)? }
            }
            FrameKind::InputEnd | FrameKind::InputAck | FrameKind::OutputAck | FrameKind::InputWanted => {
                let number = payload.try_get_u64().map_err(|_| malformed.clone())?;
                if payload.has_remaining() {
                    return Err(malformed);
                }
                match kind {
                    FrameKind::InputEnd => Self::InputEnd { offset: number },
                    FrameKind::InputAck => Self::InputAck(number),
                    FrameKind::OutputAck => Self::OutputAck(number),
                    _ => Self::InputWanted(number),
                }
            }
            FrameKind::Resize => {
                let sides: [u8; 8] = payload.as_ref().try_into().map_err(|_| malformed.clone())?;
                let [a, b, c, d, e, f, g, h] = sides;
                let size = TerminalSize {
                    rows: u16::from_be_bytes([a, b]),
                    columns: u16::from_be_bytes([c, d]),
                    width_pixels: u16::from_be_bytes([e, f]),
                    height_pixels: u16::from_be_bytes([g, h]),
                };
                Self::Resize(size.checked().ok_or(malformed)?)
            }
            FrameKind::Signal => match payload.as_ref() {
                [byte] => Self::Signal(Signal::from_byte(*byte).ok_or(malformed)?),
                _ => return Err(malformed),
            },
            FrameKind::Detach if payload.is_empty() => Self::Detach,
            FrameKind::Detach => return Err(malformed),
        };
        Ok(frame)
    }
}

fn put(message: &impl Message, out: &mut BytesMut) {
    // `encode` fails only for want of room, and a BytesMut grows.
    let _ = message.encode(out);
}

fn get<M: Message + Default>(kind: FrameKind, payload: Bytes) -> Result<Box<M>, FrameError> {
    M::decode(payload).map(Box::new).map_err(|_| FrameError::Malformed(kind))
}

/// Data must be there, fit [`MAX_DATA`] and not run past the end of the offset space.
fn bounded(kind: FrameKind, data: Bytes, offset: u64) -> Result<Bytes, FrameError> {
    let length = data.len() as u64;
    if data.is_empty() || data.len() > MAX_DATA || offset.checked_add(length).is_none_or(|end| end > i64::MAX as u64) {
        return Err(FrameError::Malformed(kind));
    }
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::wire::message::{Connect, OpenSession, open};

    const EVERYTHING: FrameSet = FrameSet(u32::MAX);

    fn samples() -> Vec<Frame> {
        let session = OpenSession { target: "web-1".into(), command: vec!["true".into()], ..Default::default() };
        vec![
            Frame::Open(Box::new(Open { wish: Some(open::Wish::Session(session)) })),
            Frame::Open(Box::new(Open {
                wish: Some(open::Wish::Connect(Connect {
                    session_id: "a-0123456789abcdef0".into(),
                    endpoint: Some((&"unix:/run/한글.sock".parse::<Endpoint>().unwrap()).into()),
                    grant: Bytes::from_static(b"signed"),
                    reveal: true,
                    lane: Bytes::from_static(&[7; 16]),
                })),
            })),
            Frame::Accepted(Box::new(Accepted { session_id: "a-0123456789abcdef0".into(), ..Default::default() })),
            Frame::Refused(Refused { code: "AccessDenied".into(), message: "no".into(), ..Default::default() }),
            Frame::Rejoined(Rejoined { output_stored: 7 }),
            Frame::Resolved(Resolved { addresses: vec!["10.0.0.7".into(), "fd00::7".into()] }),
            Frame::Go(Go { addresses: vec!["fd00::7".into()] }),
            Frame::Input { offset: 3, data: Bytes::from_static("안녕".as_bytes()) },
            Frame::InputEnd { offset: 9 },
            Frame::Output { offset: 1, stream: OutputStream::Stderr, data: Bytes::from_static(b"err") },
            Frame::InputAck(1),
            Frame::OutputAck(u64::MAX),
            Frame::InputWanted(0),
            Frame::Resize(TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 }),
            Frame::Signal(Signal::Interrupt),
            Frame::Exit(Exit { output_end: 5, ..Default::default() }),
            Frame::End(End { reason: "exited".into(), ..Default::default() }),
            Frame::Notice(Notice { text: "the session ends in 60 s".into() }),
            Frame::Detach,
        ]
    }

    #[test]
    fn frames_round_trip_also_in_single_bytes() {
        for frame in samples() {
            let mut encoded = BytesMut::new();
            frame.encode(&mut encoded).unwrap();
            let mut arrived = BytesMut::new();
            for (index, byte) in encoded.iter().enumerate() {
                arrived.put_u8(*byte);
                let decoded = Frame::decode(&mut arrived, EVERYTHING).unwrap();
                assert_eq!(decoded.is_some(), index + 1 == encoded.len(), "{frame:?}");
                if let Some(decoded) = decoded {
                    assert_eq!(decoded, frame);
                }
            }
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let check = |frame: Frame, expected: &str| {
            let mut encoded = BytesMut::new();
            frame.encode(&mut encoded).unwrap();
            assert_eq!(hex::encode(&encoded), expected);
        };
        check(Frame::Input { offset: 258, data: Bytes::from_static(b"ls\n") }, "1000000b00000000000001026c730a");
        check(
            Frame::Output { offset: 1, stream: OutputStream::Stdout, data: Bytes::from_static(b"x") },
            "1200000a00000000000000010178",
        );
        check(
            Frame::Resize(TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 }),
            "160000080018005000000000",
        );
        check(Frame::Signal(Signal::Interrupt), "1700000102");
        check(Frame::Detach, "1b000000");
    }

    #[test]
    fn a_kind_that_may_not_come_is_refused_before_its_body_arrives() {
        let mut head = BytesMut::from(&[FrameKind::Exit as u8, 0, 1, 0][..]);
        assert_eq!(Frame::decode(&mut head, FrameSet::FROM_CLIENT), Err(FrameError::Unexpected(FrameKind::Exit)));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_the_header_alone() {
        let mut head = BytesMut::from(&[FrameKind::Input as u8, 0xff, 0xff, 0xff][..]);
        assert_eq!(Frame::decode(&mut head, EVERYTHING), Err(FrameError::TooLarge(0x00ff_ffff)));
        let large = Frame::Input { offset: 0, data: Bytes::from(vec![0; MAX_PAYLOAD]) };
        assert!(matches!(large.encode(&mut BytesMut::new()), Err(FrameError::TooLarge(_))));
    }

    #[test]
    fn offsets_and_sizes_out_of_range_are_malformed() {
        let mut overflow = BytesMut::new();
        overflow.put_u32((16 << 24) | 9);
        overflow.put_u64(u64::MAX);
        overflow.put_u8(b'x');
        assert_eq!(Frame::decode(&mut overflow, EVERYTHING), Err(FrameError::Malformed(FrameKind::Input)));
        let mut giant = BytesMut::new();
        giant.put_u32((22 << 24) | 8);
        giant.put_u64(u64::MAX);
        assert_eq!(Frame::decode(&mut giant, EVERYTHING), Err(FrameError::Malformed(FrameKind::Resize)));
    }

    #[test]
    fn a_quarter_million_mutated_frames_neither_panic_nor_grow() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let encoded: Vec<BytesMut> = samples()
            .iter()
            .map(|frame| {
                let mut bytes = BytesMut::new();
                frame.encode(&mut bytes).unwrap();
                bytes
            })
            .collect();
        for _ in 0..1 << 18 {
            let mut bytes = encoded[(next() % encoded.len() as u64) as usize].clone();
            for _ in 0..=next() % 3 {
                let at = (next() % bytes.len() as u64) as usize;
                bytes[at] = next() as u8;
            }
            bytes.truncate((next() % (bytes.len() as u64 + 1)) as usize);
            let before = bytes.len();
            if let Ok(Some(frame)) = Frame::decode(&mut bytes, EVERYTHING) {
                assert!(frame.payload_len() <= 2 * MAX_PAYLOAD);
                assert!(bytes.len() < before);
            }
        }
    }
}
