//! Where and why a policy document is refused, and what is accepted with a remark.

use std::fmt;

use serde::Serialize;

/// A place in a policy's text, as the simulator reports it: both numbers count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The character within the line, from 1.
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A refused document: the AWS error `MalformedPolicyDocument`, with the place and a plain sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {message}")]
pub struct PolicyError {
    /// Where the refused element begins.
    pub position: Position,
    /// What is wrong, naming the element.
    pub message: String,
}

impl PolicyError {
    /// Returns the AWS error code of every refused document.
    pub const fn code(&self) -> &'static str {
        "MalformedPolicyDocument"
    }
}

/// A remark on an accepted document: it is legal, but probably not what its author meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// Where the element begins.
    pub position: Position,
    /// What is surprising about it and what to write instead.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.position, self.message)
    }
}

/// A fault at a byte offset, before it is known to which line that belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Byte offset into the document.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(at: usize, message: impl Into<String>) -> Self {
        Self { at, message: message.into() }
    }
}

/// Turns byte offsets of one text into positions.
pub(crate) struct Lines<'t> {
    text: &'t str,
    /// Byte offsets at which lines begin; the first is 0.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(breaks).collect() }
    }

    pub(crate) fn position(&self, at: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..at).map_or(0, |before| before.chars().count()) + 1;
        Position { line: number(line), column: number(column) }
    }

    pub(crate) fn error(&self, fault: Fault) -> PolicyError {
        PolicyError { position: self.position(fault.at), message: fault.message }
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Returns a name or value from a document, shortened and escaped so that it can stand in a message.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut out: String = text.chars().take(LONGEST).flat_map(printable).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

fn printable(c: char) -> impl Iterator<Item = char> {
    let escape = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    escape.into_iter().flatten().chain(plain)
}
