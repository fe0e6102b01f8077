//! `Munjigi.ReadRecording`: a session's recording in parts, from any place, also while it is written. Every call is
//! audited like all others, so that who looked at what is known (T-65).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::SessionId;
use munjigi_core::recording::{
    Connection, Event, EventKind, FileChange, FileCopied, InputData, StartMeta, Statement, StatementEnd,
};
use munjigi_core::session::{EndReason, ExitStatus, OutputStream};
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::terminate_session::{find, session_requirement};
use crate::identity::Caller;
use crate::recording::{ReadFrom, RecordingError};

/// About how many bytes of data an answer holds if the caller does not say.
const DEFAULT_BYTES: u32 = 256 * 1024;
/// Most bytes that may be asked for; an answer exceeds it by at most one record.
const MOST_BYTES: u32 = 1024 * 1024;
/// Longest wait for something new.
const MOST_WAIT_SECONDS: u32 = 20;

/// Reads a part of a recording.
pub struct ReadRecording;

/// Which part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ReadRecordingInput {
    /// The session.
    pub session_id: SessionId,
    /// Number of the first record wanted: 0, or `Next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_record: Option<u64>,
    /// In its place, the offset of the first byte of output wanted; what else happened before it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_offset: Option<u64>,
    /// About how many bytes of data the answer may hold, at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
    /// How long to wait for something new in a live session, at most 20 seconds.
    #[serde(default)]
    pub wait_seconds: u32,
}

/// A part.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReadRecordingOutput {
    /// What happened, in order.
    pub events: Vec<RecordedEvent>,
    /// `FromRecord` of the next call.
    pub next: u64,
    /// Whether the recording is being written.
    pub live: bool,
    /// Whether it is sealed and these events are its last.
    pub sealed: bool,
}

/// One event; which members it has depends on its kind.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RecordedEvent {
    /// Microseconds since the session's start.
    at: u64,
    /// `Start`, `Output`, `Input`, `Resize`, `Marker`, `Connection`, `Statement`, `StatementEnd`, `File`,
    /// `FileChange` or `End`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<StartMeta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<OutputStream>,
    /// Bytes of the same direction before these.
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// In base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    /// How many bytes were typed that are not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    hidden: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<Connection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement: Option<Statement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    statement_end: Option<StatementEnd>,
    /// `File`: what was copied; `Text` has it as a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FileCopied>,
    /// `FileChange`: what was done to a file; `Text` has it as a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_change: Option<FileChange>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<EndReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_signal: Option<String>,
}

impl From<Event> for RecordedEvent {
    fn from(event: Event) -> Self {
        let shown = Self { at: event.at, ..Self::default() };
        match event.kind {
            EventKind::Start(meta) => Self { kind: "Start", meta: Some(*meta), ..shown },
            EventKind::Output { stream, offset, bytes } => Self {
                kind: "Output",
                stream: Some(stream),
                offset: Some(offset),
                data: Some(STANDARD.encode(bytes)),
                ..shown
            },
            EventKind::Input { offset, data } => {
                let (data, hidden) = match data {
                    InputData::Bytes(bytes) => (Some(STANDARD.encode(bytes)), None),
                    InputData::Hidden(count) => (None, Some(count)),
                };
                Self { kind: "Input", offset: Some(offset), data, hidden, ..shown }
            }
            EventKind::Resize(size) => {
                Self { kind: "Resize", rows: Some(size.rows), columns: Some(size.columns), ..shown }
            }
            EventKind::Marker { text } => Self { kind: "Marker", text: Some(text), ..shown },
            EventKind::Connection(connection) => {
                Self { kind: "Connection", text: Some(connection.to_string()), connection: Some(*connection), ..shown }
            }
            EventKind::Statement(statement) => {
                Self { kind: "Statement", text: Some(statement.to_string()), statement: Some(*statement), ..shown }
            }
            EventKind::File(file) => Self { kind: "File", text: Some(file.to_string()), file: Some(*file), ..shown },
            EventKind::FileChange(change) => {
                Self { kind: "FileChange", text: Some(change.to_string()), file_change: Some(*change), ..shown }
            }
            EventKind::StatementEnd(end) => {
                Self { kind: "StatementEnd", text: Some(end.to_string()), statement_end: Some(*end), ..shown }
            }
            EventKind::End { reason, exit } => {
                let (exit_code, exit_signal) = match exit {
                    Some(ExitStatus::Code(code)) => (Some(code), None),
                    Some(ExitStatus::Signal { name, .. }) => (None, Some(name)),
                    None => (None, None),
                };
                Self { kind: "End", reason: Some(reason), exit_code, exit_signal, ..shown }
            }
        }
    }
}

impl Operation for ReadRecording {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ReadRecording";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0"}"#;
    type Input = ReadRecordingInput;
    type Output = ReadRecordingOutput;

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        if input.from_record.is_some() && input.from_offset.is_some() {
            return Err(ApiError::Validation("give FromRecord or FromOffset, not both".to_owned()));
        }
        if input.max_bytes.is_some_and(|bytes| !(1..=MOST_BYTES).contains(&bytes)) {
            return Err(ApiError::Validation(format!("MaxBytes must be between 1 and {MOST_BYTES}")));
        }
        if input.wait_seconds > MOST_WAIT_SECONDS {
            return Err(ApiError::Validation(format!("WaitSeconds must be at most {MOST_WAIT_SECONDS}")));
        }
        let row = find(server, &input.session_id).await?;
        Ok(vec![session_requirement(server, "munjigi:GetSessionRecording", &input.session_id, row.as_ref())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let from = match (input.from_record, input.from_offset) {
            (_, Some(offset)) => ReadFrom::Output(offset),
            (Some(record), None) => ReadFrom::Record(record),
            (None, None) => ReadFrom::Start,
        };
        let most = usize::try_from(input.max_bytes.unwrap_or(DEFAULT_BYTES)).unwrap_or(usize::MAX);
        let mut reader = server.recordings.reader(&input.session_id, from).await.map_err(refuse)?;
        let mut batch = reader.available(most).await.map_err(refuse)?;
        if batch.events.is_empty() && batch.live && input.wait_seconds > 0 {
            let wait = Duration::from_secs(u64::from(input.wait_seconds));
            tokio::select! {
                next = tokio::time::timeout(wait, reader.next_batch(most)) => {
                    // Nothing came: the empty part says where to go on.
                    if let Ok(next) = next {
                        batch = next.map_err(refuse)?;
                    }
                }
                () = server.stop.cancelled() => {}
            }
        }
        Ok(ReadRecordingOutput {
            next: batch.next_record,
            live: batch.live,
            sealed: batch.sealed,
            events: batch.events.into_iter().map(RecordedEvent::from).collect(),
        })
    }
}

/// Turns what went wrong with a recording into the answer for a caller who may read it.
pub(super) fn refuse(error: RecordingError) -> ApiError {
    match error {
        RecordingError::NotFound(session) => {
            ApiError::bad("DoesNotExistException", format!("there is no recording of session {session}"))
        }
        RecordingError::Header(_) | RecordingError::Damaged(_) => {
            ApiError::bad("RecordingDamagedException", error.to_string())
        }
        RecordingError::Stopped => ApiError::Unavailable("the server is stopping"),
        error => ApiError::internal(error),
    }
}
