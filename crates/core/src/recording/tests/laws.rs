//! Recordings by law: random sessions, random damage, random bytes.

use bytes::Bytes;

use super::*;

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
fn random_sessions_round_trip_with_records_of_bounded_size() {
    let mut random = XorShift(0xabcd);
    for round in 0..60 {
        let mut file = Vec::new();
        let mut writer = writer(&mut file);
        let (mut at, mut outputs, mut inputs) = (0, Vec::new(), 0_u64);
        writer.append(&[start()], &mut file).unwrap();
        for _ in 0..random.below(20) {
            let mut batch = Vec::new();
            for _ in 0..random.below(6) {
                at += random.next() % 5_000_000;
                let size = if round % 5 == 0 { random.below(200_000) } else { random.below(300) };
                let bytes: Vec<u8> = (0..size).map(|_| random.next() as u8).collect();
                match random.below(4) {
                    0 => {
                        let data = InputData::Bytes(Bytes::from(bytes.clone()));
                        batch.push(Event { at, kind: EventKind::Input { offset: inputs, data } });
                        inputs += bytes.len() as u64;
                    }
                    1 => batch.push(Event { at, kind: EventKind::Marker { text: "가".repeat(size % 3000) } }),
                    which => {
                        let stream = if which == 2 { OutputStream::Stdout } else { OutputStream::Stderr };
                        batch.push(output(at, stream, outputs.len() as u64, &bytes));
                        outputs.extend_from_slice(&bytes);
                    }
                }
            }
            writer.append(&batch, &mut file).unwrap();
        }
        let sealed = writer.seal(at, EndReason::Exited, None, &mut file).unwrap();
        let (events, result, _) = read(&file, 4096);
        result.unwrap();
        let shown: Vec<u8> = events.iter().flat_map(output_bytes).copied().collect();
        assert!(shown == outputs, "output differs");
        let verdict = check(&file);
        assert!(verdict.is_whole());
        assert_eq!((verdict.hash, verdict.tally.unwrap().input_bytes), (sealed.hash, inputs));
        let fewest = outputs.len() / MAX_RECORD_PAYLOAD;
        assert!(sealed.records as usize >= fewest);
        assert!(file.len() < outputs.len() + inputs as usize + 200 * 1024 * 10);
    }
}

#[test]
fn mutated_files_never_panic_and_never_verify() {
    let (file, _, _) = sample();
    let header = Header::parse(&file).unwrap().unwrap();
    let key = header.unlock(&keys()).unwrap();
    let mut random = XorShift(0x1234_5678);
    for _ in 0..1 << 18 {
        // The header is covered byte by byte elsewhere; here the records are mutated, without the cost of the envelope.
        let mut body = file[header.length()..].to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(body.len());
            match random.below(5) {
                0 if !body.is_empty() => body[at] ^= 1 << random.below(8),
                1 if !body.is_empty() => {
                    body.remove(at);
                }
                2 => body.insert(at, random.next() as u8),
                3 => body.truncate(at),
                _ => {
                    let from = random.below(body.len());
                    let piece: Vec<u8> = body[from..].iter().copied().take(random.below(200)).collect();
                    body.splice(at..at, piece);
                }
            }
        }
        if body == file[header.length()..] {
            continue;
        }
        let mut reader = Reader::new(&header, Some(key.clone()));
        reader.feed(&body);
        let broken = loop {
            match reader.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert!(broken || !reader.position().sealed, "a mutated recording verified");
        assert!(reader.torn_bytes() <= body.len() as u64);
    }
}

#[test]
fn mutated_headers_never_panic_and_never_open() {
    let (file, ends, _) = sample();
    let original = &file[..ends[0]];
    let mut random = XorShift(0xdead);
    for round in 0..1 << 18 {
        let mut bytes = original.to_vec();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => bytes.insert(at, random.next() as u8),
            }
        }
        // Somebody without a key can still make the header's own hash fit.
        if round % 2 == 0 && bytes.len() == original.len() {
            let (content, hash) = bytes.split_at_mut(original.len() - 32);
            hash.copy_from_slice(&crate::recording::header::sha256(&[content]));
        }
        if bytes.starts_with(original) {
            continue;
        }
        if let Ok(Some(header)) = Header::parse(&bytes) {
            assert!(header.length() <= MAX_HEADER_BYTES);
            // The time of making is the one field that the envelope does not bind; the chain does.
            let same_key = header.session == session() && header.unlock(&keys()).is_ok();
            let mut rest = file.clone();
            rest.splice(..ends[0], bytes);
            assert!(!same_key || !check(&rest).is_intact(), "a mutated header was believed");
        }
    }
}

#[test]
fn asciicast_is_the_same_however_output_was_cut() {
    let text = "가나다 ASCII \u{1f512}\u{7f} é 끝".as_bytes();
    let export = |pieces: &[&[u8]]| {
        let mut cast = asciicast::Asciicast::new(asciicast::Input::LeaveOut);
        let mut out = Vec::new();
        for piece in pieces {
            cast.write(&output(0, OutputStream::Stdout, 0, piece), &mut out);
        }
        cast.finish(&mut out);
        let lines = String::from_utf8(out).unwrap();
        lines
            .lines()
            .map(|line| serde_json::from_str::<(f64, String, String)>(line).unwrap().2)
            .collect::<String>()
            .into_bytes()
    };
    for first in 0..=text.len() {
        for second in first..=text.len() {
            assert_eq!(export(&[&text[..first], &text[first..second], &text[second..]]), text);
        }
    }
    let mut random = XorShift(0x55);
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        let cut = random.below(bytes.len() + 1);
        let whole = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(export(&[&bytes[..cut], &bytes[cut..]]), whole.into_bytes());
    }
}

#[test]
fn random_event_bytes_never_panic_and_reencode_to_themselves() {
    let mut random = XorShift(0x77);
    let encoded: Vec<Vec<u8>> = batches()
        .concat()
        .iter()
        .map(|event| {
            let mut bytes = Vec::new();
            event.encode(&mut bytes);
            bytes
        })
        .collect();
    let mut read = 0;
    for round in 0..1 << 18 {
        let mut bytes = encoded[round % encoded.len()].clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        let mut cursor = crate::recording::event::Cursor::new(Bytes::from(bytes.clone()));
        let Some(event) = Event::decode(&mut cursor) else { continue };
        if matches!(event.kind, EventKind::Start(_)) || !cursor.is_empty() {
            continue;
        }
        let mut again = Vec::new();
        event.encode(&mut again);
        assert_eq!(again, bytes, "one encoding per value");
        read += 1;
    }
    assert!(read > 1000, "only {read} mutations were readable");
}
