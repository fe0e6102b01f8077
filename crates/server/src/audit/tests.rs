//! The trail on a real disk: appended by many, cut by crashes, broken by the disk, changed by hand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;

use aws_lc_rs::signature::KeyPair as _;
use munjigi_core::time::Timestamp;
use munjigi_core::trust::{KeyId, KeyPurpose};

use super::*;
use crate::child::{self, Killed, memory as place, said};

/// Where the trail's checkpoints went.
type Kept = Arc<Mutex<Vec<Checkpoint>>>;

fn trusted(key: &Ed25519KeyPair) -> Vec<TrustedKey> {
    let public: [u8; 32] = key.public_key().as_ref().try_into().unwrap();
    let (not_before, not_after) = (Timestamp(0), Timestamp(i64::MAX));
    vec![TrustedKey { id: KeyId::of(&public), purpose: KeyPurpose::Checkpoint, public, not_before, not_after }]
}

fn key() -> Arc<Ed25519KeyPair> {
    Arc::new(Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap())
}

fn settings(mirrored: Option<Checkpoint>, kept: &Kept) -> Settings {
    let (key, kept) = (key(), kept.clone());
    let trusted = trusted(&key);
    let on_checkpoint = Box::new(move |checkpoint: &Checkpoint| lock(&kept).push(checkpoint.clone()));
    Settings { key, trusted, mirrored, on_checkpoint }
}

fn open(place: &Path) -> Result<AuditLog, AuditError> {
    AuditLog::open(&place.join("audit"), settings(None, &Kept::default()))
}

/// A record by its number: its time is the number in seconds, every tenth is an error, users take turns.
fn record(number: u64) -> AuditRecord {
    let user = ["alice", "bob", "앨리스"][usize::try_from(number % 3).unwrap()];
    let mut record: AuditRecord = serde_json::from_value(serde_json::json!({
        "eventVersion": "1.11",
        "userIdentity": { "type": "IAMUser", "userName": user, "arn": format!("arn:aws:iam::1:user/{user}") },
        "eventTime": Timestamp::from_secs(1_700_000_000 + i64::try_from(number).unwrap()).to_iso_seconds(),
        "eventSource": "ssm.amazonaws.com",
        "eventName": format!("Event{}", number % 7),
        "awsRegion": "local-1",
        "sourceIPAddress": "192.0.2.1",
        "eventID": format!("id-{number}-end"),
        "readOnly": number.is_multiple_of(2),
        "resources": [{ "ARN": format!("arn:aws:ssm:local-1:1:managed-instance/mi-{number}"), "type": "AWS::SSM::ManagedInstance" }],
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": "123456789012",
        "eventCategory": "Management",
    }))
    .unwrap();
    record.error_code = number.is_multiple_of(10).then(|| "AccessDeniedException".to_owned());
    record
}

/// A trail with the records of these numbers, closed.
async fn trail_of(place: &Path, numbers: std::ops::RangeInclusive<u64>) -> Vec<Checkpoint> {
    let kept = Kept::default();
    let log = AuditLog::open(&place.join("audit"), settings(None, &kept)).unwrap();
    log.append_all(numbers.map(record).collect()).await.unwrap();
    log.shutdown().await;
    std::mem::take(&mut *lock(&kept))
}

fn segment_path(place: &Path, number: u32) -> PathBuf {
    place.join("audit").join(segment::name(number))
}

fn verify_offline(place: &Path, mirrored: Option<Checkpoint>) -> Result<Verdict, AuditError> {
    verify_directory(&place.join("audit"), trusted(&key()), mirrored, &mut |_| {})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_many_tasks_are_all_there_once_and_in_their_order() {
    const TASKS: u64 = 64;
    const EACH: u64 = 40;
    let place = place();
    let log = open(place.path()).unwrap();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let log = log.clone();
        tasks.push(tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in task * EACH..(task + 1) * EACH {
                receipts.push((number, log.append(record(number)).await.unwrap()));
            }
            receipts
        }));
    }
    let mut receipts = HashMap::new();
    for task in tasks {
        let of_task = task.await.unwrap();
        assert!(of_task.is_sorted_by_key(|(_, receipt)| receipt.sequence));
        receipts.extend(of_task.into_iter().map(|(number, receipt)| (receipt.sequence, number)));
    }
    assert_eq!(*log.follow().borrow(), TASKS * EACH);
    let mut from = 1;
    let mut seen = 0;
    loop {
        let page = log.read(from, Filter::default(), 100).await.unwrap();
        for found in &page.events {
            seen += 1;
            assert_eq!(found.sequence, seen);
            assert_eq!(found.record.event_id, format!("id-{}-end", receipts[&seen]));
        }
        from = page.next.unwrap();
        if page.at_end {
            break;
        }
    }
    assert_eq!(seen, TASKS * EACH);
    let verdict = log.verify().await.unwrap();
    assert!(verdict.is_whole(), "{verdict:?}");
    assert_eq!(verdict.events, TASKS * EACH);
    assert!(verdict.attested >= 1000, "checkpoints come with the events");
    assert!(segment_path(place.path(), 5).exists(), "several files were written");
    log.shutdown().await;
    assert!(matches!(log.append(record(1)).await, Err(AuditError::Closed)));
    let verdict = verify_offline(place.path(), None).unwrap();
    assert_eq!((verdict.is_whole(), verdict.attested), (true, TASKS * EACH), "the end is attested too");
}

#[tokio::test]
async fn a_trail_goes_on_after_restarts() {
    let place = place();
    for round in 0..4_u64 {
        let log = open(place.path()).unwrap();
        assert_eq!(*log.follow().borrow(), round * 100);
        for number in 0..100 {
            let receipt = log.append(record(round * 100 + number)).await.unwrap();
            assert_eq!(receipt.sequence, round * 100 + number + 1);
        }
        log.shutdown().await;
    }
    assert!(verify_offline(place.path(), None).unwrap().is_whole());
}

#[tokio::test]
async fn a_line_that_a_crash_cut_is_dropped_and_all_before_it_stay() {
    let place = place();
    let log = open(place.path()).unwrap();
    log.append_all((1..=3).map(record).collect()).await.unwrap();
    log.shutdown().await;
    // Without the checkpoint of the proper end, as after a crash.
    std::fs::remove_file(place.path().join("audit/checkpoints")).unwrap();
    let path = segment_path(place.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let log = open(place.path()).unwrap();
        assert_eq!(*log.follow().borrow(), 2, "cut at {cut}");
        assert_eq!(log.append(record(4)).await.unwrap().sequence, 3);
        let verdict = log.verify().await.unwrap();
        assert_eq!((verdict.is_whole(), verdict.events), (true, 3));
        log.shutdown().await;
        std::fs::remove_file(place.path().join("audit/checkpoints")).unwrap();
    }
}

#[tokio::test]
async fn every_changed_byte_is_found_and_a_changed_trail_is_not_written_on() {
    let place = place();
    let mirrored = trail_of(place.path(), 1..=6).await.pop();
    let path = segment_path(place.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(3).chain([whole.len() - 1]) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let verdict = verify_offline(place.path(), None).unwrap();
        assert!(!verdict.is_whole(), "byte {at}");
        let event = whole[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        assert_eq!(verdict.bad.map(|bad| bad.sequence), Some(event), "byte {at}");
        assert!(open(place.path()).is_err(), "byte {at}");
    }
    std::fs::write(&path, &whole).unwrap();
    AuditLog::open(&place.path().join("audit"), settings(mirrored, &Kept::default())).unwrap();
}

#[tokio::test]
async fn what_was_cut_off_is_noticed_even_if_the_checkpoints_are_cut_too() {
    let place = place();
    let mirrored = trail_of(place.path(), 1..=50).await.pop();
    assert_eq!(mirrored.as_ref().map(|newest| newest.head.sequence), Some(50));
    let path = segment_path(place.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let cut = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(40).unwrap().0 + 1;
    std::fs::write(&path, &whole[..cut]).unwrap();
    let reopen = |mirrored| AuditLog::open(&place.path().join("audit"), settings(mirrored, &Kept::default()));
    assert!(matches!(reopen(None).err(), Some(AuditError::Truncated { events: 41, covered: 50 })));
    assert!(verify_offline(place.path(), None).unwrap().bad.is_some());

    std::fs::remove_file(place.path().join("audit/checkpoints")).unwrap();
    let refused = reopen(mirrored.clone()).err().unwrap();
    assert!(matches!(refused, AuditError::Truncated { events: 41, covered: 50 }), "{refused}");
    assert!(verify_offline(place.path(), mirrored.clone()).unwrap().bad.is_some());

    std::fs::remove_dir_all(place.path().join("audit")).unwrap();
    assert!(reopen(mirrored).is_err(), "a trail that is gone is not begun anew in silence");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let place = place();
    let log = open(place.path()).unwrap();
    for _ in 0..4 {
        log.append_all((1..=500).map(record).collect()).await.unwrap();
    }
    log.shutdown().await;
    std::fs::remove_file(segment_path(place.path(), 2)).unwrap();
    let refused = open(place.path()).err().unwrap().to_string();
    assert!(refused.contains("00000002.log"), "{refused}");
}

#[tokio::test]
async fn after_a_failed_sync_calls_are_refused_until_the_trail_is_durable_again() {
    let place = place();
    let log = open(place.path()).unwrap();
    log.append(record(1)).await.unwrap();
    for failing in [1, 2, 5] {
        log.trail.queue.failing_syncs.store(failing, Ordering::SeqCst);
        let before = *log.follow().borrow();
        for _ in 0..failing {
            assert!(matches!(log.append(record(2)).await, Err(AuditError::Io { .. })));
            assert_eq!(*log.follow().borrow(), before, "what failed is never shown");
        }
        assert_eq!(log.append(record(3)).await.unwrap().sequence, before + 1);
        assert!(log.verify().await.unwrap().is_whole());
    }
    let page = log.read(1, Filter::default(), 100).await.unwrap();
    assert!(page.events.iter().all(|found| found.record.event_id != "id-2-end"), "what was refused is not there");
    log.shutdown().await;
    assert!(verify_offline(place.path(), None).unwrap().is_whole());
}

#[tokio::test]
async fn records_that_belong_together_are_stored_all_or_none() {
    let place = place();
    let log = open(place.path()).unwrap();
    let mut huge = record(2);
    huge.resources = vec![huge.resources[0].clone(); 100];
    for resource in &mut huge.resources {
        resource.arn = "x".repeat(4000);
    }
    let refused = log.append_all(vec![record(1), huge, record(3)]).await;
    assert!(matches!(refused, Err(AuditError::Record(_))), "{refused:?}");
    assert_eq!(*log.follow().borrow(), 0);
    assert_eq!(log.append(record(1)).await.unwrap().sequence, 1);
    assert!(log.verify().await.unwrap().is_whole());
}

#[tokio::test]
async fn events_are_found_by_each_attribute_newest_first_page_by_page() {
    const EVENTS: u64 = 1200;
    let place = place();
    trail_of(place.path(), 1..=EVENTS).await;
    let log = open(place.path()).unwrap();
    let attribute =
        |key, value: &str| Filter { attributes: vec![Attribute { key, value: value.to_owned() }], ..Filter::default() };
    let second = |number: i64| Some(Timestamp::from_secs(1_700_000_000 + number));
    type Wanted = fn(u64) -> bool;
    let cases: [(Filter, Wanted); 11] = [
        (Filter::default(), |_| true),
        (attribute(AttributeKey::EventId, "id-777-end"), |number| number == 777),
        (attribute(AttributeKey::EventName, "Event3"), |number| number % 7 == 3),
        (attribute(AttributeKey::ReadOnly, "true"), |number| number % 2 == 0),
        (attribute(AttributeKey::Username, "앨리스"), |number| number % 3 == 2),
        (attribute(AttributeKey::Username, "arn:aws:iam::1:user/bob"), |number| number % 3 == 1),
        (attribute(AttributeKey::ResourceName, "mi-5"), |number| number == 5),
        (attribute(AttributeKey::ResourceType, "AWS::SSM::Document"), |_| false),
        (attribute(AttributeKey::AccessKeyId, "AKIA"), |_| false),
        (Filter { errors_only: true, ..Filter::default() }, |number| number % 10 == 0),
        (Filter { since: second(100), until: second(200), ..Filter::default() }, |number| {
            (100..=200).contains(&number)
        }),
    ];
    for (filter, wanted) in cases {
        let expected: Vec<u64> = (1..=EVENTS).rev().filter(|number| wanted(*number)).collect();
        for most in [1, 7, 50, 10_000] {
            if most == 1 && expected.len() > 50 {
                continue;
            }
            let (mut found, mut before) = (Vec::new(), None);
            loop {
                let page = log.lookup(filter.clone(), before, most).await.unwrap();
                assert!(page.events.len() <= most);
                found.extend(page.events.iter().map(|found| found.sequence));
                before = page.next;
                if before.is_none() {
                    assert!(page.at_end);
                    break;
                }
            }
            assert_eq!(found, expected, "{filter:?} by {most}");

            let (mut found, mut from) = (Vec::new(), 0);
            loop {
                let page = log.read(from, filter.clone(), most).await.unwrap();
                found.extend(page.events.iter().map(|found| found.sequence));
                from = page.next.unwrap();
                if page.at_end {
                    break;
                }
            }
            found.reverse();
            assert_eq!(found, expected, "{filter:?} by {most}, oldest first");
        }
    }
}

#[tokio::test]
async fn whoever_follows_sees_each_event_once_it_is_durable() {
    let place = place();
    let log = open(place.path()).unwrap();
    let mut newest = log.follow();
    let follower = tokio::spawn({
        let log = log.clone();
        async move {
            let (mut from, mut seen) = (1, 0);
            while seen < 300 {
                newest.wait_for(|newest| *newest >= from).await.unwrap();
                let page = log.read(from, Filter::default(), 1000).await.unwrap();
                for found in &page.events {
                    seen += 1;
                    assert_eq!(found.sequence, seen);
                }
                from = page.next.unwrap();
            }
        }
    });
    for number in 0..300 {
        log.append(record(number)).await.unwrap();
    }
    follower.await.unwrap();
}

#[tokio::test]
async fn kill_9_loses_no_acknowledged_event() {
    if let Some(place) = child::place() {
        let log = open(&place).unwrap();
        for number in 0.. {
            let receipt = log.append(record(number)).await.unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "stored {}", receipt.sequence).unwrap();
            out.flush().unwrap();
        }
    }
    let place = place();
    let mut stored = 0;
    for round in 1..=5 {
        let mut command = child::command("audit::tests::kill_9_loses_no_acknowledged_event", place.path());
        let mut running = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut number = |line: String| {
            if let Some(number) = line.strip_prefix("stored ").and_then(|number| number.parse().ok()) {
                stored = number;
            }
            stored
        };
        let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines();
        while number(lines.next().unwrap().unwrap()) < round * 300 {}
        drop(running);
        lines.map_while(Result::ok).for_each(|line| _ = number(line));
        let verdict = verify_offline(place.path(), None).unwrap();
        assert!(verdict.bad.is_none(), "{verdict:?}");
        assert!(verdict.events >= stored, "{} of {stored}", verdict.events);
    }
}

#[tokio::test]
async fn on_a_full_disk_calls_are_refused_and_go_on_when_there_is_room() {
    if let Some(place) = child::place() {
        let log = open(&place).unwrap();
        let mut number = 0;
        let error = loop {
            match log.append(record(number)).await {
                Ok(receipt) => number = receipt.sequence,
                Err(error) => break error,
            }
            // Something else fills the disk; the reserve then serves the trail.
            if number == 100 {
                let mut file = std::fs::File::create(place.join("ballast")).unwrap();
                while file.write_all(&[0; 4096]).is_ok() {}
            }
        };
        assert!(error.to_string().contains("No space left"), "{error}");
        assert!(number > 500, "the reserve served only {number} events");
        assert!(log.append(record(1)).await.is_err());
        std::fs::remove_file(place.join("ballast")).unwrap();
        assert_eq!(log.append(record(1)).await.unwrap().sequence, number + 1);
        assert!(log.verify().await.unwrap().is_whole());
        log.shutdown().await;
        assert!(verify_offline(&place, None).unwrap().is_whole());
        return;
    }
    let place = place();
    let test = "audit::tests::on_a_full_disk_calls_are_refused_and_go_on_when_there_is_room";
    let Some(mut command) = child::on_small_disk(test, place.path(), "6m") else {
        eprintln!("skipped: no user namespaces here to mount a small file system in");
        return;
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("1 passed"));
}
