//! AWS's agent as a node: a test double that follows the protocol's description registers, connects and serves sessions,
//! which our own client opens and the server records like any other.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::server::Running;
use crate::harness::{Terminal, TestServer, output, python_tool, success, wait_for};

/// A node with the test double.
struct AwsAgent {
    process: Running,
    /// The node's id.
    node: String,
}

/// Builds the command that runs the double, with its state in a directory of its own.
fn double(server: &TestServer, name: &str) -> Command {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs/ssm_agent.py");
    let mut command = Command::new(python_tool("python3"));
    command
        .arg("-B")
        .arg(program)
        .args(["--endpoint", &server.url(None), "--name", name, "--ca"])
        .arg(server.data_dir().join("ca.pem"))
        .arg("--state")
        .arg(server.directory().join(format!("aws-{name}")));
    command
}

/// Registers a node and waits until its control channel stands.
fn join(server: &TestServer, name: &str, fault: &str) -> AwsAgent {
    join_with(server, name, &["--fault", fault])
}

/// As [`join`], with options for the double.
fn join_with(server: &TestServer, name: &str, options: &[&str]) -> AwsAgent {
    let (id, code) = server.activation();
    let mut command = double(server, name);
    // A code may begin with a hyphen.
    command.args(["--id", &id, &format!("--code={code}")]).args(options);
    let (process, node) = Running::start(&mut command, "ready ");
    wait_for("the node to be connected", || (node_line(server, name)?["state"] == "Online").then_some(()));
    AwsAgent { process, node }
}

fn node_line(server: &TestServer, name: &str) -> Option<Value> {
    let text = success(&mut server.munjigi(&["ls", "--output", "json"]));
    let nodes: Vec<Value> = serde_json::from_str(&text).unwrap();
    nodes.into_iter().find(|node| node["name"] == name)
}

fn newest(server: &TestServer) -> Value {
    server.sessions().into_iter().next().unwrap_or_default()
}

fn audited(server: &TestServer, event: &str) -> String {
    let query = format!("AttributeKey=EventName,AttributeValue={event}");
    server.aws_json(&["cloudtrail", "lookup-events", "--lookup-attributes", &query])["Events"].to_string()
}

#[test]
fn a_shell_on_awss_agent_is_a_recorded_session_like_any_other() {
    let server = TestServer::start();
    let agent = join(&server, "aws-1", "");
    let node = node_line(&server, "aws-1").unwrap();
    assert_eq!((&node["id"], &node["agent"]), (&Value::from(agent.node.as_str()), &Value::from("aws")), "{node}");
    assert_eq!((&node["platform"], &node["agentVersion"]), (&"Debian GNU/Linux".into(), &"3.3.0.0".into()), "{node}");
    let status = server.aws_json(&["ssm", "get-connection-status", "--target", &agent.node]);
    assert_eq!(status["Status"], "connected");

    let mut terminal = Terminal::start(&server, 37, 111, &["shell", "aws-1"]);
    terminal.type_in("PS1='$ '; echo be''gin; stty size\n");
    terminal.expect("begin");
    terminal.expect("37 111");
    terminal.type_in("echo 안녕''하세요\n");
    terminal.expect("안녕하세요");
    terminal.resize(50, 132);
    wait_for("the new size", || {
        terminal.type_in("stty size\n");
        std::thread::sleep(std::time::Duration::from_millis(200));
        terminal.screen().contains("50 132").then_some(())
    });
    terminal.type_in("sleep 1001\n");
    terminal.expect("sleep 1001");
    wait_for("sleep to run", || {
        let running = output(Command::new("pgrep").args(["-xf", "sleep 1001"]));
        (!running.stdout.is_empty()).then_some(())
    });
    terminal.type_in("\u{3}");
    terminal.type_in("echo still''here\n");
    terminal.expect("stillhere");
    terminal.type_in("exit\n");
    assert_eq!(terminal.end(), Some(0));

    let session = newest(&server);
    assert_eq!((&session["endReason"], &session["osUser"]), (&"exited".into(), &"ssm-user".into()), "{session}");
    let played = success(&mut server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    assert!(played.contains("안녕하세요") && played.contains("50 132"), "{played}");
    success(&mut server.munjigi(&["verify"]));
    assert!(audited(&server, "RequestManagedInstanceRoleToken").contains(&agent.node));
    assert!(audited(&server, "EndSession").contains("aws-1"));
    assert!(audited(&server, "NodeConnected").contains(&agent.node));
}

#[test]
fn a_command_has_its_output_its_errors_and_its_status_apart() {
    let server = TestServer::start();
    let _agent = join(&server, "aws-1", "garbage");
    let script = "echo \"it's {{ command }}\"; echo wrong >&2; exit 7";
    let ran = output(&mut server.munjigi(&["run", "aws-1", "--", "/bin/sh", "-c", script]));
    assert_eq!(ran.status.code(), Some(7), "{ran:?}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "it's {{ command }}\n");
    assert!(String::from_utf8_lossy(&ran.stderr).contains("wrong\n"), "{ran:?}");
    // More than any buffer on the way holds.
    let many = success(&mut server.munjigi(&["run", "aws-1", "--", "seq", "1", "30000"]));
    assert!(many == (1..=30000).map(|n| format!("{n}\n")).collect::<String>(), "{} bytes", many.len());
}

#[test]
fn a_client_that_stops_reading_holds_the_program_back_and_loses_nothing() {
    let server = TestServer::start();
    // AWS's agent waits for two seconds, which a busy machine can take.
    let _agent = join_with(&server, "aws-1", &["--patience", "100"]);
    let mut command = server.munjigi(&["run", "aws-1", "--", "seq", "1", "200000"]);
    let mut client = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let id = wait_for("the session", || Some(newest(&server)["id"].as_str()?.to_owned()));
    let sent = || server.sessions().into_iter().find(|session| session["id"] == *id).unwrap()["status"].clone();
    wait_for("the session to run", || (sent() == "Connected").then_some(()));
    // Nobody reads for a while; what then comes is whole.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut text = String::new();
    std::io::Read::read_to_string(&mut client.stdout.take().unwrap(), &mut text).unwrap();
    assert!(client.wait().unwrap().success());
    assert!(text == (1..=200_000).map(|n| format!("{n}\n")).collect::<String>(), "{} bytes", text.len());
}

#[test]
fn output_that_the_agent_threw_away_is_not_taken_for_all() {
    let server = TestServer::start();
    let _agent = join(&server, "aws-1", "hasty");
    let ran = output(&mut server.munjigi(&["run", "aws-1", "--", "seq", "1", "200000"]));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success() && said.contains("the rest is lost"), "{:?} {said}", ran.status);
    let all: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(ran.stdout.len() < all.len() && all.as_bytes().starts_with(&ran.stdout), "{} bytes", ran.stdout.len());
}

#[test]
fn a_broken_data_channel_costs_a_session_nothing() {
    let server = TestServer::start();
    let agent = join(&server, "aws-1", "");
    let mut terminal = Terminal::start(&server, 24, 80, &["shell", "aws-1"]);
    terminal.type_in("PS1='$ '; stty -echo; echo be''gin\n");
    terminal.expect("begin");
    terminal.type_in("i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line-$i; sleep 0.02; done; echo fin''ished\n");
    terminal.expect("line-20");
    agent.process.signal(Signal::SIGUSR1);
    terminal.expect("line-100");
    agent.process.signal(Signal::SIGUSR1);
    terminal.expect("finished");
    terminal.type_in("echo key''s; exit\n");
    terminal.expect("keys");
    assert_eq!(terminal.end(), Some(0));
    let session = newest(&server);
    let played = success(&mut server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    // The first one stands behind the prompt.
    let lines: Vec<&str> =
        played.lines().filter_map(|line| Some(line.get(line.find("line-")?..)?.trim_end())).collect();
    assert_eq!(lines, (1..=300).map(|n| format!("line-{n}")).collect::<Vec<_>>());
}

#[test]
fn ending_a_session_ends_its_program_on_the_node() {
    let server = TestServer::start();
    let _agent = join(&server, "aws-1", "");
    let word = format!("aws-word-{}", std::process::id());
    let mut terminal = Terminal::start(&server, 24, 80, &["shell", "aws-1"]);
    terminal.type_in(&format!("sh -c 'sleep 1000; : {word}'\n"));
    let running = || !output(Command::new("pgrep").args(["-f", &format!("sleep 1000; : {word}")])).stdout.is_empty();
    wait_for("the program to run", || running().then_some(()));
    let id = newest(&server)["id"].as_str().unwrap().to_owned();
    success(&mut server.munjigi(&["kill", &id]));
    terminal.expect("terminated");
    wait_for("the program's end", || (!running()).then_some(()));
    wait_for("the session's end", || (newest(&server)["endReason"] == "terminated").then_some(()));
}

#[test]
fn an_agent_that_does_not_answer_fails_the_start_and_one_that_cannot_says_why() {
    let server = TestServer::start();
    let _deaf = join(&server, "deaf", "deaf");
    let refused = output(&mut server.munjigi(&["run", "deaf", "--", "true"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("did not open a data channel"), "{refused:?}");
    wait_for("the session's end", || (newest(&server)["endReason"] == "start-failed").then_some(()));

    let _agent = join(&server, "aws-1", "");
    let refused = output(&mut server.munjigi(&["run", "aws-1", "--user", "no-such-user", "--", "true"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no-such-user does not exist"), "{refused:?}");

    let ports = ["ssm", "start-session", "--target", "aws-1", "--document-name", "AWS-StartPortForwardingSession"];
    let refused = output(server.aws(&ports).args(["--parameters", "portNumber=22"]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no port sessions"), "{refused:?}");
}

#[test]
fn aws_start_session_with_our_plugin_opens_a_shell_on_awss_agent() {
    let server = TestServer::start();
    let agent = join(&server, "aws-1", "");
    let plugin_dir = server.directory().join("bin");
    success(&mut server.munjigi(&["plugin", "install", "--dir", plugin_dir.to_str().unwrap()]));
    let path = std::env::var("PATH").unwrap();
    let mut command = server.aws(&["ssm", "start-session", "--target", &agent.node]);
    command.env("PATH", format!("{}:{path}", plugin_dir.display()));
    let mut terminal = Terminal::run(&command, 37, 111);
    terminal.expect("Starting session with SessionId: ");
    terminal.type_in("PS1='$ '; stty size; echo 안녕''하세요\n");
    terminal.expect("37 111");
    terminal.expect("안녕하세요");
    terminal.type_in("exit\n");
    assert_eq!(terminal.end(), Some(0));
    let session = newest(&server);
    assert_eq!((&session["endReason"], &session["osUser"]), (&"exited".into(), &"ssm-user".into()), "{session}");
    let played = success(&mut server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    assert!(played.contains("안녕하세요"), "{played}");
}

#[test]
fn a_node_reaches_no_channel_of_another_node_or_session() {
    let server = TestServer::start();
    let agent = join(&server, "aws-1", "");
    let mut terminal = Terminal::start(&server, 24, 80, &["shell", "aws-1"]);
    terminal.type_in("echo be''gin\n");
    terminal.expect("begin");
    let session = newest(&server)["id"].as_str().unwrap().to_owned();
    let (id, code) = server.activation();
    let tried = success(double(&server, "thief").args(["--id", &id, &format!("--code={code}"), "--steal"]).args([
        format!("/v1/control-channel/{}", agent.node),
        format!("/v1/data-channel/{session}"),
        "/v1/data-channel/nobody-0123456789abcdef0".to_owned(),
    ]));
    assert!(!tried.contains("stolen"), "{tried}");
    assert_eq!(tried.matches("<AccessDeniedException>").count(), 1, "{tried}");
    assert_eq!(tried.matches("Session is already terminated").count(), 2, "{tried}");
    let (id, code) = server.activation();
    let mut liar = double(&server, "liar");
    liar.args(["--id", &id, &format!("--code={code}"), "--victim", &session]);
    let (_liar, _) = Running::start(&mut liar, "ready ");
    // The one who was to be robbed has noticed nothing.
    terminal.type_in("echo still''here; exit\n");
    terminal.expect("stillhere");
    assert_eq!(terminal.end(), Some(0));
}

#[test]
fn a_restart_of_the_server_ends_running_sessions_with_a_reason_and_the_node_comes_back() {
    let mut server = TestServer::start();
    let _agent = join(&server, "aws-1", "");
    let mut terminal = Terminal::start(&server, 24, 80, &["shell", "aws-1"]);
    terminal.type_in("echo be''gin\n");
    terminal.expect("begin");
    server.kill();
    server.start_again();
    wait_for("the session's end", || (newest(&server)["endReason"] == "server-restarted").then_some(()));
    terminal.expect("restarted");
    wait_for("the node to come back", || (node_line(&server, "aws-1")?["state"] == "Online").then_some(()));
    assert_eq!(success(&mut server.munjigi(&["run", "aws-1", "--", "echo", "again"])), "again\n");
}

#[test]
fn an_operator_can_keep_the_agents_of_aws_out() {
    let server = TestServer::with_config("[nodes]\naws_agents = false\n");
    let (id, code) = server.activation();
    let refused = output(double(&server, "aws-1").args(["--id", &id, &format!("--code={code}")]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("nodes.aws_agents"), "{refused:?}");
    assert!(node_line(&server, "aws-1").is_none());
}
