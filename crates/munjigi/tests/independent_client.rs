//! Clients that share no code with us: one written from the protocol's description alone, which has the weaknesses of
//! AWS's plugin, and the npm package `ssm-session`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_client::boto3;
use crate::harness::{TestServer, python_tool, success, wait_for};

/// A client's process, and what it printed.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Printed,
    stderr: Printed,
}

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn collect(mut from: impl std::io::Read + Send + 'static) -> Self {
        let printed = Self::default();
        let shared = printed.clone();
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                shared.0.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        printed
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Client {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = Printed::collect(child.stdout.take().unwrap());
        let stderr = Printed::collect(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// Starts the client that was written from the description, with the arguments of StartSession.
    fn from_description(server: &TestServer, request: &Value, options: &[&str]) -> Self {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs/aws_client.py");
        let mut command = Command::new(python_tool("python3"));
        command.arg("-B").arg(program).args(["--request", &request.to_string(), "--ca"]);
        command.arg(server.data_dir().join("ca.pem")).args(options);
        server.configure(&mut command);
        Self::start(&mut command)
    }

    /// Starts the package from npm on a session that boto3 started.
    fn from_npm(server: &TestServer, modules: &Path, request: &Value) -> (Self, String) {
        let answer = boto3(server, "ssm", "start_session", request);
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/programs/ssm_session.js");
        let mut command = Command::new("node");
        command.arg(program).args([&answer["StreamUrl"], &answer["TokenValue"]].map(|text| text.as_str().unwrap()));
        command.env("NODE_EXTRA_CA_CERTS", server.data_dir().join("ca.pem")).env("NODE_PATH", modules);
        (Self::start(&mut command), answer["SessionId"].as_str().unwrap().to_owned())
    }

    fn type_in(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn expect(&self, text: &str) {
        wait_for(&format!("{text:?}"), || {
            let found = self.stdout.text().contains(text);
            assert!(found || !self.stderr.text().contains("Error"), "{}", self.stderr.text());
            found.then_some(())
        });
    }

    fn end(&mut self) -> Option<i32> {
        wait_for("the client's end", || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server() -> TestServer {
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()))
}

fn newest(server: &TestServer) -> Value {
    server.sessions().into_iter().next().unwrap_or_default()
}

#[test]
fn a_client_written_from_the_description_alone_has_a_shell() {
    let server = server();
    let _agent = server.agent("web-1");
    let mut client = Client::from_description(&server, &json!({ "Target": "web-1" }), &[]);
    client.type_in("PS1='$ '; echo be''gun\r");
    client.expect("begun");
    client.type_in("stty size\r");
    client.expect("43 117");
    client.type_in("echo 안녕''하세요\r");
    client.expect("안녕하세요");
    client.type_in("sleep 1000\r");
    client.expect("sleep 1000\r\n");
    client.type_in("\u{3}");
    client.type_in("echo still''here\r");
    client.expect("stillhere");
    client.type_in("exit\r");
    assert_eq!(client.end(), Some(0));
    wait_for("the session's end", || (newest(&server)["endReason"] == "exited").then_some(()));
    let played = success(&mut server.munjigi(&["play", newest(&server)["id"].as_str().unwrap(), "--text"]));
    assert!(played.contains("안녕하세요"), "{played}");
}

#[test]
fn it_loses_no_line_over_ten_sockets_and_a_handler_that_stands_late() {
    let server = server();
    let _agent = server.agent("web-1");
    let script = "i=0; while [ $i -lt 400 ]; do echo line-$i; i=$((i+1)); sleep 0.01; done; echo end >&2";
    let request = json!({
        "Target": "web-1",
        "DocumentName": "AWS-StartNonInteractiveCommand",
        "Parameters": { "command": [script] },
    });
    let mut client = Client::from_description(&server, &request, &["--installs-after", "0.7", "--breaks", "9"]);
    assert_eq!(client.end(), Some(0), "{}", client.stderr.text());
    let lines: String = (0..400).map(|line| format!("line-{line}\n")).collect();
    assert_eq!(client.stdout.text(), lines + "end\n");
    assert!(client.stderr.text().matches("socket lost").count() >= 9, "{}", client.stderr.text());
}

#[test]
fn the_npm_package_ssm_session_has_a_shell() {
    let modules = PathBuf::from(std::env::var_os("MUNJIGI_TEST_NODE").unwrap_or_default());
    if !modules.join("ssm-session").exists() {
        eprintln!("passed over: scripts/deps found no node and npm to install ssm-session with");
        return;
    }
    let server = server();
    let _agent = server.agent("web-1");
    let (mut client, session) = Client::from_npm(&server, &modules, &json!({ "Target": "web-1" }));
    client.type_in("stty size; echo 안녕''하세요\n");
    client.expect("34 97");
    client.expect("안녕하세요");
    client.type_in("seq 1 20000; echo do''ne\n");
    client.expect("20000\r\ndone");
    client.type_in("exit\n");
    assert_eq!(client.end(), Some(0), "{}", client.stderr.text());
    let row = server.sessions().into_iter().find(|row| row["id"] == session.as_str()).unwrap();
    assert_eq!(row["endReason"], "exited");
}
