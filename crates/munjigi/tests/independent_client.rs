//! Clients that share no code with us: one written from the protocol's description alone, which has the weaknesses of
//! AWS's plugin, and the npm package `ssm-session`.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_client::boto3;
use crate::harness::{TestServer, free_port, lasting, python_tool, success, wait_for, wait_until_runs};

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
    let sleep = lasting();
    client.type_in(&format!("{sleep}\r"));
    wait_until_runs(&sleep);
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
    let script = "i=0; while [ $i -lt 400 ]; do echo line-$i; i=$((i+1)); sleep 0.01; done";
    let request = json!({
        "Target": "web-1",
        "DocumentName": "AWS-StartNonInteractiveCommand",
        "Parameters": { "command": [script] },
    });
    let mut client = Client::from_description(&server, &request, &["--installs-after", "0.7", "--breaks", "9"]);
    assert_eq!(client.end(), Some(0), "{}", client.stderr.text());
    let lines: String = (0..400).map(|line| format!("line-{line}\n")).collect();
    assert_eq!(client.stdout.text(), lines);
    assert!(client.stderr.text().matches("socket lost").count() >= 9, "{}", client.stderr.text());
}

/// Answers each connection's bytes with themselves, turned round bit by bit, until its end.
fn answering() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut buffer = [0; 16384];
                while let Ok(count @ 1..) = socket.read(&mut buffer) {
                    buffer.iter_mut().for_each(|byte| *byte = !*byte);
                    if socket.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

fn port_request(port: u16) -> Value {
    json!({
        "Target": "web-1",
        "DocumentName": "AWS-StartPortForwardingSession",
        "Parameters": { "portNumber": [port.to_string()], "localPortNumber": ["0"] },
    })
}

/// Waits for the client's listener.
fn listening(client: &Client) -> u16 {
    wait_for("the listener", || {
        let text = client.stdout.text();
        assert!(!client.stderr.text().contains("Error"), "{}", client.stderr.text());
        text.lines().find_map(|line| line.strip_prefix("listening ")?.trim().parse().ok())
    })
}

#[test]
fn its_port_session_carries_three_connections_at_once() {
    let server = server();
    let _agent = server.agent("web-1");
    let mut client = Client::from_description(&server, &port_request(answering()), &["--installs-after", "0.3"]);
    let port = listening(&client);
    let connections: Vec<_> = (0..3_u8)
        .map(|number| {
            thread::spawn(move || {
                let sent: Vec<u8> = (0..200_000_u32).map(|at| (at >> (number * 4)) as u8).collect();
                let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
                let mut writer = socket.try_clone().unwrap();
                let written = sent.clone();
                let writing = thread::spawn(move || writer.write_all(&written).unwrap());
                let mut heard = vec![0; sent.len()];
                socket.read_exact(&mut heard).unwrap();
                writing.join().unwrap();
                assert!(heard.iter().zip(&sent).all(|(heard, sent)| *heard == !*sent), "connection {number} differs");
                socket.shutdown(Shutdown::Both).unwrap();
            })
        })
        .collect();
    for connection in connections {
        connection.join().unwrap();
    }
    // The end of standard input is the plugin's Ctrl-C.
    client.stdin = None;
    wait_for("the session's end", || (newest(&server)["status"] == "Terminated").then_some(()));
}

#[test]
fn its_port_session_says_that_nobody_listens() {
    let server = server();
    let _agent = server.agent("web-1");
    let nobody = free_port();
    let client = Client::from_description(&server, &port_request(nobody), &[]);
    let mut socket = TcpStream::connect(("127.0.0.1", listening(&client))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    assert_eq!(socket.read(&mut [0; 10]).unwrap(), 0);
    wait_for("the message", || client.stderr.text().contains("destination port failed").then_some(()));
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
