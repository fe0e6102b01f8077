//! A client of the AWS door as tests need it: it behaves like AWS's plugin on the wire, can lose its socket, be slow,
//! and say what is wrong. It uses the codec of the product; the independent client is a program of its own.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use munjigi_core::wire::aws::message::{AgentMessage, MessageType, Reader};
use munjigi_core::wire::aws::payload::{
    ChannelClosed, Flag, HandshakeRequest, HandshakeResponse, ProcessedAction, RequestedAction, Size, json, parse,
};
use munjigi_core::wire::aws::{Channel, ChannelLimits, Millis, PayloadType, Role};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role as WsRole;

use super::wait::LIMIT;
use super::{TestServer, python_tool, success};

/// Calls an operation with boto3. A refusal is `{"Error": code, "Message": text}`.
pub(crate) fn boto3(server: &TestServer, service: &str, operation: &str, arguments: &Value) -> Value {
    const CALL: &str = "import boto3, botocore.exceptions, json, sys\n\
        try:\n    \
            answer = getattr(boto3.client(sys.argv[1]), sys.argv[2])(**json.loads(sys.argv[3]))\n    \
            answer.pop('ResponseMetadata')\n\
        except botocore.exceptions.ClientError as error:\n    \
            answer = {'Error': error.response['Error']['Code'], 'Message': error.response['Error']['Message']}\n\
        print(json.dumps(answer, default=str))\n";
    let mut command = Command::new(python_tool("python3"));
    command.args(["-c", CALL, service, operation, &arguments.to_string()]);
    server.configure(&mut command);
    serde_json::from_str(&success(&mut command)).unwrap()
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// One client for its whole life, over as many sockets as the test gives it.
pub(crate) struct AwsClient {
    runtime: Runtime,
    socket: Option<Socket>,
    channel: Channel,
    begun: Instant,
    client_id: String,
    /// Version in the open message and the handshake; `None` plays an old client.
    version: Option<String>,
    /// Takes nothing while set, as AWS's plugin does before its session handler stands.
    pub(crate) not_ready: bool,
    /// Everything printed: payload types 1, 11 and 12, as AWS's plugin prints them.
    pub(crate) output: Vec<u8>,
    /// Payload types 11 and 12 and the customer message of the handshake.
    pub(crate) apart: Vec<(PayloadType, String)>,
    /// Type of the session, from the handshake.
    pub(crate) session_type: Option<String>,
    /// `Output` of `channel_closed`.
    pub(crate) closed: Option<String>,
    /// The close frame's code and text.
    pub(crate) goodbye: Option<(u16, String)>,
}

impl AwsClient {
    /// Makes a client without a socket.
    pub(crate) fn new(client_id: &str, version: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self {
            runtime,
            socket: None,
            channel: Channel::new(Role::Client, [7; 16], ChannelLimits::towards_agent()),
            begun: Instant::now(),
            client_id: client_id.to_owned(),
            version: version.map(str::to_owned),
            not_ready: false,
            output: Vec::new(),
            apart: Vec::new(),
            session_type: None,
            closed: None,
            goodbye: None,
        }
    }

    /// Starts a session with boto3 and opens its channel.
    pub(crate) fn start(server: &TestServer, arguments: &Value) -> (Self, String) {
        let started = boto3(server, "ssm", "start_session", arguments);
        assert!(started["TokenValue"].is_string(), "{started}");
        let mut client = Self::new("0b0e8ffa-0001-4000-8000-000000000001", Some("1.2.650.0"));
        client.open(server, &started);
        (client, started["SessionId"].as_str().unwrap().to_owned())
    }

    /// Opens a socket with the answer of `StartSession` or `ResumeSession`.
    pub(crate) fn open(&mut self, server: &TestServer, answer: &Value) {
        let mut open = serde_json::json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": "0b0e8ffa-0002-4000-8000-000000000002",
            "TokenValue": answer["TokenValue"],
            "ClientId": self.client_id,
        });
        if let Some(version) = &self.version {
            open["ClientVersion"] = version.as_str().into();
        }
        self.open_with(server, answer["StreamUrl"].as_str().unwrap(), Message::Text(open.to_string().into()));
    }

    /// Opens a socket whose first message is this.
    pub(crate) fn open_with(&mut self, server: &TestServer, url: &str, first: Message) {
        let ca = server.data_dir().join("ca.pem");
        let socket = self.runtime.block_on(async {
            let mut socket = connect(&ca, url).await;
            socket.send(first).await.unwrap();
            socket
        });
        self.socket = Some(socket);
        let now = self.now();
        self.channel.resume(now);
    }

    /// Loses the socket without a goodbye.
    pub(crate) fn lose_socket(&mut self) {
        self.socket = None;
        self.channel.pause();
    }

    /// Types, and sends at once what the window allows.
    pub(crate) fn type_in(&mut self, bytes: &[u8]) {
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            self.wait("room for input", |client| client.channel.room() >= 1024);
            let piece = rest.split_to(rest.len().min(1024));
            self.channel.queue(PayloadType::Output, piece).unwrap();
        }
    }

    /// Tells the size of the terminal.
    pub(crate) fn resize(&mut self, rows: u32, cols: u32) {
        self.channel.queue(PayloadType::Size, json(&Size { cols, rows })).unwrap();
    }

    /// Sends a flag.
    pub(crate) fn flag(&mut self, flag: Flag) {
        self.channel.queue(PayloadType::Flag, flag.bytes()).unwrap();
    }

    /// Sends a message past the channel.
    pub(crate) fn send_raw(&mut self, message: Message) {
        let socket = self.socket.as_mut().unwrap();
        self.runtime.block_on(socket.send(message)).unwrap();
    }

    /// Goes on until the screen shows a text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        let bytes = text.as_bytes();
        self.wait(text, |client| client.output.windows(bytes.len()).any(|window| window == bytes));
    }

    /// Goes on until `channel_closed`, and returns its text.
    pub(crate) fn wait_closed(&mut self) -> String {
        self.wait("channel_closed", |client| client.closed.is_some());
        self.closed.clone().unwrap()
    }

    /// Goes on until the server closes the socket, and returns why.
    pub(crate) fn wait_goodbye(&mut self) -> (u16, String) {
        self.wait("the socket's end", |client| client.socket.is_none());
        self.goodbye.clone().unwrap_or_default()
    }

    /// Goes on until something holds.
    pub(crate) fn wait(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + LIMIT;
        while !holds(self) {
            let shown = String::from_utf8_lossy(&self.output[self.output.len().saturating_sub(600)..]).into_owned();
            assert!(Instant::now() < end, "waited for {what}; seen: {shown:?}, closed: {:?}", self.closed);
            assert!(self.closed.is_none(), "closed with {:?} before {what}; seen: {shown:?}", self.closed);
            self.step();
        }
    }

    fn step(&mut self) {
        let Some(mut socket) = self.socket.take() else {
            std::thread::sleep(Duration::from_millis(5));
            return;
        };
        let mut waiting = Vec::new();
        while let Some(message) = self.channel.next_transmission(self.now(), unix_ms()) {
            waiting.push(message);
        }
        let received = self.runtime.block_on(async {
            for message in waiting {
                // A server that hung up is noticed by reading.
                let _ = socket.send(Message::Binary(message)).await;
            }
            tokio::time::timeout(Duration::from_millis(20), socket.next()).await
        });
        match received {
            Err(_) => self.socket = Some(socket),
            Ok(Some(Ok(Message::Close(frame)))) => {
                self.goodbye = frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                self.channel.pause();
            }
            Ok(None | Some(Err(_))) => self.channel.pause(),
            Ok(Some(Ok(message))) => {
                self.socket = Some(socket);
                if let Message::Binary(bytes) = message {
                    self.received(bytes);
                }
            }
        }
        while !self.not_ready
            && let Some((kind, payload)) = self.channel.next_delivery()
        {
            self.delivered(kind, &payload);
        }
    }

    fn received(&mut self, bytes: Bytes) {
        let message = AgentMessage::decode(bytes, Reader::Client).unwrap();
        if message.kind == MessageType::ChannelClosed {
            let closed: ChannelClosed = parse("channel_closed", &message.payload).unwrap();
            self.closed = Some(closed.output);
        } else {
            let now = self.now();
            self.channel.receive(message, now).unwrap();
        }
    }

    fn delivered(&mut self, kind: PayloadType, payload: &Bytes) {
        match kind {
            PayloadType::HandshakeRequest => self.answer_handshake(payload),
            PayloadType::HandshakeComplete => {}
            // A client of a port session takes no bytes from it.
            PayloadType::Flag => self.apart.push((kind, String::new())),
            kind => {
                self.output.extend_from_slice(payload);
                if kind != PayloadType::Output {
                    self.apart.push((kind, String::from_utf8_lossy(payload).into_owned()));
                }
            }
        }
    }

    fn answer_handshake(&mut self, payload: &Bytes) {
        let request: HandshakeRequest = parse("handshake request", payload).unwrap();
        let [RequestedAction::SessionType { session_type, .. }] = request.requested_client_actions.as_slice() else {
            panic!("{request:?}")
        };
        self.session_type = Some(session_type.clone());
        let action = ProcessedAction {
            action_type: "SessionType".to_owned(),
            action_status: ProcessedAction::SUCCESS,
            action_result: Value::Null,
            error: String::new(),
        };
        let client_version = self.version.clone().unwrap_or_else(|| "1.0.0.0".to_owned());
        let response = HandshakeResponse { client_version, processed_client_actions: vec![action], errors: None };
        self.channel.queue(PayloadType::HandshakeResponse, json(&response)).unwrap();
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap())
    }
}

fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// Upgrades as AWS's plugin does: only the standard headers, and nothing sent before the 101.
async fn connect(ca: &std::path::Path, url: &str) -> Socket {
    let url = url::Url::parse(url).unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port_or_known_default().unwrap());
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_file_iter(ca).unwrap().map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect((host, port)).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    let key = base64::engine::general_purpose::STANDARD.encode([1; 16]);
    let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
    let head = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n"
    );
    tls.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(tls.read_u8().await.unwrap());
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    WebSocketStream::from_raw_socket(tls, WsRole::Client, None).await
}
