//! The writing end: events become records; no file, no clock, no random source.

use aws_lc_rs::error::Unspecified;

use super::event::{EVENT_OVERHEAD, MAX_MARKER_BYTES, put};
use super::frame::{Head, MAX_RECORD_PAYLOAD, RecordKind, SALT, SegmentKey, TAG, chain_hash};
use super::reader::{Disorder, Position, Tally};
use super::{DataKey, Event, EventKind, Header, InputData};
use crate::id::SessionId;
use crate::secret::{EnvelopeError, MasterKey};
use crate::session::{EndReason, ExitStatus};
use crate::time::Timestamp;

/// Longest JSON of a start event.
const MAX_START_BYTES: usize = 48 * 1024;
/// What a silent writer keeps of its buffer: thousands of sessions wait for their next keystroke at once.
const KEPT_BUFFER_BYTES: usize = 512;
/// Output and input are not cut into smaller pieces than this just to fill up a record.
const SMALLEST_PIECE: usize = 1024;

/// The random bytes that a new file needs; each is used for this file only.
pub struct FileRandom {
    /// Becomes the data key.
    pub data_key: [u8; 32],
    /// Salt of the envelope around the data key.
    pub wrap_salt: [u8; 32],
    /// Salt of the first segment's key.
    pub segment_salt: [u8; SALT],
}

/// Why events could not become records. Nothing was written and the writer's state is as before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// An event does not follow from the ones before.
    #[error("the events are out of order: {0}")]
    Disorder(#[from] Disorder),
    /// The start event is larger than a record.
    #[error("the description of the session is too long to be recorded")]
    StartTooLong,
    /// Only sealing writes the end.
    #[error("the end of a recording is written by sealing it")]
    EndBySealing,
    /// The position was read without the key, or the recording is sealed.
    #[error("the recording cannot be continued: it is sealed, or it was read without its key")]
    NotContinuable,
    /// The data key could not be wrapped.
    #[error("the recording's key cannot be wrapped: {0}")]
    Key(#[from] EnvelopeError),
    /// The cipher refused.
    #[error("the record could not be encrypted")]
    Cipher,
}

impl From<Unspecified> for WriteError {
    fn from(_: Unspecified) -> Self {
        Self::Cipher
    }
}

/// What a sealed recording is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The final chain hash; it covers every byte before it and stands in the audit event.
    pub hash: [u8; 32],
    /// How many records the file has, the seal included.
    pub records: u64,
    /// Bytes recorded.
    pub tally: Tally,
    /// Length of the file.
    pub file_bytes: u64,
}

/// Turns events into the bytes to append to the file. Bytes handed out are to be written in order, all of them.
pub struct Writer {
    key: DataKey,
    segment: SegmentKey,
    /// Salt of the segment's key.
    salt: [u8; SALT],
    /// Salt to write before the next record's ciphertext; set at the start of a segment.
    unwritten_salt: Option<[u8; SALT]>,
    chain: [u8; 32],
    sequence: u64,
    tally: Tally,
    file_bytes: u64,
    /// Plaintext of the record being filled; kept for its memory.
    payload: Vec<u8>,
}

impl Writer {
    /// Begins a new file and appends its header to `out`. The first event must be the start.
    pub fn create(
        master: &MasterKey,
        session: &SessionId,
        created: Timestamp,
        random: FileRandom,
        out: &mut Vec<u8>,
    ) -> Result<Self, WriteError> {
        let key = DataKey::new(random.data_key);
        let header = Header::create(master, session, created, &key, random.wrap_salt, out)?;
        let position = Position::at_start(&header, true);
        Self::reopen(key, position, random.segment_salt)
    }

    /// Continues a file behind `position`, to which the file was read with its key and cut. `segment_salt` is 16
    /// fresh random bytes: the new segment has a new key.
    pub fn reopen(key: DataKey, position: Position, segment_salt: [u8; SALT]) -> Result<Self, WriteError> {
        let Some(tally) = position.tally.filter(|_| !position.sealed) else { return Err(WriteError::NotContinuable) };
        Ok(Self {
            segment: SegmentKey::derive(&key, &segment_salt)?,
            key,
            salt: segment_salt,
            unwritten_salt: Some(segment_salt),
            chain: position.chain,
            sequence: position.sequence,
            tally,
            file_bytes: position.byte_offset,
            payload: Vec::new(),
        })
    }

    /// Appends the records that hold these events to `out`. Long output is spread over several records; times that run
    /// backwards are lifted to the latest one seen. On an error `out` and the writer are unchanged.
    pub fn append(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<(), WriteError> {
        let mut tally = self.tally.clone();
        for event in events {
            if matches!(event.kind, EventKind::End { .. }) {
                return Err(WriteError::EndBySealing);
            }
            tally.admit(&lifted(event, tally.last_at))?;
            if let EventKind::Start(meta) = &event.kind
                && serde_json::to_vec(meta).map_or(true, |json| json.len() > MAX_START_BYTES)
            {
                return Err(WriteError::StartTooLong);
            }
        }
        self.payload.clear();
        let mut last_at = self.tally.last_at;
        for event in events {
            let event = lifted(event, last_at);
            last_at = event.at;
            self.put(&event, out)?;
        }
        if !self.payload.is_empty() {
            self.flush(RecordKind::Events, out)?;
        }
        self.payload.shrink_to(KEPT_BUFFER_BYTES);
        self.tally = tally;
        Ok(())
    }

    /// Ends the recording: appends the seal, after which nothing can follow, and returns what the recording is known
    /// by. `at` counts in microseconds from the session's start.
    pub fn seal(
        mut self,
        at: u64,
        reason: EndReason,
        exit: Option<ExitStatus>,
        out: &mut Vec<u8>,
    ) -> Result<Sealed, WriteError> {
        let end = Event { at: at.max(self.tally.last_at), kind: EventKind::End { reason, exit } };
        self.tally.admit(&end)?;
        self.payload.clear();
        if self.unwritten_salt.is_some() {
            // Directly behind a reopening the segment still needs its own record.
            self.flush(RecordKind::Events, out)?;
        }
        end.encode(&mut self.payload);
        let records = self.sequence + 1;
        for number in [records, self.tally.stdout_bytes, self.tally.stderr_bytes, self.tally.input_bytes] {
            put(&mut self.payload, number);
        }
        self.flush(RecordKind::Seal, out)?;
        Ok(Sealed { hash: self.chain, records, tally: self.tally, file_bytes: self.file_bytes })
    }

    /// Returns what was recorded so far.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Returns the place behind the newest record, from which reading can begin once it is written.
    pub fn position(&self) -> Position {
        Position {
            byte_offset: self.file_bytes,
            sequence: self.sequence,
            chain: self.chain,
            tally: Some(self.tally.clone()),
            sealed: false,
            salt: Some(self.salt),
        }
    }

    /// Returns the length of the file once everything handed out is written.
    pub const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Returns the chain hash of the newest record.
    pub const fn chain_hash(&self) -> [u8; 32] {
        self.chain
    }

    /// Returns how many records were handed out.
    pub const fn records(&self) -> u64 {
        self.sequence
    }

    fn put(&mut self, event: &Event, out: &mut Vec<u8>) -> Result<(), WriteError> {
        match &event.kind {
            EventKind::Output { stream, offset, bytes } => self.put_pieces(bytes, out, |skipped, bytes| Event {
                at: event.at,
                kind: EventKind::Output { stream: *stream, offset: offset + skipped, bytes },
            }),
            EventKind::Input { offset, data: InputData::Bytes(bytes) } => {
                self.put_pieces(bytes, out, |skipped, bytes| Event {
                    at: event.at,
                    kind: EventKind::Input { offset: offset + skipped, data: InputData::Bytes(bytes) },
                })
            }
            EventKind::Start(_) => self.put_whole(event, MAX_START_BYTES, out),
            EventKind::Statement(statement) => self.put_whole(event, statement.recorded_bytes(), out),
            _ => self.put_whole(event, MAX_MARKER_BYTES, out),
        }
    }

    fn put_whole(&mut self, event: &Event, longest: usize, out: &mut Vec<u8>) -> Result<(), WriteError> {
        if self.payload.len() + longest + EVENT_OVERHEAD > MAX_RECORD_PAYLOAD {
            self.flush(RecordKind::Events, out)?;
        }
        event.encode(&mut self.payload);
        Ok(())
    }

    fn put_pieces(
        &mut self,
        bytes: &bytes::Bytes,
        out: &mut Vec<u8>,
        piece: impl Fn(u64, bytes::Bytes) -> Event,
    ) -> Result<(), WriteError> {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let room = MAX_RECORD_PAYLOAD.saturating_sub(self.payload.len() + EVENT_OVERHEAD);
            if room < rest.len().min(SMALLEST_PIECE) {
                self.flush(RecordKind::Events, out)?;
                continue;
            }
            let skipped = (bytes.len() - rest.len()) as u64;
            let part = rest.split_to(rest.len().min(room));
            piece(skipped, part).encode(&mut self.payload);
        }
        Ok(())
    }

    /// Encrypts the payload into one record.
    fn flush(&mut self, kind: RecordKind, out: &mut Vec<u8>) -> Result<(), WriteError> {
        let kind = if self.unwritten_salt.is_some() { RecordKind::Segment } else { kind };
        let salt = self.unwritten_salt.take();
        let body_length = salt.map_or(0, |salt| salt.len()) + self.payload.len() + TAG;
        let head = Head {
            body_length: u32::try_from(body_length).map_err(|_| WriteError::Cipher)?,
            sequence: self.sequence,
            kind: kind.to_byte(),
        }
        .to_bytes(&self.chain);
        let start = out.len();
        out.extend_from_slice(&head);
        let body = out.len();
        out.extend_from_slice(salt.as_ref().map_or(&[], |salt| salt.as_slice()));
        let plaintext = out.len();
        out.extend_from_slice(&self.payload);
        self.segment.seal(&self.chain, &head, out, plaintext)?;
        self.chain = chain_hash(&self.chain, &head, out.get(body..).unwrap_or_default());
        out.extend_from_slice(&self.chain);
        self.sequence += 1;
        self.file_bytes += (out.len() - start) as u64;
        self.payload.clear();
        Ok(())
    }

    /// Returns the data key, to read back what was written.
    pub const fn data_key(&self) -> &DataKey {
        &self.key
    }
}

fn lifted(event: &Event, last_at: u64) -> Event {
    Event { at: event.at.max(last_at), kind: event.kind.clone() }
}
