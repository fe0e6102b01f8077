//! Recordings by example: what each rule of the format finds.

mod laws;

use bytes::Bytes;

use super::*;
use crate::id::{NodeId, SessionId};
use crate::secret::{MasterKey, MasterKeys};
use crate::session::{EndReason, ExitStatus, OutputStream, SessionKind, TerminalSize};
use crate::time::Timestamp;

const MARKER: &[u8] = b"plain-text-marker-7f3a";

fn session() -> SessionId {
    SessionId::parse("alice-0123456789abcdef0").unwrap()
}

fn keys() -> MasterKeys {
    MasterKeys::new(MasterKey::new(3, [3; 32]), Vec::new())
}

fn start() -> Event {
    let size = TerminalSize { rows: 24, columns: 80, width_pixels: 0, height_pixels: 0 };
    Event {
        at: 0,
        kind: EventKind::Start(Box::new(StartMeta {
            session: session(),
            kind: SessionKind::Shell,
            principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            node_name: "web-1".to_owned(),
            os_user: "alice".to_owned(),
            command: Vec::new(),
            endpoints: Vec::new(),
            terminal: Some(size),
            term: Some("xterm-256color".to_owned()),
            started: Timestamp::from_secs(1_795_262_400),
            reason: None,
        })),
    }
}

fn output(at: u64, stream: OutputStream, offset: u64, bytes: &[u8]) -> Event {
    Event { at, kind: EventKind::Output { stream, offset, bytes: Bytes::copy_from_slice(bytes) } }
}

fn writer(out: &mut Vec<u8>) -> Writer {
    let random = FileRandom { data_key: [7; 32], wrap_salt: [8; 32], segment_salt: [9; 16] };
    Writer::create(keys().current(), &session(), Timestamp::from_secs(1_795_262_400), random, out).unwrap()
}

/// One event of each kind, in batches of one record each.
fn batches() -> Vec<Vec<Event>> {
    let resized = TerminalSize { rows: 50, columns: 132, width_pixels: 1056, height_pixels: 800 };
    vec![
        vec![start(), output(10, OutputStream::Stdout, 0, MARKER)],
        vec![Event {
            at: 20,
            kind: EventKind::Input { offset: 0, data: InputData::Bytes(Bytes::from_static(b"ls\r")) },
        }],
        vec![
            Event { at: 30, kind: EventKind::Input { offset: 3, data: InputData::Hidden(12) } },
            output(31, OutputStream::Stderr, 22, "문".as_bytes()),
        ],
        vec![Event { at: 40, kind: EventKind::Resize(resized) }],
        vec![Event { at: 50, kind: EventKind::Marker { text: "client detached".to_owned() } }],
        connections(),
        statements(),
        files(),
        vec![output(60, OutputStream::Stdout, 25, b"bye\n")],
    ]
}

fn connections() -> Vec<Event> {
    let destination = "db.internal:5432".to_owned();
    let address = "10.0.0.7:5432".to_owned();
    let closed = Connection::Closed {
        number: 1,
        bytes_in: 300,
        bytes_out: 1 << 40,
        hash_in: [1; 32],
        hash_out: [2; 32],
        why: "the client ended it".to_owned(),
    };
    let refused = Connection::Refused { number: 2, destination: destination.clone(), why: "refused".to_owned() };
    let opened = |number| Connection::Opened { number, destination: destination.clone(), address: address.clone() };
    let lost = Connection::Lost { number: 3, why: "the server died".to_owned() };
    [opened(1), closed, refused, opened(3), lost]
        .map(|connection| Event { at: 55, kind: EventKind::Connection(Box::new(connection)) })
        .into()
}

fn statements() -> Vec<Event> {
    let plain = Statement::new(1, 1, StatementKind::Query, "select '문'");
    let parameters = Some(vec![Some("a".to_owned()), None, Some(String::new())]);
    let full = Statement {
        kind: StatementKind::Execute,
        cut: true,
        masked: true,
        prepared: 1,
        bytes: 1 << 30,
        parameters,
        ..plain.clone()
    };
    let done = StatementEnd {
        connection: 1,
        number: 1,
        outcome: StatementOutcome::Done,
        rows: Some(5),
        tag: "SELECT 5".to_owned(),
        code: String::new(),
        micros: 1234,
    };
    let failed =
        StatementEnd { outcome: StatementOutcome::Failed, rows: None, code: "57014".to_owned(), ..done.clone() };
    let statement = |statement| EventKind::Statement(Box::new(statement));
    let end = |end| EventKind::StatementEnd(Box::new(end));
    [statement(plain), end(done), statement(full), end(failed)].map(|kind| Event { at: 57, kind }).into()
}

fn files() -> Vec<Event> {
    let good = FileCopied {
        connection: 1,
        direction: FileDirection::Upload,
        path: "/srv/보고서\u{1b}[2J".to_owned(),
        bytes: 7,
        kept: 3,
        hash: [9; 32],
        why: String::new(),
    };
    let (direction, hash, why) = (FileDirection::Download, [0; 32], "no space".to_owned());
    let bad = FileCopied { direction, hash, why, ..good.clone() };
    assert!(!good.to_string().contains('\u{1b}') && bad.to_string().ends_with("no space"));
    let change = FileChange {
        connection: 2,
        action: FileAction::Look,
        path: "/srv/a\u{1b}[2J".to_owned(),
        detail: "/srv/b".to_owned(),
        bytes: 9,
        why: String::new(),
    };
    let failed = FileChange { action: FileAction::ReadParts, why: "no".to_owned(), ..change.clone() };
    assert!(!change.to_string().contains('\u{1b}') && failed.to_string().ends_with(": no"));
    let mut events: Vec<_> = [good, bad].map(|file| Event { at: 58, kind: EventKind::File(Box::new(file)) }).into();
    events.extend([change, failed].map(|change| Event { at: 58, kind: EventKind::FileChange(Box::new(change)) }));
    events
}

#[test]
fn the_longest_statement_fits_into_a_record_and_what_is_over_is_left_out() {
    let text = "가".repeat(MAX_STATEMENT_TEXT);
    let long = Statement {
        parameters: Some(vec![Some("x".repeat(9)); 100_000]),
        ..Statement::new(1, u64::MAX, StatementKind::Query, &text)
    };
    assert!(long.cut && long.bytes == text.len() as u64 && long.text.len() <= MAX_STATEMENT_TEXT);
    let mut file = Vec::new();
    let mut writer = writer(&mut file);
    writer.append(&[start(), Event { at: 1, kind: EventKind::Statement(Box::new(long.clone())) }], &mut file).unwrap();
    writer.append(&[Event { at: 1, kind: EventKind::Statement(Box::new(long.clone())) }], &mut file).unwrap();
    let (events, outcome, _) = read(&file, 1000);
    outcome.unwrap();
    let EventKind::Statement(read) = &events[2].kind else { panic!("{events:?}") };
    assert_eq!(read.text, long.text);
    assert_eq!(read.parameters.as_ref().map(Vec::len), Some(MAX_STATEMENT_PARAMETERS / 9));
    assert!(events[1].kind == events[2].kind);
}

/// A small sealed recording, its last position and where each record ends.
fn sample() -> (Vec<u8>, Vec<usize>, Sealed) {
    let mut file = Vec::new();
    let mut writer = writer(&mut file);
    let mut ends = vec![file.len()];
    for batch in batches() {
        writer.append(&batch, &mut file).unwrap();
        ends.push(file.len());
    }
    let sealed = writer.seal(70, EndReason::Exited, Some(ExitStatus::Code(7)), &mut file).unwrap();
    ends.push(file.len());
    (file, ends, sealed)
}

/// Reads all events, feeding `step` bytes at a time; the error and the reader's last position beside them.
fn read(file: &[u8], step: usize) -> (Vec<Event>, Result<(), Tampered>, Reader) {
    let header = Header::parse(file).unwrap().unwrap();
    let key = header.unlock(&keys()).unwrap();
    let mut reader = Reader::new(&header, Some(key));
    let mut events = Vec::new();
    for piece in file[header.length()..].chunks(step) {
        reader.feed(piece);
        loop {
            match reader.next_record() {
                Ok(Some(record)) => events.extend(record.events),
                Ok(None) => break,
                Err(error) => return (events, Err(error), reader),
            }
        }
    }
    (events, Ok(()), reader)
}

fn check(file: &[u8]) -> Verdict {
    verify(&session(), Some(&keys()), file.chunks(1000))
}

fn check_without_key(file: &[u8]) -> Verdict {
    verify(&session(), None, file.chunks(1000))
}

fn bad_record(verdict: &Verdict) -> Option<u64> {
    match &verdict.bad {
        Some(Place::Record(tampered)) => Some(tampered.record),
        _ => None,
    }
}

#[test]
fn what_was_written_is_read_in_any_pieces() {
    let (file, _, sealed) = sample();
    let mut wanted: Vec<Event> = batches().concat();
    wanted.push(Event { at: 70, kind: EventKind::End { reason: EndReason::Exited, exit: Some(ExitStatus::Code(7)) } });
    for step in [1, 7, 100, file.len()] {
        let (events, result, reader) = read(&file, step);
        result.unwrap();
        assert_eq!(events, wanted);
        assert_eq!(reader.torn_bytes(), 0);
        assert!(reader.position().sealed);
    }
    let verdict = check(&file);
    assert!(verdict.is_whole(), "{verdict:?}");
    assert_eq!(
        (verdict.records, verdict.bytes, verdict.hash),
        (batches().len() as u64 + 1, file.len() as u64, sealed.hash)
    );
    let tally = verdict.tally.unwrap();
    assert_eq!((tally.stdout_bytes, tally.stderr_bytes, tally.input_bytes), (26, 3, 15));
    assert_eq!(tally.output_end(), 29);
    let blind = check_without_key(&file);
    assert!(blind.is_whole());
    assert_eq!(blind.hash, sealed.hash);
    assert_eq!(blind.tally, None);
}

#[test]
fn nothing_recorded_stands_in_plain_text() {
    let (file, _, _) = sample();
    for needle in [MARKER, b"web-1", b"xterm", b"detached", b"exited"] {
        assert!(!file.windows(needle.len()).any(|window| window == needle));
    }
}

#[test]
fn every_changed_bit_is_found_at_its_record() {
    let (file, ends, _) = sample();
    for at in 0..file.len() {
        let record = ends.iter().filter(|end| **end <= at).count().checked_sub(1);
        for bit in [0, 3, 7] {
            let mut altered = file.clone();
            altered[at] ^= 1 << bit;
            for verdict in [check(&altered), check_without_key(&altered)] {
                match record {
                    None => assert!(matches!(verdict.bad, Some(Place::Header(_))), "byte {at}: {verdict:?}"),
                    Some(record) => assert_eq!(bad_record(&verdict), Some(record as u64), "byte {at}"),
                }
            }
        }
    }
}

#[test]
fn a_changed_byte_with_the_chain_recomputed_is_found_with_the_key() {
    let (file, ends, _) = sample();
    for record in 0..ends.len() - 1 {
        for offset in [3, 11, 12, 17, 18] {
            let mut altered = file.clone();
            let at = ends[record] + offset;
            altered[at] ^= 1;
            rechain(&mut altered, &ends);
            let verdict = check(&altered);
            // A longer length at the very end reads as a record that was cut off.
            let cut = verdict.torn_bytes > 0 && !verdict.sealed;
            assert_eq!(verdict.records, record as u64, "record {record} byte {offset}: {verdict:?}");
            assert!(bad_record(&verdict) == Some(record as u64) || cut, "record {record} byte {offset}: {verdict:?}");
        }
    }
}

/// What somebody without the key can do: make checks and chain fit again.
fn rechain(file: &mut [u8], ends: &[usize]) {
    let mut previous: [u8; 32] = file[ends[0] - 32..ends[0]].try_into().unwrap();
    for pair in ends.windows(2) {
        let record = &mut file[pair[0]..pair[1]];
        let (content, chain) = record.split_at_mut(record.len() - 32);
        let check = crate::recording::header::sha256(&[&previous, &content[..13]]);
        content[13..17].copy_from_slice(&check[..4]);
        previous = crate::recording::header::sha256(&[&previous, content]);
        chain.copy_from_slice(&previous);
    }
}

#[test]
fn removed_inserted_and_swapped_records_are_found() {
    let (file, ends, _) = sample();
    let record = |index: usize| file[ends[index]..ends[index + 1]].to_vec();
    let build = |order: &[usize]| {
        let mut built = file[..ends[0]].to_vec();
        order.iter().for_each(|index| built.extend(record(*index)));
        built
    };
    let last = ends.len() - 2;
    for removed in 0..last {
        let order: Vec<usize> = (0..=last).filter(|index| *index != removed).collect();
        for verdict in [check(&build(&order)), check_without_key(&build(&order))] {
            assert_eq!(bad_record(&verdict), Some(removed as u64));
        }
        let mut order: Vec<usize> = (0..=last).collect();
        order.insert(removed, removed);
        assert_eq!(bad_record(&check(&build(&order))), Some(removed as u64 + 1));
        let mut order: Vec<usize> = (0..=last).collect();
        order.swap(removed, removed + 1);
        assert_eq!(bad_record(&check(&build(&order))), Some(removed as u64));
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(matches!(check(&longer).bad, Some(Place::Record(Tampered { why: Tamper::AfterSeal, .. }))));
    let unsealed = build(&(0..last).collect::<Vec<_>>());
    let verdict = check(&unsealed);
    assert!(verdict.is_intact() && !verdict.is_whole(), "a cut seal leaves an unsealed recording");
}

#[test]
fn a_recording_of_another_session_or_key_is_refused() {
    let (file, ..) = sample();
    let other = SessionId::parse("mallory-0123456789abcdef0").unwrap();
    let verdict = verify(&other, Some(&keys()), [&file]);
    assert!(matches!(verdict.bad, Some(Place::Header(HeaderError::OtherSession(_)))));
    let wrong = MasterKeys::new(MasterKey::new(3, [4; 32]), Vec::new());
    let verdict = verify(&session(), Some(&wrong), [&file]);
    assert!(matches!(verdict.bad, Some(Place::Header(HeaderError::Key(_)))));
    assert_eq!(Header::parse(b"#!/bin/sh\n").unwrap_err(), HeaderError::NotARecording);
    let mut newer = file;
    newer[9] = 2;
    assert_eq!(Header::parse(&newer).unwrap_err(), HeaderError::UnknownVersion(2));
}

#[test]
fn a_crash_at_any_byte_leaves_all_earlier_records_and_can_be_continued() {
    let (file, ends, _) = sample();
    for cut in ends[0]..file.len() {
        let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
        let (_, result, reader) = read(&file[..cut], 64);
        assert_eq!(result, Ok(()), "cut at {cut}");
        assert_eq!(reader.position().sequence, whole as u64);
        assert_eq!(reader.position().byte_offset, ends[whole] as u64);
        assert_eq!(reader.torn_bytes(), (cut - ends[whole]) as u64);

        let verdict = check(&file[..cut]);
        assert!(verdict.is_intact() && !verdict.sealed);
        assert_eq!(verdict.torn_bytes, reader.torn_bytes());
    }
    for whole in 0..ends.len() - 1 {
        let (_, _, reader) = read(&file[..ends[whole]], 64);
        let key = Header::parse(&file).unwrap().unwrap().unlock(&keys()).unwrap();
        let mut continued = file[..ends[whole]].to_vec();
        let mut writer = Writer::reopen(key, reader.position().clone(), [whole as u8; 16]).unwrap();
        let mut events = Vec::new();
        if whole == 0 {
            events.push(start());
        }
        let tally = writer.tally().clone();
        events.push(output(1, OutputStream::Stdout, tally.output_end(), b"after the crash"));
        writer.append(&events, &mut continued).unwrap();
        assert_eq!(writer.file_bytes(), continued.len() as u64);
        writer.seal(0, EndReason::NodeLost, None, &mut continued).unwrap();
        let verdict = check(&continued);
        assert!(verdict.is_whole(), "{verdict:?}");
        assert_eq!(verdict.tally.unwrap().output_end(), tally.output_end() + 15);
    }
}

#[test]
fn the_same_sequence_number_after_a_crash_uses_another_key() {
    let (file, ends, _) = sample();
    let (_, _, reader) = read(&file[..ends[3]], 64);
    let key = Header::parse(&file).unwrap().unwrap().unlock(&keys()).unwrap();
    let mut again = Vec::new();
    let mut writer = Writer::reopen(key.clone(), reader.position().clone(), [1; 16]).unwrap();
    writer.append(&batches()[3], &mut again).unwrap();
    let mut once_more = Vec::new();
    let mut writer = Writer::reopen(key, reader.position().clone(), [2; 16]).unwrap();
    writer.append(&batches()[3], &mut once_more).unwrap();
    assert_eq!(again.len(), once_more.len());
    let (head, salt) = (17, 16);
    assert_ne!(again[head + salt..], once_more[head + salt..]);
    assert_ne!(again[head + salt..head + salt + 8], file[ends[3] + head..ends[3] + head + 8]);
}

#[test]
fn a_seal_right_after_reopening_verifies_and_nothing_follows_a_seal() {
    let (file, ends, _) = sample();
    let cut = ends[ends.len() - 2];
    let (_, _, reader) = read(&file[..cut], 64);
    let key = Header::parse(&file).unwrap().unwrap().unlock(&keys()).unwrap();
    let mut continued = file[..cut].to_vec();
    let writer = Writer::reopen(key.clone(), reader.position().clone(), [1; 16]).unwrap();
    let sealed = writer.seal(99, EndReason::NodeLost, None, &mut continued).unwrap();
    let verdict = check(&continued);
    assert!(verdict.is_whole());
    assert_eq!((verdict.hash, verdict.records, verdict.bytes), (sealed.hash, sealed.records, sealed.file_bytes));
    assert_eq!(verdict.seal.unwrap().reason, EndReason::NodeLost);

    let (_, _, reader) = read(&file, 64);
    let refused = Writer::reopen(key, reader.position().clone(), [1; 16]).map(|_| ()).unwrap_err();
    assert_eq!(refused, WriteError::NotContinuable);
}

#[test]
fn reading_goes_on_from_a_noted_position() {
    let (file, ends, _) = sample();
    for whole in 1..ends.len() {
        let (_, _, reader) = read(&file[..ends[whole]], 64);
        let key = Header::parse(&file).unwrap().unwrap().unlock(&keys()).unwrap();
        let mut resumed = Reader::resume(Some(key), reader.position().clone());
        resumed.feed(&file[ends[whole]..]);
        let mut count = 0;
        while let Some(record) = resumed.next_record().unwrap() {
            assert_eq!(record.sequence, (whole + count) as u64);
            count += 1;
        }
        assert_eq!(count, ends.len() - 1 - whole);
        assert_eq!(resumed.position(), read(&file, 64).2.position());
    }
}

#[test]
fn the_writers_position_is_the_readers_and_reading_goes_on_from_it() {
    let mut file = Vec::new();
    let mut writer = writer(&mut file);
    let header = Header::parse(&file).unwrap().unwrap();
    let mut reader = Reader::new(&header, Some(header.unlock(&keys()).unwrap()));
    let mut fed = header.length();
    for batch in batches() {
        let before = writer.position();
        writer.append(&batch, &mut file).unwrap();
        reader.feed(&file[fed..]);
        fed = file.len();
        let record = reader.next_record().unwrap().unwrap();
        assert_eq!(*reader.position(), writer.position());
        let mut resumed = Reader::resume(Some(writer.data_key().clone()), before.clone());
        resumed.feed(&file[usize::try_from(before.byte_offset).unwrap()..]);
        assert_eq!(resumed.next_record().unwrap().unwrap(), record);
    }
}

#[test]
fn events_out_of_order_are_refused_and_change_nothing() {
    let mut file = Vec::new();
    let mut writer = writer(&mut file);
    let before = file.clone();
    let refused = |writer: &mut Writer, file: &mut Vec<u8>, events: &[Event]| {
        writer.append(events, file).map(|()| "written").unwrap_err()
    };
    let early = output(0, OutputStream::Stdout, 0, b"x");
    assert_eq!(refused(&mut writer, &mut file, std::slice::from_ref(&early)), WriteError::Disorder(Disorder::Start));
    let gap = [start(), output(0, OutputStream::Stdout, 0, b"x"), output(0, OutputStream::Stderr, 2, b"x")];
    let offset = Disorder::Offset { expected: 1, found: 2 };
    assert_eq!(refused(&mut writer, &mut file, &gap), WriteError::Disorder(offset));
    let end = Event { at: 0, kind: EventKind::End { reason: EndReason::Exited, exit: None } };
    assert_eq!(refused(&mut writer, &mut file, &[start(), end]), WriteError::EndBySealing);
    let mut long = start();
    if let EventKind::Start(meta) = &mut long.kind {
        meta.command = vec!["x".repeat(49 * 1024)];
    }
    assert_eq!(refused(&mut writer, &mut file, &[long]), WriteError::StartTooLong);
    assert_eq!(file, before);
    writer.append(&[start(), early], &mut file).unwrap();
    assert!(matches!(refused(&mut writer, &mut file, &[start()]), WriteError::Disorder(Disorder::Start)));
    let backwards = output(0, OutputStream::Stdout, 1, b"y");
    writer
        .append(&[Event { at: 500, kind: EventKind::Marker { text: "m".to_owned() } }, backwards], &mut file)
        .unwrap();
    assert_eq!(writer.tally().last_at, 500, "time is lifted, never lost");
}

#[test]
fn asciicast_joins_cut_characters_and_leaves_input_out() {
    let resized = TerminalSize { rows: 50, columns: 132, width_pixels: 0, height_pixels: 0 };
    let hangul = "문지기".as_bytes();
    let typed = Event {
        at: 2_500_000,
        kind: EventKind::Input { offset: 0, data: InputData::Bytes(Bytes::from_static(b"secret\r")) },
    };
    let events = [
        start(),
        output(1_000_000, OutputStream::Stdout, 0, &hangul[..4]),
        output(1_500_001, OutputStream::Stderr, 4, b"\xff\x1b[31m\"\n"),
        output(2_000_000, OutputStream::Stdout, 12, &hangul[4..]),
        typed,
        Event { at: 3_000_000, kind: EventKind::Resize(resized) },
        Event { at: 3_000_000, kind: EventKind::Marker { text: "client resumed".to_owned() } },
        output(3_500_000, OutputStream::Stdout, 17, b"\xec"),
        Event {
            at: 4_000_000,
            kind: EventKind::End {
                reason: EndReason::Exited,
                exit: Some(ExitStatus::Signal { name: "KILL".to_owned(), core_dumped: false }),
            },
        },
    ];
    let export = |input| {
        let mut out = Vec::new();
        let mut cast = asciicast::Asciicast::new(input);
        events.iter().for_each(|event| cast.write(event, &mut out));
        cast.finish(&mut out);
        String::from_utf8(out).unwrap()
    };
    let wanted = concat!(
        r#"{"version":3,"term":{"cols":80,"rows":24,"type":"xterm-256color"},"timestamp":1795262400,"#,
        r#""title":"alice-0123456789abcdef0 on mi-0123456789abcdef0"}"#,
        "\n",
        "[1.000000, \"o\", \"문\"]\n",
        "[0.500001, \"o\", \"\u{fffd}\\u001b[31m\\\"\\n\"]\n",
        "[0.499999, \"o\", \"지기\"]\n",
        "[1.000000, \"r\", \"132x50\"]\n",
        "[0.000000, \"m\", \"client resumed\"]\n",
        "[1.000000, \"o\", \"\u{fffd}\"]\n",
        "[0.000000, \"x\", \"137\"]\n",
    );
    assert_eq!(export(asciicast::Input::LeaveOut), wanted);
    let all = export(asciicast::Input::Include);
    assert!(all.contains("[0.500000, \"i\", \"secret\\r\"]\n[0.500000, \"r\""), "{all}");
    for line in all.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

/// The example of `docs/recording-format.md`: header, a segment record and the seal.
fn documented_example() -> Vec<u8> {
    let mut file = Vec::new();
    let random = FileRandom { data_key: [0x11; 32], wrap_salt: [0x22; 32], segment_salt: [0x33; 16] };
    let master = MasterKey::new(1, [0x44; 32]);
    let created = Timestamp::from_secs(1_795_262_400);
    let mut writer = Writer::create(&master, &session(), created, random, &mut file).unwrap();
    writer.append(&[start(), output(1500, OutputStream::Stdout, 0, b"hello\n")], &mut file).unwrap();
    writer.seal(2000, EndReason::Exited, Some(ExitStatus::Code(0)), &mut file).unwrap();
    file
}

#[test]
fn the_documented_example_is_what_is_written() {
    let document = include_str!("../../../../../docs/recording-format.md");
    let hex: String = document
        .split("```hex\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(hex, hex::encode(documented_example()));
}
