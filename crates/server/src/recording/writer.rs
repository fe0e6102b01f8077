//! The two threads that all recordings of a server share: one encrypts and writes, one makes durable.
//!
//! A keystroke's echo costs no wake-up: while there is work the writer comes by on a short beat and takes what has
//! gathered, and only a writer that has gone to sleep is woken. Large or strict appends call it at once. Each log is in
//! a queue at most once, so both queues are bounded by the number of sessions.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use munjigi_core::id::SessionId;

use super::RecordingError;
use super::log::{Log, Written};
use crate::disk::Disk;
use crate::lock;

/// The writer's beat: what is appended is written within about this time.
const BEAT: Duration = Duration::from_millis(10);
/// After this long without work the writer sleeps until it is woken.
const LINGER: Duration = Duration::from_millis(500);
/// Written bytes are made durable within this time, half of what T-61 allows.
const SYNC_WITHIN: Duration = Duration::from_secs(1);
/// From so many files on, one `syncfs` replaces their syncs.
const MANY_FILES: usize = 64;
/// What the writer's buffer may keep between two rounds.
const KEPT_BUFFER_BYTES: usize = 256 * 1024;

/// The live recordings by session.
pub(super) type Live = Mutex<HashMap<SessionId, Arc<Log>>>;

/// The writer's queue.
struct Queue {
    ready: Mutex<Ready>,
    urgent: AtomicBool,
    asleep: AtomicBool,
    stopping: AtomicBool,
}

/// Logs with something to write, each once.
#[derive(Default)]
struct Ready {
    logs: Vec<Arc<Log>>,
    /// The writer has ended and takes nothing more.
    closed: bool,
}

/// The way to the writer thread, for recorders.
pub(super) struct Mailbox {
    queue: Arc<Queue>,
    writer: Thread,
}

impl Mailbox {
    /// Queues a log that is not queued yet, or only calls the writer.
    pub(super) fn send(&self, log: Option<&Arc<Log>>, urgent: bool) -> Result<(), RecordingError> {
        if let Some(log) = log {
            let mut ready = lock(&self.queue.ready);
            if ready.closed {
                return Err(RecordingError::Stopped);
            }
            ready.logs.push(log.clone());
        }
        let call = urgent && !self.queue.urgent.swap(true, Ordering::SeqCst);
        if call || (log.is_some() && self.queue.asleep.load(Ordering::SeqCst)) {
            self.writer.unpark();
        }
        Ok(())
    }
}

/// Both threads; they write and sync everything appended before they end.
pub(super) struct Threads {
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
}

/// Starts both threads.
pub(super) fn start(live: Arc<Live>, disk: Arc<Disk>) -> std::io::Result<(Threads, Mailbox)> {
    let queue = Arc::new(Queue {
        ready: Mutex::default(),
        urgent: AtomicBool::new(false),
        asleep: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
    });
    let syncer = Syncer::start(live, disk.clone())?;
    let writer = thread::Builder::new().name("recorder".to_owned()).spawn({
        let queue = queue.clone();
        move || WriterLoop { queue, syncer, disk, dirty: VecDeque::new(), last_work: Instant::now() }.run()
    })?;
    let mailbox = Mailbox { queue: queue.clone(), writer: writer.thread().clone() };
    Ok((Threads { queue, writer: Some(writer) }, mailbox))
}

impl Threads {
    /// Ends both threads after they have written and synced everything. Blocks.
    pub(super) fn stop(&mut self) {
        self.queue.stopping.store(true, Ordering::SeqCst);
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            if writer.join().is_err() {
                tracing::error!("the recorder thread panicked");
            }
        }
    }
}

struct WriterLoop {
    queue: Arc<Queue>,
    syncer: Syncer,
    disk: Arc<Disk>,
    /// Written and not yet synced, oldest first.
    dirty: VecDeque<(Instant, Arc<Log>)>,
    last_work: Instant,
}

impl WriterLoop {
    fn run(mut self) {
        let mut scratch = Vec::new();
        loop {
            let stopping = self.queue.stopping.load(Ordering::SeqCst);
            let ready = {
                let mut ready = lock(&self.queue.ready);
                ready.closed = stopping && ready.logs.is_empty();
                if ready.closed {
                    break;
                }
                std::mem::take(&mut ready.logs)
            };
            if !ready.is_empty() {
                self.last_work = Instant::now();
            }
            for log in ready {
                match log.write(&mut scratch, &self.disk) {
                    Written::Nothing => {}
                    Written::Dirty(since) => self.dirty.push_back((since, log)),
                    Written::SyncNow => self.syncer.send(log),
                }
            }
            scratch.shrink_to(KEPT_BUFFER_BYTES);
            self.send_dirty(if stopping { Duration::ZERO } else { SYNC_WITHIN });
            if !stopping {
                self.wait();
            }
        }
        self.send_dirty(Duration::ZERO);
        self.syncer.stop();
    }

    /// Passes on what has been dirty for so long.
    fn send_dirty(&mut self, age: Duration) {
        while let Some((_, log)) = self.dirty.pop_front_if(|(since, _)| since.elapsed() >= age) {
            self.syncer.send(log);
        }
    }

    /// Waits for work, or until something is to be synced; then lets more gather, unless it is urgent.
    fn wait(&self) {
        if self.last_work.elapsed() >= LINGER {
            self.queue.asleep.store(true, Ordering::SeqCst);
            while self.nothing_to_do() {
                match self.dirty.front() {
                    Some((since, _)) => thread::park_timeout(SYNC_WITHIN.saturating_sub(since.elapsed())),
                    None => thread::park(),
                }
            }
            self.queue.asleep.store(false, Ordering::SeqCst);
        }
        if !self.queue.urgent.swap(false, Ordering::SeqCst) && !self.queue.stopping.load(Ordering::SeqCst) {
            thread::park_timeout(BEAT);
            self.queue.urgent.store(false, Ordering::SeqCst);
        }
    }

    fn nothing_to_do(&self) -> bool {
        !self.queue.urgent.load(Ordering::SeqCst)
            && !self.queue.stopping.load(Ordering::SeqCst)
            && self.dirty.front().is_none_or(|(since, _)| since.elapsed() < SYNC_WITHIN)
            && lock(&self.queue.ready).logs.is_empty()
    }
}

/// The thread that makes files durable, beside the writer: a slow disk must not keep others from being written.
struct Syncer {
    inbox: Arc<(Mutex<Inbox>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Inbox {
    logs: Vec<Arc<Log>>,
    stopping: bool,
}

impl Syncer {
    fn start(live: Arc<Live>, disk: Arc<Disk>) -> std::io::Result<Self> {
        let inbox: Arc<(Mutex<Inbox>, Condvar)> = Arc::default();
        let thread = thread::Builder::new().name("recorder-sync".to_owned()).spawn({
            let inbox = inbox.clone();
            move || sync_all(&inbox, &live, &disk)
        })?;
        Ok(Self { inbox, thread: Some(thread) })
    }

    fn send(&self, log: Arc<Log>) {
        if log.queue_sync() {
            lock(&self.inbox.0).logs.push(log);
            self.inbox.1.notify_one();
        }
    }

    fn stop(mut self) {
        lock(&self.inbox.0).stopping = true;
        self.inbox.1.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the recorder's sync thread panicked");
        }
    }
}

fn sync_all(inbox: &(Mutex<Inbox>, Condvar), live: &Live, disk: &Disk) {
    loop {
        let logs = {
            let mut waiting = lock(&inbox.0);
            while waiting.logs.is_empty() {
                if waiting.stopping {
                    return;
                }
                waiting = inbox.1.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::take(&mut waiting.logs)
        };
        if logs.len() >= MANY_FILES {
            // One pass over the file system first: the syncs that follow find nothing left to wait for. Its error is
            // not needed, each file's own sync tells.
            let _ = nix::unistd::syncfs(disk.file());
        }
        for log in logs {
            log.sync(|| forget(live, &log));
        }
    }
}

/// Takes an ended log out of the live ones, unless another one of the same session has taken its place.
pub(super) fn forget(live: &Live, log: &Arc<Log>) {
    let mut live = lock(live);
    if live.get(&log.session).is_some_and(|known| Arc::ptr_eq(known, log)) {
        live.remove(&log.session);
    }
}
