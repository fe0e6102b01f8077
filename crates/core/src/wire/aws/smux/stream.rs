//! One stream of the multiplexer: what waits to be read, what waits to be sent.

use std::collections::VecDeque;

use bytes::Bytes;

/// What a piece costs beyond its bytes, so that many tiny ones are not free.
const PIECE: usize = 64;

/// Pieces of bytes in order, with their cost.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pieces: VecDeque<Bytes>,
    cost: usize,
}

impl Pieces {
    pub(super) const fn cost(&self) -> usize {
        self.cost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Appends a piece and returns its cost.
    pub(super) fn push(&mut self, piece: Bytes) -> usize {
        let cost = piece.len() + PIECE;
        self.cost += cost;
        self.pieces.push_back(piece);
        cost
    }

    /// Takes at most that many bytes of the first piece; returns them and the cost that is freed.
    pub(super) fn take(&mut self, most: usize) -> Option<(Bytes, usize)> {
        let first = self.pieces.front_mut()?;
        let (bytes, freed) = if first.len() > most {
            (first.split_to(most), most)
        } else {
            let bytes = self.pieces.pop_front()?;
            let freed = bytes.len() + PIECE;
            (bytes, freed)
        };
        self.cost -= freed;
        Some((bytes, freed))
    }

    /// Forgets everything and returns the cost that is freed.
    pub(super) fn clear(&mut self) -> usize {
        self.pieces.clear();
        std::mem::take(&mut self.cost)
    }
}

/// A stream that this end has not closed completely.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) unread: Pieces,
    pub(super) unsent: Pieces,
    /// The peer has closed it.
    pub(super) peer_closed: bool,
    /// This end has closed it; a FIN follows what is unsent.
    pub(super) closed: bool,
    /// A write was refused; an event is owed.
    pub(super) blocked: bool,
    /// An event that it can be read stands among the events.
    pub(super) announced: bool,
    /// It stands in the line of those that have something to send.
    pub(super) in_line: bool,
}
