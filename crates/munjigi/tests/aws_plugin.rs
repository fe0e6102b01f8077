//! The AWS command line with this program as its session-manager-plugin: nothing but the variables of `munjigi env`, and
//! the plugin in PATH. Over the link, and in AWS's own protocol.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::faults::user;
use crate::harness::server::{Running, children, command_line, is_alive};
use crate::harness::{
    CutProxy, Terminal, TestAgent, TestServer, free_port, lasting, output, success, wait, wait_for, wait_until_runs,
};

/// A server with a node, and the plugin installed.
struct Stage {
    server: TestServer,
    /// Ends with the stage.
    _agent: TestAgent,
    plugin_dir: PathBuf,
}

/// Which protocol the plugin uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Link,
    Aws,
}

impl Stage {
    fn new() -> Self {
        let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
        let _agent = server.agent("web-1");
        let plugin_dir = server.directory().join("bin");
        success(&mut server.munjigi(&["plugin", "install", "--dir", plugin_dir.to_str().unwrap()]));
        Self { server, _agent, plugin_dir }
    }

    /// Builds a command of `aws` that finds the plugin.
    fn aws(&self, mode: Mode, arguments: &[&str]) -> Command {
        let mut command = self.server.aws(arguments);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.plugin_dir.display()));
        command.env("MUNJIGI_PLUGIN_MODE", if mode == Mode::Link { "link" } else { "aws" });
        command
    }

    /// Starts `aws ssm start-session` in a terminal, and waits for the shell.
    fn shell(&self, mode: Mode, rows: u16, columns: u16, more: &[&str]) -> Terminal {
        let mut command = self.aws(mode, &["ssm", "start-session", "--target", "web-1"]);
        command.args(more);
        let mut terminal = Terminal::run(&command, rows, columns);
        terminal.expect("Starting session with SessionId: ");
        terminal.type_in("exec /bin/sh -i\n");
        terminal.type_in("PS1='$ '; echo be''gin\n");
        terminal.expect("begin");
        terminal
    }

    fn only_session(&self) -> Value {
        let mut sessions = self.server.sessions();
        assert_eq!(sessions.len(), 1, "{sessions:?}");
        sessions.remove(0)
    }

    fn played(&self, id: &str) -> String {
        success(&mut self.server.munjigi(&["play", id, "--text"]))
    }

    fn events(&self, name: &str) -> Vec<Value> {
        let trail = success(&mut self.server.munjigi(&["audit", "--output", "json"]));
        let events = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["eventName"] == name).collect()
    }
}

/// The interactive shell: size, resize, Ctrl-C, Hangul, the exit status, recording and trail.
fn an_interactive_shell(mode: Mode) {
    let stage = Stage::new();
    let mut terminal = stage.shell(mode, 37, 111, &["--reason", "ticket 4711"]);
    terminal.type_in("stty size; tty; echo $TERM\n");
    terminal.expect("37 111");
    terminal.expect("/dev/pts/");
    terminal.resize(50, 132);
    wait_for("the new size", || {
        terminal.type_in("stty size\n");
        thread::sleep(std::time::Duration::from_millis(200));
        terminal.screen().contains("50 132").then_some(())
    });
    let sleep = lasting();
    terminal.type_in(&format!("{sleep}\n"));
    wait_until_runs(&sleep);
    terminal.type_in("\u{3}");
    terminal.type_in("echo 안녕''하세요\n");
    terminal.expect("안녕하세요");
    terminal.type_in("exit 0\n");
    terminal.expect("Exiting session with sessionId: ");
    assert_eq!(terminal.end(), Some(0));
    let session = stage.only_session();
    let id = session["id"].as_str().unwrap();
    let played = stage.played(id);
    assert!(played.contains("안녕하세요") && played.contains("50 132"), "{played}");
    let start = stage.events("StartSession").remove(0);
    assert_eq!(start["requestParameters"]["reason"], "ticket 4711");
    assert_eq!(start["responseElements"]["sessionId"], id);
    let end = stage.events("EndSession").remove(0);
    assert_eq!(end["additionalEventData"]["recordingId"], id, "{end}");
    success(&mut stage.server.munjigi(&["verify"]));
}

#[test]
fn an_interactive_shell_over_the_link_is_as_on_the_node_itself() {
    an_interactive_shell(Mode::Link);
}

#[test]
fn the_exit_status_of_the_program_is_the_plugins() {
    let stage = Stage::new();
    let mut terminal = stage.shell(Mode::Link, 24, 80, &[]);
    terminal.type_in("exit 42\n");
    // What the AWS command line makes of it.
    terminal.expect("returned non-zero exit status 42");
    assert_eq!(terminal.end(), Some(255));
}

#[test]
fn a_command_without_a_terminal_has_its_own_outputs() {
    let stage = Stage::new();
    let document = "AWS-StartNonInteractiveCommand";
    let parameters = r#"{"command":["sh -c 'echo out; echo err >&2; exit 3'"]}"#;
    let arguments =
        ["ssm", "start-session", "--target", "web-1", "--document-name", document, "--parameters", parameters];
    let ran = output(&mut stage.aws(Mode::Link, &arguments));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(text(&ran.stdout).contains("\nout\n") && !text(&ran.stdout).contains("err"), "{ran:?}");
    assert!(text(&ran.stderr).contains("err\n") && text(&ran.stderr).contains("exit status 3"), "{ran:?}");
    let session = stage.only_session();
    assert_eq!((&session["exit"], &session["endReason"]), (&Value::from(3), &Value::from("exited")));
}

/// Runs the plugin as the AWS command line would, for a session that does not exist.
fn hand_over(stage: &Stage, mode: Mode, endpoint: &str) -> std::process::Output {
    let url = stage.server.url(None);
    let response = format!(
        r#"{{"SessionId":"nobody-0123456789abcdef0","TokenValue":"guessed","StreamUrl":"{}/v1/data-channel/nobody-0123456789abcdef0?role=publish_subscribe"}}"#,
        url.replace("https:", "wss:")
    );
    let mut plugin = Command::new(stage.plugin_dir.join("session-manager-plugin"));
    plugin.args(["AWS_SSM_START_SESSION_RESPONSE", "local-1", "StartSession", "", r#"{"Target":"web-1"}"#, endpoint]);
    stage.server.configure(&mut plugin);
    plugin.env("AWS_SSM_START_SESSION_RESPONSE", response);
    plugin.env("MUNJIGI_PLUGIN_MODE", if mode == Mode::Link { "link" } else { "aws" });
    output(&mut plugin)
}

#[test]
fn where_the_original_hangs_or_shrugs_there_are_words_and_a_status() {
    let stage = Stage::new();
    let url = stage.server.url(None);
    for mode in [Mode::Link, Mode::Aws] {
        let ran = hand_over(&stage, mode, &url);
        assert_eq!(ran.status.code(), Some(255), "{mode:?} {ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("munjigi: "), "{mode:?} {ran:?}");
        assert!(!String::from_utf8_lossy(&ran.stderr).contains("guessed"), "{mode:?} {ran:?}");
    }
    let nowhere = output(Command::new(stage.plugin_dir.join("session-manager-plugin")).args(["a", "b", "c", "d"]));
    assert_eq!(nowhere.status.code(), Some(255), "{nowhere:?}");
    let version = success(Command::new(stage.plugin_dir.join("session-manager-plugin")).arg("--version"));
    assert_eq!(version, "1.2.1000.0\n");
}

#[test]
fn the_plugin_is_installed_found_and_removed() {
    let stage = Stage::new();
    let dir = stage.plugin_dir.to_str().unwrap();
    let with_path = |arguments: &[&str]| {
        let mut command = stage.server.munjigi(arguments);
        command.env("PATH", dir);
        command
    };
    let status: Value = serde_json::from_str(&success(&mut with_path(&["plugin", "status", "-o", "json"]))).unwrap();
    assert_eq!((&status["ours"], &status["version"]), (&Value::Bool(true), &Value::from("1.2.1000.0")));
    success(&mut with_path(&["plugin", "remove", "--dir", dir]));
    assert_eq!(output(&mut with_path(&["plugin", "status"])).status.code(), Some(1));
    std::fs::write(stage.plugin_dir.join("session-manager-plugin"), "foreign").unwrap();
    let refused = output(&mut with_path(&["plugin", "install", "--dir", dir]));
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("is not ours"));
}

#[test]
fn what_policy_forbids_is_refused_before_the_plugin_runs() {
    let stage = Stage::new();
    let policy = stage.server.directory().join("nothing.json");
    std::fs::write(
        &policy,
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:DescribeSessions","Resource":"*"}]}"#,
    )
    .unwrap();
    let profile =
        success(&mut stage.server.munjigi(&["user", "add", "bob", "--policy", policy.to_str().unwrap(), "--key"]));
    let file = stage.server.directory().join("bob.credentials");
    std::fs::write(&file, profile).unwrap();
    let mut command = stage.aws(Mode::Link, &["ssm", "start-session", "--target", "web-1"]);
    command.env("AWS_SHARED_CREDENTIALS_FILE", &file).env("AWS_PROFILE", "bob");
    let ran = output(&mut command);
    assert!(!ran.status.success());
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("AccessDeniedException") && said.contains("not authorized"), "{said}");
    let refused = stage.events("StartSession");
    assert!(refused.iter().any(|event| event["errorCode"] == "AccessDeniedException"), "{refused:?}");
}

#[test]
fn a_cut_connection_loses_nothing_over_the_link() {
    let stage = Stage::new();
    cut_while_counting(&stage, Mode::Link);
}

/// Counts on the node while the connection is reset several times; every line must be there once, in order.
fn cut_while_counting(stage: &Stage, mode: Mode) {
    let proxy = CutProxy::start(stage.server.address());
    let mut command = stage.aws(mode, &["ssm", "start-session", "--target", "web-1"]);
    command.env("AWS_ENDPOINT_URL", stage.server.url(Some(proxy.port())));
    let mut terminal = Terminal::run(&command, 24, 80);
    terminal.expect("Starting session with SessionId: ");
    terminal.type_in("exec /bin/sh -i\n");
    terminal.type_in("stty -echo; PS1=; echo be''gin\n");
    terminal.expect("begin");
    terminal.type_in("n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo line $n; [ $((n%20)) = 0 ] && sleep 0.05; done; echo all''done\n");
    let mut shown = String::new();
    for mark in ["line 200\r", "line 600\r", "line 1100\r"] {
        shown += &terminal.expect(mark);
        proxy.reset();
    }
    shown += &terminal.expect("alldone");
    terminal.type_in("echo key''board; exit 0\n");
    terminal.expect("keyboard");
    assert_eq!(terminal.end(), Some(0));
    let lines: Vec<&str> = shown.lines().filter(|line| line.starts_with("line ")).collect();
    let expected: Vec<String> = (1..=2000).map(|n| format!("line {n}")).collect();
    let wrong = lines.iter().zip(&expected).position(|(line, expected)| line != expected);
    assert!(lines.len() == 2000 && wrong.is_none(), "{} lines, first wrong at {wrong:?}", lines.len());
}

/// `aws ssm start-session` with a document of ports; its plugin ends with it.
struct Forward {
    aws: Running,
    plugin: Pid,
    /// What stands behind the sign it was waited for.
    said: String,
}

impl Forward {
    fn start(stage: &Stage, mode: Mode, document: &str, parameters: &str, sign: &str) -> Self {
        let arguments = ["ssm", "start-session", "--target", "web-1", "--document-name", document, "--parameters"];
        let (aws, said) = Running::start(stage.aws(mode, &arguments).arg(parameters), sign);
        let plugin = wait_for("the plugin's process", || {
            children(aws.pid()).into_iter().find(|child| command_line(*child).contains("session-manager-plugin"))
        });
        Self { aws, plugin, said }
    }

    /// Presses Ctrl-C, as far as the plugin can tell.
    fn interrupt(mut self) -> Option<i32> {
        kill(self.plugin, Signal::SIGINT).unwrap();
        self.aws.wait()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        if is_alive(self.plugin) {
            let _ = kill(self.plugin, Signal::SIGTERM);
        }
    }
}

/// Sends back what it gets, connection by connection, for as long as the test runs.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut out = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut out);
                let _ = out.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Sends bytes and reads as many back.
fn there_and_back(mut stream: impl Read + Write + Send + 'static, split: impl Read + Send + 'static, seed: u64) {
    let sent = noise(seed, 300_000);
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        stream.write_all(&sent).unwrap();
        stream
    });
    let mut back = vec![0; expected.len()];
    let mut split = split;
    split.read_exact(&mut back).unwrap();
    assert!(back == expected, "connection {seed} got other bytes than it sent");
    drop(writing.join().unwrap());
}

/// Eight connections at a time through a forwarded port, and the end by Ctrl-C.
fn a_forwarded_port(mode: Mode) {
    let stage = Stage::new();
    let parameters = format!(r#"{{"portNumber":["{}"],"localPortNumber":["0"]}}"#, echo());
    let forward = Forward::start(&stage, mode, "AWS-StartPortForwardingSession", &parameters, "Port ");
    let port: u16 = forward.said.split(' ').next().unwrap().parse().unwrap();
    let connections: Vec<_> = (0..8)
        .map(|seed| {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
            thread::spawn(move || there_and_back(stream.try_clone().unwrap(), stream, seed))
        })
        .collect();
    for connection in connections {
        connection.join().unwrap();
    }
    assert_eq!(forward.interrupt(), Some(0));
    let session = wait_for("the session's end", || {
        let session = stage.only_session();
        (session["endReason"] != Value::Null).then_some(session)
    });
    assert_eq!((&session["kind"], &session["endReason"]), (&Value::from("port"), &Value::from("terminated")));
}

/// Standard input and output as the connection, as `ssh` uses it: nothing but the peer's bytes comes out.
fn the_peers_bytes_alone(mode: Mode) {
    let stage = Stage::new();
    let parameters = format!(r#"{{"portNumber":["{}"]}}"#, echo());
    let arguments =
        ["ssm", "start-session", "--target", "web-1", "--document-name", "AWS-StartSSHSession", "--parameters"];
    let mut command = stage.aws(mode, &arguments);
    let mut aws = command.arg(&parameters).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let sent = noise(7, 200_000);
    let (mut input, mut out) = (aws.stdin.take().unwrap(), aws.stdout.take().unwrap());
    let given = sent.clone();
    let writing = thread::spawn(move || {
        input.write_all(&given).unwrap();
        input
    });
    let mut back = vec![0; sent.len()];
    out.read_exact(&mut back).unwrap();
    assert!(back == sent, "other bytes came back than were sent");
    drop(writing.join().unwrap());
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty(), "{:?} came behind the peer's bytes", String::from_utf8_lossy(&rest));
    assert_eq!(aws.wait().unwrap().code(), Some(0));
}

/// A destination that refuses, and a socket in the file system.
fn a_socket_and_a_closed_port(mode: Mode) {
    let stage = Stage::new();
    let closed = free_port();
    let parameters = format!(r#"{{"portNumber":["{closed}"],"localPortNumber":["0"]}}"#);
    let forward = Forward::start(&stage, mode, "AWS-StartPortForwardingSession", &parameters, "Port ");
    let port: u16 = forward.said.split(' ').next().unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(wait::LIMIT)).unwrap();
    // Closed or reset, but not left hanging.
    assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    assert_eq!(forward.interrupt(), Some(0));

    let path = stage.server.directory().join("db.sock");
    let parameters = format!(r#"{{"portNumber":["{}"],"localUnixSocket":["{}"]}}"#, echo(), path.display());
    let document = "AWS-StartPortForwardingSessionToSocket";
    let forward = Forward::start(&stage, mode, document, &parameters, "Unix socket ");
    let stream = UnixStream::connect(&path).unwrap();
    there_and_back(stream.try_clone().unwrap(), stream, 3);
    assert_eq!(forward.interrupt(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_port_is_forwarded_over_the_link() {
    a_forwarded_port(Mode::Link);
}

#[test]
fn ssh_gets_the_peers_bytes_alone_over_the_link() {
    the_peers_bytes_alone(Mode::Link);
}

#[test]
fn a_socket_serves_and_a_closed_port_closes_over_the_link() {
    a_socket_and_a_closed_port(Mode::Link);
}

#[test]
fn a_port_is_forwarded_in_awss_protocol() {
    a_forwarded_port(Mode::Aws);
}

#[test]
fn ssh_gets_the_peers_bytes_alone_in_awss_protocol() {
    the_peers_bytes_alone(Mode::Aws);
}

#[test]
fn a_socket_serves_and_a_closed_port_closes_in_awss_protocol() {
    a_socket_and_a_closed_port(Mode::Aws);
}

#[test]
fn an_interactive_shell_in_awss_protocol_is_as_on_the_node_itself() {
    an_interactive_shell(Mode::Aws);
}

#[test]
fn a_cut_connection_loses_nothing_in_awss_protocol() {
    let stage = Stage::new();
    cut_while_counting(&stage, Mode::Aws);
}

#[test]
fn commands_run_in_awss_protocol() {
    let stage = Stage::new();
    let run = |document: &str, parameters: &str| {
        let arguments = ["ssm", "start-session", "--target", "web-1", "--document-name", document, "--parameters"];
        output(stage.aws(Mode::Aws, &arguments).arg(parameters))
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ran = run("AWS-StartNonInteractiveCommand", r#"{"command":["sh -c 'echo out; echo err >&2; exit 3'"]}"#);
    assert!(text(&ran.stdout).contains("\nout\n") && text(&ran.stdout).contains("Exiting session"), "{ran:?}");
    assert!(text(&ran.stdout).contains("err\n") || text(&ran.stderr).contains("err\n"), "{ran:?}");
    // A terminal whose input ends is sent its end.
    let ran = run("AWS-StartInteractiveCommand", r#"{"command":["tty; cat; echo done"]}"#);
    assert!(text(&ran.stdout).contains("/dev/pts/") && text(&ran.stdout).contains("done"), "{ran:?}");
    assert_eq!(stage.server.sessions().len(), 2);
}

#[test]
fn a_command_whose_outputs_are_separate_tells_its_exit_status_in_awss_protocol() {
    let stage = Stage::new();
    let content = r#"{"schemaVersion":"1.0","description":"","sessionType":"NonInteractiveCommands","inputs":{},
        "parameters":{},"properties":{"linux":{"commands":"sh -c 'echo out; echo err >&2; exit 5'","separateOutputStream":"true"}}}"#;
    stage.server.aws_json(&[
        "ssm",
        "create-document",
        "--name",
        "Separate",
        "--document-type",
        "Session",
        "--content",
        content,
    ]);
    let ran = output(
        &mut stage.aws(Mode::Aws, &["ssm", "start-session", "--target", "web-1", "--document-name", "Separate"]),
    );
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(text(&ran.stdout).contains("out\n") && !text(&ran.stdout).contains("EXIT_CODE"), "{ran:?}");
    assert!(text(&ran.stderr).contains("err\n") && text(&ran.stderr).contains("exit status 5"), "{ran:?}");
}
