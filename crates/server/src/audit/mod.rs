//! The audit trail on disk: records appended by one thread for all, each durable before its call is answered, found
//! again by attribute or number, proved whole.
//!
//! The bytes are those of [`munjigi_core::audit`]. What is recorded and who may read it is decided elsewhere.

mod lookup;
mod segment;
#[cfg(test)]
mod tests;
mod trail;
mod verify;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::Ed25519KeyPair;
use munjigi_core::audit::{AuditRecord, Checkpoint, Finding, Link, Verdict};
use munjigi_core::trust::TrustedKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::lookup::{Attribute, AttributeKey, Filter, Found, Page};
use self::trail::Trail;
pub use self::verify::verify_directory;
use self::writer::{Group, Threads};
use crate::lock;

/// Records that may wait for the disk; more wait for room (T-95).
const QUEUE: usize = 1024;

/// What a trail is opened with.
pub struct Settings {
    /// Signs checkpoints.
    pub key: Arc<Ed25519KeyPair>,
    /// The keys that may have signed checkpoints, retired ones included.
    pub trusted: Vec<TrustedKey>,
    /// The newest checkpoint that was kept outside of the trail's directory: a trail that does not reach it was cut.
    pub mirrored: Option<Checkpoint>,
    /// Called by the trail's thread with each new checkpoint, after it is durable; keeps it elsewhere.
    pub on_checkpoint: Box<dyn Fn(&Checkpoint) + Send>,
}

/// The audit trail. Clones share it; when the last one goes, everything appended is written and a checkpoint signed.
#[derive(Clone)]
pub struct AuditLog {
    trail: Arc<Trail>,
    threads: Arc<Mutex<Threads>>,
    room: Arc<Semaphore>,
}

/// Proof that a record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the trail, from 1.
    pub sequence: u64,
    /// The hash of its line.
    pub hash: [u8; 32],
}

impl From<Link> for Receipt {
    fn from(link: Link) -> Self {
        Self { sequence: link.sequence, hash: link.hash }
    }
}

/// Why a record is not stored, or a trail cannot be opened or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The file system refused. Later records are tried again.
    #[error("the audit trail cannot be written or read: failed to {what}: {why}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the file system said.
        why: Arc<str>,
    },
    /// A record is too large.
    #[error("{0}")]
    Record(Arc<str>),
    /// The trail was changed; it is not written on.
    #[error("the audit trail was changed: {0}; keep it as it is for the inquiry, and move it away to begin a new one")]
    Broken(Finding),
    /// The trail ends before a checkpoint that was kept elsewhere.
    #[error(
        "the audit trail was cut off or rolled back: it has {events} events, but a signed checkpoint covers {covered}; \
         restore it, or keep it for the inquiry and move it away to begin a new one"
    )]
    Truncated {
        /// How many events there are.
        events: u64,
        /// How many there were.
        covered: u64,
    },
    /// Files of the trail are missing or do not belong to it.
    #[error("the audit trail's directory is damaged: {0}")]
    Damaged(Arc<str>),
    /// The writer has ended.
    #[error("the audit trail is closed")]
    Closed,
}

impl AuditError {
    /// Adds what was being done to an error of the file system.
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, why: error.to_string().into() }
    }
}

impl AuditLog {
    /// Opens the trail in a directory, beginning one if there is none, and starts its writer. A line that a crash left
    /// unfinished was never acknowledged and is cut off; anything else that does not fit the chain is refused.
    pub fn open(directory: &Path, settings: Settings) -> Result<Self, AuditError> {
        let (trail, state) = Trail::open(directory, &settings)?;
        let trail = Arc::new(trail);
        let threads = writer::start(trail.clone(), state, settings)?;
        Ok(Self { trail, threads: Arc::new(Mutex::new(threads)), room: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Appends a record; returns when it is durable. If the caller stops waiting it is stored all the same.
    pub async fn append(&self, record: AuditRecord) -> Result<Receipt, AuditError> {
        let receipts = self.append_all(vec![record]).await?;
        receipts.first().copied().ok_or(AuditError::Closed)
    }

    /// Appends records that belong together, one behind the other: all or none.
    pub async fn append_all(&self, records: Vec<AuditRecord>) -> Result<Vec<Receipt>, AuditError> {
        // The backpressure: callers wait here while the disk is behind.
        let wanted = u32::try_from(records.len().clamp(1, QUEUE)).unwrap_or(1);
        let room: OwnedSemaphorePermit =
            self.room.clone().acquire_many_owned(wanted).await.map_err(|_| AuditError::Closed)?;
        let (done, stored) = oneshot::channel();
        self.trail.queue.send(Group { records, done, room })?;
        stored.await.map_err(|_| AuditError::Closed)?
    }

    /// Returns the events that pass a filter, newest first, at most `most` of those numbered below `before`. A page may
    /// be short, even empty, and still name a `next` to go on from: one call scans a bounded part of the trail.
    pub async fn lookup(&self, filter: Filter, before: Option<u64>, most: usize) -> Result<Page, AuditError> {
        let trail = self.trail.clone();
        blocking(move || lookup::backwards(&trail, &filter, before, most)).await
    }

    /// Returns the events from a number on that pass a filter, oldest first; bounded as [`Self::lookup`].
    pub async fn read(&self, from_sequence: u64, filter: Filter, most: usize) -> Result<Page, AuditError> {
        let trail = self.trail.clone();
        blocking(move || lookup::forwards(&trail, &filter, from_sequence, most)).await
    }

    /// Follows the number of the newest durable event.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.trail.durable.subscribe()
    }

    /// Proves that the trail is as it was written, up to what is durable now, against its chain and all checkpoints
    /// known.
    pub async fn verify(&self) -> Result<Verdict, AuditError> {
        let trail = self.trail.clone();
        blocking(move || trail.verify()).await
    }

    /// Writes everything appended, signs a last checkpoint and ends the writer.
    pub async fn shutdown(&self) {
        let threads = self.threads.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || lock(&threads).stop()).await {
            tracing::error!("failed to stop the audit trail's writer: {error}");
        }
    }
}

/// Runs file work off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, AuditError> + Send + 'static,
) -> Result<T, AuditError> {
    tokio::task::spawn_blocking(job).await.map_err(|_| AuditError::Closed)?
}
