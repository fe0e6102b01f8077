//! Peers of the server's port that mean no good, for tests and for `bench/`: what they say to the link, as agents and as
//! clients, and to AWS's data channel is built by hand and mutated, before and after they have proved who they are; only its
//! encryption is right.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::{Bytes, BytesMut};
use munjigi_core::session::{EndReason, OutputStream, Signal, TerminalSize};
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::Frame;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::message::{AgentMessage, MessageId, MessageType};
use munjigi_core::wire::aws::payload::{Acknowledge, Flag, Size, json};
use munjigi_core::wire::hello::{Hello, NodeHello, Role, VERSION_MAX, VERSION_MIN, node_link_message};
use munjigi_core::wire::message::{
    Accepted, AttachSession, Connect, End, Incoming, Logins, Open, OpenSession, Refused, Rejoin, Resolved, SshWish,
    open,
};
use munjigi_link::{BINDING_HEADER, HELLO_HEADER, LINK_PATH};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

/// Frames that one connection says; the link and the SSH door end at the first that cannot be read.
pub(crate) const BURST: u64 = 25;
/// Messages that one data channel says once it is open: each costs the start of a session before.
const CHANNEL_BURST: u64 = 100;
/// How long a peer waits for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// Numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Returns the numbers of one of several attackers.
    pub(crate) fn of(number: u64) -> Self {
        Self(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number + 1) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// What all connections came to.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Packets, frames or messages that were sent.
    pub(crate) frames: AtomicU64,
    pub(crate) connections: AtomicU64,
    /// Connections that proved somebody first.
    pub(crate) logins: AtomicU64,
    /// Those that did not come as far as they wished, e.g. because the port was full.
    pub(crate) turned_away: AtomicU64,
    /// The longest that a connection stood after the last it said, microseconds.
    pub(crate) longest: AtomicU64,
}

impl Outcome {
    /// Counts a connection that said what it had to say.
    pub(crate) fn add(&self, frames: u64, stood: Duration) {
        self.longest.fetch_max(u64::try_from(stood.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.frames.fetch_add(frames, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts as JSON.
    pub(crate) fn shown(&self, seconds: f64) -> Value {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "packets": of(&self.frames),
            "connections": of(&self.connections),
            "logins": of(&self.logins),
            "turned_away": of(&self.turned_away),
            "longest_ms": of(&self.longest) as f64 / 1e3,
            "seconds": seconds,
        })
    }
}

/// Has `at_once` attackers make one connection after the other, of several kinds in turn, until they said so many frames.
pub(crate) fn all(
    frames: u64,
    at_once: u64,
    one: impl Fn(u64, u64, &mut Random, &Outcome) -> io::Result<()> + Sync,
) -> (Outcome, Duration) {
    let (outcome, begun) = (Outcome::default(), Instant::now());
    thread::scope(|scope| {
        for number in 0..at_once {
            let (outcome, one) = (&outcome, &one);
            scope.spawn(move || {
                let mut random = Random::of(number);
                let mut round = number;
                while outcome.frames.load(Ordering::Relaxed) < frames {
                    round += 1;
                    if one(number, round, &mut random, outcome).is_err() {
                        outcome.turned_away.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        }
    });
    (outcome, begun.elapsed())
}

/// Returns one of the corpus, changed in up to two places: bits, bytes, a number that is one more or less or extreme, cut,
/// or with another behind it.
pub(crate) fn mutated(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut message = corpus[random.below(corpus.len())].clone();
    for _ in 0..random.below(3) {
        let at = random.below(message.len());
        match random.below(8) {
            0 => message[0] = random.next() as u8,
            1 => {
                let value: u32 = [0, 1, 0x7fff_ffff, u32::MAX, 65536][random.below(5)];
                if let Some(four) = message.get_mut(at..at + 4) {
                    four.copy_from_slice(&value.to_be_bytes());
                }
            }
            2 => message.truncate(at.max(1)),
            3 => message.extend_from_slice(&corpus[random.below(corpus.len())]),
            4 => message[at] = message[at].wrapping_add(1),
            5 => message[at] = message[at].wrapping_sub(1),
            _ => message[at] ^= 1 << random.below(8),
        }
    }
    message
}

/// A server, and as whom its administrator's programs come to it.
pub(crate) struct Place {
    address: SocketAddr,
    host: String,
    tls: Arc<ClientConfig>,
    credentials: Credentials,
}

/// A node that joined and whose agent does not run: its place is taken by a peer of ours.
pub(crate) struct Node {
    id: String,
    key: Ed25519KeyPair,
}

impl Place {
    /// Reads a server's data directory.
    pub(crate) fn read(data_dir: &Path) -> Self {
        let endpoint = std::fs::read_to_string(data_dir.join("endpoint")).unwrap();
        let host = endpoint.trim().trim_start_matches("https://").trim_end_matches('/').to_owned();
        let mut roots = rustls::RootCertStore::empty();
        let authorities = CertificateDer::pem_file_iter(data_dir.join("ca.pem")).unwrap();
        roots.add_parsable_certificates(authorities.map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let tls = tls.unwrap().with_root_certificates(roots).with_no_client_auth();
        let file = std::fs::read_to_string(data_dir.join("admin.credentials")).unwrap();
        let value = |wanted: &str| {
            let mut pairs = file.lines().filter_map(|line| line.split_once('='));
            pairs.find(|(key, _)| key.trim() == wanted).unwrap().1.trim().to_owned()
        };
        let credentials = Credentials {
            access_key_id: value("aws_access_key_id"),
            secret: SecretKey::new(value("aws_secret_access_key")),
            session_token: None,
        };
        Self { address: host.parse().unwrap(), host, tls: Arc::new(tls), credentials }
    }

    fn signed(&self, service: &str, path: &str, headers: &[(&str, &str)], body: &[u8], post: bool) -> String {
        let own = [("host", self.host.as_str())];
        let all: Vec<(&str, &[u8])> =
            own.iter().chain(headers).map(|(name, value)| (*name, value.as_bytes())).collect();
        let method = if post { "POST" } else { "GET" };
        let to_sign = sigv4::Request { method, target: path, headers: &all, body };
        let signed = sigv4::sign(&to_sign, &self.credentials, "local-1", service, now()).unwrap();
        let lines = signed.into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).chain(lines).collect()
    }

    /// Calls an operation as the administrator.
    fn call(&self, operation: &str, input: &Value) -> io::Result<Value> {
        let body = input.to_string();
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", operation)];
        let headers = self.signed("ssm", "/", &headers, body.as_bytes(), true);
        let (host, length) = (&self.host, body.len());
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        let mut wire = Wire::dial(self)?;
        wire.0.write_all(head.as_bytes())?;
        wire.0.flush()?;
        let status = wire.head()?;
        let mut answer = Vec::new();
        // The answer is whole whether or not TLS says goodbye.
        let _ = wire.0.read_to_end(&mut answer);
        if !status.starts_with("HTTP/1.1 200") {
            return Err(io::Error::other(status));
        }
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }
}

impl Node {
    /// Reads the directory of an agent that joined.
    pub(crate) fn read(data_dir: &Path) -> Self {
        let file = std::fs::read(data_dir.join("agent.json")).unwrap();
        let identity: Value = serde_json::from_slice(&file).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(&std::fs::read(data_dir.join("node.key")).unwrap()).unwrap();
        Self { id: identity["nodeId"].as_str().unwrap().to_owned(), key }
    }
}

/// One connection to the port.
struct Wire(StreamOwned<ClientConnection, TcpStream>);

impl Wire {
    fn dial(place: &Place) -> io::Result<Self> {
        let socket = TcpStream::connect(place.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::from(place.address.ip());
        let session = ClientConnection::new(place.tls.clone(), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    fn binding(&self) -> [u8; 32] {
        self.0.conn.export_keying_material([0; 32], b"EXPORTER-munjigi-link-v1", None).unwrap()
    }

    /// Reads the head of an answer.
    fn head(&mut self) -> io::Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&head).into_owned())
    }

    /// Asks for an upgrade, which must be granted.
    fn upgrade(&mut self, head: &str) -> io::Result<()> {
        self.0.write_all(head.as_bytes())?;
        self.0.flush()?;
        let answer = self.head()?;
        if answer.starts_with("HTTP/1.1 101") { Ok(()) } else { Err(io::Error::other(answer)) }
    }

    /// Says all of it and nothing more; returns how long the server took to end the connection.
    fn run_to_the_end(mut self, bytes: &[u8]) -> Duration {
        // It may be ended in the middle: what was sent is on its way all the same.
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
        let _ = self.0.sock.shutdown(Shutdown::Write);
        let said = Instant::now();
        let mut rest = [0; 16 * 1024];
        while self.0.sock.read(&mut rest).is_ok_and(|count| count > 0) {}
        said.elapsed()
    }
}

fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Timestamp(i64::try_from(micros).unwrap())
}

/// Says a burst at the link's door: requests of nobody, and after the upgrade, as an agent or as a client, frames of WebSocket,
/// multiplexer and streams.
pub(crate) fn link(place: &Place, node: &Node, round: u64, random: &mut Random, outcome: &Outcome) -> io::Result<()> {
    let mut wire = Wire::dial(place)?;
    let binding = wire.binding();
    let kind = round % 4;
    if kind == 0 {
        let corpus = [request(place, Some(node), &binding).into_bytes(), request(place, None, &binding).into_bytes()];
        let bytes: Vec<u8> = (0..BURST).flat_map(|_| spoiled(random, &corpus)).collect();
        outcome.add(BURST, wire.run_to_the_end(&bytes));
        return Ok(());
    }
    let node = (kind < 3).then_some(node);
    wire.upgrade(&request(place, node, &binding))?;
    outcome.logins.fetch_add(1, Ordering::Relaxed);
    let (frames, muxed) = (frames(), multiplexed());
    let mut bytes = Vec::new();
    for number in 0..BURST {
        let message = match random.below(4) {
            0 => mutated(random, &muxed),
            // A stream of its own, so that what is in it reaches whoever reads streams.
            _ => mux(0, 1, u32::try_from(2 * number + 1).unwrap_or(1), &mutated(random, &frames)),
        };
        let mut packed = websocket(2, &message);
        if kind == 2 && random.below(BURST as usize) == 0 {
            packed = mutated(random, &[packed]);
        }
        bytes.extend(packed);
    }
    outcome.add(BURST, wire.run_to_the_end(&bytes));
    Ok(())
}

/// Says a burst at the data channel's door: open messages of nobody, and messages of who started the session.
pub(crate) fn data_channel(
    place: &Place,
    target: &str,
    round: u64,
    random: &mut Random,
    outcome: &Outcome,
) -> io::Result<()> {
    let path = |session: &str| format!("/v1/data-channel/{session}?role=publish_subscribe");
    if round.is_multiple_of(2) {
        let mut wire = Wire::dial(place)?;
        wire.upgrade(&plain(place, &path("admin-0123456789abcdef0")))?;
        let corpus = [open_message("AAEAAQ").into_bytes()];
        let kinds = [2, 9, 8, 10, 1];
        let bytes: Vec<u8> =
            (0..BURST).flat_map(|_| websocket(kinds[random.below(20).min(4)], &mutated(random, &corpus))).collect();
        outcome.add(BURST, wire.run_to_the_end(&bytes));
        return Ok(());
    }
    let started = place.call("AmazonSSM.StartSession", &json!({ "Target": target }))?;
    let field = |name: &str| started[name].as_str().unwrap_or_default().to_owned();
    let session = field("SessionId");
    let mut wire = Wire::dial(place)?;
    wire.upgrade(&plain(place, &path(&session)))?;
    wire.0.write_all(&websocket(1, open_message(&field("TokenValue")).as_bytes()))?;
    outcome.logins.fetch_add(1, Ordering::Relaxed);
    let bytes: Vec<u8> = (0..CHANNEL_BURST)
        .flat_map(|_| {
            let corpus = messages(random);
            let packed = websocket(2, &mutated(random, &corpus));
            if random.below(4 * CHANNEL_BURST as usize) == 0 { mutated(random, &[packed]) } else { packed }
        })
        .collect();
    outcome.add(CHANNEL_BURST, wire.run_to_the_end(&bytes));
    // It may have ended by what was said.
    let _ = place.call("AmazonSSM.TerminateSession", &json!({ "SessionId": session }));
    Ok(())
}

/// A request with a bit of its head changed, or its signature, or one header cut: most stay requests.
fn spoiled(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut request = corpus[random.below(corpus.len())].clone();
    let from = request.windows(9).position(|found| found == b"x-munjigi").unwrap_or_default();
    for _ in 0..=random.below(3) {
        let at = from + random.below(request.len() - from);
        // Letters and digits become others of their kind, which leaves the head a head.
        match random.below(8) {
            0 => request[at] = random.next() as u8,
            _ if request[at].is_ascii_alphanumeric() => request[at] = b"AZaz09"[random.below(6)],
            _ => {}
        }
    }
    request
}

/// Returns the head of an upgrade to a link, as a node or as the administrator's client.
fn request(place: &Place, node: Option<&Node>, binding: &[u8; 32]) -> String {
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        software: "hostile/1".to_owned(),
        role: if node.is_some() { Role::Agent } else { Role::Client }.into(),
        node: node.map(|node| NodeHello {
            node_id: node.id.clone(),
            epoch: vec![7; 32],
            hostname: "hostile".to_owned(),
            agent_version: "0.1.0".to_owned(),
            ..NodeHello::default()
        }),
    };
    let hello = hello.to_header().unwrap();
    let bound = URL_SAFE_NO_PAD.encode(binding);
    let proof = match node {
        Some(node) => {
            let signature = STANDARD.encode(node.key.sign(&node_link_message(binding, &hello)));
            format!(
                "{BINDING_HEADER}: {bound}\r\n{HELLO_HEADER}: {hello}\r\n\
                 authorization: Munjigi-Node Credential={}, Signature={signature}\r\n",
                node.id
            )
        }
        None => {
            let headers = [(BINDING_HEADER, bound.as_str()), (HELLO_HEADER, hello.as_str())];
            place.signed("munjigi", LINK_PATH, &headers, &[], false)
        }
    };
    upgrade(place, LINK_PATH, &proof)
}

fn plain(place: &Place, path: &str) -> String {
    upgrade(place, path, "")
}

fn upgrade(place: &Place, path: &str, more: &str) -> String {
    let (host, key) = (&place.host, STANDARD.encode([1; 16]));
    format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {key}\r\n{more}\r\n"
    )
}

/// Returns a WebSocket message of a client in one frame; its mask is zero (RFC 6455 section 5.2).
fn websocket(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Returns a frame of the multiplexer.
fn mux(kind: u8, flags: u16, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, kind];
    frame.extend(flags.to_be_bytes());
    frame.extend(stream.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// What a multiplexer says beside the streams of [`link`].
fn multiplexed() -> Vec<Vec<u8>> {
    let number = |kind: u8, flags: u16, stream: u32, value: u32| {
        let mut frame = mux(kind, flags, stream, &[]);
        frame[8..12].copy_from_slice(&value.to_be_bytes());
        frame
    };
    vec![
        mux(0, 0, 1, b"data"),
        mux(0, 1, 99, b"data"),
        mux(0, 4, 1, b""),
        mux(0, 8, 3, b""),
        number(1, 0, 1, u32::MAX),
        number(1, 1, 101, 1 << 20),
        number(2, 1, 0, 7),
        number(2, 2, 0, 7),
        number(3, 0, 0, 1),
    ]
}

/// What is said in streams.
fn frames() -> Vec<Vec<u8>> {
    let open = |wish: open::Wish| Frame::Open(Box::new(Open { wish: Some(wish) }));
    let (session, text) = ("admin-0123456789abcdef0".to_owned(), "x".to_owned());
    let frames = [
        open(open::Wish::Session(OpenSession { target: "no-such-node".to_owned(), ..OpenSession::default() })),
        open(open::Wish::Attach(AttachSession { session_id: session.clone(), ..AttachSession::default() })),
        open(open::Wish::Rejoin(Rejoin { session_id: session.clone(), ..Rejoin::default() })),
        open(open::Wish::Connect(Connect { session_id: session.clone(), ..Connect::default() })),
        open(open::Wish::Incoming(Incoming { listener: 1, ..Incoming::default() })),
        open(open::Wish::Ssh(SshWish { node: "no-such-node".to_owned() })),
        open(open::Wish::Logins(Logins::default())),
        Frame::Accepted(Box::new(Accepted { session_id: session, ..Accepted::default() })),
        Frame::Refused(Refused { code: text.clone(), message: text.clone(), ..Refused::default() }),
        Frame::Resolved(Resolved::default()),
        Frame::Input { offset: 0, data: Bytes::from_static(b"typed") },
        Frame::InputEnd { offset: 5 },
        Frame::Output { offset: 0, stream: OutputStream::Stdout, data: Bytes::from_static(b"printed") },
        Frame::InputAck(u64::MAX),
        Frame::OutputAck(1 << 40),
        Frame::InputWanted(0),
        Frame::Resize(TerminalSize { rows: 65535, columns: 65535, width_pixels: 0, height_pixels: 0 }),
        Frame::Signal(Signal::parse("INT").unwrap()),
        Frame::End(End { reason: EndReason::Exited.as_str().to_owned(), ..End::default() }),
        Frame::Detach,
    ];
    let encoded = |frame: &Frame| {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes).unwrap();
        bytes.to_vec()
    };
    frames.iter().map(encoded).collect()
}

fn open_message(token: &str) -> String {
    json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": "0b0e8ffa-0002-4000-8000-000000000002",
        "TokenValue": token,
        "ClientId": "0b0e8ffa-0001-4000-8000-000000000001",
        "ClientVersion": "1.2.650.0",
    })
    .to_string()
}

/// What AWS's clients say, with numbers that are near and far.
fn messages(random: &mut Random) -> Vec<Vec<u8>> {
    let sequence = [0, 1, 2, random.below(300) as i64, i64::MAX, -1][random.below(6)];
    let id = MessageId::parse("0b0e8ffa-0003-4000-8000-000000000003").unwrap();
    let message = |kind: MessageType, payload_type: PayloadType, payload: Bytes| {
        let message = AgentMessage { sequence, payload_type, ..AgentMessage::new(kind, id, 1, payload) };
        message.encode().unwrap().to_vec()
    };
    let data = |kind: PayloadType, payload: Bytes| message(MessageType::InputStreamData, kind, payload);
    let acknowledge = json(&Acknowledge::new(&MessageType::OutputStreamData, id, sequence));
    vec![
        data(PayloadType::Output, Bytes::from_static(b"true\n")),
        data(PayloadType::Size, json(&Size { cols: 80, rows: 24 })),
        data(PayloadType::Flag, Flag::DisconnectToPort.bytes()),
        data(
            PayloadType::HandshakeResponse,
            Bytes::from_static(b"{\"ClientVersion\":\"1\",\"ProcessedClientActions\":[]}"),
        ),
        data(PayloadType::from_number(random.below(20) as u32), Bytes::from_static(b"{}")),
        message(MessageType::Acknowledge, PayloadType::None, acknowledge),
        message(MessageType::ChannelClosed, PayloadType::None, Bytes::from_static(b"{}")),
        message(MessageType::PausePublication, PayloadType::None, Bytes::from_static(b"{}")),
        message(MessageType::StartPublication, PayloadType::None, Bytes::from_static(b"{}")),
        message(MessageType::OutputStreamData, PayloadType::Output, Bytes::from_static(b"x")),
    ]
}
