//! Peers that break the rules: answers, upgrade requests, WebSocket and multiplexer bytes.

use std::time::Duration;

use crate::harness::{
    Authority, TestServer, Verdict, client_hello, dial_client, options, quick_limits, receive, send, server_hello,
    within,
};
use bytes::Bytes;
use http::Request;
use munjigi_link::accept::{self, Upgrade, UpgradeError};
use munjigi_link::{BINDING_HEADER, DialError, EndReason, HELLO_HEADER, Limits, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Dials a TLS server that answers every request with these bytes and closes.
async fn dial_answered(answer: Vec<u8>) -> DialError {
    let authority = Authority::new();
    let (chain, key) = authority.issue(&["localhost"], |_| ());
    let acceptor = TlsAcceptor::from(tls::server_config(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let _request = tls.read(&mut [0; 4096]).await;
        // The client may hang up in the middle.
        let _sent = tls.write_all(&answer).await;
        let _closed = tls.shutdown().await;
    });
    let mut dialed = dial_client(&options(address, &authority)).await.unwrap();
    let error = within(dialed.established()).await.unwrap_err();
    within(server).await.unwrap();
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_answers_end_the_dial_with_a_reason() {
    let accepted = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let endless = [b"HTTP/1.1 101 x\r\nx: ".to_vec(), vec![b'a'; 100_000]].concat();
    let many = ["HTTP/1.1 101 x\r\n".to_owned(), "a: b\r\n".repeat(100), "\r\n".to_owned()].concat();
    let huge = ["HTTP/1.1 500 x\r\n\r\n".to_owned(), "x".repeat(1 << 20)].concat();
    for (answer, words) in [
        (String::new(), "ended before the server's answer"),
        ("SSH-2.0-OpenSSH\r\n".to_owned(), "not HTTP/1.1"),
        (String::from_utf8(endless).unwrap(), "more than 16 KiB"),
        (many, "not HTTP/1.1"),
        ("HTTP/1.1 101 x\r\nupgrade: h2c\r\n\r\n".to_owned(), "something else than WebSocket"),
        (format!("{accepted}sec-websocket-accept: AAAA\r\n\r\n"), "wrong Sec-WebSocket-Accept"),
        (format!("{accepted}\r\n"), "wrong Sec-WebSocket-Accept"),
        ("HTTP/1.1 302 x\r\nlocation: https://other\r\ncontent-length: 0\r\n\r\n".to_owned(), "status 302"),
        ("HTTP/1.1 403 x\r\ncontent-length: 3\r\n\r\nno!more".to_owned(), "status 403: no!"),
        ("HTTP/1.1 403 x\r\ncontent-length: 99999999999999999999\r\n\r\nshort".to_owned(), "status 403: short"),
        ("HTTP/1.1 429 x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nslo\r\n1\r\nw\r\n0\r\n\r\n".to_owned(), "429: slow"),
        ("HTTP/1.1 429 x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx".to_owned(), "status 429: x"),
        ("HTTP/1.1 400 x\r\n\r\n\u{1b}[2Jboo".to_owned(), "status 400:  [2Jboo"),
        (huge, "status 500: xxx"),
    ] {
        let error = dial_answered(answer.into_bytes()).await.to_string();
        assert!(error.contains(words), "{error} should contain {words}");
        assert!(error.len() < 500 && !error.contains('\u{1b}'), "{error}");
    }
}

fn upgrade() -> http::request::Builder {
    Request::get("/link/v1")
        .header("connection", "keep-alive, Upgrade")
        .header("upgrade", "WebSocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header(BINDING_HEADER, "A".repeat(43))
        .header(HELLO_HEADER, client_hello().to_header().unwrap())
}

#[test]
fn upgrade_requests_are_checked_in_every_part() {
    let pending = Upgrade::parse(&upgrade().body(()).unwrap()).unwrap();
    assert!(pending.is_bound_to(&[0; 32]) && !pending.is_bound_to(&[1; 32]));
    let response = pending.response(&server_hello(1)).unwrap();
    // RFC 6455 section 1.3 has this pair of key and answer.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(response.status(), 101);

    let with = |name: &str, value: Option<&str>| {
        let mut request = upgrade().body(()).unwrap();
        request.headers_mut().remove(name);
        if let Some(value) = value {
            request.headers_mut().insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        Upgrade::parse(&request).unwrap_err()
    };
    for (name, value, status) in [
        ("connection", None, 426),
        ("connection", Some("close"), 426),
        ("upgrade", Some("h2c"), 426),
        ("sec-websocket-version", Some("8"), 426),
        ("sec-websocket-version", None, 400),
        ("sec-websocket-key", None, 400),
        ("sec-websocket-key", Some("AAAA"), 400),
        ("sec-websocket-key", Some("!"), 400),
        (BINDING_HEADER, None, 400),
        (BINDING_HEADER, Some("AAAA"), 400),
        (HELLO_HEADER, None, 400),
        (HELLO_HEADER, Some("AAAA"), 400),
        (HELLO_HEADER, Some("%%%"), 400),
    ] {
        let error = with(name, value);
        assert_eq!(error.status(), status, "{name}: {value:?}: {error}");
    }
    for name in [BINDING_HEADER, HELLO_HEADER, "sec-websocket-key"] {
        let doubled = upgrade().header(name, "A").body(()).unwrap();
        assert!(matches!(Upgrade::parse(&doubled), Err(UpgradeError::Header { .. })), "{name} twice");
    }
    assert_eq!(Upgrade::parse(&upgrade().method("POST").body(()).unwrap()).unwrap_err().status(), 405);
    let old = upgrade().version(http::Version::HTTP_10).body(()).unwrap();
    assert_eq!(Upgrade::parse(&old).unwrap_err(), UpgradeError::NotAnUpgrade);
}

/// A cheap deterministic source of mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// One masked WebSocket frame; the mask is zero, so that mutations reach the payload as they are.
fn websocket(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    [&[0x80 | opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

/// One frame of the multiplexer: data 0, window update 1, ping 2, going away 3.
fn frame(kind: u8, flags: u8, stream: u8, length: u8, body: &[u8]) -> Vec<u8> {
    [&[0, kind, 0, flags, 0, 0, 0, stream, 0, 0, 0, length], body].concat()
}

/// What a lively peer sends in its first flights.
fn lively() -> Vec<Vec<u8>> {
    vec![
        websocket(2, &frame(0, 1, 1, 5, b"hello")),
        websocket(2, &[frame(0, 0, 1, 3, b"abc"), frame(1, 0, 1, 9, b"")].concat()),
        websocket(9, b"ping"),
        websocket(2, &frame(2, 1, 0, 7, b"")),
        websocket(2, &frame(1, 1, 3, 0, b"")),
        websocket(2, &frame(0, 4, 1, 0, b"")),
        websocket(2, &frame(0, 8, 3, 0, b"")),
        websocket(10, b"12345678"),
        websocket(2, &frame(3, 0, 0, 0, b"")),
        websocket(8, &[3, 232]),
    ]
}

/// Feeds one mutated peer to an accepted link and returns why it ended.
async fn feed(random: &mut Random, limits: &Limits) -> EndReason {
    let mut bytes: Vec<u8> = Vec::new();
    let lively = lively();
    for _ in 0..=random.below(6) {
        bytes.extend_from_slice(&lively[random.below(lively.len())]);
    }
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at.max(1)),
            _ => bytes.insert(at, random.next() as u8),
        }
    }
    let (io, mut peer) = tokio::io::duplex(4096);
    let mut link = accept::run(io, Bytes::from(bytes), limits.clone());
    // Reads what it is told, says nothing more, and hangs up.
    peer.shutdown().await.unwrap();
    let drain = async {
        let mut sink = [0; 512];
        while let Ok(1..) = peer.read(&mut sink).await {}
    };
    let serve = async {
        while let Some(mut stream) = link.accept().await {
            let mut some = [0; 64];
            while let Ok(1..) = stream.read(&mut some).await {}
        }
        link.closed().await
    };
    let ((), reason) = tokio::join!(drain, serve);
    reason
}

#[test]
fn mutated_websocket_and_multiplexer_bytes_neither_panic_nor_hang_a_link() {
    const CASES: u32 = 1 << 18;
    const THREADS: u32 = 2;
    let workers: Vec<_> = (0..THREADS)
        .map(|worker| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let mut random = Random(0x1234_5678_9abc_def1 + u64::from(worker));
                let limits = Limits { max_streams: 8, accept_backlog: 8, ..quick_limits() };
                let mut orderly = 0_u32;
                for _ in 0..CASES / THREADS {
                    let reason = runtime.block_on(async {
                        tokio::time::timeout(Duration::from_secs(30), feed(&mut random, &limits))
                            .await
                            .expect("a link whose peer hung up must end")
                    });
                    assert_ne!(reason, EndReason::Internal, "a panic was caught");
                    orderly += u32::from(reason == EndReason::ClosedByPeer);
                }
                orderly
            })
        })
        .collect();
    let orderly: u32 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
    assert!(orderly > CASES / 100 && orderly < CASES, "the cases should be mixed: {orderly} were orderly");
}

/// Whoever asks for answers without reading them is cut off, within bounded memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_that_are_never_read_ends_or_stalls_the_flood() {
    for flood in [websocket(9, b"answer me"), websocket(2, &frame(2, 1, 0, 7, b""))] {
        let (io, mut peer) = tokio::io::duplex(16 * 1024);
        let limits = Limits {
            ping_interval: Duration::from_millis(100),
            ping_answer: Duration::from_millis(100),
            ..quick_limits()
        };
        let link = accept::run(io, Bytes::new(), limits);
        let writer = tokio::spawn(async move {
            let block = flood.repeat(1000);
            // Ends when the link is gone; until then at most what the pipe and the link's buffers hold is taken.
            let mut taken = 0_usize;
            while peer.write_all(&block).await.is_ok() {
                taken += block.len();
                if taken > 64 << 20 {
                    break;
                }
            }
            drop(peer);
        });
        let reason = within(link.closed()).await;
        assert!(!matches!(reason, EndReason::Internal), "{reason:?}");
        within(writer).await.unwrap();
    }
}

/// A peer that opens more streams than it may have loses the surplus, and the server's other links do not notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_opens_without_end_harms_nobody_else() {
    let mut server = TestServer::start_with(Verdict::Accept, quick_limits()).await;
    let (good, mut good_there) = server.connect().await;
    let (io, mut peer) = tokio::io::duplex(64 * 1024);
    let mut link = accept::run(io, Bytes::new(), Limits { max_streams: 8, accept_backlog: 4, ..quick_limits() });
    let flood = tokio::spawn(async move {
        let mut opened = 0_u32;
        for number in 0..20_000_u32 {
            let mut open = frame(0, 1, 0, 1, b"x");
            open[4..8].copy_from_slice(&(number * 2 + 1).to_be_bytes());
            if peer.write_all(&websocket(2, &open)).await.is_err() {
                break;
            }
            opened += 1;
            let mut answers = [0; 4096];
            let _some = tokio::time::timeout(Duration::ZERO, peer.read(&mut answers)).await;
        }
        opened
    });
    assert_eq!(within(flood).await.unwrap(), 20_000, "refusing is enough, the link itself may live");
    let mut held = 0;
    while let Some(stream) = link.accept().await {
        held += 1;
        drop(stream);
    }
    assert!(held <= 8, "{held}");

    let mut stream = good.opener().open().await.unwrap();
    send(&mut stream, b"undisturbed").await;
    assert_eq!(receive(&mut within(good_there.accept()).await.unwrap(), 11).await, b"undisturbed");
}

/// A stream whose first frame is also its last, which our own multiplexer never sends, ends in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_and_ends_in_one_frame_is_read_to_its_end() {
    let (io, mut peer) = tokio::io::duplex(4096);
    let mut link = accept::run(io, Bytes::new(), quick_limits());
    peer.write_all(&websocket(2, &frame(0, 1 | 4, 1, 3, b"all"))).await.unwrap();
    let mut all = Vec::new();
    within(within(link.accept()).await.unwrap().read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"all");
    // A goodbye with an error code is told as such.
    peer.write_all(&websocket(2, &frame(3, 0, 0, 1, b""))).await.unwrap();
    assert!(matches!(within(link.closed()).await, EndReason::Protocol(_)));
}
