//! Port sessions: connections to real sockets, both ways and by halves, and what is not connected to (T-58).

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::Action;
use munjigi_core::wire::message::{Connect, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Stream;
use munjigi_link::framed::FrameReader;
use nix::sys::signal::{Signal, kill};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::agent::{Agent, enrol, write_private};
use crate::server::{Linked, Server, Session};

/// Longest wait for what comes at once on an idle machine.
const LONG: Duration = Duration::from_secs(120);

async fn session(server: &Server, link: &Linked, host: &str, port: u16) -> Session {
    let action = Action::Connect(vec![Endpoint::Tcp(Destination::new(host, port).unwrap())]);
    let grant = server.grant(link, "", action, false);
    Session::start(link, server.sign(&grant), None).await.unwrap()
}

/// Opens a connection of the session; returns the address that the node connected to.
async fn connect(link: &Linked, session: &str) -> Result<(Stream, String), Refused> {
    wish(link, Connect { session_id: session.to_owned(), ..Connect::default() }).await
}

async fn wish(link: &Linked, wish: Connect) -> Result<(Stream, String), Refused> {
    let mut stream = link.connection.opener().open().await.unwrap();
    let wish = open::Wish::Connect(wish);
    let mut first = bytes::BytesMut::new();
    Frame::Open(Box::new(Open { wish: Some(wish) })).encode(&mut first).unwrap();
    stream.write_all(&first).await.unwrap();
    stream.flush().await.unwrap();
    let mut reader = FrameReader::new(stream);
    match timeout(LONG, reader.read(FrameSet::ANSWER)).await.unwrap().unwrap().unwrap() {
        Frame::Accepted(accepted) => {
            let (stream, early) = reader.into_parts();
            assert!(early.is_empty(), "the destinations of these tests wait to be spoken to");
            Ok((stream, accepted.address))
        }
        Frame::Refused(refused) => Err(refused),
        other => panic!("{other:?}"),
    }
}

/// Listens, and answers each connection's bytes with themselves until their end, then with `!`.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.write_all(b"!").await;
            });
        }
    });
    address
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

pub(crate) async fn eight_connections_carry_both_ways_and_end_by_halves() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let target = echo().await;
    let session = session(&server, &link, "", target.port()).await;
    assert_eq!((session.accepted.os_user.as_str(), session.accepted.process_id), ("", 0));
    let mut tasks = JoinSet::new();
    for seed in 0..8 {
        let (stream, address) = connect(&link, &session.id).await.unwrap();
        assert_eq!(address, target.to_string());
        tasks.spawn(async move {
            let sent = noise(seed, 1_000_000);
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = async {
                write.write_all(&sent).await.unwrap();
                // Only this direction ends: everything still comes back, and then the other side's last word.
                write.shutdown().await.unwrap();
            };
            let reading = async {
                let mut heard = Vec::new();
                read.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let ((), heard) = tokio::join!(writing, reading);
            assert_eq!(heard.last(), Some(&b'!'));
            assert!(heard[..heard.len() - 1] == sent, "connection {seed} differs");
        });
    }
    timeout(LONG, tasks.join_all()).await.unwrap();
}

pub(crate) async fn a_hundred_megabytes_arrive_unchanged_whoever_is_slow() {
    const PIECES: u64 = 100;
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = session(&server, &link, "127.0.0.1", listener.local_addr().unwrap().port()).await;
    let (mut stream, _) = connect(&link, &session.id).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    let source = tokio::spawn(async move {
        for seed in 0..PIECES {
            socket.write_all(&noise(seed, 1 << 20)).await.unwrap();
        }
    });
    // Nobody reads: the source stops, and the agent holds little.
    // As long as nobody reads the source cannot end, and the agent holds little, however long it takes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!source.is_finished());
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.link_half())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB");
    assert!(resident.parse::<u64>().unwrap() < 32 * 1024, "{resident} KiB");
    for seed in 0..PIECES {
        let mut piece = vec![0; 1 << 20];
        timeout(LONG, stream.read_exact(&mut piece)).await.unwrap().unwrap();
        let expected = noise(seed, 1 << 20);
        assert_eq!(digest(&SHA256, &piece).as_ref(), digest(&SHA256, &expected).as_ref(), "piece {seed}");
    }
    assert_eq!(timeout(LONG, stream.read(&mut [0])).await.unwrap().unwrap(), 0);
    source.await.unwrap();
}

pub(crate) async fn what_may_not_be_reached_is_refused_with_its_reason() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    enrol(directory.path(), &server);
    std::fs::remove_file(directory.path().join("agent.toml")).unwrap();
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open_port = open.local_addr().unwrap().port();
    let denied = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let denied_port = denied.local_addr().unwrap().port();
    let config = format!("login_records = false\ndenied_destinations = ['10.9.0.0/16', '127.0.0.1:{denied_port}']\n");
    write_private(&directory.path().join("agent.toml"), config.as_bytes());
    let (_agent, link) = Agent::start_in(directory, &mut server).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed_port = closed.local_addr().unwrap().port();
    drop(closed);
    let own = server.address.port();
    let cases = [
        ("169.254.169.254", 80, "DestinationDenied"),
        ("::ffff:169.254.169.254", 80, "DestinationDenied"),
        ("fd00:ec2::254", 80, "DestinationDenied"),
        ("224.0.0.1", 80, "DestinationDenied"),
        ("255.255.255.255", 80, "DestinationDenied"),
        ("0.0.0.0", open_port, "DestinationDenied"),
        ("127.0.0.1", 22, "DestinationDenied"),
        ("10.9.1.1", 5432, "DestinationDenied"),
        ("", denied_port, "DestinationDenied"),
        // The server that the node obeys.
        ("", own, "DestinationDenied"),
        ("no-such-host.invalid", 80, "HostNotFound"),
        ("", closed_port, "ConnectionRefused"),
    ];
    for (host, port, code) in cases {
        let session = session(&server, &link, host, port).await;
        let refused = connect(&link, &session.id).await.unwrap_err();
        assert_eq!(refused.code, code, "{host}:{port}: {}", refused.message);
        assert!(!refused.message.is_empty());
    }
    let good = session(&server, &link, "", open_port).await;
    let (_stream, address) = connect(&link, &good.id).await.unwrap();
    assert_eq!(address, format!("127.0.0.1:{open_port}"));
    assert_eq!(connect(&link, "tester-00000000000000000").await.unwrap_err().code, "SessionEnded");
}

pub(crate) async fn a_node_whose_owner_forwards_nothing_starts_no_port_session() {
    let mut server = Server::start().await;
    let directory = tempfile::tempdir().unwrap();
    enrol(directory.path(), &server);
    std::fs::remove_file(directory.path().join("agent.toml")).unwrap();
    write_private(&directory.path().join("agent.toml"), b"forwarding = false\n");
    let (_agent, link) = Agent::start_in(directory, &mut server).await;
    let action = Action::Connect(vec![Endpoint::Tcp(Destination::new("", 22).unwrap())]);
    for (os_user, pty, reason) in [("", false, "ForwardingOff"), ("root", true, "PortGrantInvalid")] {
        let grant = server.grant(&link, os_user, action.clone(), pty);
        let refused = Session::start(&link, server.sign(&grant), None).await.map(|session| session.id).unwrap_err();
        assert_eq!(refused.reason, reason);
    }
}

pub(crate) async fn an_endpoint_that_is_new_to_a_session_needs_a_grant_of_its_own() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let (one, two) = (echo().await, echo().await);
    let endpoint = |address: SocketAddr| Endpoint::Tcp(Destination::new("", address.port()).unwrap());
    let start = server.grant(&link, "", Action::Connect(Vec::new()), false);
    let mut session = Session::start(&link, server.sign(&start), None).await.unwrap();
    let extension = |endpoints: Vec<Endpoint>| {
        let mut grant = server.grant(&link, "", Action::Extend(endpoints), false);
        grant.session.clone_from(&start.session);
        grant
    };
    let ask = async |link: &Linked, to: SocketAddr, grant: Vec<u8>| {
        let (session_id, endpoint) = (session.id.clone(), Some((&endpoint(to)).into()));
        let asked = Connect { session_id, endpoint, grant: grant.into(), ..Connect::default() };
        wish(link, asked).await.map(|_| ()).map_err(|refused| refused.reason)
    };
    let refused = |reason: &str| Err(reason.to_owned());
    assert_eq!(ask(&link, one, Vec::new()).await, refused("GrantRequired"));
    let other = server.grant(&link, "", Action::Extend(vec![endpoint(one)]), false);
    assert_eq!(ask(&link, one, server.sign(&other)).await, refused("GrantForOtherSession"));
    let mut beginning = server.grant(&link, "", Action::Connect(vec![endpoint(one)]), false);
    beginning.session.clone_from(&start.session);
    assert_eq!(ask(&link, one, server.sign(&beginning)).await, refused("GrantMalformed"));
    let mut somebody = extension(vec![endpoint(one)]);
    somebody.os_user = "alice".to_owned();
    assert_eq!(ask(&link, one, server.sign(&somebody)).await, refused("OsUserInvalid"));
    // An extension starts nothing.
    let refusal = Session::start(&link, server.sign(&extension(vec![endpoint(one)])), None).await;
    assert_eq!(refusal.map(|session| session.id).unwrap_err().reason, "SessionExists");

    let good = server.sign(&extension(vec![endpoint(one)]));
    assert_eq!(ask(&link, one, good.clone()).await, Ok(()));
    assert_eq!(ask(&link, one, Vec::new()).await, Ok(()), "it is known now");
    assert_eq!(ask(&link, two, Vec::new()).await, refused("GrantRequired"));
    assert_eq!(ask(&link, two, good).await, refused("GrantReplayed"));
    // The privileged half remembers what another link half never heard of.
    kill(agent.link_half(), Signal::SIGKILL).unwrap();
    let mut link = server.linked().await;
    session.rejoin(&mut link).await;
    let session_id = session.id.clone();
    let again = Connect { session_id, endpoint: Some((&endpoint(one)).into()), ..Connect::default() };
    wish(&link, again).await.map(|_| ()).unwrap();
    session.end("terminated").await;
    assert_eq!(session.finish().await.code, Some(0));
}

pub(crate) async fn the_end_of_a_port_session_cuts_its_connections() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut session = session(&server, &link, "", listener.local_addr().unwrap().port()).await;
    let (mut stream, _) = connect(&link, &session.id).await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    session.end("terminated").await;
    assert!(timeout(LONG, stream.read(&mut [0])).await.unwrap().is_err(), "no orderly end");
    assert!(timeout(LONG, socket.read(&mut [0])).await.unwrap().is_err(), "a reset");
    assert_eq!(session.finish().await.code, Some(0));
    assert_eq!(connect(&link, &session.id).await.unwrap_err().code, "SessionEnded");
}

pub(crate) async fn what_breaks_on_one_side_breaks_on_the_other() {
    let mut server = Server::start().await;
    let (_agent, link) = Agent::start(&mut server).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let session = session(&server, &link, "", listener.local_addr().unwrap().port()).await;
    let pair = async || {
        let (stream, _) = connect(&link, &session.id).await.unwrap();
        (stream, listener.accept().await.unwrap().0)
    };
    // The destination resets.
    let (mut stream, socket) = pair().await;
    reset(socket);
    assert!(timeout(LONG, stream.read(&mut [0])).await.unwrap().is_err());
    // The client's side is gone.
    let (stream, mut socket) = pair().await;
    drop(stream);
    assert!(timeout(LONG, socket.read(&mut [0])).await.unwrap().is_err());
}

fn reset(socket: TcpStream) {
    socket.set_zero_linger().unwrap();
}

pub(crate) async fn a_port_session_outlives_a_killed_link_half() {
    let mut server = Server::start().await;
    let (agent, link) = Agent::start(&mut server).await;
    let target = echo().await;
    let mut session = session(&server, &link, "", target.port()).await;
    let (mut stream, _) = connect(&link, &session.id).await.unwrap();
    kill(agent.link_half(), Signal::SIGKILL).unwrap();
    assert!(timeout(LONG, stream.read(&mut [0])).await.unwrap().is_err());
    let mut link = server.linked().await;
    session.rejoin(&mut link).await;
    let (mut stream, _) = connect(&link, &session.id).await.unwrap();
    stream.write_all(b"again").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    timeout(LONG, stream.read_to_string(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, "again!");
    session.end("terminated").await;
    assert_eq!(session.finish().await.code, Some(0));
}
