//! The only place of the command line that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use munjigi_core::time::Timestamp;

/// Returns the present instant. A clock before 1970 reads as 1970: signatures then fail with a clear message.
pub(crate) fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_micros()).unwrap_or_default();
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}
