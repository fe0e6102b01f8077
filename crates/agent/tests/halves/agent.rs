//! A real agent in processes of its own, ended when the test ends.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::server::{Linked, Server};

/// Runs a role of the agent as this process's only work.
pub(crate) fn as_process(role: impl FnOnce() -> anyhow::Result<ExitCode>) -> ExitCode {
    role().unwrap_or_else(|error| {
        eprintln!("agent: {error:#}");
        ExitCode::FAILURE
    })
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) directory: TempDir,
    pub(crate) keeper: Pid,
    child: tokio::process::Child,
}

impl Agent {
    /// Gives a node an identity at the server and starts its agent; returns its first link too.
    pub(crate) async fn start(server: &mut Server) -> (Self, Linked) {
        let directory = tempfile::tempdir().unwrap();
        enrol(directory.path(), server);
        Self::start_in(directory, server).await
    }

    pub(crate) async fn start_in(directory: TempDir, server: &mut Server) -> (Self, Linked) {
        let mut command = Command::new("/proc/self/exe");
        command.args(["agent", "run"]).arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.env("SECRET_OF_THE_STARTER", "must not reach programs");
        let mut child = tokio::process::Command::from(command).spawn().unwrap();
        let keeper = Pid::from_raw(child.id().unwrap().cast_signed());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let agent = Self { directory, keeper, child };
        let linked = server.linked().await;
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, format!("online {}", linked.hello.node_id));
        (agent, linked)
    }

    /// Returns the privileged half.
    pub(crate) fn spawn_half(&self) -> Pid {
        let children = children(self.keeper);
        assert_eq!(children.len(), 1, "the keeper has one child");
        children[0]
    }

    /// Returns the link half.
    pub(crate) fn link_half(&self) -> Pid {
        let half = self.spawn_half();
        let line = |pid: &Pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        children(half).into_iter().find(|pid| line(pid) == b"munjigi\0agent\0link-half\0").expect("a link half runs")
    }

    /// Waits for the agent's end.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        self.child.wait().await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Twice: the second one does not wait for programs that ignore the first.
            for _ in 0..2 {
                let _ = kill(self.keeper, Signal::SIGTERM);
                for _ in 0..300 {
                    if !matches!(self.child.try_wait(), Ok(None)) {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let _ = kill(self.keeper, Signal::SIGKILL);
        }
    }
}

/// Writes an identity that the server knows.
pub(crate) fn enrol(directory: &Path, server: &Server) {
    let key = Ed25519KeyPair::generate().unwrap();
    let public = key.public_key().as_ref().to_vec();
    let node = NodeId::from_public_key(&public).to_string();
    let identity = serde_json::json!({
        "nodeId": node,
        "name": "test-node",
        "server": server.url(),
        "rootPublicKey": STANDARD.encode(server.root.public_key().as_ref()),
        "trustBundle": STANDARD.encode(server.bundle()),
        "ca": server.ca,
    });
    write_private(&directory.join("agent.json"), identity.to_string().as_bytes());
    write_private(&directory.join("agent.toml"), b"login_records = false\n");
    write_private(&directory.join("node.key"), key.to_pkcs8v1().unwrap().as_ref());
    server.nodes.lock().unwrap().keys.push((node, public));
}

pub(crate) fn write_private(path: &Path, content: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(content).unwrap();
}

/// Returns the processes whose parent is this one.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent.as_raw())).map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok()
}

/// Tells whether the process lives.
pub(crate) fn lives(pid: Pid) -> bool {
    parent_of(pid.as_raw()).is_some()
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come true");
}

/// Returns the user that sessions of the tests run as: another one than root where the tests run as root.
pub(crate) fn user() -> User {
    let own = Uid::effective();
    if !own.is_root() {
        return User::from_uid(own).unwrap().unwrap();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let names = passwd.lines().filter_map(|line| line.split(':').next());
    names
        .filter_map(|name| User::from_name(name).ok().flatten())
        .find(|user| !user.uid.is_root() && (user.shell.ends_with("bash") || user.shell.ends_with("sh")))
        .unwrap_or_else(|| User::from_uid(own).unwrap().unwrap())
}
