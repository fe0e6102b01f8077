//! Events of a session and their coding inside a record.
//!
//! One encoding per value: integers are LEB128 without leading zero groups, byte strings follow their length. A record
//! holds any number of events one after the other.

use bytes::Bytes;

use super::StartMeta;
use super::connection::Connection;
use super::file::FileCopied;
use super::file_change::FileChange;
use super::frame::MAX_RECORD_PAYLOAD;
use super::statement::{Statement, StatementEnd};
use crate::session::{EndReason, ExitStatus, OutputStream, TerminalSize};

/// Longest text of a marker, in bytes; longer ones are cut when written.
pub(super) const MAX_MARKER_BYTES: usize = 4096;
/// Most bytes an event needs beside its data: kind, time, offset and length.
pub(super) const EVENT_OVERHEAD: usize = 1 + 3 * MAX_VARINT;
const MAX_VARINT: usize = 10;
const MAX_SIGNAL_NAME: usize = 32;

/// Something that happened in a session, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Microseconds since the session's start.
    pub at: u64,
    /// What happened.
    pub kind: EventKind,
}

/// What can happen in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// The session began; always the first event, and only that.
    Start(Box<StartMeta>),
    /// The program wrote bytes.
    Output {
        /// The stream it wrote to.
        stream: OutputStream,
        /// How many bytes of output, of both streams together, came before these.
        offset: u64,
        /// The bytes as written.
        bytes: Bytes,
    },
    /// Bytes were typed.
    Input {
        /// How many bytes of input came before these.
        offset: u64,
        /// The bytes, or only how many there were.
        data: InputData,
    },
    /// The terminal changed its size.
    Resize(TerminalSize),
    /// Something worth finding again: attach, detach, resume, watcher, warning.
    Marker {
        /// The text, at most 4096 bytes.
        text: String,
    },
    /// Something happened to a connection of a port session.
    Connection(Box<Connection>),
    /// A statement went to a database whose protocol the gateway reads.
    Statement(Box<Statement>),
    /// Such a statement ended.
    StatementEnd(Box<StatementEnd>),
    /// A file was copied, or was not.
    File(Box<FileCopied>),
    /// A file was changed, or used in parts, or was not.
    FileChange(Box<FileChange>),
    /// The session ended; always the last event, written by sealing.
    End {
        /// Why it ended.
        reason: EndReason,
        /// How the program ended, if it did.
        exit: Option<ExitStatus>,
    },
}

/// Typed bytes as policy lets them be recorded (T-60).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputData {
    /// The bytes themselves.
    Bytes(Bytes),
    /// Only their number: echo was off, or policy keeps no input.
    Hidden(u64),
}

impl InputData {
    /// Returns how many bytes were typed.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hidden(count) => *count,
        }
    }

    /// Tells whether nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const START: u8 = 1;
const STDOUT: u8 = 2;
const STDERR: u8 = 3;
const INPUT: u8 = 4;
const HIDDEN_INPUT: u8 = 5;
const RESIZE: u8 = 6;
const MARKER: u8 = 7;
const END: u8 = 8;
const CONNECTION: u8 = 9;
const STATEMENT: u8 = 10;
const STATEMENT_END: u8 = 11;
const FILE: u8 = 12;
const FILE_CHANGE: u8 = 13;

impl Event {
    /// Appends the event's coding. The caller has cut output and input to what fits into a record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (kind, at) = (self.kind_byte(), self.at);
        out.push(kind);
        put(out, at);
        match &self.kind {
            EventKind::Start(meta) => put_bytes(out, &serde_json::to_vec(meta).unwrap_or_default()),
            EventKind::Output { offset, bytes, .. } => {
                put(out, *offset);
                put_bytes(out, bytes);
            }
            EventKind::Input { offset, data: InputData::Bytes(bytes) } => {
                put(out, *offset);
                put_bytes(out, bytes);
            }
            EventKind::Input { offset, data: InputData::Hidden(count) } => {
                put(out, *offset);
                put(out, *count);
            }
            EventKind::Resize(size) => {
                for side in [size.rows, size.columns, size.width_pixels, size.height_pixels] {
                    put(out, u64::from(side));
                }
            }
            EventKind::Marker { text } => put_bytes(out, clip(text).as_bytes()),
            EventKind::Connection(connection) => connection.encode(out),
            EventKind::Statement(statement) => statement.encode(out),
            EventKind::StatementEnd(end) => end.encode(out),
            EventKind::File(file) => file.encode(out),
            EventKind::FileChange(change) => change.encode(out),
            EventKind::End { reason, exit } => {
                put_bytes(out, reason.as_str().as_bytes());
                match exit {
                    None => out.push(0),
                    Some(ExitStatus::Code(code)) => {
                        out.push(1);
                        out.extend_from_slice(&code.to_be_bytes());
                    }
                    Some(ExitStatus::Signal { name, core_dumped }) => {
                        out.push(if *core_dumped { 3 } else { 2 });
                        put_bytes(out, name.get(..MAX_SIGNAL_NAME).unwrap_or(name).as_bytes());
                    }
                }
            }
        }
    }

    fn kind_byte(&self) -> u8 {
        match &self.kind {
            EventKind::Start(_) => START,
            EventKind::Output { stream: OutputStream::Stdout, .. } => STDOUT,
            EventKind::Output { stream: OutputStream::Stderr, .. } => STDERR,
            EventKind::Input { data: InputData::Bytes(_), .. } => INPUT,
            EventKind::Input { data: InputData::Hidden(_), .. } => HIDDEN_INPUT,
            EventKind::Resize(_) => RESIZE,
            EventKind::Marker { .. } => MARKER,
            EventKind::Connection(_) => CONNECTION,
            EventKind::Statement(_) => STATEMENT,
            EventKind::StatementEnd(_) => STATEMENT_END,
            EventKind::File(_) => FILE,
            EventKind::FileChange(_) => FILE_CHANGE,
            EventKind::End { .. } => END,
        }
    }

    /// Reads one event; `None` if the bytes are not the coding of one.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let kind = cursor.byte()?;
        let at = cursor.number()?;
        let kind = match kind {
            START => EventKind::Start(Box::new(serde_json::from_slice(&cursor.bytes()?).ok()?)),
            STDOUT => {
                EventKind::Output { stream: OutputStream::Stdout, offset: cursor.number()?, bytes: cursor.bytes()? }
            }
            STDERR => {
                EventKind::Output { stream: OutputStream::Stderr, offset: cursor.number()?, bytes: cursor.bytes()? }
            }
            INPUT => EventKind::Input { offset: cursor.number()?, data: InputData::Bytes(cursor.bytes()?) },
            HIDDEN_INPUT => EventKind::Input { offset: cursor.number()?, data: InputData::Hidden(cursor.number()?) },
            RESIZE => EventKind::Resize(TerminalSize {
                rows: cursor.number()?.try_into().ok()?,
                columns: cursor.number()?.try_into().ok()?,
                width_pixels: cursor.number()?.try_into().ok()?,
                height_pixels: cursor.number()?.try_into().ok()?,
            }),
            MARKER => EventKind::Marker { text: cursor.text(MAX_MARKER_BYTES)? },
            CONNECTION => EventKind::Connection(Box::new(Connection::decode(cursor)?)),
            STATEMENT => EventKind::Statement(Box::new(Statement::decode(cursor)?)),
            STATEMENT_END => EventKind::StatementEnd(Box::new(StatementEnd::decode(cursor)?)),
            FILE => EventKind::File(Box::new(FileCopied::decode(cursor)?)),
            FILE_CHANGE => EventKind::FileChange(Box::new(FileChange::decode(cursor)?)),
            END => EventKind::End {
                reason: EndReason::parse(&cursor.text(MAX_MARKER_BYTES)?)?,
                exit: match cursor.byte()? {
                    0 => None,
                    1 => Some(ExitStatus::Code(i32::from_be_bytes(cursor.array()?))),
                    dumped @ (2 | 3) => {
                        Some(ExitStatus::Signal { name: cursor.text(MAX_SIGNAL_NAME)?, core_dumped: dumped == 3 })
                    }
                    _ => return None,
                },
            },
            _ => return None,
        };
        Some(Self { at, kind })
    }
}

/// Returns the longest head of a marker text that is within its limit.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_MARKER_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Appends a number as LEB128.
pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads decrypted payload; byte strings share its memory.
pub(super) struct Cursor {
    rest: Bytes,
}

impl Cursor {
    pub(super) const fn new(payload: Bytes) -> Self {
        Self { rest: payload }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Option<Bytes> {
        (count <= self.rest.len()).then(|| self.rest.split_to(count))
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.as_ref().try_into().ok()
    }

    /// Reads a LEB128 number in its shortest form.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for index in 0..MAX_VARINT {
            let byte = self.byte()?;
            let group = u64::from(byte & 0x7f);
            let shifted = group.checked_shl(u32::try_from(index * 7).ok()?)?;
            if shifted >> (index * 7) != group {
                return None;
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                return (index == 0 || byte != 0).then_some(value);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok().filter(|length| *length <= MAX_RECORD_PAYLOAD)?;
        self.take(length)
    }

    pub(super) fn text(&mut self, limit: usize) -> Option<String> {
        let bytes = self.bytes().filter(|bytes| bytes.len() <= limit)?;
        std::str::from_utf8(&bytes).ok().map(str::to_owned)
    }
}
