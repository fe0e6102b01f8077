use std::borrow::Cow;
use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;

use super::*;
use crate::time::Timestamp;
use crate::trust::{KeyId, KeyPurpose, TrustedKey};

const LOG: LogId = LogId([5; 16]);
const START: i64 = 1_795_262_400;

fn record(number: u64) -> AuditRecord {
    AuditRecord {
        event_version: EVENT_VERSION.to_owned(),
        user_identity: UserIdentity {
            kind: UserType::IAMUser,
            principal_id: Some("AIDAAAAAAAAAAAAAAAAAA".to_owned()),
            arn: Some("arn:aws:iam::123456789012:user/alice".to_owned()),
            account_id: Some("123456789012".to_owned()),
            access_key_id: Some("AKIAMUNJIGIEXAMPLE01".to_owned()),
            user_name: Some("alice".to_owned()),
            ..UserIdentity::default()
        },
        event_time: Timestamp::from_secs(START + number as i64),
        event_source: "ssm.amazonaws.com".to_owned(),
        event_name: "StartSession".to_owned(),
        aws_region: "local-1".to_owned(),
        source_ip_address: "192.0.2.7".to_owned(),
        user_agent: Some("aws-cli/2.36.7".to_owned()),
        error_code: None,
        error_message: None,
        request_parameters: Some(json!({"target": "mi-0123456789abcdef0"})),
        response_elements: Some(json!({"sessionId": format!("alice-{number}"), "tokenValue": HIDDEN})),
        additional_event_data: None,
        request_id: Some("5b1c2d3e-0000-4000-8000-000000000000".to_owned()),
        event_id: format!("00000000-0000-4000-8000-{number:012}"),
        read_only: false,
        resources: vec![Resource {
            account_id: Some("123456789012".to_owned()),
            kind: Some("AWS::SSM::ManagedInstance".to_owned()),
            arn: "arn:aws:ssm:local-1:123456789012:managed-instance/mi-0123456789abcdef0".to_owned(),
        }],
        event_type: EventType::AwsApiCall,
        api_version: None,
        management_event: true,
        recipient_account_id: "123456789012".to_owned(),
        shared_event_id: None,
        vpc_endpoint_id: None,
        event_category: "Management".to_owned(),
        addendum: None,
        session_credential_from_console: None,
        edge_device_details: None,
        tls_details: Some(TlsDetails {
            tls_version: "TLSv1.3".to_owned(),
            cipher_suite: "TLS_AES_128_GCM_SHA256".to_owned(),
            client_provided_host_header: "munjigi.example.com".to_owned(),
        }),
    }
}

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn trusted(seed: u8, from: i64, until: i64) -> TrustedKey {
    let public: [u8; 32] = key(seed).public_key().as_ref().try_into().unwrap();
    TrustedKey {
        id: KeyId::of(&public),
        purpose: KeyPurpose::Checkpoint,
        public,
        not_before: Timestamp::from_secs(from),
        not_after: Timestamp::from_secs(until),
    }
}

/// Key 1 was retired before the log began; key 2 is in use.
fn trust() -> Trust {
    Trust { log: LOG, keys: vec![trusted(1, 0, START - 1), trusted(2, 0, i64::MAX / 1_000_000)] }
}

#[test]
fn a_record_has_cloudtrails_fields_in_cloudtrails_order() {
    let json = record(1).to_json().unwrap();
    let wanted = concat!(
        r#"{"eventVersion":"1.11","userIdentity":{"type":"IAMUser","principalId":"AIDAAAAAAAAAAAAAAAAAA","#,
        r#""arn":"arn:aws:iam::123456789012:user/alice","accountId":"123456789012","#,
        r#""accessKeyId":"AKIAMUNJIGIEXAMPLE01","userName":"alice"},"eventTime":"2026-11-21T12:00:01Z","#,
        r#""eventSource":"ssm.amazonaws.com","eventName":"StartSession","awsRegion":"local-1","#,
        r#""sourceIPAddress":"192.0.2.7","userAgent":"aws-cli/2.36.7","#,
        r#""requestParameters":{"target":"mi-0123456789abcdef0"},"#,
        r#""responseElements":{"sessionId":"alice-1","tokenValue":"HIDDEN_DUE_TO_SECURITY_REASONS"},"#,
        r#""requestID":"5b1c2d3e-0000-4000-8000-000000000000","eventID":"00000000-0000-4000-8000-000000000001","#,
        r#""readOnly":false,"resources":[{"accountId":"123456789012","type":"AWS::SSM::ManagedInstance","#,
        r#""ARN":"arn:aws:ssm:local-1:123456789012:managed-instance/mi-0123456789abcdef0"}],"#,
        r#""eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"123456789012","#,
        r#""eventCategory":"Management","tlsDetails":{"tlsVersion":"TLSv1.3","#,
        r#""cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"munjigi.example.com"}}"#,
    );
    assert_eq!(json, wanted);
    assert_eq!(serde_json::from_str::<AuditRecord>(&json).unwrap(), record(1));

    let read = AuditRecord { request_parameters: None, response_elements: None, ..record(1) };
    assert!(read.to_json().unwrap().contains(r#""requestParameters":null,"responseElements":null"#));
    let denied = AuditRecord {
        user_identity: UserIdentity::unknown(Some("AKIANOBODY")),
        error_code: Some("UnrecognizedClientException".to_owned()),
        ..record(1)
    };
    let json = denied.to_json().unwrap();
    assert!(json.contains(r#""userIdentity":{"type":"Unknown","accessKeyId":"AKIANOBODY"}"#), "{json}");
}

#[test]
fn secrets_are_hidden_at_any_depth() {
    let input = json!({"Target": "mi-1", "Code": "s3cret", "Nested": [{"SecretAccessKey": "abc", "UserName": "bob"}],
                       "TokenValue": null});
    assert_eq!(
        parameters(&input, &["Code", "SecretAccessKey", "TokenValue"]),
        json!({"target": "mi-1", "code": HIDDEN, "nested": [{"secretAccessKey": HIDDEN, "userName": "bob"}],
               "tokenValue": null})
    );
}

#[test]
fn hostile_text_in_every_field_stays_one_line_of_json() {
    let hostile = "a\r\n\u{0}\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{2028}\u{2029}\u{202e}\u{2066}\u{feff}\"}\\ 문지기 {";
    let own = || hostile.to_owned();
    let some = || Some(own());
    let everywhere = AuditRecord {
        event_version: own(),
        user_identity: UserIdentity {
            kind: UserType::AssumedRole,
            principal_id: some(),
            arn: some(),
            account_id: some(),
            access_key_id: some(),
            user_name: some(),
            session_context: Some(SessionContext { source_identity: some(), ..SessionContext::default() }),
            invoked_by: some(),
            identity_provider: some(),
            on_behalf_of: Some(OnBehalfOf { user_id: own(), identity_store_arn: own() }),
            credential_id: some(),
        },
        event_time: Timestamp::from_secs(START),
        event_source: own(),
        event_name: own(),
        aws_region: own(),
        source_ip_address: own(),
        user_agent: some(),
        error_code: some(),
        error_message: some(),
        request_parameters: Some(json!({hostile: [hostile]})),
        response_elements: Some(json!(hostile)),
        additional_event_data: Some(json!({"a": hostile})),
        request_id: some(),
        event_id: own(),
        read_only: true,
        resources: vec![Resource { account_id: some(), kind: some(), arn: own() }],
        event_type: EventType::AwsServiceEvent,
        api_version: some(),
        management_event: true,
        recipient_account_id: own(),
        shared_event_id: some(),
        vpc_endpoint_id: some(),
        event_category: own(),
        addendum: None,
        session_credential_from_console: some(),
        edge_device_details: Some(json!([hostile])),
        tls_details: Some(TlsDetails { tls_version: own(), cipher_suite: own(), client_provided_host_header: own() }),
    };
    let mut chain = Chain::new(LOG);
    let mut file = Vec::new();
    chain.append(&everywhere, &mut file).unwrap();
    let text = String::from_utf8(file.clone()).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.trim_end().chars().any(super::text::is_hostile), "{text}");
    let line = Line::parse(&file[..file.len() - 1]).unwrap();
    assert_eq!(serde_json::from_str::<AuditRecord>(line.record).unwrap(), everywhere, "and nothing is lost");
}

#[test]
fn escaped_text_is_safe_injective_and_bounded() {
    assert_eq!(escape("a\nb\u{202e}\\u{a} 문", 100), "a\\u{a}b\\u{202e}\\u{5c}u{a} 문");
    assert_ne!(escape("\n", 10), escape("\\u{a}", 10));
    let long = escape(&"가".repeat(5000), MAX_FIELD_BYTES);
    assert!(long.len() <= MAX_FIELD_BYTES + 20 && long.ends_with("...(truncated)"));
}

#[test]
fn long_fields_and_records_are_cut_and_say_so() {
    let agent = AuditRecord { user_agent: Some("한".repeat(4096)), ..record(1) };
    let read: AuditRecord = serde_json::from_str(&agent.to_json().unwrap()).unwrap();
    assert!(read.user_agent.unwrap().len() <= MAX_FIELD_BYTES);
    assert_eq!(read.addendum.unwrap().updated_fields.as_deref(), Some("userAgent"));

    let document = AuditRecord { request_parameters: Some(json!({"policyDocument": "x".repeat(10_240)})), ..record(1) };
    let read: AuditRecord = serde_json::from_str(&document.to_json().unwrap()).unwrap();
    assert_eq!(read, document, "a policy document of the largest size stays whole");

    let many: Vec<String> = (0..200).map(|n| format!("{n}{}", "y".repeat(10_000))).collect();
    let huge = AuditRecord {
        request_parameters: Some(json!({ "list": many })),
        additional_event_data: Some(json!({ "list": many })),
        ..record(1)
    };
    let json = huge.to_json().unwrap();
    assert!(json.len() <= MAX_RECORD_BYTES);
    let read: AuditRecord = serde_json::from_str(&json).unwrap();
    assert_eq!(read.request_parameters, Some(json!("TRUNCATED")));
    let addendum = read.addendum.unwrap();
    assert_eq!(addendum.updated_fields.as_deref(), Some("additionalEventData,requestParameters"));
    assert_eq!(addendum.reason, "TRUNCATED");
}

/// A log with its line ends, and a checkpoint every `every` events and at the end.
struct Sample {
    lines: Vec<Vec<u8>>,
    checkpoints: Vec<Checkpoint>,
}

impl Sample {
    fn new(events: u64, every: u64) -> Self {
        let mut chain = Chain::new(LOG);
        let (mut lines, mut checkpoints) = (Vec::new(), Vec::new());
        for number in 1..=events {
            let mut line = Vec::new();
            let link = chain.append(&record(number), &mut line).unwrap();
            assert_eq!(link.sequence, number);
            lines.push(line);
            if number % every == 0 || number == events {
                checkpoints.push(chain.checkpoint(Timestamp::from_secs(START + number as i64), &key(2)));
            }
        }
        Self { lines, checkpoints }
    }

    /// Makes lines from `from` (an index) on again so that they fit, as whoever can write the file could.
    fn rechain(lines: &mut [Vec<u8>], from: usize) {
        let last = match from {
            0 => Chain::new(LOG).last(),
            _ => Line::parse(lines[from - 1].trim_ascii_end()).unwrap().link,
        };
        let mut chain = Chain::resume(LOG, last);
        for line in &mut lines[from..] {
            let text = std::str::from_utf8(line).unwrap();
            let record: AuditRecord = serde_json::from_str(text.trim_end().splitn(4, ' ').nth(3).unwrap()).unwrap();
            line.clear();
            chain.append(&record, line).unwrap();
        }
    }
}

fn check(lines: &[Vec<u8>], checkpoints: &[Checkpoint]) -> Verdict {
    let mut verifier = Verifier::new(&trust(), checkpoints.iter().cloned());
    lines.iter().for_each(|line| verifier.feed(line));
    verifier.finish()
}

#[test]
fn a_whole_log_verifies_in_any_pieces_and_names_what_is_attested() {
    let sample = Sample::new(25, 10);
    let whole = sample.lines.concat();
    for step in [1, 13, 1000, whole.len()] {
        let mut verifier = Verifier::new(&trust(), sample.checkpoints.clone());
        whole.chunks(step).for_each(|piece| verifier.feed(piece));
        let verdict = verifier.finish();
        assert!(verdict.is_whole(), "{verdict:?}");
        assert_eq!((verdict.events, verdict.attested), (25, 25));
    }
    let verdict = check(&sample.lines, &sample.checkpoints[..2]);
    assert_eq!((verdict.events, verdict.attested), (25, 20), "the tail stands on its chain alone");
    let mut torn = sample.lines;
    torn.push(b"26 0011".to_vec());
    assert_eq!(check(&torn, &sample.checkpoints).torn_bytes, 7);
}

#[test]
fn a_chain_is_continued_behind_its_last_line() {
    let sample = Sample::new(3, 10);
    let mut lines = sample.lines;
    let last = Line::parse(lines[2].trim_ascii_end()).unwrap().link;
    let mut line = Vec::new();
    Chain::resume(LOG, last).append(&record(4), &mut line).unwrap();
    lines.push(line);
    assert!(check(&lines, &sample.checkpoints).is_whole());
    let other = Trust { log: LogId([6; 16]), ..trust() };
    let mut verifier = Verifier::new(&other, []);
    verifier.feed(&lines[0]);
    assert_eq!(verifier.finish().bad.unwrap().fault, Fault::Forked, "another log's lines do not fit");
}

#[test]
fn every_changed_byte_of_a_small_log_is_found_at_its_event() {
    let sample = Sample::new(4, 10);
    for index in 0..sample.lines.len() {
        for at in 0..sample.lines[index].len() {
            let mut lines = sample.lines.clone();
            lines[index][at] ^= 1;
            let bad = check(&lines, &sample.checkpoints).bad.unwrap();
            assert_eq!(bad.sequence, index as u64 + 1, "event {} byte {at}: {bad}", index + 1);
        }
    }
}

/// A cheap deterministic generator for test cases.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

#[test]
fn a_thousand_random_edits_of_ten_thousand_events_are_found_and_named() {
    const EVENTS: usize = 10_000;
    const STEP: usize = 250;
    let sample = Sample::new(EVENTS as u64, 1000);
    // The part before an edit is the same each time: verified once, in steps.
    let mut verifier = Verifier::new(&trust(), sample.checkpoints.clone());
    let mut prefixes = BTreeMap::new();
    for (index, line) in sample.lines.iter().enumerate() {
        if index % STEP == 0 {
            prefixes.insert(index, verifier.clone());
        }
        verifier.feed(line);
    }
    let whole = verifier.finish();
    assert!(whole.is_whole());
    assert_eq!((whole.events, whole.attested), (EVENTS as u64, EVENTS as u64));

    let mut random = XorShift(0xacdc_2026);
    for round in 0..1000 {
        let at = random.below(EVENTS - 2);
        let from = at / STEP * STEP;
        let mut tail: Vec<Cow<'_, [u8]>> = sample.lines[from..].iter().map(Cow::from).collect();
        let here = at - from;
        let mut first_bad = at as u64 + 1;
        let wanted: fn(&Fault) -> bool = match round % 7 {
            0 => {
                let byte = random.below(tail[here].len());
                tail[here].to_mut()[byte] ^= 1 << random.below(8);
                |fault| matches!(fault, Fault::Changed(_) | Fault::Removed { .. } | Fault::Inserted { .. })
            }
            1 => {
                let count = 1 + random.below(3.min(EVENTS - at - 1));
                tail.drain(here..here + count);
                |fault| matches!(fault, Fault::Removed { .. })
            }
            2 => {
                let copied = Cow::from(&sample.lines[random.below(at + 1)]);
                tail.insert(here + 1, copied);
                first_bad += 1;
                |fault| matches!(fault, Fault::Inserted { .. })
            }
            3 => {
                let other = here + 1 + random.below(tail.len() - here - 1);
                tail.swap(here, other);
                |fault| matches!(fault, Fault::Reordered { .. })
            }
            4 => {
                tail.truncate(here);
                |fault| matches!(fault, Fault::Truncated { count: 10_000 })
            }
            5 => {
                // Cut in the middle of a line: the rest reads like the torn end of a crash.
                let byte = random.below(tail[here].len());
                tail[here].to_mut().truncate(byte);
                tail.truncate(here + 1);
                |fault| matches!(fault, Fault::Truncated { count: 10_000 })
            }
            _ => {
                // A made-up event in place of the real one, with a hash of its own that fits.
                let last = match at {
                    0 => Chain::new(LOG).last(),
                    _ => Line::parse(sample.lines[at - 1].trim_ascii_end()).unwrap().link,
                };
                let mut forged = Vec::new();
                Chain::resume(LOG, last).append(&record(77), &mut forged).unwrap();
                tail[here] = forged.into();
                if (at as u64 + 1).is_multiple_of(1000) {
                    first_bad = at as u64 + 1 - 999;
                } else {
                    first_bad += 1;
                }
                |fault| matches!(fault, Fault::Forked | Fault::Rewritten { .. })
            }
        };
        let mut verifier = prefixes[&from].clone();
        tail.iter().for_each(|line| verifier.feed(line));
        let bad = verifier.finish().bad.unwrap_or_else(|| panic!("round {round}, event {at}: not found"));
        assert_eq!(bad.sequence, first_bad, "round {round}: {bad}");
        assert!(wanted(&bad.fault), "round {round}: {bad}");
    }
}

#[test]
fn a_rewritten_log_is_found_by_its_checkpoint() {
    let sample = Sample::new(100, 10);
    let mut random = XorShift(0x0ddba11);
    for _ in 0..50 {
        let at = random.below(100);
        let mut lines = sample.lines.clone();
        let text = String::from_utf8(lines[at].clone()).unwrap().replace("\"alice\"", "\"mallory\"");
        lines[at] = text.into_bytes();
        Sample::rechain(&mut lines, at);
        let bad = check(&lines, &sample.checkpoints).bad.unwrap();
        let Fault::Rewritten { count } = bad.fault else { panic!("{bad}") };
        let changed = at as u64 + 1;
        assert!((bad.sequence..=count).contains(&changed) && count - bad.sequence < 10, "{bad}");

        // Signing new checkpoints with another key does not help.
        let forged: Vec<Checkpoint> = lines
            .iter()
            .skip(9)
            .step_by(10)
            .map(|line| {
                let link = Line::parse(line.trim_ascii_end()).unwrap().link;
                Chain::resume(LOG, link).checkpoint(Timestamp::from_secs(START + link.sequence as i64), &key(3))
            })
            .collect();
        let bad = check(&lines, &forged).bad.unwrap();
        let untrusted = Fault::Checkpoint { count: 10, error: CheckpointError::UntrustedKey };
        assert_eq!(bad.fault, untrusted);
    }
}

#[test]
fn a_rolled_back_log_is_found_even_when_it_went_on() {
    let sample = Sample::new(100, 10);
    let mut lines = sample.lines[..64].to_vec();
    assert_eq!(check(&lines, &sample.checkpoints).bad.unwrap().fault, Fault::Truncated { count: 100 });
    let mut chain = Chain::resume(LOG, Line::parse(lines[63].trim_ascii_end()).unwrap().link);
    for number in 0..60 {
        let mut line = Vec::new();
        chain.append(&record(1000 + number), &mut line).unwrap();
        lines.push(line);
    }
    let bad = check(&lines, &sample.checkpoints).bad.unwrap();
    assert_eq!((bad.sequence, &bad.fault), (61, &Fault::Rewritten { count: 70 }));

    // The server itself signing both histories is a fork.
    let mut both = sample.checkpoints.clone();
    let link = Line::parse(lines[69].trim_ascii_end()).unwrap().link;
    both.push(Chain::resume(LOG, link).checkpoint(Timestamp::from_secs(START + 70), &key(2)));
    let bad = check(&sample.lines, &both).bad.unwrap();
    assert_eq!(bad.fault, Fault::TwoHeads { count: 70 });
}

#[test]
fn a_retired_key_signs_nothing_new() {
    let sample = Sample::new(20, 100);
    let chain = Chain::resume(LOG, Line::parse(sample.lines[19].trim_ascii_end()).unwrap().link);
    let late = chain.checkpoint(Timestamp::from_secs(START + 20), &key(1));
    let bad = check(&sample.lines, &[late]).bad.unwrap();
    assert_eq!(bad.fault, Fault::Checkpoint { count: 20, error: CheckpointError::UntrustedKey });
    let backdated = chain.checkpoint(Timestamp::from_secs(START - 200), &key(1));
    let bad = check(&sample.lines, &[backdated]).bad.unwrap();
    assert_eq!(bad.fault, Fault::Backdated { count: 20 });
}

#[test]
fn a_checkpoint_reads_back_and_every_change_of_it_is_found() {
    let chain = Chain::new(LOG);
    let checkpoint = chain.checkpoint(Timestamp::from_secs(START), &key(2));
    let json = checkpoint.to_json();
    assert_eq!(Checkpoint::parse(&json).unwrap(), checkpoint);
    assert!(check(&[], std::slice::from_ref(&checkpoint)).is_whole(), "an idle log has checkpoints too");
    let mut refused = 0;
    for at in 0..json.len() {
        for bit in 0..7 {
            let mut bytes = json.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(text) = String::from_utf8(bytes) else { continue };
            let Ok(altered) = Checkpoint::parse(&text) else { continue };
            if altered != checkpoint {
                refused += 1;
                assert!(altered.verify(LOG, &trust().keys).is_err(), "{text}");
            }
        }
    }
    assert!(refused > 100);
}

#[test]
fn mutated_records_never_panic_and_stay_within_their_size() {
    let json = record(1).to_json().unwrap();
    let mut random = XorShift(0x9e37);
    let mut read = 0;
    for _ in 0..1 << 18 {
        let mut bytes = json.clone().into_bytes();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        let Ok(altered) = serde_json::from_slice::<AuditRecord>(&bytes) else { continue };
        let again = altered.to_json().unwrap();
        assert!(again.len() <= MAX_RECORD_BYTES && !again.contains('\n'));
        read += 1;
    }
    assert!(read > 1000, "only {read} mutations were readable");
}

#[test]
fn random_lines_never_panic_and_never_verify() {
    let sample = Sample::new(3, 10);
    let whole = sample.lines.concat();
    let mut random = XorShift(0xbad_5eed);
    for _ in 0..1 << 18 {
        let mut bytes = whole.clone();
        for _ in 0..1 + random.below(4) {
            let at = random.below(bytes.len());
            match random.below(4) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
                1 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                2 => bytes.insert(at, random.next() as u8),
                _ => bytes.truncate(at),
            }
        }
        if bytes == whole {
            continue;
        }
        let mut verifier = Verifier::new(&Trust { log: LOG, keys: Vec::new() }, []);
        verifier.feed(&bytes);
        let verdict = verifier.finish();
        let cut = bytes.len() < whole.len() && whole.starts_with(&bytes);
        assert!(verdict.bad.is_some() || verdict.torn_bytes > 0 || cut, "{}", String::from_utf8_lossy(&bytes));
    }
    let mut verifier = Verifier::new(&trust(), []);
    for _ in 0..100 {
        verifier.feed(&[b'x'; 65_536]);
    }
    assert!(verifier.finish().torn_bytes <= MAX_LINE_BYTES as u64 + 1, "an endless line is not kept");
}

#[test]
fn the_documented_example_is_what_is_written() {
    let document = include_str!("../../../../docs/audit-format.md");
    let block = |name: &str| {
        let opening = format!("```{name}\n");
        document.split(&opening).nth(1).and_then(|rest| rest.split("```").next()).unwrap().to_owned()
    };
    let mut chain = Chain::new(LOG);
    let mut file = Vec::new();
    for number in 1..=2 {
        let short = AuditRecord {
            request_parameters: None,
            response_elements: None,
            resources: Vec::new(),
            tls_details: None,
            user_identity: UserIdentity::service("munjigi.local"),
            ..record(number)
        };
        chain.append(&short, &mut file).unwrap();
    }
    assert_eq!(block("log"), String::from_utf8(file).unwrap());
    let checkpoint = chain.checkpoint(Timestamp::from_secs(START + 60), &key(2));
    assert_eq!(block("checkpoint").trim_end(), checkpoint.to_json());
    assert_eq!(hex::encode(trusted(2, 0, 0).public), block("key").trim_end());
}
