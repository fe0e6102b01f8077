//! Logins at the SSH door at a fixed rate, for `bench/`: what OpenSSH's client says, without a process each.
//!
//! ```text
//! ssh_logins key                                        prints the public key with which it logs in
//! ssh_logins run HOST:PORT LOGIN RATE SECONDS HOLD      prints how long each took, as JSON
//! ```
//!
//! Each login is due at its moment, whatever became of those before it, runs a command on a connection of its own, and is over
//! HOLD seconds after the command's first output.

#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool for measurements")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../tests/harness/raw_ssh.rs"]
mod raw_ssh;

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use raw_ssh::{Payload, RawSsh, msg};

/// Seed of the key of this client. It is no secret.
const SEED: [u8; 32] = [44; 32];
/// What ends a channel before it said anything (RFC 4254 section 5.3).
const ENDS: [u8; 3] = [96, 97, msg::CHANNEL_FAILURE];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["key"] => {
            let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).unwrap();
            let blob = Payload::default().string("ssh-ed25519").string(pair.public_key().as_ref()).0;
            println!("ssh-ed25519 {} logins", base64::engine::general_purpose::STANDARD.encode(blob));
        }
        ["run", address, login, rate, seconds, hold] => {
            let number = |text: &str| text.parse::<u32>().unwrap();
            run(
                address.parse().unwrap(),
                login,
                [number(rate), number(seconds)],
                Duration::from_secs(number(hold).into()),
            );
        }
        _ => {
            println!("usage: ssh_logins key | run HOST:PORT LOGIN RATE SECONDS HOLD");
            std::process::exit(2);
        }
    }
}

fn run(address: SocketAddr, login: &str, [rate, seconds]: [u32; 2], hold: Duration) {
    let begun = Instant::now() + Duration::from_millis(200);
    let outcomes: Vec<io::Result<Duration>> = thread::scope(|scope| {
        let logins: Vec<_> = (0..rate * seconds)
            .map(|number| {
                let due = begun + Duration::from_secs(1) * number / rate;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                scope.spawn(move || one(address, login, due, hold))
            })
            .collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    let times: Vec<f64> = outcomes.iter().flatten().map(|took| took.as_secs_f64() * 1e3).collect();
    let failures: Vec<String> = outcomes.iter().filter_map(|one| one.as_ref().err()).map(ToString::to_string).collect();
    println!("{}", serde_json::json!({ "times_ms": times, "failures": failures }));
}

fn one(address: SocketAddr, login: &str, due: Instant, hold: Duration) -> io::Result<Duration> {
    let mut ssh = RawSsh::exchanged(address)?;
    ssh.log_in(login, &SEED)?;
    let channel = ssh.open("session", 0, 1 << 20, &[])?.map_err(io::Error::other)?;
    let command = Payload::of(msg::CHANNEL_REQUEST).u32(channel).string("exec").byte(1);
    ssh.send(&command.string("echo ready; exec sleep 600").0)?;
    loop {
        let said = ssh.receive()?;
        match said.first() {
            Some(&msg::DATA) => break,
            Some(kind) if ENDS.contains(kind) => {
                return Err(io::Error::other("the command did not run"));
            }
            _ => {}
        }
    }
    let took = due.elapsed();
    thread::sleep(hold);
    Ok(took)
}
