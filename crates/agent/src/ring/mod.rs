//! The ring in which a session's output waits until the server has stored it.
//!
//! It is shared memory of the session, kept by the privileged half and used by the link half, which reads the
//! program's output straight into it. When the link half dies, the next one goes on from the ring, so nothing is lost
//! or doubled.
//!
//! A kill may also come inside the read, when the program's bytes are taken and not yet published. So the place is
//! blanked with a byte that no UTF-8 text contains before each read, and what differs from it belongs to the read that
//! was interrupted ([`Ring::open`] publishes it). Only binary output that ends in that very byte just then can be cut.
//!
//! Layout, numbers of 64 bits in the machine's own order:
//! ```text
//! 0        magic
//! 8        turn: the state is record `turn % 2`
//! 16       turn in which the last read began; as long as it is `turn`, that read was not published
//! 24       stream (upper half) and room in bytes (lower half) of that read
//! 64, 128  two state records: head, tail, wrap, output_head, output_tail, input_received
//! 4096     data, CAPACITY bytes: chunks of length (u32), stream (u8), 3 zero bytes, bytes; padded to 8
//! ```
//! INVARIANTS: chunks lie in `tail..head`, or when `head < tail` in `tail..wrap` and `0..head`; `head == tail` only
//! when nothing is held, and then both are 0, so that an idle session touches two pages; the chunks' lengths add up
//! to `output_head - output_tail`; every position is a multiple of 8. A new state is written to the record not in use
//! and published by one store of `turn`: a writer killed at any instruction leaves the old state or the new one.
//!
//! A reader believes none of this: [`Ring::open`] checks it all, because the writer may have been taken over.

mod map;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use munjigi_core::session::OutputStream;

use map::Map;

/// Bytes of output (and chunk heads) that a session holds (T-95 allows 4 MiB in the agent).
pub(crate) const CAPACITY: usize = 1024 * 1024;
const HEADER: usize = 4096;
const MAGIC: u64 = u64::from_ne_bytes(*b"mjring01");
const TURN: usize = 8;
const READ_TURN: usize = 16;
const READ_KIND: usize = 24;
/// What the place of a read holds before it.
const BLANK: u8 = 0xff;
const RECORDS: [usize; 2] = [64, 128];
const CHUNK_HEAD: usize = 8;
/// Most bytes of one chunk: what one frame carries.
pub(crate) const MAX_CHUNK: usize = munjigi_core::wire::MAX_DATA;
/// With less room than this the ring counts as full, so that reads stay worth their system call.
const LEAST_ROOM: usize = 4096;
/// Pages above this position are given back when the ring runs empty.
const KEEP: usize = 64 * 1024;

/// Why shared memory is not a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RingError {
    /// The system refused.
    #[error("the session's shared memory cannot be used: {0}")]
    System(#[from] nix::Error),
    /// The content breaks an invariant; the number says which check.
    #[error("the session's shared memory is damaged ({0})")]
    Damaged(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    head: usize,
    tail: usize,
    wrap: usize,
    output_head: u64,
    output_tail: u64,
    input_received: u64,
}

/// Where a reader of the ring stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The ring's generation in which `position` means something.
    generation: u64,
    position: usize,
    /// Output offset of the chunk at `position`.
    chunk_offset: u64,
    /// Output offset of the next byte to read; inside that chunk.
    offset: u64,
}

impl Cursor {
    /// Returns the output offset of the next byte.
    pub(crate) fn offset(self) -> u64 {
        self.offset
    }
}

/// Some output, as the program wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    /// Output offset of the first byte.
    pub(crate) offset: u64,
    /// Which of the two streams.
    pub(crate) stream: OutputStream,
    /// The bytes, at least one.
    pub(crate) bytes: &'a [u8],
}

/// A session's ring, for its one writer.
#[derive(Debug)]
pub(crate) struct Ring {
    map: Map,
    state: State,
    turn: u64,
    /// Counts how often the ring ran empty or its tail went back, after which positions mean something else.
    generation: u64,
    /// Positions that are known to hold [`BLANK`].
    blank: Range<usize>,
    /// Highest position used since pages were last given back.
    high_water: usize,
}

impl Ring {
    /// Makes the ring of a new session.
    pub(crate) fn create() -> Result<OwnedFd, RingError> {
        let fd = map::create(HEADER + CAPACITY)?;
        Map::open(&fd, HEADER + CAPACITY)?.store(0, MAGIC);
        Ok(fd)
    }

    /// Takes over a ring, checking everything in it.
    pub(crate) fn open(fd: impl AsFd) -> Result<Self, RingError> {
        let map = Map::open(fd, HEADER + CAPACITY)?;
        if map.load(0) != MAGIC {
            return Err(RingError::Damaged("magic"));
        }
        let turn = map.load(TURN);
        let at = record(turn);
        let position = |index: usize| usize::try_from(map.load(at + index * 8)).unwrap_or(usize::MAX);
        let state = State {
            head: position(0),
            tail: position(1),
            wrap: position(2),
            output_head: map.load(at + 24),
            output_tail: map.load(at + 32),
            input_received: map.load(at + 40),
        };
        let mut ring = Self { map, state, turn, generation: 0, blank: 0..0, high_water: CAPACITY };
        ring.check()?;
        ring.recover();
        Ok(ring)
    }

    /// Publishes what an interrupted read left.
    fn recover(&mut self) {
        if self.map.load(READ_TURN) != self.turn {
            return;
        }
        let kind = self.map.load(READ_KIND);
        let stream = u8::try_from(kind >> 32).ok().and_then(OutputStream::from_byte);
        let (Some(stream), Some((position, room))) = (stream, self.room()) else { return };
        let room = room.min(usize::try_from(kind & 0xffff_ffff).unwrap_or(0));
        let place = self.map.bytes(HEADER + position + CHUNK_HEAD, room).unwrap_or_default();
        let count = place.iter().rposition(|byte| *byte != BLANK).map_or(0, |last| last + 1);
        if count > 0 {
            self.publish_chunk(position, stream, count);
        }
    }

    fn check(&self) -> Result<(), RingError> {
        let State { head, tail, wrap, output_head, output_tail, input_received } = self.state;
        if [head, tail, wrap].iter().any(|position| *position > CAPACITY || !position.is_multiple_of(8)) {
            return Err(RingError::Damaged("position"));
        }
        if [output_head, input_received].iter().any(|offset| *offset > i64::MAX as u64) || output_tail > output_head {
            return Err(RingError::Damaged("offset"));
        }
        if head < tail && wrap < tail || (head == tail && (head != 0 || output_head != output_tail)) {
            return Err(RingError::Damaged("order"));
        }
        let mut cursor = self.oldest();
        // Each step goes forward by at least one chunk head, so this ends after CAPACITY / 8 steps at most.
        while let Some((_, length)) = self.chunk(cursor.position)? {
            cursor = self.behind(cursor, length);
            if cursor.chunk_offset > output_head {
                return Err(RingError::Damaged("sum"));
            }
        }
        if cursor.chunk_offset == output_head { Ok(()) } else { Err(RingError::Damaged("sum")) }
    }

    /// Returns the chunk at a position: its stream and length; `None` at the head.
    fn chunk(&self, position: usize) -> Result<Option<(OutputStream, usize)>, RingError> {
        let State { head, tail, wrap, .. } = self.state;
        if position == head {
            return Ok(None);
        }
        let end = if head < tail && position >= tail { wrap } else { head };
        let room = end.checked_sub(position).and_then(|room| room.checked_sub(CHUNK_HEAD));
        let room = room.ok_or(RingError::Damaged("chunk"))?;
        let bytes = self.map.bytes(HEADER + position, CHUNK_HEAD).ok_or(RingError::Damaged("chunk"))?;
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or(RingError::Damaged("chunk"))?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let stream = rest.first().copied().and_then(OutputStream::from_byte).ok_or(RingError::Damaged("stream"))?;
        if length == 0 || length > MAX_CHUNK || padded(length) > room {
            return Err(RingError::Damaged("length"));
        }
        Ok(Some((stream, length)))
    }

    /// Steps behind the chunk of that length at the cursor.
    fn behind(&self, cursor: Cursor, length: usize) -> Cursor {
        let position = self.unwrapped(cursor.position + CHUNK_HEAD + padded(length));
        let chunk_offset = cursor.chunk_offset.saturating_add(length as u64);
        Cursor { position, chunk_offset, offset: chunk_offset, ..cursor }
    }

    /// The end of the upper part is the start of the lower one.
    fn unwrapped(&self, position: usize) -> usize {
        let State { head, tail, wrap, .. } = self.state;
        if head < tail && position == wrap { 0 } else { position }
    }

    fn oldest(&self) -> Cursor {
        let State { tail, output_tail, .. } = self.state;
        let position = self.unwrapped(tail);
        Cursor { generation: self.generation, position, chunk_offset: output_tail, offset: output_tail }
    }

    fn publish(&mut self, state: State) {
        let at = record(self.turn.wrapping_add(1));
        let numbers = [
            state.head as u64,
            state.tail as u64,
            state.wrap as u64,
            state.output_head,
            state.output_tail,
            state.input_received,
        ];
        for (index, number) in numbers.into_iter().enumerate() {
            self.map.store(at + index * 8, number);
        }
        self.turn = self.turn.wrapping_add(1);
        self.map.store(TURN, self.turn);
        self.state = state;
        self.high_water = self.high_water.max(state.head).max(state.wrap);
    }

    /// Returns the output offset behind the newest byte.
    pub(crate) fn output_head(&self) -> u64 {
        self.state.output_head
    }

    /// Returns the output offset of the oldest byte held.
    pub(crate) fn output_tail(&self) -> u64 {
        self.state.output_tail
    }

    /// Returns how many input bytes the program has taken.
    pub(crate) fn input_received(&self) -> u64 {
        self.state.input_received
    }

    /// Counts input bytes that the program's descriptor took.
    pub(crate) fn add_input(&mut self, count: u64) {
        let input_received = self.state.input_received.saturating_add(count);
        self.publish(State { input_received, ..self.state });
    }

    /// Tells whether a read is worth its call.
    pub(crate) fn has_room(&self) -> bool {
        self.room().is_some()
    }

    /// Returns where the next chunk goes and how many bytes it may have.
    fn room(&self) -> Option<(usize, usize)> {
        let State { head, tail, .. } = self.state;
        let within = |from: usize, to: usize| to.saturating_sub(from).saturating_sub(CHUNK_HEAD);
        // Behind a wrap the head must not reach the tail: equal positions mean empty.
        let (here, there) =
            if head < tail { (within(head, tail - 8), 0) } else { (within(head, CAPACITY), within(8, tail)) };
        let (position, room) = if here >= LEAST_ROOM.max(there.min(MAX_CHUNK)) {
            (head, here)
        } else if there > here {
            (0, there)
        } else {
            (head, here)
        };
        (room >= LEAST_ROOM).then_some((position, room.min(MAX_CHUNK)))
    }

    /// Fills one chunk of at most `most` bytes: `read` writes into the given bytes and returns how many. Zero bytes
    /// publish nothing. When the ring is full, `read` is not called and the answer is `None`.
    pub(crate) fn fill<E>(
        &mut self,
        stream: OutputStream,
        most: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Option<Result<usize, E>> {
        let (position, room) = self.room()?;
        let room = room.min(most);
        let start = position + CHUNK_HEAD;
        self.make_blank(start..start + room);
        self.map.store(READ_KIND, (u64::from(stream.to_byte()) << 32) | room as u64);
        self.map.store(READ_TURN, self.turn);
        let place = self.map.bytes_mut(HEADER + start, room)?;
        let count = match read(place) {
            Ok(count) => count.min(room),
            Err(error) => return Some(Err(error)),
        };
        if count > 0 {
            self.publish_chunk(position, stream, count);
        }
        Some(Ok(count))
    }

    /// Blanks a place for a read. What an earlier read left untouched is blank already, so each byte is blanked once.
    fn make_blank(&mut self, wanted: Range<usize>) {
        let from = if self.blank.contains(&wanted.start) { self.blank.end.min(wanted.end) } else { wanted.start };
        if let Some(bytes) = self.map.bytes_mut(HEADER + from, wanted.end - from) {
            bytes.fill(BLANK);
        }
        self.blank = wanted.start..wanted.end.max(if from == wanted.start { 0 } else { self.blank.end });
    }

    fn publish_chunk(&mut self, position: usize, stream: OutputStream, count: usize) {
        let [a, b, c, d] = u32::try_from(count).unwrap_or(0).to_ne_bytes();
        let head = [a, b, c, d, stream.to_byte(), 0, 0, 0];
        if let Some(place) = self.map.bytes_mut(HEADER + position, CHUNK_HEAD) {
            place.copy_from_slice(&head);
        }
        let behind = position + CHUNK_HEAD + padded(count);
        // The next chunk's head is not blank; its bytes begin behind it.
        self.blank.start = self.blank.start.max(behind);
        let mut state = self.state;
        if position != state.head {
            state.wrap = state.head;
        }
        state.head = behind;
        state.output_head = state.output_head.saturating_add(count as u64);
        self.publish(state);
    }

    /// Returns the place of an output offset that the ring still holds (or the very end), for reading from there.
    pub(crate) fn seek(&self, offset: u64) -> Option<Cursor> {
        if offset < self.state.output_tail || offset > self.state.output_head {
            return None;
        }
        let mut cursor = self.oldest();
        while let Ok(Some((_, length))) = self.chunk(cursor.position) {
            let next = self.behind(cursor, length);
            if next.chunk_offset > offset {
                return Some(Cursor { offset, ..cursor });
            }
            cursor = next;
        }
        (cursor.chunk_offset == offset).then_some(cursor)
    }

    /// Returns the output at the cursor and the cursor behind it; `None` at the end, and for a cursor whose output
    /// was forgotten.
    pub(crate) fn next(&self, cursor: Cursor) -> Option<(Piece<'_>, Cursor)> {
        let cursor = if cursor.generation == self.generation {
            Cursor { position: self.unwrapped(cursor.position), ..cursor }
        } else {
            self.seek(cursor.offset)?
        };
        let (stream, length) = self.chunk(cursor.position).ok()??;
        let skip = usize::try_from(cursor.offset.checked_sub(cursor.chunk_offset)?).ok()?;
        let bytes = self.map.bytes(HEADER + cursor.position + CHUNK_HEAD, length)?.get(skip..)?;
        let piece = Piece { offset: cursor.offset, stream, bytes };
        (!bytes.is_empty()).then(|| (piece, self.behind(cursor, length)))
    }

    /// Forgets the chunks that lie wholly before `offset`.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        let mut cursor = self.oldest();
        while let Ok(Some((_, length))) = self.chunk(cursor.position) {
            let next = self.behind(cursor, length);
            if next.chunk_offset > offset {
                break;
            }
            cursor = next;
        }
        if cursor.chunk_offset == self.state.output_tail {
            return;
        }
        let mut state = State { tail: cursor.position, output_tail: cursor.chunk_offset, ..self.state };
        let empty = state.output_tail == state.output_head;
        if empty {
            (state.head, state.tail, state.wrap) = (0, 0, 0);
        }
        if empty || state.tail < self.state.tail {
            // A cursor at the end of the upper part, or behind the last chunk, means the start of the lower one now.
            self.generation = self.generation.wrapping_add(1);
        }
        self.publish(state);
        if empty && self.high_water > KEEP {
            self.map.release_from(HEADER + KEEP);
            self.high_water = 0;
            // Pages given back read as zero.
            self.blank = 0..0;
        }
    }
}

fn record(turn: u64) -> usize {
    let [even, odd] = RECORDS;
    if turn.is_multiple_of(2) { even } else { odd }
}

fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}
