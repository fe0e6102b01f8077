//! Inputs and outputs of our own operations (`X-Amz-Target: Munjigi.NAME`) as the command line sends and reads them.
//!
//! Members have the style of the AWS API; instants are epoch seconds. Members that a server leaves out read as empty,
//! so that an older server still serves.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::recording::{
    Connection, Event, EventKind, FileChange, FileCopied, InputData, StartMeta, Statement, StatementEnd,
};
use munjigi_core::session::{EndReason, ExitStatus, OutputStream, TerminalSize};
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// An instant as JSON services write it: seconds since 1970 with a fraction.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Epoch(pub(crate) f64);

impl Epoch {
    /// Returns the instant.
    pub(crate) fn timestamp(self) -> Timestamp {
        Timestamp((self.0 * 1e6) as i64)
    }
}

impl From<Timestamp> for Epoch {
    fn from(instant: Timestamp) -> Self {
        Self(instant.as_epoch_seconds())
    }
}

/// A tag of a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    /// Its key.
    pub(crate) key: String,
    /// Its value.
    pub(crate) value: String,
}

/// `ListNodes {Filter?}`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListNodes {
    /// Only nodes with this name, id, id prefix or `tag:Key=Value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

/// Output of `ListNodes`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeList {
    /// The nodes, by name.
    pub(crate) nodes: Vec<Node>,
    /// Present when there are more.
    #[serde(default)]
    pub(crate) next_token: Option<String>,
}

/// A node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Node {
    /// `mi-…`.
    pub(crate) node_id: String,
    /// Its name.
    #[serde(default)]
    pub(crate) name: String,
    /// `Online` or `Offline`.
    #[serde(default)]
    pub(crate) state: String,
    /// Since when it is in that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Epoch>,
    /// When it was enrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registered_at: Option<Epoch>,
    /// The host's own name.
    #[serde(default)]
    pub(crate) hostname: String,
    /// For example `Debian GNU/Linux`.
    #[serde(default)]
    pub(crate) platform_name: String,
    /// For example `12`.
    #[serde(default)]
    pub(crate) platform_version: String,
    /// For example `x86_64`.
    #[serde(default)]
    pub(crate) architecture: String,
    /// `munjigi`, or `aws` for AWS's own agent.
    #[serde(default)]
    pub(crate) agent: String,
    /// The agent's version.
    #[serde(default)]
    pub(crate) agent_version: String,
    /// Its tags.
    #[serde(default)]
    pub(crate) tags: Vec<Tag>,
}

/// `ListSessions {State?, Target?, Owner?, Since?, MaxResults?, NextToken?}`; newest first.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ListSessions {
    /// `Active` or `History`; both if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// Only this session: its id or the head of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session_id: Option<String>,
    /// Only on this node: name, id, id prefix or `tag:Key=Value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Only of this user: name or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// Only started at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Epoch>,
    /// Most sessions in the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_results: Option<u32>,
    /// Where the page before ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

/// Output of `ListSessions`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SessionList {
    /// The sessions, newest first.
    pub(crate) sessions: Vec<Session>,
    /// Present when there are more.
    #[serde(default)]
    pub(crate) next_token: Option<String>,
}

/// A session.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Session {
    /// `owner-0123…`.
    pub(crate) session_id: String,
    /// `Connected`, `Disconnected`, `Terminated`, … as in `DescribeSessions`.
    pub(crate) status: String,
    /// ARN of who started it.
    #[serde(default)]
    pub(crate) owner: String,
    /// The node's id.
    #[serde(default)]
    pub(crate) node_id: String,
    /// The node's name.
    #[serde(default)]
    pub(crate) node_name: String,
    /// `shell` or `command`.
    #[serde(default)]
    pub(crate) kind: String,
    /// The command; empty for a shell.
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// The OS user.
    #[serde(default)]
    pub(crate) os_user: String,
    /// Why the owner wanted it.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// When it started.
    pub(crate) started_at: Epoch,
    /// When it ended.
    #[serde(default)]
    pub(crate) ended_at: Option<Epoch>,
    /// Why it ended, e.g. `exited`.
    #[serde(default)]
    pub(crate) end_reason: Option<String>,
    /// Exit code.
    #[serde(default)]
    pub(crate) exit_code: Option<i32>,
    /// Name of the signal that ended the program, without `SIG`.
    #[serde(default)]
    pub(crate) exit_signal: Option<String>,
    /// Bytes typed.
    #[serde(default)]
    pub(crate) bytes_in: u64,
    /// Bytes printed.
    #[serde(default)]
    pub(crate) bytes_out: u64,
    /// Hash that seals the recording, hexadecimal.
    #[serde(default)]
    pub(crate) recording_hash: Option<String>,
}

/// `ReadRecording {SessionId, FromRecord, MaxBytes, WaitSeconds}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ReadRecording {
    /// The session.
    pub(crate) session_id: String,
    /// Number of the first record wanted: 0, or `Next` of the answer before.
    pub(crate) from_record: u64,
    /// About how many bytes of data the answer may hold.
    pub(crate) max_bytes: u32,
    /// How long the server may wait for something new in a live session, seconds, at most 20.
    pub(crate) wait_seconds: u32,
}

/// Output of `ReadRecording`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RecordingPart<E> {
    /// What happened, in order.
    pub(crate) events: Vec<E>,
    /// `FromRecord` of the next call.
    pub(crate) next: u64,
    /// Whether the recording is sealed and these events are its last.
    #[serde(default)]
    pub(crate) sealed: bool,
}

/// One event of a recording. Which members are present depends on `kind`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RecordedEvent {
    /// Microseconds since the session's start.
    pub(crate) at: u64,
    /// `Start`, `Output`, `Input`, `Resize`, `Marker`, `Connection`, `Statement`, `StatementEnd`, `File`,
    /// `FileChange` or `End`.
    pub(crate) kind: String,
    /// `Start`: who did what where.
    pub(crate) meta: Option<StartMeta>,
    /// `Output`: `stdout` or `stderr`.
    pub(crate) stream: Option<OutputStream>,
    /// `Output`, `Input`: bytes before these.
    pub(crate) offset: u64,
    /// `Output`, `Input`: the bytes in base64.
    pub(crate) data: Option<String>,
    /// `Input` whose bytes are not kept: how many there were.
    pub(crate) hidden: Option<u64>,
    /// `Resize`.
    pub(crate) rows: u16,
    /// `Resize`.
    pub(crate) columns: u16,
    /// `Marker`: the text.
    pub(crate) text: Option<String>,
    /// `Connection`: what happened to it.
    pub(crate) connection: Option<Connection>,
    /// `Statement`: what was asked of a database.
    pub(crate) statement: Option<Statement>,
    /// `StatementEnd`: how it ended.
    pub(crate) statement_end: Option<StatementEnd>,
    /// `File`: what was copied.
    pub(crate) file: Option<FileCopied>,
    /// `FileChange`: what was done to a file.
    pub(crate) file_change: Option<FileChange>,
    /// `End`: why.
    pub(crate) reason: Option<String>,
    /// `End`: exit code.
    pub(crate) exit_code: Option<i32>,
    /// `End`: signal name without `SIG`.
    pub(crate) exit_signal: Option<String>,
}

impl RecordedEvent {
    /// Returns the event in the recorder's own form; `None` for one this version does not know.
    pub(crate) fn decode(self) -> Option<Event> {
        let bytes = |data: Option<String>| Some(bytes::Bytes::from(STANDARD.decode(data?).ok()?));
        let kind = match self.kind.as_str() {
            "Start" => EventKind::Start(Box::new(self.meta?)),
            "Output" => EventKind::Output {
                stream: self.stream.unwrap_or(OutputStream::Stdout),
                offset: self.offset,
                bytes: bytes(self.data)?,
            },
            "Input" => EventKind::Input {
                offset: self.offset,
                data: match self.hidden {
                    Some(count) => InputData::Hidden(count),
                    None => InputData::Bytes(bytes(self.data)?),
                },
            },
            "Resize" => EventKind::Resize(
                TerminalSize { rows: self.rows, columns: self.columns, width_pixels: 0, height_pixels: 0 }.checked()?,
            ),
            "Marker" => EventKind::Marker { text: self.text? },
            "Connection" => EventKind::Connection(Box::new(self.connection?)),
            "Statement" => EventKind::Statement(Box::new(self.statement?)),
            "File" => EventKind::File(Box::new(self.file?)),
            "FileChange" => EventKind::FileChange(Box::new(self.file_change?)),
            "StatementEnd" => EventKind::StatementEnd(Box::new(self.statement_end?)),
            "End" => EventKind::End {
                reason: EndReason::parse(self.reason.as_deref().unwrap_or_default())?,
                exit: match (self.exit_code, self.exit_signal) {
                    (Some(code), _) => Some(ExitStatus::Code(code)),
                    (None, Some(name)) => Some(ExitStatus::Signal { name, core_dumped: false }),
                    (None, None) => None,
                },
            },
            _ => return None,
        };
        Some(Event { at: self.at, kind })
    }
}

/// `VerifyRecording {SessionId}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct VerifyRecording {
    /// The session.
    pub(crate) session_id: String,
}

/// `VerifyTrail {}` and other operations without input.
#[derive(Debug, Serialize)]
pub(crate) struct Empty {}

/// Output of `VerifyTrail` and `VerifyRecording`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Verdict {
    /// Whether nothing was changed, removed, inserted or reordered.
    pub(crate) whole: bool,
    /// Records that were checked.
    #[serde(default)]
    pub(crate) records: u64,
    /// The first bad place and what is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    /// Whether a recording is sealed (a live one is not).
    #[serde(default)]
    pub(crate) sealed: bool,
    /// Hash of the last record, hexadecimal.
    #[serde(default)]
    pub(crate) hash: String,
}

/// `ReadAudit {FromSequence, MaxRecords, EventName?, Username?, Since?, Until?, ErrorsOnly, Newest, WaitSeconds}`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ReadAudit {
    /// First record wanted; with `newest` ignored.
    pub(crate) from_sequence: u64,
    /// Most records in the answer.
    pub(crate) max_records: u32,
    /// Only events of this name, e.g. `StartSession`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event_name: Option<String>,
    /// Only events of this user: name or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    /// Only at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Epoch>,
    /// Only before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Epoch>,
    /// Only refused and failed calls.
    pub(crate) errors_only: bool,
    /// The newest `MaxRecords` that fit, still in their order.
    pub(crate) newest: bool,
    /// How long the server may wait for a new record, seconds, at most 20.
    pub(crate) wait_seconds: u32,
}

/// Output of `ReadAudit`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AuditPage {
    /// The CloudTrail records, oldest first.
    pub(crate) records: Vec<serde_json::Value>,
    /// `FromSequence` of the next call.
    pub(crate) next_sequence: u64,
    /// Whether there are no more records that fit at the moment.
    #[serde(default)]
    pub(crate) at_end: bool,
}

/// `Explain {Principal, Action, Resource, Context}`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Explain {
    /// User name or ARN.
    pub(crate) principal: String,
    /// For example `ssm:StartSession`.
    pub(crate) action: String,
    /// ARN, or `*`.
    pub(crate) resource: String,
    /// Condition keys and their values.
    pub(crate) context: Vec<ContextEntry>,
}

/// A condition key with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContextEntry {
    /// The key.
    pub(crate) key: String,
    /// Its values.
    pub(crate) values: Vec<String>,
}

/// Output of `Explain`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Explanation {
    /// Whether it would be allowed.
    pub(crate) allowed: bool,
    /// Machine-readable reason, e.g. `NoIdentityPolicyAllows`.
    #[serde(default)]
    pub(crate) code: String,
    /// The sentence.
    #[serde(default)]
    pub(crate) reason: String,
    /// The statements that decided.
    #[serde(default)]
    pub(crate) statements: Vec<DecidingStatement>,
    /// Condition keys that statements ask for and that were not given.
    #[serde(default)]
    pub(crate) missing_context_keys: Vec<String>,
}

/// A statement that decided.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DecidingStatement {
    /// The policy's name or ARN.
    pub(crate) policy: String,
    /// Identity, boundary, ….
    #[serde(default)]
    pub(crate) policy_kind: String,
    /// The statement's `Sid`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<String>,
    /// Its place in the policy, from 0.
    #[serde(default)]
    pub(crate) index: u32,
    /// Where it begins in the document, line from 1.
    #[serde(default)]
    pub(crate) line: u32,
}

/// `TerminateSession` of SSM.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct TerminateSession {
    /// The session.
    pub(crate) session_id: String,
}

/// Its output, and that of other operations that return an id nobody needs.
#[derive(Debug, Deserialize)]
pub(crate) struct Ignored {}

/// `CreateActivation` of SSM, with what enrolling this machine needs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreateActivation {
    /// Role of the node; any name, it is not used for anything but AWS's own form.
    pub(crate) iam_role: String,
    /// Name of the nodes it enrols.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_instance_name: Option<String>,
    /// How many nodes it may enrol.
    pub(crate) registration_limit: u32,
    /// When it stops.
    pub(crate) expiration_date: Epoch,
}

/// Output of `CreateActivation`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Activation {
    /// Its id.
    pub(crate) activation_id: String,
    /// Its secret; shown once.
    pub(crate) activation_code: String,
}

/// How long an activation that `munjigi up` makes for this machine lives.
pub(crate) const ACTIVATION_LIFE: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: serde_json::Value) -> Option<EventKind> {
        serde_json::from_value::<RecordedEvent>(json).unwrap().decode().map(|event| event.kind)
    }

    #[test]
    fn events_of_a_recording_are_read_and_what_is_unknown_is_left_out() {
        let output = serde_json::json!({"At": 7, "Kind": "Output", "Stream": "stderr", "Offset": 3, "Data": "7JWI"});
        let bytes = bytes::Bytes::from_static("안".as_bytes());
        assert_eq!(decoded(output), Some(EventKind::Output { stream: OutputStream::Stderr, offset: 3, bytes }));
        let hidden = serde_json::json!({"At": 7, "Kind": "Input", "Offset": 3, "Hidden": 12});
        assert_eq!(decoded(hidden), Some(EventKind::Input { offset: 3, data: InputData::Hidden(12) }));
        let end = serde_json::json!({"At": 9, "Kind": "End", "Reason": "exited", "ExitCode": 7});
        let exit = Some(ExitStatus::Code(7));
        assert_eq!(decoded(end), Some(EventKind::End { reason: EndReason::Exited, exit }));
        for unknown in [
            serde_json::json!({"At": 1, "Kind": "Dance"}),
            serde_json::json!({"At": 1, "Kind": "Output", "Data": "not base64!"}),
            serde_json::json!({"At": 1, "Kind": "Output"}),
            serde_json::json!({"At": 1, "Kind": "Resize", "Rows": 0, "Columns": 9}),
            serde_json::json!({"At": 1, "Kind": "End", "Reason": "bored"}),
        ] {
            assert_eq!(decoded(unknown), None);
        }
    }
}
