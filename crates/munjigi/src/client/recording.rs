//! Reading a session's recording from the server, part by part.

use munjigi_core::recording::Event;
use serde::de::DeserializeOwned;

use super::api::{Api, CallContext as _};
use super::api_types::{ReadRecording, RecordedEvent, RecordingPart};

/// Data asked for at once, bytes.
const PART_BYTES: u32 = 1024 * 1024;

/// A recording being read from its beginning.
pub(crate) struct RecordingReader {
    session_id: String,
    next: u64,
    over: bool,
}

impl RecordingReader {
    /// Prepares reading; nothing is asked for yet.
    pub(crate) fn new(session_id: String) -> Self {
        Self { session_id, next: 0, over: false }
    }

    /// Returns the next events; `None` at the end of what is recorded by now. Events of kinds that this version does not
    /// know are left out.
    pub(crate) async fn next(&mut self, api: &mut Api) -> anyhow::Result<Option<Vec<Event>>> {
        let events: Option<Vec<RecordedEvent>> = self.next_as(api).await?;
        Ok(events.map(|events| events.into_iter().filter_map(RecordedEvent::decode).collect()))
    }

    /// As [`Self::next`], in another form: as the server writes them, of all kinds.
    pub(crate) async fn next_as<E: DeserializeOwned>(&mut self, api: &mut Api) -> anyhow::Result<Option<Vec<E>>> {
        if self.over {
            return Ok(None);
        }
        let request = ReadRecording {
            session_id: self.session_id.clone(),
            from_record: self.next,
            max_bytes: PART_BYTES,
            wait_seconds: 0,
        };
        let part: RecordingPart<E> =
            api.munjigi("ReadRecording", &request).await.doing(api.context(), "cannot read the recording")?;
        // A part without progress is the end, whatever else it says: no server can keep us asking for ever.
        self.over = part.sealed || part.events.is_empty() || part.next <= self.next;
        self.next = part.next;
        if part.events.is_empty() {
            return Ok(None);
        }
        Ok(Some(part.events))
    }
}
