//! Answers of the server: where each begins and ends, and what came of it.
//!
//! Rows are told apart by their first byte and counted; nothing else of them is looked at.

use std::fmt;

use super::Violation;
use super::capability;
use super::command::Answer;
use super::field::Fields;
use super::packet::{Head, MAX_PAYLOAD};

/// Bytes of a payload that are looked at where it is no row: an error with its message.
pub(super) const LOOK_BYTES: usize = 600;
/// Longest message of an error that is kept, in bytes.
const MAX_MESSAGE: usize = 512;
/// Most columns of a result; MySQL and MariaDB have 4096.
const MAX_COLUMNS: u64 = 65_535;
/// Status bit: another result follows.
const MORE_RESULTS: u16 = 0x0008;
/// Status bit: rows wait to be fetched.
const CURSOR: u16 = 0x0040;
/// Status bit: the last of them came.
const LAST_ROW: u16 = 0x0080;
/// An "error" of this code says how far a long statement is (MariaDB).
const PROGRESS_CODE: u16 = 0xffff;

/// An error as servers report them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// MySQL's number.
    pub code: u16,
    /// The five characters of SQL's own code; empty before the login is done.
    pub state: String,
    /// For people; at most 512 bytes, without control characters.
    pub message: String,
}

impl ServerError {
    /// Reads an error packet's payload.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(payload);
        let (Some(0xff), Some(code)) = (fields.u8(), fields.u16()) else { return None };
        let mut text = fields.rest();
        let mut state = String::new();
        if let Some((b"#", with_state)) = text.split_at_checked(1)
            && let Some((code, rest)) = with_state.split_at_checked(5)
        {
            state = code.iter().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| char::from(*byte)).collect();
            text = rest;
        }
        let text = text.get(..MAX_MESSAGE).unwrap_or(text);
        let message = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).collect();
        Some(Self { code, state, message })
    }

    /// Returns number and SQL's code in MySQL's own form, such as `1146 (42S02)`.
    pub fn code(&self) -> String {
        format!("{} ({})", self.code, self.state)
    }

    /// Returns the packet's payload.
    pub fn write(&self) -> Vec<u8> {
        let mut out = vec![0xff];
        out.extend_from_slice(&self.code.to_le_bytes());
        if self.state.len() == 5 {
            out.push(b'#');
            out.extend_from_slice(self.state.as_bytes());
        }
        out.extend_from_slice(self.message.as_bytes());
        out
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}: {}", self.code(), self.message)
    }
}

/// What a packet does to the answer that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoesOn,
    Over,
    /// The client is to send a file now; the answer goes on behind it.
    File,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    First,
    /// So many descriptions, their end included, and so many columns to be described behind them.
    Described(u32, u16),
    Columns(u64),
    ColumnsEnd,
    Rows,
}

/// An answer that is being read.
#[derive(Debug)]
pub(super) struct Reply {
    answer: Answer,
    stage: Stage,
    has_eof: bool,
    reports_progress: bool,
    /// Rows returned and rows changed, once either was said.
    pub(super) rows: Option<u64>,
    /// Rows wait in a cursor.
    pub(super) has_more_to_fetch: bool,
    pub(super) error: Option<ServerError>,
    /// State of the session as last reported.
    pub(super) status: Option<u16>,
    /// The number that the server gave a prepared statement, and how many parameters that has.
    pub(super) prepared: Option<(u32, u16)>,
}

impl Reply {
    pub(super) fn new(answer: Answer, agreed: u64) -> Self {
        let stage = match answer {
            Answer::Rows => Stage::Rows,
            Answer::Columns => Stage::Columns(u64::MAX),
            _ => Stage::First,
        };
        Self {
            answer,
            stage,
            has_eof: agreed & capability::DEPRECATE_EOF == 0,
            reports_progress: agreed & capability::PROGRESS != 0,
            rows: None,
            has_more_to_fetch: false,
            error: None,
            status: None,
            prepared: None,
        }
    }

    /// Returns how many bytes of the payload [`Self::packet`] wants to see.
    pub(super) fn wants(&self, head: Head, first: u8) -> usize {
        let is_plain = match self.stage {
            Stage::Rows => first != 0xff && !self.ends_rows(head, first),
            Stage::Columns(_) | Stage::Described(..) => first < 0xfb,
            Stage::First | Stage::ColumnsEnd => false,
        };
        if is_plain { 1 } else { head.length.min(LOOK_BYTES) }
    }

    /// A row may begin with the same byte, as the mark of a text of 16 MiB or more: then it fills its packet.
    fn ends_rows(&self, head: Head, first: u8) -> bool {
        first == 0xfe && head.length < if self.has_eof { 9 } else { MAX_PAYLOAD }
    }

    /// Takes the next packet, or the first one of a longer message; `look` begins its payload.
    pub(super) fn packet(&mut self, head: Head, look: &[u8]) -> Result<Verdict, Violation> {
        let Some(first) = look.first().copied() else {
            return if self.answer == Answer::OnePacket { Ok(Verdict::Over) } else { Err(Violation::server("packet")) };
        };
        if first == 0xff && self.answer != Answer::OnePacket {
            return self.failed(look);
        }
        match self.stage {
            Stage::First => self.first(first, look),
            Stage::Described(left, columns) => Ok(self.described(left, columns)),
            Stage::Columns(left) => self.column(head, first, left),
            Stage::ColumnsEnd => self.columns_end(look),
            Stage::Rows if self.ends_rows(head, first) => self.rows_end(look),
            Stage::Rows => {
                self.add_rows(1);
                Ok(Verdict::GoesOn)
            }
        }
    }

    fn add_rows(&mut self, more: u64) {
        self.rows = Some(self.rows.unwrap_or_default().saturating_add(more));
    }

    fn failed(&mut self, look: &[u8]) -> Result<Verdict, Violation> {
        let error = ServerError::read(look).ok_or(Violation::server("error"))?;
        if error.code == PROGRESS_CODE && self.reports_progress {
            return Ok(Verdict::GoesOn);
        }
        self.error.get_or_insert(error);
        Ok(Verdict::Over)
    }

    fn first(&mut self, first: u8, look: &[u8]) -> Result<Verdict, Violation> {
        match (self.answer, first) {
            (Answer::OnePacket, _) | (Answer::Single, 0xfe) => Ok(Verdict::Over),
            (Answer::Single, 0) => {
                self.ok(look)?;
                Ok(Verdict::Over)
            }
            (Answer::Prepared, 0) => self.prepared(look),
            (Answer::Results, 0) => {
                let status = self.ok(look)?;
                Ok(self.result_over(status))
            }
            (Answer::Results, 0xfb) => Ok(Verdict::File),
            (Answer::Results, _) => {
                let columns = Fields::new(look).length_encoded().filter(|count| (1..=MAX_COLUMNS).contains(count));
                self.stage = Stage::Columns(columns.ok_or(Violation::server("number of columns"))?);
                Ok(Verdict::GoesOn)
            }
            _ => Err(Violation::server("answer")),
        }
    }

    /// Reads an OK packet and returns the status.
    fn ok(&mut self, look: &[u8]) -> Result<u16, Violation> {
        let read = || {
            let mut fields = Fields::new(look.get(1..)?);
            let changed = fields.length_encoded()?;
            fields.length_encoded()?;
            Some((changed, fields.u16()?))
        };
        let (changed, status) = read().ok_or(Violation::server("OK"))?;
        if self.answer == Answer::Results {
            self.add_rows(changed);
        }
        self.status = Some(status);
        Ok(status)
    }

    fn prepared(&mut self, look: &[u8]) -> Result<Verdict, Violation> {
        let read = || {
            let mut fields = Fields::new(look.get(1..)?);
            Some((fields.u32()?, fields.u16()?, fields.u16()?))
        };
        let (id, columns, parameters) = read().ok_or(Violation::server("prepared statement"))?;
        self.prepared = Some((id, parameters));
        Ok(self.describe(parameters, columns))
    }

    fn describe(&mut self, parameters: u16, columns: u16) -> Verdict {
        // What is described by nothing has no end either.
        let end = u32::from(self.has_eof);
        self.stage = match (parameters, columns) {
            (0, 0) => return Verdict::Over,
            (0, columns) => Stage::Described(u32::from(columns) + end, 0),
            (parameters, columns) => Stage::Described(u32::from(parameters) + end, columns),
        };
        Verdict::GoesOn
    }

    fn described(&mut self, left: u32, columns: u16) -> Verdict {
        if left <= 1 {
            return self.describe(0, columns);
        }
        self.stage = Stage::Described(left - 1, columns);
        Verdict::GoesOn
    }

    fn column(&mut self, head: Head, first: u8, left: u64) -> Result<Verdict, Violation> {
        if self.answer == Answer::Columns {
            let is_end = first == 0xfe && head.length < MAX_PAYLOAD;
            return Ok(if is_end { Verdict::Over } else { Verdict::GoesOn });
        }
        self.stage = match left {
            0 | 1 if self.has_eof => Stage::ColumnsEnd,
            0 | 1 => Stage::Rows,
            left => Stage::Columns(left - 1),
        };
        if first < 0xfb { Ok(Verdict::GoesOn) } else { Err(Violation::server("column")) }
    }

    fn columns_end(&mut self, look: &[u8]) -> Result<Verdict, Violation> {
        let status = self.eof(look)?;
        // The end of the result is said as well then.
        if status & CURSOR != 0 {
            return Ok(self.result_over(status));
        }
        self.stage = Stage::Rows;
        Ok(Verdict::GoesOn)
    }

    fn rows_end(&mut self, look: &[u8]) -> Result<Verdict, Violation> {
        // A result without rows has none, which is known now.
        self.add_rows(0);
        let status = if self.has_eof { self.eof(look)? } else { self.ok(look)? };
        Ok(self.result_over(status))
    }

    fn eof(&mut self, look: &[u8]) -> Result<u16, Violation> {
        let [0xfe, _, _, low, high, ..] = look else { return Err(Violation::server("end of rows")) };
        let status = u16::from_le_bytes([*low, *high]);
        self.status = Some(status);
        Ok(status)
    }

    fn result_over(&mut self, status: u16) -> Verdict {
        self.has_more_to_fetch = status & CURSOR != 0 && status & LAST_ROW == 0;
        if status & MORE_RESULTS == 0 || self.answer != Answer::Results {
            return Verdict::Over;
        }
        self.stage = Stage::First;
        Verdict::GoesOn
    }
}
