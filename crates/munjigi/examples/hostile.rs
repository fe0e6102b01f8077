//! Peers that mean no good, for `bench/`: mutated packets by the million against the SSH door, frames against the link (as its
//! agents and clients), and messages against AWS's data channel, before somebody is proved and after it.
//!
//! ```text
//! hostile key                                           prints the public key with which it logs in
//! hostile packets HOST:PORT LOGIN PACKETS AT-ONCE       at the SSH door; prints what became of them, as JSON
//! hostile frames SERVER-DIR FRAMES AGENT-DIR…           at the link, one connection at a time for each agent
//! hostile messages SERVER-DIR TARGET MESSAGES AT-ONCE   at the data channel
//! ```
//!
//! `SERVER-DIR` is the server's data directory, an `AGENT-DIR` that of an agent which joined and does not run. Each connection
//! says something good, then a burst of which most is mutated, and ends. Every run says the same.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool for measurements")]

#[path = "../tests/harness/hostile.rs"]
mod hostile;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/harness/raw_ssh.rs"]
mod raw_ssh;

use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use hostile::{BURST, Node, Outcome, Place, Random, all, mutated};
use raw_ssh::{Payload, RawSsh, kexinit, msg};

/// Seed of the key of this client. It is no secret.
const SEED: [u8; 32] = [43; 32];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (outcome, took): (Outcome, Duration) = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["key"] => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
            let blob = Payload::default().string("ssh-ed25519").string(pair.public_key().as_ref()).0;
            println!("ssh-ed25519 {} hostile", base64::engine::general_purpose::STANDARD.encode(blob));
            return;
        }
        ["packets", address, login, packets, at_once] => {
            let address: SocketAddr = address.parse().unwrap();
            all(packets.parse().unwrap(), at_once.parse().unwrap(), |_, round, random, outcome| {
                one(address, login, round % 4, random, outcome)
            })
        }
        ["frames", server, frames, ref agents @ ..] if !agents.is_empty() => {
            let place = Place::read(Path::new(server));
            let nodes: Vec<Node> = agents.iter().map(|agent| Node::read(Path::new(agent))).collect();
            all(frames.parse().unwrap(), nodes.len() as u64, |number, round, random, outcome| {
                hostile::link(&place, &nodes[number as usize], round, random, outcome)
            })
        }
        ["messages", server, target, messages, at_once] => {
            let place = Place::read(Path::new(server));
            all(messages.parse().unwrap(), at_once.parse().unwrap(), |_, round, random, outcome| {
                hostile::data_channel(&place, target, round, random, outcome)
            })
        }
        _ => {
            println!(
                "usage: hostile key | packets HOST:PORT LOGIN PACKETS AT-ONCE | frames SERVER-DIR FRAMES AGENT-DIR… | \
                 messages SERVER-DIR TARGET MESSAGES AT-ONCE"
            );
            std::process::exit(2);
        }
    };
    println!("{}", outcome.shown(took.as_secs_f64()));
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
    outcome.add(BURST, said.elapsed());
    Ok(())
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
