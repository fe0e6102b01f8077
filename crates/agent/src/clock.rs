//! The only place where the agent reads a clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use munjigi_core::time::Timestamp;

/// Returns the wall clock's time; for grants, records and logs.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Returns the monotonic clock's time; for every wait, so that a changed wall clock ends no session.
pub(crate) fn monotonic() -> Instant {
    Instant::now()
}
