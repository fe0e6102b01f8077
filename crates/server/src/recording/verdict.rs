//! What a verified file means beside the hash that was kept when its recording was sealed.

use munjigi_core::recording::Verdict;

/// Returns what is wrong with a recording, if anything. `kept` is the final hash in hexadecimal, as the end of the
/// session left it in trail and database; `None` if the session runs, or ended without one.
pub fn problem(verdict: &Verdict, kept: Option<&str>) -> Option<String> {
    match (&verdict.bad, kept) {
        (Some(place), _) => Some(place.to_string()),
        (None, Some(_)) if !verdict.sealed => {
            Some(format!("cut off behind record {}: the recording had been sealed", verdict.records))
        }
        (None, Some(kept)) if kept != hex::encode(verdict.hash) => {
            Some("another recording stands in its place: the final hash is not the one that was kept".to_owned())
        }
        (None, _) if verdict.sealed && verdict.torn_bytes > 0 => Some("bytes follow the seal".to_owned()),
        (None, _) => None,
    }
}
