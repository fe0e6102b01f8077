//! Both ends joined, the layout of frames, bounds, and hostile frames.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % below as u64) as usize
    }
}

fn pair() -> (Mux, Mux) {
    let limits = MuxLimits::default();
    (Mux::new(Side::Client, limits), Mux::new(Side::Server, limits))
}

fn output(mux: &mut Mux) -> Bytes {
    let mut out = BytesMut::new();
    while let Some(bytes) = mux.next_output(1 << 20) {
        out.put(bytes);
    }
    out.freeze()
}

fn pass(from: &mut Mux, to: &mut Mux) {
    to.receive(output(from)).unwrap();
}

fn events(mux: &mut Mux) -> Vec<MuxEvent> {
    std::iter::from_fn(|| mux.next_event()).collect()
}

#[test]
fn frames_have_the_documented_layout_and_streams_the_ids_3_5_7() {
    let (mut client, _) = pair();
    assert_eq!([client.open(), client.open(), client.open()], [Ok(3), Ok(5), Ok(7)]);
    client.write(3, "hi".into()).unwrap();
    client.close(3);
    client.keep_alive();
    let expected = ["0100000003000000", "0100000005000000", "0100000007000000", "0103000000000000"].concat()
        + "01020200030000006869"
        + "0101000003000000";
    assert_eq!(hex::encode(output(&mut client)), expected);
}

#[test]
fn lengths_and_ids_are_little_endian() {
    let header = FrameHeader { command: Command::Psh, length: 0x0102, stream: 0x0304_0506 };
    assert_eq!(header.bytes(), [1, 2, 2, 1, 6, 5, 4, 3]);
    assert_eq!(FrameHeader::parse(header.bytes()), Ok(header));
}

#[test]
fn a_stream_opens_carries_bytes_both_ways_and_ends_for_both() {
    let (mut client, mut server) = pair();
    let id = client.open().unwrap();
    client.write(id, "ping".into()).unwrap();
    pass(&mut client, &mut server);
    assert_eq!(events(&mut server), [MuxEvent::Opened(id), MuxEvent::Readable(id)]);
    assert_eq!(server.read(id), Read::Data("ping".into()));
    assert_eq!(server.read(id), Read::Nothing);
    server.write(id, "pong".into()).unwrap();
    server.close(id);
    assert_eq!(server.write(id, "late".into()), Err(StreamError::Closed));
    pass(&mut server, &mut client);
    assert_eq!(server.streams(), 0);
    assert_eq!(events(&mut client), [MuxEvent::Readable(id)]);
    assert_eq!(client.read(id), Read::Data("pong".into()));
    assert_eq!(client.read(id), Read::End);
    assert_eq!(client.write(id, "late".into()), Err(StreamError::Closed));
    client.close(id);
    pass(&mut client, &mut server);
    assert_eq!((client.streams(), server.streams()), (0, 0));
}

#[test]
fn data_for_streams_that_are_closed_or_never_were_is_dropped() {
    let (mut client, mut server) = pair();
    let id = client.open().unwrap();
    client.write(id, "x".into()).unwrap();
    let late = output(&mut client).slice(HEADER..);
    server.receive(late).unwrap();
    assert_eq!((events(&mut server), server.read(id)), (vec![], Read::End));
}

#[test]
fn streams_beyond_the_limit_and_towards_the_client_are_closed_at_once() {
    let limits = MuxLimits { streams: 2, ..MuxLimits::default() };
    let (mut client, _) = pair();
    let mut server = Mux::new(Side::Server, limits);
    for _ in 0..3 {
        client.open().unwrap();
    }
    pass(&mut client, &mut server);
    assert_eq!(events(&mut server), [MuxEvent::Opened(3), MuxEvent::Opened(5)]);
    let answer = output(&mut server);
    assert_eq!(hex::encode(&answer), "0101000007000000");
    client.receive(answer).unwrap();
    assert_eq!(client.read(7), Read::End);
    client.receive(Bytes::from_static(&[1, 0, 0, 0, 9, 0, 0, 0])).unwrap();
    assert_eq!(hex::encode(output(&mut client)), "0101000009000000");
    assert_eq!(server.open(), Err(StreamError::TooMany));
}

#[test]
fn a_stream_that_nobody_reads_stalls_the_session_at_its_bound_and_not_before() {
    let limits = MuxLimits { receive: 64 * 1024, ..MuxLimits::default() };
    let (mut client, _) = pair();
    let mut server = Mux::new(Side::Server, limits);
    let (slow, quick) = (client.open().unwrap(), client.open().unwrap());
    let mut arrived = 0;
    while server.wants_input() {
        client.write(slow, vec![0; 1000].into()).unwrap();
        client.write(quick, vec![1; 1000].into()).unwrap();
        pass(&mut client, &mut server);
        while let Read::Data(bytes) = server.read(quick) {
            arrived += bytes.len();
        }
    }
    assert!(arrived >= 60 * 1000, "{arrived}");
    let flood = vec![0; limits.receive + 1024];
    assert_eq!(server.receive(flood.into()), Err(MuxError::Overflow));
    while let Read::Data(_) = server.read(slow) {}
    assert!(server.wants_input());
}

#[test]
fn a_full_stream_refuses_and_says_when_there_is_room_again() {
    let (mut client, mut server) = pair();
    let id = client.open().unwrap();
    while client.room(id) > 0 {
        let most = client.room(id).min(10_000);
        client.write(id, vec![0; most].into()).unwrap();
    }
    assert_eq!(client.write(id, "x".into()), Err(StreamError::Full));
    assert_eq!(events(&mut client), []);
    pass(&mut client, &mut server);
    assert_eq!(events(&mut client), [MuxEvent::Writable(id)]);
    client.write(id, "x".into()).unwrap();
}

#[test]
fn a_writer_that_waits_is_told_that_its_stream_is_closed() {
    let (mut client, mut server) = pair();
    let id = client.open().unwrap();
    pass(&mut client, &mut server);
    while client.room(id) > 0 {
        let most = client.room(id);
        client.write(id, vec![0; most].into()).unwrap();
    }
    assert_eq!(client.write(id, "x".into()), Err(StreamError::Full));
    server.close(id);
    pass(&mut server, &mut client);
    assert_eq!(events(&mut client), [MuxEvent::Writable(id), MuxEvent::Readable(id)]);
    assert_eq!(client.write(id, "x".into()), Err(StreamError::Closed));
    assert_eq!(client.read(id), Read::End);
}

#[test]
fn streams_take_turns() {
    let (mut client, mut server) = pair();
    let ids = [client.open().unwrap(), client.open().unwrap()];
    for id in ids {
        client.write(id, vec![0; 100_000].into()).unwrap();
    }
    server.receive(client.next_output(32 * 1024).unwrap()).unwrap();
    server.receive(client.next_output(32 * 1024).unwrap()).unwrap();
    for id in ids {
        assert!(matches!(server.read(id), Read::Data(_)), "{id}");
    }
}

#[test]
fn frames_of_other_versions_commands_and_lengths_end_the_session() {
    let cases: [(&[u8], MuxError); 4] = [
        (&[2, 0, 0, 0, 3, 0, 0, 0], MuxError::Version(2)),
        (&[0, 0, 0, 0, 0, 0, 0, 0], MuxError::Version(0)),
        (&[1, 4, 0, 0, 3, 0, 0, 0], MuxError::Command(4)),
        (&[1, 0, 1, 0, 3, 0, 0, 0], MuxError::Length(0)),
    ];
    for (bytes, error) in cases {
        assert_eq!(pair().1.receive(Bytes::copy_from_slice(bytes)), Err(error));
    }
}

#[test]
fn every_byte_of_many_streams_arrives_once_and_in_order_in_pieces_of_any_size() {
    for seed in 1..200_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let limits = MuxLimits { receive: 20_000, send: 5_000, send_together: 12_000, frame: 700, streams: 8 };
        let mut ends = [Mux::new(Side::Client, limits), Mux::new(Side::Server, limits)];
        let mut wires = [BytesMut::new(), BytesMut::new()];
        let mut sent: [BTreeMap<u32, Vec<u8>>; 2] = Default::default();
        let mut got: [BTreeMap<u32, Vec<u8>>; 2] = Default::default();
        for _ in 0..4 {
            ends[0].open().unwrap();
        }
        for step in 0..600 {
            let at = random.next(2);
            let id = [3, 5, 7, 9][random.next(4)];
            let room = ends[at].room(id).min(3000);
            if step < 400 && room > 0 && (at == 0 || got[1].contains_key(&id)) {
                let bytes: Vec<u8> = (0..1 + random.next(room)).map(|_| random.next(256) as u8).collect();
                sent[at].entry(id).or_default().extend(&bytes);
                ends[at].write(id, bytes.into()).unwrap();
            }
            if let Some(bytes) = ends[at].next_output(9 + random.next(3000)) {
                wires[at].put(bytes);
            }
            let to = 1 - at;
            if ends[to].wants_input() && !wires[at].is_empty() {
                let most = wires[at].len().min(5000);
                let piece = wires[at].split_to(1 + random.next(most)).freeze();
                ends[to].receive(piece).unwrap();
            }
            while let Some(event) = ends[to].next_event() {
                if let MuxEvent::Opened(id) = event {
                    got[to].entry(id).or_default();
                }
            }
            let id = [3, 5, 7, 9][random.next(4)];
            if let Read::Data(bytes) = ends[to].read(id) {
                got[to].entry(id).or_default().extend(&bytes);
            }
        }
        for at in [0, 1, 0, 1] {
            wires[at].put(output(&mut ends[at]));
            while !wires[at].is_empty() {
                let most = wires[at].len().min(5000);
                let piece = wires[at].split_to(most).freeze();
                ends[1 - at].receive(piece).unwrap();
                for id in [3, 5, 7, 9] {
                    while let Read::Data(bytes) = ends[1 - at].read(id) {
                        got[1 - at].entry(id).or_default().extend(&bytes);
                    }
                }
            }
        }
        for at in [0, 1] {
            for (id, bytes) in &sent[at] {
                assert_eq!(got[1 - at].get(id), Some(bytes), "seed {seed}, end {at}, stream {id}");
            }
        }
        assert!(sent[0].values().map(Vec::len).sum::<usize>() > 10_000, "seed {seed}");
    }
}

#[test]
fn a_quarter_million_hostile_frames_neither_panic_nor_grow() {
    let limits = MuxLimits { receive: 8 * 1024, streams: 16, ..MuxLimits::default() };
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut mux = Mux::new(Side::Server, limits);
    let mut ended = 0;
    for case in 0..1 << 18 {
        let version = if random.next(500) == 0 { random.next(256) as u8 } else { 1 };
        let command = if random.next(500) == 0 { random.next(256) as u8 } else { random.next(4) as u8 };
        let length = if command == 2 || random.next(300) == 0 { random.next(40) as u8 } else { 0 };
        let mut frame = vec![version, command, length, 0, random.next(40) as u8, 0, 0, 0];
        frame.extend(std::iter::repeat_n(7, random.next(usize::from(length) + 1).max(usize::from(length) / 2)));
        let room = mux.wants_input();
        if mux.receive(frame.into()).is_err() {
            ended += 1;
            mux = Mux::new(if random.next(2) == 0 { Side::Server } else { Side::Client }, limits);
            for _ in 0..random.next(4) {
                let _ = mux.open();
            }
        }
        assert!(mux.streams() <= limits.streams);
        if !room || case % 64 == 0 {
            for id in 0..40 {
                while let Read::Data(_) = mux.read(id) {}
                if random.next(3) == 0 {
                    mux.close(id);
                }
                let _ = mux.write(id, "x".into());
            }
            let events = std::iter::from_fn(|| mux.next_event()).count();
            assert!(events <= 3 * 200, "{events}");
            assert!(output(&mut mux).len() < 64 * 1024);
        }
    }
    assert!(ended > 100, "{ended}");
}
