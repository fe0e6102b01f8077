//! When a session must be looked at again: idle, maximum duration, resume windows, and the warnings before them.

use std::time::Duration;

use munjigi_core::session::{EndReason, SessionLimits};
use tokio::time::Instant;

/// How long before an end by time the person is warned, unless the limit itself is shorter than four times this.
const WARN_BEFORE: Duration = Duration::from_secs(60);
/// How long a node may take to start a program before the start counts as failed.
const START_LIMIT: Duration = Duration::from_secs(15);
/// How long a node may take to end a program (SIGHUP, 5 s, SIGKILL) before the session ends without its word.
const END_LIMIT: Duration = Duration::from_secs(15);

/// What the hub knows about time.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// When the maximum duration is over, if there is one.
    maximum_at: Option<Instant>,
    /// Last input, and last output where that counts.
    pub(super) active: Instant,
    /// Since when no client is attached.
    pub(super) without_client: Option<Instant>,
    /// Since when the node is away.
    pub(super) without_node: Option<Instant>,
    /// Since when the node has been asked to start.
    pub(super) starting: Option<Instant>,
    /// Since when the node has been asked to end.
    pub(super) ending: Option<Instant>,
    warned_idle_at: Option<Instant>,
    warned_maximum: bool,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Warn the person.
    Warn(String),
    /// Order the end of the session for this reason.
    End(EndReason),
    /// The node did not answer the start.
    StartTimedOut,
    /// The node did not answer the end.
    EndTimedOut,
}

impl Times {
    /// Begins for a session that started `ago` before `now`, perhaps under an earlier run of the server.
    pub(super) fn new(now: Instant, ago: Duration, limits: &SessionLimits) -> Self {
        Self {
            maximum_at: limits.maximum.map(|maximum| now + maximum.saturating_sub(ago)),
            active: now,
            without_client: None,
            without_node: None,
            starting: None,
            ending: None,
            warned_idle_at: None,
            warned_maximum: false,
        }
    }

    /// Returns when to call [`Self::due`] next.
    pub(super) fn next(&self, limits: &SessionLimits) -> Option<Instant> {
        let idle = limits.idle.map(|idle| {
            let end = self.active + idle;
            if self.idle_warning_given() { end } else { end.checked_sub(warning(idle)).unwrap_or(end) }
        });
        let maximum = limits.maximum.zip(self.maximum_at).map(|(maximum, end)| {
            if self.warned_maximum { end } else { end.checked_sub(warning(maximum)).unwrap_or(end) }
        });
        let window = limits.resume_window;
        let times = [
            self.ending.map(|since| since + END_LIMIT),
            self.starting.map(|since| since + START_LIMIT),
            self.without_client.map(|since| since + window),
            self.without_node.map(|since| since + window),
        ];
        let limits = if self.ending.is_some() { [None, None] } else { [idle, maximum] };
        times.into_iter().chain(limits).flatten().min()
    }

    /// Returns what is due at `now`.
    pub(super) fn due(&mut self, now: Instant, limits: &SessionLimits) -> Due {
        let over = |since: Option<Instant>, limit: Duration| since.is_some_and(|since| now >= since + limit);
        if over(self.ending, END_LIMIT) {
            return Due::EndTimedOut;
        }
        if over(self.starting, START_LIMIT) {
            return Due::StartTimedOut;
        }
        if over(self.without_node, limits.resume_window) {
            return Due::End(EndReason::NodeLost);
        }
        if self.ending.is_some() {
            return Due::Nothing;
        }
        if over(self.without_client, limits.resume_window) {
            return Due::End(EndReason::ClientLost);
        }
        if let Some((maximum, end)) = limits.maximum.zip(self.maximum_at) {
            if now >= end {
                return Due::End(EndReason::MaximumDuration);
            }
            if !self.warned_maximum && now + warning(maximum) >= end {
                self.warned_maximum = true;
                return Due::Warn(format!("this session ends in {} s, its maximum duration", (end - now).as_secs()));
            }
        }
        if let Some(idle) = limits.idle {
            let end = self.active + idle;
            if now >= end {
                return Due::End(EndReason::IdleTimeout);
            }
            if !self.idle_warning_given() && now + warning(idle) >= end {
                self.warned_idle_at = Some(self.active);
                return Due::Warn(format!(
                    "this session is idle and ends in {} s; type to keep it",
                    (end - now).as_secs()
                ));
            }
        }
        Due::Nothing
    }

    fn idle_warning_given(&self) -> bool {
        self.warned_idle_at == Some(self.active)
    }
}

fn warning(limit: Duration) -> Duration {
    WARN_BEFORE.min(limit / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> SessionLimits {
        SessionLimits {
            idle: Some(Duration::from_secs(600)),
            idle_counts_output: true,
            maximum: Some(Duration::from_secs(3600)),
            resume_window: Duration::from_secs(120),
            strict_recording: false,
        }
    }

    #[tokio::test]
    async fn an_idle_session_is_warned_once_and_then_ended() {
        let start = Instant::now();
        let limits = limits();
        let mut times = Times::new(start, Duration::ZERO, &limits);
        assert_eq!(times.next(&limits), Some(start + Duration::from_secs(540)));
        assert_eq!(times.due(start + Duration::from_secs(539), &limits), Due::Nothing);
        assert!(matches!(times.due(start + Duration::from_secs(540), &limits), Due::Warn(_)));
        assert_eq!(times.due(start + Duration::from_secs(541), &limits), Due::Nothing);
        assert_eq!(times.next(&limits), Some(start + Duration::from_secs(600)));
        assert_eq!(times.due(start + Duration::from_secs(600), &limits), Due::End(EndReason::IdleTimeout));
        times.active = start + Duration::from_secs(590);
        assert_eq!(times.due(start + Duration::from_secs(600), &limits), Due::Nothing);
        assert!(matches!(times.due(start + Duration::from_secs(1135), &limits), Due::Warn(_)));
    }

    #[tokio::test]
    async fn each_limit_has_its_own_end() {
        let start = Instant::now();
        let limits = limits();
        let at = |secs| start + Duration::from_secs(secs);
        let fresh = || Times::new(start, Duration::ZERO, &limits);
        let cases: [(Times, u64, Due); 5] = [
            (Times { without_client: Some(at(0)), ..fresh() }, 120, Due::End(EndReason::ClientLost)),
            (Times { without_node: Some(at(0)), ..fresh() }, 120, Due::End(EndReason::NodeLost)),
            (Times { starting: Some(at(0)), ..fresh() }, 15, Due::StartTimedOut),
            (Times { ending: Some(at(0)), ..fresh() }, 15, Due::EndTimedOut),
            (Times { active: at(3500), ..fresh() }, 3600, Due::End(EndReason::MaximumDuration)),
        ];
        for (mut times, secs, expected) in cases {
            assert_eq!(times.due(at(secs), &limits), expected);
        }
    }

    #[tokio::test]
    async fn a_session_taken_back_after_a_restart_keeps_its_age() {
        let now = Instant::now();
        let mut times = Times::new(now, Duration::from_secs(3000), &limits());
        times.active = now + Duration::from_secs(599);
        assert_eq!(times.due(now + Duration::from_secs(600), &limits()), Due::End(EndReason::MaximumDuration));
    }
}
