//! Parts die and links break in the middle of a session that prints a megabyte a second while keys are typed: the
//! client's transcript, the recording and what the program wrote stay equal, and no key is lost or doubled.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::harness::server::is_alive;
use crate::harness::{CutProxy, TestAgent, TestServer, success, wait_for};

const GENERATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/generator.py");
/// The rate of the program, KiB a second.
const RATE: &str = "1000";

/// A session with the generator, its transcript, and somebody who types.
struct Story {
    client: Child,
    transcript: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
    typing: Arc<AtomicBool>,
    typist: JoinHandle<(ChildStdin, Vec<u8>)>,
    printed: PathBuf,
    taken: PathBuf,
}

impl Story {
    /// Begins: the program prints for at most `seconds`, a numbered key is typed each 50 ms.
    fn begin(server: &TestServer, node: &str, port: Option<u16>, seconds: u32) -> Self {
        let (printed, taken) = (server.directory().join("printed"), server.directory().join("taken"));
        let seconds = seconds.to_string();
        let mut command = server.munjigi(&["run", node, "--user", &user(), "--", "python3", GENERATOR]);
        command.arg(&printed).arg(&taken).args([&seconds, RATE]);
        if port.is_some() {
            command.env("AWS_ENDPOINT_URL", server.url(port));
        }
        let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let transcript = Arc::new(Mutex::new(Vec::new()));
        let (mut stdout, seen) = (client.stdout.take().unwrap(), transcript.clone());
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                seen.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let typing = Arc::new(AtomicBool::new(true));
        let (mut stdin, goes_on) = (client.stdin.take().unwrap(), typing.clone());
        let typist = thread::spawn(move || {
            let mut typed = Vec::new();
            for number in 0.. {
                if !goes_on.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("key {number}\n");
                if stdin.write_all(key.as_bytes()).is_err() {
                    break;
                }
                typed.extend_from_slice(key.as_bytes());
                thread::sleep(Duration::from_millis(50));
            }
            (stdin, typed)
        });
        let story = Self { client, transcript, reader, typing, typist, printed, taken };
        story.wait_for_bytes(300_000);
        story
    }

    fn seen(&self) -> usize {
        self.transcript.lock().unwrap().len()
    }

    /// Waits until the client has seen so many bytes more.
    fn wait_for_bytes(&self, more: usize) {
        let from = self.seen();
        wait_for("output at the client", || (self.seen() >= from + more).then_some(()));
    }

    /// Ends the typing and the program, then compares everything.
    fn end(mut self, server: &TestServer) {
        self.typing.store(false, Ordering::Relaxed);
        let (mut stdin, mut typed) = self.typist.join().unwrap();
        stdin.write_all(b"stop\n").unwrap();
        typed.extend_from_slice(b"stop\n");
        let status = wait_for("the client's end", || self.client.try_wait().unwrap());
        self.reader.join().unwrap();
        assert!(status.success(), "{status:?}");
        let printed = fs::read(&self.printed).unwrap();
        assert!(printed.ends_with(b"end\n"));
        let transcript = self.transcript.lock().unwrap().clone();
        same("client's transcript", &transcript, &printed);
        same("keys", &fs::read(&self.taken).unwrap(), &typed);
        let session = server.sessions().remove(0);
        let id = session["id"].as_str().unwrap();
        let played = success(&mut server.munjigi(&["play", id, "--text"]));
        same("recording", played.as_bytes(), &printed);
        success(&mut server.munjigi(&["verify"]));
    }
}

fn same(what: &str, found: &[u8], expected: &[u8]) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        panic!("{what}: {} bytes instead of {}, differs at {at}", found.len(), expected.len());
    }
}

/// The user who runs the tests.
pub(crate) fn user() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

fn stage() -> (TestServer, TestAgent) {
    let server = TestServer::start();
    let agent = server.agent("node-1");
    (server, agent)
}

#[test]
fn a_killed_server_loses_no_byte_and_no_key() {
    let (mut server, _agent) = stage();
    let story = Story::begin(&server, "node-1", None, 120);
    for _ in 0..2 {
        server.kill();
        thread::sleep(Duration::from_millis(500));
        server.start_again();
        story.wait_for_bytes(500_000);
    }
    story.end(&server);
}

#[test]
fn a_killed_network_half_of_the_agent_loses_no_byte_and_no_key() {
    let (server, agent) = stage();
    let story = Story::begin(&server, "node-1", None, 120);
    for _ in 0..4 {
        let half = agent.link_half();
        kill(half, Signal::SIGKILL).unwrap();
        wait_for("the network half's end", || (!is_alive(half)).then_some(()));
        story.wait_for_bytes(500_000);
    }
    story.end(&server);
}

#[test]
fn broken_links_of_client_and_node_lose_no_byte_and_no_key() {
    let server = TestServer::start();
    let (near_node, near_client) = (CutProxy::start(server.address()), CutProxy::start(server.address()));
    let _agent = server.agent_through("node-1", &[], Some(near_node.port()));
    let story = Story::begin(&server, "node-1", Some(near_client.port()), 120);
    for round in 0..6 {
        let proxy = if round % 2 == 0 { &near_node } else { &near_client };
        proxy.reset();
        story.wait_for_bytes(500_000);
    }
    story.end(&server);
}

#[test]
fn links_that_fall_silent_for_half_a_minute_lose_no_byte_and_no_key() {
    let server = TestServer::start();
    let (near_node, near_client) = (CutProxy::start(server.address()), CutProxy::start(server.address()));
    let _agent = server.agent_through("node-1", &[], Some(near_node.port()));
    let story = Story::begin(&server, "node-1", Some(near_client.port()), 120);
    // Both links at once, one after the other would only take longer.
    near_node.silence();
    near_client.silence();
    thread::sleep(Duration::from_secs(30));
    near_node.pass();
    near_client.pass();
    story.wait_for_bytes(100_000);
    story.end(&server);
}

#[test]
fn a_killed_client_leaves_the_session_to_the_next_one() {
    let (server, _agent) = stage();
    let mut story = Story::begin(&server, "node-1", None, 120);
    let id = server.sessions().remove(0)["id"].as_str().unwrap().to_owned();
    story.client.kill().unwrap();
    story.client.wait().unwrap();
    story.typing.store(false, Ordering::Relaxed);
    drop(story.typist.join().unwrap());
    story.reader.join().unwrap();
    // The same person takes the session up again; the program is still there and takes the keys.
    let mut next = server.munjigi(&["attach", &id]);
    let mut next = next.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = next.stdin.take().unwrap();
    stdin.write_all(b"\nstop\n").unwrap();
    let mut stdout = next.stdout.take().unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(next.wait().unwrap().success());
    assert!(rest.ends_with(b"end\n"));
    let printed = fs::read(&story.printed).unwrap();
    let played = success(&mut server.munjigi(&["play", &id, "--text"]));
    same("recording", played.as_bytes(), &printed);
    assert!(fs::read(&story.taken).unwrap().ends_with(b"\nstop\n"));
}

#[test]
fn a_killed_privileged_half_takes_the_program_with_it_and_the_recording_says_why() {
    let (server, mut agent) = stage();
    let mut story = Story::begin(&server, "node-1", None, 60);
    let program = wait_for("the program", || find_process(&story.printed.to_string_lossy()));
    agent.kill();
    wait_for("the program's end", || (!is_alive(program)).then_some(()));
    agent.run_again();
    let status = wait_for("the client's end", || story.client.try_wait().unwrap());
    assert!(!status.success());
    story.typing.store(false, Ordering::Relaxed);
    drop(story.typist.join().unwrap());
    story.reader.join().unwrap();
    let session = server.sessions().remove(0);
    assert!(["agent-died", "node-lost"].contains(&session["endReason"].as_str().unwrap()), "{session}");
    success(&mut server.munjigi(&["verify"]));
}

/// Finds the program of a story by an argument that only it has.
fn find_process(argument: &str) -> Option<nix::unistd::Pid> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let line = crate::harness::server::command_line(nix::unistd::Pid::from_raw(pid));
        (line.starts_with("python3") && line.contains(argument)).then(|| nix::unistd::Pid::from_raw(pid))
    })
}
