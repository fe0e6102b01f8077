//! Port sessions through a real server and a real agent, over our own link: bytes, ends, refusals, deaths, and what
//! recording and trail say about them.

use std::future::Future;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::link::TestLink;
use crate::harness::{TestServer, free_port, success, wait_for};

/// Longest wait for what comes at once on an idle machine.
const LONG: Duration = Duration::from_secs(120);

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(LONG * 3, future).await.unwrap() })
}

/// Listens, and answers each connection's bytes with themselves until their end, then with `!`.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.write_all(b"!").await;
            });
        }
    });
    port
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes))
}

/// Returns the trail's record of the session's end.
fn end_event(server: &TestServer, session: &str) -> Value {
    wait_for("the session's end in the trail", || {
        let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", "EndSession"]));
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.into_iter().find(|event| event.to_string().contains(session))
    })
}

#[test]
fn eight_connections_carry_both_ways_and_are_accounted_for() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let id = block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", port).await.unwrap();
        let mut tasks = JoinSet::new();
        for seed in 0..8 {
            let (stream, accepted) = link.connect(&session.id).await.unwrap();
            assert_eq!(accepted.address, format!("127.0.0.1:{port}"));
            tasks.spawn(async move {
                let sent = noise(seed, 300_000);
                let (mut read, mut write) = tokio::io::split(stream);
                let writing = async {
                    write.write_all(&sent).await.unwrap();
                    // Only this direction ends.
                    write.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let (_, read) = tokio::join!(writing, read.read_to_end(&mut heard));
                assert_eq!(read.unwrap(), sent.len() + 1);
                assert!(heard.starts_with(&sent) && heard.ends_with(b"!"), "connection {seed} differs");
            });
        }
        tasks.join_all().await;
        let id = session.id.clone();
        assert_eq!(session.end().await.reason, "terminated");
        id
    });
    let event = end_event(&server, &id);
    let details = find(&event, "connections").unwrap();
    assert_eq!((&details["opened"], &details["refused"]), (&8.into(), &0.into()), "{event}");
    assert_eq!(details["bytesIn"], 8 * 300_000);
    assert_eq!(details["bytesOut"], 8 * 300_001);
    let hashes: Vec<&str> =
        details["listed"].as_array().unwrap().iter().map(|one| one["sha256In"].as_str().unwrap()).collect();
    for seed in 0..8 {
        assert!(hashes.contains(&sha256(&noise(seed, 300_000)).as_str()));
    }
    let sums = find(&event, "bytesIn").unwrap();
    assert_eq!(*sums, Value::from(8 * 300_000));
    // The recording tells the same, and nothing of what was sent.
    let recording = success(&mut server.munjigi(&["play", &id, "--cast"]));
    assert_eq!(recording.matches("opened").count(), 8, "{recording}");
    assert_eq!(recording.matches("both sides ended it").count(), 8, "{recording}");
    success(&mut server.munjigi(&["verify"]));
}

/// Finds a member somewhere in a value.
fn find<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(map) => map.get(name).or_else(|| map.values().find_map(|inner| find(inner, name))),
        Value::Array(list) => list.iter().find_map(|inner| find(inner, name)),
        _ => None,
    }
}

#[test]
fn a_hundred_megabytes_arrive_unchanged() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", listener.local_addr().unwrap().port()).await.unwrap();
        let (mut stream, _) = link.connect(&session.id).await.unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        let source = tokio::spawn(async move {
            for seed in 0..100 {
                socket.write_all(&noise(seed, 1 << 20)).await.unwrap();
            }
        });
        for seed in 0..100 {
            let mut piece = vec![0; 1 << 20];
            stream.read_exact(&mut piece).await.unwrap();
            assert_eq!(sha256(&piece), sha256(&noise(seed, 1 << 20)), "piece {seed}");
        }
        source.await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        session.end().await;
    });
}

#[test]
fn what_may_not_be_reached_is_refused_and_recorded() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let own = server.address().port();
    let mut ids = Vec::new();
    block_on(async {
        let link = TestLink::dial(&server).await;
        let closed = free_port();
        for (host, port, code) in [
            ("169.254.169.254", 80, "DestinationDenied"),
            ("::ffff:169.254.169.254", 80, "DestinationDenied"),
            ("fd00:ec2::254", 80, "DestinationDenied"),
            ("", own, "DestinationDenied"),
            ("", closed, "ConnectionRefused"),
        ] {
            let session = link.port_session("web-1", host, port).await.unwrap();
            let refused = link.connect(&session.id).await.unwrap_err();
            assert_eq!(refused.code, code, "{host}: {}", refused.message);
            ids.push((session.id.clone(), refused.message));
            session.end().await;
        }
        for (host, port) in [("a b", 80), ("", 0)] {
            let refused = link.port_session("web-1", host, port).await.map(|session| session.id).unwrap_err();
            assert_eq!(refused.code, "ValidationException");
        }
        let unknown = link.connect("alice-00000000000000000").await.unwrap_err();
        assert_eq!(unknown.code, "DoesNotExistException");
    });
    for (id, message) in ids {
        let event = end_event(&server, &id);
        assert_eq!(find(&event, "connections").unwrap()["refused"], 1, "{event}");
        let recording = success(&mut server.munjigi(&["play", &id, "--cast"]));
        assert!(recording.contains(message.split(": ").next().unwrap()), "{recording}");
    }
}

#[test]
fn an_end_from_outside_cuts_the_connections() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let mut session = link.port_session("web-1", "", port).await.unwrap();
        let (mut stream, _) = link.connect(&session.id).await.unwrap();
        let mut kill = server.munjigi(&["kill", &session.id]);
        let killed = tokio::task::spawn_blocking(move || success(&mut kill));
        assert_eq!(session.ended().await.reason, "terminated");
        assert!(stream.read(&mut [0]).await.is_err(), "no orderly end");
        killed.await.unwrap();
        assert_eq!(link.connect(&session.id).await.unwrap_err().code, "DoesNotExistException");
    });
}

#[test]
fn a_killed_network_half_breaks_connections_and_not_the_session() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", port).await.unwrap();
        let (mut stream, _) = link.connect(&session.id).await.unwrap();
        kill(agent.link_half(), Signal::SIGKILL).unwrap();
        assert!(stream.read(&mut [0]).await.is_err());
        // Until the node is back it says so.
        let (mut stream, _) = loop {
            match link.connect(&session.id).await {
                Ok(connected) => break connected,
                Err(refused) => {
                    assert!(["TargetNotConnected", "SessionEnded"].contains(&refused.code.as_str()), "{refused:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        stream.write_all(b"again").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "again!");
        session.end().await;
    });
}

#[test]
fn a_killed_client_leaves_a_reset_and_no_connection() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", listener.local_addr().unwrap().port()).await.unwrap();
        let (stream, _) = link.connect(&session.id).await.unwrap();
        let (mut socket, _) = listener.accept().await.unwrap();
        // As a killed process leaves it: nothing is said, the link just ends.
        drop((stream, session, link));
        assert!(socket.read(&mut [0]).await.is_err());
    });
}

#[test]
fn an_idle_port_session_ends_and_cuts_what_is_open() {
    let server = TestServer::with_config("[session]\nidle_timeout_seconds = 2\n");
    let _agent = server.agent("web-1");
    block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let mut session = link.port_session("web-1", "", port).await.unwrap();
        let (mut stream, _) = link.connect(&session.id).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.flush().await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(session.ended().await.reason, "idle-timeout");
        assert!(stream.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_port_session_ends_when_its_node_is_deregistered() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let mut session = link.port_session("web-1", "", port).await.unwrap();
        let (mut stream, _) = link.connect(&session.id).await.unwrap();
        server.aws_json(&["ssm", "deregister-managed-instance", "--instance-id", &agent.node]);
        assert_eq!(session.ended().await.reason, "revoked");
        assert!(stream.read(&mut [0]).await.is_err());
    });
}

#[test]
fn a_killed_server_takes_its_port_sessions_back() {
    let mut server = TestServer::start();
    let _agent = server.agent("web-1");
    block_on(async {
        let port = echo().await;
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", port).await.unwrap();
        let (stream, _) = link.connect(&session.id).await.unwrap();
        // A kill takes what the recording's writer has not come by for yet.
        wait_for("the first connection in the recording", || {
            success(&mut server.munjigi(&["play", &session.id, "--cast"])).contains("connection 1").then_some(())
        });
        server.kill();
        drop(stream);
        server.start_again();
        let link = TestLink::dial(&server).await;
        let (mut stream, _) = loop {
            match link.connect(&session.id).await {
                Ok(connected) => break connected,
                Err(refused) => {
                    assert!(["TargetNotConnected", "SessionEnded"].contains(&&*refused.code), "{refused:?}")
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        stream.write_all(b"again").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "again!");
        success(&mut server.munjigi(&["kill", &session.id]));
        let event = end_event(&server, &session.id);
        // Counted on from the connections of the killed server.
        let number = find(&event, "connections").unwrap()["listed"][0]["number"].as_u64();
        assert!(number.is_some_and(|number| number > 1), "{event}");
    });
}
