//! The reading end: bytes of a file, as they come, become records, each proved to be the one that was written there.

use bytes::Bytes;

use super::event::Cursor;
use super::frame::{CHAIN, HEAD, Head, RecordKind, SALT, SegmentKey, chain_hash};
use super::{Connection, DataKey, Event, EventKind, Header};
use crate::session::{EndReason, ExitStatus, OutputStream};

/// What a recording holds up to some place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Bytes the program wrote to standard output.
    pub stdout_bytes: u64,
    /// Bytes the program wrote to standard error.
    pub stderr_bytes: u64,
    /// Bytes typed, recorded or only counted.
    pub input_bytes: u64,
    /// Number of the newest connection of a port session; 0 without any.
    pub last_connection: u64,
    /// Bytes of ended connections from the client to the destination.
    pub connection_bytes_in: u64,
    /// Bytes of ended connections from the destination to the client.
    pub connection_bytes_out: u64,
    /// Time of the newest event, microseconds since the start.
    pub last_at: u64,
    started: bool,
    ended: bool,
}

/// Why an event cannot follow the ones before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disorder {
    /// The first event is not the start, or there is a second start.
    #[error("the start must be the first event, once")]
    Start,
    /// Something follows the end.
    #[error("nothing may follow the end")]
    AfterEnd,
    /// Bytes are missing or doubled.
    #[error("expected the bytes from offset {expected}, got those from {found}")]
    Offset {
        /// The offset that comes next.
        expected: u64,
        /// The event's.
        found: u64,
    },
    /// Time runs backwards.
    #[error("time runs backwards")]
    Time,
}

impl Tally {
    /// Returns the offset behind the last byte of output, of both streams together.
    pub const fn output_end(&self) -> u64 {
        self.stdout_bytes + self.stderr_bytes
    }

    /// Takes one more event into account, if it follows from those before.
    pub(super) fn admit(&mut self, event: &Event) -> Result<(), Disorder> {
        if self.ended {
            return Err(Disorder::AfterEnd);
        }
        if matches!(event.kind, EventKind::Start(_)) == self.started {
            return Err(Disorder::Start);
        }
        if event.at < self.last_at {
            return Err(Disorder::Time);
        }
        let contiguous = |expected: u64, found: u64, length: u64| {
            if expected == found && expected.checked_add(length).is_some() {
                Ok(length)
            } else {
                Err(Disorder::Offset { expected, found })
            }
        };
        match &event.kind {
            EventKind::Start(_) => self.started = true,
            EventKind::Output { stream, offset, bytes } => {
                let length = contiguous(self.output_end(), *offset, bytes.len() as u64)?;
                match stream {
                    OutputStream::Stdout => self.stdout_bytes += length,
                    OutputStream::Stderr => self.stderr_bytes += length,
                }
            }
            EventKind::Input { offset, data } => {
                self.input_bytes += contiguous(self.input_bytes, *offset, data.len())?;
            }
            EventKind::Connection(connection) => self.count(connection),
            EventKind::Resize(_)
            | EventKind::Marker { .. }
            | EventKind::Statement(_)
            | EventKind::StatementEnd(_)
            | EventKind::File(_)
            | EventKind::FileChange(_) => {}
            EventKind::End { .. } => self.ended = true,
        }
        self.last_at = event.at;
        Ok(())
    }

    fn count(&mut self, connection: &Connection) {
        match connection {
            Connection::Opened { number, .. } | Connection::Refused { number, .. } => {
                self.last_connection = self.last_connection.max(*number);
            }
            Connection::Closed { bytes_in, bytes_out, .. } => {
                self.connection_bytes_in = self.connection_bytes_in.saturating_add(*bytes_in);
                self.connection_bytes_out = self.connection_bytes_out.saturating_add(*bytes_out);
            }
            Connection::Lost { .. } => {}
        }
    }
}

/// A place between two records, from which reading and writing can go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Offset in the file: behind the last whole record. A file that is continued is cut here first.
    pub byte_offset: u64,
    /// Sequence number of the next record: how many came before.
    pub sequence: u64,
    /// Chain hash of the record before (of the header, at the start).
    pub chain: [u8; 32],
    /// What came before; `None` if it was read without the key.
    pub tally: Option<Tally>,
    /// Whether the record before was the seal.
    pub sealed: bool,
    /// Salt of the segment that the record before belongs to.
    pub(super) salt: Option<[u8; SALT]>,
}

impl Position {
    pub(super) fn at_start(header: &Header, with_key: bool) -> Self {
        Self {
            byte_offset: header.length() as u64,
            sequence: 0,
            chain: header.hash(),
            tally: with_key.then(Tally::default),
            sealed: false,
            salt: None,
        }
    }
}

/// What the seal says, checked against the records before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// When the session ended, microseconds since its start.
    pub at: u64,
    /// Why it ended.
    pub reason: EndReason,
    /// How the program ended, if it did.
    pub exit: Option<ExitStatus>,
    /// How many records the file has, the seal included.
    pub records: u64,
}

/// One record, proved to stand at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 0.
    pub sequence: u64,
    /// What it is.
    pub kind: RecordKind,
    /// Where it begins in the file.
    pub byte_offset: u64,
    /// Its events in order; empty when read without the key.
    pub events: Vec<Event>,
    /// What the seal says, if this is the seal and the key is known.
    pub seal: Option<Seal>,
}

/// Why a record is not what was written at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Tamper {
    /// Another sequence number: records were removed, inserted or moved.
    #[error("record number {0} stands here")]
    Sequence(u64),
    /// The fixed fields were changed, or the record before is another one.
    #[error("the record's head was changed, or it does not follow the record before")]
    Head,
    /// The chain hash does not fit.
    #[error("the record was changed: its chain hash does not fit")]
    Chain,
    /// The ciphertext does not open with the recording's key.
    #[error("the record was not written by the holder of the recording's key")]
    Cipher,
    /// The plaintext is no list of events.
    #[error("the record's events cannot be read")]
    Events,
    /// Its events do not follow from those before.
    #[error("{0}")]
    Disorder(#[from] Disorder),
    /// A segment's key is missing: the first record does not begin a segment.
    #[error("the first record does not begin a segment")]
    NoSegment,
    /// The seal's count or tallies are not those of the records.
    #[error("the seal does not fit the records before it")]
    Seal,
    /// Bytes follow the seal.
    #[error("bytes follow the seal")]
    AfterSeal,
}

/// The first bad place of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tampered at record {record} (byte {byte_offset}): {why}")]
pub struct Tampered {
    /// Number of the first bad record; all before it are as written.
    pub record: u64,
    /// Where it begins in the file.
    pub byte_offset: u64,
    /// What is wrong with it.
    pub why: Tamper,
}

/// Reads records from bytes fed in any pieces. Holds at most one record and the last piece fed.
pub struct Reader {
    key: Option<DataKey>,
    segment: Option<SegmentKey>,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are already read.
    used: usize,
    position: Position,
    failed: Option<Tampered>,
}

impl Reader {
    /// Begins behind a file's header. Without the key only order and chain are checked and no events are given.
    pub fn new(header: &Header, key: Option<DataKey>) -> Self {
        let position = Position::at_start(header, key.is_some());
        Self { key, segment: None, buffer: Vec::new(), used: 0, position, failed: None }
    }

    /// Begins at a position noted earlier; the next byte fed is the one at its `byte_offset`.
    pub fn resume(key: Option<DataKey>, position: Position) -> Self {
        Self { key, segment: None, buffer: Vec::new(), used: 0, position, failed: None }
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole record, or `None` until more bytes are fed. After an error nothing more is read.
    pub fn next_record(&mut self) -> Result<Option<Record>, Tampered> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        self.read().map_err(|why| {
            let tampered = Tampered { record: self.position.sequence, byte_offset: self.position.byte_offset, why };
            self.failed = Some(tampered);
            tampered
        })
    }

    /// Returns the place behind the last record returned.
    pub const fn position(&self) -> &Position {
        &self.position
    }

    /// Returns how many bytes of an incomplete record were fed: at the end of a file that a crash cut, these are the
    /// ones to cut off.
    pub fn torn_bytes(&self) -> u64 {
        (self.buffer.len() - self.used) as u64
    }

    fn read(&mut self) -> Result<Option<Record>, Tamper> {
        let rest = self.buffer.get(self.used..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        if self.position.sealed {
            return Err(Tamper::AfterSeal);
        }
        let Some((head_bytes, behind)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let head = Head::from_bytes(head_bytes);
        if head.sequence != self.position.sequence {
            return Err(Tamper::Sequence(head.sequence));
        }
        let kind = RecordKind::from_byte(head.kind).ok_or(Tamper::Head)?;
        let (shortest, longest) = kind.body_bounds();
        let body_length = usize::try_from(head.body_length).map_err(|_| Tamper::Head)?;
        // The length is proved before anything waits for that many bytes.
        if !(shortest..=longest).contains(&body_length) || head.to_bytes(&self.position.chain) != *head_bytes {
            return Err(Tamper::Head);
        }
        let Some((body, behind)) = behind.split_at_checked(body_length) else { return Ok(None) };
        let Some((chain, _)) = behind.split_first_chunk::<CHAIN>() else { return Ok(None) };
        if chain_hash(&self.position.chain, head_bytes, body) != *chain {
            return Err(Tamper::Chain);
        }

        let mut next = self.position.clone();
        next.byte_offset += (HEAD + body_length + CHAIN) as u64;
        next.sequence += 1;
        next.chain = *chain;
        next.sealed = kind == RecordKind::Seal;
        let mut record = Record {
            sequence: head.sequence,
            kind,
            byte_offset: self.position.byte_offset,
            events: Vec::new(),
            seal: None,
        };
        let mut sealed_payload = body;
        if kind == RecordKind::Segment {
            let (salt, rest) = body.split_first_chunk::<SALT>().ok_or(Tamper::Head)?;
            next.salt = Some(*salt);
            sealed_payload = rest;
        }
        let salt = next.salt.ok_or(Tamper::NoSegment)?;
        if let (Some(key), Some(tally)) = (&self.key, &mut next.tally) {
            let segment = match self.segment.take().filter(|_| kind != RecordKind::Segment) {
                Some(segment) => segment,
                None => SegmentKey::derive(key, &salt).map_err(|_| Tamper::Cipher)?,
            };
            let mut payload = sealed_payload.to_vec();
            segment.open(&self.position.chain, head_bytes, &mut payload).map_err(|_| Tamper::Cipher)?;
            self.segment = Some(segment);
            decode(&mut record, payload.into(), tally)?;
        }
        self.used += HEAD + body_length + CHAIN;
        self.position = next;
        Ok(Some(record))
    }
}

/// Reads a record's events and checks that they follow from those before.
fn decode(record: &mut Record, payload: Bytes, tally: &mut Tally) -> Result<(), Tamper> {
    let mut cursor = Cursor::new(payload);
    if record.kind == RecordKind::Seal {
        let event = Event::decode(&mut cursor).ok_or(Tamper::Events)?;
        tally.admit(&event)?;
        let EventKind::End { reason, exit } = event.kind.clone() else { return Err(Tamper::Events) };
        let wanted = [record.sequence + 1, tally.stdout_bytes, tally.stderr_bytes, tally.input_bytes];
        for number in wanted {
            if cursor.number() != Some(number) {
                return Err(Tamper::Seal);
            }
        }
        record.seal = Some(Seal { at: event.at, reason, exit, records: record.sequence + 1 });
        record.events.push(event);
        return if cursor.is_empty() { Ok(()) } else { Err(Tamper::Events) };
    }
    while !cursor.is_empty() {
        let event = Event::decode(&mut cursor).ok_or(Tamper::Events)?;
        if matches!(event.kind, EventKind::End { .. }) {
            return Err(Tamper::Events);
        }
        tally.admit(&event)?;
        record.events.push(event);
    }
    Ok(())
}
