//! How long to wait before dialling again: exponential with full jitter, at most 30 s.
//!
//! Full jitter spreads ten thousand agents that lost their server in the same second evenly.

use std::time::Duration;

/// The first ceiling; it doubles with each failure.
const FIRST: Duration = Duration::from_secs(1);
/// The highest ceiling.
const LONGEST: Duration = Duration::from_secs(30);
/// A connection that lasted this long was good: the next failure starts from the beginning.
const GOOD_SPELL: Duration = Duration::from_secs(60);

/// The state between attempts.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Begins without failures.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a failure and returns how long to wait: evenly random between nothing and the ceiling.
    pub fn after_failure(&mut self) -> Duration {
        self.after_failure_with(rand::random())
    }

    /// As [`Backoff::after_failure`]; `random` in 0 to 1 is the share of the ceiling to wait.
    pub fn after_failure_with(&mut self, random: f64) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// Takes note of how long a connection lasted; a good spell (60 s or more) forgets earlier failures.
    pub fn after_connection(&mut self, lasted: Duration) {
        if lasted >= GOOD_SPELL {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_thirty_seconds() {
        let mut backoff = Backoff::new();
        let ceilings: Vec<_> = (0..8).map(|_| backoff.after_failure_with(1.0).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 30, 30, 30]);
        for _ in 0..100 {
            assert!(backoff.after_failure() <= LONGEST);
        }
    }

    #[test]
    fn the_wait_is_the_random_share_of_the_ceiling() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.after_failure_with(0.0), Duration::ZERO);
        assert_eq!(backoff.after_failure_with(0.5), Duration::from_secs(1));
        assert_eq!(backoff.after_failure_with(f64::NAN.max(7.0)), Duration::from_secs(4));
    }

    #[test]
    fn only_a_good_spell_forgets_failures() {
        let mut backoff = Backoff::new();
        backoff.after_failure();
        backoff.after_failure();
        backoff.after_connection(Duration::from_secs(59));
        assert_eq!(backoff.after_failure_with(1.0), Duration::from_secs(4));
        backoff.after_connection(Duration::from_secs(60));
        assert_eq!(backoff.after_failure_with(1.0), Duration::from_secs(1));
    }
}
