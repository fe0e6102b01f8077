//! Payloads of the control channel, as far as sessions need them: the order to start one, and word of its end.
//!
//! Run Command's jobs travel on the same channel and are left out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{conceal, expose, null_as_default};
use crate::secret::Secret;

/// First message of a control channel, sent as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenControlChannel {
    /// Always null.
    #[serde(default)]
    pub cookie: Option<String>,
    /// [`MESSAGE_SCHEMA_VERSION`](super::MESSAGE_SCHEMA_VERSION).
    pub message_schema_version: String,
    /// A UUID that names this request.
    pub request_id: String,
    /// The token from CreateControlChannel.
    #[serde(serialize_with = "expose", deserialize_with = "conceal")]
    pub token_value: Secret<String>,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// `linux`, `windows` or `macos`.
    #[serde(default)]
    pub platform_type: String,
}

/// Server to agent: start a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct InteractiveShell {
    /// [`ShellContent`] as JSON text.
    pub content: String,
    /// The session's id; the agent drops one that it has seen before without a word.
    pub task_id: String,
    /// Any text; AWS's service writes `aws.ssm.startSession`.
    pub topic: String,
    /// 1.
    pub schema_version: i64,
}

/// What the session to start is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ShellContent {
    /// Name of the session document.
    pub document_name: String,
    /// The document.
    pub document_content: DocumentContent,
    /// The session's id.
    pub session_id: String,
    /// Values for `{{ name }}`; a list of one value is given as that value.
    #[serde(default, deserialize_with = "null_as_default")]
    pub parameters: BTreeMap<String, Value>,
    /// The user from the caller's tag; beats the document's default user.
    #[serde(default)]
    pub run_as_user: String,
    /// ARN of the caller.
    #[serde(default)]
    pub session_owner: String,
}

/// A session document, in the form the agent reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentContent {
    /// `1.0`; nothing else is read.
    pub schema_version: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// `Standard_Stream`, `InteractiveCommands`, `NonInteractiveCommands` or `Port`.
    pub session_type: String,
    /// Preferences.
    pub inputs: ShellInputs,
    /// Declarations of the parameters, or null.
    #[serde(default)]
    pub parameters: Value,
    /// The commands or the port, by session type, or null.
    #[serde(default)]
    pub properties: Value,
}

/// Preferences in a session document for the agent. The booleans may also come as text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ShellInputs {
    /// Bucket for the log, or empty.
    pub s3_bucket_name: String,
    /// Prefix of the log's key.
    pub s3_key_prefix: String,
    /// Refuse an unencrypted bucket: bool or text.
    pub s3_encryption_enabled: Value,
    /// Log group, or empty.
    pub cloud_watch_log_group_name: String,
    /// Send lines while the session runs; only a bool is read.
    pub cloud_watch_streaming_enabled: bool,
    /// Refuse an unencrypted log group: bool or text.
    pub cloud_watch_encryption_enabled: Value,
    /// KMS key for the session's bytes, or empty.
    pub kms_key_id: String,
    /// Start the shell as the run-as user: bool or text.
    pub run_as_enabled: Value,
    /// That user, unless the caller's tag names one.
    pub run_as_default_user: String,
    /// What is typed into the shell at its start.
    pub shell_profile: ShellProfile,
}

impl Default for ShellInputs {
    fn default() -> Self {
        Self {
            s3_bucket_name: String::new(),
            s3_key_prefix: String::new(),
            s3_encryption_enabled: Value::Bool(false),
            cloud_watch_log_group_name: String::new(),
            cloud_watch_streaming_enabled: false,
            cloud_watch_encryption_enabled: Value::Bool(false),
            kms_key_id: String::new(),
            run_as_enabled: Value::Bool(false),
            run_as_default_user: String::new(),
            shell_profile: ShellProfile::default(),
        }
    }
}

/// What is typed into the shell at its start, by system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShellProfile {
    /// For PowerShell.
    pub windows: String,
    /// For sh.
    pub linux: String,
}

/// Agent to server: the session's task has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentTaskComplete {
    /// 1.
    pub schema_version: i64,
    /// The session's id.
    pub task_id: String,
    /// `agent_task_complete`.
    #[serde(default)]
    pub topic: String,
    /// `Success`, `Failed`, `Cancelled`, `TimedOut`, …
    #[serde(default)]
    pub final_task_status: String,
    /// Whether the message could not be delivered on the node.
    #[serde(default)]
    pub is_routing_failure: bool,
    /// Usually empty.
    #[serde(default)]
    pub aws_account_id: String,
    /// The node.
    #[serde(default)]
    pub instance_id: String,
    /// Text of the error, or empty.
    #[serde(default)]
    pub output: String,
    /// Where the log went, or empty.
    #[serde(default)]
    pub s3_bucket: String,
    /// Where the log went, or empty.
    #[serde(default)]
    pub s3_url_suffix: String,
    /// Where the log went, or empty.
    #[serde(default)]
    pub cwl_group: String,
    /// Where the log went, or empty.
    #[serde(default)]
    pub cwl_stream: String,
    /// Which attempt this is; the agent makes three, a second apart, until it is acknowledged.
    #[serde(default)]
    pub retry_number: i64,
}

/// Server to agent: word of the end arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentTaskAcknowledge {
    /// 1.
    pub schema_version: i64,
    /// Id of the acknowledged message, from its header.
    pub message_id: String,
    /// The session's id.
    pub task_id: String,
    /// Topic of the acknowledged message.
    pub topic: String,
}
