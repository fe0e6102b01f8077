//! Connections of port sessions: judge, connect, and carry the bytes.
//!
//! The server opens a stream per connection and names a session that the privileged half admitted, and an endpoint;
//! whether the session may reach it stands in a grant, not in the wish. Bytes go between stream and socket without
//! frames: each direction has its own end, and a slow reader on either side stops the writer on the other.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::SessionId;
use munjigi_core::wire::message::{Accepted, Connect, Resolved};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::relay::Relay;
use munjigi_link::{BulkThreads, LaneDialer, LaneToken, MovingStream, Opener};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::listening;
use super::near::Near;
use super::reach::{self, Reach};
use super::session::Attached;
use super::spawn_client::{SpawnClient, StartRefused};
use crate::destinations::Destinations;

/// Most connections of all port sessions at once. A link has 512 streams each way; the rest is left to sessions.
const MAX_CONNECTIONS: usize = 384;
/// Most connections of one session at once.
const MAX_OF_SESSION: usize = 256;
/// Most endpoints that a session is known to reach without asking the privileged half again.
const MAX_KNOWN: usize = 256;
/// Threads for connections that carry much. The node has other work than ours.
const BULK_THREADS: usize = 1;
/// How long the answer may take to be sent.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// How long the server may take to judge the addresses of a name.
const VERDICT_LIMIT: Duration = Duration::from_secs(10);

/// What a port session holds for its connections.
#[derive(Debug)]
pub(crate) struct Port {
    id: SessionId,
    /// As in the grant that began the session.
    first: Vec<Endpoint>,
    /// Destinations that the privileged half has found in a later grant, newest last. It is asked again about those that
    /// fell out.
    known: Mutex<VecDeque<Destination>>,
    permits: Arc<Semaphore>,
    over: CancellationToken,
}

impl Port {
    /// Begins without connections.
    pub(crate) fn new(id: SessionId, first: Vec<Endpoint>) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_OF_SESSION));
        Self { id, first, known: Mutex::default(), permits, over: CancellationToken::new() }
    }

    /// Returns the session.
    pub(super) fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns what is cancelled when the session is over.
    pub(super) fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Cuts all connections; no further one is made.
    pub(crate) fn close(&self) {
        self.over.cancel();
    }

    /// Returns the wished endpoint, or the only one that the session has.
    fn endpoint(&self, wish: &Connect) -> Result<Endpoint, StartRefused> {
        let invalid = |message: String| refusal("ValidationException", message);
        match (&wish.endpoint, self.first.as_slice()) {
            (Some(endpoint), _) => Endpoint::try_from(endpoint).map_err(|error| invalid(error.to_string())),
            (None, [only]) => Ok(only.clone()),
            (None, all) => Err(invalid(format!("the session has {} endpoints; name one", all.len()))),
        }
    }

    /// Tells whether a destination is known to stand in a grant.
    fn knows(&self, destination: &Destination) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.first.iter().any(|endpoint| endpoint.tcp() == Some(destination)) || known.contains(destination)
    }

    fn learn(&self, destination: &Destination) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(destination) {
            known.push_back(destination.clone());
            if known.len() > MAX_KNOWN {
                known.pop_front();
            }
        }
    }
}

/// What all port sessions of this node share.
#[derive(Debug)]
pub(crate) struct Ports {
    reach: Reach,
    permits: Arc<Semaphore>,
    last_listener: AtomicU64,
    bulk: BulkThreads,
}

impl Ports {
    /// Takes this node's rules and the server's address.
    pub(crate) fn new(rules: Destinations, server: &Url) -> Self {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let bulk = BulkThreads::new(BULK_THREADS, || {});
        Self { reach: Reach::new(rules, server), permits, last_listener: AtomicU64::new(0), bulk }
    }

    /// Finds out where the server is now: its addresses are refused to port sessions.
    pub(crate) async fn learn_server(&self) {
        self.reach.learn_server().await;
    }

    /// Makes a connection of the session and serves it to its end.
    pub(crate) async fn serve(
        &self,
        mut attached: Attached,
        port: &Arc<Port>,
        wish: Connect,
        spawn: &SpawnClient,
        lanes: &LaneDialer,
        opener: &Opener,
    ) {
        if let Ok(endpoint) = port.endpoint(&wish)
            && endpoint.listens()
        {
            let number = self.last_listener.fetch_add(1, Ordering::Relaxed) + 1;
            let (at, grant) = ((endpoint, number), wish.grant.to_vec());
            return listening::serve(attached, port.clone(), at, grant, spawn, opener, &self.permits).await;
        }
        let lane = LaneToken::from_bytes(&wish.lane);
        let many = |whose: &str| {
            let message = format!("{whose} has as many connections as it can hold; close some");
            refusal("TooManyConnections", message)
        };
        // Held to the end of the connection.
        let (Ok(_of_session), Ok(_of_node)) = (port.permits.try_acquire(), self.permits.try_acquire()) else {
            let whose = if port.permits.available_permits() == 0 { "the session" } else { "the node" };
            return super::dialing::refuse(attached, many(whose)).await;
        };
        let connected = tokio::select! {
            connected = self.connect(&mut attached, port, wish, spawn) => connected,
            () = port.over.cancelled() => Err(over()),
        };
        let (socket, address) = match connected {
            Ok(connected) => connected,
            Err(why) => return super::dialing::refuse(attached, why).await,
        };
        let accepted = Accepted { session_id: port.id.to_string(), address: address.clone(), ..Accepted::default() };
        // It fits a frame by far.
        drop(attached.writer.feed(&Frame::Accepted(Box::new(accepted))));
        if !matches!(timeout(ANSWER_LIMIT, attached.writer.flush()).await, Ok(Ok(()))) {
            return;
        }
        let (stream, early) = attached.into_stream();
        let mut stream = match lane {
            Some(token) => MovingStream::dialing(stream, token, Arc::clone(lanes)),
            None => MovingStream::staying(stream),
        };
        stream.unread(early);
        carry(stream, socket, address, &port.over, Some(&self.bulk)).await;
    }

    async fn connect(
        &self,
        attached: &mut Attached,
        port: &Port,
        wish: Connect,
        spawn: &SpawnClient,
    ) -> Result<(Near, String), StartRefused> {
        let endpoint = port.endpoint(&wish)?;
        let failed = |error: &dyn std::fmt::Display| refusal("InternalServerError", error.to_string());
        let destination = match &endpoint {
            Endpoint::Tcp(destination) => destination,
            // Reached as the OS user, which only the privileged half can become; what it has reached comes along.
            Endpoint::Unix(_) => {
                let answer = spawn.reach(&port.id, &endpoint, wish.grant.to_vec()).await;
                let handing = answer.map_err(|error| failed(&error))??.pop();
                let handing = handing.ok_or_else(|| failed(&"the privileged half sent no socket"))?;
                let socket = reach::handed(&endpoint, handing).await?;
                return Ok((Near::from_fd(socket).map_err(|error| failed(&error))?, endpoint.to_string()));
            }
            Endpoint::Upload(_) | Endpoint::Download(_) | Endpoint::Files(_) | Endpoint::Rsync(_) => {
                let answer = spawn.reach(&port.id, &endpoint, wish.grant.to_vec()).await;
                let socket = answer.map_err(|error| failed(&error))??.pop();
                let socket = socket.ok_or_else(|| failed(&"the privileged half sent no socket"))?;
                // There is no address to it.
                return Ok((Near::from_fd(socket).map_err(|error| failed(&error))?, String::new()));
            }
            // Served by `listening`.
            Endpoint::Listen(_) | Endpoint::ListenUnix(_) | Endpoint::Agent => {
                return Err(failed(&format!("nothing can be connected to at {endpoint}")));
            }
        };
        if !port.knows(destination) {
            let answer = spawn.reach(&port.id, &endpoint, wish.grant.to_vec()).await;
            answer.map_err(|error| failed(&error))??;
            port.learn(destination);
        }
        let mut addresses = self.reach.checked_addresses(destination).await?;
        if wish.reveal {
            let allowed = reveal(attached, &addresses).await?;
            // Only what was checked is connected to, whatever the answer names.
            addresses.retain(|address| allowed.contains(&address.ip()));
        }
        let (socket, address) = reach::dial(destination, &addresses).await?;
        // What is typed goes at once; failing that it goes a little later.
        let _ = socket.set_nodelay(true);
        Ok((Near::Tcp(socket), address.to_string()))
    }
}

/// Tells the server what the name stands for; returns the addresses that policy lets the session reach.
async fn reveal(attached: &mut Attached, addresses: &[std::net::SocketAddr]) -> Result<Vec<IpAddr>, StartRefused> {
    let lost =
        || refusal("ConnectionTimedOut", "the server did not judge the addresses of the name in time".to_owned());
    let addresses = addresses.iter().map(|address| address.ip().to_string()).collect();
    let verdict = timeout(VERDICT_LIMIT, async {
        attached.writer.send(&Frame::Resolved(Resolved { addresses })).await.ok()?;
        attached.reader.read(FrameSet::VERDICT).await.ok()?
    });
    match verdict.await.ok().flatten().ok_or_else(lost)? {
        Frame::Go(go) => Ok(go.addresses.iter().filter_map(|text| text.parse().ok()).collect()),
        Frame::Refused(refused) => {
            Err(StartRefused { code: refused.code, message: refused.message, reason: refused.reason })
        }
        // The set of allowed frames lets nothing else through.
        _ => Err(lost()),
    }
}

/// Carries bytes both ways until both directions have ended. What breaks on one side breaks on the other: a socket is
/// closed with a reset, a stream by being dropped. With `bulk` they go on there once the stream has a lane.
pub(super) async fn carry(
    stream: MovingStream,
    socket: Near,
    address: String,
    over: &CancellationToken,
    bulk: Option<&BulkThreads>,
) {
    let berth = stream.berth();
    let mut carrying = Relay::new(stream, socket);
    let leaves = |_: &MovingStream, _: &Near| bulk.is_some() && berth.has_lane();
    match (over.run_until_cancelled(carrying.run_until(leaves)).await, bulk) {
        (Some(Ok(Some(_))), _) => {}
        (Some(Ok(None)), Some(bulk)) => {
            berth.goes_elsewhere();
            let over = over.clone();
            let carried = async move {
                let mut carrying = carrying.try_map_b(Near::settled)?;
                match over.run_until_cancelled(carrying.run()).await {
                    Some(Ok(_)) => {}
                    broken => broke(broken, carrying, &address),
                }
                io::Result::Ok(())
            };
            if let Err(error) = bulk.run(carried).await {
                tracing::warn!(%error, "a connection broke on its way to the thread for bulk");
            }
        }
        (broken, _) => broke(broken, carrying, &address),
    }
}

fn broke<T>(why: Option<io::Result<T>>, carrying: Relay<MovingStream, Near>, address: &str) {
    let error = why.and_then(Result::err).unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    tracing::debug!(%error, address, "a connection broke");
    carrying.into_ends().1.reset();
}

fn over() -> StartRefused {
    refusal("SessionEnded", "the port session is over".to_owned())
}

pub(super) fn refusal(code: &str, message: String) -> StartRefused {
    StartRefused { code: code.to_owned(), message, reason: code.to_owned() }
}
