//! The binary message of AWS's data and control channels: one WebSocket frame holds exactly one.
//!
//! Layout (all integers big-endian): header length (4, always 116), type (32, padded with spaces), schema version (4),
//! creation (8, milliseconds since 1970), sequence number (8), flags (8), message id (16, low half first), SHA-256 of the
//! payload (32), payload type (4), payload length (4), payload. What a payload holds is in [`payload`](super::payload).

use std::fmt;

use aws_lc_rs::digest;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Value of the header length field: the bytes in front of the payload length, which is not part of it.
const HEADER_LENGTH: u32 = 116;
/// Bytes in front of the payload in a message that we write.
pub const PREFIX: usize = 120;
/// Bytes of the type field.
const TYPE_LENGTH: usize = 32;
/// The only schema version there is.
const SCHEMA_VERSION: u32 = 1;
/// Largest message that is read (T-93): AWS's agent sends up to 142 000 bytes on its control channel.
pub const MAX_MESSAGE: usize = 160 * 1024;

/// Flag of the first message of a stream, as AWS's agent sets it.
pub const FLAG_SYN: u64 = 1;
/// Flag of the last message of a stream; only used together with [`FLAG_SYN`], on messages outside the numbering.
pub const FLAG_FIN: u64 = 2;

/// Why bytes are no message, or a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes end before the payload begins, or the header length points outside them.
    #[error("the message ends inside its header")]
    Truncated,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("the message has {0} bytes, more than {MAX_MESSAGE}")]
    TooLarge(usize),
    /// The header length is zero.
    #[error("the header length is zero")]
    HeaderLength,
    /// The type is blank.
    #[error("the message type is blank")]
    BlankType,
    /// The type has more than 32 bytes.
    #[error("the message type has more than 32 bytes")]
    LongType,
    /// The creation date is zero.
    #[error("the creation date is zero")]
    NoDate,
    /// The digest is not that of the payload.
    #[error("the digest does not belong to the payload")]
    Digest,
    /// The payload is empty; AWS's programs cannot write such a message, so nobody expects one.
    #[error("the payload is empty")]
    EmptyPayload,
}

/// Whose reading rules apply; AWS's two programs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// As AWS's plugin reads: the digest must be right; the two publication messages are not checked at all.
    Client,
    /// As AWS's agent reads: the digest is not looked at. Our door reads so too, because clients in the field were
    /// only ever tried against this reader; the bytes are protected by TLS.
    Agent,
}

/// The types of message, by the names in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageType {
    /// Client to agent: numbered stream data.
    InputStreamData,
    /// Agent to client: numbered stream data.
    OutputStreamData,
    /// Acknowledges one message of stream data.
    Acknowledge,
    /// The server ends the session for whoever receives it.
    ChannelClosed,
    /// The other end of the session is back.
    StartPublication,
    /// The other end of the session is away.
    PausePublication,
    /// Agent to server on the data channel: the session's state there.
    AgentSessionState,
    /// Server to agent on the control channel: start a session.
    InteractiveShell,
    /// Server to agent: a job of Run Command.
    AgentJob,
    /// Agent to server: the job arrived, or why not.
    AgentJobAck,
    /// Agent to server: outcome of a job.
    AgentJobReply,
    /// Server to agent: the outcome arrived.
    AgentJobReplyAck,
    /// Agent to server: a session's task has ended.
    AgentTaskComplete,
    /// Server to agent: the end of the task arrived.
    AgentTaskAcknowledge,
    /// Agent to server: measurements of the agent.
    AgentTelemetry,
    /// Agent to server: how an update of the agent went.
    AgentUpdateResult,
    /// A type that this version does not know.
    Other(Box<str>),
}

impl MessageType {
    const KNOWN: [(Self, &'static str); 16] = [
        (Self::InputStreamData, "input_stream_data"),
        (Self::OutputStreamData, "output_stream_data"),
        (Self::Acknowledge, "acknowledge"),
        (Self::ChannelClosed, "channel_closed"),
        (Self::StartPublication, "start_publication"),
        (Self::PausePublication, "pause_publication"),
        (Self::AgentSessionState, "agent_session_state"),
        (Self::InteractiveShell, "interactive_shell"),
        (Self::AgentJob, "agent_job"),
        (Self::AgentJobAck, "agent_job_ack"),
        (Self::AgentJobReply, "agent_job_reply"),
        (Self::AgentJobReplyAck, "agent_job_reply_ack"),
        (Self::AgentTaskComplete, "agent_task_complete"),
        (Self::AgentTaskAcknowledge, "agent_task_acknowledge"),
        (Self::AgentTelemetry, "agent_telemetry"),
        (Self::AgentUpdateResult, "agent_update_result"),
    ];

    /// Returns the type of that name.
    pub fn from_name(name: &str) -> Self {
        let known = Self::KNOWN.into_iter().find(|(_, text)| *text == name);
        known.map_or_else(|| Self::Other(name.into()), |(known, _)| known)
    }

    /// Returns the name as it stands in the header.
    pub fn name(&self) -> &str {
        if let Self::Other(name) = self {
            return name;
        }
        Self::KNOWN.iter().find(|(known, _)| known == self).map_or("", |(_, text)| text)
    }

    /// Reads the padded field: NULs go first, then white space, as both programs of AWS do it.
    fn from_field(field: &[u8]) -> Self {
        let text = String::from_utf8_lossy(field);
        Self::from_name(text.trim_matches('\0').trim())
    }

    const fn is_publication(&self) -> bool {
        matches!(self, Self::StartPublication | Self::PausePublication)
    }
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the payload of stream data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadType {
    /// 0, of messages that are no stream data.
    None,
    /// 1: bytes of keyboard, terminal or connection, in either direction.
    Output,
    /// 2: without a user.
    Error,
    /// 3: the terminal's size, [`Size`](super::payload::Size).
    Size,
    /// 4: without a user.
    Parameter,
    /// 5: [`HandshakeRequest`](super::payload::HandshakeRequest).
    HandshakeRequest,
    /// 6: [`HandshakeResponse`](super::payload::HandshakeResponse).
    HandshakeResponse,
    /// 7: [`HandshakeComplete`](super::payload::HandshakeComplete).
    HandshakeComplete,
    /// 8: [`EncryptionChallenge`](super::payload::EncryptionChallenge) of the agent.
    EncChallengeRequest,
    /// 9: the client's answer to it.
    EncChallengeResponse,
    /// 10: [`Flag`](super::payload::Flag).
    Flag,
    /// 11: what the program wrote to standard error.
    StdErr,
    /// 12: the program's exit status, [`exit_code`](super::payload::exit_code).
    ExitCode,
    /// A number that this version does not know.
    Other(u32),
}

impl PayloadType {
    const KNOWN: [Self; 13] = [
        Self::None,
        Self::Output,
        Self::Error,
        Self::Size,
        Self::Parameter,
        Self::HandshakeRequest,
        Self::HandshakeResponse,
        Self::HandshakeComplete,
        Self::EncChallengeRequest,
        Self::EncChallengeResponse,
        Self::Flag,
        Self::StdErr,
        Self::ExitCode,
    ];

    /// Returns the type of that number.
    pub fn from_number(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|index| Self::KNOWN.get(index).copied());
        known.unwrap_or(Self::Other(number))
    }

    /// Returns the number as it stands in the header.
    pub fn number(self) -> u32 {
        if let Self::Other(number) = self {
            return number;
        }
        Self::KNOWN.iter().zip(0..).find(|(known, _)| **known == self).map_or(0, |(_, number)| number)
    }

    /// Tells whether AWS's plugin looks for this type only in order (5, 7, 8): taken from its reorder buffer, such a
    /// message would be printed instead.
    pub const fn is_handshake_of_agent(self) -> bool {
        matches!(self, Self::HandshakeRequest | Self::HandshakeComplete | Self::EncChallengeRequest)
    }
}

/// A UUID that names one message.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MessageId(pub [u8; 16]);

impl MessageId {
    /// Reads the canonical text form.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = [8, 13, 18, 23];
        if bytes.len() != 36 || dashes.iter().any(|at| bytes.get(*at) != Some(&b'-')) {
            return None;
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text.replace('-', ""), &mut id).ok()?;
        Some(Self(id))
    }

    fn halves(self) -> (u64, u64) {
        let value = u128::from_be_bytes(self.0);
        ((value >> 64) as u64, value as u64)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, low) = self.halves();
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One message of a data or control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentMessage {
    /// What kind of message it is.
    pub kind: MessageType,
    /// Version of the layout; always 1.
    pub schema_version: u32,
    /// When it was made, in milliseconds since 1970; never 0.
    pub created_ms: u64,
    /// Number in its stream, from 0; 0 on messages outside a stream.
    pub sequence: i64,
    /// [`FLAG_SYN`] and [`FLAG_FIN`].
    pub flags: u64,
    /// Name of this message.
    pub id: MessageId,
    /// What the payload is.
    pub payload_type: PayloadType,
    /// The payload.
    pub payload: Bytes,
}

impl AgentMessage {
    /// Makes a message outside the numbered streams.
    pub fn new(kind: MessageType, id: MessageId, created_ms: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            schema_version: SCHEMA_VERSION,
            created_ms,
            sequence: 0,
            flags: 0,
            id,
            payload_type: PayloadType::None,
            payload: payload.into(),
        }
    }

    /// Writes the message as the content of one binary WebSocket message.
    pub fn encode(&self) -> Result<Bytes, MessageError> {
        let name = self.kind.name().as_bytes();
        if name.len() > TYPE_LENGTH {
            return Err(MessageError::LongType);
        }
        if self.payload.is_empty() {
            return Err(MessageError::EmptyPayload);
        }
        let length = u32::try_from(self.payload.len()).map_err(|_| MessageError::TooLarge(self.payload.len()))?;
        let (high, low) = self.id.halves();
        let mut out = BytesMut::with_capacity(PREFIX + self.payload.len());
        out.put_u32(HEADER_LENGTH);
        out.put_slice(name);
        out.put_bytes(b' ', TYPE_LENGTH - name.len());
        out.put_u32(self.schema_version);
        out.put_u64(self.created_ms);
        out.put_i64(self.sequence);
        out.put_u64(self.flags);
        out.put_u64(low);
        out.put_u64(high);
        out.put_slice(digest::digest(&digest::SHA256, &self.payload).as_ref());
        out.put_u32(self.payload_type.number());
        out.put_u32(length);
        out.put_slice(&self.payload);
        Ok(out.freeze())
    }

    /// Reads the content of one binary WebSocket message; the payload shares its memory.
    pub fn decode(frame: impl Into<Bytes>, reader: Reader) -> Result<Self, MessageError> {
        let frame = frame.into();
        if frame.len() > MAX_MESSAGE {
            return Err(MessageError::TooLarge(frame.len()));
        }
        let header = Header::read(&frame)?;
        // The payload is all that follows the header, whatever the length field says: both of AWS's readers count
        // so, in 32 bits that wrap.
        let start = header.header_length.wrapping_add(4);
        let start = usize::try_from(start).map_err(|_| MessageError::Truncated)?;
        if start > frame.len() {
            return Err(MessageError::Truncated);
        }
        let payload = frame.slice(start..);
        header.check(&payload, reader)?;
        Ok(Self {
            kind: header.kind,
            schema_version: header.schema_version,
            created_ms: header.created_ms,
            sequence: header.sequence,
            flags: header.flags,
            id: header.id,
            payload_type: PayloadType::from_number(header.payload_type),
            payload,
        })
    }
}

/// The fixed fields in front of the payload.
struct Header {
    header_length: u32,
    kind: MessageType,
    schema_version: u32,
    created_ms: u64,
    sequence: i64,
    flags: u64,
    id: MessageId,
    digest: [u8; 32],
    payload_type: u32,
    payload_length: u32,
}

impl Header {
    fn read(mut from: &[u8]) -> Result<Self, MessageError> {
        if from.len() < PREFIX {
            return Err(MessageError::Truncated);
        }
        let header_length = from.get_u32();
        let kind = MessageType::from_field(&array::<TYPE_LENGTH>(&mut from));
        let schema_version = from.get_u32();
        let created_ms = from.get_u64();
        let sequence = from.get_i64();
        let flags = from.get_u64();
        let low = from.get_u64();
        let high = from.get_u64();
        let id = MessageId(((u128::from(high) << 64) | u128::from(low)).to_be_bytes());
        let digest = array(&mut from);
        let payload_type = from.get_u32();
        let payload_length = from.get_u32();
        Ok(Self {
            header_length,
            kind,
            schema_version,
            created_ms,
            sequence,
            flags,
            id,
            digest,
            payload_type,
            payload_length,
        })
    }

    fn check(&self, payload: &[u8], reader: Reader) -> Result<(), MessageError> {
        if reader == Reader::Client && self.kind.is_publication() {
            return Ok(());
        }
        if self.header_length == 0 {
            return Err(MessageError::HeaderLength);
        }
        if self.kind.name().is_empty() {
            return Err(MessageError::BlankType);
        }
        if self.created_ms == 0 {
            return Err(MessageError::NoDate);
        }
        let checked = reader == Reader::Client && self.payload_length != 0;
        if checked && digest::digest(&digest::SHA256, payload).as_ref() != self.digest {
            return Err(MessageError::Digest);
        }
        Ok(())
    }
}

fn array<const N: usize>(from: &mut &[u8]) -> [u8; N] {
    let mut out = [0; N];
    from.copy_to_slice(&mut out);
    out
}

#[cfg(test)]
mod tests;
