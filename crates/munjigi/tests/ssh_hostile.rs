//! The SSH door against clients that mean no good: what they may take is bounded, they are sent away, and nobody else
//! notices (T-91, T-93 to T-95). Packets that cannot be read are tried by the quarter million in
//! `server/src/gateway/door_ssh/hostile.rs`.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::unistd::Pid;

use crate::faults::user;
use crate::forward::echo;
use crate::harness::raw_ssh::{Parts, Payload, RawSsh, kexinit, msg};
use crate::harness::{TestServer, TestSsh};

/// Seed of the key with which these clients log in.
const SEED: [u8; 32] = [42; 32];
/// How much a server's memory may grow by what one of these tests does, kilobytes: a good part of what all windows of a
/// connection come to, and the allocator's own.
const MOST_GROWTH: u64 = 96 * 1024;

/// Returns a process' memory in kilobytes.
pub(crate) fn memory(process: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Lets the administrator log in with the key of these clients.
pub(crate) fn register(server: &TestServer) {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
    use base64::Engine as _;

    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
    let blob = Payload::default().string("ssh-ed25519").string(pair.public_key().as_ref()).0;
    let key = format!("ssh-ed25519 {} hostile", base64::engine::general_purpose::STANDARD.encode(blob));
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", "admin", "--ssh-public-key-body", &key]);
}

/// Logs in for the node.
pub(crate) fn logged_in(server: &TestServer) -> RawSsh {
    let mut ssh = RawSsh::exchanged(server.address()).unwrap();
    ssh.log_in(&format!("{}%web-1", user()), &SEED).unwrap();
    ssh
}

/// Somebody who works through the door meanwhile.
fn others_do_not_notice(ssh: &TestSsh) {
    let ran = ssh.ssh(&["-l", &user(), "web-1.munjigi", "echo fine"]);
    assert_eq!(ran.success(), "fine\n");
}

fn stage() -> (TestServer, crate::harness::TestAgent, TestSsh) {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    register(&server);
    others_do_not_notice(&ssh);
    (server, agent, ssh)
}

#[test]
fn what_is_no_ssh_or_too_large_is_sent_away_at_once() {
    let (server, _agent, ssh) = stage();
    let before = memory(server.pid());
    let long = [b"SSH-2.0-".as_slice(), &vec![b'x'; 100_000]].concat();
    let lines: [&[u8]; 8] = [
        b"SSH-1.5-old\r\n",
        b"SSH-3.0-new\r\n",
        b"SSH-\r\n",
        b"SSH-2.0-\0\x01\xff\r\n\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-a\r\n\xff\xff\xff\xff",
        b"SSH-2.0-a\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
        b"SSH-2.0-a\r\n\x00\x05\x00\x00\x0a\x14",
        &long,
    ];
    for line in lines {
        let mut raw = RawSsh::connect(server.address()).unwrap();
        // It may be sent away before it has said everything.
        let _ = raw.socket.write_all(line);
        raw.wait_for_end();
    }
    // A length after keys were exchanged, which is not encrypted with this cipher.
    for length in [u32::MAX, 0x7fff_ffff, 1 << 19, 0, 7] {
        let mut raw = RawSsh::exchanged(server.address()).unwrap();
        let _ = raw.socket.write_all(&[&length.to_be_bytes()[..], &[0; 64]].concat());
        raw.wait_for_end();
    }
    // A user of 10 MB, in packets of every size.
    for size in [200 * 1024, 255 * 1024, 300 * 1024, 10 * 1024 * 1024] {
        let mut raw = RawSsh::exchanged(server.address()).unwrap();
        raw.send(&Payload::of(msg::SERVICE_REQUEST).string("ssh-userauth").0).unwrap();
        raw.receive_kind(msg::SERVICE_ACCEPT).unwrap();
        let request =
            Payload::of(msg::USERAUTH_REQUEST).string(vec![b'u'; size]).string("ssh-connection").string("none");
        let sent = raw.send(&request.0).and_then(|()| raw.receive());
        if let Ok(answer) = sent {
            assert_eq!(answer[0], msg::USERAUTH_FAILURE, "{size}");
        }
        drop(raw);
    }
    // Nothing of a channel is listened to before somebody has logged in (T-34).
    for early in [msg::CHANNEL_OPEN, msg::GLOBAL_REQUEST, msg::DATA, msg::CHANNEL_REQUEST, msg::WINDOW_ADJUST, 255] {
        let mut raw = RawSsh::exchanged(server.address()).unwrap();
        let _ = raw.send(&Payload::of(early).string("session").u32(0).u32(1 << 20).u32(1 << 15).0);
        raw.wait_for_end();
    }
    others_do_not_notice(&ssh);
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
}

#[test]
fn half_open_connections_from_eight_addresses_keep_nobody_out() {
    let (server, _agent, ssh) = stage();
    let before = memory(server.pid());
    let mut held = Vec::new();
    for last in 2..=9 {
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
        for number in 0..80 {
            // Of each address only so many are let in; the others are turned away sooner or later.
            let Ok(mut raw) = RawSsh::connect_from(Some(from), server.address()) else { continue };
            // Silent, after half a version line, after the line, in the middle of the exchange.
            let said = match number % 4 {
                0 => Ok(()),
                1 => raw.socket.write_all(b"SSH-2.0-slo"),
                2 => raw.socket.write_all(b"SSH-2.0-slow\r\n"),
                _ => raw.greet().and_then(|()| raw.send(&kexinit())),
            };
            if said.is_ok() {
                held.push(raw);
            }
        }
        others_do_not_notice(&ssh);
    }
    let during = memory(server.pid());
    // T-91, R-50: at most 64 KiB for each of them.
    assert!(during < before + 64 * 8 * 80, "{before} kB, then {during} kB");
    assert!(held.len() > 8 * 32, "{}", held.len());
    // All are gone in the end: 10 s are for the exchange of keys.
    held.iter_mut().for_each(RawSsh::wait_for_end);
    others_do_not_notice(&ssh);
}

#[test]
fn ten_thousand_channels_are_bounded_and_giant_numbers_change_nothing() {
    let (server, _agent, ssh) = stage();
    let before = memory(server.pid());
    let mut raw = logged_in(&server);
    let mut reader = raw.socket.try_clone().unwrap();
    // Answers are read by nobody until all were asked for: what waits for them must be bounded too.
    let done = AtomicBool::new(false);
    let mut packets = Vec::new();
    for number in 0..10_000_u32 {
        let open = Payload::of(msg::CHANNEL_OPEN).string("session").u32(number).u32(u32::MAX).u32(u32::MAX);
        packets.extend(raw.packet(&open.0));
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            // Slowly at first, then to the end.
            thread::sleep(Duration::from_millis(500));
            reader.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut buffer = [0; 64 * 1024];
            while !done.load(Ordering::Relaxed) {
                let _ = reader.read(&mut buffer);
            }
        });
        raw.socket.write_all(&packets).unwrap();
        others_do_not_notice(&ssh);
        let during = memory(server.pid());
        assert!(during < before + MOST_GROWTH, "{before} kB, then {during} kB");
        done.store(true, Ordering::Relaxed);
    });
    drop(raw);
    // Numbers that are too large for anything.
    let mut raw = logged_in(&server);
    let channel = raw.open("session", 0, 1 << 20, &[]).unwrap().unwrap();
    for _ in 0..3 {
        raw.send(&Payload::of(msg::WINDOW_ADJUST).u32(channel).u32(u32::MAX).0).unwrap();
    }
    let pty = Payload::of(msg::CHANNEL_REQUEST).u32(channel).string("pty-req").byte(1).string("x".repeat(200_000));
    raw.send(&pty.u32(65535).u32(65535).u32(u32::MAX).u32(u32::MAX).string([0]).0).unwrap();
    for size in [65535, u32::MAX] {
        let change = Payload::of(msg::CHANNEL_REQUEST).u32(channel).string("window-change").byte(0);
        raw.send(&change.u32(size).u32(size).u32(size).u32(size).0).unwrap();
    }
    let exec = Payload::of(msg::CHANNEL_REQUEST).u32(channel).string("exec").byte(1).string("stty size; exit 3");
    raw.send(&exec.0).unwrap();
    let mut status = None;
    while status.is_none() {
        let message = raw.receive().unwrap();
        if message[0] == msg::CHANNEL_REQUEST {
            let mut parts = Parts(&message[1..]);
            parts.u32();
            if parts.string() == b"exit-status" {
                status = Some(Parts(&parts.0[1..]).u32());
            }
        }
    }
    assert_eq!(status, Some(3));
    drop(raw);
    // More than the window allows ends the connection.
    let mut raw = logged_in(&server);
    let channel = raw.open("session", 0, 1 << 20, &[]).unwrap().unwrap();
    for _ in 0..4096 {
        if raw.send(&Payload::of(msg::DATA).u32(channel).string([0; 16 * 1024]).0).is_err() {
            break;
        }
    }
    raw.wait_for_end();
    others_do_not_notice(&ssh);
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
}

/// A destination that takes connections and never reads.
fn deaf() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

fn tcp(port: u16) -> Vec<u8> {
    Payload::default().string("localhost").u32(port.into()).string("127.0.0.1").u32(1).0
}

#[test]
fn a_channel_that_nobody_reads_stalls_itself_and_no_other() {
    let (server, _agent, ssh) = stage();
    let (port, listener) = deaf();
    let held = thread::spawn(move || listener.accept().unwrap());
    let mut raw = logged_in(&server);
    let before = memory(server.pid());
    let back = echo();
    // Two hundred channels, one of them to a destination that never reads.
    let stuck = raw.open("direct-tcpip", 0, 1 << 20, &tcp(port)).unwrap().unwrap();
    let mut channels = Vec::new();
    for number in 1..200 {
        channels.push(raw.open("direct-tcpip", number, 1 << 20, &tcp(back)).unwrap().unwrap());
    }
    // It is filled to the end of every window that it gets.
    let mut window: u64 = 128 * 1024;
    let mut sent = 0_u64;
    let mut quiet = false;
    while !quiet {
        while window >= 32 * 1024 {
            raw.send(&Payload::of(msg::DATA).u32(stuck).string([7; 32 * 1024]).0).unwrap();
            (window, sent) = (window - 32 * 1024, sent + 32 * 1024);
        }
        // An answer from elsewhere tells that all before it was taken.
        raw.send(&Payload::of(msg::DATA).u32(channels[0]).string("probe").0).unwrap();
        loop {
            let message = raw.receive().unwrap();
            let mut parts = Parts(&message[1..]);
            match (message[0], parts.u32()) {
                (msg::WINDOW_ADJUST, 0) => window += u64::from(parts.u32()),
                (msg::DATA, 1) => break,
                _ => {}
            }
        }
        quiet = window < 32 * 1024;
    }
    // What is queued here is bounded; the rest is in sockets and with the node.
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes went into a channel that nobody reads");
    let during = memory(server.pid());
    assert!(during < before + MOST_GROWTH, "{before} kB, then {during} kB");
    // All others carry on.
    for (number, channel) in (1..).zip(&channels) {
        raw.send(&Payload::of(msg::DATA).u32(*channel).string(format!("hello {number}")).0).unwrap();
    }
    let mut heard = 0;
    while heard < channels.len() {
        let message = raw.receive().unwrap();
        if message[0] == msg::DATA && String::from_utf8_lossy(&message[9..]).contains("hello") {
            heard += 1;
        }
    }
    others_do_not_notice(&ssh);
    drop(raw);
    drop(held.join().unwrap());
}

#[test]
fn a_client_that_opens_no_window_stalls_its_own_channel_only() {
    let (server, _agent, ssh) = stage();
    // Floods whoever connects.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let flood = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let piece = [1; 64 * 1024];
                while socket.write_all(&piece).is_ok() {}
            });
        }
    });
    let before = memory(server.pid());
    let mut raw = logged_in(&server);
    let closed = raw.open("direct-tcpip", 0, 0, &tcp(flood)).unwrap().unwrap();
    let open = raw.open("direct-tcpip", 1, 1 << 20, &tcp(echo())).unwrap().unwrap();
    for round in 0..50 {
        let text = format!("round {round}");
        raw.send(&Payload::of(msg::DATA).u32(open).string(&text).0).unwrap();
        let mut heard = String::new();
        while heard.len() < text.len() {
            let message = raw.receive_kind(msg::DATA).unwrap();
            let mut parts = Parts(&message[1..]);
            assert_eq!(parts.u32(), 1, "nothing comes without a window");
            heard += std::str::from_utf8(parts.string()).unwrap();
        }
        assert_eq!(heard, text);
    }
    // Exactly what it allows comes, then.
    raw.send(&Payload::of(msg::WINDOW_ADJUST).u32(closed).u32(1000).0).unwrap();
    let mut got = 0;
    while got < 1000 {
        let message = raw.receive_kind(msg::DATA).unwrap();
        let mut parts = Parts(&message[1..]);
        assert_eq!(parts.u32(), 0);
        got += parts.string().len();
    }
    assert_eq!(got, 1000);
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
    // A client that reads nothing at all is its own affair.
    let mut deaf = logged_in(&server);
    let channel = deaf.open("direct-tcpip", 0, u32::MAX, &tcp(flood)).unwrap().unwrap();
    deaf.send(&Payload::of(msg::WINDOW_ADJUST).u32(channel).u32(u32::MAX).0).unwrap();
    others_do_not_notice(&ssh);
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
    drop(deaf);
}

#[test]
fn mutated_packets_end_their_connections_and_nobody_elses() {
    let (server, _agent, ssh) = stage();
    let before = memory(server.pid());
    let mut seed = 0x0123_4567_89ab_cdef_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let address: SocketAddr = server.address();
    for round in 0..600_u32 {
        let sent = (|| {
            let mut raw = RawSsh::connect(address)?;
            match round % 3 {
                // In the clear.
                0 => {
                    raw.greet()?;
                    let mut packet = raw.packet(&kexinit());
                    let at = random() as usize % packet.len();
                    packet[at] ^= 1 << (random() % 8);
                    raw.socket.write_all(&packet)?;
                }
                // A cipher text that was changed on the way.
                1 => {
                    raw.greet()?;
                    raw.exchange()?;
                    let mut packet = raw.packet(&Payload::of(msg::SERVICE_REQUEST).string("ssh-userauth").0);
                    let at = random() as usize % packet.len();
                    packet[at] ^= 1 << (random() % 8);
                    raw.socket.write_all(&packet)?;
                }
                // Nonsense behind a login.
                _ => {
                    raw.greet()?;
                    raw.exchange()?;
                    raw.log_in("web-1", &SEED)?;
                    for _ in 0..20 {
                        let length = 1 + random() as usize % 64;
                        let payload: Vec<u8> = (0..length).map(|_| random() as u8).collect();
                        raw.send(&payload)?;
                    }
                }
            }
            raw.socket.shutdown(std::net::Shutdown::Write)?;
            raw.wait_for_end();
            std::io::Result::Ok(())
        })();
        // It may have been cut off before it had said everything.
        drop(sent);
    }
    others_do_not_notice(&ssh);
    assert!(TcpStream::connect(address).is_ok());
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
}
