//! The vectors taken from AWS's serialisers and parsers, and what hostile frames do.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    name: String,
    kind: String,
    hex: Option<String>,
    message_type: Option<String>,
    schema_version: Option<u32>,
    created_date: Option<u64>,
    sequence_number: Option<i64>,
    flags: Option<u64>,
    message_id: Option<String>,
    payload_type: Option<u32>,
    payload_hex: Option<String>,
    serialize: Option<String>,
    client: Option<Verdict>,
    agent: Option<Verdict>,
    parsed: Option<Parsed>,
}

#[derive(Deserialize)]
struct Verdict {
    accepted: bool,
    parsed: Option<Parsed>,
}

#[derive(Deserialize)]
struct Parsed {
    message_type: String,
    schema_version: u32,
    created_date: u64,
    sequence_number: i64,
    flags: u64,
    message_id: String,
    payload_type: u32,
    payload_hex: String,
}

fn vectors() -> Vec<Vector> {
    let text = include_str!("../../../../tests/vectors/agent-messages.json");
    serde_json::from_str::<Vectors>(text).unwrap().vectors
}

/// The message that a vector of a serialiser describes; one without an id cannot be made at all here.
fn described(vector: &Vector) -> Option<AgentMessage> {
    Some(AgentMessage {
        kind: MessageType::from_name(vector.message_type.as_deref().unwrap()),
        schema_version: vector.schema_version.unwrap(),
        created_ms: vector.created_date.unwrap(),
        sequence: vector.sequence_number.unwrap(),
        flags: vector.flags.unwrap(),
        id: MessageId::parse(vector.message_id.as_deref()?)?,
        payload_type: PayloadType::from_number(vector.payload_type.unwrap()),
        payload: hex::decode(vector.payload_hex.as_deref().unwrap()).unwrap().into(),
    })
}

fn check_verdict(vector: &Vector, reader: Reader, verdict: &Verdict, expected: Option<&AgentMessage>) {
    let frame = hex::decode(vector.hex.as_deref().unwrap()).unwrap();
    let decoded = AgentMessage::decode(frame, reader);
    assert_eq!(decoded.is_ok(), verdict.accepted, "{} as {reader:?}: {decoded:?}", vector.name);
    let Ok(decoded) = decoded else { return };
    if let Some(expected) = expected {
        assert_eq!(&decoded, expected, "{}", vector.name);
    }
    if let Some(parsed) = verdict.parsed.as_ref().or(vector.parsed.as_ref()) {
        assert_eq!(decoded.kind.name(), parsed.message_type, "{}", vector.name);
        assert_eq!(decoded.schema_version, parsed.schema_version);
        assert_eq!(decoded.created_ms, parsed.created_date);
        assert_eq!(decoded.sequence, parsed.sequence_number);
        assert_eq!(decoded.flags, parsed.flags);
        assert_eq!(decoded.id.to_string(), parsed.message_id);
        assert_eq!(decoded.payload_type.number(), parsed.payload_type);
        assert_eq!(hex::encode(&decoded.payload), parsed.payload_hex, "{}", vector.name);
    }
}

#[test]
fn every_vector_of_the_reference_programs_is_written_and_judged_as_they_do() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 105);
    for vector in &vectors {
        let mut expected = None;
        if vector.kind == "serialize" {
            expected = described(vector);
            let written = expected.as_ref().and_then(|message| message.encode().ok());
            assert_eq!(written.is_some(), vector.serialize.as_deref() == Some("ok"), "{}", vector.name);
            assert_eq!(written.map(hex::encode), vector.hex, "{}", vector.name);
        }
        let verdicts = [(Reader::Client, vector.client.as_ref()), (Reader::Agent, vector.agent.as_ref())];
        for (reader, verdict) in verdicts {
            if let Some(verdict) = verdict {
                check_verdict(vector, reader, verdict, expected.as_ref());
            }
        }
    }
}

#[test]
fn the_header_length_is_116_and_the_payload_begins_at_120() {
    let message = AgentMessage::new(MessageType::Acknowledge, MessageId([7; 16]), 1, "x");
    let frame = message.encode().unwrap();
    assert_eq!(frame[..4], [0, 0, 0, 116]);
    assert_eq!(frame[120..], *b"x");
}

#[test]
fn the_halves_of_the_id_are_swapped_on_the_wire_and_not_in_text() {
    let text = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    let id = MessageId::parse(text).unwrap();
    assert_eq!(id.to_string(), text);
    let frame = AgentMessage::new(MessageType::Acknowledge, id, 1, "x").encode().unwrap();
    assert_eq!(frame[64..80], [8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7]);
    for wrong in ["", "00010203-0405-0607-0809", "00010203040506070809-0a0b0c0d0e0f0000", &text.replace('-', "é")] {
        assert_eq!(MessageId::parse(wrong), None, "{wrong}");
    }
}

#[test]
fn names_and_numbers_go_both_ways() {
    for (kind, name) in MessageType::KNOWN {
        assert_eq!(MessageType::from_name(name), kind);
        assert_eq!(kind.name(), name);
    }
    assert_eq!(MessageType::from_name("agent_task_reply").name(), "agent_task_reply");
    for number in 0..20 {
        assert_eq!(PayloadType::from_number(number).number(), number);
    }
}

#[test]
fn a_message_of_the_npm_package_ssm_session_is_read_as_the_agent_reads_it() {
    // Its type stands behind its padding, and its digest is half of the hexadecimal text.
    let frame = "00000074000000000000000000000000000000696e7075745f73747265616d5f6461746100000001000001a20193631c0000000000\
                 0000010000000000000000a50cdefc2facb1adf963e8611cfc4a6d37353033623833323133306334363136356439343735396234\
                 33313337313163000000010000000c6563686f20ed959ceab8800a";
    let frame = hex::decode(frame).unwrap();
    let message = AgentMessage::decode(frame.clone(), Reader::Agent).unwrap();
    assert_eq!((message.kind, message.sequence), (MessageType::InputStreamData, 1));
    assert_eq!(message.payload, "echo 한글\n");
    assert_eq!(AgentMessage::decode(frame, Reader::Client), Err(MessageError::Digest));
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let frame = vec![0; MAX_MESSAGE + 1];
    assert_eq!(AgentMessage::decode(frame, Reader::Agent), Err(MessageError::TooLarge(MAX_MESSAGE + 1)));
}

#[test]
fn a_quarter_million_mutated_frames_neither_panic_nor_grow() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let frames: Vec<Vec<u8>> =
        vectors().iter().filter_map(|vector| vector.hex.as_deref()).map(|hex| hex::decode(hex).unwrap()).collect();
    let mut accepted = 0;
    for _ in 0..1 << 18 {
        let mut frame = frames[(next() % frames.len() as u64) as usize].clone();
        for _ in 0..next() % 4 {
            if !frame.is_empty() {
                let at = (next() % frame.len().min(124) as u64) as usize;
                frame[at] = next() as u8;
            }
        }
        if next() % 4 == 0 {
            frame.truncate((next() % (frame.len() as u64 + 1)) as usize);
        }
        let length = frame.len();
        let reader = if next() % 2 == 0 { Reader::Client } else { Reader::Agent };
        if let Ok(message) = AgentMessage::decode(frame, reader) {
            accepted += 1;
            assert!(message.payload.len() <= length);
            assert!(message.kind.name().len() <= 3 * TYPE_LENGTH);
        }
    }
    assert!(accepted > 1 << 14, "{accepted}");
}
