//! The door against clients that say anything: 2^18 mutated packets before the login and as many after it, without ciphers
//! in the way so that every one reaches the parsers.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use munjigi_core::id::AccessKeyId;
use russh::keys::Algorithm;
use russh::{Preferred, cipher, compression, kex, mac};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Origin, Road, serve_with, settings};
use crate::identity::Caller;
use crate::testing::TestServer;

/// Mutated packets on each side of the login.
const CASES: usize = 1 << 18;
/// Of these, in one connection: it ends at the first that cannot be read.
const EACH: usize = 4;
/// Connections at a time.
const AT_ONCE: usize = 8;
/// How long one connection may last. Generous: it is no measurement.
const LIMIT: Duration = Duration::from_secs(120);

/// Numbers that are the same in every run.
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

/// Builds messages.
fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![kind];
    parts.iter().for_each(|part| message.extend_from_slice(part));
    message
}

fn text(value: &str) -> Vec<u8> {
    [&u32::try_from(value.len()).unwrap().to_be_bytes()[..], value.as_bytes()].concat()
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

fn kexinit() -> Vec<u8> {
    let lists = ["none", "ssh-ed25519", "none", "none", "none", "none", "none", "none", "", ""].map(text).concat();
    message(20, &[&[7; 16], &lists, &[0], &number(0)])
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let padding = match 8 - (5 + payload.len()) % 8 {
        short @ ..4 => short + 8,
        enough => enough,
    };
    let mut packet = number(u32::try_from(1 + payload.len() + padding).unwrap()).to_vec();
    packet.push(u8::try_from(padding).unwrap());
    packet.extend_from_slice(payload);
    packet.resize(packet.len() + padding, 0);
    packet
}

/// What clients say before they have logged in.
fn before() -> Vec<Vec<u8>> {
    let service = text("ssh-connection");
    let blob = [text("ssh-ed25519"), vec![0, 0, 0, 32], vec![9; 32]].concat();
    let blob = [&number(u32::try_from(blob.len()).unwrap())[..], &blob].concat();
    vec![
        kexinit(),
        message(21, &[]),
        message(30, &[&number(32), &[9; 32]]),
        message(2, &[&text("ignored")]),
        message(4, &[&[1], &text("debug"), &text("en")]),
        message(7, &[&number(1), &text("ext-info-in-auth@openssh.com"), &text("0")]),
        message(5, &[&text("ssh-userauth")]),
        message(50, &[&text("web-1"), &service, &text("none")]),
        message(50, &[&text("web-1"), &service, &text("password"), &[0], &text("secret")]),
        message(50, &[&text("root%web-1"), &service, &text("publickey"), &[0], &text("ssh-ed25519"), &blob]),
        message(50, &[&text("web-1"), &service, &text("publickey"), &[1], &text("ssh-ed25519"), &blob, &blob]),
        message(50, &[&text("web-1"), &service, &text("keyboard-interactive"), &text(""), &text("")]),
        message(61, &[&number(1), &text("answer")]),
    ]
}

/// What clients say once they have.
fn after() -> Vec<Vec<u8>> {
    let open =
        |kind: &str, rest: &[u8]| message(90, &[&text(kind), &number(0), &number(1 << 20), &number(32768), rest]);
    let request = |kind: &str, rest: &[u8]| message(98, &[&number(2), &text(kind), &[1], rest]);
    let (here, tcp) = (text("localhost"), [text("localhost"), number(80).to_vec()].concat());
    vec![
        open("session", &[]),
        open("direct-tcpip", &[tcp.clone(), tcp.clone()].concat()),
        open("direct-streamlocal@openssh.com", &[text("/run/x"), text(""), number(0).to_vec()].concat()),
        open("forwarded-tcpip", &[tcp.clone(), tcp.clone()].concat()),
        open("x11", &[here.clone(), number(6000).to_vec()].concat()),
        open("auth-agent@openssh.com", &[]),
        open("tun@openssh.com", &number(1)),
        request(
            "pty-req",
            &[text("xterm"), [80_u32, 24, 0, 0].map(number).concat(), text("\u{1}\0\0\0\u{3}\0")].concat(),
        ),
        request("env", &[text("LANG"), text("C.UTF-8")].concat()),
        request("window-change", &[65535_u32, 65535, 0, 0].map(number).concat()),
        request("signal", &text("INT")),
        request("auth-agent-req@openssh.com", &[]),
        request("x11-req", &[vec![0], text("MIT"), text("00"), number(0).to_vec()].concat()),
        request("subsystem", &text("netconf")),
        message(80, &[&text("tcpip-forward"), &[1], &here, &number(0)]),
        message(80, &[&text("cancel-tcpip-forward"), &[1], &here, &number(0)]),
        message(80, &[&text("streamlocal-forward@openssh.com"), &[1], &text("/run/y")]),
        message(80, &[&text("keepalive@openssh.com"), &[1]]),
        message(91, &[&number(2), &number(0), &number(1 << 20), &number(32768)]),
        message(92, &[&number(2), &number(1), &text("no"), &text("")]),
        message(93, &[&number(2), &number(u32::MAX)]),
        message(94, &[&number(2), &text("data")]),
        message(95, &[&number(2), &number(1), &text("more")]),
        message(96, &[&number(2)]),
        message(97, &[&number(2)]),
        message(99, &[&number(2)]),
        message(81, &[&number(1)]),
        message(82, &[]),
        message(192, &[&text("ping")]),
        kexinit(),
        message(1, &[&number(11), &text("bye"), &text("")]),
    ]
}

/// Changes a packet as broken and hostile senders do.
fn mutate(random: &mut Random, mut packet: Vec<u8>, others: &[Vec<u8>]) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = random.below(packet.len().max(1));
        match random.below(8) {
            // In the head: the length, the padding, the kind.
            0 => {
                if let Some(byte) = packet.get_mut(random.below(6)) {
                    *byte = random.next() as u8;
                }
            }
            // A number that is too large, or nearly.
            1 => {
                let value = [0, 1, 0x7fff_ffff, u32::MAX, u32::MAX - 3, 0x0004_0000, 65536][random.below(7)];
                let place = 5 + at;
                if let Some(four) = packet.get_mut(place..place + 4) {
                    four.copy_from_slice(&number(value));
                }
            }
            2 => packet.truncate(at),
            3 => packet.extend_from_slice(&others[random.below(others.len())]),
            4 => {
                let tail = packet.split_off(at);
                packet.push(random.next() as u8);
                packet.extend(tail);
            }
            _ => {
                if let Some(byte) = packet.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    packet
}

/// One connection: a good beginning, then mutated packets. Returns how many bytes the door answered.
async fn connection(test: Arc<TestServer>, caller: Caller, logged_in: bool, seed: u64) -> usize {
    let mut random = Random(seed | 1);
    let (client, end) = tokio::io::duplex(64 * 1024);
    let road = match logged_in {
        true => Road::Link { caller, node: "web-1".to_owned() },
        false => Road::Port,
    };
    let origin = Origin { peer: SocketAddr::from(([127, 0, 0, 1], 1)), pass: None, road };
    let mut plain = settings::of(test.server(), &origin.road).unwrap();
    let settings = Arc::get_mut(&mut plain).unwrap();
    settings.auth_rejection_time = Duration::ZERO;
    settings.preferred = Preferred {
        kex: Cow::Borrowed(&[kex::NONE]),
        key: Cow::Borrowed(&[Algorithm::Ed25519]),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(&[cipher::NONE]),
        mac: Cow::Borrowed(&[mac::NONE]),
        compression: Cow::Borrowed(&[compression::NONE]),
    };
    let server = test.server().clone();
    let served = async { serve_with(&server, end, origin, plain).await };
    let said = async {
        let (mut reading, mut writing) = tokio::io::split(client);
        let messages: Vec<Vec<u8>> = if logged_in { after() } else { before() };
        let mut bytes = b"SSH-2.0-hostile\r\n".to_vec();
        let mut good = Vec::new();
        if logged_in {
            good.extend([kexinit(), message(21, &[]), message(5, &[&text("ssh-userauth")])]);
            good.push(message(50, &[&text("default"), &text("ssh-connection"), &text("none")]));
            good.push(message(90, &[&text("session"), &number(0), &number(1 << 20), &number(32768)]));
        } else {
            good.extend_from_slice(&before()[..random.below(messages.len())]);
        }
        good.iter().for_each(|message| bytes.extend(packet(message)));
        let packets: Vec<_> = messages.iter().map(|message| packet(message)).collect();
        for _ in 0..EACH {
            let chosen = random.below(packets.len());
            // Every other one is a good packet around a broken message, or the parsers behind the first would see little.
            match random.below(2) {
                0 => bytes.extend(mutate(&mut random, packets[chosen].clone(), &packets)),
                _ => bytes.extend(packet(&mutate(&mut random, messages[chosen].clone(), &messages))),
            }
        }
        let write = async {
            // The door may have closed in the middle.
            let _ = writing.write_all(&bytes).await;
            let _ = writing.shutdown().await;
        };
        let mut answered = Vec::new();
        let (_, read) = tokio::join!(write, reading.read_to_end(&mut answered));
        read.map_or(0, |count| count)
    };
    let both = async { tokio::join!(served, said) };
    let ((), answered) = timeout(LIMIT, both).await.unwrap_or_else(|_| panic!("seed {seed} hangs"));
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_million_mutated_packets_on_each_side_of_the_login_neither_panic_nor_hang() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    // A task's panic ends it and nothing else: only the hook sees it.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map_or("", |location| location.file());
        if place.contains("russh") || place.contains("door_ssh") {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        before(panic);
    }));
    let test = Arc::new(TestServer::start().await);
    let key = AccessKeyId::parse(&test.admin.access_key_id).unwrap();
    let (_, principal) = test.server().identities.by_access_key(&key).unwrap();
    let caller = Caller::new(principal, Some(key));
    let mut running = JoinSet::new();
    let mut seeds = Random(0x5eed_0fca_fe15_600d);
    let (mut answered, mut most) = (0_usize, 0);
    for case in 0..2 * CASES / EACH {
        if running.len() >= AT_ONCE {
            let bytes = running.join_next().await.unwrap().unwrap();
            (answered, most) = (answered + bytes, most.max(bytes));
        }
        running.spawn(connection(test.clone(), caller.clone(), case % 2 == 0, seeds.next()));
    }
    while let Some(bytes) = running.join_next().await {
        let bytes = bytes.unwrap();
        (answered, most) = (answered + bytes, most.max(bytes));
    }
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    // It spoke with them, and said little.
    assert!(answered > 2 * CASES && most < 64 * 1024, "{answered} {most}");
    let good = connection(test.clone(), caller, true, 3).await;
    assert!(good > 100, "the door still serves");
    Arc::into_inner(test).unwrap().stop().await;
}
