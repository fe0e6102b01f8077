//! The one thread that writes the trail: records that wait together become durable by one sync (group commit), and
//! checkpoints are signed at least every minute or thousand events (T-67).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use munjigi_core::audit::{AuditRecord, Chain, Link};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::segment::{self, Index, Walked, walk};
use super::trail::{Trail, open_checkpoints};
use super::{AuditError, Receipt, Settings};
use crate::directory::Access;
use crate::{clock, disk, lock};

/// A segment that has reached this length is followed by a new one; tests see many.
const SEGMENT_BYTES: u64 = if cfg!(test) { 200 * 1024 } else { 64 * 1024 * 1024 };
/// A checkpoint is signed at least so often, also when nothing happens.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// And after so many events.
const CHECKPOINT_EVENTS: u64 = 1000;
/// After a failed sync so much of the file's end is written again: more than what one sync can have covered.
const REWRITTEN_BYTES: u64 = 1024 * 1024;

/// How an order to append ends.
type Stored = Result<Vec<Receipt>, AuditError>;

/// Records that are stored together.
pub(super) struct Group {
    pub records: Vec<AuditRecord>,
    /// Told when they are durable.
    pub done: oneshot::Sender<Stored>,
    /// Their room in the queue, given back when they leave it.
    pub room: OwnedSemaphorePermit,
}

/// What waits for the writer; bounded by the room that each group holds.
#[derive(Default)]
pub(super) struct Queue {
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    /// Lets a test break the disk: the next so many syncs fail.
    #[cfg(test)]
    pub failing_syncs: std::sync::atomic::AtomicUsize,
}

#[derive(Default)]
struct Inbox {
    groups: Vec<Group>,
    stopping: bool,
}

impl Queue {
    pub(super) fn send(&self, group: Group) -> Result<(), AuditError> {
        let mut inbox = lock(&self.inbox);
        if inbox.stopping {
            return Err(AuditError::Closed);
        }
        inbox.groups.push(group);
        self.arrived.notify_one();
        Ok(())
    }

    /// Waits for groups, at most until `deadline`. Returns them, and whether no more will come.
    fn receive(&self, deadline: Instant) -> (Vec<Group>, bool) {
        let mut inbox = lock(&self.inbox);
        while inbox.groups.is_empty() && !inbox.stopping {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inbox = self.arrived.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (std::mem::take(&mut inbox.groups), inbox.stopping)
    }
}

/// Where the writer begins.
pub(super) struct State {
    pub chain: Chain,
    pub file: File,
    pub number: u32,
    pub end: u64,
}

/// The writer thread; ended when dropped.
pub(super) struct Threads {
    trail: Arc<Trail>,
    writer: Option<JoinHandle<()>>,
}

impl Threads {
    /// Ends the writer after it has written everything and signed a last checkpoint. Blocks.
    pub(super) fn stop(&mut self) {
        lock(&self.trail.queue.inbox).stopping = true;
        self.trail.queue.arrived.notify_one();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the audit trail's thread panicked");
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the writer.
pub(super) fn start(trail: Arc<Trail>, state: State, settings: Settings) -> Result<Threads, AuditError> {
    let checkpoints = Checkpoints::open(&trail)?;
    let attested = checkpoints.newest.map_or(0, |(head, _)| head.sequence);
    let writer = Writer {
        index: Index::clone(&trail.last_index()),
        trail: trail.clone(),
        stored: state.chain.last(),
        state,
        checkpoints,
        settings,
        attested,
        untrusted: false,
    };
    let thread = std::thread::Builder::new()
        .name("audit".to_owned())
        .spawn(move || writer.run())
        .map_err(AuditError::io("start the trail's thread"))?;
    Ok(Threads { trail, writer: Some(thread) })
}

struct Writer {
    trail: Arc<Trail>,
    /// Its chain goes ahead of the file while a batch is being written.
    state: State,
    /// The newest durable event.
    stored: Link,
    /// Of the segment that is written.
    index: Index,
    checkpoints: Checkpoints,
    settings: Settings,
    /// How many events the newest checkpoint covers.
    attested: u64,
    /// A sync failed: the descriptor is not believed again.
    untrusted: bool,
}

impl Writer {
    fn run(mut self) {
        let mut due = Instant::now() + CHECKPOINT_EVERY;
        loop {
            let (groups, stopping) = self.trail.queue.receive(due);
            let idle = groups.is_empty();
            if !idle {
                self.store(groups);
            }
            let new_events = self.state.chain.last().sequence.saturating_sub(self.attested);
            let ending = stopping && idle;
            if Instant::now() >= due || new_events >= CHECKPOINT_EVENTS || (ending && new_events > 0) {
                self.checkpoint();
                due = Instant::now() + CHECKPOINT_EVERY;
            }
            if ending {
                return;
            }
        }
    }

    /// Stores groups by one write and one sync, and answers each.
    fn store(&mut self, groups: Vec<Group>) {
        let before = self.state.chain.clone();
        let mut bytes = Vec::new();
        let mut lines: Vec<(Link, munjigi_core::time::Timestamp, u64)> = Vec::new();
        let mut answers = Vec::new();
        for Group { records, done, room } in groups {
            match self.chain(&records, &mut bytes, &mut lines) {
                Ok(receipts) => answers.push((receipts, done, room)),
                // Whoever asked may be gone.
                Err(error) => drop(done.send(Err(error))),
            }
        }
        match self.write(&bytes) {
            Ok(()) => {
                for (link, time, length) in lines {
                    self.index.note(link.sequence, time, length);
                }
                self.state.end += bytes.len() as u64;
                self.publish();
                for (receipts, done, _room) in answers {
                    let _ = done.send(Ok(receipts));
                }
            }
            Err(error) => {
                self.state.chain = before;
                for (_, done, _room) in answers {
                    let _ = done.send(Err(error.clone()));
                }
            }
        }
    }

    /// Chains the records of a group, all or none.
    fn chain(
        &mut self,
        records: &[AuditRecord],
        bytes: &mut Vec<u8>,
        lines: &mut Vec<(Link, munjigi_core::time::Timestamp, u64)>,
    ) -> Result<Vec<Receipt>, AuditError> {
        let (chain, length, count) = (self.state.chain.clone(), bytes.len(), lines.len());
        let mut receipts = Vec::with_capacity(records.len());
        for record in records {
            let start = bytes.len();
            match self.state.chain.append(record, bytes) {
                Ok(link) => {
                    lines.push((link, record.event_time, (bytes.len() - start) as u64));
                    receipts.push(link.into());
                }
                Err(error) => {
                    self.state.chain = chain;
                    bytes.truncate(length);
                    lines.truncate(count);
                    return Err(AuditError::Record(error.to_string().into()));
                }
            }
        }
        Ok(receipts)
    }

    /// Writes at the end and syncs. On an error nothing of it is left in the file, as far as the file system lets us.
    fn write(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        if self.untrusted {
            self.renew()?;
        }
        let mut written = self.state.file.write_all_at(bytes, self.state.end);
        if written.as_ref().is_err_and(disk::is_full) && self.trail.disk.release() {
            written = self.state.file.write_all_at(bytes, self.state.end);
        }
        if let Err(error) = written {
            // A part of a line at the end would be cut at the next start anyway.
            let _ = self.state.file.set_len(self.state.end);
            return Err(AuditError::io("write to the trail")(error));
        }
        self.sync().map_err(|error| {
            self.untrusted = true;
            tracing::error!("the audit trail could not be made durable: {error}; refusing until it is written again");
            AuditError::io("make the trail durable")(error)
        })
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering;
            let failing = &self.trail.queue.failing_syncs;
            if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        self.state.file.sync_data()
    }

    /// Goes on through a fresh descriptor after a failed sync: everything acknowledged must still be there, what was
    /// not is cut off, and the end is written again, because the system may believe it written.
    fn renew(&mut self) -> Result<(), AuditError> {
        let name = segment::name(self.state.number);
        let failed = AuditError::io("write the trail's end again");
        let file = match self.trail.directory.open_file(&name, Access::Write) {
            Ok(file) => file,
            Err(error) => return Err(failed(error)),
        };
        let mut last = None;
        let walked = walk(&file, 0, self.state.end, |line, _| {
            last = Some(line.link);
            true
        });
        let whole = matches!(walked, Ok(Walked::End { torn_bytes: 0 })) && last.is_none_or(|link| link == self.stored);
        if !whole {
            return Err(AuditError::Damaged(format!("{name} no longer holds what was written to it").into()));
        }
        let again = || {
            file.set_len(self.state.end)?;
            disk::rewrite(&file, self.state.end.saturating_sub(REWRITTEN_BYTES), self.state.end)
        };
        again().map_err(failed)?;
        self.state.file = file;
        self.sync().map_err(AuditError::io("make the trail durable"))?;
        self.untrusted = false;
        tracing::warn!("the audit trail is durable again");
        Ok(())
    }

    /// Lets readers see what is durable, and begins a new segment if this one is full.
    fn publish(&mut self) {
        self.stored = self.state.chain.last();
        let last = self.stored.sequence;
        let next = if self.state.end >= SEGMENT_BYTES { self.rotate() } else { None };
        self.trail.publish(Arc::new(self.index.clone()), last, next);
        if next.is_some() {
            self.index = Index::default();
        }
    }

    /// Begins the next segment. If that fails, this one grows on and the next batch tries again.
    fn rotate(&mut self) -> Option<u32> {
        let number = self.state.number + 1;
        let begun = self
            .trail
            .directory
            .create_file(&segment::name(number))
            .and_then(|file| self.trail.directory.sync().map(|()| file));
        match begun {
            Ok(file) => {
                self.state.file = file;
                self.state.number = number;
                self.state.end = 0;
                Some(number)
            }
            Err(error) => {
                tracing::error!("failed to begin the next file of the audit trail: {error}");
                None
            }
        }
    }

    fn checkpoint(&mut self) {
        let (key, now) = (&self.settings.key, clock::now());
        let checkpoint = self.state.chain.checkpoint(now, key);
        if let Err(error) = self.checkpoints.keep(checkpoint.head, &checkpoint.to_json()) {
            tracing::error!("failed to keep a checkpoint of the audit trail: {error}");
            return;
        }
        self.attested = checkpoint.head.sequence;
        (self.settings.on_checkpoint)(&checkpoint);
        self.trail.remember(checkpoint);
        self.trail.disk.restock();
    }
}

/// The file of checkpoints: a line for each state of the trail; while nothing happens the last line is renewed.
struct Checkpoints {
    file: File,
    end: u64,
    /// The head that the last line is about, and where that line begins.
    newest: Option<(Link, u64)>,
}

impl Checkpoints {
    fn open(trail: &Trail) -> Result<Self, AuditError> {
        let file = open_checkpoints(&trail.directory).map_err(AuditError::io("open the checkpoints"))?;
        let kept = super::verify::checkpoints(&trail.directory)?;
        // An unfinished last line is overwritten: the next one begins behind the last whole one.
        let mut lines = kept.iter().map(|checkpoint| checkpoint.to_json().len() as u64 + 1);
        let end: u64 = lines.clone().sum();
        let newest = kept.last().zip(lines.next_back()).map(|(checkpoint, length)| (checkpoint.head, end - length));
        Ok(Self { file, end, newest })
    }

    fn keep(&mut self, head: Link, json: &str) -> io::Result<()> {
        let at = self.newest.filter(|(newest, _)| *newest == head).map_or(self.end, |(_, begin)| begin);
        let line = format!("{json}\n");
        self.file.write_all_at(line.as_bytes(), at)?;
        self.file.set_len(at + line.len() as u64)?;
        self.file.sync_data()?;
        self.end = at + line.len() as u64;
        self.newest = Some((head, at));
        Ok(())
    }
}
