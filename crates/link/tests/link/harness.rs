//! A server as in production (hyper, TLS, upgrade by hand) and the helpers that tests share. Everything stops on drop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use munjigi_core::wire::hello::{Hello, Role, ServerHello};
use munjigi_link::accept::{self, Upgrade};
use munjigi_link::dial::{self, DialOptions, Dialed, ProxyChoice, SignError, SignedHeaders, UpgradeToSign};
use munjigi_link::tls::{self, OldestTls, PinnedRoots};
use munjigi_link::{Connection, Limits, Stream, dial::Timeouts};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

/// Nothing on loopback takes longer; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, format!("test root {}", rand_name()));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn roots(&self) -> PinnedRoots {
        PinnedRoots::from_pem(self.pem.as_bytes()).unwrap()
    }

    /// Issues a server certificate; `change` may spoil it.
    pub(crate) fn issue(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }
}

fn rand_name() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What the test server does with an upgrade request that is in order.
#[derive(Clone)]
pub(crate) enum Verdict {
    Accept,
    Refuse(u16, &'static str),
}

/// What the server saw of a request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) hello: Hello,
    /// The exporter value on the server's end.
    pub(crate) binding: [u8; 32],
    /// Whether the request's binding header equals it.
    pub(crate) bound: bool,
    /// The `authorization` header.
    pub(crate) authorization: String,
}

/// A server that accepts links on loopback.
pub(crate) struct TestServer {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    /// Accepted links, in the order of their coming.
    pub(crate) links: mpsc::Receiver<Connection>,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(Verdict::Accept, quick_limits()).await
    }

    pub(crate) async fn start_with(verdict: Verdict, limits: Limits) -> Self {
        let authority = Authority::new();
        let (chain, key) = authority.issue(&["localhost", "127.0.0.1"], |_| ());
        let config = tls::server_config(chain, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (links_tx, links) = mpsc::channel(64);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(listener, TlsAcceptor::from(config), verdict, limits, links_tx, seen.clone()));
        Self { authority, address, links, seen, task }
    }

    pub(crate) fn options(&self) -> DialOptions {
        options(self.address, &self.authority)
    }

    /// Dials, and returns both ends.
    pub(crate) async fn connect(&mut self) -> (Connection, Connection) {
        let mut dialed = dial_client(&self.options()).await.unwrap();
        dialed.established().await.unwrap();
        let there = within(self.links.recv()).await.unwrap();
        (dialed.connection, there)
    }
}

pub(crate) fn options(address: SocketAddr, authority: &Authority) -> DialOptions {
    DialOptions {
        server: Url::parse(&format!("https://localhost:{}", address.port())).unwrap(),
        roots: authority.roots(),
        oldest_tls: OldestTls::Tls13,
        proxy: ProxyChoice::None,
        timeouts: Timeouts::default(),
        limits: quick_limits(),
    }
}

pub(crate) fn quick_limits() -> Limits {
    Limits { max_streams: 64, accept_backlog: 64, ..Limits::client() }
}

pub(crate) fn client_hello() -> Hello {
    Hello { version_min: 1, version_max: 1, software: "test/1".into(), role: Role::Client.into(), node: None }
}

pub(crate) async fn sign(_: UpgradeToSign) -> Result<SignedHeaders, SignError> {
    Ok(vec![("authorization".into(), "test".into())])
}

pub(crate) async fn dial_client(options: &DialOptions) -> Result<Dialed, munjigi_link::DialError> {
    within(dial::dial(options, &client_hello(), sign)).await
}

/// Waits for what must come, with a limit.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it should have happened by now")
}

pub(crate) async fn send(stream: &mut Stream, bytes: &[u8]) {
    within(stream.write_all(bytes)).await.unwrap();
    within(stream.flush()).await.unwrap();
}

pub(crate) async fn receive(stream: &mut Stream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    within(stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

pub(crate) fn server_hello(version: u32) -> ServerHello {
    ServerHello {
        version,
        software: "test-server/1".into(),
        server_time_micros: 1,
        ping_interval_secs: 10,
        trust_bundle: vec![1, 2, 3],
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    verdict: Verdict,
    limits: Limits,
    links: mpsc::Sender<Connection>,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        dial::tune(&tcp).unwrap();
        let (acceptor, verdict, limits, links, seen) =
            (acceptor.clone(), verdict.clone(), limits.clone(), links.clone(), seen.clone());
        tokio::spawn(async move {
            let Ok(mut tls) = acceptor.accept(tcp).await else { return };
            tls::bound_buffer(tls.get_mut().1);
            let binding = tls::binding_of(tls.get_ref().1);
            let service = service_fn(move |request: Request<Incoming>| {
                let (verdict, limits, links, seen) = (verdict.clone(), limits.clone(), links.clone(), seen.clone());
                let binding = binding.clone();
                async move { Ok::<_, Infallible>(answer(request, binding.unwrap(), &verdict, limits, links, &seen)) }
            });
            let http = http1::Builder::new().serve_connection(TokioIo::new(tls), service).with_upgrades();
            // A refused or broken connection ends with an error here; the test looks at the other end.
            let _ended = http.await;
        });
    }
}

fn answer(
    mut request: Request<Incoming>,
    binding: [u8; 32],
    verdict: &Verdict,
    limits: Limits,
    links: mpsc::Sender<Connection>,
    seen: &Mutex<Vec<Seen>>,
) -> Response<Full<Bytes>> {
    let refuse = |status: u16, body: String| {
        Response::builder().status(status).header("connection", "close").body(Full::new(Bytes::from(body))).unwrap()
    };
    let pending = match Upgrade::parse(&request) {
        Ok(pending) => pending,
        Err(error) => {
            let body = format!("{{\"__type\":\"{}\",\"message\":{:?}}}", error.code(), error.to_string());
            return refuse(error.status().as_u16(), body);
        }
    };
    seen.lock().unwrap().push(Seen {
        hello: pending.hello().clone(),
        binding,
        bound: pending.is_bound_to(&binding),
        authorization: request
            .headers()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
    });
    match verdict {
        Verdict::Refuse(status, body) => refuse(*status, (*body).to_owned()),
        Verdict::Accept if !pending.is_bound_to(&binding) => {
            refuse(403, r#"{"__type":"AccessDenied","message":"the request was made for another connection"}"#.into())
        }
        Verdict::Accept => {
            let response = pending.response(&server_hello(pending.version())).unwrap();
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(upgraded) = upgraded.await else { return };
                let parts = upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>().unwrap();
                let link = accept::run(parts.io.into_inner(), parts.read_buf, limits);
                // The test may have ended.
                let _gone = links.send(link).await;
            });
            response.map(|()| Full::new(Bytes::new()))
        }
    }
}
