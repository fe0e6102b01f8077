//! A waker for a task that wakes itself while it runs.
//!
//! The multiplexer's list of streams (`FuturesUnordered`) asks to be polled again whenever it has polled all of them once,
//! which with one stream is after every frame. To the runtime that is a task which yields: it goes to the end of the
//! queue and another thread is woken to take it, for every key that somebody types. So a wake that comes while the task
//! runs only makes it run on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// The task runs. If it does not, it waits.
const RUNNING: u8 = 1;
/// The task was woken since it was polled last.
const WOKEN: u8 = 2;
/// How often a task runs on before others have their turn.
const TURNS: usize = 2;

/// See the head of this file.
pub(crate) struct OwnWake {
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Always written, so that the poll that clears it sees what the wake is for.
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == 0 {
            self.task.wake();
        }
    }
}

impl OwnWake {
    /// Makes the waker of one task.
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared { state: AtomicU8::new(0), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// Polls with this waker, again if it was woken meanwhile.
    pub(crate) fn poll<T>(&self, cx: &Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let state = &self.shared.state;
        // First the waker: whoever wakes a waiting task needs it.
        self.shared.task.register(cx.waker());
        for _ in 0..TURNS {
            state.swap(RUNNING, Ordering::AcqRel);
            if let Poll::Ready(value) = poll(&mut Context::from_waker(&self.waker)) {
                state.swap(0, Ordering::AcqRel);
                return Poll::Ready(value);
            }
            if state.compare_exchange(RUNNING, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        // There is always more to do: after the others.
        state.swap(0, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls with a task that wakes itself the first `wakes` times; returns how often it ran, and the task's wakes.
    fn poll(own: &OwnWake, wakes: usize) -> (usize, Arc<Count>, Option<Waker>) {
        let count = Arc::new(Count::default());
        let (waker, mut ran, mut kept) = (Waker::from(count.clone()), 0, None);
        let polled = own.poll(&Context::from_waker(&waker), |cx| {
            ran += 1;
            kept = Some(cx.waker().clone());
            if ran <= wakes {
                cx.waker().wake_by_ref();
                cx.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        (ran, count, kept)
    }

    #[test]
    fn a_task_that_wakes_itself_runs_on_and_is_not_woken() {
        let own = OwnWake::new();
        let (ran, count, _) = poll(&own, 1);
        assert_eq!((ran, count.0.load(Ordering::SeqCst)), (2, 0));
    }

    #[test]
    fn a_task_that_waits_is_woken_once() {
        let own = OwnWake::new();
        let (ran, count, kept) = poll(&own, 0);
        kept.as_ref().unwrap().wake_by_ref();
        kept.unwrap().wake();
        assert_eq!((ran, count.0.load(Ordering::SeqCst)), (1, 1));
        let (ran, again, _) = poll(&own, 0);
        assert_eq!((ran, again.0.load(Ordering::SeqCst)), (1, 0), "it can be polled again");
    }

    #[test]
    fn a_task_that_always_has_more_to_do_lets_others_go_first() {
        let own = OwnWake::new();
        let (ran, count, _) = poll(&own, usize::MAX);
        assert_eq!((ran, count.0.load(Ordering::SeqCst)), (TURNS, 1));
    }

    #[test]
    fn no_wake_from_another_thread_is_lost() {
        use std::sync::atomic::AtomicBool;
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        const ROUNDS: usize = 1 << 14;
        let own = OwnWake::new();
        let given = Arc::new((AtomicUsize::new(0), AtomicWaker::new(), AtomicBool::new(false)));
        let giver = std::thread::spawn({
            let given = given.clone();
            move || {
                for _ in 0..ROUNDS {
                    // Each waits for its being taken, so that one lost wake stops both.
                    given.0.fetch_add(1, Ordering::SeqCst);
                    given.1.wake();
                    while given.0.load(Ordering::SeqCst) > 0 && !given.2.load(Ordering::SeqCst) {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let (mut taken, begun) = (0, std::time::Instant::now());
        while taken < ROUNDS && begun.elapsed().as_secs() < 60 {
            let polled = own.poll(&Context::from_waker(&waker), |cx| {
                given.1.register(cx.waker());
                match given.0.swap(0, Ordering::SeqCst) {
                    0 => Poll::Pending,
                    count => Poll::Ready(count),
                }
            });
            match polled {
                Poll::Ready(count) => taken += count,
                Poll::Pending => std::thread::park_timeout(std::time::Duration::from_secs(60)),
            }
        }
        given.2.store(true, Ordering::SeqCst);
        giver.join().unwrap();
        assert_eq!(taken, ROUNDS);
    }
}
