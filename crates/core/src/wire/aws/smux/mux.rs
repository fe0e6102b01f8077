//! The multiplexer of both ends, without sockets: bytes of the session in and out on one side, streams on the other.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use super::stream::Stream;
use super::{Command, FrameHeader, HEADER, MuxError, MuxEvent, MuxLimits, Read, Side, StreamError};

/// The ids of opened streams begin here and go up by two: the library of AWS's programs counts on from 1.
const FIRST_STREAM: u32 = 3;
/// Most frames without data that wait to be sent. What answers the peer's own frames is left out beyond it.
const MOST_CONTROL: usize = 4 * 1024;

/// One end of a session.
#[derive(Debug)]
pub struct Mux {
    side: Side,
    limits: MuxLimits,
    streams: BTreeMap<u32, Stream>,
    next_stream: u32,
    /// Cost of everything unread, and of everything unsent.
    unread: usize,
    unsent: usize,
    /// The header that is being read, and how much of it is there.
    header: [u8; HEADER],
    header_length: usize,
    /// Stream and remaining length of the frame that is being read.
    body: (u32, usize),
    control: VecDeque<FrameHeader>,
    /// Streams that have something to send, in turn.
    line: VecDeque<u32>,
    /// At most one of each kind per stream.
    events: VecDeque<MuxEvent>,
}

impl Mux {
    /// Begins a session.
    pub const fn new(side: Side, limits: MuxLimits) -> Self {
        Self {
            side,
            limits,
            streams: BTreeMap::new(),
            next_stream: FIRST_STREAM,
            unread: 0,
            unsent: 0,
            header: [0; HEADER],
            header_length: 0,
            body: (0, 0),
            control: VecDeque::new(),
            line: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the session; what the streams keep shares their memory. An error ends the session.
    pub fn receive(&mut self, mut bytes: Bytes) -> Result<(), MuxError> {
        if self.unread.saturating_add(bytes.len()) > self.limits.receive.saturating_mul(2) {
            return Err(MuxError::Overflow);
        }
        while !bytes.is_empty() {
            let (stream, left) = self.body;
            if left > 0 {
                let piece = bytes.split_to(left.min(bytes.len()));
                self.body = (stream, left - piece.len());
                self.received(stream, piece);
                continue;
            }
            let wanted = self.header.iter_mut().skip(self.header_length);
            let taken = wanted.zip(bytes.iter()).map(|(to, from)| *to = *from).count();
            self.header_length += taken;
            let _ = bytes.split_to(taken);
            if self.header_length == HEADER {
                self.header_length = 0;
                self.begin_frame(FrameHeader::parse(self.header)?);
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, frame: FrameHeader) {
        match frame.command {
            Command::Psh => self.body = (frame.stream, usize::from(frame.length)),
            Command::Syn => self.peer_opens(frame.stream),
            Command::Fin => self.peer_closes(frame.stream),
            Command::Nop => {}
        }
    }

    /// A stream that cannot be had is closed at once; opening one that exists changes nothing, as in the library of
    /// AWS's programs.
    fn peer_opens(&mut self, id: u32) {
        if self.streams.contains_key(&id) {
            return;
        }
        if self.side == Side::Client || self.streams.len() >= self.limits.streams {
            if self.control.len() < MOST_CONTROL {
                self.control(Command::Fin, id);
            }
            return;
        }
        self.streams.insert(id, Stream::default());
        self.events.push_back(MuxEvent::Opened(id));
    }

    /// Announces that a stream has something to read, unless that still stands among the events.
    fn announce(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.announced, true)
        {
            self.events.push_back(MuxEvent::Readable(id));
        }
    }

    /// The peer takes nothing more on the stream, so what is unsent is dropped; what is unread can still be read.
    fn peer_closes(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.peer_closed {
            return;
        }
        stream.peer_closed = true;
        self.unsent -= stream.unsent.clear();
        if std::mem::take(&mut stream.blocked) {
            self.events.push_back(MuxEvent::Writable(id));
        }
        if !stream.closed {
            self.announce(id);
        }
    }

    fn received(&mut self, id: u32, piece: Bytes) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.closed || stream.peer_closed {
            return;
        }
        self.unread += stream.unread.push(piece);
        self.announce(id);
    }

    /// Tells whether more bytes of the session may be received. While it is false the channel's deliveries are left
    /// where they are.
    pub const fn wants_input(&self) -> bool {
        self.unread < self.limits.receive
    }

    /// Returns what has happened, in order.
    pub fn next_event(&mut self) -> Option<MuxEvent> {
        let event = self.events.pop_front()?;
        if let MuxEvent::Readable(id) = event
            && let Some(stream) = self.streams.get_mut(&id)
        {
            stream.announced = false;
        }
        Some(event)
    }

    /// Returns how many streams are open on this end.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Opens a stream.
    pub fn open(&mut self) -> Result<u32, StreamError> {
        if self.side == Side::Server || self.streams.len() >= self.limits.streams {
            return Err(StreamError::TooMany);
        }
        let id = self.next_stream;
        self.next_stream = id.checked_add(2).ok_or(StreamError::TooMany)?;
        self.streams.insert(id, Stream::default());
        self.control(Command::Syn, id);
        Ok(id)
    }

    /// Reads from a stream; one that is closed has ended.
    pub fn read(&mut self, id: u32) -> Read {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed) else { return Read::End };
        match stream.unread.take(usize::MAX) {
            Some((bytes, freed)) => {
                self.unread -= freed;
                Read::Data(bytes)
            }
            None if stream.peer_closed => Read::End,
            None => Read::Nothing,
        }
    }

    /// Returns how many bytes may be written to a stream now; 0 for one that is closed.
    pub fn room(&self, id: u32) -> usize {
        let Some(stream) = self.streams.get(&id).filter(|stream| !stream.closed && !stream.peer_closed) else {
            return 0;
        };
        let own = self.limits.send.saturating_sub(stream.unsent.cost());
        own.min(self.limits.send_together.saturating_sub(self.unsent))
    }

    /// Queues at most [`room`](Self::room) bytes on a stream. More are refused as a whole, and
    /// [`MuxEvent::Writable`] follows when there is room again.
    pub fn write(&mut self, id: u32, bytes: Bytes) -> Result<(), StreamError> {
        let room = self.room(id);
        let stream = self.streams.get_mut(&id).filter(|stream| !stream.closed && !stream.peer_closed);
        let stream = stream.ok_or(StreamError::Closed)?;
        if bytes.len() > room {
            stream.blocked = true;
            return Err(StreamError::Full);
        }
        if !bytes.is_empty() {
            self.unsent += stream.unsent.push(bytes);
            self.stand_in_line(id);
        }
        Ok(())
    }

    /// Closes a stream in both directions: what was written still goes out, what arrives is dropped.
    pub fn close(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.closed) else { return };
        stream.closed = true;
        stream.blocked = false;
        self.unread -= stream.unread.clear();
        self.stand_in_line(id);
    }

    /// Says that the session lives; needed every 10 s towards old programs only, which otherwise end it after 30.
    pub fn keep_alive(&mut self) {
        if self.control.len() < MOST_CONTROL {
            self.control(Command::Nop, 0);
        }
    }

    fn control(&mut self, command: Command, stream: u32) {
        self.control.push_back(FrameHeader { command, length: 0, stream });
    }

    fn stand_in_line(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !std::mem::replace(&mut stream.in_line, true)
        {
            self.line.push_back(id);
        }
    }

    /// Returns the next bytes for the peer: whole frames, together at most `most` bytes (9 or more).
    pub fn next_output(&mut self, most: usize) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.len() + HEADER <= most {
            let Some(frame) = self.control.pop_front() else { break };
            out.put_slice(&frame.bytes());
        }
        while out.len() + HEADER < most {
            let Some(id) = self.line.pop_front() else { break };
            self.put_frame(id, most - out.len() - HEADER, &mut out);
        }
        self.wake_writers();
        (!out.is_empty()).then(|| out.freeze())
    }

    /// Writes one frame of a stream, and puts it at the end of the line if it has more.
    fn put_frame(&mut self, id: u32, most: usize, out: &mut BytesMut) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let most = most.min(self.limits.frame).min(usize::from(u16::MAX));
        if let Some((bytes, freed)) = stream.unsent.take(most) {
            self.unsent -= freed;
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            out.reserve(HEADER + bytes.len());
            out.put_slice(&FrameHeader { command: Command::Psh, length, stream: id }.bytes());
            out.put_slice(&bytes);
        } else if stream.closed {
            self.streams.remove(&id);
            out.put_slice(&FrameHeader { command: Command::Fin, length: 0, stream: id }.bytes());
            return;
        }
        if stream.unsent.is_empty() && !stream.closed {
            stream.in_line = false;
        } else {
            self.line.push_back(id);
        }
    }

    /// Owes an event to streams whose write was refused, once half of what stood in its way has gone.
    fn wake_writers(&mut self) {
        if self.unsent > self.limits.send_together / 2 {
            return;
        }
        for (id, stream) in &mut self.streams {
            if stream.blocked && stream.unsent.cost() <= self.limits.send / 2 {
                stream.blocked = false;
                self.events.push_back(MuxEvent::Writable(*id));
            }
        }
    }
}
