//! The payloads against the texts in the vectors, and against text that is none.

use std::fmt::Debug;

use super::*;

fn vector(name: &str) -> String {
    let text = include_str!("../../../../tests/vectors/agent-messages.json");
    let all: Value = serde_json::from_str(text).unwrap();
    let all = all["vectors"].as_array().unwrap();
    let found = all.iter().find(|vector| vector["name"] == name).unwrap_or_else(|| panic!("no vector {name}"));
    found["payload_text"].as_str().unwrap().to_owned()
}

fn round_trip<T: Serialize + DeserializeOwned + Debug>(name: &str) -> T {
    let text = vector(name);
    let value: T = parse("payload", text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(json(&value).to_vec()).unwrap(), text);
    value
}

#[test]
fn every_payload_is_written_byte_for_byte_as_aws_writes_it() {
    round_trip::<Acknowledge>("acknowledge_of_output");
    round_trip::<Acknowledge>("acknowledge_of_input");
    round_trip::<HandshakeRequest>("output_handshake_request_shell");
    round_trip::<HandshakeRequest>("output_handshake_request_kms");
    round_trip::<HandshakeResponse>("input_handshake_response");
    round_trip::<HandshakeComplete>("output_handshake_complete");
    round_trip::<HandshakeComplete>("output_handshake_complete_message");
    round_trip::<EncryptionChallenge>("output_enc_challenge_request");
    round_trip::<EncryptionChallenge>("input_enc_challenge_response");
    round_trip::<ChannelClosed>("channel_closed_no_output");
    round_trip::<ChannelClosed>("channel_closed_with_output");
    round_trip::<AgentSessionState>("agent_session_state_connected");
    round_trip::<AgentTaskComplete>("agent_task_complete");
    round_trip::<AgentTaskAcknowledge>("agent_task_acknowledge");
    assert_eq!(round_trip::<Size>("input_size"), Size { cols: 80, rows: 24 });
    let shell = round_trip::<InteractiveShell>("interactive_shell");
    let content: ShellContent = parse("session", shell.content.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(json(&content).to_vec()).unwrap(), shell.content);
}

#[test]
fn the_properties_of_a_port_are_read_from_the_handshake() {
    let text = vector("output_handshake_request_port");
    let request: HandshakeRequest = parse("handshake", text.as_bytes()).unwrap();
    let [RequestedAction::SessionType { session_type, properties }] = request.requested_client_actions.as_slice()
    else {
        panic!("{request:?}")
    };
    assert_eq!(session_type, "Port");
    let properties: PortProperties = serde_json::from_value(properties.clone()).unwrap();
    assert_eq!(properties.kind.as_deref(), Some(LOCAL_PORT_FORWARDING));
}

#[test]
fn an_action_that_is_not_known_is_kept_by_its_name() {
    let text = br#"{"AgentVersion":"9","RequestedClientActions":[{"ActionType":"Dance","ActionParameters":{"x":1}}]}"#;
    let request: HandshakeRequest = parse("handshake", text).unwrap();
    let [RequestedAction::Other { action_type, .. }] = request.requested_client_actions.as_slice() else {
        panic!("{request:?}")
    };
    assert_eq!(action_type, "Dance");
}

#[test]
fn a_handshake_fails_by_its_first_action_that_did() {
    let action = |status| ProcessedAction {
        action_type: format!("a{status}"),
        action_status: status,
        action_result: Value::Null,
        error: String::new(),
    };
    let response = |statuses: &[i64]| HandshakeResponse {
        client_version: "1.2.0.0".into(),
        processed_client_actions: statuses.iter().map(|status| action(*status)).collect(),
        errors: None,
    };
    assert_eq!(response(&[1, 1]).failure(), None);
    for status in [0, 2, 3] {
        assert_eq!(response(&[1, status, 1]).failure().map(|action| action.action_status), Some(status));
    }
}

#[test]
fn the_open_message_hides_its_token_and_takes_every_form() {
    let client = br#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"hush","ClientId":"c"}"#;
    let open: OpenDataChannel = parse("open message", client).unwrap();
    assert_eq!(open.token_value.expose(), "hush");
    assert!(!format!("{open:?}").contains("hush"));
    assert_eq!(json(&open), client.as_slice());
    let agent =
        br#"{"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","ClientId":"","ClientInstanceId":"mi-1"}"#;
    let open: OpenDataChannel = parse("open message", agent).unwrap();
    assert_eq!(open.client_instance_id.as_deref(), Some("mi-1"));
    let control = br#"{"Cookie":null,"MessageSchemaVersion":"1.0","RequestId":"r","TokenValue":"t","AgentVersion":"3.3.0.0","PlatformType":"linux"}"#;
    let open: OpenControlChannel = parse("open message", control).unwrap();
    assert_eq!(json(&open), control.as_slice());
}

#[test]
fn an_error_names_the_payload_and_repeats_nothing_of_it() {
    let error = parse::<OpenDataChannel>("open message", br#"{"TokenValue":"hush", "ClientId":7}"#).unwrap_err();
    assert!(error.to_string().starts_with("the payload is no open message"), "{error}");
    assert!(!error.to_string().contains("hush"));
}

#[test]
fn flags_and_exit_codes_go_both_ways() {
    for flag in [Flag::DisconnectToPort, Flag::TerminateSession, Flag::ConnectToPortError] {
        assert_eq!(Flag::parse(&flag.bytes()), Some(flag));
    }
    assert_eq!(Flag::TerminateSession.bytes(), [0, 0, 0, 2].as_slice());
    for wrong in [&[][..], &[2], &[0, 0, 0, 4], &[0, 0, 0, 2, 0]] {
        assert_eq!(Flag::parse(wrong), None);
    }
    assert_eq!(exit_code(127), b"EXIT_CODE: 127".as_slice());
    assert_eq!(parse_exit_code(b"EXIT_CODE: -1"), Some(-1));
    for wrong in [&b"127"[..], b"EXIT_CODE: ", b"EXIT_CODE: 99999999999", b"\xff"] {
        assert_eq!(parse_exit_code(wrong), None);
    }
}

#[test]
fn a_quarter_million_mutated_payloads_neither_panic_nor_pass_for_something_large() {
    let names = ["interactive_shell", "output_handshake_request_kms", "input_handshake_response", "input_size"];
    let names = [&names[..], &["agent_task_complete", "acknowledge_of_output", "channel_closed_with_output"]].concat();
    let texts: Vec<Vec<u8>> = names.iter().map(|name| vector(name).into_bytes()).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut read = 0;
    for _ in 0..1 << 18 {
        let mut text = texts[(next() % texts.len() as u64) as usize].clone();
        for _ in 0..next() % 3 {
            let at = (next() % text.len() as u64) as usize;
            text[at] = b"\"{}[],:0n\\\xff "[(next() % 12) as usize];
        }
        read += match next() % 8 {
            0 => usize::from(parse::<HandshakeRequest>("x", &text).is_ok()),
            1 => usize::from(parse::<HandshakeResponse>("x", &text).is_ok()),
            2 => usize::from(parse::<InteractiveShell>("x", &text).is_ok()),
            3 => usize::from(parse::<AgentTaskComplete>("x", &text).is_ok()),
            4 => usize::from(parse::<ChannelClosed>("x", &text).is_ok()),
            5 => usize::from(parse::<Size>("x", &text).is_ok()),
            6 => usize::from(parse::<ShellContent>("x", &text).is_ok()),
            _ => usize::from(parse::<Acknowledge>("x", &text).is_ok()),
        };
    }
    assert!(read > 1 << 12, "{read}");
}
