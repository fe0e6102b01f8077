//! What the recording of a session says about a file that was changed, or used in parts: what was done to it, where, and
//! whether it was. Never its content.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{Cursor, put, put_bytes};
use super::file::head;

/// Longest path and longest detail that are kept, bytes; longer ones are cut when written.
const MAX_TEXT: usize = 3072;
/// Longest text about an outcome, bytes; longer ones are cut when written.
const MAX_WHY: usize = 512;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileAction {
    /// Parts of it were read; `detail` says which.
    ReadParts,
    /// Parts of it were written; `detail` says which.
    WriteParts,
    /// It got another name, `detail`.
    Rename,
    /// It was removed.
    Remove,
    /// A directory was made.
    MakeDirectory,
    /// An empty directory was removed.
    RemoveDirectory,
    /// Its attributes changed; `detail` says which.
    SetAttributes,
    /// A symbolic link was made that says `detail`.
    SymbolicLink,
    /// A further name was made for the file `detail`.
    HardLink,
    /// It was listed or looked at. Only told where that was refused.
    Look,
}

impl FileAction {
    const ALL: [Self; 10] = [
        Self::ReadParts,
        Self::WriteParts,
        Self::Rename,
        Self::Remove,
        Self::MakeDirectory,
        Self::RemoveDirectory,
        Self::SetAttributes,
        Self::SymbolicLink,
        Self::HardLink,
        Self::Look,
    ];

    fn number(self) -> u8 {
        Self::ALL.iter().zip(1..).find(|(action, _)| **action == self).map_or(0, |(_, number)| number)
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number.checked_sub(1)?)).copied()
    }

    /// Returns the word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadParts => "readParts",
            Self::WriteParts => "writeParts",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::MakeDirectory => "makeDirectory",
            Self::RemoveDirectory => "removeDirectory",
            Self::SetAttributes => "setAttributes",
            Self::SymbolicLink => "symbolicLink",
            Self::HardLink => "hardLink",
            Self::Look => "look",
        }
    }
}

/// One change, or one use of a file in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileChange {
    /// The connection of the session that asked for it.
    pub connection: u64,
    /// What was done.
    pub action: FileAction,
    /// The real path on the node. Bytes that are no UTF-8 became U+FFFD.
    pub path: String,
    /// What belongs to the action.
    pub detail: String,
    /// Bytes that were read or written; 0 for every other action.
    pub bytes: u64,
    /// Why it was not done; empty if it was.
    pub why: String,
}

impl FileChange {
    /// Appends the fields behind kind and time.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.action.number());
        put(out, self.connection);
        put(out, self.bytes);
        for (text, limit) in [(&self.path, MAX_TEXT), (&self.detail, MAX_TEXT), (&self.why, MAX_WHY)] {
            put_bytes(out, head(text, limit).as_bytes());
        }
    }

    /// Reads the fields behind kind and time.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let action = FileAction::of(cursor.byte()?)?;
        let (connection, bytes) = (cursor.number()?, cursor.number()?);
        let (path, detail) = (cursor.text(MAX_TEXT)?, cursor.text(MAX_TEXT)?);
        Some(Self { connection, action, path, detail, bytes, why: cursor.text(MAX_WHY)? })
    }

    /// Returns what the event takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        self.path.len() + self.detail.len() + self.why.len()
    }
}

/// One line for people.
impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names may hold anything that moves a cursor (T-69).
        let (path, detail, bytes) = (self.path.escape_debug(), self.detail.escape_debug(), self.bytes);
        write!(f, "connection {}: ", self.connection)?;
        if !self.why.is_empty() {
            f.write_str("not done: ")?;
        }
        match self.action {
            FileAction::ReadParts => write!(f, "read parts of {path}, {bytes} bytes: {detail}"),
            FileAction::WriteParts => write!(f, "wrote parts of {path}, {bytes} bytes: {detail}"),
            FileAction::Rename => write!(f, "renamed {path} to {detail}"),
            FileAction::Remove => write!(f, "removed {path}"),
            FileAction::MakeDirectory => write!(f, "made the directory {path}"),
            FileAction::RemoveDirectory => write!(f, "removed the directory {path}"),
            FileAction::SetAttributes => write!(f, "set attributes of {path}: {detail}"),
            FileAction::SymbolicLink => write!(f, "made the symbolic link {path} to {detail}"),
            FileAction::HardLink => write!(f, "made {path} a further name of {detail}"),
            FileAction::Look => write!(f, "looked at {path}"),
        }?;
        if self.why.is_empty() { Ok(()) } else { write!(f, ": {}", self.why.escape_debug()) }
    }
}
