//! The session log on disk: made, continued, written by one thread for all, read from any place, sealed, verified.
//!
//! The bytes are those of [`munjigi_core::recording`]. Who may read a recording is decided elsewhere.

mod error;
mod files;
mod index;
mod log;
mod reader;
mod recorder;
mod scan;
#[cfg(test)]
mod tests;
mod verdict;
mod writer;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use munjigi_core::id::SessionId;
use munjigi_core::recording::{Event, EventKind, FileRandom, Sealed, StartMeta, Verdict, Writer};
use munjigi_core::secret::MasterKeys;
use munjigi_core::time::Timestamp;

pub use self::error::RecordingError;
pub(crate) use self::files::{Day, Files};
use self::index::Indexes;
use self::log::{Log, Repair, SealOrder};
pub use self::log::{Mode, Progress, SealedRecording};
pub use self::reader::{Batch, ReadFrom, RecordingReader};
pub use self::recorder::Recorder;
pub use self::scan::StillOpen;
pub use self::verdict::problem;
use self::writer::{Live, Mailbox, Threads};
use crate::directory::{Access, Directory};
pub use crate::disk::DiskState;
use crate::disk::{self, Disk};
use crate::lock;

/// Bytes set aside so that sessions can end properly on a full disk.
const RESERVE_BYTES: u64 = 5 * 1024 * 1024;

/// All recordings of a server.
pub struct Recordings {
    shared: Arc<Shared>,
    threads: Arc<Mutex<Threads>>,
}

/// What recorders and readers share.
pub(crate) struct Shared {
    files: Files,
    keys: Arc<MasterKeys>,
    live: Arc<Live>,
    disk: Arc<Disk>,
    mailbox: Mailbox,
    /// Indexes of recordings that were read lately and are not live.
    indexes: Mutex<Indexes>,
    /// The sessions being reopened: two at once would cut each other's records.
    reopening: Mutex<HashSet<SessionId>>,
}

/// What a recording held when it was continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// What its first event says.
    pub start: StartMeta,
    /// Offset behind the last byte of output recorded, both streams together.
    pub output_end: u64,
    /// Offset behind the last byte of input recorded.
    pub input_end: u64,
    /// Number of the newest connection of a port session.
    pub last_connection: u64,
    /// Its connections that have no end: they were open when the server stopped.
    pub open: BTreeMap<u64, StillOpen>,
    /// Time of the last event, microseconds since the session's start.
    pub last_at: u64,
    /// How many records it has.
    pub records: u64,
    /// Bytes of an incomplete record that were cut off: what a crash had left.
    pub cut_bytes: u64,
}

impl Recordings {
    /// Opens the directory of all recordings, making it if it is missing, and starts the threads that write them.
    pub fn open(directory: &Path, keys: Arc<MasterKeys>) -> Result<Self, RecordingError> {
        let files = Files::create(directory).map_err(RecordingError::io("open the directory of recordings"))?;
        let root = Directory::open_path(directory).map_err(RecordingError::io("open the directory of recordings"))?;
        let disk = Arc::new(Disk::new(root, RESERVE_BYTES));
        let live = Arc::new(Mutex::new(HashMap::new()));
        let (threads, mailbox) =
            writer::start(live.clone(), disk.clone()).map_err(RecordingError::io("start the recorder's threads"))?;
        let shared = Arc::new(Shared {
            files,
            keys,
            live,
            disk,
            mailbox,
            indexes: Mutex::default(),
            reopening: Mutex::default(),
        });
        Ok(Self { shared, threads: Arc::new(Mutex::new(threads)) })
    }

    /// Begins the recording of a session: header and start are durable, with the file's entry, when it returns (T-62).
    pub async fn create(&self, session: &SessionId, meta: &StartMeta, mode: Mode) -> Result<Recorder, RecordingError> {
        let (shared, session, meta) = (self.shared.clone(), session.clone(), meta.clone());
        blocking(move || shared.create(session, meta, mode)).await
    }

    /// Continues the recording of a session that runs on after the server was restarted. What a crash left behind the
    /// last whole record is cut off.
    pub async fn reopen(&self, session: &SessionId, mode: Mode) -> Result<(Recorder, Recovered), RecordingError> {
        let (shared, session) = (self.shared.clone(), session.clone());
        blocking(move || shared.reopen(session, mode)).await
    }

    /// Opens a recording for reading, also while it is written.
    pub async fn reader(&self, session: &SessionId, from: ReadFrom) -> Result<RecordingReader, RecordingError> {
        let (shared, session) = (self.shared.clone(), session.clone());
        blocking(move || shared.reader(&session, from)).await
    }

    /// Proves that a recording is as it was written, up to what is written of it now.
    pub async fn verify(&self, session: &SessionId) -> Result<Verdict, RecordingError> {
        let (shared, session) = (self.shared.clone(), session.clone());
        blocking(move || {
            let (file, limit) = match shared.live(&session) {
                Some(log) => (log.file(), log.progress().borrow().written_bytes),
                None => (shared.find(&session, Access::Read)?.1.into(), u64::MAX),
            };
            scan::verify(&file, &session, &shared.keys, limit).map_err(RecordingError::io("read the recording"))
        })
        .await
    }

    /// Returns the recorded sessions of all days, oldest day first.
    pub async fn list(&self) -> Result<Vec<SessionId>, RecordingError> {
        let shared = self.shared.clone();
        blocking(move || {
            let mut sessions = Vec::new();
            for day in shared.files.days() {
                sessions.extend(
                    shared.files.sessions(&day).map_err(RecordingError::io("list the directory of recordings"))?,
                );
            }
            Ok(sessions)
        })
        .await
    }

    /// Tells how full the disk is; an alarm from [`DiskState::Low`] on, and no new sessions at [`DiskState::Full`].
    pub async fn disk_state(&self) -> Result<DiskState, RecordingError> {
        let shared = self.shared.clone();
        blocking(move || shared.disk.state().map_err(RecordingError::io("ask for the space on the disk"))).await
    }

    /// Writes and syncs everything appended, then ends the threads. Live recordings stay unsealed and are continued
    /// after the restart.
    pub async fn shutdown(&self) {
        let threads = self.threads.clone();
        let stopped = tokio::task::spawn_blocking(move || lock(&threads).stop()).await;
        if let Err(error) = stopped {
            tracing::error!("failed to stop the recorder: {error}");
        }
    }
}

impl Drop for Recordings {
    fn drop(&mut self) {
        lock(&self.threads).stop();
    }
}

impl Shared {
    fn live(&self, session: &SessionId) -> Option<Arc<Log>> {
        lock(&self.live).get(session).cloned()
    }

    fn find(&self, session: &SessionId, access: Access) -> Result<(Day, File), RecordingError> {
        self.files
            .find(session, access)
            .map_err(RecordingError::io("open the recording"))?
            .ok_or_else(|| RecordingError::NotFound(session.clone()))
    }

    fn create(self: &Arc<Self>, session: SessionId, meta: StartMeta, mode: Mode) -> Result<Recorder, RecordingError> {
        match self.disk.state().map_err(RecordingError::io("ask for the space on the disk"))? {
            DiskState::Full => return Err(RecordingError::DiskFull),
            DiskState::Low => tracing::warn!("the disk of the recordings is more than 90 % full"),
            DiskState::Ok => self.disk.restock(),
        }
        let started = meta.started;
        let day = Day::of(started).ok_or_else(|| {
            RecordingError::io("name the recording by its day")(io::Error::other("the clock is outside the calendar"))
        })?;
        let mut bytes = Vec::new();
        let mut writer = Writer::create(self.keys.current(), &session, started, file_random()?, &mut bytes)?;
        writer.append(&[Event { at: 0, kind: EventKind::Start(Box::new(meta)) }], &mut bytes)?;
        let (file, directory) = self.files.create_file(&day, &session).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => RecordingError::Exists(session.clone()),
            _ => RecordingError::io("create the recording")(error),
        })?;
        let durable = file.write_all_at(&bytes, 0).and_then(|()| file.sync_data()).and_then(|()| directory.sync());
        if let Err(error) = durable {
            // Nothing was started yet: an empty recording would only puzzle whoever finds it.
            let _ = self.files.remove(&day, &session);
            return Err(RecordingError::io("write the recording's first record")(error));
        }
        Ok(self.record(session, mode, day, started, file, writer))
    }

    fn reopen(self: &Arc<Self>, session: SessionId, mode: Mode) -> Result<(Recorder, Recovered), RecordingError> {
        if !lock(&self.reopening).insert(session.clone()) {
            return Err(RecordingError::InUse(session));
        }
        let outcome = self.reopen_alone(session.clone(), mode);
        lock(&self.reopening).remove(&session);
        outcome
    }

    fn reopen_alone(self: &Arc<Self>, session: SessionId, mode: Mode) -> Result<(Recorder, Recovered), RecordingError> {
        if self.live(&session).is_some() {
            return Err(RecordingError::InUse(session));
        }
        let (day, file) = self.find(&session, Access::Write)?;
        let scan = scan::scan(&file, &session, &self.keys, u64::MAX)?;
        if scan.position.sealed {
            return Err(RecordingError::Sealed(session));
        }
        let (Some(start), Some(tally)) = (scan.start, scan.position.tally.clone()) else {
            return Err(RecordingError::NotFound(session));
        };
        let recovered = Recovered {
            output_end: tally.output_end(),
            input_end: tally.input_bytes,
            last_connection: tally.last_connection,
            open: scan.open,
            last_at: tally.last_at,
            records: scan.position.sequence,
            cut_bytes: scan.torn_bytes,
            start,
        };
        // What was read may be in memory only: it counts as recorded from here on, so it must be durable.
        file.set_len(scan.position.byte_offset)
            .and_then(|()| file.sync_all())
            .map_err(RecordingError::io("cut the recording behind its last whole record"))?;
        let writer = Writer::reopen(scan.key, scan.position, random()?)?;
        let started = recovered.start.started;
        Ok((self.record(session, mode, day, started, file, writer), recovered))
    }

    fn record(
        self: &Arc<Self>,
        session: SessionId,
        mode: Mode,
        day: Day,
        started: Timestamp,
        file: File,
        writer: Writer,
    ) -> Recorder {
        let log = Log::new(session.clone(), mode, day, started, file, writer);
        lock(&self.live).insert(session, log.clone());
        Recorder::new(log, self.clone())
    }

    fn reader(&self, session: &SessionId, from: ReadFrom) -> Result<RecordingReader, RecordingError> {
        let log = self.live(session);
        let file = match &log {
            Some(log) => log.file(),
            None => self.find(session, Access::Read)?.1.into(),
        };
        let index = match &log {
            Some(log) => log.index.clone(),
            None => lock(&self.indexes).of(session),
        };
        RecordingReader::new(file, session, &self.keys, from, log.as_deref(), index)
    }

    /// Seals a recording whose disk failed a sync: reads it back through a fresh descriptor and writes again what may
    /// be lost. What cannot be read back as it was written is cut off.
    fn repair(&self, log: &Log, order: SealOrder) -> Result<SealedRecording, RecordingError> {
        let file = self
            .files
            .open_file(&log.day, &log.session, Access::Write)
            .map_err(RecordingError::io("open the recording again"))?;
        log.repair(file, order, |file, durable| {
            let scan = scan::scan(file, &log.session, &self.keys, u64::MAX)?;
            disk::rewrite(file, durable, scan.position.byte_offset)
                .map_err(RecordingError::io("write the recording's end again"))?;
            let tally = scan.position.tally.clone().filter(|_| scan.position.sealed);
            Ok(match tally {
                Some(tally) => Repair::Sealed(Sealed {
                    hash: scan.position.chain,
                    records: scan.position.sequence,
                    tally,
                    file_bytes: scan.position.byte_offset,
                }),
                None => Repair::Open(Writer::reopen(scan.key, scan.position, random()?)?),
            })
        })
    }
}

fn file_random() -> Result<FileRandom, RecordingError> {
    Ok(FileRandom { data_key: random()?, wrap_salt: random()?, segment_salt: random()? })
}

fn random<const N: usize>() -> Result<[u8; N], RecordingError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| RecordingError::io("get random bytes")(io::Error::other("the random source failed")))?;
    Ok(bytes)
}

/// Verifies a recording's file up to its end. Blocks.
pub(crate) fn verify_file(file: &File, session: &SessionId, keys: &MasterKeys) -> io::Result<Verdict> {
    scan::verify(file, session, keys, u64::MAX)
}

/// Runs file work off the runtime's own threads.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, RecordingError> + Send + 'static,
) -> Result<T, RecordingError> {
    tokio::task::spawn_blocking(job).await.map_err(|_| RecordingError::Stopped)?
}
