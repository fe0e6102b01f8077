//! What the audit event of a port session's end says about its connections: bounded, however many there were.

use std::collections::BTreeMap;

use munjigi_core::recording::{Connection, EventKind, NO_HASH, StatementOutcome};
use serde::Serialize;

/// Most addresses that are listed with sums of their own.
const MAX_ADDRESSES: usize = 32;
/// Most connections that are listed one by one; the recording has all.
const MAX_LISTED: usize = 64;

/// The connections of a session, since the server's start at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionSummary {
    /// How many were opened.
    pub opened: u64,
    /// How many were refused, by the node or the destination.
    pub refused: u64,
    /// Bytes of ended connections to the destination.
    pub bytes_in: u64,
    /// Bytes of ended connections from the destination.
    pub bytes_out: u64,
    /// Sums by the address that the node connected to, for the first 32 of them.
    pub addresses: BTreeMap<String, AddressSummary>,
    /// The first 64 that ended.
    pub listed: Vec<Listed>,
    /// How many ended and are not listed.
    pub unlisted: u64,
    /// Statements that are in the recording, where the protocol was read.
    #[serde(skip_serializing_if = "is_zero")]
    pub statements: u64,
    /// Statements of those that failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failed_statements: u64,
    #[serde(skip)]
    open: BTreeMap<u64, String>,
}

/// The connections to one address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressSummary {
    /// How many ended.
    pub connections: u64,
    /// Bytes to it.
    pub bytes_in: u64,
    /// Bytes from it.
    pub bytes_out: u64,
}

/// One connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    number: u64,
    address: String,
    bytes_in: u64,
    bytes_out: u64,
    sha256_in: Option<String>,
    sha256_out: Option<String>,
    ended: String,
}

const fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl ConnectionSummary {
    /// Takes one more event of the recording into account.
    pub fn note(&mut self, event: &EventKind) {
        match event {
            EventKind::Connection(connection) => self.add(connection),
            EventKind::Statement(_) => self.statements += 1,
            EventKind::StatementEnd(end) if end.outcome == StatementOutcome::Failed => self.failed_statements += 1,
            _ => {}
        }
    }

    /// Takes one more event of a connection into account.
    pub fn add(&mut self, event: &Connection) {
        match event {
            Connection::Opened { number, address, .. } => {
                self.opened += 1;
                self.open.insert(*number, address.clone());
            }
            Connection::Refused { .. } => self.refused += 1,
            Connection::Lost { number, .. } => {
                self.open.remove(number);
            }
            Connection::Closed { number, bytes_in, bytes_out, hash_in, hash_out, why } => {
                self.bytes_in += bytes_in;
                self.bytes_out += bytes_out;
                let address = self.open.remove(number).unwrap_or_default();
                if self.addresses.len() < MAX_ADDRESSES || self.addresses.contains_key(&address) {
                    let sums = self.addresses.entry(address.clone()).or_default();
                    sums.connections += 1;
                    sums.bytes_in += bytes_in;
                    sums.bytes_out += bytes_out;
                }
                if self.listed.len() == MAX_LISTED {
                    self.unlisted += 1;
                    return;
                }
                self.listed.push(Listed {
                    number: *number,
                    address,
                    bytes_in: *bytes_in,
                    bytes_out: *bytes_out,
                    sha256_in: told(hash_in),
                    sha256_out: told(hash_out),
                    ended: why.clone(),
                });
            }
        }
    }
}

/// Returns a hash as text, if one was made.
fn told(hash: &[u8; 32]) -> Option<String> {
    (*hash != NO_HASH).then(|| hex::encode(hash))
}
