//! Connections to ports on which nodes listen for a session (`-R`): from the node's stream to one of the client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::wire::message::{Accepted, Incoming, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FrameReader;
use munjigi_link::{MovingStream, Opener};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::close_in_background;
use super::door_ssh::forwards::Returning;
use super::nodes::NodeStream;
use super::peer::FrameStream;
use super::ports::{self, PortSession};
use crate::{Server, lock};

/// How long a client may take to connect to where a port leads.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);
/// How long an answer may take to be sent.
const SEND_LIMIT: Duration = Duration::from_secs(10);

/// Where the connections to listening ports go.
#[derive(Default)]
pub(crate) struct Listeners {
    /// By session and the node's number of the listener.
    by_number: Mutex<HashMap<(SessionId, u64), Listening>>,
}

#[derive(Clone)]
struct Listening {
    client: Client,
    endpoint: Endpoint,
}

/// Who asked for a listener, and takes up its connections.
#[derive(Clone)]
pub(super) enum Client {
    /// A client of the link, to which streams are opened.
    Link(Opener),
    /// A client of SSH, to which channels are opened.
    Ssh(Arc<Returning>),
}

/// A listener for as long as its stream lasts.
pub(super) struct Registered {
    server: Arc<Server>,
    key: (SessionId, u64),
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.server.gateway.listeners.by_number).remove(&self.key);
    }
}

/// Takes note of a listener; its connections go to the client until the result is dropped.
pub(super) fn register(
    server: &Arc<Server>,
    session: SessionId,
    number: u64,
    client: Client,
    endpoint: Endpoint,
) -> Registered {
    let key = (session, number);
    lock(&server.gateway.listeners.by_number).insert(key.clone(), Listening { client, endpoint });
    Registered { server: server.clone(), key }
}

/// Carries a connection that somebody made to a port of the node. A node reaches only sessions that name it (T-32).
pub(super) async fn serve(server: &Arc<Server>, node: &NodeId, stream: FrameStream, incoming: Incoming) {
    match offer(server, node, &incoming).await {
        Ok((session, endpoint, client)) => accept(&session, &endpoint, stream, &incoming.address, client).await,
        Err(refused) => {
            let mut stream = stream;
            stream.feed(&Frame::Refused(refused));
            close_in_background(stream);
        }
    }
}

/// Asks the client to take the connection up.
async fn offer(
    server: &Arc<Server>,
    node: &NodeId,
    incoming: &Incoming,
) -> Result<(PortSession, Endpoint, NodeStream), Refused> {
    let refused = |code: &str, message: &str| {
        let (code, message) = (code.to_owned(), message.to_owned());
        Refused { code, message, ..Refused::default() }
    };
    let over = || refused("SessionEnded", "nobody listens for this port any more");
    let id = SessionId::parse(&incoming.session_id).map_err(|_| over())?;
    let handle = server.gateway.session(&id).filter(|handle| handle.facts.node == *node).ok_or_else(over)?;
    let session = PortSession::of(server, &handle).ok_or_else(over)?;
    let listening = lock(&server.gateway.listeners.by_number).get(&(id, incoming.listener)).cloned();
    let listening = listening.ok_or_else(over)?;
    let lost = || refused("ConnectionTimedOut", "the client did not take the connection up");
    let client = match &listening.client {
        Client::Link(opener) => timeout(ANSWER_LIMIT, offer_stream(opener, incoming)).await.ok().flatten(),
        Client::Ssh(returning) => timeout(ANSWER_LIMIT, returning.offer(&incoming.address)).await.ok(),
    };
    Ok((session, listening.endpoint, client.ok_or_else(lost)??))
}

/// Offers the connection to a client of the link; `None` if that is lost.
async fn offer_stream(opener: &Opener, incoming: &Incoming) -> Option<Result<NodeStream, Refused>> {
    let mut stream = opener.open().await.ok()?;
    let wish = Incoming { lane: bytes::Bytes::new(), ..incoming.clone() };
    let mut first = BytesMut::new();
    // It fits a frame by far: it came in one.
    Frame::Open(Box::new(Open { wish: Some(open::Wish::Incoming(wish)) })).encode(&mut first).ok()?;
    stream.write_all(&first).await.ok()?;
    stream.flush().await.ok()?;
    let mut reader = FrameReader::new(stream);
    match reader.read(FrameSet::ANSWER).await.ok()?? {
        Frame::Accepted(_) => {
            let (client, early) = reader.into_parts();
            let mut client = MovingStream::staying(client);
            client.unread(early);
            Some(Ok(Box::new(client)))
        }
        Frame::Refused(refused) => Some(Err(refused)),
        // FrameSet::ANSWER lets nothing else through.
        _ => None,
    }
}

async fn accept(session: &PortSession, endpoint: &Endpoint, stream: FrameStream, address: &str, client: NodeStream) {
    let Some((node, node_early)) = stream.into_link() else { return };
    let mut node = MovingStream::staying(node);
    let mut answer = BytesMut::new();
    // It fits a frame by far.
    let _ = Frame::Accepted(Box::<Accepted>::default()).encode(&mut answer);
    let answering = async {
        node.write_all(&answer).await?;
        node.flush().await
    };
    if !matches!(timeout(SEND_LIMIT, answering).await, Ok(Ok(()))) {
        return;
    }
    let Ok(connection) = session.incoming(endpoint, Box::new(node), node_early, address) else { return };
    ports::relay(client, connection).await;
}
