//! The proof, without a running server, that a data directory's trail and recordings are whole. Nothing is written.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use munjigi_core::audit::{Checkpoint, MAX_LINE_BYTES};
use munjigi_core::id::SessionId;
use munjigi_core::secret::MasterKeys;
use munjigi_core::trust::TrustedKey;
use serde::Deserialize;

use crate::directory::Access;
use crate::keys::Keys;
use crate::recording::{self, Files};
use crate::store::{SessionFilter, Store};
use crate::{audit, clock, setup, witness};

/// Rows of the database read at once.
const ROWS: usize = 500;

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of the trail were read.
    Trail {
        /// Since the beginning.
        bytes: u64,
    },
    /// So many recordings were verified.
    Recordings {
        /// Since the beginning.
        done: u64,
    },
}

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events of the trail that are as written.
    pub events: u64,
    /// How many of them a signed checkpoint covers.
    pub attested: u64,
    /// Recordings looked at.
    pub recordings: u64,
    /// Their records that are as written.
    pub records: u64,
    /// Recordings that are intact and not sealed: of running sessions, or cut by a crash.
    pub unsealed: u64,
    /// The first bad place of the trail and of each recording.
    pub problems: Vec<Problem>,
}

/// A bad place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or the trail.
    pub place: String,
    /// What is wrong, with the number of the first bad event or record.
    pub what: String,
}

impl Report {
    /// Tells whether nothing was changed, removed, inserted, reordered or cut off.
    pub fn is_whole(&self) -> bool {
        self.problems.is_empty()
    }

    fn blame(&mut self, place: impl Into<String>, what: impl ToString) {
        self.problems.push(Problem { place: place.into(), what: what.to_string() });
    }
}

/// Verifies the trail and all recordings of a data directory; the keys are read from it. Works beside a running server
/// and without one.
pub async fn verify_data_dir(
    directory: &Path,
    progress: impl FnMut(Progress) + Send + 'static,
) -> anyhow::Result<Report> {
    let keys = Arc::new(MasterKeys::new(setup::master_key(directory, false)?, Vec::new()));
    let store = Store::open_read_only(&directory.join("munjigi.db"), keys.clone()).await?;
    let read = read_store(&store).await;
    store.close().await;
    let (trusted, mirrored, sealed) = read?;
    let job = Verification { directory: directory.to_owned(), keys, trusted, mirrored, sealed, progress };
    tokio::task::spawn_blocking(move || job.run()).await?
}

type Sealed = BTreeMap<SessionId, String>;

/// Reads what the database knows: the keys of checkpoints, the newest checkpoint, and the hashes of sealed recordings.
async fn read_store(store: &Store) -> anyhow::Result<(Vec<TrustedKey>, Option<Checkpoint>, Sealed)> {
    let keys = Keys::open(store, clock::now()).await.context("failed to read the keys of the audit trail")?;
    let mut sealed = Sealed::new();
    let mut after = None;
    loop {
        let page = store.list_sessions(&SessionFilter::default(), after.as_ref(), ROWS).await?;
        for row in page.items {
            if let Some(hash) = row.end.and_then(|end| end.recording_hash) {
                sealed.insert(row.id, hash);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok((keys.trusted().to_vec(), witness::newest(store).await?, sealed));
        }
    }
}

struct Verification<P> {
    directory: PathBuf,
    keys: Arc<MasterKeys>,
    trusted: Vec<TrustedKey>,
    mirrored: Option<Checkpoint>,
    /// Final hashes by session, of the database and, with more weight, of the trail.
    sealed: Sealed,
    progress: P,
}

impl<P: FnMut(Progress)> Verification<P> {
    fn run(mut self) -> anyhow::Result<Report> {
        let mut report = Report::default();
        self.trail(&mut report);
        self.recordings(&mut report)?;
        Ok(report)
    }

    fn trail(&mut self, report: &mut Report) {
        let mut ends = Ends { line: Vec::new(), sealed: &mut self.sealed };
        let mut bytes = 0;
        let progress = &mut self.progress;
        let mut seen = |piece: &[u8]| {
            ends.feed(piece);
            bytes += piece.len() as u64;
            progress(Progress::Trail { bytes });
        };
        let trusted = std::mem::take(&mut self.trusted);
        match audit::verify_directory(&self.directory.join("audit"), trusted, self.mirrored.take(), &mut seen) {
            Ok(verdict) => {
                (report.events, report.attested) = (verdict.events, verdict.attested);
                if let Some(bad) = &verdict.bad {
                    report.blame("audit trail", bad);
                }
            }
            Err(error) => report.blame("audit trail", error),
        }
    }

    fn recordings(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let files = match Files::open(&self.directory.join("recordings")) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.sealed.is_empty() => return Ok(()),
            Err(error) => return Err(error).context("failed to open the directory of recordings"),
        };
        for day in files.days() {
            for session in files.sessions(&day).context("failed to list the directory of recordings")? {
                let kept = self.sealed.remove(&session);
                let place = format!("recording {}", day.path(&session));
                report.recordings += 1;
                let verdict = files
                    .open_file(&day, &session, Access::Read)
                    .and_then(|file| recording::verify_file(&file, &session, &self.keys));
                match verdict {
                    Ok(verdict) => {
                        report.records += verdict.records;
                        report.unsealed += u64::from(!verdict.sealed);
                        if let Some(what) = recording::problem(&verdict, kept.as_deref()) {
                            report.blame(place, what);
                        }
                    }
                    Err(error) => report.blame(place, format!("cannot be read: {error}")),
                }
                (self.progress)(Progress::Recordings { done: report.recordings });
            }
        }
        for session in self.sealed.keys() {
            report.blame(format!("recording of session {session}"), "is missing: it had been sealed");
        }
        Ok(())
    }
}

/// Picks the final hashes of recordings out of the trail's lines as they pass.
struct Ends<'a> {
    line: Vec<u8>,
    sealed: &'a mut Sealed,
}

/// What the end of a session leaves in the trail.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndRecord {
    additional_event_data: Option<EndDetails>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndDetails {
    recording_id: Option<SessionId>,
    recording_hash: Option<String>,
}

impl Ends<'_> {
    fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() <= MAX_LINE_BYTES {
                self.line.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                self.note();
                self.line.clear();
            }
        }
    }

    fn note(&mut self) {
        let Ok(line) = std::str::from_utf8(&self.line) else { return };
        let Some((_, record)) = line.split_once('{').filter(|_| line.contains("\"eventName\":\"EndSession\"")) else {
            return;
        };
        let details = serde_json::from_str::<EndRecord>(&format!("{{{record}")).ok();
        let details = details.and_then(|record| record.additional_event_data);
        if let Some(EndDetails { recording_id: Some(session), recording_hash: Some(hash) }) = details {
            self.sealed.insert(session, hash);
        }
    }
}
