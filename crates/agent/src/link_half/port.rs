//! Connections of port sessions: resolve, check, connect, and carry the bytes (T-58).
//!
//! The server opens a stream per connection and names a session that the privileged half admitted; where it goes
//! stands in that session's grant, not in the wish. Bytes go between stream and socket without frames: each direction
//! has its own end, and a slow reader on either side stops the writer on the other.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::destination::Destination;
use munjigi_core::id::SessionId;
use munjigi_core::wire::Frame;
use munjigi_core::wire::message::Accepted;
use munjigi_link::Stream;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::spawn_client::StartRefused;
use crate::destinations::Destinations;
use crate::link_half::session::Attached;

/// Most connections of all port sessions at once. A link has 512 streams each way; the rest is left to sessions.
const MAX_CONNECTIONS: usize = 384;
/// Most connections of one session at once.
const MAX_OF_SESSION: usize = 128;
/// Most names looked up at once: each takes a thread for as long as the resolver is silent.
const MAX_LOOKUPS: usize = 16;
/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 16;
/// How long looking up a name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// How long one address may take to answer when others are left.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// How long connecting may take in all, without the lookup.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long the answer may take to be sent.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Bytes read at once in each direction: two of the link's data frames.
const BUFFER: usize = 32 * 1024;

/// What a port session holds for its connections.
#[derive(Debug)]
pub(crate) struct Port {
    destination: Destination,
    permits: Arc<Semaphore>,
    over: CancellationToken,
}

impl Port {
    /// Begins without connections.
    pub(crate) fn new(destination: Destination) -> Self {
        Self { destination, permits: Arc::new(Semaphore::new(MAX_OF_SESSION)), over: CancellationToken::new() }
    }

    /// Cuts all connections; no further one is made.
    pub(crate) fn close(&self) {
        self.over.cancel();
    }
}

/// What all port sessions of this node share.
#[derive(Debug)]
pub(crate) struct Ports {
    rules: Destinations,
    /// Host of the server's address as the node was told it.
    server_host: String,
    server_port: u16,
    /// What that host was resolved to when the link was last made.
    server: Mutex<Vec<SocketAddr>>,
    permits: Arc<Semaphore>,
    lookups: Semaphore,
}

/// A connection that was made, and what it occupies.
struct Connected {
    socket: TcpStream,
    address: SocketAddr,
    _of_session: OwnedSemaphorePermit,
    _of_node: OwnedSemaphorePermit,
}

impl Ports {
    /// Takes this node's rules and the server's address.
    pub(crate) fn new(rules: Destinations, server: &Url) -> Self {
        Self {
            rules,
            server_host: server.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase(),
            server_port: server.port_or_known_default().unwrap_or(443),
            server: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            lookups: Semaphore::new(MAX_LOOKUPS),
        }
    }

    /// Finds out where the server is now: its addresses are refused to port sessions.
    pub(crate) async fn learn_server(&self) {
        // Behind a proxy the name may mean nothing here; then no session can name the server either.
        if let Ok(found) = self.look_up(&self.server_host, self.server_port).await {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// Makes a connection of the session and serves it to its end.
    pub(crate) async fn serve(&self, mut attached: Attached, session: &SessionId, port: &Port) {
        let connected = tokio::select! {
            connected = self.connect(port) => connected,
            () = port.over.cancelled() => Err(over()),
        };
        let connected = match connected {
            Ok(connected) => connected,
            Err(why) => return super::dialing::refuse(attached, why).await,
        };
        let accepted =
            Accepted { session_id: session.to_string(), address: connected.address.to_string(), ..Accepted::default() };
        // It fits a frame by far.
        drop(attached.writer.feed(&Frame::Accepted(Box::new(accepted))));
        if !matches!(timeout(ANSWER_LIMIT, attached.writer.flush()).await, Ok(Ok(()))) {
            return;
        }
        let (stream, early) = attached.into_stream();
        relay(stream, &early, connected, &port.over).await;
    }

    async fn connect(&self, port: &Port) -> Result<Connected, StartRefused> {
        let many = |whose: &str| {
            let message = format!("{whose} has as many connections as it can hold; close some");
            refusal("TooManyConnections", message)
        };
        let of_session = Arc::clone(&port.permits).try_acquire_owned().map_err(|_| many("the session"))?;
        let of_node = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| many("the node"))?;
        let addresses = self.checked_addresses(&port.destination).await?;
        let (socket, address) = dial(&port.destination, &addresses).await?;
        // What is typed goes at once; failing that it goes a little later.
        let _ = socket.set_nodelay(true);
        Ok(Connected { socket, address, _of_session: of_session, _of_node: of_node })
    }

    /// Returns the addresses of a destination, every one of them checked. One bad address condemns the name, as in
    /// AWS's agent: a name with good and bad ones is made to get past somebody.
    async fn checked_addresses(&self, destination: &Destination) -> Result<Vec<SocketAddr>, StartRefused> {
        let addresses = if destination.is_node() {
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|own| SocketAddr::new(own, destination.port()))
                .to_vec()
        } else {
            self.look_up(destination.host(), destination.port()).await?
        };
        let denied = |why: String| refusal("DestinationDenied", format!("{destination} is refused: {why}"));
        if self.names_server(destination.host()) {
            return Err(denied(crate::destinations::Denied::ControlNetwork.to_string()));
        }
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in &addresses {
            self.rules
                .check(destination, address.ip(), &server)
                .map_err(|why| denied(format!("{} is {why}", address.ip())))?;
        }
        Ok(addresses)
    }

    /// Tells whether a name is the server's, wherever it leads; addresses and the node's own name are judged as such.
    fn names_server(&self, host: &str) -> bool {
        let is_name = host.parse::<IpAddr>().is_err() && host != "localhost";
        is_name && host.trim_end_matches('.') == self.server_host
    }

    async fn look_up(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, StartRefused> {
        if let Ok(literal) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, port)]);
        }
        let not_found = |why: String| refusal("HostNotFound", format!("{host} cannot be resolved on the node: {why}"));
        let found = timeout(LOOKUP_LIMIT, async {
            // Never closed, so it only waits.
            let _turn = self.lookups.acquire().await;
            lookup_host((host, port)).await.map(|found| found.take(MAX_ADDRESSES).collect::<Vec<_>>())
        });
        match found.await {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(Ok(_)) => Err(not_found("it has no address".to_owned())),
            Ok(Err(error)) => Err(not_found(error.to_string())),
            Err(_) => Err(not_found(format!("no answer within {} s", LOOKUP_LIMIT.as_secs()))),
        }
    }
}

/// Tries the addresses one after the other: those that were checked, not the name again.
async fn dial(destination: &Destination, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), StartRefused> {
    let mut last = None;
    let attempts = async {
        for (index, address) in addresses.iter().enumerate() {
            let limit = if index + 1 < addresses.len() { ADDRESS_LIMIT } else { CONNECT_LIMIT };
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(socket)) => return Some((socket, *address)),
                Ok(Err(error)) => {
                    // The node's own port is most likely closed on IPv6 too: the first answer tells more.
                    last.get_or_insert(error);
                }
                Err(_) => last = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        None
    };
    match timeout(CONNECT_LIMIT, attempts).await {
        Ok(Some(connected)) => Ok(connected),
        Ok(None) => Err(failure(destination, &last.unwrap_or_else(|| io::ErrorKind::NotFound.into()))),
        Err(_) => Err(failure(destination, &io::ErrorKind::TimedOut.into())),
    }
}

fn failure(destination: &Destination, error: &io::Error) -> StartRefused {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            refusal("ConnectionRefused", format!("{destination} refused the connection; does anything listen there?"))
        }
        io::ErrorKind::TimedOut => {
            refusal("ConnectionTimedOut", format!("{destination} did not answer within {} s", CONNECT_LIMIT.as_secs()))
        }
        _ => refusal("DestinationUnreachable", format!("{destination} cannot be reached from the node: {error}")),
    }
}

/// Carries bytes both ways until both directions have ended. What breaks on one side breaks on the other: a socket is
/// closed with a reset, a stream by being dropped.
async fn relay(mut stream: Stream, early: &BytesMut, connected: Connected, over: &CancellationToken) {
    let mut socket = connected.socket;
    let carried = over.run_until_cancelled(async {
        socket.write_all(early).await?;
        copy_bidirectional_with_sizes(&mut stream, &mut socket, BUFFER, BUFFER).await
    });
    let carried = carried.await.unwrap_or_else(|| Err(io::ErrorKind::ConnectionAborted.into()));
    if let Err(error) = carried {
        tracing::debug!(%error, address = %connected.address, "a connection broke");
        // A socket that is broken already cannot be broken further.
        let _ = socket.set_zero_linger();
    }
}

fn over() -> StartRefused {
    refusal("SessionEnded", "the port session is over".to_owned())
}

fn refusal(code: &str, message: String) -> StartRefused {
    StartRefused { code: code.to_owned(), message, reason: code.to_owned() }
}
