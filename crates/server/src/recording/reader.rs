//! Reading a recording from any place, also while it is written: exactly the records that are in the file, each once.

use std::fs::File;
use std::sync::{Arc, Mutex};

use munjigi_core::id::SessionId;
use munjigi_core::recording::{DataKey, Event, EventKind, Position, Reader, Record, Seal};
use munjigi_core::secret::MasterKeys;
use tokio::sync::watch;

use super::index::Index;
use super::log::{Log, Mode, Progress};
use super::scan::{self, PIECE_BYTES, read_at};
use super::{RecordingError, blocking};
use crate::lock;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first event.
    Start,
    /// At the first event of the record with this number.
    Record(u64),
    /// At this offset of the output: everything before it, also other events, is left out.
    Output(u64),
}

/// Some events of a recording, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The events; empty at the end.
    pub events: Vec<Event>,
    /// Number of the record that comes next: reading can begin again there.
    pub next_record: u64,
    /// Whether the recording is still being written.
    pub live: bool,
    /// Whether the recording is sealed and nothing follows these events.
    pub sealed: bool,
    /// What the seal says, in the batch that holds the end.
    pub seal: Option<Seal>,
}

/// Reads one recording. Between two calls it holds a place and no buffer.
pub struct RecordingReader {
    file: Arc<File>,
    key: DataKey,
    position: Position,
    skip: ReadFrom,
    /// The live recording, to know how far the file may be read and when there is more.
    live: Option<(Mode, watch::Receiver<Progress>)>,
    index: Arc<Mutex<Index>>,
}

impl RecordingReader {
    /// Begins at the beginning of a file, or at the last place noted before the one that is wanted.
    pub(super) fn new(
        file: Arc<File>,
        session: &SessionId,
        keys: &MasterKeys,
        from: ReadFrom,
        log: Option<&Log>,
        index: Arc<Mutex<Index>>,
    ) -> Result<Self, RecordingError> {
        let (header, key) = scan::open(&file, session, keys)?;
        let noted = match from {
            ReadFrom::Start => None,
            ReadFrom::Record(first) => lock(&index).last(|place| place.sequence <= first).cloned(),
            ReadFrom::Output(offset) => {
                let before = |place: &Position| place.tally.as_ref().is_some_and(|tally| tally.output_end() <= offset);
                lock(&index).last(before).cloned()
            }
        };
        let position = noted.unwrap_or_else(|| Reader::new(&header, Some(key.clone())).position().clone());
        let live = log.map(|log| (log.mode, log.progress()));
        Ok(Self { file, key, position, skip: from, live, index })
    }

    /// Returns the next events, at least one record and then no more than about `most_bytes` of data. Waits while a
    /// live recording has none; an empty batch is the end.
    pub async fn next_batch(&mut self, most_bytes: usize) -> Result<Batch, RecordingError> {
        loop {
            let batch = self.available(most_bytes).await?;
            if !batch.events.is_empty() || !batch.live {
                return Ok(batch);
            }
            let read = self.position.byte_offset;
            let Some((mode, progress)) = &mut self.live else { return Ok(batch) };
            let mode = *mode;
            // An error means that the log is gone, which the next round finds closed.
            let _ = progress.wait_for(|progress| progress.closed || readable(mode, progress) > read).await;
        }
    }

    /// As [`Self::next_batch`], but returns an empty batch instead of waiting.
    pub async fn available(&mut self, most_bytes: usize) -> Result<Batch, RecordingError> {
        let (limit, live) = match &self.live {
            Some((mode, progress)) => {
                let progress = progress.borrow();
                (readable(*mode, &progress), !progress.closed)
            }
            None => (u64::MAX, false),
        };
        let job = ReadJob {
            file: self.file.clone(),
            key: self.key.clone(),
            position: self.position.clone(),
            skip: self.skip,
            index: self.index.clone(),
            limit,
            most_bytes,
        };
        let (position, skip, mut batch) = blocking(move || job.run()).await?;
        (self.position, self.skip) = (position, skip);
        batch.live = live && !self.position.sealed;
        Ok(batch)
    }
}

/// How far a live file may be read: whole records only, and in strict mode only durable ones.
fn readable(mode: Mode, progress: &Progress) -> u64 {
    match mode {
        Mode::Normal => progress.written_bytes,
        Mode::Strict => progress.durable_bytes,
    }
}

struct ReadJob {
    file: Arc<File>,
    key: DataKey,
    position: Position,
    skip: ReadFrom,
    index: Arc<Mutex<Index>>,
    limit: u64,
    most_bytes: usize,
}

impl ReadJob {
    fn run(mut self) -> Result<(Position, ReadFrom, Batch), RecordingError> {
        let mut reader = Reader::resume(Some(self.key), self.position.clone());
        let mut batch =
            Batch { events: Vec::new(), next_record: self.position.sequence, live: false, sealed: false, seal: None };
        let mut at = self.position.byte_offset;
        let mut piece = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        'file: loop {
            let want = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let length = read_at(&self.file, piece.get_mut(..want).unwrap_or_default(), at)
                .map_err(RecordingError::io("read the recording"))?;
            if length == 0 {
                break;
            }
            at += length as u64;
            reader.feed(piece.get(..length).unwrap_or_default());
            while let Some(record) = reader.next_record()? {
                lock(&self.index).note(reader.position());
                batch.seal = record.seal.clone();
                for event in wanted(&mut self.skip, record) {
                    bytes += data_bytes(&event);
                    batch.events.push(event);
                }
                if !batch.events.is_empty() && bytes >= self.most_bytes {
                    break 'file;
                }
            }
        }
        batch.next_record = reader.position().sequence;
        batch.sealed = reader.position().sealed;
        Ok((reader.position().clone(), self.skip, batch))
    }
}

/// Leaves out what lies before the place where reading begins.
fn wanted(skip: &mut ReadFrom, record: Record) -> Vec<Event> {
    let mut events = record.events;
    match *skip {
        ReadFrom::Start => {}
        ReadFrom::Record(first) if record.sequence < first => events.clear(),
        ReadFrom::Record(_) => *skip = ReadFrom::Start,
        ReadFrom::Output(from) => match events.iter().position(|event| reaches(event, from)) {
            None => events.clear(),
            Some(first) => {
                events.drain(..first);
                if let Some(Event { kind: EventKind::Output { offset, bytes, .. }, .. }) = events.first_mut() {
                    let known = usize::try_from(from.saturating_sub(*offset)).unwrap_or(usize::MAX).min(bytes.len());
                    *offset += known as u64;
                    *bytes = bytes.split_off(known);
                }
                *skip = ReadFrom::Start;
            }
        },
    }
    events
}

/// Tells whether an event holds output behind an offset, or is the end, which everybody is told.
fn reaches(event: &Event, offset: u64) -> bool {
    match &event.kind {
        EventKind::Output { offset: begin, bytes, .. } => begin + bytes.len() as u64 > offset,
        EventKind::End { .. } => true,
        _ => false,
    }
}

fn data_bytes(event: &Event) -> usize {
    match &event.kind {
        EventKind::Output { bytes, .. } => bytes.len(),
        _ => size_of::<Event>(),
    }
}
