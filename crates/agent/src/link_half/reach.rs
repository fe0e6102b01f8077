//! From a destination to a socket: resolve, check every address, connect to what was checked (T-58).

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::MAX_RESOLVED;
use tokio::io::Interest;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use url::Url;

use super::port::refusal;
use super::spawn_client::StartRefused;
use crate::destinations::{Denied, Destinations};
use crate::sys;

/// Most names looked up at once: each takes a thread for as long as the resolver is silent.
const MAX_LOOKUPS: usize = 16;
/// How long looking up a name may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(10);
/// How long one address may take to answer when others are left.
const ADDRESS_LIMIT: Duration = Duration::from_secs(5);
/// How long connecting may take in all, without the lookup.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// What is needed to tell whether an address may be connected to, and to look names up.
#[derive(Debug)]
pub(super) struct Reach {
    rules: Destinations,
    /// Host of the server's address as the node was told it.
    server_host: String,
    server_port: u16,
    /// What that host was resolved to when the link was last made.
    server: Mutex<Vec<SocketAddr>>,
    lookups: Semaphore,
}

impl Reach {
    /// Takes this node's rules and the server's address.
    pub(super) fn new(rules: Destinations, server: &Url) -> Self {
        Self {
            rules,
            server_host: server.host_str().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase(),
            server_port: server.port_or_known_default().unwrap_or(443),
            server: Mutex::default(),
            lookups: Semaphore::new(MAX_LOOKUPS),
        }
    }

    /// Finds out where the server is now.
    pub(super) async fn learn_server(&self) {
        // Behind a proxy the name may mean nothing here; then no session can name the server either.
        if let Ok(found) = self.look_up(&self.server_host, self.server_port).await {
            *self.server.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
    }

    /// Returns the addresses of a destination, every one of them checked. One bad address condemns the name, as in
    /// AWS's agent: a name with good and bad ones is made to get past somebody.
    pub(super) async fn checked_addresses(&self, destination: &Destination) -> Result<Vec<SocketAddr>, StartRefused> {
        let addresses = if destination.is_node() {
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
                .map(|own| SocketAddr::new(own, destination.port()))
                .to_vec()
        } else {
            self.look_up(destination.host(), destination.port()).await?
        };
        let denied = |why: String| refusal("DestinationDenied", format!("{destination} is refused: {why}"));
        if self.names_server(destination.host()) {
            return Err(denied(Denied::ControlNetwork.to_string()));
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
            lookup_host((host, port)).await.map(|found| found.take(MAX_RESOLVED).collect::<Vec<_>>())
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
pub(super) async fn dial(
    destination: &Destination,
    addresses: &[SocketAddr],
) -> Result<(TcpStream, SocketAddr), StartRefused> {
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
        Ok(None) => Err(failure(destination, &last.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))),
        Err(_) => Err(failure(destination, &io::ErrorKind::TimedOut.into())),
    }
}

/// Takes the socket that the privileged half has connected to the endpoint, or why it is none.
pub(super) async fn handed(endpoint: &Endpoint, handing: OwnedFd) -> Result<OwnedFd, StartRefused> {
    let lost = || refusal("InternalServerError", format!("the node could not connect to {endpoint}"));
    let handing = sys::watched(handing, Interest::READABLE).map_err(|_| lost())?;
    let mut number = [0; 4];
    let received = timeout(
        CONNECT_LIMIT,
        handing.async_io(Interest::READABLE, |fd| {
            sys::receive_with_descriptors(fd, &mut [IoSliceMut::new(&mut number)]).map_err(io::Error::from)
        }),
    );
    let timed_out = || failure(endpoint, &io::ErrorKind::TimedOut.into());
    let (count, mut descriptors) = received.await.map_err(|_| timed_out())?.map_err(|_| lost())?;
    match (i32::from_be_bytes(number), descriptors.pop()) {
        (0, Some(socket)) if count == number.len() => Ok(socket),
        // Nothing was sent: the copy that was to connect was ended.
        (0, _) => Err(timed_out()),
        (libc::ENOENT | libc::ENOTDIR, _) => {
            Err(refusal("HostNotFound", format!("there is no {endpoint} on the node")))
        }
        (libc::EACCES | libc::EPERM, _) => {
            let message = format!("the session's OS user may not connect to {endpoint}");
            Err(refusal("DestinationDenied", message))
        }
        (errno, _) => Err(failure(endpoint, &io::Error::from_raw_os_error(errno))),
    }
}

fn failure(destination: &impl fmt::Display, error: &io::Error) -> StartRefused {
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
