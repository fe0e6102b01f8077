//! A node whose account files, homes and sudoers are its own, in a mount namespace, which only root can make. Nothing of the
//! machine's is changed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;
use serde_json::Value;

use crate::harness::databases::program;
use crate::harness::{TestAgent, TestServer, output, success};

/// A node whose `/etc` and `/home` are its own.
pub(super) struct Island {
    /// Ends before the server, whose directory holds its files.
    pub(super) agent: TestAgent,
    pub(super) server: TestServer,
    pub(super) directory: PathBuf,
}

/// Tells whether this machine can give a node files of its own; says so if not.
#[expect(clippy::print_stderr, reason = "whoever reads the test's output must see what was passed over")]
pub(super) fn possible() -> bool {
    if program("sudo").is_none() || program("useradd").is_none() {
        return false;
    }
    let may = Uid::effective().is_root() && output(Command::new("unshare").args(["--mount", "true"])).status.success();
    if !may {
        eprintln!("passed over: only who may make namespaces can give a node account files of its own");
    }
    may
}

impl Island {
    /// Starts it; `more` are commands in the namespace before the agent runs.
    pub(super) fn start(more: &str) -> Self {
        Self::configured(|_| more.to_owned(), "")
    }

    /// As [`Self::start`], with commands that know the island's directory, and more lines of `agent.toml`.
    pub(super) fn configured(more: impl FnOnce(&Path) -> String, lines: &str) -> Self {
        let server = TestServer::start();
        let directory = server.directory().join("island");
        fs::create_dir_all(directory.join("home")).unwrap();
        success(Command::new("cp").args(["-a", "/etc"]).arg(directory.join("etc")));
        // Who was here before is a stranger.
        for (file, line) in [("passwd", "yoon:x:1500:1500::/home/yoon:/bin/sh\n"), ("group", "yoon:x:1500:\n")] {
            let path = directory.join("etc").join(file);
            fs::write(&path, fs::read_to_string(&path).unwrap() + line).unwrap();
        }
        let socket = directory.join("keys.sock");
        let lines = format!("sshd_log = 'off'\nmanage_accounts = true\nkeys_socket = '{}'\n{lines}", socket.display());
        let mut agent = server.agent_configured("web-1", &["Role=web"], None, &lines);
        agent.stop();
        let more = more(&directory);
        let mut island = Self { agent, server, directory };
        island.run_agent(&more);
        island
    }

    /// Runs the agent in a namespace of its own.
    pub(super) fn run_agent(&mut self, more: &str) {
        let script = self.script(more);
        self.agent.run_under(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    }

    /// Returns what makes the namespace and runs its arguments there.
    pub(super) fn script(&self, more: &str) -> String {
        let here = self.directory.display();
        format!(
            "set -e; mount --make-rprivate /; mount --bind {here}/etc /etc; mount --bind {here}/home /home; {more} exec \"$@\""
        )
    }

    /// Returns where sshd's helper asks.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("keys.sock")
    }

    /// Returns what `munjigi account list` says of an account of the node.
    pub(super) fn listed(&self, os_user: &str) -> Option<Value> {
        self.node()["Accounts"].as_array()?.iter().find(|account| account["OsUser"] == os_user).cloned()
    }

    /// Returns what `munjigi account list` says is wrong with an account of the node.
    pub(super) fn problem(&self, os_user: &str) -> Option<Value> {
        self.node()["Problems"].as_array()?.iter().find(|problem| problem["OsUser"] == os_user).cloned()
    }

    /// Returns what `munjigi account list` says of the node.
    pub(super) fn node(&self) -> Value {
        let text = success(&mut self.server.munjigi(&["account", "list", "web-1", "--output", "json"]));
        serde_json::from_str::<Value>(&text).unwrap()[0].clone()
    }

    pub(super) fn etc(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join("etc").join(file)).unwrap_or_default()
    }

    pub(super) fn home(&self, path: &str) -> PathBuf {
        self.directory.join("home").join(path)
    }

    /// Returns the user id of an account, if there is one.
    pub(super) fn uid(&self, name: &str) -> Option<u32> {
        field(&self.etc("passwd"), name, 2).map(|uid| uid.parse().unwrap())
    }

    pub(super) fn is_locked(&self, name: &str) -> bool {
        field(&self.etc("shadow"), name, 7).as_deref() == Some("1")
    }

    pub(super) fn is_in(&self, name: &str, group: &str) -> bool {
        field(&self.etc("group"), group, 3).is_some_and(|members| members.split(',').any(|member| member == name))
    }

    pub(super) fn sudo(&self) -> String {
        self.etc("sudoers.d/munjigi")
    }

    pub(super) fn iam(&self, arguments: &[&str]) -> Value {
        self.server.aws_json(&[&["iam"], arguments].concat())
    }

    pub(super) fn add(&self, user: &str, group: &str) {
        self.iam(&["add-user-to-group", "--group-name", group, "--user-name", user]);
    }

    pub(super) fn remove(&self, user: &str, group: &str) {
        self.iam(&["remove-user-from-group", "--group-name", group, "--user-name", user]);
    }

    pub(super) fn rule(&self, arguments: &[&str]) {
        success(&mut self.server.munjigi(&[&["account", "rule", "put"], arguments].concat()));
    }

    /// Gives a person a key, and builds commands with it.
    pub(super) fn person(&self, name: &str) -> Person<'_> {
        let key = self.iam(&["create-access-key", "--user-name", name]);
        let text = |member: &str| key["AccessKey"][member].as_str().unwrap().to_owned();
        Person { island: self, id: text("AccessKeyId"), secret: text("SecretAccessKey") }
    }

    /// Returns the trail's events of a name about an account.
    pub(super) fn events(&self, name: &str, os_user: &str) -> usize {
        let text = success(&mut self.server.munjigi(&["audit", "--output", "json", "--limit", "0", "--name", name]));
        let about = |line: &&str| line.contains(&format!("\"osUser\":\"{os_user}\""));
        text.lines().filter(about).count()
    }
}

/// Somebody with an access key.
pub(super) struct Person<'i> {
    island: &'i Island,
    id: String,
    secret: String,
}

impl Person<'_> {
    pub(super) fn run(&self, words: &[&str]) -> Command {
        let mut command = self.island.server.munjigi(&[&["run", "web-1", "--"], words].concat());
        command.env("AWS_ACCESS_KEY_ID", &self.id).env("AWS_SECRET_ACCESS_KEY", &self.secret);
        command
    }

    pub(super) fn aws(&self, words: &[&str]) -> Command {
        let mut command = self.island.server.aws(words);
        self.sign(&mut command);
        command
    }

    /// Has a command use this person's key.
    pub(super) fn sign(&self, command: &mut Command) {
        command.env("AWS_ACCESS_KEY_ID", &self.id).env("AWS_SECRET_ACCESS_KEY", &self.secret);
    }

    pub(super) fn says(&self, words: &[&str]) -> String {
        success(&mut self.run(words)).trim().to_owned()
    }
}

pub(super) fn field(file: &str, name: &str, at: usize) -> Option<String> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(at).map(str::to_owned)
}

/// Whether a path is there and whose it is.
pub(super) fn owner(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).ok().map(|meta| meta.uid())
}
