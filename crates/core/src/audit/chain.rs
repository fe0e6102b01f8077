//! The hash chain: each line of the log is a record with its number, the hash of the line before and its own.
//!
//! Line: `NUMBER PREVIOUS HASH RECORD\n`, separated by single blanks; numbers from 1, hashes in lower-case hexadecimal.
//! `HASH` is SHA-256 over the text `munjigi-audit-1 NUMBER PREVIOUS RECORD`. What follows the third blank is the pure
//! CloudTrail record.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;

use super::checkpoint::Checkpoint;
use super::record::MAX_RECORD_BYTES;
use super::{AuditError, AuditRecord};
use crate::time::Timestamp;

/// Longest line, its break included: number, two hashes, three blanks and the record.
pub const MAX_LINE_BYTES: usize = 20 + 64 + 64 + 3 + MAX_RECORD_BYTES + 1;

const CONTEXT: &str = "munjigi-audit-1";

/// Names one log, so that lines of another server's log never fit: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// Parses 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        (hex::encode(id) == text).then_some(Self(id))
    }

    /// Returns the hash that stands before the first line.
    pub(super) fn genesis(self) -> [u8; 32] {
        sha256(&[CONTEXT, " log ", &self.to_string()])
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An event's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its number, from 1.
    pub sequence: u64,
    /// The hash of its line.
    pub hash: [u8; 32],
}

/// The writing end of a log.
#[derive(Debug, Clone)]
pub struct Chain {
    log: LogId,
    sequence: u64,
    head: [u8; 32],
}

impl Chain {
    /// Begins a new log.
    pub fn new(log: LogId) -> Self {
        Self { log, sequence: 0, head: log.genesis() }
    }

    /// Goes on behind the last line of a log that was verified.
    pub const fn resume(log: LogId, last: Link) -> Self {
        Self { log, sequence: last.sequence, head: last.hash }
    }

    /// Appends the line of a record, its line break included, to `out`.
    pub fn append(&mut self, record: &AuditRecord, out: &mut Vec<u8>) -> Result<Link, AuditError> {
        let json = record.to_json()?;
        let sequence = self.sequence + 1;
        let previous = hex::encode(self.head);
        let hash = line_hash(sequence, &previous, &json);
        out.extend_from_slice(format!("{sequence} {previous} {} {json}\n", hex::encode(hash)).as_bytes());
        self.sequence = sequence;
        self.head = hash;
        Ok(Link { sequence, hash })
    }

    /// Signs a checkpoint of the log as it stands (T-67).
    pub fn checkpoint(&self, time: Timestamp, key: &Ed25519KeyPair) -> Checkpoint {
        Checkpoint::sign(self.log, self.last(), time, key)
    }

    /// Returns the last event's place; number 0 and the log's own hash if there is none.
    pub const fn last(&self) -> Link {
        Link { sequence: self.sequence, hash: self.head }
    }

    /// Returns the log's id.
    pub const fn log(&self) -> LogId {
        self.log
    }
}

/// Why bytes are no line of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line has another form, or another spelling of it.
    #[error("the line does not have the form `number previous hash record`")]
    Form,
    /// The hash in the line is not the hash of the line.
    #[error("the line's hash does not fit its content")]
    Hash,
}

/// One line of a log, whose own hash fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its place in the chain.
    pub link: Link,
    /// The hash of the line before, as the line says.
    pub previous: [u8; 32],
    /// The CloudTrail record, one line of JSON.
    pub record: &'a str,
}

impl<'a> Line<'a> {
    /// Reads a line without its break and checks its own hash.
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        let line = std::str::from_utf8(line).map_err(|_| LineError::Form)?;
        let mut parts = line.splitn(4, ' ');
        let (Some(number), Some(previous_text), Some(hash), Some(record)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(LineError::Form);
        };
        let sequence: u64 = number.parse().map_err(|_| LineError::Form)?;
        let (previous, hash) = (parse_hash(previous_text)?, parse_hash(hash)?);
        if sequence == 0 || number.starts_with(['0', '+']) || !record.starts_with('{') || !record.ends_with('}') {
            return Err(LineError::Form);
        }
        if line_hash(sequence, previous_text, record) != hash {
            return Err(LineError::Hash);
        }
        Ok(Self { link: Link { sequence, hash }, previous, record })
    }
}

/// Returns the number that a line claims, also when the line is broken; for naming the place.
pub(super) fn claimed_sequence(line: &[u8]) -> Option<u64> {
    let digits = line.split(|b| *b == b' ').next().filter(|digits| digits.len() <= 20)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse_hash(text: &str) -> Result<[u8; 32], LineError> {
    let mut hash = [0; 32];
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(LineError::Form);
    }
    hex::decode_to_slice(text, &mut hash).map_err(|_| LineError::Form)?;
    Ok(hash)
}

fn line_hash(sequence: u64, previous: &str, record: &str) -> [u8; 32] {
    sha256(&[CONTEXT, " ", &sequence.to_string(), " ", previous, " ", record])
}

fn sha256(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
