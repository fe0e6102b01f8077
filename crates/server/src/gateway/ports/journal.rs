//! The journal of one connection whose protocol the gateway reads: its statements, on their way to the recording.
//!
//! What may not go to the database before it is recorded is begun here first and then [`Journal::settled`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use munjigi_core::recording::{EventKind, Statement, StatementEnd, StatementKind};

use super::{Ledger, PortError};

/// The journal. Both directions of the connection share it.
pub struct Journal {
    ledger: Arc<Ledger>,
    connection: u64,
    /// Whether a statement must be on the disk before the database gets it.
    strict: bool,
    last_number: AtomicU64,
    /// The newest event of this connection, as the ledger counts them.
    noted: AtomicU64,
}

impl Journal {
    pub(in crate::gateway) const fn new(ledger: Arc<Ledger>, connection: u64, strict: bool) -> Self {
        Self { ledger, connection, strict, last_number: AtomicU64::new(0), noted: AtomicU64::new(0) }
    }

    /// Returns the connection's number in its session.
    pub const fn connection(&self) -> u64 {
        self.connection
    }

    /// Makes the next statement of this connection; a text over the limit is cut.
    pub fn statement(&self, kind: StatementKind, text: &str) -> Statement {
        let number = self.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        Statement::new(self.connection, number, kind, text)
    }

    /// Hands a statement over; waits while the recorder is behind. Fails once the session is over.
    pub async fn begin(&self, statement: Statement) -> Result<(), PortError> {
        self.note(EventKind::Statement(Box::new(statement))).await
    }

    /// Waits until what was begun may go to the database: under strict recording until it is on the disk, else not.
    pub async fn settled(&self) -> Result<(), PortError> {
        if !self.strict {
            return Ok(());
        }
        self.ledger.statements_are_stored(self.noted.load(Ordering::Relaxed)).await
    }

    /// Hands over how a statement ended; waits while the recorder is behind. Fails once the session is over.
    pub async fn end(&self, end: StatementEnd) -> Result<(), PortError> {
        self.note(EventKind::StatementEnd(Box::new(end))).await
    }

    /// Hands over an event of this connection; waits while the recorder is behind. Fails once the session is over.
    pub async fn note(&self, event: EventKind) -> Result<(), PortError> {
        let number = self.ledger.note_statement(event).await?;
        self.noted.fetch_max(number, Ordering::Relaxed);
        Ok(())
    }
}
