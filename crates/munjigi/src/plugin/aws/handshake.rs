//! The agreement before a session begins, on the client's side: what kind of session it is, and that there is no
//! encryption by KMS. Messages in, answers out; no I/O.
//!
//! Sessions without a handshake (shells of AWS's service without KMS) simply begin with output.

use bytes::Bytes;
use munjigi_core::wire::aws::payload::{
    self, AgentFeatures, HandshakeComplete, HandshakeRequest, HandshakeResponse, LOCAL_PORT_FORWARDING, PortProperties,
    ProcessedAction, RequestedAction,
};
use serde_json::Value;

use crate::plugin::VERSION;

/// The kinds of session that are a shell to the client.
const SHELLS: [&str; 3] = ["Standard_Stream", "InteractiveCommands", "NonInteractiveCommands"];

/// What a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Terminal or command. The name tells whether there is a terminal.
    Shell {
        /// Whether the program has a terminal.
        terminal: bool,
    },
    /// Connections to a port.
    Port(PortKind),
}

/// What a port session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortKind {
    /// Many connections over one stream, one after another, or standard input and output.
    pub(crate) mode: PortMode,
    /// Where the client listens.
    pub(crate) properties: PortProperties,
    /// What the agent can do.
    pub(crate) features: AgentFeatures,
}

/// How the connections of a port session travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortMode {
    /// smux: any number at a time.
    Multiplexed,
    /// One at a time, its bytes as they are.
    Single,
    /// One, which is standard input and output.
    Stdio,
}

/// What a message of the handshake asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this response.
    Respond(Bytes),
    /// Send this response; the session cannot be carried, and why.
    RespondAndFail(Bytes, String),
    /// The session begins, with these words for the person if there are any.
    Begin(Kind, Option<String>),
    /// The other side broke the rules.
    Fail(String),
}

/// The state of the agreement.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    kind: Option<Kind>,
}

impl Handshake {
    /// Takes a `HandshakeRequest`.
    pub(crate) fn requested(&mut self, payload: &[u8]) -> Step {
        let request: HandshakeRequest = match payload::parse("HandshakeRequest", payload) {
            Ok(request) => request,
            Err(error) => return Step::Fail(error.to_string()),
        };
        let features = AgentFeatures::of(&request.agent_version);
        let mut failure = None;
        let processed: Vec<_> = request
            .requested_client_actions
            .iter()
            .map(|action| {
                let (name, result) = match action {
                    RequestedAction::SessionType { session_type, properties } => {
                        ("SessionType", self.session_type(session_type, properties, features))
                    }
                    RequestedAction::KmsEncryption { kms_key_id, .. } => (
                        "KMSEncryption",
                        Err((
                            ProcessedAction::FAILED,
                            format!(
                                "the session is to be encrypted with the KMS key {kms_key_id}, which this program does \
                                 not do: use AWS's own session-manager-plugin, or a session document without kmsKeyId"
                            ),
                        )),
                    ),
                    RequestedAction::Other { action_type, .. } => (
                        action_type.as_str(),
                        Err((ProcessedAction::UNSUPPORTED, format!("this program knows no action {action_type}"))),
                    ),
                };
                let (action_status, error) = match result {
                    Ok(()) => (ProcessedAction::SUCCESS, String::new()),
                    Err((status, error)) => {
                        failure.get_or_insert_with(|| error.clone());
                        (status, error)
                    }
                };
                ProcessedAction { action_type: name.to_owned(), action_status, action_result: Value::Null, error }
            })
            .collect();
        let errors = failure.clone().map(|error| vec![error]);
        let response =
            HandshakeResponse { client_version: VERSION.to_owned(), processed_client_actions: processed, errors };
        match failure {
            None => Step::Respond(payload::json(&response)),
            Some(why) => Step::RespondAndFail(payload::json(&response), why),
        }
    }

    fn session_type(&mut self, name: &str, properties: &Value, features: AgentFeatures) -> Result<(), (i64, String)> {
        self.kind = Some(if SHELLS.contains(&name) {
            Kind::Shell { terminal: name != "NonInteractiveCommands" }
        } else if name == "Port" {
            let properties: PortProperties = match properties {
                Value::Null => PortProperties::default(),
                other => serde_json::from_value(other.clone()).map_err(|_| {
                    (ProcessedAction::FAILED, "the properties of the port session are not usable".to_owned())
                })?,
            };
            Kind::Port(PortKind { mode: port_mode(&properties, features), properties, features })
        } else {
            return Err((ProcessedAction::FAILED, format!("this program knows no session type {name}")));
        });
        Ok(())
    }

    /// Takes a `HandshakeComplete`.
    pub(crate) fn completed(&mut self, payload: &[u8]) -> Step {
        let complete: HandshakeComplete = match payload::parse("HandshakeComplete", payload) {
            Ok(complete) => complete,
            Err(error) => return Step::Fail(error.to_string()),
        };
        match self.kind.take() {
            Some(kind) => Step::Begin(kind, Some(complete.customer_message).filter(|message| !message.is_empty())),
            None => Step::Fail("the service began a session without saying of which type".to_owned()),
        }
    }
}

/// The client's choice depends on the agent's version alone, and the agent expects exactly this one.
fn port_mode(properties: &PortProperties, features: AgentFeatures) -> PortMode {
    match properties.kind.as_deref() {
        Some(LOCAL_PORT_FORWARDING) if features.multiplexing => PortMode::Multiplexed,
        Some(LOCAL_PORT_FORWARDING) => PortMode::Single,
        _ => PortMode::Stdio,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: &str, actions: &str) -> Vec<u8> {
        format!(r#"{{"AgentVersion":"{version}","RequestedClientActions":[{actions}]}}"#).into_bytes()
    }

    fn session_type(name: &str, properties: &str) -> String {
        format!(
            r#"{{"ActionType":"SessionType","ActionParameters":{{"SessionType":"{name}","Properties":{properties}}}}}"#
        )
    }

    fn begun(version: &str, name: &str, properties: &str) -> Kind {
        let mut handshake = Handshake::default();
        let Step::Respond(response) = handshake.requested(&request(version, &session_type(name, properties))) else {
            panic!("{name} was not accepted");
        };
        let response: HandshakeResponse = payload::parse("HandshakeResponse", &response).unwrap();
        assert_eq!((response.client_version.as_str(), response.failure()), (VERSION, None));
        let complete = br#"{"HandshakeTimeToComplete":5,"CustomerMessage":"hello"}"#;
        match handshake.completed(complete) {
            Step::Begin(kind, Some(message)) if message == "hello" => kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_type_of_session_becomes_its_kind() {
        for (name, terminal) in
            [("Standard_Stream", true), ("InteractiveCommands", true), ("NonInteractiveCommands", false)]
        {
            assert_eq!(begun("3.3.0.0", name, "null"), Kind::Shell { terminal });
        }
        for (version, properties, mode) in [
            ("3.3.0.0", r#"{"portNumber":"80","type":"LocalPortForwarding"}"#, PortMode::Multiplexed),
            ("3.0.196.0", r#"{"portNumber":"80","type":"LocalPortForwarding"}"#, PortMode::Single),
            ("x", r#"{"portNumber":"80","type":"LocalPortForwarding"}"#, PortMode::Single),
            ("3.3.0.0", r#"{"portNumber":"22"}"#, PortMode::Stdio),
            ("3.3.0.0", "null", PortMode::Stdio),
        ] {
            let Kind::Port(port) = begun(version, "Port", properties) else { panic!("{properties}") };
            assert_eq!(port.mode, mode, "{version} {properties}");
        }
    }

    #[test]
    fn what_cannot_be_carried_is_answered_and_explained() {
        let kms =
            r#"{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"arn:aws:kms:k","Challenge":"AA=="}}"#;
        let other = r#"{"ActionType":"Dance","ActionParameters":null}"#;
        for (actions, status, words) in [
            (session_type("Standard_Stream", "null") + "," + kms, 2, "KMS key arn:aws:kms:k"),
            (session_type("Telepathy", "null"), 2, "no session type Telepathy"),
            (session_type("Port", "[1]"), 2, "not usable"),
            (other.to_owned(), 3, "no action Dance"),
        ] {
            let Step::RespondAndFail(response, why) = Handshake::default().requested(&request("3.3.0.0", &actions))
            else {
                panic!("{actions}");
            };
            assert!(why.contains(words), "{why}");
            let response: HandshakeResponse = payload::parse("HandshakeResponse", &response).unwrap();
            let failed = response.failure().unwrap();
            assert_eq!(failed.action_status, status);
            assert!(failed.error.contains(words));
        }
    }

    #[test]
    fn a_broken_handshake_ends_in_words() {
        assert!(matches!(Handshake::default().requested(b"{"), Step::Fail(_)));
        assert!(matches!(Handshake::default().completed(b"[]"), Step::Fail(_)));
        assert!(matches!(Handshake::default().completed(b"{}"), Step::Fail(why) if why.contains("which type")));
    }
}
