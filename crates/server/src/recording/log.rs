//! One live recording: what was appended and is not yet written, and the file it goes to.
//!
//! [`Log::append`] runs on the session's task and touches memory only; [`Log::write`] runs on the writer thread,
//! [`Log::sync`] on the thread beside it. Lock order: `sink`, `pending`, `index`; the session's task takes only `pending`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use munjigi_core::id::SessionId;
use munjigi_core::recording::{Event, EventKind, InputData, Sealed, Writer};
use munjigi_core::session::{EndReason, ExitStatus};
use munjigi_core::time::Timestamp;
use tokio::sync::{oneshot, watch};

use super::RecordingError;
use super::files::Day;
use super::index::Index;
use crate::disk::{self, Disk};
use crate::lock;

/// Most bytes that may wait to be written, events counted with their bookkeeping. The hub stops reading the node far
/// below; this bound holds if it does not (T-95).
pub(super) const MOST_PENDING_BYTES: usize = 4 * 1024 * 1024;
/// With so many bytes waiting the writer is called at once instead of at its next turn. Each call is news for the session's
/// task and for the node too, so there are few of them; and less than half of what may wait, so that bulk does not stand.
const URGENT_BYTES: usize = 192 * 1024;
/// What an event takes beside its data.
const EVENT_BYTES: usize = size_of::<Event>();

/// How a session is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Written within milliseconds, durable within two seconds (T-61).
    Normal,
    /// Written and made durable at once: what is shown waits for [`Progress::durable_output`].
    Strict,
}

/// How far a recording has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Output before this offset is in the file: it outlives this process.
    pub written_output: u64,
    /// Output before this offset is on the disk: it outlives the machine.
    pub durable_output: u64,
    /// Input before this offset is in the file.
    pub written_input: u64,
    /// How many of the events appended here are in the file.
    pub written_events: u64,
    /// How many of them are on the disk.
    pub durable_events: u64,
    /// Length of the file's part that is written; always the end of a record.
    pub written_bytes: u64,
    /// Length of the file's part that is on the disk.
    pub durable_bytes: u64,
    /// Nothing more will be written: sealed, or given up.
    pub closed: bool,
    /// Why nothing more can be recorded; the session is to be ended.
    pub failed: Option<Arc<str>>,
}

/// What a sealed recording is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecording {
    /// The final chain hash: it covers every byte of the recording.
    pub hash: [u8; 32],
    /// How many records the file has.
    pub records: u64,
    /// Bytes of output recorded, both streams together.
    pub bytes_out: u64,
    /// Bytes of input, recorded or only counted.
    pub bytes_in: u64,
    /// Where the file lies, below the directory of recordings.
    pub path: String,
}

/// How an order to seal ended.
pub(super) type SealOutcome = Result<SealedRecording, SealFailure>;

/// Why a recording was not sealed by the writer.
#[derive(Debug)]
pub(super) enum SealFailure {
    /// The disk cannot be believed: the file must be read back first.
    Untrusted(SealOrder),
    /// It failed for good.
    Failed(RecordingError),
}

/// What the last event says.
#[derive(Debug, Clone)]
pub(super) struct SealOrder {
    pub at: u64,
    pub reason: EndReason,
    pub exit: Option<ExitStatus>,
}

/// One live recording.
pub(super) struct Log {
    pub session: SessionId,
    pub mode: Mode,
    pub day: Day,
    pub started: Timestamp,
    pending: Mutex<Pending>,
    /// Bytes in `pending` or being written.
    backlog: AtomicUsize,
    sink: Mutex<Sink>,
    progress: watch::Sender<Progress>,
    sync_queued: AtomicBool,
    /// Places to begin reading from.
    pub index: Arc<Mutex<Index>>,
    /// Lets a test break the disk: the next so many syncs fail.
    #[cfg(test)]
    pub failing_syncs: AtomicUsize,
}

/// What the session's task hands over.
#[derive(Default)]
struct Pending {
    events: Vec<Event>,
    /// How many were appended in all.
    appended: u64,
    bytes: usize,
    /// The log is in the writer's queue.
    queued: bool,
    failed: Option<Arc<str>>,
    seal: Option<(SealOrder, oneshot::Sender<SealOutcome>)>,
    abandoned: bool,
}

/// The file, and what the writer and sync threads know of it.
struct Sink {
    file: Arc<File>,
    writer: Option<Writer>,
    /// How many events the writer was given.
    taken: u64,
    /// Encoded bytes that the file system refused; they belong at `written`.
    unwritten: Vec<u8>,
    written: Extent,
    durable: Extent,
    dirty_since: Option<Instant>,
    /// A sync failed: what the system says of this file is not believed again.
    untrusted: bool,
    finish: Finish,
}

/// How far a file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    pub bytes: u64,
    pub output: u64,
    pub input: u64,
    pub events: u64,
}

/// What happens once everything is durable.
enum Finish {
    Open,
    Seal(SealOrder, Sealed, oneshot::Sender<SealOutcome>),
    Abandon,
}

/// What the writer did with a log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing needs to be synced.
    Nothing,
    /// It is to be synced within the normal interval, counted from this instant.
    Dirty(Instant),
    /// It is to be synced now.
    SyncNow,
}

impl Log {
    /// Takes a file that holds everything that `writer` has handed out so far, durably.
    pub(super) fn new(
        session: SessionId,
        mode: Mode,
        day: Day,
        started: Timestamp,
        file: File,
        writer: Writer,
    ) -> Arc<Self> {
        let extent = extent_of(&writer);
        let progress = Progress {
            written_output: extent.output,
            durable_output: extent.output,
            written_input: extent.input,
            written_bytes: extent.bytes,
            durable_bytes: extent.bytes,
            ..Progress::default()
        };
        let sink = Sink {
            file: Arc::new(file),
            writer: Some(writer),
            taken: 0,
            unwritten: Vec::new(),
            written: extent,
            durable: extent,
            dirty_since: None,
            untrusted: false,
            finish: Finish::Open,
        };
        Arc::new(Self {
            session,
            mode,
            day,
            started,
            pending: Mutex::new(Pending::default()),
            backlog: AtomicUsize::new(0),
            sink: Mutex::new(sink),
            progress: watch::Sender::new(progress),
            sync_queued: AtomicBool::new(false),
            index: Arc::default(),
            #[cfg(test)]
            failing_syncs: AtomicUsize::new(0),
        })
    }

    /// Takes an event over. Returns whether the log must be queued, whether at once, and the event's number.
    pub(super) fn append(&self, event: Event) -> Result<(bool, bool, u64), RecordingError> {
        let bytes = weight(&event);
        let mut pending = lock(&self.pending);
        if let Some(why) = &pending.failed {
            return Err(RecordingError::Failed(why.clone()));
        }
        if self.backlog.load(Ordering::Relaxed).saturating_add(bytes) > MOST_PENDING_BYTES {
            return Err(RecordingError::Overrun);
        }
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        pending.bytes += bytes;
        pending.events.push(event);
        pending.appended += 1;
        let urgent = self.mode == Mode::Strict || pending.bytes >= URGENT_BYTES;
        Ok((!std::mem::replace(&mut pending.queued, true), urgent, pending.appended))
    }

    /// The queue did not take the log.
    pub(super) fn unqueue(&self) {
        lock(&self.pending).queued = false;
    }

    /// Orders the end. The log is to be queued whether it is already or not.
    pub(super) fn order_seal(&self, order: SealOrder, done: oneshot::Sender<SealOutcome>) {
        lock(&self.pending).seal = Some((order, done));
    }

    /// Nobody will append or seal any more. The log is to be queued if this returns true.
    pub(super) fn abandon(&self) -> bool {
        let mut pending = lock(&self.pending);
        pending.abandoned = true;
        !std::mem::replace(&mut pending.queued, true)
    }

    pub(super) fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    pub(super) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Holds the writer up, as a slow disk does.
    #[cfg(test)]
    pub(super) fn hold(&self) -> impl Drop + '_ {
        lock(&self.sink)
    }

    pub(super) fn file(&self) -> Arc<File> {
        lock(&self.sink).file.clone()
    }

    /// Writes what was appended. `scratch` is the thread's buffer, empty at call and return.
    pub(super) fn write(&self, scratch: &mut Vec<u8>, disk: &Disk) -> Written {
        let (events, seal, abandoned) = {
            let mut pending = lock(&self.pending);
            pending.queued = false;
            pending.bytes = 0;
            (std::mem::take(&mut pending.events), pending.seal.take(), pending.abandoned)
        };
        let bytes: usize = events.iter().map(weight).sum();
        let mut sink = lock(&self.sink);
        let written = match seal {
            Some((order, done)) => self.seal(&mut sink, &events, (order, done), scratch, disk),
            None => self.write_events(&mut sink, &events, scratch),
        };
        scratch.clear();
        // First the backlog, then the news of it: whoever waits for room looks when it is told.
        self.backlog.fetch_sub(bytes, Ordering::Relaxed);
        let end = sink.written;
        self.progress.send_if_modified(|progress| {
            let more = progress.written_bytes != end.bytes;
            progress.written_output = end.output;
            progress.written_input = end.input;
            progress.written_bytes = end.bytes;
            progress.written_events = end.events;
            more
        });
        if abandoned && matches!(sink.finish, Finish::Open) {
            sink.finish = Finish::Abandon;
            return Written::SyncNow;
        }
        written
    }

    fn write_events(&self, sink: &mut Sink, events: &[Event], scratch: &mut Vec<u8>) -> Written {
        if events.is_empty() || sink.untrusted {
            return Written::Nothing;
        }
        let Some(writer) = &mut sink.writer else { return Written::Nothing };
        if let Err(error) = writer.append(events, scratch) {
            self.fail(&error.to_string());
            return Written::Nothing;
        }
        sink.taken += events.len() as u64;
        match self.flush(sink, scratch) {
            Ok(()) if self.mode == Mode::Strict => Written::SyncNow,
            Ok(()) => match sink.dirty_since {
                Some(_) => Written::Nothing,
                None => Written::Dirty(*sink.dirty_since.insert(Instant::now())),
            },
            Err(error) => {
                self.fail(&explain("write to", &error));
                Written::Nothing
            }
        }
    }

    /// Writes the rest and the seal, if need be at the cost of the reserve.
    fn seal(
        &self,
        sink: &mut Sink,
        events: &[Event],
        (order, done): (SealOrder, oneshot::Sender<SealOutcome>),
        scratch: &mut Vec<u8>,
        disk: &Disk,
    ) -> Written {
        if sink.untrusted {
            let _ = done.send(Err(SealFailure::Untrusted(order)));
            return Written::Nothing;
        }
        let Some(mut writer) = sink.writer.take() else {
            let _ = done.send(Err(SealFailure::Failed(RecordingError::Sealed(self.session.clone()))));
            return Written::Nothing;
        };
        if let Err(error) = writer.append(events, scratch) {
            // The end is recorded even if the last events make no sense; the failure is told beside it.
            self.fail(&error.to_string());
        }
        let sealed = match writer.seal(order.at, order.reason, order.exit.clone(), scratch) {
            Ok(sealed) => sealed,
            Err(error) => {
                let _ = done.send(Err(SealFailure::Failed(error.into())));
                return Written::Nothing;
            }
        };
        sink.taken += events.len() as u64;
        let end = Extent { events: sink.taken, ..extent_of_sealed(&sealed) };
        let mut outcome = self.flush_to(sink, end, scratch);
        if outcome.as_ref().is_err_and(disk::is_full) && disk.release() {
            outcome = self.flush_to(sink, end, scratch);
        }
        match outcome {
            Ok(()) => {
                sink.finish = Finish::Seal(order, sealed, done);
                Written::SyncNow
            }
            Err(error) => {
                let why = self.fail(&explain("write to", &error));
                sink.finish = Finish::Abandon;
                let _ = done.send(Err(SealFailure::Failed(RecordingError::Failed(why))));
                Written::SyncNow
            }
        }
    }

    fn flush(&self, sink: &mut Sink, encoded: &mut Vec<u8>) -> io::Result<()> {
        let Some(position) = sink.writer.as_ref().map(Writer::position) else { return Ok(()) };
        let Some(end) = sink.writer.as_ref().map(extent_of) else { return Ok(()) };
        self.flush_to(sink, Extent { events: sink.taken, ..end }, encoded)?;
        lock(&self.index).note(&position);
        Ok(())
    }

    /// Writes encoded bytes, after those that were refused earlier. A refused write is repeated from its beginning.
    fn flush_to(&self, sink: &mut Sink, end: Extent, encoded: &mut Vec<u8>) -> io::Result<()> {
        if !sink.unwritten.is_empty() {
            sink.unwritten.append(encoded);
            std::mem::swap(&mut sink.unwritten, encoded);
        }
        if let Err(error) = sink.file.write_all_at(encoded, sink.written.bytes) {
            // Kept for the seal; appending ends now, so what is kept stays within the bound of what is pending.
            sink.unwritten = std::mem::take(encoded);
            return Err(error);
        }
        sink.unwritten = Vec::new();
        sink.written = end;
        Ok(())
    }

    /// Marks the log as queued for syncing. Returns whether it was not.
    pub(super) fn queue_sync(&self) -> bool {
        !self.sync_queued.swap(true, Ordering::SeqCst)
    }

    /// Makes what is written durable. Calls `forget` when the recording has ended, before anybody is told.
    pub(super) fn sync(&self, forget: impl FnOnce()) {
        self.sync_queued.store(false, Ordering::SeqCst);
        let (file, target, due) = {
            let mut sink = lock(&self.sink);
            sink.dirty_since = None;
            (sink.file.clone(), sink.written, sink.written != sink.durable && !sink.untrusted)
        };
        let outcome = if due { self.sync_file(&file) } else { Ok(()) };
        self.synced(target, outcome, forget);
    }

    /// Takes the outcome of a sync that began when the file went as far as `target`.
    fn synced(&self, target: Extent, outcome: io::Result<()>, forget: impl FnOnce()) {
        let mut sink = lock(&self.sink);
        match outcome {
            Ok(()) if !sink.untrusted => {
                sink.durable = target;
                self.progress.send_modify(|progress| {
                    progress.durable_output = target.output;
                    progress.durable_bytes = target.bytes;
                    progress.durable_events = target.events;
                });
            }
            Ok(()) => {}
            Err(error) => {
                sink.untrusted = true;
                self.fail(&explain("sync", &error));
            }
        }
        if sink.durable != sink.written && !sink.untrusted {
            return;
        }
        match std::mem::replace(&mut sink.finish, Finish::Open) {
            Finish::Open => {}
            Finish::Abandon => {
                forget();
                self.close();
            }
            Finish::Seal(order, _, done) if sink.untrusted => {
                let _ = done.send(Err(SealFailure::Untrusted(order)));
            }
            Finish::Seal(_, sealed, done) => {
                forget();
                self.close();
                let _ = done.send(Ok(self.sealed(&sealed)));
            }
        }
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        if self.failing_syncs.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        file.sync_data()
    }

    /// Seals the recording through a fresh descriptor, after the old one can no longer be believed: `rewrite` reads
    /// the file back and gives its writer; everything since the last believable sync is written again.
    pub(super) fn repair(
        &self,
        file: File,
        order: SealOrder,
        rewrite: impl FnOnce(&File, u64) -> Result<Repair, RecordingError>,
    ) -> Result<SealedRecording, RecordingError> {
        let mut sink = lock(&self.sink);
        let outcome = self.repair_file(&mut sink, &file, order, rewrite);
        drop(sink);
        self.close();
        outcome
    }

    fn repair_file(
        &self,
        sink: &mut Sink,
        file: &File,
        order: SealOrder,
        rewrite: impl FnOnce(&File, u64) -> Result<Repair, RecordingError>,
    ) -> Result<SealedRecording, RecordingError> {
        let (sealed, tail, at) = match rewrite(file, sink.durable.bytes)? {
            Repair::Sealed(sealed) => {
                let at = sealed.file_bytes;
                (sealed, Vec::new(), at)
            }
            Repair::Open(writer) => {
                let (at, mut tail) = (writer.file_bytes(), Vec::new());
                (writer.seal(order.at, order.reason, order.exit, &mut tail)?, tail, at)
            }
        };
        let write = || {
            file.write_all_at(&tail, at)?;
            file.set_len(at + tail.len() as u64)?;
            self.sync_file(file)
        };
        write().map_err(|error| RecordingError::Failed(self.fail(&explain("repair", &error))))?;
        let end = Extent { events: sink.taken, ..extent_of_sealed(&sealed) };
        (sink.written, sink.durable) = (end, end);
        self.progress.send_modify(|progress| {
            (progress.written_bytes, progress.durable_bytes) = (end.bytes, end.bytes);
            (progress.written_output, progress.durable_output) = (end.output, end.output);
            progress.written_input = end.input;
        });
        Ok(self.sealed(&sealed))
    }

    /// Lets nothing more be appended and says why; the first reason stands.
    pub(super) fn fail(&self, why: &str) -> Arc<str> {
        let why = lock(&self.pending).failed.get_or_insert_with(|| why.into()).clone();
        self.progress.send_if_modified(|progress| {
            let first = progress.failed.is_none();
            if first {
                tracing::error!(session = %self.session, "the recording failed: {why}");
                progress.failed = Some(why.clone());
            }
            first
        });
        why
    }

    fn close(&self) {
        self.progress.send_modify(|progress| progress.closed = true);
    }

    fn sealed(&self, sealed: &Sealed) -> SealedRecording {
        SealedRecording {
            hash: sealed.hash,
            records: sealed.records,
            bytes_out: sealed.tally.output_end() + sealed.tally.connection_bytes_out,
            bytes_in: sealed.tally.input_bytes + sealed.tally.connection_bytes_in,
            path: self.day.path(&self.session),
        }
    }
}

/// What reading a file back gave.
pub(super) enum Repair {
    /// It was sealed already; only the sync had failed.
    Sealed(Sealed),
    /// It goes on behind its last whole record.
    Open(Writer),
}

fn extent_of(writer: &Writer) -> Extent {
    let tally = writer.tally();
    Extent { bytes: writer.file_bytes(), output: tally.output_end(), input: tally.input_bytes, events: 0 }
}

fn extent_of_sealed(sealed: &Sealed) -> Extent {
    let tally = &sealed.tally;
    Extent { bytes: sealed.file_bytes, output: tally.output_end(), input: tally.input_bytes, events: 0 }
}

/// Returns what an event takes in memory.
fn weight(event: &Event) -> usize {
    let data = match &event.kind {
        EventKind::Output { bytes, .. } | EventKind::Input { data: InputData::Bytes(bytes), .. } => bytes.len(),
        EventKind::Marker { text } => text.len(),
        EventKind::Connection(connection) => connection.weight(),
        EventKind::Statement(statement) => size_of_val(&**statement) + statement.weight(),
        EventKind::StatementEnd(end) => size_of_val(&**end) + end.weight(),
        EventKind::File(file) => size_of_val(&**file) + file.weight(),
        EventKind::FileChange(change) => size_of_val(&**change) + change.weight(),
        EventKind::Start(_) | EventKind::Input { .. } | EventKind::Resize(_) | EventKind::End { .. } => 0,
    };
    EVENT_BYTES + data
}

fn explain(what: &str, error: &io::Error) -> String {
    if disk::is_full(error) {
        format!("the disk is full ({error}); free space in the data directory")
    } else {
        format!("failed to {what} its file: {error}; check the disk of the data directory")
    }
}
