//! A stand-in for the server: TLS, the link's upgrade with the node's signature verified, sessions driven by hand.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use munjigi_core::grant::{Action, Grant};
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::OutputStream;
use munjigi_core::time::Timestamp;
use munjigi_core::trust::{KeyId, KeyPurpose, TrustBundle, TrustedKey};
use munjigi_core::wire::enrol::register_message;
use munjigi_core::wire::hello::{NodeHello, ServerHello, node_link_message};
use munjigi_core::wire::message::{Accepted, End, Exit, Open, Pty, Refused, Rejoin, Rejoined, StartOnNode, open};
use munjigi_core::wire::{Frame, FrameKind, FrameSet};
use munjigi_link::accept::Upgrade;
use munjigi_link::connection::{Connection, Limits};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{HELLO_HEADER, Stream, tls};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A link that an agent made.
pub(crate) struct Linked {
    pub(crate) hello: NodeHello,
    pub(crate) connection: Connection,
}

/// What the server knows of nodes: filled by the test or by `RegisterNode`.
#[derive(Default)]
pub(crate) struct Nodes {
    pub(crate) keys: Vec<(String, Vec<u8>)>,
    pub(crate) calls: Vec<(String, serde_json::Value)>,
}

/// The stand-in.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca: String,
    pub(crate) root: Ed25519KeyPair,
    pub(crate) grant_key: Ed25519KeyPair,
    pub(crate) nodes: Arc<Mutex<Nodes>>,
    links: mpsc::Receiver<Linked>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let (ca, config) = certificates();
        let root = Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap();
        let grant_key = Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap();
        let nodes = Arc::new(Mutex::new(Nodes::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (links_tx, links) = mpsc::channel(8);
        let known = Arc::clone(&nodes);
        let answer = Arc::new(register_answer(&root, &grant_key));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (config, known, links) = (config.clone(), Arc::clone(&known), links_tx.clone());
                tokio::spawn(serve(socket, config, known, links, Arc::clone(&answer)));
            }
        });
        Self { address, ca, root, grant_key, nodes, links, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.address.port())
    }

    pub(crate) fn bundle(&self) -> Vec<u8> {
        bundle(&self.grant_key).sign(&self.root)
    }

    /// Waits for the next link.
    pub(crate) async fn linked(&mut self) -> Linked {
        self.links.recv().await.unwrap()
    }

    /// Builds a good grant.
    pub(crate) fn grant(&self, link: &Linked, user: &str, action: Action, pty: bool) -> Grant {
        let mut id = [0; 16];
        aws_lc_rs::rand::fill(&mut id).unwrap();
        let mut random = [0; 9];
        aws_lc_rs::rand::fill(&mut random).unwrap();
        let now = now();
        Grant {
            id,
            session: SessionId::new("tester", random),
            node: NodeId::parse(&link.hello.node_id).unwrap(),
            epoch: link.hello.epoch.clone().try_into().unwrap(),
            subject: "arn:aws:iam::123456789012:user/tester".into(),
            client: [0; 32],
            os_user: user.into(),
            action,
            variables: Vec::new(),
            pty,
            strict_recording: false,
            privileged: true,
            policy_version: 1,
            not_before: now,
            expires: now.plus(Duration::from_secs(30)),
        }
    }

    pub(crate) fn sign(&self, grant: &Grant) -> Vec<u8> {
        grant.sign(KeyId::of(self.grant_key.public_key().as_ref()), &self.grant_key)
    }

    /// Starts a command without a terminal.
    pub(crate) async fn command(&self, link: &Linked, user: &str, command: &[&str]) -> Session {
        let action = Action::Command(command.iter().map(|word| (*word).to_owned()).collect());
        let grant = self.grant(link, user, action, false);
        Session::start(link, self.sign(&grant), None).await.unwrap()
    }

    /// Starts something on a terminal of 40 rows and 132 columns.
    pub(crate) async fn on_terminal(&self, link: &Linked, user: &str, action: Action) -> Session {
        let grant = self.grant(link, user, action, true);
        let pty = Pty { term: "xterm-256color".into(), rows: 40, columns: 132, ..Pty::default() };
        Session::start(link, self.sign(&grant), Some(pty)).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the time that grants and signatures name.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp(i64::try_from(since.as_micros()).unwrap())
}

fn bundle(grant_key: &Ed25519KeyPair) -> TrustBundle {
    let public: [u8; 32] = grant_key.public_key().as_ref().try_into().unwrap();
    let key = TrustedKey {
        id: KeyId::of(&public),
        purpose: KeyPurpose::Grant,
        public,
        not_before: Timestamp(0),
        not_after: Timestamp(i64::MAX),
    };
    TrustBundle { version: 1, keys: vec![key] }
}

fn register_answer(root: &Ed25519KeyPair, grant_key: &Ed25519KeyPair) -> serde_json::Value {
    serde_json::json!({
        "RootPublicKey": STANDARD.encode(root.public_key().as_ref()),
        "TrustBundle": STANDARD.encode(bundle(grant_key).sign(root)),
        "Region": "local-1",
        "Account": "123456789012",
    })
}

fn certificates() -> (String, Arc<rustls::ServerConfig>) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::from_params(&parameters, &ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (ca.pem(), tls::server_config(vec![leaf.der().clone()], private).unwrap())
}

async fn serve(
    socket: TcpStream,
    config: Arc<rustls::ServerConfig>,
    nodes: Arc<Mutex<Nodes>>,
    links: mpsc::Sender<Linked>,
    answer: Arc<serde_json::Value>,
) {
    socket.set_nodelay(true).unwrap();
    let Ok(stream) = TlsAcceptor::from(config).accept(socket).await else { return };
    let binding = tls::binding_of(stream.get_ref().1).unwrap();
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (nodes, links, answer) = (Arc::clone(&nodes), links.clone(), Arc::clone(&answer));
        async move {
            Ok::<_, Infallible>(if request.method() == http::Method::POST {
                call(request, &nodes, &answer).await
            } else {
                upgrade(request, &binding, &nodes, links)
            })
        }
    });
    drop(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await,
    );
}

async fn call(
    request: Request<hyper::body::Incoming>,
    nodes: &Mutex<Nodes>,
    answer: &serde_json::Value,
) -> Response<Full<Bytes>> {
    let operation = request.headers()["x-amz-target"].to_str().unwrap().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let input: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let mut output = serde_json::json!({});
    let mut nodes = nodes.lock().unwrap();
    if operation == "Munjigi.RegisterNode" {
        if input["ActivationCode"] != "the-code" {
            let text = r#"{"__type":"InvalidActivation","message":"the activation is used up"}"#;
            return Response::builder().status(StatusCode::BAD_REQUEST).body(text.into()).unwrap();
        }
        let key = STANDARD.decode(input["PublicKey"].as_str().unwrap()).unwrap();
        let message = register_message(input["ActivationId"].as_str().unwrap());
        let signature = STANDARD.decode(input["PublicKeySignature"].as_str().unwrap()).unwrap();
        UnparsedPublicKey::new(&ED25519, &key).verify(&message, &signature).unwrap();
        let node = NodeId::from_public_key(&key).to_string();
        output = answer.clone();
        output["NodeId"] = node.clone().into();
        output["Name"] = input.get("Name").unwrap_or(&input["Hostname"]).clone();
        nodes.keys.push((node, key));
    }
    nodes.calls.push((operation, input));
    Response::new(output.to_string().into())
}

fn upgrade(
    mut request: Request<hyper::body::Incoming>,
    binding: &[u8; 32],
    nodes: &Mutex<Nodes>,
    links: mpsc::Sender<Linked>,
) -> Response<Full<Bytes>> {
    let pending = Upgrade::parse(&request).unwrap();
    assert!(pending.is_bound_to(binding));
    let hello = pending.hello().node.clone().unwrap();
    let header = request.headers()[HELLO_HEADER].to_str().unwrap();
    let authorization = request.headers()["authorization"].to_str().unwrap();
    let signature = authorization
        .strip_prefix(&format!("Munjigi-Node Credential={}, Signature=", hello.node_id))
        .expect("the node names itself");
    let key = nodes.lock().unwrap().keys.iter().find(|(node, _)| *node == hello.node_id).cloned();
    let Some((_, key)) = key else {
        let text = r#"{"__type":"UnknownNode","message":"this node is not registered here"}"#;
        return Response::builder().status(StatusCode::FORBIDDEN).body(text.into()).unwrap();
    };
    UnparsedPublicKey::new(&ED25519, key)
        .verify(&node_link_message(binding, header), &STANDARD.decode(signature).unwrap())
        .expect("the node's signature is good");
    let answer = ServerHello {
        version: pending.version(),
        software: "stand-in".into(),
        server_time_micros: now().0,
        ping_interval_secs: 10,
        trust_bundle: Vec::new(),
    };
    let response = pending.response(&answer).unwrap();
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().unwrap();
        let connection = munjigi_link::accept::run(parts.io.into_inner(), parts.read_buf, Limits::agent());
        drop(links.send(Linked { hello, connection }).await);
    });
    response.map(|()| Full::default())
}

/// One session as the server has it.
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) accepted: Accepted,
    pub(crate) reader: FrameReader<ReadHalf<Stream>>,
    pub(crate) writer: FrameWriter<WriteHalf<Stream>>,
    /// Everything printed so far, by stream.
    pub(crate) output: Vec<u8>,
    pub(crate) errors: Vec<u8>,
    /// Offset behind the last output byte.
    pub(crate) received: u64,
    /// Offset behind the last input byte sent.
    pub(crate) sent: u64,
    /// The agent's last acknowledgement of input.
    pub(crate) input_acked: u64,
    pub(crate) exit: Option<Exit>,
}

impl Session {
    pub(crate) async fn start(link: &Linked, grant: Vec<u8>, pty: Option<Pty>) -> Result<Self, Refused> {
        let environment =
            [("LANG", "ko_KR.UTF-8"), ("LC_ALL", "C.UTF-8"), ("LD_PRELOAD", "/evil.so"), ("PATH", "/evil")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let start = StartOnNode { grant: grant.into(), pty, environment };
        let (read, write) = tokio::io::split(link.connection.opener().open().await.unwrap());
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let open = Open { wish: Some(open::Wish::Start(start)) };
        writer.send(&Frame::Open(Box::new(open))).await.unwrap();
        match reader.read(FrameSet::ANSWER).await.unwrap().unwrap() {
            Frame::Accepted(accepted) => Ok(Self {
                id: accepted.session_id.clone(),
                accepted: *accepted,
                reader,
                writer,
                output: Vec::new(),
                errors: Vec::new(),
                received: 0,
                sent: 0,
                input_acked: 0,
                exit: None,
            }),
            Frame::Refused(refused) => Err(refused),
            other => panic!("{other:?}"),
        }
    }

    /// Takes the session back on a new link.
    pub(crate) async fn rejoin(&mut self, link: &mut Linked) {
        let stream = link.connection.accept().await.unwrap();
        let (read, write) = tokio::io::split(stream);
        (self.reader, self.writer) = (FrameReader::new(read), FrameWriter::new(write));
        let Some(Frame::Open(open)) = self.reader.read(FrameSet::OPENING).await.unwrap() else { panic!() };
        let Some(open::Wish::Rejoin(Rejoin { session_id, input_received, output_from, output_end })) = open.wish else {
            panic!()
        };
        assert_eq!(session_id, self.id);
        assert!(output_from <= self.received && self.received <= output_end && input_received <= self.sent);
        self.input_acked = input_received;
        self.writer.send(&Frame::Rejoined(Rejoined { output_stored: self.received })).await.unwrap();
    }

    pub(crate) async fn type_in(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(32 * 1024) {
            let frame = Frame::Input { offset: self.sent, data: Bytes::copy_from_slice(part) };
            self.writer.send(&frame).await.unwrap();
            self.sent += part.len() as u64;
        }
    }

    /// Sends again what the agent has not taken: the key at each offset is known.
    pub(crate) async fn resend(&mut self, key: impl Fn(u64) -> u8) {
        let data: Vec<u8> = (self.input_acked..self.sent).map(key).collect();
        if !data.is_empty() {
            let frame = Frame::Input { offset: self.input_acked, data: data.into() };
            self.writer.send(&frame).await.unwrap();
        }
    }

    pub(crate) async fn end_input(&mut self) {
        self.writer.send(&Frame::InputEnd { offset: self.sent }).await.unwrap();
    }

    /// Reads one frame and acknowledges what it brought. `None` when the stream is over.
    pub(crate) async fn step(&mut self) -> Option<FrameKind> {
        let frame = self.read().await?;
        if matches!(frame, FrameKind::Output) {
            self.writer.send(&Frame::OutputAck(self.received)).await.ok()?;
        }
        Some(frame)
    }

    /// Reads one frame.
    pub(crate) async fn read(&mut self) -> Option<FrameKind> {
        let frame = self.reader.read(FrameSet::FROM_AGENT).await.ok()??;
        let kind = frame.kind();
        match frame {
            Frame::Output { offset, stream, data } => {
                assert_eq!(offset, self.received, "output without gap or repeat");
                self.received += data.len() as u64;
                let to = if stream == OutputStream::Stdout { &mut self.output } else { &mut self.errors };
                to.extend_from_slice(&data);
            }
            Frame::InputAck(offset) => {
                assert!(offset >= self.input_acked && offset <= self.sent, "{offset}");
                self.input_acked = offset;
            }
            Frame::Exit(exit) => {
                assert_eq!(exit.output_end, self.received, "the exit follows all output");
                self.exit = Some(exit);
            }
            other => panic!("{other:?}"),
        }
        Some(kind)
    }

    /// Reads until the output holds the text.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.text().contains(text) {
            let stepped = self.step().await.is_some();
            let over = !stepped || (self.exit.is_some() && !self.text().contains(text));
            assert!(!over, "no {text:?} in: {}", self.text());
        }
    }

    /// Reads to the program's end and lets the agent forget the session.
    pub(crate) async fn finish(&mut self) -> Exit {
        while self.exit.is_none() {
            assert!(self.step().await.is_some(), "the stream ended; so far: {:?}", self.text());
        }
        self.end("exited").await;
        while self.step().await.is_some() {}
        self.exit.clone().unwrap()
    }

    /// Says the session's end to the agent.
    pub(crate) async fn end(&mut self, reason: &str) {
        let end = End { reason: reason.into(), ..End::default() };
        self.writer.send(&Frame::End(end)).await.unwrap();
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}
