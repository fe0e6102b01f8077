//! Ports and sockets on which the node listens for an SSH connection (`-R`), and the channels of who connects there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::endpoint::{Endpoint, ListenAddress, NodePath};
use munjigi_core::wire::message::Refused;
use russh::server::{Handle, Msg};
use russh::{Channel, Error};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::local::{own_node, present};
use super::refusal::Refusal;
use super::stream::ChannelStream;
use crate::gateway::door_ssh::Conn;
use crate::gateway::door_ssh::channel::ChannelSender;
use crate::gateway::incoming::{self, Client};
use crate::gateway::nodes::NodeStream;
use crate::gateway::ports::PortStream;
use crate::lock;

/// How long the node may take to listen: the whole connection waits, as the protocol answers such requests in order.
const LISTEN_LIMIT: Duration = Duration::from_secs(15);
/// Most places on which the node listens for one connection.
const MAX_LISTENERS: usize = 32;

/// A place where the node listens, as the client named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// An address in the client's words, and the port that it became.
    Tcp(String, u32),
    /// A socket.
    Unix(String),
    /// A socket of a program's own, behind which is the client's agent, by the node's number of it.
    Agent(u64),
}

/// Listens on a port of the node for the client; port 0 becomes the one that the node picked.
pub(crate) async fn listen_tcp(conn: &Arc<Conn>, address: &str, port: &mut u32) -> Result<(), Refusal> {
    let ip = bind_address(address).ok_or_else(|| Refusal::prohibited("the address to listen on is no IP address"))?;
    let wanted = u16::try_from(*port).map_err(|_| Refusal::prohibited("a port is a number from 0 to 65535"))?;
    let endpoint = Endpoint::Listen(ListenAddress::new(ip, wanted));
    let listening = listen(conn, endpoint).await?;
    let bound = listening.connection.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    *port = bound.ok_or_else(|| Refusal::unavailable("the node did not say where it listens"))?;
    listening.keep(Place::Tcp(address.to_owned(), *port))
}

/// Listens on a socket of the node for the client.
pub(crate) async fn listen_unix(conn: &Arc<Conn>, path: &str) -> Result<(), Refusal> {
    let endpoint = Endpoint::ListenUnix(NodePath::new(path)?);
    listen(conn, endpoint).await?.keep(Place::Unix(path.to_owned()))
}

/// Listens no longer. Tells whether it did.
pub(crate) fn cancel(conn: &Conn, place: &Place) -> bool {
    let cancelled = lock(&conn.forwards.listeners).remove(place);
    cancelled.inspect(CancellationToken::cancel).is_some()
}

/// Reads an address as OpenSSH's clients send it (RFC 4254 section 7.1): nothing and `*` are all addresses.
fn bind_address(address: &str) -> Option<IpAddr> {
    match address {
        "localhost" => Some(Ipv4Addr::LOCALHOST.into()),
        "" | "*" => Some(Ipv4Addr::UNSPECIFIED.into()),
        "::" => Some(Ipv6Addr::UNSPECIFIED.into()),
        other => other.parse().ok(),
    }
}

/// A node that listens.
pub(super) struct Listening {
    conn: Arc<Conn>,
    endpoint: Endpoint,
    /// Stands for the listener: the node listens for as long as this is held.
    pub(super) connection: PortStream,
    session: munjigi_core::id::SessionId,
}

/// Has the node listen.
pub(super) async fn listen(conn: &Arc<Conn>, endpoint: Endpoint) -> Result<Listening, Refusal> {
    let aim = own_node(conn).await?;
    conn.permits_forward(endpoint == Endpoint::Agent).map_err(Refusal::prohibited)?;
    if lock(&conn.forwards.listeners).len() >= MAX_LISTENERS {
        return Err(Refusal::too_many(format!("one connection has {MAX_LISTENERS} listeners at most")));
    }
    let asking = async {
        let session = conn.forwards.sessions.get(conn, &aim).await?;
        let caller = present(conn)?;
        let connection = session.connect_to(Some(endpoint.clone()), &caller, &conn.request()).await?;
        Ok::<_, Refusal>((session.handle().facts.id.clone(), connection))
    };
    let asked = timeout(LISTEN_LIMIT, asking).await;
    let (session, connection) = asked.map_err(|_| Refusal::unavailable("the node took too long to listen"))??;
    Ok(Listening { conn: conn.clone(), endpoint, connection, session })
}

impl Listening {
    /// Offers who connects to the client, until the place is cancelled, the connection ends, or the node's side does.
    pub(super) fn keep(self, place: Place) -> Result<(), Refusal> {
        let Self { conn, endpoint, mut connection, session } = self;
        let cancelled = conn.ended.child_token();
        let replaced = lock(&conn.forwards.listeners).insert(place.clone(), cancelled.clone());
        if let Some(replaced) = replaced {
            replaced.cancel();
        }
        let back = Arc::new(Returning { conn: conn.clone(), place: place.clone() });
        let number = connection.listener();
        let registered = incoming::register(&conn.server, session, number, Client::Ssh(back), endpoint);
        conn.server.clone().tasks.spawn(async move {
            // Nothing comes on it but its end.
            let _ = cancelled.run_until_cancelled(connection.read_u8()).await;
            drop(registered);
            if !cancelled.is_cancelled() {
                cancel(&conn, &place);
            }
        });
        Ok(())
    }
}

/// The way of connections from a listener back to the client.
pub(crate) struct Returning {
    conn: Arc<Conn>,
    place: Place,
}

impl Returning {
    /// Opens a channel to the client for somebody who connected from `address`.
    pub(in crate::gateway) async fn offer(&self, address: &str) -> Result<NodeStream, Refused> {
        let refused = |code: &str, message: String| Refused { code: code.to_owned(), message, ..Refused::default() };
        let place = self.conn.place().ok_or_else(|| {
            refused("TooManyConnections", "the SSH connection has as many channels as it can hold".to_owned())
        })?;
        let (opened, stream) = oneshot::channel();
        let (conn, to, address) = (self.conn.clone(), self.place.clone(), address.to_owned());
        // In a task of its own: a channel that the client confirms after everybody has given up is closed there.
        self.conn.server.tasks.spawn(async move {
            let channel = conn.ended.run_until_cancelled(open(&conn.handle, to, &address)).await;
            let channel = channel.unwrap_or(Err(Error::Disconnect));
            let channel = channel.map(|channel| ChannelSender::new(channel, conn.handle.clone(), place));
            // Whoever asked may be gone: then the channel closes here.
            let _ = opened.send(channel.map(|channel| ChannelStream::confirmed(&conn.forwards.inboxes, channel)));
        });
        match stream.await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(Error::ChannelOpenFailure(why))) => Err(refused("ConnectionRefused", why.description().to_owned())),
            Ok(Err(_)) | Err(_) => Err(refused("SessionEnded", "the SSH connection is gone".to_owned())),
        }
    }
}

async fn open(handle: &Handle, place: Place, from: &str) -> Result<Channel<Msg>, Error> {
    match place {
        Place::Tcp(address, port) => {
            let (ip, from_port) = from.rsplit_once(':').unwrap_or((from, "0"));
            let ip = ip.trim_matches(['[', ']']);
            handle.channel_open_forwarded_tcpip(address, port, ip, from_port.parse().unwrap_or(0)).await
        }
        Place::Unix(path) => handle.channel_open_forwarded_streamlocal(path).await,
        Place::Agent(_) => handle.channel_open_agent().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on_are_read_as_openssh_means_them() {
        for (text, address) in [
            ("localhost", Some("127.0.0.1")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("", Some("0.0.0.0")),
            ("*", Some("0.0.0.0")),
            ("0.0.0.0", Some("0.0.0.0")),
            ("::", Some("::")),
            ("10.0.0.7", Some("10.0.0.7")),
            ("web-1", None),
            ("[::1]", None),
        ] {
            assert_eq!(bind_address(text), address.map(|text| text.parse().unwrap()), "{text:?}");
        }
    }
}
