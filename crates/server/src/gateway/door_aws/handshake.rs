//! The handshake that tells a client the type of its session: for commands without a terminal, and for ports.
//!
//! Shells and interactive commands have none; their first output tells the client enough. KMS encryption is not
//! offered: AWS's client asks AWS's KMS for the key, whatever endpoint it was given.

use std::time::Duration;

use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::{
    HandshakeComplete, HandshakeRequest, HandshakeResponse, RequestedAction, json, parse,
};
use serde_json::Value;
use tokio::time::Instant;

use super::data_channel::{DataChannel, Outgoing};

/// How long the client may take to answer, as with AWS's agent.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// The version of AWS's agent whose features this door has. Clients compare four numbers: above 3.1.1511.0 they
/// multiplex ports without keep-alives and end sessions by the flag.
const AGENT_VERSION: &str = "3.3.0.0";

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The client is gone.
    #[error("the client left during the handshake")]
    Gone,
    /// No answer.
    #[error("the client did not answer the handshake within 15 s")]
    TimedOut,
    /// Not the answer that was asked for.
    #[error("the client's answer to the handshake cannot be read: {0}")]
    Malformed(String),
    /// The client cannot do what the session needs.
    #[error("the client cannot take up a session of type {session_type}: {why}")]
    Refused {
        /// The session's type.
        session_type: &'static str,
        /// In the client's words.
        why: String,
    },
}

/// Asks the client to take up a session of a type and returns its version. What the client is told with the last
/// message, `message`, may depend on that version.
pub(super) async fn perform(
    channel: &mut DataChannel,
    session_type: &'static str,
    properties: Value,
    message: impl FnOnce(&str) -> String,
) -> Result<String, HandshakeError> {
    let begun = Instant::now();
    let action = RequestedAction::SessionType { session_type: session_type.to_owned(), properties };
    let request = HandshakeRequest { agent_version: AGENT_VERSION.to_owned(), requested_client_actions: vec![action] };
    let sent = channel.send(Outgoing::Payload(PayloadType::HandshakeRequest, json(&request))).await;
    sent.map_err(|_| HandshakeError::Gone)?;
    let answered = tokio::time::timeout(ANSWER_LIMIT, answer(channel)).await;
    let response = answered.map_err(|_| HandshakeError::TimedOut)??;
    if let Some(failed) = response.failure() {
        let why = match failed.error.chars().take(256).collect::<String>() {
            error if error.is_empty() => {
                format!("it answered {} with status {}", failed.action_type, failed.action_status)
            }
            error => error,
        };
        return Err(HandshakeError::Refused { session_type, why });
    }
    let complete = HandshakeComplete {
        handshake_time_to_complete: i64::try_from(begun.elapsed().as_nanos()).unwrap_or(i64::MAX),
        customer_message: message(&response.client_version),
    };
    let sent = channel.send(Outgoing::Payload(PayloadType::HandshakeComplete, json(&complete))).await;
    sent.map_err(|_| HandshakeError::Gone)?;
    Ok(response.client_version)
}

/// Waits for the answer. Anything else that comes before it belongs to no session yet and is nothing.
async fn answer(channel: &mut DataChannel) -> Result<HandshakeResponse, HandshakeError> {
    loop {
        match channel.incoming.recv().await {
            Some((PayloadType::HandshakeResponse, payload)) => {
                return parse("handshake response", &payload)
                    .map_err(|error| HandshakeError::Malformed(error.to_string()));
            }
            Some(_) => {}
            None => return Err(HandshakeError::Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::gateway::door_aws::data_channel::PumpEnd;

    const SUCCESS: &str = r#"{"ClientVersion":"1.2.650.0","ProcessedClientActions":[{"ActionType":"SessionType",
        "ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}"#;

    async fn with(answer: &str) -> (Result<String, HandshakeError>, PumpEnd) {
        let (mut channel, mut pump) = DataChannel::new();
        let answer = Bytes::copy_from_slice(answer.as_bytes());
        pump.to_kind.send((PayloadType::Size, Bytes::from_static(b"{}"))).await.unwrap();
        let ours = perform(&mut channel, "NonInteractiveCommands", Value::Null, |version| format!("for {version}"));
        let theirs = async {
            let Some(Outgoing::Payload(PayloadType::HandshakeRequest, request)) = pump.from_kind.recv().await else {
                panic!("no request")
            };
            assert_eq!(
                std::str::from_utf8(&request).unwrap(),
                r#"{"AgentVersion":"3.3.0.0","RequestedClientActions":[{"ActionType":"SessionType","ActionParameters":{"SessionType":"NonInteractiveCommands","Properties":null}}]}"#
            );
            pump.to_kind.send((PayloadType::HandshakeResponse, answer)).await.unwrap();
        };
        let (done, ()) = tokio::join!(ours, theirs);
        (done, pump)
    }

    #[tokio::test]
    async fn a_client_that_agrees_is_told_so() {
        let (done, mut pump) = with(SUCCESS).await;
        assert_eq!(done.unwrap(), "1.2.650.0");
        let Some(Outgoing::Payload(PayloadType::HandshakeComplete, complete)) = pump.from_kind.recv().await else {
            panic!("not complete")
        };
        let complete: HandshakeComplete = parse("complete", &complete).unwrap();
        assert_eq!(complete.customer_message, "for 1.2.650.0");
    }

    #[tokio::test]
    async fn any_other_status_and_any_other_answer_ends_it() {
        for status in ["0", "2", "3", "-7"] {
            let (done, _) = with(&SUCCESS.replace("\"ActionStatus\":1", &format!("\"ActionStatus\":{status}"))).await;
            assert!(matches!(done, Err(HandshakeError::Refused { .. })), "{done:?}");
        }
        for bad in ["", "[]", "{}", "\u{0}"] {
            assert!(matches!(with(bad).await.0, Err(HandshakeError::Malformed(_))), "{bad}");
        }
    }
}
