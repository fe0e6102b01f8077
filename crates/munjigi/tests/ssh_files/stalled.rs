//! Clients that read nothing and nodes that take nothing: what they leave lying is bounded, and nothing is lost by it.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use munjigi_core::sftp::{MAX_DATA, OpenFlags, Request, Response, Status};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::Client;
use super::{Files, noise};
use crate::harness::server::{children, is_alive};
use crate::harness::wait_for;

/// What a stalled transfer may make the server grow by: both directions' buffers and windows on every leg, and room for
/// what a process' memory does by itself.
const GROWTH_KIB: u64 = 64 * 1024;
/// Requests without an answer.
const ASKED: u32 = 500;

fn resident_kib(pid: Pid) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Lets a stopped process go on, whatever becomes of the test.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: Pid) -> Self {
        kill(pid, Signal::SIGSTOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It may have ended since.
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn who_reads_nothing_and_who_takes_nothing_hold_up_nobody_else() {
    let files = Files::start();
    let content = noise(MAX_DATA);
    let (source, target) = (files.there("source"), files.there("target"));
    fs::write(&source, &content).unwrap();
    let before_workers = children(files.agent.spawn_half());
    let mut client = Client::new(&files);
    let read = client.open(source.as_os_str().as_encoded_bytes(), OpenFlags::TO_READ).unwrap();
    let write = client.open(target.as_os_str().as_encoded_bytes(), OpenFlags::TO_REPLACE).unwrap();
    let worker = children(files.agent.spawn_half()).into_iter().find(|pid| !before_workers.contains(pid)).unwrap();
    let before = resident_kib(files.server.pid());

    // Twice what it may grow by is asked for, and as much is sent behind it; neither answers nor data are taken.
    let mut requests = Vec::new();
    for id in 0..ASKED {
        Request::Read { handle: read, offset: 0, length: MAX_DATA as u32 }.encode(10_000 + id, &mut requests);
    }
    let data = content.clone();
    let mut input = fs::File::from(client.input.as_fd().try_clone_to_owned().unwrap());
    let sending = std::thread::spawn(move || {
        input.write_all(&requests).unwrap();
        for id in 0..ASKED {
            let mut packet = Vec::new();
            let offset = u64::from(id) * data.len() as u64;
            Request::Write { handle: write, offset, data: &data }.encode(20_000 + id, &mut packet);
            input.write_all(&packet).unwrap();
        }
    });
    let stopped = Stopped::new(worker);
    // Others do not notice, on the same node and in the same server.
    let mut other = Client::new(&files);
    let asked = Request::Stat { path: source.as_os_str().as_encoded_bytes() };
    assert!(matches!(Response::decode(&other.ask(asked)).unwrap().1, Response::Attributes { .. }));
    drop(stopped);
    // The worker goes on until nobody takes its answers any more.
    for _ in 0..20 {
        let path = files.there("other");
        let handle = other.open(path.as_os_str().as_encoded_bytes(), OpenFlags::TO_REPLACE).unwrap();
        assert_eq!(other.status(Request::Write { handle, offset: 0, data: &content }), Status::Ok);
        assert_eq!(other.status(Request::Close { handle }), Status::Ok);
    }
    other.end();
    let grown = resident_kib(files.server.pid()).saturating_sub(before);
    assert!(grown < GROWTH_KIB, "the server has grown by {grown} KiB");

    // Read at last, everything is there and in order.
    for id in 0..ASKED {
        let packet = client.packet();
        let (answered, response) = Response::decode(&packet).unwrap();
        assert_eq!(answered, 10_000 + id);
        assert!(matches!(response, Response::Data { data } if data == content), "answer {id}");
    }
    for id in 0..ASKED {
        let packet = client.packet();
        let (answered, response) = Response::decode(&packet).unwrap();
        assert!(answered == 20_000 + id && matches!(response, Response::Status { status: Status::Ok, .. }), "{id}");
    }
    sending.join().unwrap();
    for handle in [read, write] {
        assert_eq!(client.status(Request::Close { handle }), Status::Ok);
    }
    client.end();
    let size = u64::from(ASKED) * content.len() as u64;
    assert_eq!(fs::metadata(&target).unwrap().len(), size);
    files.told("UploadFile", &target, |event| {
        let about = &event["additionalEventData"];
        about["bytes"] == size && about["sha256"].is_string()
    });
    fs::remove_file(&target).unwrap();
    wait_for("the worker's end", || (!is_alive(worker)).then_some(()));
}
