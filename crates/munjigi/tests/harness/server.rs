//! A server and agents, started as the contract says.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use super::{binary, free_port, python_tool, success, wait_for};

/// A process of a test; killed and reaped when dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts the command; its standard output is read until `sign` is found at the start of a line, and returns what
    /// follows it.
    pub(crate) fn start(command: &mut Command, sign: &str) -> (Self, String) {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { child };
        let found = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(rest) = line.strip_prefix(sign) {
                        break rest.trim().to_owned();
                    }
                }
                _ => panic!("{command:?} ended with {:?} before it said {sign:?}", running.child.wait()),
            }
        };
        // What it prints later must not fill the pipe.
        thread::spawn(move || lines.for_each(drop));
        (running, found)
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first: a spawn half takes its shells with it.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = kill(self.pid(), Signal::SIGTERM);
            for _ in 0..250 {
                if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                    return;
                }
                thread::sleep(std::time::Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Adds to settings that tests may start more than people do (T-92), unless they say something of it.
fn hurried(config: &str) -> String {
    let pace = "starts_per_minute = 1000000\nnodes_per_minute = 1000000\n";
    match config.split_once("[limits]\n") {
        Some((_, limits)) if limits.contains("_per_minute") => config.to_owned(),
        Some((before, limits)) => format!("{before}[limits]\n{pace}{limits}"),
        None => format!("{config}\n[limits]\n{pace}sessions_per_principal = 1000\n"),
    }
}

/// A server with a data directory of its own.
pub(crate) struct TestServer {
    process: Option<Running>,
    directory: TempDir,
    listen: String,
    endpoint: String,
}

impl TestServer {
    /// Starts a server on a free port.
    pub(crate) fn start() -> Self {
        Self::with_config("")
    }

    /// Starts a server with settings.
    pub(crate) fn with_config(config: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("munjigi-test-").tempdir().unwrap();
        let mut server = Self { process: None, directory, listen: String::new(), endpoint: String::new() };
        // One that it gets again when it starts again.
        server.listen = format!("127.0.0.1:{}", free_port());
        std::fs::write(server.config_path(), hurried(config)).unwrap();
        server.start_again();
        server
    }

    fn config_path(&self) -> PathBuf {
        self.directory.path().join("munjigi.toml")
    }

    /// Returns the data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.path().join("server")
    }

    /// Starts the server (again) on the same port and directory.
    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new(binary());
        command.arg("server").arg("--data-dir").arg(self.data_dir()).args(["--listen", &self.listen]);
        command.arg("--config").arg(self.config_path());
        let (process, endpoint) = Running::start(&mut command, "ready ");
        self.process = Some(process);
        self.endpoint = endpoint;
        self.listen = self.address().to_string();
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        let (_, address) = self.endpoint.split_once("://").unwrap();
        address.trim_end_matches('/').parse().unwrap()
    }

    /// Returns its URL, through another port if a proxy stands before it.
    pub(crate) fn url(&self, port: Option<u16>) -> String {
        format!("https://127.0.0.1:{}", port.unwrap_or_else(|| self.address().port()))
    }

    /// Kills the server without warning.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::SIGKILL);
        process.wait();
    }

    /// Stops the server in order and returns its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        process.signal(Signal::SIGTERM);
        process.wait()
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.process.as_ref().unwrap().pid()
    }

    /// Returns the variables that `munjigi env` prints.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let text = success(Command::new(binary()).arg("env").arg("--data-dir").arg(self.data_dir()));
        let variables: Vec<_> = text
            .lines()
            .map(|line| line.strip_prefix("export ").unwrap().split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').trim_matches('"').to_owned()))
            .collect();
        assert!(variables.iter().any(|(name, _)| name == "AWS_ENDPOINT_URL"), "{text}");
        variables
    }

    /// Builds a command of ours that uses this server.
    pub(crate) fn munjigi(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments);
        self.configure(&mut command);
        command
    }

    /// Builds a command of `aws` that uses this server with nothing but the variables of `munjigi env`.
    pub(crate) fn aws(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(python_tool("aws"));
        command.args(arguments).env("AWS_PAGER", "").env("AWS_EC2_METADATA_DISABLED", "true");
        self.configure(&mut command);
        command
    }

    /// Sets the variables, and keeps the person's own settings out.
    pub(crate) fn configure(&self, command: &mut Command) {
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"] {
            command.env_remove(name);
        }
        command.env("HOME", self.directory.path()).env("XDG_CONFIG_HOME", self.directory.path());
        command.envs(self.environment());
    }

    /// Calls `aws … --output json` and returns the answer.
    pub(crate) fn aws_json(&self, arguments: &[&str]) -> Value {
        let text = success(self.aws(arguments).args(["--output", "json"]));
        if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// Returns the recorded sessions as `munjigi sessions --output json` lists them.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        let text = success(&mut self.munjigi(&["sessions", "--output", "json"]));
        serde_json::from_str(&text).unwrap()
    }

    /// Creates an activation and returns its id and code. Each is described otherwise: two equal requests of one second
    /// have one signature, and a repeated signature is answered without doing anything again (T-49).
    pub(crate) fn activation(&self) -> (String, String) {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let description = format!("number {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let made = self.aws_json(&["ssm", "create-activation", "--iam-role", "node", "--description", &description]);
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("ActivationId"), text("ActivationCode"))
    }

    /// Joins a node and runs its agent.
    pub(crate) fn agent(&self, name: &str) -> TestAgent {
        self.agent_through(name, &[], None)
    }

    /// Joins a node with tags, over another port if a proxy stands before the server, and runs its agent.
    pub(crate) fn agent_through(&self, name: &str, tags: &[&str], port: Option<u16>) -> TestAgent {
        self.agent_configured(name, tags, port, "sshd_log = 'off'\n")
    }

    /// As [`Self::agent_through`], with lines of `agent.toml`.
    pub(crate) fn agent_configured(&self, name: &str, tags: &[&str], port: Option<u16>, lines: &str) -> TestAgent {
        let data_dir = self.directory.path().join(format!("agent-{name}"));
        let (id, code) = self.activation();
        let mut join = Command::new(binary());
        join.args(["agent", "join", "--server", &self.url(port), "--name", name, "--ca"])
            .arg(self.data_dir().join("ca.pem"))
            .arg("--data-dir")
            .arg(&data_dir)
            .env("MUNJIGI_ACTIVATION_ID", id)
            .env("MUNJIGI_ACTIVATION_CODE", code);
        for tag in tags {
            join.args(["--tag", tag]);
        }
        success(&mut join);
        // The machine's own records of logins (wtmp, lastlog) are none of a test's business.
        std::fs::write(data_dir.join("agent.toml"), format!("login_records = false\n{lines}")).unwrap();
        TestAgent::run(data_dir)
    }

    /// Returns the directory that is removed at the end.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        drop(self.process.take());
    }
}

/// A node's agent.
pub(crate) struct TestAgent {
    process: Option<Running>,
    data_dir: PathBuf,
    /// The node's id.
    pub(crate) node: String,
}

impl TestAgent {
    fn run(data_dir: PathBuf) -> Self {
        let mut agent = Self { process: None, data_dir, node: String::new() };
        agent.run_again();
        agent
    }

    /// Runs the agent (again) until it is online.
    pub(crate) fn run_again(&mut self) {
        let mut command = Command::new(binary());
        command.args(["agent", "run", "--data-dir"]).arg(&self.data_dir);
        let (process, node) = Running::start(&mut command, "online ");
        self.process = Some(process);
        self.node = node;
    }

    /// Runs the agent (again) without waiting for its server, which is away.
    pub(crate) fn run_alone(&mut self) {
        let mut command = Command::new(binary());
        command.args(["agent", "run", "--data-dir"]).arg(&self.data_dir);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        self.process = Some(Running { child });
    }

    /// Runs the agent (again) by a program that ends by running it, until it is online.
    pub(crate) fn run_under(&mut self, program: &[&str]) {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(binary()).args(["agent", "run", "--data-dir"]).arg(&self.data_dir);
        let (process, node) = Running::start(&mut command, "online ");
        self.process = Some(process);
        self.node = node;
    }

    /// Stops the agent in order.
    pub(crate) fn stop(&mut self) {
        drop(self.process.take());
    }

    /// Returns its data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Returns the process ids of the privileged and the network half, once there are both. Which process the agent
    /// was started as, and whether one stands above the halves, is its own affair.
    fn halves(&self) -> (Pid, Pid) {
        let started = self.process.as_ref().unwrap().pid();
        wait_for("the agent's two halves", || {
            let mut parents = vec![started];
            while let Some(parent) = parents.pop() {
                for child in children(parent) {
                    if command_line(child).contains("link-half") && is_alive(child) {
                        return Some((parent, child));
                    }
                    parents.push(child);
                }
            }
            None
        })
    }

    /// Returns the process id of the privileged half.
    pub(crate) fn spawn_half(&self) -> Pid {
        self.halves().0
    }

    /// Returns the process id of the network half.
    pub(crate) fn link_half(&self) -> Pid {
        self.halves().1
    }

    /// Kills the whole agent at once, as a machine that loses its power: no part says anything of the others.
    pub(crate) fn die(&mut self) {
        let mut process = self.process.take().unwrap();
        let mut parts = vec![process.pid()];
        let mut next = 0;
        while let Some(part) = parts.get(next).copied() {
            // Stopped, it has no further children.
            let _ = nix::sys::signal::kill(part, Signal::SIGSTOP);
            parts.extend(children(part));
            next += 1;
        }
        for part in parts.iter().rev() {
            let _ = nix::sys::signal::kill(*part, Signal::SIGKILL);
        }
        process.wait();
    }

    /// Kills the privileged half without warning, and waits until everything of the agent is gone.
    pub(crate) fn kill(&mut self) {
        nix::sys::signal::kill(self.spawn_half(), Signal::SIGKILL).unwrap();
        self.process.take().unwrap().wait();
    }
}

/// Returns the children of a process.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let parent_of = |stat: String| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| stat(*pid).and_then(parent_of) == Some(parent.as_raw()))
        .map(Pid::from_raw)
        .collect()
}

/// Returns the command line of a process, with blanks between the arguments; empty when it is gone.
pub(crate) fn command_line(pid: Pid) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Tells whether a process runs (a zombie does not).
pub(crate) fn is_alive(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
}
