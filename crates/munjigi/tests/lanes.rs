//! Connections that carry much, over the forwards that people use: every byte, both ways at once; links that are cut
//! and servers that die in the middle; somebody who never reads; thousands at once.

use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use munjigi_link::Limits;
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::harness::cut::CutProxy;
use crate::harness::link::TestLink;
use crate::harness::server::Running;
use crate::harness::{TestServer, success, wait_for};

/// Longest wait for what comes at once on an idle machine.
const LONG: Duration = Duration::from_secs(180);
const BLOCK: usize = 64 * 1024;
/// One gibibyte.
const BLOCKS: u64 = 16 * 1024;

/// A forward in the foreground; it is ended when it is dropped.
struct Forward {
    process: Running,
    said: Value,
}

impl Forward {
    /// Starts it to a port of the node, towards the server itself or a proxy before it.
    fn start(server: &TestServer, node: &str, to: u16, through: Option<u16>) -> Self {
        let mut command = server.munjigi(&["forward", "--output", "json"]);
        if through.is_some() {
            command.env("AWS_ENDPOINT_URL", server.url(through));
        }
        let spec = format!("0:127.0.0.1:{to}");
        let (process, rest) = Running::start(command.args([node, &spec]), "{");
        Self { process, said: serde_json::from_str(&format!("{{{rest}")).unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let port = self.said["Forwards"][0]["Port"].as_u64().unwrap();
        let socket = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        socket
    }

    fn session(&self) -> String {
        self.said["SessionId"].as_str().unwrap().to_owned()
    }
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Block `number`: any block that is lost, doubled, moved or shifted differs.
fn block(number: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..BLOCK).map(|at| (at / 251) as u8).collect();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[BLOCK - 8..].copy_from_slice(&(!number).to_be_bytes());
    bytes
}

/// Writes blocks until they are all written or the connection breaks.
fn say(mut socket: &TcpStream, blocks: u64) -> std::io::Result<()> {
    let mut bytes = block(0);
    for number in 0..blocks {
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes[BLOCK - 8..].copy_from_slice(&(!number).to_be_bytes());
        socket.write_all(&bytes)?;
    }
    socket.shutdown(Shutdown::Write)
}

/// Reads blocks to the end or until the connection breaks, checks each, and returns how many whole ones there were.
/// `at` is told of every thousandth.
fn hear(mut socket: &TcpStream, mut at: impl FnMut(u64)) -> (u64, std::io::Result<()>) {
    let mut expected = block(0);
    let mut bytes = vec![0; BLOCK];
    for number in 0.. {
        if number % 1000 == 0 {
            at(number);
        }
        let mut filled = 0;
        while filled < BLOCK {
            match socket.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return (number, Ok(())),
                Ok(0) => return (number, Err(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => filled += count,
                Err(error) => return (number, Err(error)),
            }
        }
        expected[..8].copy_from_slice(&number.to_be_bytes());
        expected[BLOCK - 8..].copy_from_slice(&(!number).to_be_bytes());
        assert!(bytes == expected, "block {number} differs");
    }
    unreachable!("blocks are numbered without end")
}

/// Returns how many connections to this port are established, both of whose ends are on this machine.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let end = format!(":{port:04X}");
    let of_port = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 3 && fields[1].ends_with(&end) && fields[3] == "01"
    };
    table.lines().filter(of_port).count()
}

fn event(server: &TestServer, name: &str, session: &str) -> Value {
    wait_for("the event in the trail", || {
        let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", name]));
        let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.into_iter().find(|event| event.to_string().contains(session))
    })
}

#[test]
fn a_gibibyte_each_way_at_once_arrives_unchanged_over_lanes_and_is_accounted_for() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (listener, port) = listener();
    let target = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        thread::scope(|scope| {
            let saying = scope.spawn(|| say(&socket, BLOCKS).unwrap());
            let heard = hear(&socket, |_| ());
            saying.join().unwrap();
            heard
        })
    });
    let forward = Forward::start(&server, "web-1", port, None);
    let socket = forward.connect();
    let mut most = 0;
    let (heard, end) = thread::scope(|scope| {
        let saying = scope.spawn(|| say(&socket, BLOCKS).unwrap());
        let heard = hear(&socket, |_| most = most.max(connections(server.address().port())));
        saying.join().unwrap();
        heard
    });
    end.unwrap();
    assert_eq!(heard, BLOCKS);
    let (heard, end) = target.join().unwrap();
    end.unwrap();
    assert_eq!(heard, BLOCKS);
    // Two links, and a lane on each leg.
    assert!(most >= 4, "{most} connections to the server: the bytes did not move to lanes");
    let session = forward.session();
    // Only then the server has heard of both ends: it is told after this machine, on a thread of its own.
    event(&server, "CloseConnection", &session);
    forward.process.signal(Signal::SIGTERM);
    drop(forward);
    let bytes = BLOCKS * BLOCK as u64;
    let event = event(&server, "EndSession", &session).to_string();
    assert!(
        event.contains(&format!("\"bytesIn\":{bytes}")) && event.contains(&format!("\"bytesOut\":{bytes}")),
        "{event}"
    );
    assert!(event.contains("both sides ended it"), "{event}");
}

/// Something that breaks in the middle of a gibibyte downwards, upwards, or both: `breaks` is called when some has
/// arrived. Nobody may take what is missing for an end.
fn broken_in_the_middle(breaks: impl FnOnce(), connect: impl FnOnce(u16) -> TcpStream) {
    let (listener, port) = listener();
    let (begun_tx, begun) = mpsc::sync_channel(1);
    let target = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        thread::scope(|scope| {
            let saying = scope.spawn(|| say(&socket, BLOCKS));
            let heard = hear(&socket, |_| ());
            (heard, saying.join().unwrap())
        })
    });
    let socket = connect(port);
    let (near, far) = thread::scope(|scope| {
        let saying = scope.spawn(|| say(&socket, BLOCKS));
        let hearing = scope.spawn(|| {
            hear(&socket, |number| {
                if number == 2000 {
                    begun_tx.send(()).unwrap();
                }
            })
        });
        begun.recv_timeout(LONG).unwrap();
        breaks();
        let near = (hearing.join().unwrap(), saying.join().unwrap());
        (near, target.join().unwrap())
    });
    for (what, ((heard, end), said)) in [("here", near), ("at the target", far)] {
        assert!(heard < BLOCKS, "{what}: it should have broken in the middle");
        assert!(end.is_err(), "{what}: what is missing was taken for an end");
        let error = end.unwrap_err();
        let waited = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
        assert!(!waited, "{what}: {error}: it hangs");
        assert!(said.is_err(), "{what}: nobody reads what is said, and that was not told");
    }
}

#[test]
fn a_link_that_is_cut_in_the_middle_is_an_error_at_both_ends_and_the_forward_goes_on() {
    let server = TestServer::start();
    let client_side = CutProxy::start(server.address());
    let agent_side = CutProxy::start(server.address());
    let _agent = server.agent_through("web-1", &[], Some(agent_side.port()));
    for (cut, proxy) in [("client", &client_side), ("agent", &agent_side)] {
        let mut forward = None;
        broken_in_the_middle(
            || proxy.reset(),
            |port| {
                let started = Forward::start(&server, "web-1", port, Some(client_side.port()));
                forward.insert(started).connect()
            },
        );
        let session = forward.unwrap().session();
        let recording = wait_for("the broken connection in the recording", || {
            let text = success(&mut server.munjigi(&["play", &session, "--cast"]));
            (text.contains("broke") || text.contains("left")).then_some(text)
        });
        assert!(!recording.contains("both sides ended it"), "{cut}: {recording}");
    }
}

#[test]
fn a_server_that_dies_in_the_middle_is_an_error_at_both_ends() {
    let mut server = TestServer::start();
    let _agent = server.agent("web-1");
    let mut forward = None;
    let starting = &server;
    let (kill, killed) = mpsc::sync_channel(1);
    let pid = server.pid();
    broken_in_the_middle(
        || {
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
            kill.send(()).unwrap();
        },
        |port| forward.insert(Forward::start(starting, "web-1", port, None)).connect(),
    );
    killed.recv().unwrap();
    server.kill();
    server.start_again();
    // What the dead server had written is whole, and the connection that it carried has an end.
    success(&mut server.munjigi(&["verify"]));
    let session = forward.unwrap().session();
    let opened = event(&server, "OpenConnection", &session);
    let closed = event(&server, "CloseConnection", &session);
    let end = &closed["additionalEventData"];
    assert_eq!(end["endReason"], "lost: the server stopped", "{closed}");
    assert_eq!(end["connection"], opened["responseElements"]["connection"], "{closed}");
    assert_eq!((&end["bytesIn"], &end["sha256Out"]), (&Value::Null, &Value::Null), "{closed}");
    let recording = success(&mut server.munjigi(&["play", &session, "--cast"]));
    assert!(recording.contains("connection 1 lost") && !recording.contains("connection 1 closed"), "{recording}");
}

#[test]
fn two_hundred_connections_of_which_one_is_never_read_carry_what_they_should() {
    const EACH: u64 = 32;
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (listener, port) = listener();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut from, mut to) = (socket.try_clone().unwrap(), socket);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    let forward = Forward::start(&server, "web-1", port, None);
    let stuck = forward.connect();
    stuck.set_nonblocking(true).unwrap();
    let bytes = block(0);
    // As much as everything on the way holds; its echo is never read.
    wait_for("the connection that nobody reads to be full", || {
        for _ in 0..10_000 {
            if (&stuck).write(&bytes).is_err() {
                return Some(());
            }
        }
        None
    });
    thread::scope(|scope| {
        for _ in 0..200 {
            let socket = forward.connect();
            scope.spawn(move || {
                thread::scope(|scope| {
                    let saying = scope.spawn(|| say(&socket, EACH).unwrap());
                    let (heard, end) = hear(&socket, |_| ());
                    end.unwrap();
                    assert_eq!(heard, EACH);
                    saying.join().unwrap();
                });
            });
        }
    });
    // The one that was not read has lost nothing either.
    drop(stuck);
}

#[test]
fn ten_thousand_streams_at_once_are_taken_or_refused_and_the_server_stays_small() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (listener, port) = listener();
    thread::spawn(move || listener.incoming().map_while(Result::ok).collect::<Vec<_>>());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (accepted, refused) = runtime.block_on(async {
        let limits = Limits { max_streams: 20_000, ..Limits::client() };
        let link = std::sync::Arc::new(TestLink::dial_within(&server, limits).await);
        let session = link.port_session("web-1", "", port).await.unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..10_000 {
            let (link, id) = (link.clone(), session.id.clone());
            tasks.spawn(async move { tokio::time::timeout(LONG, link.try_connect(&id)).await.expect("no answer") });
        }
        let (mut accepted, mut refused) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Some(stream) => accepted.push(stream),
                None => refused += 1,
            }
        }
        (accepted.len(), refused)
    });
    assert_eq!(accepted + refused, 10_000);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches("kB").trim().parse().unwrap();
    assert!(resident < 512 * 1024, "the server took {resident} KiB");
    runtime.block_on(async {
        let link = TestLink::dial(&server).await;
        let session = link.port_session("web-1", "", port).await.unwrap();
        link.connect(&session.id).await.unwrap();
        session.end().await;
    });
}
