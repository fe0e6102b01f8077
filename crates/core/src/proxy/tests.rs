//! The three dialects byte by byte, and what hostile programs send.

use bytes::BytesMut;

use super::*;
use crate::mutate;

/// A SOCKS5 exchange: greeting, then a request of this kind of address.
fn socks5(kind: u8, address: &[u8], port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 2, 0, 2, 5, 1, 0, kind];
    bytes.extend_from_slice(address);
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Feeds the bytes in pieces of `piece` until something is decided; returns what was sent before, the decision, and what
/// was left unread.
fn run(bytes: &[u8], piece: usize) -> (Vec<u8>, Step, Vec<u8>) {
    let mut negotiation = Negotiation::default();
    let (mut input, mut sent) = (BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match negotiation.step(&mut input) {
            Step::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => return (sent, Step::More, input.to_vec()),
            },
            Step::Send(reply) => sent.extend_from_slice(&reply),
            decided => {
                let mut left = input.to_vec();
                left.extend(pieces.flatten());
                return (sent, decided, left);
            }
        }
    }
}

fn asked(step: &Step) -> String {
    match step {
        Step::Connect(request) => request.destination.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_dialect_names_its_destination_in_pieces_of_any_size() {
    let http = "CONNECT Example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nUser-Agent: curl/8\r\n\r\n";
    for (bytes, sent, destination) in [
        (socks5(1, &[10, 1, 2, 3], 5432), vec![5, 0], "10.1.2.3:5432"),
        (socks5(4, &[0; 16], 80), vec![5, 0], "[::]:80"),
        (socks5(3, &name("DB.internal"), 1), vec![5, 0], "db.internal:1"),
        (socks5(3, &name("::1"), 22), vec![5, 0], "[::1]:22"),
        (vec![4, 1, 0, 80, 192, 0, 2, 1, b'm', b'e', 0], vec![], "192.0.2.1:80"),
        ([&[4, 1, 0, 80, 0, 0, 0, 7, 0][..], b"web.internal\0"].concat(), vec![], "web.internal:80"),
        (http.into(), vec![], "example.com:443"),
        (b"CONNECT [fd00::1]:8080 HTTP/1.0\r\n\r\n".to_vec(), vec![], "[fd00::1]:8080"),
    ] {
        for piece in [1, 2, 3, 7, 4096] {
            let (said, step, left) = run(&[&bytes[..], b"first bytes"].concat(), piece);
            assert_eq!((said, asked(&step).as_str()), (sent.clone(), destination), "{bytes:?}");
            assert_eq!(left, b"first bytes", "{bytes:?}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(run(&bytes[..cut], 4096).1, Step::More, "{bytes:?} cut at {cut}");
        }
    }
}

#[test]
fn what_is_not_supported_is_answered_so() {
    let reply = |code: u8| vec![5, code, 0, 1, 0, 0, 0, 0, 0, 0];
    let greeted = |request: &[u8]| [&[5, 1, 0][..], request].concat();
    for (bytes, answer, why) in [
        (greeted(&[5, 2, 0, 1, 1, 2, 3, 4, 0, 80]), reply(7), Wrong::Command),
        (greeted(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0]), reply(7), Wrong::Command),
        (greeted(&[5, 1, 0, 2, 1, 2, 3, 4, 0, 80]), reply(8), Wrong::Destination),
        (greeted(&[4, 1, 0, 1, 1, 2, 3, 4, 0, 80]), reply(1), Wrong::Protocol),
        // Port 0, no name, a name with a space, a name that is no text.
        (greeted(&[5, 1, 0, 1, 1, 2, 3, 4, 0, 0]), reply(4), Wrong::Destination),
        (greeted(&[5, 1, 0, 3, 0, 0, 80]), reply(4), Wrong::Destination),
        (greeted(&[5, 1, 0, 3, 3, b'a', b' ', b'b', 0, 80]), reply(4), Wrong::Destination),
        (greeted(&[5, 1, 0, 3, 1, 0xff, 0, 80]), reply(4), Wrong::Destination),
        (vec![5, 1, 2], vec![5, 0xff], Wrong::Login),
        (vec![5, 0], vec![5, 0xff], Wrong::Login),
        (vec![4, 2, 0, 80, 1, 2, 3, 4, 0], vec![0, 91, 0, 0, 0, 0, 0, 0], Wrong::Command),
        (vec![4, 1, 0, 80, 0, 0, 0, 1, 0, 0], vec![0, 91, 0, 0, 0, 0, 0, 0], Wrong::Destination),
        (vec![0x16, 3, 1, 2, 0], vec![], Wrong::Protocol),
    ] {
        let (mut said, step, _) = run(&bytes, 4096);
        let Step::Close(last, wrong) = step else { panic!("{bytes:?}: {step:?}") };
        said.extend(last);
        let greeting = if bytes.starts_with(&[5, 1, 0]) { vec![5, 0] } else { vec![] };
        assert_eq!((said, wrong), ([greeting, answer].concat(), why), "{bytes:?}");
    }
    for (request, status) in [
        ("GET http://example.com/ HTTP/1.1\r\n\r\n", "HTTP/1.1 405 "),
        ("CONNECT example.com HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("CONNECT example.com:+80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("CONNECT :80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
        ("CONNECT a:80 SPDY\r\n\r\n", "HTTP/1.1 400 "),
        ("CONNECT a b:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "),
    ] {
        let Step::Close(last, _) = run(request.as_bytes(), 4096).1 else { panic!("{request}") };
        assert!(last.starts_with(status.as_bytes()), "{request}: {}", String::from_utf8_lossy(&last));
    }
}

#[test]
fn each_outcome_has_its_own_answer_where_the_dialect_can_tell() {
    let Step::Connect(request) = run(&socks5(1, &[1, 2, 3, 4], 5), 99).1 else { panic!() };
    let all = [
        Outcome::Connected,
        Outcome::Failed,
        Outcome::Denied,
        Outcome::Unreachable,
        Outcome::NotFound,
        Outcome::Refused,
        Outcome::TimedOut,
    ];
    let codes: Vec<u8> = all.iter().map(|outcome| request.answer(*outcome, "")[1]).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6]);
    let Step::Connect(request) = run(b"CONNECT a:1 HTTP/1.1\r\n\r\n", 99).1 else { panic!() };
    let denied = String::from_utf8(request.answer(Outcome::Denied, "policy says no\r\nX: y")).unwrap();
    let (head, body) = denied.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n") && !head.contains("X: y"), "{denied}");
    assert_eq!(body, "policy says no\r\nX: y\n");
}

#[test]
fn what_never_ends_is_given_up() {
    for (start, bound) in [(&b"\x04\x01\x00\x50\x01\x02\x03\x04"[..], 600), (b"CONNECT ", 9000)] {
        let endless = [start, &vec![b'x'; 20_000][..]].concat();
        let mut negotiation = Negotiation::default();
        let mut input = BytesMut::new();
        let closed = endless.iter().position(|byte| {
            input.extend_from_slice(&[*byte]);
            matches!(negotiation.step(&mut input), Step::Close(_, Wrong::TooLong))
        });
        assert!(closed.is_some_and(|at| at < bound), "{closed:?}");
    }
}

#[test]
fn a_quarter_million_hostile_requests_of_each_dialect_neither_panic_nor_grow() {
    let seeds = [
        socks5(3, &name("db.internal"), 5432),
        [&[4, 1, 0, 80, 0, 0, 0, 7, 0][..], b"web.internal\0"].concat(),
        b"CONNECT [fd00::1]:8080 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
    ];
    let mut outcomes = [0_u32; 3];
    for (number, seed) in seeds.iter().enumerate() {
        mutate::each(seed, 0x50c5 + number as u64, |bytes| {
            let (said, step, left) = run(bytes, 1 + bytes.len() % 5);
            assert!(said.len() <= 2 && left.len() <= bytes.len());
            match step {
                Step::More => outcomes[0] += 1,
                Step::Connect(request) => {
                    outcomes[1] += 1;
                    assert!(!request.destination.is_node());
                }
                Step::Close(reply, _) => {
                    outcomes[2] += 1;
                    assert!(reply.len() <= 512);
                }
                Step::Send(_) => unreachable!(),
            }
        });
    }
    assert!(outcomes.iter().all(|count| *count > 1000), "{outcomes:?}");
}
