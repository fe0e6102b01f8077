//! Pairs the ends of a session's connections with their beginnings, for the trail.

use std::collections::BTreeMap;

use munjigi_core::recording::Connection;
use munjigi_core::time::Timestamp;

/// A connection that has ended.
#[derive(Debug)]
pub struct Ended {
    /// When it was made.
    pub opened: Timestamp,
    /// When it ended.
    pub at: Timestamp,
    /// What it went to, as asked for.
    pub endpoint: String,
    /// The address that the node connected to.
    pub address: String,
    /// How it ended, a [`Connection::Closed`] or [`Connection::Lost`].
    pub end: Connection,
}

/// The connections of a session.
#[derive(Debug, Default)]
pub struct Ends {
    /// Those that are open: when, to what, and at which address. As many as the ledger has.
    open: BTreeMap<u64, (Timestamp, String, String)>,
    /// Those that have ended and were not taken yet; the hub takes them in the same turn.
    ended: Vec<Ended>,
}

impl Ends {
    /// Takes one more event into account.
    pub(in crate::gateway) fn add(&mut self, at: Timestamp, event: &Connection) {
        match event {
            Connection::Opened { number, destination, address } => {
                self.open.insert(*number, (at, destination.clone(), address.clone()));
            }
            Connection::Refused { .. } => {}
            Connection::Closed { number, .. } | Connection::Lost { number, .. } => {
                if let Some((opened, endpoint, address)) = self.open.remove(number) {
                    self.ended.push(Ended { opened, at, endpoint, address, end: event.clone() });
                }
            }
        }
    }

    /// Takes those that have ended since the last time.
    pub(in crate::gateway) fn take(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }
}
