//! Frames and messages that mean no good at the link and at AWS's data channel: the server stays, bounds what they take, ends
//! their connections, and others work on. The SSH door has tests of its own (`ssh_hostile.rs`); the same by the million is
//! in `bench/` (section `hostile`).

use std::process::Command;
use std::sync::atomic::Ordering;

use crate::faults::user;
use crate::harness::hostile::{self, Node, Outcome, Place, all};
use crate::harness::{TestServer, binary, success};
use crate::ssh_hostile::memory;

/// Frames of each test: enough that every kind of frame and of mutation is among them.
const FRAMES: u64 = 3000;
/// How much the server's memory may grow, kilobytes.
const MOST_GROWTH: u64 = 64 * 1024;

fn work(server: &TestServer) {
    let ran = success(&mut server.munjigi(&["run", "--user", &user(), "web-1", "--", "echo", "fine"]));
    assert_eq!(ran, "fine\n");
}

/// Attacks, and tells whether the server came through it and others could work meanwhile.
fn attacked(server: &TestServer, attack: impl Fn() -> Outcome + Sync) {
    work(server);
    let before = memory(server.pid());
    let outcome = std::thread::scope(|scope| {
        let attack = scope.spawn(&attack);
        work(server);
        attack.join().unwrap()
    });
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert!(of(&outcome.frames) >= FRAMES && of(&outcome.logins) > 0, "{}", outcome.shown(1.0));
    work(server);
    let after = memory(server.pid());
    assert!(after < before + MOST_GROWTH, "{before} kB, then {after} kB");
}

#[test]
fn mutated_frames_at_the_link_end_their_connections_and_nothing_else() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let place = Place::read(&server.data_dir());
    let nodes: Vec<Node> = (0..4)
        .map(|number| {
            let (directory, name) = (server.directory().join(format!("hostile-{number}")), format!("hostile-{number}"));
            let (id, code) = server.activation();
            let mut join = Command::new(binary());
            join.args(["agent", "join", "--server", &server.url(None), "--name", &name, "--ca"]);
            join.arg(server.data_dir().join("ca.pem")).arg("--data-dir").arg(&directory);
            join.env("MUNJIGI_ACTIVATION_ID", id).env("MUNJIGI_ACTIVATION_CODE", code);
            success(&mut join);
            Node::read(&directory)
        })
        .collect();
    attacked(&server, || {
        let at_once = nodes.len() as u64;
        let frames = all(FRAMES, at_once, |number, round, random, outcome| {
            hostile::link(&place, &nodes[usize::try_from(number).unwrap()], round, random, outcome)
        });
        frames.0
    });
}

#[test]
fn mutated_messages_on_data_channels_end_their_sessions_and_nothing_else() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let place = Place::read(&server.data_dir());
    attacked(&server, || {
        all(FRAMES, 4, |_, round, random, outcome| hostile::data_channel(&place, "web-1", round, random, outcome)).0
    });
}
