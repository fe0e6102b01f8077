//! The plain text export: the bytes a program wrote, in order, and nothing else.

use super::{Event, EventKind};

/// Returns what an event adds to the plain text of a session: output of both streams in the order in which it came.
///
/// For a session without a terminal the joined bytes are exactly what the program wrote. They are not escaped: whoever
/// prints them to a terminal escapes them first (T-69).
pub fn output_bytes(event: &Event) -> &[u8] {
    match &event.kind {
        EventKind::Output { bytes, .. } => bytes,
        _ => &[],
    }
}
