//! Threads on which bulk is carried, apart from those that serve everything else: what somebody types waits behind no
//! turn of bulk, neither in a queue of ours nor in the kernel's, which lets a thread that mostly sleeps run at once.
//!
//! A thread is started when the first stream comes to it, so that who carries no bulk has none.

use std::future::Future;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// See the head of this file. Dropping it ends the threads and whatever they carry.
#[derive(Debug)]
pub struct BulkThreads {
    threads: Box<[BulkThread]>,
    prepare: fn(),
    stop: CancellationToken,
    _stops: DropGuard,
}

#[derive(Debug, Default)]
struct BulkThread {
    /// `None`: it could not be started.
    runtime: OnceLock<Option<Handle>>,
    /// Pieces of work that it has.
    live: AtomicUsize,
}

/// Ends the work when whoever waits for it is gone.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a piece of work for as long as it lives.
struct Live<'a>(&'a AtomicUsize);

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl BulkThreads {
    /// Allows so many threads, at least one. Each calls `prepare` first.
    pub fn new(count: usize, prepare: fn()) -> Self {
        let stop = CancellationToken::new();
        let threads = (0..count.max(1)).map(|_| BulkThread::default()).collect();
        Self { threads, prepare, _stops: stop.clone().drop_guard(), stop }
    }

    /// Does the work on the thread that has least to do, or here if no thread can be started. Dropping the future ends
    /// the work; a panic in it is one here.
    pub async fn run<F>(&self, work: F) -> F::Output
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let least = self.threads.iter().min_by_key(|thread| thread.live.load(Ordering::Relaxed));
        let started = least.and_then(|thread| Some((thread, self.runtime(thread)?)));
        let Some((thread, runtime)) = started else { return work.await };
        thread.live.fetch_add(1, Ordering::Relaxed);
        let _live = Live(&thread.live);
        let mut task = AbortOnDrop(runtime.spawn(work));
        match (&mut task.0).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The threads end with the program: so does this.
                Err(_) => std::future::pending().await,
            },
        }
    }

    fn runtime<'a>(&'a self, thread: &'a BulkThread) -> Option<&'a Handle> {
        let start = || match self.start() {
            Ok(handle) => Some(handle),
            Err(error) => {
                tracing::warn!(%error, "no thread for bulk could be started; it is carried beside everything else");
                None
            }
        };
        thread.runtime.get_or_init(start).as_ref()
    }

    fn start(&self) -> io::Result<Handle> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, prepare, stop) = (runtime.handle().clone(), self.prepare, self.stop.clone());
        std::thread::Builder::new().name("bulk".to_owned()).spawn(move || {
            prepare();
            runtime.block_on(stop.cancelled());
        })?;
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_spread_over_the_threads() {
        let bulk = BulkThreads::new(2, || {});
        let id = || async { thread::current().id() };
        let (one, two) = tokio::join!(
            bulk.run(async {
                tokio::task::yield_now().await;
                thread::current().id()
            }),
            bulk.run(id())
        );
        assert!(one != two && one != thread::current().id() && two != thread::current().id());
        assert!([one, two].contains(&bulk.run(id()).await));
        assert!(bulk.threads.iter().all(|thread| thread.live.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn work_ends_with_whoever_waits_for_it_and_with_the_threads() {
        let dropped = |kept: mpsc::Receiver<()>| {
            // The sender is in the work: the receiver notices when that is gone.
            kept.recv_timeout(std::time::Duration::from_secs(60)).unwrap_err() == mpsc::RecvTimeoutError::Disconnected
        };
        let held = |sender: mpsc::SyncSender<()>| async move {
            std::future::pending::<()>().await;
            drop(sender);
        };
        let bulk = Arc::new(BulkThreads::new(1, || {}));
        let (sender, kept) = mpsc::sync_channel(1);
        let work = held(sender);
        let waiting = tokio::spawn({
            let bulk = bulk.clone();
            async move { bulk.run(work).await }
        });
        tokio::task::yield_now().await;
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(dropped(kept));

        let (sender, kept) = mpsc::sync_channel(1);
        let handle = bulk.runtime(&bulk.threads[0]).unwrap().clone();
        let _detached = handle.spawn(held(sender));
        drop(bulk);
        assert!(dropped(kept));
    }

    #[tokio::test]
    async fn a_panic_is_the_panic_of_who_waits() {
        let bulk = Arc::new(BulkThreads::new(1, || {}));
        let waiting = tokio::spawn({
            let bulk = bulk.clone();
            async move { bulk.run(async { panic!("broken") }).await }
        });
        assert!(waiting.await.unwrap_err().is_panic());
        assert_eq!(bulk.run(async { 7 }).await, 7, "the thread goes on");
    }
}
