//! A server with a recorded session: read and verified over the API, then offline, then damaged in every way.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use munjigi_core::id::NodeId;
use munjigi_core::recording::{Event, EventKind, StartMeta};
use munjigi_core::session::{EndReason, ExitStatus, OutputStream, SessionKind};
use serde_json::{Value, json};

use super::*;
use crate::api::operation::Service;
use crate::recording::Mode;
use crate::service_event::service_event;
use crate::testing::{Answer, TestServer};

fn session(number: u64) -> SessionId {
    SessionId::parse(&format!("alice-{number:017x}")).unwrap()
}

/// Records a session of a few bytes and its end in the trail, as the gateway does. Returns the final hash.
async fn record(test: &TestServer, id: &SessionId) -> String {
    let server = test.server();
    let recorder = server.recordings.create(id, &meta(id), Mode::Normal).await.unwrap();
    for (offset, bytes) in [(0, &b"typed-marker-"[..]), (13, b"shown-marker\n")] {
        recorder.append(output(offset, bytes)).unwrap();
    }
    let sealed = recorder.seal(EndReason::Exited, Some(ExitStatus::Code(7))).await.unwrap();
    let hash = hex::encode(sealed.hash);
    let details = json!({ "sessionId": id, "recordingId": id, "recordingHash": hash });
    server.audit.append(service_event(server, "EndSession", details, None)).await.unwrap();
    hash
}

fn output(offset: u64, bytes: &[u8]) -> Event {
    let bytes = Bytes::copy_from_slice(bytes);
    Event { at: offset, kind: EventKind::Output { stream: OutputStream::Stdout, offset, bytes } }
}

fn meta(id: &SessionId) -> StartMeta {
    StartMeta {
        session: id.clone(),
        kind: SessionKind::Command,
        principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
        node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
        node_name: "web-1".to_owned(),
        os_user: "alice".to_owned(),
        command: vec!["date".to_owned()],
        endpoints: Vec::new(),
        terminal: None,
        term: None,
        started: clock::now(),
        reason: None,
    }
}

fn json_of(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text);
    serde_json::from_str(&answer.text).unwrap()
}

async fn call(test: &TestServer, service: Service, operation: &str, input: Value) -> Value {
    json_of(&test.call(Some(&test.admin), service, operation, &input).await)
}

async fn munjigi(test: &TestServer, operation: &str, input: Value) -> Value {
    call(test, Service::Munjigi, operation, input).await
}

#[tokio::test]
async fn a_recording_is_read_in_parts_and_every_look_is_in_the_trail() {
    let test = TestServer::start().await;
    let id = session(1);
    let hash = record(&test, &id).await;
    let (mut next, mut output, mut kinds) = (0, Vec::new(), Vec::new());
    let mut sealed = false;
    while !sealed {
        let input = json!({ "SessionId": id, "FromRecord": next, "MaxBytes": 1 });
        let answer = test.call(Some(&test.admin), Service::Munjigi, "ReadRecording", &input).await;
        let looks = test.trail(answer.request_id());
        assert!(looks.len() == 1 && looks[0].contains("ReadRecording") && looks[0].contains(id.as_str()), "{looks:?}");
        let part = json_of(&answer);
        for event in part["Events"].as_array().unwrap() {
            kinds.push(event["Kind"].as_str().unwrap().to_owned());
            if event["Kind"] == "Output" {
                assert_eq!(
                    (event["Stream"].as_str(), event["Offset"].as_u64()),
                    (Some("stdout"), Some(output.len() as u64))
                );
                output.extend(STANDARD.decode(event["Data"].as_str().unwrap()).unwrap());
            }
        }
        assert_eq!(part["Live"], false);
        next = part["Next"].as_u64().unwrap();
        sealed = part["Sealed"].as_bool().unwrap();
    }
    assert_eq!(output, b"typed-marker-shown-marker\n");
    assert_eq!((kinds.first().unwrap().as_str(), kinds.last().unwrap().as_str()), ("Start", "End"));

    let part = munjigi(&test, "ReadRecording", json!({ "SessionId": id, "FromOffset": 15 })).await;
    assert_eq!(part["Events"][0]["Data"], STANDARD.encode(b"own-marker\n"));
    let verdict = munjigi(&test, "VerifyRecording", json!({ "SessionId": id })).await;
    assert_eq!((&verdict["Whole"], &verdict["Sealed"], &verdict["Hash"]), (&json!(true), &json!(true), &json!(hash)));

    for (input, code) in [
        (json!({ "SessionId": session(9) }), "DoesNotExistException"),
        (json!({ "SessionId": "../../etc/passwd" }), ""),
        (json!({ "SessionId": id, "MaxBytes": 0 }), "ValidationException"),
        (json!({ "SessionId": id, "WaitSeconds": 3600 }), "ValidationException"),
        (json!({ "SessionId": id, "FromRecord": 1, "FromOffset": 1 }), "ValidationException"),
    ] {
        let answer = test.call(Some(&test.admin), Service::Munjigi, "ReadRecording", &input).await;
        assert_eq!(answer.status, 400, "{input}: {}", answer.text);
        assert!(answer.code().contains(code), "{input}: {}", answer.text);
    }
    test.stop().await;
}

#[tokio::test]
async fn a_live_recording_is_followed_as_it_grows() {
    let test = TestServer::start().await;
    let (id, server) = (session(1), test.server().clone());
    let recorder = server.recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    let wait = |next: u64| json!({ "SessionId": id, "FromRecord": next, "WaitSeconds": 20 });
    let part = munjigi(&test, "ReadRecording", wait(0)).await;
    assert_eq!((part["Events"][0]["Kind"].as_str(), &part["Live"]), (Some("Start"), &json!(true)));
    let (part, ()) = tokio::join!(munjigi(&test, "ReadRecording", wait(1)), async {
        recorder.append(output(0, b"typed")).unwrap();
    });
    assert_eq!(part["Events"][0]["Data"], STANDARD.encode(b"typed"));
    let verdict = munjigi(&test, "VerifyRecording", json!({ "SessionId": id })).await;
    assert_eq!((&verdict["Whole"], &verdict["Sealed"]), (&json!(true), &json!(false)));
    let (part, sealed) = tokio::join!(
        munjigi(&test, "ReadRecording", wait(part["Next"].as_u64().unwrap())),
        recorder.seal(EndReason::Exited, None)
    );
    assert_eq!((part["Events"][0]["Kind"].as_str(), &part["Sealed"]), (Some("End"), &json!(true)));
    assert_eq!(sealed.unwrap().bytes_out, 5);
    test.stop().await;
}

#[tokio::test]
async fn the_trail_is_read_followed_and_looked_up() {
    let test = TestServer::start().await;
    record(&test, &session(1)).await;
    let page = munjigi(&test, "ReadAudit", json!({ "FromSequence": 1, "EventName": "EndSession" })).await;
    assert_eq!(page["Records"][0]["additionalEventData"]["recordingId"], session(1).as_str());
    let next = page["NextSequence"].as_u64().unwrap();

    // Who follows is not woken by its own looks, but by what others do.
    let quiet = munjigi(&test, "ReadAudit", json!({ "FromSequence": next, "WaitSeconds": 0 })).await;
    assert_eq!(quiet["Records"], json!([]), "its own look is left out");
    let follow = json!({ "FromSequence": next, "WaitSeconds": 20 });
    let later = session(2);
    let (woken, _) = tokio::join!(munjigi(&test, "ReadAudit", follow), record(&test, &later));
    assert_eq!(woken["Records"][0]["eventName"], "EndSession");
    let own = munjigi(&test, "ReadAudit", json!({ "FromSequence": next, "EventName": "ReadAudit" })).await;
    assert!(!own["Records"].as_array().unwrap().is_empty(), "asked for by name they are there");
    let newest = munjigi(&test, "ReadAudit", json!({ "Newest": true, "MaxRecords": 1 })).await;
    assert_eq!(newest["Records"][0]["additionalEventData"]["recordingId"], session(2).as_str());

    let lookup = async |input: Value| call(&test, Service::CloudTrail, "LookupEvents", input).await;
    let attributes = json!([{ "AttributeKey": "EventName", "AttributeValue": "EndSession" }]);
    let first = lookup(json!({ "LookupAttributes": attributes, "MaxResults": 1 })).await;
    assert_eq!(first["Events"][0]["EventName"], "EndSession");
    let record: Value = serde_json::from_str(first["Events"][0]["CloudTrailEvent"].as_str().unwrap()).unwrap();
    assert_eq!(record["additionalEventData"]["recordingId"], session(2).as_str(), "newest first");
    let token = &first["NextToken"];
    let second = lookup(json!({ "LookupAttributes": attributes, "MaxResults": 1, "NextToken": token })).await;
    assert_ne!(first["Events"][0]["EventId"], second["Events"][0]["EventId"]);
    for (input, code) in [
        (json!({ "MaxResults": 51 }), "InvalidMaxResultsException"),
        (json!({ "NextToken": "x" }), "InvalidNextTokenException"),
        (json!({ "NextToken": token }), "InvalidNextTokenException"),
        (json!({ "StartTime": 2, "EndTime": 1 }), "InvalidTimeRangeException"),
        (json!({ "EventCategory": "data" }), "InvalidEventCategoryException"),
        (
            json!({ "LookupAttributes": [{ "AttributeKey": "Colour", "AttributeValue": "x" }] }),
            "InvalidLookupAttributesException",
        ),
    ] {
        let answer = test.call(Some(&test.admin), Service::CloudTrail, "LookupEvents", &input).await;
        assert_eq!(answer.code(), code, "{input}: {}", answer.text);
    }
    let verdict = munjigi(&test, "VerifyTrail", json!({})).await;
    assert_eq!(verdict["Whole"], true, "{verdict}");
    test.stop().await;
}

#[tokio::test]
async fn damage_anywhere_is_found_offline_and_its_place_is_named() {
    let mut test = TestServer::start().await;
    for number in 1..=3 {
        record(&test, &session(number)).await;
    }
    let verify = async |data: &Path| verify_data_dir(data, |_| {}).await.unwrap();
    let data = test.directory.path().join("data");
    let report = verify(&data).await;
    assert!(report.is_whole(), "beside the running server: {report:?}");
    let directory = std::mem::replace(&mut test.directory, tempfile::tempdir().unwrap());
    test.stop().await;

    let report = verify(&data).await;
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((report.recordings, report.unsealed, report.attested), (3, 0, report.events));
    let recording = |number: u64| -> PathBuf {
        let files = Files::open(&data.join("recordings")).unwrap();
        let day = files.days().pop().unwrap();
        data.join("recordings").join(day.path(&session(number)))
    };
    let trail = data.join("audit/00000001.log");
    let (first, second) = (recording(1), recording(2));
    let whole = std::fs::read(&first).unwrap();
    let other = std::fs::read(&second).unwrap();
    let lines = std::fs::read(&trail).unwrap();

    /// Damage to be found: the file, what it holds then (`None`: it is gone), and what the report says.
    type Case<'a> = (&'a Path, Option<Vec<u8>>, &'a str);
    let changed = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        Some(bytes)
    };
    let line_start = lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let mut cases: Vec<Case<'_>> = vec![
        (&first, changed(&whole, whole.len() - 1), "tampered at record"),
        (&first, changed(&whole, 20), "tampered in the header"),
        (&first, Some(whole[..whole.len() - 60].to_vec()), "had been sealed"),
        (&first, Some([&whole[..], b"x"].concat()), "bytes follow the seal"),
        (&first, Some(other.clone()), "tampered in the header"),
        (&first, None, "is missing"),
        (&trail, changed(&lines, line_start + 200), "event 2"),
        (&trail, Some(lines[line_start..].to_vec()), "event 1"),
        (&trail, Some(lines[..line_start].to_vec()), "truncated"),
        (&trail, None, "truncated"),
    ];
    for (path, content, expected) in cases.drain(..) {
        let before = std::fs::read(path).unwrap();
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let report = verify(&data).await;
        assert!(report.problems.iter().any(|problem| problem.what.contains(expected)), "{expected}: {report:?}");
        std::fs::write(path, before).unwrap();
    }
    assert!(verify(&data).await.is_whole());

    // Nothing typed or shown, and no key, stands anywhere in plain text.
    let mut places = vec![data.clone()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
                continue;
            }
            let content = std::fs::read(&path).unwrap();
            for marker in [&b"typed-marker"[..], b"shown-marker"] {
                assert!(!content.windows(marker.len()).any(|window| window == marker), "{}", path.display());
            }
        }
    }
    drop(directory);
}
