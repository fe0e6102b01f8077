//! What the recording of a session says about a file that was copied: which, how much of it, its hash, and whether it is
//! in its place. Never its content.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::connection::hash;
use super::event::{Cursor, put, put_bytes};

/// Longest path that is kept, bytes; longer ones are cut when written.
const MAX_PATH: usize = 3072;
/// Longest text about an outcome, bytes; longer ones are cut when written.
const MAX_WHY: usize = 512;

/// Which way a file went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileDirection {
    /// To the node.
    Upload,
    /// From the node.
    Download,
}

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCopied {
    /// The connection of the session that it came on.
    pub connection: u64,
    /// Which way.
    pub direction: FileDirection,
    /// Its real path on the node. Bytes that are no UTF-8 became U+FFFD.
    pub path: String,
    /// Bytes of the file, as far as it came.
    pub bytes: u64,
    /// How many of them were there already and did not travel.
    pub kept: u64,
    /// SHA-256 of the whole file as the node found it; zeros if it is not in its place.
    #[serde(with = "hash")]
    pub hash: [u8; 32],
    /// Why it is not in its place; empty if it is.
    pub why: String,
}

impl FileCopied {
    /// Appends the fields behind kind and time.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(match self.direction {
            FileDirection::Upload => 1,
            FileDirection::Download => 2,
        });
        for number in [self.connection, self.bytes, self.kept] {
            put(out, number);
        }
        put_bytes(out, head(&self.path, MAX_PATH).as_bytes());
        out.extend_from_slice(&self.hash);
        put_bytes(out, head(&self.why, MAX_WHY).as_bytes());
    }

    /// Reads the fields behind kind and time.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let direction = match cursor.byte()? {
            1 => FileDirection::Upload,
            2 => FileDirection::Download,
            _ => return None,
        };
        let (connection, bytes, kept) = (cursor.number()?, cursor.number()?, cursor.number()?);
        let path = cursor.text(MAX_PATH)?;
        let hash = cursor.array()?;
        Some(Self { connection, direction, path, bytes, kept, hash, why: cursor.text(MAX_WHY)? })
    }

    /// Returns what the event takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        self.path.len() + self.why.len()
    }
}

pub(super) fn head(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// One line for people.
impl fmt::Display for FileCopied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.direction {
            FileDirection::Upload => "uploaded",
            FileDirection::Download => "downloaded",
        };
        let Self { connection, bytes, path, why, .. } = self;
        // A name may hold anything that moves a cursor (T-69).
        let path = path.escape_debug();
        if why.is_empty() {
            write!(f, "connection {connection}: {word} {path}, {bytes} bytes, sha256 {}", hex::encode(self.hash))
        } else {
            write!(f, "connection {connection}: not {word} {path}: {}", why.escape_debug())
        }
    }
}
