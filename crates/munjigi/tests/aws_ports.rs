//! Port sessions at the AWS door, as AWS's plugin has them: smux, one connection after the other, standard input and
//! output; and what a refusal, a lost socket and Ctrl-C look like.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::thread;

use bytes::Bytes;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use munjigi_core::wire::aws::smux::{Mux, MuxLimits, Read, Side};
use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_client::{AwsClient, boto3};
use crate::harness::sshd::TestSshd;
use crate::harness::{TestServer, free_port, python_tool, success, wait_for};

/// Listens, and answers each connection's bytes with themselves until their end.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut from, mut to) = (socket.try_clone().unwrap(), socket);
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

fn forwarding(port: u16) -> Value {
    let parameters = json!({ "portNumber": [port.to_string()], "localPortNumber": ["0"] });
    json!({ "Target": "web-1", "DocumentName": "AWS-StartPortForwardingSession", "Parameters": parameters })
}

fn ssh(port: u16) -> Value {
    let parameters = json!({ "portNumber": [port.to_string()] });
    json!({ "Target": "web-1", "DocumentName": "AWS-StartSSHSession", "Parameters": parameters })
}

/// Starts a session and waits until the client has taken it up: what it sends before belongs to no session.
fn start(server: &TestServer, arguments: &Value) -> (AwsClient, String) {
    let (mut client, session) = AwsClient::start(server, arguments);
    client.wait("the handshake", |client| client.session_type.is_some());
    assert_eq!(client.session_type.as_deref(), Some("Port"));
    (client, session)
}

/// The plugin's end of smux over the channel.
struct Plugin {
    client: AwsClient,
    mux: Mux,
    taken: usize,
}

impl Plugin {
    fn new(client: AwsClient) -> Self {
        Self { client, mux: Mux::new(Side::Client, MuxLimits::default()), taken: 0 }
    }

    fn flags(&self) -> usize {
        self.client.apart.iter().filter(|(kind, _)| *kind == PayloadType::Flag).count()
    }

    /// Exchanges bytes until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        while !done(self) {
            while let Some(bytes) = self.mux.next_output(1024) {
                self.client.type_in(&bytes);
            }
            let (taken, flags) = (self.taken, self.flags());
            self.client.wait(what, |client| {
                let now = client.apart.iter().filter(|(kind, _)| *kind == PayloadType::Flag).count();
                client.output.len() > taken || now > flags
            });
            self.mux.receive(Bytes::copy_from_slice(&self.client.output[self.taken..])).unwrap();
            self.taken = self.client.output.len();
        }
    }
}

fn end_event(server: &TestServer, session: &str) -> Value {
    wait_for("the session's end in the trail", || {
        let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", "EndSession"]));
        let mut events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.find(|event| event["additionalEventData"]["sessionId"] == session)
    })
}

#[test]
fn eight_streams_of_one_session_carry_their_own_bytes() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (client, session) = start(&server, &forwarding(echo()));
    let mut plugin = Plugin::new(client);
    let sent: Vec<Vec<u8>> =
        (0..8_u32).map(|seed| (0..100_000_u32).map(|at| (at.wrapping_mul(seed + 7) >> 3) as u8).collect()).collect();
    let ids: Vec<u32> = sent.iter().map(|_| plugin.mux.open().unwrap()).collect();
    for (id, bytes) in ids.iter().zip(&sent) {
        plugin.mux.write(*id, Bytes::from(bytes.clone())).unwrap();
    }
    let mut heard = vec![Vec::new(); 8];
    plugin.until("eight echoes", |plugin| {
        for (id, heard) in ids.iter().zip(&mut heard) {
            while let Read::Data(bytes) = plugin.mux.read(*id) {
                heard.extend_from_slice(&bytes);
            }
        }
        heard.iter().all(|heard| heard.len() >= 100_000)
    });
    assert!(heard == sent);
    for id in &ids {
        plugin.mux.close(*id);
    }
    plugin.until("the ends", |plugin| plugin.mux.streams() == 0);
    plugin.client.flag(Flag::TerminateSession);
    assert_eq!(plugin.client.wait_closed(), "");
    let event = end_event(&server, &session);
    let connections = &event["additionalEventData"]["connections"];
    assert_eq!((&connections["opened"], &connections["bytesIn"]), (&8.into(), &800_000.into()), "{event}");
}

#[test]
fn a_refused_connection_is_flagged_and_the_session_lives() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let closed = free_port();
    let metadata = json!({
        "Target": "web-1",
        "DocumentName": "AWS-StartPortForwardingSessionToRemoteHost",
        "Parameters": { "host": ["169.254.169.254"], "portNumber": ["80"], "localPortNumber": ["0"] },
    });
    for arguments in [forwarding(closed), metadata] {
        let (client, session) = start(&server, &arguments);
        let mut plugin = Plugin::new(client);
        for flags in 1..=2 {
            let id = plugin.mux.open().unwrap();
            plugin.until("the refusal", |plugin| plugin.flags() == flags && plugin.mux.read(id) == Read::End);
        }
        plugin.client.flag(Flag::TerminateSession);
        plugin.client.wait_closed();
        assert_eq!(end_event(&server, &session)["additionalEventData"]["connections"]["refused"], 2);
    }
}

#[test]
fn a_connection_outlives_the_clients_socket() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let (mut client, session) = start(&server, &ssh(echo()));
    client.type_in(b"before ");
    client.wait_for("before ");
    client.lose_socket();
    client.type_in(b"between ");
    let resumed = boto3(&server, "ssm", "resume_session", &json!({ "SessionId": session }));
    client.open(&server, &resumed);
    client.wait_for("before between ");
    client.type_in(b"after");
    client.wait_for("before between after");
    client.flag(Flag::TerminateSession);
    client.wait_closed();
}

#[test]
fn standard_input_and_output_end_with_their_only_connection() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let reading = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(b"SSH-2.0-test\r\n").unwrap();
        let mut heard = [0; 16];
        socket.read_exact(&mut heard).unwrap();
        socket.write_all(b"goodbye").unwrap();
        heard
    });
    let (mut client, session) = start(&server, &ssh(port));
    client.wait_for("SSH-2.0-test\r\n");
    client.type_in(b"SSH-2.0-client\r\n");
    client.wait_for("goodbye");
    assert_eq!(&reading.join().unwrap(), b"SSH-2.0-client\r\n");
    assert_eq!(client.wait_closed(), "");
    assert_eq!(end_event(&server, &session)["additionalEventData"]["endReason"], "exited");
    // Nobody listens: the session ends with the reason.
    let closed = free_port();
    let (mut client, _) = AwsClient::start(&server, &ssh(closed));
    let told = client.wait_closed();
    assert!(told.contains("refused the connection"), "{told}");
}

#[test]
fn an_old_client_has_one_connection_after_the_other() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let started = boto3(&server, "ssm", "start_session", &forwarding(echo()));
    let mut client = AwsClient::new("0b0e8ffa-0001-4000-8000-000000000001", Some("1.1.61.0"));
    client.open(&server, &started);
    client.wait("the handshake", |client| client.session_type.is_some());
    for round in 1..=3 {
        let text = format!("round {round} ");
        client.type_in(text.as_bytes());
        client.wait_for(&text);
        client.flag(Flag::DisconnectToPort);
    }
    client.flag(Flag::TerminateSession);
    client.wait_closed();
    let session = started["SessionId"].as_str().unwrap();
    assert_eq!(end_event(&server, session)["additionalEventData"]["connections"]["opened"], 3);
}

/// `ssh` as people use it: `aws` as its proxy, our binary as the plugin, a real sshd on the node.
#[test]
fn a_real_ssh_goes_through_either_protocol() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let plugins = server.directory().join("bin");
    success(&mut server.munjigi(&["plugin", "install", "--dir", plugins.to_str().unwrap()]));
    let mut sshd = TestSshd::prepare("");
    sshd.start();
    let document = "--document-name AWS-StartSSHSession --parameters portNumber=%p";
    let aws = python_tool("aws");
    let proxy = format!("ProxyCommand={} ssm start-session --target web-1 {document}", aws.display());
    for mode in ["link", "aws"] {
        let mut ssh = sshd.ssh("own", &user(), &["-o", &proxy]);
        server.configure(&mut ssh);
        ssh.env("PATH", format!("{}:{}", plugins.display(), std::env::var("PATH").unwrap()));
        ssh.env("MUNJIGI_PLUGIN_MODE", mode).arg("echo through; head -c 1000000 /dev/zero");
        let said = success(&mut ssh);
        assert!(said.starts_with("through\n") && said.len() == 1_000_008, "{mode}: {} bytes", said.len());
    }
    assert_eq!(server.sessions().len(), 2);
}
