//! What the recording of a port session says about each of its connections: ends, sizes and hashes, never the bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{Cursor, put, put_bytes};

/// Longest text of a connection's event in bytes; longer ones are cut when written.
const MAX_TEXT: usize = 512;
/// In place of the hashes of a connection that carries files, each of which has one of its own.
pub const NO_HASH: [u8; 32] = [0; 32];
const OPENED: u8 = 1;
const REFUSED: u8 = 2;
const CLOSED: u8 = 3;
const LOST: u8 = 4;

/// Something that happened to a connection of a port session. Connections are counted from 1 in their session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event", rename_all_fields = "camelCase")]
pub enum Connection {
    /// The node connected.
    Opened {
        /// Which one.
        number: u64,
        /// `host:port` as the session names it.
        destination: String,
        /// `address:port` that the node checked and connected to.
        address: String,
    },
    /// The node did not connect.
    Refused {
        /// Which one.
        number: u64,
        /// `host:port` as the session names it.
        destination: String,
        /// Why.
        why: String,
    },
    /// An opened connection is over.
    Closed {
        /// Which one.
        number: u64,
        /// Bytes from the client to the destination.
        bytes_in: u64,
        /// Bytes from the destination to the client.
        bytes_out: u64,
        /// SHA-256 of the bytes to the destination, or [`NO_HASH`].
        #[serde(with = "hash")]
        hash_in: [u8; 32],
        /// SHA-256 of the bytes to the client, or [`NO_HASH`].
        #[serde(with = "hash")]
        hash_out: [u8; 32],
        /// How it ended.
        why: String,
    },
    /// An opened connection is over, and whoever counted its bytes is gone: what it carried is not known.
    Lost {
        /// Which one.
        number: u64,
        /// How it was lost.
        why: String,
    },
}

impl Connection {
    /// Appends the fields behind kind and time.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Opened { number, destination, address } => {
                put_head(out, OPENED, *number);
                put_text(out, destination);
                put_text(out, address);
            }
            Self::Refused { number, destination, why } => {
                put_head(out, REFUSED, *number);
                put_text(out, destination);
                put_text(out, why);
            }
            Self::Closed { number, bytes_in, bytes_out, hash_in, hash_out, why } => {
                put_head(out, CLOSED, *number);
                put(out, *bytes_in);
                put(out, *bytes_out);
                out.extend_from_slice(hash_in);
                out.extend_from_slice(hash_out);
                put_text(out, why);
            }
            Self::Lost { number, why } => {
                put_head(out, LOST, *number);
                put_text(out, why);
            }
        }
    }

    /// Reads the fields behind kind and time.
    pub(super) fn decode(cursor: &mut Cursor) -> Option<Self> {
        let event = cursor.byte()?;
        let number = cursor.number()?;
        Some(match event {
            OPENED => Self::Opened { number, destination: cursor.text(MAX_TEXT)?, address: cursor.text(MAX_TEXT)? },
            REFUSED => Self::Refused { number, destination: cursor.text(MAX_TEXT)?, why: cursor.text(MAX_TEXT)? },
            CLOSED => Self::Closed {
                number,
                bytes_in: cursor.number()?,
                bytes_out: cursor.number()?,
                hash_in: cursor.array()?,
                hash_out: cursor.array()?,
                why: cursor.text(MAX_TEXT)?,
            },
            LOST => Self::Lost { number, why: cursor.text(MAX_TEXT)? },
            _ => return None,
        })
    }

    /// Returns what the event takes in memory beside itself, in bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Opened { destination, address, .. } => destination.len() + address.len(),
            Self::Refused { destination, why, .. } => destination.len() + why.len(),
            Self::Closed { why, .. } | Self::Lost { why, .. } => why.len(),
        }
    }
}

fn put_head(out: &mut Vec<u8>, event: u8, number: u64) {
    out.push(event);
    put(out, number);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    put_bytes(out, text.get(..end).unwrap_or_default().as_bytes());
}

/// Hashes in JSON: 64 hexadecimal digits.
pub(super) mod hash {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(in crate::recording) fn serialize<S: Serializer>(hash: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(hash))
    }

    pub(in crate::recording) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(String::deserialize(deserializer)?, &mut hash).map_err(D::Error::custom)?;
        Ok(hash)
    }
}

/// One line for people.
impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { number, destination, address } if address.is_empty() => {
                write!(f, "connection {number} to {destination} opened")
            }
            Self::Opened { number, destination, address } => {
                write!(f, "connection {number} to {destination} opened ({address})")
            }
            Self::Refused { number, destination, why } => {
                write!(f, "connection {number} to {destination} refused: {why}")
            }
            Self::Closed { number, bytes_in, bytes_out, why, .. } => {
                write!(f, "connection {number} closed: {why}; {bytes_in} bytes sent, {bytes_out} received")
            }
            Self::Lost { number, why } => {
                write!(f, "connection {number} lost: {why}; how many bytes it carried is not known")
            }
        }
    }
}
