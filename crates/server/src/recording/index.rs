//! Places in a recording from which reading can begin: few of them, further apart the longer the recording.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use munjigi_core::id::SessionId;
use munjigi_core::recording::Position;

/// Most finished recordings whose indexes are kept.
const MOST_KEPT: usize = 32;

/// Most places kept of one recording, about 10 KiB.
const MOST_PLACES: usize = 64;
/// First distance of two places; doubled whenever there are too many.
const FIRST_DISTANCE_BYTES: u64 = 256 * 1024;

/// A sparse index over one recording, built while it is written or read.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: Vec<Position>,
    doublings: u32,
}

impl Index {
    /// Keeps a place if it is far enough behind the last one.
    pub(super) fn note(&mut self, position: &Position) {
        let distance = FIRST_DISTANCE_BYTES.checked_shl(self.doublings).unwrap_or(u64::MAX);
        let last = self.places.last().map_or(0, |place| place.byte_offset);
        if position.sealed || position.byte_offset < last.saturating_add(distance) {
            return;
        }
        if self.places.len() == MOST_PLACES {
            let mut index = 0;
            self.places.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.doublings += 1;
            return self.note(position);
        }
        self.places.push(position.clone());
    }

    /// Returns the last place for which `before` holds; it must hold for all places up to some one and for none after.
    pub(super) fn last(&self, before: impl Fn(&Position) -> bool) -> Option<&Position> {
        self.places.get(self.places.partition_point(|place| before(place)).checked_sub(1)?)
    }
}

/// The indexes of the recordings that were read last.
#[derive(Debug, Default)]
pub(super) struct Indexes(VecDeque<(SessionId, Arc<Mutex<Index>>)>);

impl Indexes {
    /// Returns the index of a finished recording, a new one if it was not read lately.
    pub(super) fn of(&mut self, session: &SessionId) -> Arc<Mutex<Index>> {
        if let Some((_, index)) = self.0.iter().find(|(known, _)| known == session) {
            return index.clone();
        }
        if self.0.len() == MOST_KEPT {
            self.0.pop_front();
        }
        let index: Arc<Mutex<Index>> = Arc::default();
        self.0.push_back((session.clone(), index.clone()));
        index
    }
}
