//! Recordings on a real disk: made, followed, cut by crashes, broken by the disk.

mod faults;
mod processes;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use munjigi_core::id::NodeId;
use munjigi_core::recording::{Connection, InputData};
use munjigi_core::secret::MasterKey;
use munjigi_core::session::{EndReason, ExitStatus, OutputStream, SessionKind};

use super::*;
use crate::child::memory as place;
use crate::clock;

/// As the hub: stops appending above this backlog.
const HUB_BOUND: usize = 512 * 1024;

fn keys() -> Arc<MasterKeys> {
    Arc::new(MasterKeys::new(MasterKey::new(1, [7; 32]), Vec::new()))
}

fn session(number: u64) -> SessionId {
    SessionId::parse(&format!("alice-{number:017x}")).unwrap()
}

fn meta(session: &SessionId) -> StartMeta {
    StartMeta {
        session: session.clone(),
        kind: SessionKind::Command,
        principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
        node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
        node_name: "web-1".to_owned(),
        os_user: "alice".to_owned(),
        command: Vec::new(),
        endpoints: Vec::new(),
        terminal: None,
        term: None,
        started: clock::now(),
        reason: None,
    }
}

fn output(offset: u64, bytes: &[u8]) -> Event {
    let stream = OutputStream::Stdout;
    Event { at: offset, kind: EventKind::Output { stream, offset, bytes: Bytes::copy_from_slice(bytes) } }
}

fn recordings(place: &Path) -> Recordings {
    Recordings::open(&place.join("recordings"), keys()).unwrap()
}

fn path_of(place: &Path, session: &SessionId) -> PathBuf {
    let files = Files::open(&place.join("recordings")).unwrap();
    place.join("recordings").join(files.find(session, Access::Read).unwrap().unwrap().0.path(session))
}

/// Bytes that tell their own offset, so that a gap or a double shows.
fn pattern(from: u64, length: usize) -> Vec<u8> {
    (from..).take(length).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Appends pattern bytes as the hub does, waiting for the disk when it is behind.
async fn print(recorder: &Recorder, from: u64, to: u64, step: usize) {
    let mut progress = recorder.progress();
    let mut at = from;
    while at < to {
        while recorder.backlog() > HUB_BOUND {
            progress.changed().await.unwrap();
        }
        let length = step.min(usize::try_from(to - at).unwrap());
        recorder.append(output(at, &pattern(at, length))).unwrap();
        at += length as u64;
    }
}

/// Reads output to the end and returns it with its first offset.
async fn read_output(mut reader: RecordingReader) -> (Option<u64>, Vec<u8>, Option<munjigi_core::recording::Seal>) {
    let (mut first, mut bytes, mut seal) = (None, Vec::new(), None);
    loop {
        let batch = reader.next_batch(100_000).await.unwrap();
        if batch.events.is_empty() {
            return (first, bytes, seal);
        }
        for event in &batch.events {
            if let EventKind::Output { offset, bytes: piece, .. } = &event.kind {
                let expected = *first.get_or_insert(*offset) + bytes.len() as u64;
                assert_eq!(*offset, expected, "a gap or a double");
                bytes.extend_from_slice(piece);
            }
        }
        seal = batch.seal.or(seal);
    }
}

#[tokio::test]
async fn a_start_is_on_disk_before_the_recorder_is_given_out() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    let file = File::open(path_of(place.path(), &id)).unwrap();
    let scan = scan::scan(&file, &id, &keys(), u64::MAX).unwrap();
    assert_eq!((scan.position.sequence, scan.torn_bytes), (1, 0));
    assert_eq!(scan.start.unwrap().node_name, "web-1");
    assert!(matches!(recordings.create(&id, &meta(&id), Mode::Normal).await, Err(RecordingError::Exists(_))));
    assert!(matches!(recordings.reopen(&id, Mode::Normal).await, Err(RecordingError::InUse(_))));
    assert!(matches!(recordings.reader(&session(2), ReadFrom::Start).await, Err(RecordingError::NotFound(_))));
    drop(recorder);
}

#[tokio::test]
async fn what_was_appended_is_read_verified_and_sealed() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    print(&recorder, 0, 1_000_000, 777).await;
    recorder
        .append(Event {
            at: 2_000_000,
            kind: EventKind::Input { offset: 0, data: InputData::Bytes(Bytes::from_static(b"typed-marker")) },
        })
        .unwrap();
    let sealed = recorder.seal(EndReason::Exited, Some(ExitStatus::Code(7))).await.unwrap();
    assert_eq!((sealed.bytes_out, sealed.bytes_in), (1_000_000, 12));
    assert!(place.path().join("recordings").join(&sealed.path).is_file());

    let verdict = recordings.verify(&id).await.unwrap();
    assert!(verdict.is_whole());
    assert_eq!((verdict.hash, verdict.records), (sealed.hash, sealed.records));
    let (first, bytes, seal) = read_output(recordings.reader(&id, ReadFrom::Start).await.unwrap()).await;
    assert_eq!((first, bytes), (Some(0), pattern(0, 1_000_000)));
    let seal = seal.unwrap();
    assert_eq!((seal.reason, seal.exit), (EndReason::Exited, Some(ExitStatus::Code(7))));

    assert!(matches!(recordings.reopen(&id, Mode::Normal).await, Err(RecordingError::Sealed(_))));
    assert_eq!(recordings.list().await.unwrap(), std::slice::from_ref(&id));
    let file = std::fs::read(path_of(place.path(), &id)).unwrap();
    for marker in [&b"typed-marker"[..], b"web-1", b"user/alice", &pattern(500, 16)] {
        assert!(!file.windows(marker.len()).any(|window| window == marker), "plain text in the file");
    }
}

#[tokio::test]
async fn reading_begins_at_any_offset_or_record() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    let size = 3_000_000;
    print(&recorder, 0, size, 5000).await;
    recorder.progress().wait_for(|progress| progress.written_output == size).await.unwrap();
    for sealed in [false, true] {
        let mut wanted = [0, 1, 4_999, 5_000, 65_536, 1_500_001, 2_999_999];
        wanted.reverse();
        for from in wanted {
            let mut reader = recordings.reader(&id, ReadFrom::Output(from)).await.unwrap();
            let batch = reader.available(1).await.unwrap();
            let EventKind::Output { offset, bytes, .. } = &batch.events[0].kind else { panic!("{batch:?}") };
            assert_eq!((*offset, &bytes[..]), (from, &pattern(from, bytes.len())[..]), "sealed {sealed}");
            assert_eq!(batch.live, !sealed);

            let mut again = recordings.reader(&id, ReadFrom::Record(batch.next_record)).await.unwrap();
            let rest = reader.available(1).await.unwrap();
            assert_eq!(again.available(1).await.unwrap(), rest, "reading goes on at the next record");
        }
        let mut end = recordings.reader(&id, ReadFrom::Output(size)).await.unwrap();
        if !sealed {
            assert!(end.available(1).await.unwrap().events.is_empty());
            let log = recordings.shared.live(&id).unwrap();
            let (done, sealed) = tokio::sync::oneshot::channel();
            let order = SealOrder { at: 0, reason: EndReason::Terminated, exit: None };
            log.order_seal(order, done);
            recordings.shared.mailbox.send(Some(&log), true).unwrap();
            sealed.await.unwrap().unwrap();
        }
        if sealed {
            let batch = end.next_batch(1).await.unwrap();
            assert!(matches!(batch.events[..], [Event { kind: EventKind::End { .. }, .. }]), "{batch:?}");
        }
    }
    drop(recorder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_of_a_live_file_see_every_byte_once() {
    let place = place();
    let recordings = recordings(place.path());
    for (number, mode) in [(1, Mode::Normal), (2, Mode::Strict)] {
        let id = session(number);
        let size = 8_000_000;
        let recorder = recordings.create(&id, &meta(&id), mode).await.unwrap();
        let mut followers = Vec::new();
        for from in [0, 1_234_567] {
            let reader = recordings.reader(&id, ReadFrom::Output(from)).await.unwrap();
            followers.push((from, tokio::spawn(read_output(reader))));
        }
        print(&recorder, 0, size, 20_011).await;
        recorder.seal(EndReason::Exited, None).await.unwrap();
        for (from, follower) in followers {
            let (first, bytes, seal) = follower.await.unwrap();
            assert_eq!(first, Some(from));
            assert!(bytes == pattern(from, usize::try_from(size - from).unwrap()), "from {from}");
            assert!(seal.is_some());
        }
    }
}

#[tokio::test]
async fn strict_recordings_become_durable_without_more_to_write() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Strict).await.unwrap();
    let mut progress = recorder.progress();
    for at in 0..20 {
        assert_eq!(recorder.append(output(at, b"k")).unwrap(), at + 1);
        let durable = progress.wait_for(|progress| progress.durable_events == at + 1).await.unwrap().clone();
        assert_eq!((durable.durable_output, durable.written_events), (at + 1, at + 1));
    }
    drop(recorder);
    progress.wait_for(|progress| progress.closed).await.unwrap();
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_last_record_keeps_all_before_it() {
    let place = place();
    let id = session(1);
    let (path, last) = {
        let recordings = recordings(place.path());
        let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
        print(&recorder, 0, 100, 100).await;
        let mut progress = recorder.progress();
        let last = progress.wait_for(|progress| progress.written_output == 100).await.unwrap().written_bytes;
        print(&recorder, 100, 150, 50).await;
        recordings.shutdown().await;
        assert!(matches!(recorder.append(output(150, b"x")), Err(RecordingError::Stopped)));
        assert!(matches!(recorder.seal(EndReason::Exited, None).await, Err(RecordingError::Stopped)));
        (path_of(place.path(), &id), usize::try_from(last).unwrap())
    };
    let whole = std::fs::read(&path).unwrap();
    let scan = scan::scan(&File::open(&path).unwrap(), &id, &keys(), u64::MAX).unwrap();
    assert_eq!((scan.position.sequence, scan.position.byte_offset), (3, whole.len() as u64));
    let recordings = recordings(place.path());
    let mut cut_in_last = 0;
    for cut in last..=whole.len() {
        for zeros in [0, 5000] {
            let mut file = whole[..cut].to_vec();
            file.resize(cut + zeros, 0);
            std::fs::write(&path, &file).unwrap();
            let (recorder, recovered) = match recordings.reopen(&id, Mode::Strict).await {
                // Zeros after a part of a record are damage unless the whole rest is zero.
                Err(RecordingError::Damaged(_)) if zeros > 0 => continue,
                other => other.unwrap(),
            };
            let end = recovered.output_end;
            assert_eq!(end, if cut < whole.len() { 100 } else { 150 }, "cut at {cut}");
            assert_eq!(recovered.start.node_name, "web-1");
            cut_in_last += usize::from(recovered.cut_bytes > 0);
            print(&recorder, end, end + 10, 10).await;
            let sealed = recorder.seal(EndReason::Exited, None).await.unwrap();
            assert_eq!(sealed.bytes_out, end + 10);
            assert!(recordings.verify(&id).await.unwrap().is_whole(), "cut at {cut}");
            let (_, bytes, _) = read_output(recordings.reader(&id, ReadFrom::Start).await.unwrap()).await;
            assert_eq!(bytes, pattern(0, usize::try_from(end + 10).unwrap()));
        }
    }
    assert!(cut_in_last > 100, "{cut_in_last} cuts left a part of a record");
}

#[tokio::test]
async fn connections_without_an_end_are_found_when_a_recording_is_continued() {
    let place = place();
    let id = session(1);
    let connection = |kind| Event { at: 7, kind: EventKind::Connection(Box::new(kind)) };
    let opened = |number: u64| {
        let (destination, address) = (format!("db-{number}:5432"), format!("10.0.0.{number}:5432"));
        connection(Connection::Opened { number, destination, address })
    };
    let (hash_in, hash_out, why) = ([1; 32], [2; 32], "the client ended it".to_owned());
    let closed = Connection::Closed { number: 2, bytes_in: 1, bytes_out: 2, hash_in, hash_out, why };
    let lost = |number| connection(Connection::Lost { number, why: "the server stopped".to_owned() });
    {
        let recordings = recordings(place.path());
        let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
        for event in [opened(1), opened(2), opened(3), lost(1), connection(closed)] {
            recorder.append(event).unwrap();
        }
        recordings.shutdown().await;
    }
    let recordings = recordings(place.path());
    let (recorder, recovered) = recordings.reopen(&id, Mode::Normal).await.unwrap();
    let (destination, address) = ("db-3:5432".to_owned(), "10.0.0.3:5432".to_owned());
    assert_eq!(recovered.open, [(3, StillOpen { at: 7, destination, address })].into());
    recorder.append(lost(3)).unwrap();
    recorder.seal(EndReason::Exited, None).await.unwrap();
    assert!(recordings.verify(&id).await.unwrap().is_whole());
}

#[tokio::test]
async fn a_changed_byte_is_found_and_never_continued() {
    let place = place();
    let recordings = recordings(place.path());
    let id = session(1);
    let recorder = recordings.create(&id, &meta(&id), Mode::Normal).await.unwrap();
    print(&recorder, 0, 2000, 500).await;
    let mut progress = recorder.progress();
    drop(recorder);
    progress.wait_for(|progress| progress.closed).await.unwrap();
    let path = path_of(place.path(), &id);
    let whole = std::fs::read(&path).unwrap();
    assert!(recordings.verify(&id).await.unwrap().is_intact());
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        std::fs::write(&path, &changed).unwrap();
        let verdict = recordings.verify(&id).await.unwrap();
        assert!(verdict.bad.is_some(), "byte {at}");
        assert!(recordings.reopen(&id, Mode::Normal).await.is_err(), "byte {at}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_sessions_share_the_writer() {
    let place = place();
    let recordings = Arc::new(recordings(place.path()));
    let mut tasks = Vec::new();
    for number in 0..100 {
        let recordings = recordings.clone();
        tasks.push(tokio::spawn(async move {
            let id = session(number);
            let mode = if number % 10 == 0 { Mode::Strict } else { Mode::Normal };
            let recorder = recordings.create(&id, &meta(&id), mode).await.unwrap();
            print(&recorder, 0, 50_000 + number, 1000).await;
            recorder.seal(EndReason::Exited, None).await.unwrap()
        }));
    }
    for (number, task) in (0..).zip(tasks) {
        let sealed = task.await.unwrap();
        assert_eq!(sealed.bytes_out, 50_000 + number);
        let verdict = recordings.verify(&session(number)).await.unwrap();
        assert!(verdict.is_whole());
        assert_eq!(verdict.hash, sealed.hash);
    }
    assert!(lock(&recordings.shared.live).is_empty());
    assert_eq!(recordings.list().await.unwrap().len(), 100);
}
