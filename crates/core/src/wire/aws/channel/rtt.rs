//! Round-trip time as both programs of AWS estimate it, and the time after which a message counts as overdue.

/// Smallest deviation that counts, in milliseconds: the clock granularity of AWS's programs.
const GRANULARITY: u64 = 10;
/// Timeout before anything was measured, as in AWS's programs.
const FIRST_TIMEOUT: u64 = 200;
/// Least timeout once the peer takes data. The socket loses nothing while it stands, so haste gains nothing.
const LEAST_TIMEOUT: u64 = 200;
/// Least timeout while the peer may be refusing because its handler does not stand yet: that takes milliseconds.
const LEAST_PROBE: u64 = 20;
/// Longest pause between two transmissions of a message, unless the round trip itself is longer. AWS's programs have
/// the same, and a peer that becomes ready late finds out through our next attempt only.
const MOST_TIMEOUT: u64 = 1000;

/// Estimate in milliseconds, with gains 1/8 and 1/4.
#[derive(Debug, Default)]
pub(super) struct Rtt {
    /// Smoothed time and mean deviation, both in eighths of a millisecond; `None` before the first measurement.
    estimate: Option<(u64, u64)>,
}

impl Rtt {
    /// Takes the measured time of a message that was sent once.
    pub(super) fn measured(&mut self, milliseconds: u64) {
        let sample = milliseconds.min(60_000) * 8;
        self.estimate = Some(match self.estimate {
            None => (sample, sample / 2),
            Some((time, deviation)) => ((time * 7 + sample) / 8, (deviation * 3 + time.abs_diff(sample)) / 4),
        });
    }

    /// Returns how long to wait after the given attempt (1: the first) at sending a message.
    pub(super) fn timeout(&self, attempts: u32, peer_is_ready: bool) -> u64 {
        let least = if peer_is_ready { LEAST_TIMEOUT } else { LEAST_PROBE };
        let base = match self.estimate {
            None => FIRST_TIMEOUT,
            Some((time, deviation)) => (time / 8 + (deviation / 2).max(GRANULARITY)).max(least),
        };
        let doubled = base.saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(base.max(MOST_TIMEOUT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_begins_at_200_ms_doubles_and_stops_at_a_second() {
        let rtt = Rtt::default();
        let timeouts: Vec<u64> = (1..6).map(|attempts| rtt.timeout(attempts, true)).collect();
        assert_eq!(timeouts, [200, 400, 800, 1000, 1000]);
        assert_eq!(rtt.timeout(u32::MAX, true), 1000);
    }

    #[test]
    fn a_quick_peer_is_asked_again_quickly_only_while_it_may_refuse() {
        let mut rtt = Rtt::default();
        rtt.measured(1);
        rtt.measured(1);
        assert_eq!(rtt.timeout(1, false), 20);
        assert_eq!(rtt.timeout(1, true), 200);
    }

    #[test]
    fn a_slow_path_is_not_asked_again_before_it_can_answer() {
        let mut rtt = Rtt::default();
        for _ in 0..50 {
            rtt.measured(3000);
        }
        assert!((3000..3100).contains(&rtt.timeout(1, true)), "{}", rtt.timeout(1, true));
        assert_eq!(rtt.timeout(9, true), rtt.timeout(1, true));
    }
}
