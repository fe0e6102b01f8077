//! The dialling side: the one way by which anything of ours reaches a server.
//!
//! TCP, an HTTP proxy where there is one, TLS 1.3 to the pinned roots, and for a link the upgrade. The upgrade's answer
//! is not waited for: a cold link costs TCP 1, TLS 1 and answer 1, three round trips (G3). Redirects are not followed.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use munjigi_core::wire::hello::{Hello, ServerHello};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Url;

use crate::answer::accept_of;
use crate::carrier::{Awaited, Carrier};
use crate::connection::{Connection, Limits, Opener};
use crate::error::DialError;
use crate::lane::LANE_HEADER;
use crate::proxy::Proxy;
pub use crate::proxy::ProxyChoice;
use crate::tls::{self, OldestTls, PinnedRoots};
use crate::{BINDING_HEADER, HELLO_HEADER, LINK_PATH, MAX_HEAD_BYTES, driver};

/// The kernel gives up a connection whose bytes stay unacknowledged for so long; pings usually notice earlier.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The kernel takes more bytes only while fewer than this are unsent: what lies there is ahead of a keystroke.
const TCP_UNSENT_BYTES: u32 = 64 * 1024;

/// Where and how to dial.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// `https://host[:port]`, nothing more.
    pub server: Url,
    /// The roots that the server's certificate must lead to.
    pub roots: PinnedRoots,
    /// The oldest TLS that may be used.
    pub oldest_tls: OldestTls,
    /// The way through a proxy.
    pub proxy: ProxyChoice,
    /// How long each step may take.
    pub timeouts: Timeouts,
    /// Bounds of the link.
    pub limits: Limits,
}

/// How long each step of dialling may take.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Resolving the name.
    pub resolve: Duration,
    /// TCP, for each of the name's addresses.
    pub connect: Duration,
    /// The proxy's answer.
    pub proxy: Duration,
    /// The TLS handshake (T-91).
    pub tls: Duration,
    /// Making the signature, which another process may do.
    pub sign: Duration,
    /// The server's answer to the upgrade.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let ten = Duration::from_secs(10);
        Self { resolve: ten, connect: ten, proxy: ten, tls: ten, sign: ten, answer: Duration::from_secs(15) }
    }
}

impl DialOptions {
    /// Dials with the environment's proxy and the usual limits of a client.
    pub fn new(server: Url, roots: PinnedRoots) -> Self {
        Self {
            server,
            roots,
            oldest_tls: OldestTls::default(),
            proxy: ProxyChoice::default(),
            timeouts: Timeouts::default(),
            limits: Limits::client(),
        }
    }
}

/// What the signature of an upgrade request covers. The signer adds headers, this crate knows no keys.
#[derive(Debug, Clone)]
pub struct UpgradeToSign {
    /// The method, `GET`.
    pub method: &'static str,
    /// The path, [`LINK_PATH`].
    pub path: &'static str,
    /// The `Host` header.
    pub host: String,
    /// The TLS session's value, to be covered so that the signature is good on this session only.
    pub binding: [u8; 32],
    /// Value of [`BINDING_HEADER`]: `binding` in base64url.
    pub binding_header: String,
    /// Value of [`HELLO_HEADER`].
    pub hello: String,
    /// Value of [`LANE_HEADER`](crate::lane::LANE_HEADER), if a lane is dialled.
    pub lane: Option<String>,
}

/// The headers that carry the signature.
pub type SignedHeaders = Vec<(String, String)>;
/// Why a signature could not be made.
pub type SignError = Box<dyn std::error::Error + Send + Sync>;

/// A link whose request is on its way.
#[derive(Debug)]
pub struct Dialed {
    /// The link; streams may be opened and written at once. If the server refuses, every operation on them fails
    /// with its words.
    pub connection: Connection,
    answer: Answer,
    opener: Opener,
}

#[derive(Debug)]
enum Answer {
    Awaited(oneshot::Receiver<ServerHello>),
    Come(ServerHello),
    /// The link ended first; its reason says why.
    Lost,
}

impl Dialed {
    /// Waits for the server's answer, at most [`Timeouts::answer`].
    pub async fn established(&mut self) -> Result<ServerHello, DialError> {
        if let Answer::Awaited(answer) = &mut self.answer {
            self.answer = answer.await.map_or(Answer::Lost, Answer::Come);
        }
        match &self.answer {
            Answer::Come(hello) => Ok(hello.clone()),
            Answer::Awaited(_) | Answer::Lost => Err(self.opener.closed().await.into()),
        }
    }
}

/// Dials a link: says `hello`, signed by `sign`, and returns without waiting for the answer.
pub async fn dial<F, Fut>(options: &DialOptions, hello: &Hello, sign: F) -> Result<Dialed, DialError>
where
    F: FnOnce(UpgradeToSign) -> Fut,
    Fut: Future<Output = Result<SignedHeaders, SignError>>,
{
    let hello = hello.to_header().map_err(|error| DialError::BadRequest(error.to_string()))?;
    let target = Target::of(&options.server)?;
    let mut io = tls_to(&target, options).await?;
    let failed = |why: String| DialError::Tls { peer: target.name(), why };
    let (_, session) = io.get_mut();
    tls::bound_buffer(session);
    let binding = tls::binding_of_client(session).map_err(|error| failed(error.to_string()))?;
    let to_sign = UpgradeToSign {
        method: "GET",
        path: LINK_PATH,
        host: target.host_header(),
        binding,
        binding_header: URL_SAFE_NO_PAD.encode(binding),
        hello,
        lane: None,
    };
    let signed = limited("signing the request to", &target.name(), options.timeouts.sign, sign(to_sign.clone()))
        .await?
        .map_err(|error| DialError::Sign(Arc::from(error)))?;
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).map_err(|_| failed("the system gave no random bytes".to_owned()))?;
    let key = STANDARD.encode(nonce);
    let upgrade = format!("upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n");
    let request = to_sign.head(&upgrade, &signed)?;
    let send = async {
        io.write_all(request.as_bytes()).await?;
        io.flush().await
    };
    limited("sending the request to", &target.name(), options.timeouts.answer, send)
        .await?
        .map_err(|error| DialError::Unreachable { peer: target.name(), why: error.to_string() })?;
    Ok(run(io, accept_of(key.as_bytes()), options))
}

/// Opens a TLS connection for plain HTTPS calls: the same roots, proxy and time limits as a link.
pub async fn tls_connect(options: &DialOptions) -> Result<TlsStream<TcpStream>, DialError> {
    tls_to(&Target::of(&options.server)?, options).await
}

/// Sets what every TCP connection of ours has: no Nagle, bounded silence, little unsent in the kernel. The server
/// calls it on accepted connections.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(TCP_UNSENT_BYTES)
}

fn run(io: TlsStream<TcpStream>, accept: String, options: &DialOptions) -> Dialed {
    let limits = options.limits.clone();
    let (connection, ends, shared) = Connection::new(&limits);
    let (tell, answer) = oneshot::channel();
    let carrier = {
        let (limits, shared) = (limits.clone(), Arc::clone(&shared));
        let awaited = Awaited { accept, limit: options.timeouts.answer, tell };
        async move { Carrier::dialled(io, awaited, &limits, shared).await }
    };
    driver::spawn(carrier, yamux::Mode::Client, limits, ends, shared);
    let opener = connection.opener();
    Dialed { connection, answer: Answer::Awaited(answer), opener }
}

impl UpgradeToSign {
    /// Makes the request, complete. `upgrade` holds the header lines that say what to upgrade to.
    pub(crate) fn head(&self, upgrade: &str, signed: &SignedHeaders) -> Result<String, DialError> {
        let Self { method, path, host, binding_header, hello, .. } = self;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\n{upgrade}\
             {HELLO_HEADER}: {hello}\r\n{BINDING_HEADER}: {binding_header}\r\n"
        );
        if let Some(token) = &self.lane {
            head.push_str(&format!("{LANE_HEADER}: {token}\r\n"));
        }
        for (name, value) in signed {
            // Through the checked types, so that no value can add lines of its own.
            let bad =
                |_| DialError::BadRequest(format!("the signer gave an impossible header `{}`", name.escape_debug()));
            let checked = HeaderName::try_from(name.as_str()).map_err(|error| bad(error.to_string()))?;
            HeaderValue::try_from(value.as_str()).map_err(|error| bad(error.to_string()))?;
            head.push_str(&format!("{checked}: {value}\r\n"));
        }
        head.push_str("\r\n");
        if head.len() > MAX_HEAD_BYTES {
            return Err(DialError::BadRequest(format!(
                "its head has {} bytes, more than {MAX_HEAD_BYTES}",
                head.len()
            )));
        }
        Ok(head)
    }
}

/// A server's name and port, taken out of its URL.
pub(crate) struct Target {
    /// As in the URL: an IPv6 address stands in brackets.
    host: String,
    port: u16,
    tls_name: ServerName<'static>,
}

impl Target {
    pub(crate) fn of(url: &Url) -> Result<Self, DialError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let bad = |why| DialError::BadUrl { url: format!("{}://{host}", url.scheme()), why };
        if url.scheme() != "https" {
            return Err(bad("it does not begin with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("credentials do not belong into it"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(bad("it has more than host and port"));
        }
        let port = url.port_or_known_default().ok_or_else(|| bad("it names no port"))?;
        let plain = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls_name = ServerName::try_from(plain).map_err(|_| bad("its host is not a name or address"))?;
        Ok(Self { host, port, tls_name })
    }

    pub(crate) fn tls_name(&self) -> ServerName<'static> {
        self.tls_name.clone()
    }

    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(crate) fn host_header(&self) -> String {
        if self.port == 443 { self.host.clone() } else { self.name() }
    }
}

/// Connects to the server, through a proxy if there is one.
pub(crate) async fn reach(target: &Target, options: &DialOptions) -> Result<TcpStream, DialError> {
    let limits = &options.timeouts;
    let proxy = Proxy::choose(&options.proxy, &target.host, target.port, |name| std::env::var(name).ok())?;
    match proxy {
        None => tcp_to(&target.host, target.port, limits).await,
        Some(proxy) => {
            let mut tcp = tcp_to(&proxy.host, proxy.port, limits).await?;
            let server = target.name();
            limited("asking the proxy", &proxy.name(), limits.proxy, proxy.connect(&mut tcp, &server)).await??;
            Ok(tcp)
        }
    }
}

pub(crate) async fn tls_to(target: &Target, options: &DialOptions) -> Result<TlsStream<TcpStream>, DialError> {
    let tcp = reach(target, options).await?;
    let config = tls::client_config(&options.roots, options.oldest_tls)
        .map_err(|error| DialError::Tls { peer: target.name(), why: error.to_string() })?;
    let handshake = TlsConnector::from(config).connect(target.tls_name.clone(), tcp);
    limited("the TLS handshake with", &target.name(), options.timeouts.tls, handshake)
        .await?
        .map_err(|error| handshake_error(&error, target.name()))
}

/// Connects to the first address that answers.
async fn tcp_to(host: &str, port: u16, limits: &Timeouts) -> Result<TcpStream, DialError> {
    let peer = format!("{host}:{port}");
    let plain = host.trim_start_matches('[').trim_end_matches(']');
    let unresolved = |why: String| DialError::NameNotResolved { host: host.to_owned(), why };
    let addresses: Vec<SocketAddr> =
        limited("resolving the name of", &peer, limits.resolve, tokio::net::lookup_host((plain, port)))
            .await?
            .map_err(|error| unresolved(error.to_string()))?
            .collect();
    let mut last = unresolved("it has no address".to_owned());
    for address in addresses {
        match limited("connecting to", &peer, limits.connect, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                tune(&tcp).map_err(|error| DialError::Unreachable { peer, why: error.to_string() })?;
                return Ok(tcp);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = DialError::ConnectionRefused { peer: peer.clone() };
            }
            Ok(Err(error)) => last = DialError::Unreachable { peer: peer.clone(), why: error.to_string() },
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(crate) async fn limited<T>(
    step: &'static str,
    peer: &str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, DialError> {
    timeout(limit, work).await.map_err(|_| DialError::TimedOut { step, peer: peer.to_owned(), limit })
}

pub(crate) fn handshake_error(error: &io::Error, peer: String) -> DialError {
    use rustls::{AlertDescription, CertificateError as Certificate, Error, PeerIncompatible};

    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        let why = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => error.to_string(),
        };
        return DialError::Tls { peer, why };
    };
    match inner {
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => DialError::NotTls { peer },
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13 | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => DialError::TlsVersion { peer },
        Error::InvalidCertificate(certificate) => match certificate {
            Certificate::Expired | Certificate::ExpiredContext { .. } => DialError::CertificateExpired { peer },
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                DialError::CertificateNotYetValid { peer }
            }
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                DialError::CertificateWrongName { peer }
            }
            Certificate::UnknownIssuer | Certificate::BadSignature => DialError::CertificateNotTrusted { peer },
            other => DialError::Tls { peer, why: format!("its certificate is unusable: {other}") },
        },
        other => DialError::Tls { peer, why: other.to_string() },
    }
}
