//! What the recording of a port session says about statements to a database whose protocol the gateway reads: text,
//! times, rows and outcome, never what came back and, unless it was asked for, no parameters.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{Cursor, put, put_bytes};

/// Longest text of a statement that is kept, bytes; with its parameters it fits into one record.
pub const MAX_STATEMENT_TEXT: usize = 48 * 1024;
/// Most bytes of all parameters of one statement that are kept.
pub const MAX_STATEMENT_PARAMETERS: usize = 8 * 1024;
/// Most parameters of one statement that are kept.
const MAX_PARAMETERS: usize = 1024;
/// Longest word of the database about an outcome, bytes.
const MAX_WORD: usize = 128;
/// Fixed fields of a statement, bytes at most.
const FIXED: usize = 64;
/// What a parameter takes beside its bytes.
const PARAMETER_HEAD: usize = 4;

const CUT: u8 = 1;
const MASKED: u8 = 2;
const PARAMETERS: u8 = 4;

/// What was asked of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatementKind {
    /// A text to run at once; it may hold several statements.
    Query,
    /// A text to prepare and not to run yet.
    Prepare,
    /// A prepared statement to run.
    Execute,
    /// A function to call by its number, without SQL.
    Call,
    /// The login at the database: as whom, and to which database.
    Login,
    /// What another connection runs is to be cancelled.
    Cancel,
    /// Anything else that the protocol can ask for, named by the text.
    Command,
}

const KINDS: [(u8, StatementKind, &str); 7] = [
    (1, StatementKind::Query, "query"),
    (2, StatementKind::Prepare, "prepare"),
    (3, StatementKind::Execute, "execute"),
    (4, StatementKind::Call, "call"),
    (5, StatementKind::Login, "login"),
    (6, StatementKind::Cancel, "cancel"),
    (7, StatementKind::Command, "command"),
];

impl StatementKind {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        KINDS.iter().find(|(_, kind, _)| *kind == self).map_or("", |(.., word)| word)
    }
}

/// A statement as it went to the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// The connection of the session that it came on.
    pub connection: u64,
    /// Counted from 1 in its connection.
    pub number: u64,
    /// What was asked for.
    pub kind: StatementKind,
    /// The text, secrets in it replaced. Bytes that are no UTF-8 became U+FFFD.
    pub text: String,
    /// How many bytes the text had.
    pub bytes: u64,
    /// Whether only the text's beginning is kept.
    #[serde(default)]
    pub cut: bool,
    /// Whether something in the text was replaced because it looks like a password.
    #[serde(default)]
    pub masked: bool,
    /// Number of the statement that prepared the one to run; 0 for none.
    #[serde(default)]
    pub prepared: u64,
    /// The parameters as text, `None` in it for NULL; only where keeping them was asked for. What is over the limits is
    /// left out at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Vec<Option<String>>>,
}

impl Statement {
    /// Takes a statement without parameters; a text over the limit is cut.
    pub fn new(connection: u64, number: u64, kind: StatementKind, text: &str) -> Self {
        let kept = head(text, MAX_STATEMENT_TEXT);
        Self {
            connection,
            number,
            kind,
            cut: kept.len() < text.len(),
            text: kept.to_owned(),
            bytes: text.len() as u64,
            masked: false,
            prepared: 0,
            parameters: None,
        }
    }

    /// Appends the fields behind kind and time.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let kind = KINDS.iter().find(|(_, kind, _)| *kind == self.kind).map_or(0, |(byte, ..)| *byte);
        out.push(kind);
        out.push(flag(self.cut, CUT) | flag(self.masked, MASKED) | flag(self.parameters.is_some(), PARAMETERS));
        for number in [self.connection, self.number, self.prepared, self.bytes] {
            put(out, number);
        }
        put_bytes(out, head(&self.text, MAX_STATEMENT_TEXT).as_bytes());
        if let Some(parameters) = &self.parameters {
            let kept = kept(parameters);
            put(out, kept as u64);
            for parameter in parameters.iter().take(kept) {
                match parameter {
                    None => out.push(0),
                    Some(value) => {
                        out.push(1);
                        put_bytes(out, value.as_bytes());
                    }
                }
            }
        }
    }

    /// Reads the fields behind kind and time.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let byte = cursor.byte()?;
        let (_, kind, _) = KINDS.iter().find(|(known, ..)| *known == byte)?;
        let flags = cursor.byte().filter(|flags| flags & !(CUT | MASKED | PARAMETERS) == 0)?;
        let [connection, number, prepared, bytes] = [0; 4].map(|_: u8| cursor.number());
        let (connection, number, prepared, bytes) = (connection?, number?, prepared?, bytes?);
        let text = cursor.text(MAX_STATEMENT_TEXT)?;
        let parameters = if flags & PARAMETERS == 0 { None } else { Some(parameters(cursor)?) };
        let (cut, masked) = (flags & CUT != 0, flags & MASKED != 0);
        Some(Self { connection, number, kind: *kind, text, bytes, cut, masked, prepared, parameters })
    }

    /// Returns what the event takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        let parameters = self.parameters.iter().flatten();
        let bytes = parameters.map(|value| size_of::<Option<String>>() + value.as_ref().map_or(0, String::len));
        self.text.len() + bytes.sum::<usize>()
    }
}

impl Statement {
    /// Returns what the event's fields take in a record at most, bytes.
    pub(super) fn recorded_bytes(&self) -> usize {
        let parameters = self.parameters.iter().flatten().take(MAX_PARAMETERS);
        let values = parameters.map(|value| PARAMETER_HEAD + value.as_ref().map_or(0, String::len)).sum::<usize>();
        let values = values.min(MAX_STATEMENT_PARAMETERS + MAX_PARAMETERS * PARAMETER_HEAD);
        FIXED + self.text.len().min(MAX_STATEMENT_TEXT) + values
    }
}

/// Returns how many of the parameters are within the limits.
fn kept(parameters: &[Option<String>]) -> usize {
    let mut room = MAX_STATEMENT_PARAMETERS;
    let fits = parameters.iter().take(MAX_PARAMETERS).take_while(|value| {
        let left = room.checked_sub(value.as_ref().map_or(0, String::len));
        room = left.unwrap_or(0);
        left.is_some()
    });
    fits.count()
}

fn parameters(cursor: &mut Cursor) -> Option<Vec<Option<String>>> {
    let count = usize::try_from(cursor.number()?).ok().filter(|count| *count <= MAX_PARAMETERS)?;
    let (mut all, mut room) = (Vec::new(), MAX_STATEMENT_PARAMETERS);
    for _ in 0..count {
        all.push(match cursor.byte()? {
            0 => None,
            1 => {
                let value = cursor.text(room)?;
                room -= value.len();
                Some(value)
            }
            _ => return None,
        });
    }
    Some(all)
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StatementOutcome {
    /// The database did it.
    Done,
    /// The database refused it or gave it up; its code says why.
    Failed,
    /// The database passed it over because one before it had failed.
    Skipped,
    /// It has given the rows that were asked for and may be gone on with.
    Suspended,
    /// The connection ended first.
    Lost,
}

const OUTCOMES: [(u8, StatementOutcome, &str); 5] = [
    (1, StatementOutcome::Done, "done"),
    (2, StatementOutcome::Failed, "failed"),
    (3, StatementOutcome::Skipped, "skipped"),
    (4, StatementOutcome::Suspended, "suspended"),
    (5, StatementOutcome::Lost, "lost"),
];

impl StatementOutcome {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        OUTCOMES.iter().find(|(_, outcome, _)| *outcome == self).map_or("", |(.., word)| word)
    }
}

/// How a statement that is in the recording ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementEnd {
    /// The connection of the session.
    pub connection: u64,
    /// The statement's number.
    pub number: u64,
    /// How it ended.
    pub outcome: StatementOutcome,
    /// Rows returned, changed or copied, as the database counts them; `None` where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The database's own word for what was done, such as `UPDATE 3`; empty if it has none. At most 128 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tag: String,
    /// The database's code of the error; empty without one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
    /// Microseconds from sending it to knowing this.
    pub micros: u64,
}

impl StatementEnd {
    /// Appends the fields behind kind and time.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(OUTCOMES.iter().find(|(_, outcome, _)| *outcome == self.outcome).map_or(0, |(byte, ..)| *byte));
        put(out, self.connection);
        put(out, self.number);
        out.push(u8::from(self.rows.is_some()));
        if let Some(rows) = self.rows {
            put(out, rows);
        }
        put_bytes(out, head(&self.tag, MAX_WORD).as_bytes());
        put_bytes(out, head(&self.code, MAX_WORD).as_bytes());
        put(out, self.micros);
    }

    /// Reads the fields behind kind and time.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let byte = cursor.byte()?;
        let (_, outcome, _) = OUTCOMES.iter().find(|(known, ..)| *known == byte)?;
        let (connection, number) = (cursor.number()?, cursor.number()?);
        let rows = match cursor.byte()? {
            0 => None,
            1 => Some(cursor.number()?),
            _ => return None,
        };
        let (tag, code) = (cursor.text(MAX_WORD)?, cursor.text(MAX_WORD)?);
        Some(Self { connection, number, outcome: *outcome, rows, tag, code, micros: cursor.number()? })
    }

    /// Returns what the event takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        self.tag.len() + self.code.len()
    }
}

/// Returns the longest head of a text that is within a limit.
fn head(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// For people; the text may have several lines.
impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connection, number, kind, text, prepared, .. } = self;
        write!(f, "[{connection}.{number}] {}", kind.as_str())?;
        if *prepared > 0 {
            write!(f, " [{connection}.{prepared}]")?;
        }
        write!(f, ": {text}")?;
        if self.cut {
            write!(f, " … ({} bytes in all)", self.bytes)?;
        }
        if let Some(parameters) = &self.parameters {
            let values: Vec<_> = parameters.iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
            write!(f, " -- parameters: {}", values.join(", "))?;
        }
        Ok(())
    }
}

/// One line for people.
impl fmt::Display for StatementEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}.{}] {}", self.connection, self.number, self.outcome.as_str())?;
        if !self.tag.is_empty() {
            write!(f, ": {}", self.tag)?;
        }
        if let Some(rows) = self.rows {
            write!(f, ", {rows} row{}", if rows == 1 { "" } else { "s" })?;
        }
        if !self.code.is_empty() {
            write!(f, ", error {}", self.code)?;
        }
        write!(f, ", {}.{:03} ms", self.micros / 1000, self.micros % 1000)
    }
}
