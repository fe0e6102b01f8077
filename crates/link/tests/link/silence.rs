//! A peer that is gone without a word is noticed; one that merely has nothing to say is not.

use std::time::Duration;

use crate::harness::{TestServer, Verdict, client_hello, quick_limits, server_hello, sign, within};
use munjigi_core::wire::hello::ServerHello;
use munjigi_link::{DialError, EndReason, Limits, accept, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn impatient() -> Limits {
    Limits { ping_interval: Duration::from_millis(50), ping_answer: Duration::from_millis(50), ..quick_limits() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_peer_ends_the_link_with_that_reason() {
    let (io, mut silent) = tokio::io::duplex(64 * 1024);
    let link = accept::run(io, bytes::Bytes::new(), impatient());
    let EndReason::PeerSilent(quiet) = within(link.closed()).await else { panic!("{:?}", link.closed().await) };
    assert!(quiet >= Duration::from_millis(150), "one interval and two unanswered pings: {quiet:?}");
    // Two pings were sent, as WebSocket frames of 8 bytes.
    let mut sent = Vec::new();
    within(silent.read_to_end(&mut sent)).await.unwrap();
    let ping = |number: u64| [&[0x89, 8][..], &number.to_be_bytes()].concat();
    assert_eq!(sent[..20], [ping(1), ping(2)].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_link_lives_on_and_measures_its_round_trip() {
    let mut server = TestServer::start_with(Verdict::Accept, impatient()).await;
    let (here, there) = server.connect().await;
    assert_eq!(there.round_trip(), None);
    let measured = async {
        while there.round_trip().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(measured).await;
    // Many times longer than silence would be allowed to last.
    let still = tokio::time::timeout(Duration::from_millis(600), here.closed()).await;
    assert!(still.is_err(), "{still:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_never_answers_the_upgrade_is_given_up() {
    let server = TestServer::start().await;
    // A relay that passes the TLS handshake through but holds back everything after it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = server.options();
    options.server.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    options.timeouts.answer = Duration::from_millis(100);
    let upstream = server.address;
    let relay = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(upstream).await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let length = client.read(&mut buffer).await.unwrap();
        server.write_all(&buffer[..length]).await.unwrap();
        let (mut from_server, _to_server) = server.split();
        let (mut from_client, mut to_client) = client.split();
        let swallow = async {
            let mut sink = Vec::new();
            let _end = from_client.read_to_end(&mut sink).await;
        };
        tokio::select! {
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            () = swallow => {}
        }
    });
    let mut dialed = within(dial::dial(&options, &client_hello(), sign)).await.unwrap();
    let error = within(dialed.established()).await.unwrap_err();
    assert!(matches!(error, DialError::Ended(EndReason::NoAnswer(_))), "{error:?}");
    relay.abort();
}

#[test]
fn the_usual_limits_notice_silence_within_25_seconds() {
    for limits in [Limits::agent(), Limits::client()] {
        assert!(limits.ping_interval + 2 * limits.ping_answer <= Duration::from_secs(25));
        let asked = ServerHello { ping_interval_secs: limits.ping_interval.as_secs() as u32, ..server_hello(1) };
        assert!(asked.validate().is_ok());
    }
}
