//! An SSH client that means no good, for `bench/`: mutated packets by the million against the SSH door, before keys are
//! exchanged, before the login and after it.
//!
//! ```text
//! hostile_ssh key                                       prints the public key with which it logs in
//! hostile_ssh packets HOST:PORT LOGIN PACKETS AT-ONCE   prints what became of them, as JSON
//! ```
//!
//! Each connection says something good, then a burst of packets, most of them mutated, and ends. Every run says the same.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool for measurements")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/harness/raw_ssh.rs"]
mod raw_ssh;

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use raw_ssh::{Payload, RawSsh, kexinit, msg};

/// Seed of the key of this client. It is no secret.
const SEED: [u8; 32] = [43; 32];
/// Packets of one connection: the first that cannot be read ends it.
const BURST: u64 = 25;

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
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// What all connections came to.
#[derive(Default)]
struct Outcome {
    packets: AtomicU64,
    connections: AtomicU64,
    logins: AtomicU64,
    /// Connections that did not come as far as they wished, e.g. because the port was full.
    turned_away: AtomicU64,
    /// The longest that a connection stood after its last packet, microseconds.
    longest: AtomicU64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["key"] => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
            let blob = Payload::default().string("ssh-ed25519").string(pair.public_key().as_ref()).0;
            println!("ssh-ed25519 {} hostile", base64::engine::general_purpose::STANDARD.encode(blob));
        }
        ["packets", address, login, packets, at_once] => {
            all(address.parse().unwrap(), login, packets.parse().unwrap(), at_once.parse().unwrap());
        }
        _ => {
            println!("usage: hostile_ssh key | packets HOST:PORT LOGIN PACKETS AT-ONCE");
            std::process::exit(2);
        }
    }
}

fn all(address: SocketAddr, login: &str, packets: u64, at_once: u64) {
    let outcome = Outcome::default();
    let begun = Instant::now();
    thread::scope(|scope| {
        for number in 0..at_once {
            let outcome = &outcome;
            scope.spawn(move || {
                let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1) | 1);
                let mut round = number;
                while outcome.packets.load(Ordering::Relaxed) < packets {
                    round += 1;
                    if one(address, login, round % 4, &mut random, outcome).is_err() {
                        outcome.turned_away.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let value = serde_json::json!({
        "packets": of(&outcome.packets),
        "connections": of(&outcome.connections),
        "logins": of(&outcome.logins),
        "turned_away": of(&outcome.turned_away),
        "longest_ms": of(&outcome.longest) as f64 / 1e3,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    println!("{value}");
}

/// One connection of one of four kinds. `Err` if it did not come as far as its burst.
fn one(address: SocketAddr, login: &str, kind: u64, random: &mut Random, outcome: &Outcome) -> io::Result<()> {
    let mut raw = RawSsh::connect(address)?;
    raw.greet()?;
    if kind > 0 {
        raw.exchange()?;
    }
    if kind > 1 {
        raw.log_in(login, &SEED)?;
        outcome.logins.fetch_add(1, Ordering::Relaxed);
    }
    let corpus = if kind > 1 { after() } else { before() };
    let mut bytes = Vec::new();
    for _ in 0..BURST {
        let message = mutated(random, &corpus);
        let mut packet = raw.packet(&message);
        // One kind is also changed on its way: a cipher text that is not what was sent, a length that is none.
        if kind.is_multiple_of(2) && random.below(BURST as usize) == 0 {
            let at = random.below(packet.len());
            packet[at] ^= 1 << random.below(8);
        }
        bytes.extend(packet);
    }
    // The door may close in the middle: what was sent is on its way all the same.
    let _ = raw.socket.write_all(&bytes);
    let _ = raw.socket.shutdown(Shutdown::Write);
    let said = Instant::now();
    raw.wait_for_end();
    let stood = u64::try_from(said.elapsed().as_micros()).unwrap_or(u64::MAX);
    outcome.longest.fetch_max(stood, Ordering::Relaxed);
    outcome.packets.fetch_add(BURST, Ordering::Relaxed);
    outcome.connections.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = corpus[random.below(corpus.len())].clone();
    for _ in 0..random.below(3) {
        let at = random.below(message.len());
        match random.below(7) {
            0 => message[0] = random.next() as u8,
            1 => {
                let value: u32 = [0, 1, 0x7fff_ffff, u32::MAX, 65536][random.below(5)];
                if let Some(four) = message.get_mut(at..at + 4) {
                    four.copy_from_slice(&value.to_be_bytes());
                }
            }
            2 => message.truncate(at.max(1)),
            3 => message.extend_from_slice(&corpus[random.below(corpus.len())]),
            _ => message[at] ^= 1 << random.below(8),
        }
    }
    message
}

/// What is said before a login.
fn before() -> Vec<Vec<u8>> {
    let request =
        |method: &str| Payload::of(msg::USERAUTH_REQUEST).string("web").string("ssh-connection").string(method);
    let blob = Payload::default().string("ssh-ed25519").string([9; 32]).0;
    vec![
        kexinit(),
        Payload::of(msg::ECDH_INIT).string([9; 32]).0,
        Payload::of(msg::SERVICE_REQUEST).string("ssh-userauth").0,
        request("none").0,
        request("password").byte(0).string("secret").0,
        request("publickey").byte(0).string("ssh-ed25519").string(&blob).0,
        request("publickey").byte(1).string("ssh-ed25519").string(&blob).string(&blob).0,
        request("keyboard-interactive").string("").string("").0,
    ]
}

/// What is said after it.
fn after() -> Vec<Vec<u8>> {
    let open = |kind: &str| Payload::of(msg::CHANNEL_OPEN).string(kind).u32(0).u32(1 << 20).u32(1 << 15);
    let request = |kind: &str| Payload::of(msg::CHANNEL_REQUEST).u32(0).string(kind).byte(1);
    let global = |kind: &str| Payload::of(msg::GLOBAL_REQUEST).string(kind).byte(1);
    vec![
        open("session").0,
        open("direct-tcpip").string("localhost").u32(1).string("localhost").u32(1).0,
        open("direct-streamlocal@openssh.com").string("/run/x").string("").u32(0).0,
        open("auth-agent@openssh.com").0,
        request("pty-req").string("xterm").u32(80).u32(24).u32(0).u32(0).string([3, 0, 0, 0, 8, 0]).0,
        request("env").string("LANG").string("C.UTF-8").0,
        request("window-change").u32(80).u32(24).u32(0).u32(0).0,
        request("signal").string("INT").0,
        request("break").u32(500).0,
        request("subsystem").string("netconf").0,
        global("cancel-tcpip-forward").string("localhost").u32(1).0,
        global("keepalive@openssh.com").0,
        Payload::of(msg::WINDOW_ADJUST).u32(0).u32(u32::MAX).0,
        Payload::of(msg::DATA).u32(0).string("data").0,
        kexinit(),
    ]
}
