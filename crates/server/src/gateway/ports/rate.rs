//! How fast a forward carries (T-92): a bucket of bytes that fills at the rate which the settings allow. All connections of a
//! session take from it, both ways.
//!
//! A connection may take more than is there, once; then it waits until that is made up for. So no read has to be
//! cut short, and what was carried in any time is at most the bucket, the rate times the time, and one read of each
//! direction.

use std::future::Future as _;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::lock;

/// So much time's worth of bytes is in a full bucket: a page, a query or a login does not wait, what goes on does.
pub(super) const BURST: Duration = Duration::from_secs(10);

/// The bucket of a session.
pub(super) struct Bucket {
    rate: NonZeroU64,
    /// When it will be full if nothing is taken: one that is full was so before now, one that is empty
    /// will be [`BURST`] from now.
    full_at: Mutex<Instant>,
    has_run_dry: AtomicBool,
}

impl Bucket {
    /// Begins full. `rate` is in bytes a second.
    pub(super) fn new(rate: NonZeroU64) -> Self {
        Self { rate, full_at: Mutex::new(Instant::now()), has_run_dry: AtomicBool::new(false) }
    }

    /// Returns the rate in bytes a second.
    pub(super) fn rate(&self) -> NonZeroU64 {
        self.rate
    }

    /// Takes what was carried.
    fn take(&self, bytes: usize, now: Instant) {
        // At least a thousand bytes a second: 584 years' worth of them fit.
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.rate.get()));
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut full_at = lock(&self.full_at);
        *full_at = full_at.max(now) + time;
    }

    /// Returns when more may be carried; `None`: at once.
    fn wait(&self, now: Instant) -> Option<Instant> {
        let full_at = *lock(&self.full_at);
        // It is empty for as long as it needs more than its whole size to be full.
        (full_at > now + BURST).then(|| full_at - BURST)
    }
}

/// What a connection has of its session's bucket.
pub(super) struct Paced {
    bucket: Arc<Bucket>,
    /// For each direction, what it waits for.
    waits: [Option<Pin<Box<Sleep>>>; 2],
}

impl Paced {
    /// Takes part in the bucket.
    pub(super) fn of(bucket: Arc<Bucket>) -> Self {
        Self { bucket, waits: [None, None] }
    }

    /// Waits until a direction may carry more. Returns whether it is the first of the session that has to wait.
    pub(super) fn poll(&mut self, direction: usize, cx: &mut Context<'_>, dry: impl FnOnce()) -> Poll<()> {
        let Some(wait) = self.waits.get_mut(direction) else { return Poll::Ready(()) };
        let mut dry = Some(dry);
        loop {
            if let Some(sleep) = wait {
                ready!(sleep.as_mut().poll(cx));
                *wait = None;
            }
            // Others may have taken what this one waited for.
            let Some(until) = self.bucket.wait(Instant::now()) else { return Poll::Ready(()) };
            if !self.bucket.has_run_dry.swap(true, Ordering::Relaxed)
                && let Some(dry) = dry.take()
            {
                dry();
            }
            *wait = Some(Box::pin(sleep_until(until)));
        }
    }

    /// Takes what was carried.
    pub(super) fn took(&self, bytes: usize) {
        self.bucket.take(bytes, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: NonZeroU64 = NonZeroU64::new(1000).unwrap();

    #[test]
    fn a_bucket_lets_its_size_pass_and_then_its_rate() {
        let (bucket, begun) = (Bucket::new(RATE), Instant::now());
        let at = |millis: u64| begun + Duration::from_millis(millis);
        bucket.take(10_000, at(0));
        assert_eq!(bucket.wait(at(0)), None, "to the last byte");
        bucket.take(1, at(0));
        assert_eq!(bucket.wait(at(0)), Some(at(1)));
        bucket.take(499, at(0));
        assert_eq!(bucket.wait(at(499)), Some(at(500)));
        assert_eq!(bucket.wait(at(500)), None);
        // Full again after as long as it is large, and no fuller than that.
        let later = 500 + 10_000 + 70_000;
        bucket.take(10_000, at(later));
        assert_eq!(bucket.wait(at(later)), None);
        bucket.take(2_000, at(later));
        assert_eq!(bucket.wait(at(later)), Some(at(later + 2_000)));
    }

    #[test]
    fn in_any_time_it_lets_pass_its_size_and_the_rate_of_that_time() {
        // Pieces of any size, in a time that passes only while somebody waits for it.
        for piece in [1, 7, 512, 5_000, 20_000] {
            let (bucket, begun) = (Bucket::new(RATE), Instant::now());
            let (mut now, mut carried) = (begun, 0);
            while now < begun + Duration::from_secs(3600) {
                match bucket.wait(now) {
                    Some(until) => now = until,
                    None => {
                        bucket.take(piece, now);
                        carried += piece;
                    }
                }
            }
            let most = 1000 * (BURST.as_secs() as usize + 3600);
            assert!((most..=most + 2 * piece).contains(&carried), "{carried} of {most} by pieces of {piece}");
        }
    }

    #[test]
    fn nothing_overflows() {
        for rate in [1, 1000, u64::MAX] {
            let (bucket, now) = (Bucket::new(NonZeroU64::new(rate).unwrap()), Instant::now());
            for _ in 0..100 {
                bucket.take(usize::from(u16::MAX), now);
            }
            assert_eq!(bucket.wait(now).is_some(), rate < 655_350);
        }
    }
}
