//! The audit trail: records appended one after the other, each durable before its call is answered.
//!
//! One thread writes; records that wait together are made durable by one `fdatasync`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use munjigi_core::audit::AuditRecord;
use tokio::sync::{mpsc, oneshot};

/// Records that may wait for the writer; more wait for room.
const QUEUE: usize = 1024;

/// The audit trail. Clones share it.
#[derive(Clone)]
pub struct AuditLog {
    /// Sent by [`AuditLog::append`], received by the writer thread.
    records_tx: mpsc::Sender<Waiting>,
}

/// Proof that a record is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the trail, from 1.
    pub sequence: u64,
}

/// Why a record is not stored.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Writing failed; the trail stays closed until the server starts again.
    #[error("the audit trail cannot be written: {0}")]
    Write(String),
    /// The record is too large.
    #[error(transparent)]
    Record(#[from] munjigi_core::audit::AuditError),
    /// The writer has ended.
    #[error("the audit trail is closed")]
    Closed,
}

impl AuditLog {
    /// Opens the trail in a directory and starts its writer.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join("trail.jsonl");
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let sequence = std::fs::read(&path)?.iter().filter(|b| **b == b'\n').count() as u64;
        let (records_tx, records) = mpsc::channel(QUEUE);
        std::thread::Builder::new().name("audit".into()).spawn(move || write(file, sequence, records))?;
        Ok(Self { records_tx })
    }

    /// Appends a record; returns when it is durable.
    pub async fn append(&self, record: AuditRecord) -> Result<Receipt, AuditError> {
        let mut line = record.to_json()?.into_bytes();
        line.push(b'\n');
        let (stored_tx, stored) = oneshot::channel();
        self.records_tx.send((line, stored_tx)).await.map_err(|_| AuditError::Closed)?;
        stored.await.map_err(|_| AuditError::Closed)?
    }
}

type Waiting = (Vec<u8>, oneshot::Sender<Result<Receipt, AuditError>>);

fn write(mut file: File, mut sequence: u64, mut records: mpsc::Receiver<Waiting>) {
    let mut failed: Option<String> = None;
    let mut batch: Vec<Waiting> = Vec::new();
    while let Some(first) = records.blocking_recv() {
        batch.push(first);
        while let Ok(next) = records.try_recv() {
            batch.push(next);
        }
        if failed.is_none() {
            let lines: Vec<u8> = batch.iter().flat_map(|(line, _)| line.iter().copied()).collect();
            failed = file.write_all(&lines).and_then(|()| file.sync_data()).err().map(|cause| cause.to_string());
        }
        for (_, stored_tx) in batch.drain(..) {
            sequence = sequence.saturating_add(1);
            let answer = match &failed {
                None => Ok(Receipt { sequence }),
                Some(cause) => Err(AuditError::Write(cause.clone())),
            };
            // Whoever asked may be gone; the record is stored all the same.
            let _ = stored_tx.send(answer);
        }
    }
}
