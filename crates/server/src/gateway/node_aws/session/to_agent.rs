//! What AWS's agent is sent: input, sizes, answers, and when to pause; in order, and as far as there is room.

use bytes::Bytes;
use munjigi_core::wire::Frame;
use munjigi_core::wire::aws::payload::{
    HandshakeRequest, HandshakeResponse, ProcessedAction, RequestedAction, Size, json, parse,
};
use munjigi_core::wire::aws::{MessageType, PayloadType};

use super::{Goes, INPUT_FULL, MAX_OUTGOING, Phase, Session};
use crate::gateway::node_aws::unix_ms;
use crate::gateway::websocket::Message;

/// What we say we are in the handshake: a version that knows separate output and error.
const CLIENT_VERSION: &str = "1.2.707.0";

impl Session<'_> {
    /// Answers what the agent asks before a session begins. It does not ask for encryption, since no key was named.
    pub(super) fn handshake(&mut self, payload: &[u8]) {
        let Ok(request) = parse::<HandshakeRequest>("handshake", payload) else { return };
        let answer = |action: &RequestedAction| {
            let (name, good) = match action {
                RequestedAction::SessionType { session_type, .. } => ("SessionType", *session_type == self.kind.name()),
                RequestedAction::KmsEncryption { .. } => ("KMSEncryption", false),
                RequestedAction::Other { action_type, .. } => (action_type.as_str(), false),
            };
            ProcessedAction {
                action_type: name.to_owned(),
                action_status: if good { ProcessedAction::SUCCESS } else { ProcessedAction::UNSUPPORTED },
                action_result: serde_json::Value::Null,
                error: if good { String::new() } else { "not asked for by this server".to_owned() },
            }
        };
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: request.requested_client_actions.iter().map(answer).collect(),
            errors: None,
        };
        self.queue(PayloadType::HandshakeResponse, json(&response));
    }

    /// Takes something for the agent. What is beyond [`INPUT_FULL`] is left out: nobody sends as much unacknowledged.
    pub(super) fn queue(&mut self, kind: PayloadType, payload: Bytes) -> bool {
        let fits = self.outgoing_bytes + payload.len() <= INPUT_FULL && self.outgoing.len() < MAX_OUTGOING;
        if fits {
            self.outgoing_bytes += payload.len();
            let end = self.input_end + if kind == PayloadType::Output { payload.len() as u64 } else { 0 };
            self.outgoing.push_back((kind, payload, end));
        }
        fits
    }

    /// Puts what waits into the channel as far as there is room, and remembers where the input ends with each message.
    pub(super) fn fill(&mut self) {
        while let Some((_, payload, _)) = self.outgoing.front()
            && payload.len() <= self.channel.room()
            && let Some((kind, payload, end)) = self.outgoing.pop_front()
        {
            self.outgoing_bytes -= payload.len();
            let before = self.channel.unacknowledged();
            // There is room for it.
            let _ = self.channel.queue(kind, payload);
            let added = self.channel.unacknowledged().saturating_sub(before);
            self.unacknowledged.extend(std::iter::repeat_n(end, added));
        }
    }

    /// Tells the hub which input the agent has taken.
    pub(super) fn acknowledge_input(&mut self) {
        let open = self.channel.unacknowledged();
        while self.unacknowledged.len() > open
            && let Some(end) = self.unacknowledged.pop_front()
        {
            // Of a payload in several messages the last one counts.
            let more = self.unacknowledged.front().is_some_and(|next| *next == end);
            if !more && end > self.input_acked && self.phase == Phase::Running {
                self.input_acked = end;
                self.stream.feed(&Frame::InputAck(end));
            }
        }
    }

    pub(super) fn resize(&mut self, columns: u16, rows: u16) {
        let size = Size { cols: u32::from(columns), rows: u32::from(rows) };
        self.queue(PayloadType::Size, json(&size));
    }

    /// Types a key; it is no input of the session's count.
    pub(super) fn key(&mut self, key: &'static [u8]) {
        if self.queue(PayloadType::Output, Bytes::from_static(key))
            && let Some((_, _, end)) = self.outgoing.back_mut()
        {
            *end = self.input_end;
        }
    }

    /// Makes the next message for the socket.
    pub(super) fn prepare(&mut self) {
        if self.socket.is_none() || self.next.is_some() {
            return;
        }
        self.next = self.aside.take();
        if self.next.is_none() {
            let now = self.now();
            self.next = self.channel.next_transmission(now, unix_ms());
            if self.next.is_some() && self.paused {
                // Whatever it hears lets the agent go on; it is asked to pause again.
                self.publication(true);
            }
        }
    }

    pub(super) fn write(&mut self) -> Goes {
        while let Some(socket) = self.socket.as_deref_mut().filter(|socket| socket.has_room()) {
            let Some(message) = self.next.take() else { break };
            if let Err(error) = socket.put(Message::Binary(message)) {
                return self.lose_socket(&error.to_string());
            }
            self.prepare();
        }
        Goes::Continue(())
    }

    /// Asks the agent to stop printing, or to go on.
    pub(super) fn publication(&mut self, pause: bool) {
        self.paused = pause;
        let kind = if pause { MessageType::PausePublication } else { MessageType::StartPublication };
        // The content is not looked at, but must not be empty.
        self.aside = self.channel.control(kind, Bytes::from_static(b"{}"), unix_ms()).ok();
    }
}
