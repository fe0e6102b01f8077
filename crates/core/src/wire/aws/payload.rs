//! The JSON payloads of data and control channel, the small binary ones, and what a version of a program can do.
//!
//! Fields stand in the order in which AWS's programs write them. Unknown fields are accepted, because newer programs
//! add some. The size of what is read was bounded with the message (T-93).

mod control;
mod version;

pub use control::{
    AgentTaskAcknowledge, AgentTaskComplete, DocumentContent, InteractiveShell, OpenControlChannel, ShellContent,
    ShellInputs, ShellProfile,
};
pub use version::{AgentFeatures, ClientFeatures};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::message::{MessageId, MessageType};
use crate::secret::Secret;

/// `MessageSchemaVersion` of every open message and of the calls that create channels.
pub const MESSAGE_SCHEMA_VERSION: &str = "1.0";

/// A payload is not what its type says.
#[derive(Debug, thiserror::Error)]
#[error("the payload is no {what}: {reason}")]
pub struct PayloadError {
    what: &'static str,
    reason: String,
}

/// Reads a JSON payload; `what` names it in the error, which never repeats the payload's own text.
pub fn parse<T: DeserializeOwned>(what: &'static str, payload: &[u8]) -> Result<T, PayloadError> {
    serde_json::from_slice(payload).map_err(|error| {
        let reason = format!("{:?} at line {} column {}", error.classify(), error.line(), error.column());
        PayloadError { what, reason }
    })
}

/// Writes a JSON payload.
pub fn json<T: Serialize>(payload: &T) -> Bytes {
    // Every payload type here has text keys only, so that serialisation cannot fail.
    serde_json::to_vec(payload).unwrap_or_default().into()
}

/// First message of a data channel, sent as text. The token is all that authenticates a client here.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannel {
    /// [`MESSAGE_SCHEMA_VERSION`].
    pub message_schema_version: String,
    /// A UUID that names this request.
    pub request_id: String,
    /// The token from StartSession, ResumeSession or CreateDataChannel.
    #[serde(serialize_with = "expose", deserialize_with = "conceal")]
    pub token_value: Secret<String>,
    /// The client's UUID, the same for its whole life; empty from AWS's agent.
    #[serde(default)]
    pub client_id: String,
    /// Version of the client; old ones do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The node's id; only AWS's agent sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_instance_id: Option<String>,
}

pub(super) fn expose<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}

pub(super) fn conceal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret<String>, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

/// Acknowledges one message of stream data; only the number is used for matching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Acknowledge {
    /// Name of the acknowledged message's type.
    pub acknowledged_message_type: String,
    /// Its id, as canonical text.
    pub acknowledged_message_id: String,
    /// Its number.
    pub acknowledged_message_sequence_number: i64,
    /// Always true.
    #[serde(default)]
    pub is_sequential_message: bool,
}

impl Acknowledge {
    /// Acknowledges a message by type, id and number.
    pub fn new(kind: &MessageType, id: MessageId, sequence: i64) -> Self {
        Self {
            acknowledged_message_type: kind.name().to_owned(),
            acknowledged_message_id: id.to_string(),
            acknowledged_message_sequence_number: sequence,
            is_sequential_message: true,
        }
    }
}

/// Size of the client's terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub cols: u32,
    /// Rows.
    pub rows: u32,
}

/// A sign that belongs to no byte of the stream; four bytes, big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Flag {
    /// Client to agent: the local connection of a basic port session was closed.
    DisconnectToPort = 1,
    /// Client to agent: end the session.
    TerminateSession = 2,
    /// Agent to client: the destination could not be reached.
    ConnectToPortError = 3,
}

impl Flag {
    /// Returns the payload.
    pub fn bytes(self) -> Bytes {
        Bytes::copy_from_slice(&(self as u32).to_be_bytes())
    }

    /// Reads a payload; `None` for anything that this version does not know.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let number = u32::from_be_bytes(payload.try_into().ok()?);
        [Self::DisconnectToPort, Self::TerminateSession, Self::ConnectToPortError]
            .into_iter()
            .find(|flag| *flag as u32 == number)
    }
}

const EXIT_CODE: &str = "EXIT_CODE: ";

/// Writes the payload of [`PayloadType::ExitCode`](super::PayloadType::ExitCode).
pub fn exit_code(status: i32) -> Bytes {
    format!("{EXIT_CODE}{status}").into()
}

/// Reads the payload of [`PayloadType::ExitCode`](super::PayloadType::ExitCode).
pub fn parse_exit_code(payload: &[u8]) -> Option<i32> {
    std::str::from_utf8(payload).ok()?.strip_prefix(EXIT_CODE)?.trim().parse().ok()
}

/// What the agent asks of the client before the session begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeRequest {
    /// Version of the agent; clients choose features by it, see [`AgentFeatures`].
    pub agent_version: String,
    /// What the client shall do, in this order.
    pub requested_client_actions: Vec<RequestedAction>,
}

/// One thing that the agent asks of the client.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ActionType", content = "ActionParameters")]
pub enum RequestedAction {
    /// Take up a session of this type.
    #[serde(rename_all = "PascalCase")]
    SessionType {
        /// `Standard_Stream`, `InteractiveCommands`, `NonInteractiveCommands` or `Port`.
        session_type: String,
        /// Null for the shell types, [`PortProperties`] for `Port`.
        #[serde(default)]
        properties: Value,
    },
    /// Encrypt the session's bytes with a key of KMS.
    #[serde(rename = "KMSEncryption")]
    KmsEncryption {
        /// ARN of the key.
        #[serde(rename = "KMSKeyId")]
        kms_key_id: String,
        /// 16 bytes in base64; old agents send none.
        #[serde(rename = "Challenge", default, skip_serializing_if = "Option::is_none")]
        challenge: Option<String>,
    },
    /// Something that this version does not know; the client answers that it is unsupported.
    #[serde(untagged)]
    Other {
        /// Its name.
        #[serde(rename = "ActionType")]
        action_type: String,
        /// Its parameters, whatever they are.
        #[serde(rename = "ActionParameters", default)]
        action_parameters: Value,
    },
}

/// `Properties` of a port session; all values are text, absent ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortProperties {
    /// Port on the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_number: Option<String>,
    /// `LocalPortForwarding`, or anything else for standard input and output.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Port on which the client listens; empty or `0`: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port_number: Option<String>,
    /// Destination; empty: the node itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Path on which the client listens instead of a port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_unix_socket: Option<String>,
    /// `unix` if the client shall listen on a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_connection_type: Option<String>,
}

/// `type` of a port session whose client listens on a local port.
pub const LOCAL_PORT_FORWARDING: &str = "LocalPortForwarding";

/// What the client did of what it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeResponse {
    /// Version of the client, see [`ClientFeatures`].
    pub client_version: String,
    /// One answer for each action.
    #[serde(deserialize_with = "null_as_default")]
    pub processed_client_actions: Vec<ProcessedAction>,
    /// What went wrong, as text; null if nothing did.
    #[serde(default)]
    pub errors: Option<Vec<String>>,
}

impl HandshakeResponse {
    /// Returns why the session cannot begin: the first action that was not carried out.
    pub fn failure(&self) -> Option<&ProcessedAction> {
        self.processed_client_actions.iter().find(|action| action.action_status != ProcessedAction::SUCCESS)
    }
}

/// The client's answer to one action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessedAction {
    /// The action's name.
    pub action_type: String,
    /// 1 success, 2 failed, 3 unsupported; 0 from AWS's client for an action it does not know.
    pub action_status: i64,
    /// What came of it; null for a session type.
    #[serde(default)]
    pub action_result: Value,
    /// What went wrong, or empty.
    #[serde(default, deserialize_with = "null_as_default")]
    pub error: String,
}

impl ProcessedAction {
    /// `action_status` of an action that was carried out.
    pub const SUCCESS: i64 = 1;
    /// `action_status` of an action that failed.
    pub const FAILED: i64 = 2;
    /// `action_status` of an action that the client does not know.
    pub const UNSUPPORTED: i64 = 3;
}

/// The agent begins the session; AWS's client starts its session handler on this message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HandshakeComplete {
    /// How long the handshake took, in nanoseconds.
    #[serde(default)]
    pub handshake_time_to_complete: i64,
    /// Shown to the person at the terminal if not empty.
    #[serde(default, deserialize_with = "null_as_default")]
    pub customer_message: String,
}

/// Challenge of an encrypted session, and the client's answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EncryptionChallenge {
    /// Encrypted bytes in base64.
    pub challenge: String,
}

/// The server ends a session, for its client or its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ChannelClosed {
    /// A UUID.
    pub message_id: String,
    /// When, as RFC 3339 text.
    pub created_date: String,
    /// Whom it is for: the client's id, or the node's.
    pub destination_id: String,
    /// The session that ends.
    pub session_id: String,
    /// `channel_closed`.
    pub message_type: String,
    /// 1.
    pub schema_version: i64,
    /// Reason for the person at the terminal; empty for an ordinary end.
    pub output: String,
}

impl Default for ChannelClosed {
    fn default() -> Self {
        let empty = String::new;
        Self {
            message_id: empty(),
            created_date: empty(),
            destination_id: empty(),
            session_id: empty(),
            message_type: MessageType::ChannelClosed.name().to_owned(),
            schema_version: 1,
            output: empty(),
        }
    }
}

/// What AWS's agent says of its session on the data channel; it has no number and is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AgentSessionState {
    /// 1.
    pub schema_version: i64,
    /// `Connected` or `Terminating`.
    pub session_state: String,
    /// The session.
    pub session_id: String,
}

/// Reads null, which programs written in Go send for what is empty, as the empty value.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
