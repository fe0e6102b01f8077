//! How far a copy is, for whoever shows it, and what went wrong with single entries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use munjigi_core::copy::EntryPath;

/// Most problems whose words are kept until somebody takes them; the others are only counted.
const MAX_KEPT: usize = 1000;

/// Counters of one copy; threads write, whoever shows them reads.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    skipped_bytes: AtomicU64,
    total_files: AtomicU64,
    total_bytes: AtomicU64,
    problems: AtomicU64,
    words: Mutex<Vec<(EntryPath, String)>>,
}

/// The counters at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Files in their place.
    pub files: u64,
    /// Bytes carried.
    pub bytes: u64,
    /// Bytes that were there already.
    pub skipped_bytes: u64,
    /// Files in all; 0 while unknown.
    pub total_files: u64,
    /// Bytes in all; 0 while unknown.
    pub total_bytes: u64,
    /// Entries that were not copied.
    pub problems: u64,
}

impl Progress {
    /// Returns the counters.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            files: self.files.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            skipped_bytes: self.skipped_bytes.load(Ordering::Relaxed),
            total_files: self.total_files.load(Ordering::Relaxed),
            total_bytes: self.total_bytes.load(Ordering::Relaxed),
            problems: self.problems.load(Ordering::Relaxed),
        }
    }

    /// Takes the words about entries that were not copied; they are untrusted text.
    pub fn take_problems(&self) -> Vec<(EntryPath, String)> {
        std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self, count: u64) {
        self.skipped_bytes.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn total(&self, files: u64, bytes: u64) {
        self.total_files.fetch_add(files, Ordering::Relaxed);
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn problem(&self, path: &EntryPath, why: &str) {
        self.problems.fetch_add(1, Ordering::Relaxed);
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        if words.len() < MAX_KEPT {
            words.push((path.clone(), why.to_owned()));
        }
    }
}
