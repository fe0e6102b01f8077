use std::collections::VecDeque;
use std::convert::Infallible;

use super::*;

fn xorshift(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn put(ring: &mut Ring, stream: OutputStream, data: &[u8]) -> Option<usize> {
    ring.fill(stream, MAX_CHUNK, |place| {
        let count = data.len().min(place.len());
        place[..count].copy_from_slice(&data[..count]);
        Ok::<_, Infallible>(count)
    })
    .map(|result| result.unwrap())
}

fn all(ring: &Ring) -> Vec<(u64, OutputStream, Vec<u8>)> {
    let mut list = Vec::new();
    let mut cursor = ring.seek(ring.output_tail()).unwrap();
    while let Some((piece, next)) = ring.next(cursor) {
        list.push((piece.offset, piece.stream, piece.bytes.to_vec()));
        cursor = next;
    }
    list
}

#[test]
fn random_operations_agree_with_a_queue_and_survive_a_change_of_owner_at_any_time() {
    let mut next = xorshift(0x1234_5678_9abc_def1);
    let fd = Ring::create().unwrap();
    let mut ring = Ring::open(&fd).unwrap();
    let mut model: VecDeque<(u64, OutputStream, Vec<u8>)> = VecDeque::new();
    let (mut head, mut input, mut full, mut wrapped, mut emptied) = (0_u64, 0_u64, 0, 0, 0);
    let mut cursor = ring.seek(0).unwrap();
    for step in 0..60_000_u32 {
        match next() % 16 {
            // Phases of mostly writing alternate with phases of mostly reading, so that the ring fills and empties.
            0..=8 if (step / 500) % 2 == 0 || next().is_multiple_of(4) => {
                let length = if next().is_multiple_of(3) { next() % 40_000 } else { next() % 300 } as usize;
                let byte = next() as u8;
                let data = vec![byte; length];
                let stream = if next().is_multiple_of(2) { OutputStream::Stdout } else { OutputStream::Stderr };
                match put(&mut ring, stream, &data) {
                    None => full += 1,
                    Some(0) => assert_eq!(length, 0),
                    Some(count) => {
                        assert!(count <= MAX_CHUNK && count == length.min(count));
                        model.push_back((head, stream, data[..count].to_vec()));
                        head += count as u64;
                    }
                }
            }
            0..=8 => {
                let held: u64 = head - model.front().map_or(head, |chunk| chunk.0);
                let to = head - held + if held == 0 { 0 } else { next() % (held + 1) };
                ring.forget_before(to.min(cursor.offset));
                let to = to.min(cursor.offset);
                while model.front().is_some_and(|(offset, _, data)| offset + data.len() as u64 <= to) {
                    model.pop_front();
                }
                emptied += u32::from(model.is_empty());
            }
            9 => {
                let count = next() % 5;
                ring.add_input(count);
                input += count;
            }
            10 => {
                // The next link half takes over.
                drop(ring);
                ring = Ring::open(&fd).unwrap();
                cursor = ring.seek(cursor.offset).unwrap();
            }
            _ => {
                if let Some((piece, behind)) = ring.next(cursor) {
                    let (offset, stream, data) =
                        model.iter().rev().find(|(offset, _, _)| *offset <= piece.offset).unwrap();
                    assert_eq!(*stream, piece.stream);
                    assert_eq!(&data[(piece.offset - offset) as usize..], piece.bytes);
                    cursor = behind;
                } else {
                    assert_eq!(cursor.offset, head);
                }
            }
        }
        wrapped += u32::from(ring.state.head < ring.state.tail);
        assert_eq!(ring.output_head(), head);
        assert_eq!(ring.output_tail(), model.front().map_or(head, |chunk| chunk.0));
        assert_eq!(ring.input_received(), input);
        if step % 97 == 0 {
            assert_eq!(all(&ring), model.iter().cloned().collect::<Vec<_>>());
        }
    }
    assert!(full > 0 && wrapped > 0 && emptied > 0, "{full} {wrapped} {emptied}");
}

#[test]
fn a_read_that_was_cut_off_by_a_kill_is_published_by_the_next_owner() {
    let fd = Ring::create().unwrap();
    let mut next = xorshift(0x5555_aaaa_1234_4321);
    let mut expected = Vec::new();
    for round in 0..3000_u32 {
        let mut ring = Ring::open(&fd).unwrap();
        assert_eq!(ring.output_head(), expected.len() as u64, "round {round}");
        let chunk: Vec<u8> = (0..next() % 5000).map(|_| (next() % 0xff) as u8).collect();
        // Some reads complete, some bring nothing; the last one fills the place and never returns.
        for _ in 0..next() % 3 {
            let full = put(&mut ring, OutputStream::Stdout, &chunk).unwrap();
            expected.extend_from_slice(&chunk[..full]);
        }
        put(&mut ring, OutputStream::Stdout, b"").unwrap();
        let filled = ring.fill(OutputStream::Stderr, MAX_CHUNK, |place| {
            place[..chunk.len()].copy_from_slice(&chunk);
            Err::<usize, ()>(())
        });
        assert_eq!(filled, Some(Err(())));
        expected.extend_from_slice(&chunk);
        if round % 5 == 0 {
            // The kill may come later too: nothing is then in flight.
            drop(ring);
            ring = Ring::open(&fd).unwrap();
            ring.add_input(1);
        }
        drop(ring);
        let mut ring = Ring::open(&fd).unwrap();
        if let Some((offset, stream, last)) = all(&ring).pop().filter(|_| !chunk.is_empty()) {
            assert_eq!((stream, &last), (OutputStream::Stderr, &chunk));
            assert_eq!(offset + last.len() as u64, expected.len() as u64);
        }
        if next().is_multiple_of(4) {
            ring.forget_before(next() % (expected.len() as u64 + 1));
        } else if ring.output_head() - ring.output_tail() > 900_000 {
            ring.forget_before(ring.output_head());
        }
    }
}

#[test]
fn reading_can_begin_at_any_byte_that_is_held() {
    let fd = Ring::create().unwrap();
    let mut ring = Ring::open(&fd).unwrap();
    put(&mut ring, OutputStream::Stdout, b"hello").unwrap();
    put(&mut ring, OutputStream::Stderr, b"world").unwrap();
    ring.forget_before(5);
    assert_eq!(ring.seek(4), None);
    assert_eq!(ring.seek(11), None);
    for from in 5..10 {
        let (piece, _) = ring.next(ring.seek(from).unwrap()).unwrap();
        assert_eq!((piece.offset, piece.bytes), (from, &b"world"[from as usize - 5..]));
    }
    assert!(ring.next(ring.seek(10).unwrap()).is_none());
}

#[test]
fn a_full_ring_takes_nothing_and_an_idle_one_keeps_few_pages() {
    let fd = Ring::create().unwrap();
    let mut ring = Ring::open(&fd).unwrap();
    let mut total = 0;
    while let Some(count) = put(&mut ring, OutputStream::Stdout, &[7; MAX_CHUNK]) {
        total += count as u64;
    }
    assert!(total as usize > CAPACITY - 2 * MAX_CHUNK && total as usize <= CAPACITY);
    assert!(!ring.has_room());
    let before = nix::sys::stat::fstat(&fd).unwrap().st_blocks;
    ring.forget_before(total);
    let after = nix::sys::stat::fstat(&fd).unwrap().st_blocks;
    assert!(ring.has_room());
    assert!(before >= 2000 && after <= 160, "{before} then {after} blocks of 512 bytes");
    assert_eq!((ring.state.head, ring.state.tail), (0, 0));
}

#[test]
fn a_damaged_ring_is_refused_or_harmless_whatever_is_in_it() {
    let fd = Ring::create().unwrap();
    let mut ring = Ring::open(&fd).unwrap();
    for length in [1_usize, 9, 300, 5000] {
        put(&mut ring, OutputStream::Stdout, &vec![1; length]).unwrap();
    }
    drop(ring);
    let mut good = vec![0_u8; HEADER + 8192];
    nix::sys::uio::pread(&fd, &mut good, 0).unwrap();
    let mut next = xorshift(0xdead_beef_0bad_cafe);
    let mut refused = 0;
    for _ in 0..(1_u32 << 18) {
        // Only bytes that the ring reads: header fields, records and the chunk heads behind them.
        let places = [0..24, 64..112, 128..176, HEADER..HEADER + 400];
        let place = places[next() as usize % 4].clone();
        let at = place.start + next() as usize % place.len();
        let byte = [if next().is_multiple_of(2) { next() as u8 } else { good[at] ^ (1 << (next() % 8)) }];
        nix::sys::uio::pwrite(&fd, &byte, at as i64).unwrap();
        match Ring::open(&fd) {
            Ok(ring) => assert!(all(&ring).len() <= CAPACITY / 8),
            Err(_) => refused += 1,
        }
        nix::sys::uio::pwrite(&fd, &good[at..=at], at as i64).unwrap();
    }
    assert!(refused > 1000);
    assert_eq!(all(&Ring::open(&fd).unwrap()).len(), 4);
}

#[test]
fn memory_of_another_size_or_without_seals_is_no_ring() {
    let small = map::create(4096).unwrap();
    assert!(matches!(Ring::open(&small), Err(RingError::System(_))));
    let file = tempfile::tempfile().unwrap();
    file.set_len((HEADER + CAPACITY) as u64).unwrap();
    assert!(matches!(Ring::open(&file), Err(RingError::System(_))));
}
