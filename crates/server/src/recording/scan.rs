//! Reading a whole recording from its file: to continue it, to repair it, to verify it. Blocks; memory stays within one
//! record and one piece.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use munjigi_core::id::SessionId;
use munjigi_core::recording::{
    Connection, DataKey, Event, EventKind, Header, HeaderError, MAX_HEADER_BYTES, Position, Reader, StartMeta,
    Tampered, Verdict, Verifier,
};
use munjigi_core::secret::MasterKeys;

use super::RecordingError;

/// How much is read from a file at once.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// A recording read from its beginning to its last whole record.
pub(super) struct Scan {
    pub key: DataKey,
    /// Behind the last whole record.
    pub position: Position,
    /// What the first event says; `None` if not even that one is whole.
    pub start: Option<StartMeta>,
    /// Connections without an end, by their number. A session has 256 at most at once.
    pub open: BTreeMap<u64, StillOpen>,
    /// Length of what lies behind the last whole record.
    pub torn_bytes: u64,
}

/// A connection of which a recording has the beginning and not the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StillOpen {
    /// When it was made, microseconds since the session's start.
    pub at: u64,
    /// What it went to, as asked for.
    pub destination: String,
    /// The address that the node connected to.
    pub address: String,
}

/// Reads the head of a file and opens its key.
pub(super) fn open(file: &File, session: &SessionId, keys: &MasterKeys) -> Result<(Header, DataKey), RecordingError> {
    let mut head = vec![0; MAX_HEADER_BYTES];
    let length = read_at(file, &mut head, 0).map_err(RecordingError::io("read the recording"))?;
    let header = Header::parse(head.get(..length).unwrap_or_default())?.ok_or(HeaderError::NotARecording)?;
    if header.session != *session {
        return Err(HeaderError::OtherSession(header.session).into());
    }
    let key = header.unlock(keys)?;
    Ok((header, key))
}

/// Reads a recording up to its last whole record, at most `limit` bytes of it. What a crash leaves behind that record,
/// a part of the next one or zeros that the file system put there, is no damage.
pub(super) fn scan(file: &File, session: &SessionId, keys: &MasterKeys, limit: u64) -> Result<Scan, RecordingError> {
    let (header, key) = open(file, session, keys)?;
    let mut reader = Reader::new(&header, Some(key.clone()));
    let (mut start, mut open) = (None, BTreeMap::new());
    let mut at = header.length() as u64;
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let want = usize::try_from(limit.saturating_sub(at)).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let into = piece.get_mut(..want).unwrap_or_default();
        let length = read_at(file, into, at).map_err(RecordingError::io("read the recording"))?;
        if length == 0 {
            break;
        }
        at += length as u64;
        reader.feed(piece.get(..length).unwrap_or_default());
        loop {
            match reader.next_record() {
                Ok(Some(record)) => {
                    if let Some(EventKind::Start(meta)) = record.events.first().map(|event| &event.kind) {
                        start = Some((**meta).clone());
                    }
                    record.events.iter().for_each(|event| follow(&mut open, event));
                }
                Ok(None) => break,
                Err(tampered) => {
                    let torn_bytes = zeros_to_end(file, &tampered, limit)?;
                    return Ok(Scan { key, position: reader.position().clone(), start, open, torn_bytes });
                }
            }
        }
    }
    Ok(Scan { key, position: reader.position().clone(), start, open, torn_bytes: reader.torn_bytes() })
}

fn follow(open: &mut BTreeMap<u64, StillOpen>, event: &Event) {
    let EventKind::Connection(connection) = &event.kind else { return };
    match &**connection {
        Connection::Opened { number, destination, address } => {
            let (destination, address) = (destination.clone(), address.clone());
            open.insert(*number, StillOpen { at: event.at, destination, address });
        }
        Connection::Closed { number, .. } | Connection::Lost { number, .. } => {
            open.remove(number);
        }
        Connection::Refused { .. } => {}
    }
}

/// Returns how many zeros stand from a bad place to the end of the file; anything else there is damage.
fn zeros_to_end(file: &File, tampered: &Tampered, limit: u64) -> Result<u64, RecordingError> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = tampered.byte_offset;
    while at < limit {
        let length = read_at(file, &mut piece, at).map_err(RecordingError::io("read the recording"))?;
        if length == 0 {
            break;
        }
        if piece.get(..length).unwrap_or_default().iter().any(|byte| *byte != 0) {
            return Err((*tampered).into());
        }
        at += length as u64;
    }
    Ok(at - tampered.byte_offset)
}

/// Verifies the first `limit` bytes of a file.
pub(super) fn verify(file: &File, session: &SessionId, keys: &MasterKeys, limit: u64) -> io::Result<Verdict> {
    let mut verifier = Verifier::new(session, Some(keys));
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        let want = usize::try_from(limit - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let length = read_at(file, piece.get_mut(..want).unwrap_or_default(), at)?;
        if length == 0 {
            return Ok(verifier.finish());
        }
        at += length as u64;
        verifier.feed(piece.get(..length).unwrap_or_default());
    }
}

/// Reads until the buffer is full or the file ends; returns how many bytes were read.
pub(super) fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(length) => done += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
