//! Waiting for what a test wants to see.

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it is no measurement.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// Asks again and again until there is an answer; panics with `what` after [`LIMIT`].
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {LIMIT:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
