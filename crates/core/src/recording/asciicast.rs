//! The asciicast v3 export: a header line and one JSON line an event, intervals relative to the event before
//! (<https://docs.asciinema.org/manual/asciicast/v3/>). Input is left out unless asked for: it may hold passwords.

use serde::Serialize;

use super::{Event, EventKind, InputData, StartMeta};
use crate::session::OutputStream;

/// Whether typed bytes are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Only what was shown.
    LeaveOut,
    /// Also what was typed, where it was recorded.
    Include,
}

/// Size of a session without a terminal, in which players show it.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

#[derive(Serialize)]
struct Head<'a> {
    version: u8,
    term: Term<'a>,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    title: String,
}

#[derive(Serialize)]
struct Term<'a> {
    cols: u16,
    rows: u16,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
}

/// Writes a session as asciicast v3, event by event.
pub struct Asciicast {
    input: Input,
    /// Time of the last line, microseconds since the start.
    last_at: u64,
    /// Beginnings of characters that ended with a piece of output: the rest comes with the next piece.
    carry: [Carry; 3],
}

impl Asciicast {
    /// Begins an export.
    pub fn new(input: Input) -> Self {
        Self { input, last_at: 0, carry: Default::default() }
    }

    /// Appends the lines of one event, the header for the start. Bytes that are no UTF-8 become U+FFFD; characters cut
    /// by the end of a record are joined again.
    pub fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match &event.kind {
            EventKind::Start(meta) => head(meta, out),
            EventKind::Output { stream: OutputStream::Stdout, bytes, .. } => self.text(0, "o", event.at, bytes, out),
            EventKind::Output { stream: OutputStream::Stderr, bytes, .. } => self.text(1, "o", event.at, bytes, out),
            EventKind::Input { data: InputData::Bytes(bytes), .. } if self.input == Input::Include => {
                self.text(2, "i", event.at, bytes, out);
            }
            EventKind::Input { .. } => {}
            EventKind::Resize(size) => {
                self.line(event.at, "r", &format!("{}x{}", size.columns, size.rows), out);
            }
            EventKind::Marker { text } => self.line(event.at, "m", text, out),
            EventKind::Connection(connection) => self.line(event.at, "m", &connection.to_string(), out),
            EventKind::Statement(statement) => self.line(event.at, "m", &statement.to_string(), out),
            EventKind::File(file) => self.line(event.at, "m", &file.to_string(), out),
            EventKind::FileChange(change) => self.line(event.at, "m", &change.to_string(), out),
            EventKind::StatementEnd(end) => self.line(event.at, "m", &end.to_string(), out),
            EventKind::End { exit, .. } => {
                self.flush(event.at, out);
                if let Some(exit) = exit {
                    self.line(event.at, "x", &exit.shell_code().to_string(), out);
                }
            }
        }
    }

    /// Appends what is left of characters that were never completed, for a recording without an end.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.flush(self.last_at, out);
    }

    fn flush(&mut self, at: u64, out: &mut Vec<u8>) {
        for (slot, code) in [(0, "o"), (1, "o"), (2, "i")] {
            if self.carry.get_mut(slot).is_some_and(Carry::take) {
                self.line(at, code, "\u{fffd}", out);
            }
        }
    }

    fn text(&mut self, slot: usize, code: &str, at: u64, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(text) = self.carry.get_mut(slot).map(|carry| carry.decode(bytes)) else { return };
        if !text.is_empty() {
            self.line(at, code, &text, out);
        }
    }

    fn line(&mut self, at: u64, code: &str, data: &str, out: &mut Vec<u8>) {
        // Whole microseconds, so that intervals add up to the time without rounding.
        let interval = at.saturating_sub(self.last_at);
        self.last_at = self.last_at.max(at);
        let data = serde_json::to_string(data).unwrap_or_default();
        let (seconds, micros) = (interval / 1_000_000, interval % 1_000_000);
        out.extend_from_slice(format!("[{seconds}.{micros:06}, \"{code}\", {data}]\n").as_bytes());
    }
}

fn head(meta: &StartMeta, out: &mut Vec<u8>) {
    let (cols, rows) = meta.terminal.map_or((COLUMNS, ROWS), |size| (size.columns, size.rows));
    let head = Head {
        version: 3,
        term: Term { cols, rows, kind: meta.term.as_deref() },
        timestamp: meta.started.as_secs(),
        command: (!meta.command.is_empty()).then(|| meta.command.join(" ")),
        title: format!("{} on {}", meta.session, meta.node),
    };
    out.extend_from_slice(&serde_json::to_vec(&head).unwrap_or_default());
    out.push(b'\n');
}

/// The first bytes of a character whose rest has not come yet: at most three.
#[derive(Default)]
struct Carry(Vec<u8>);

impl Carry {
    /// Forgets the bytes held; tells whether there were any.
    fn take(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    fn decode(&mut self, bytes: &[u8]) -> String {
        let mut joined = std::mem::take(&mut self.0);
        joined.extend_from_slice(bytes);
        let mut text = String::with_capacity(joined.len());
        let mut rest = joined.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        self.0 = bad.to_vec();
                        return text;
                    };
                    text.push('\u{fffd}');
                    rest = bad.get(length..).unwrap_or_default();
                }
            }
        }
    }
}
