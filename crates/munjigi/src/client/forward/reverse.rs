//! The other way round: a port of the node that leads to this machine.
//!
//! A stream to the port's endpoint stands for the listening itself and carries nothing. For whoever connects there the
//! server opens a stream to this side, which says for which listener; it is connected to what that one leads to.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{Incoming, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Stream;
use munjigi_link::framed::{FrameReader, FrameWriter};
use tokio::io::{AsyncReadExt as _, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::connect::ConnectError;
use super::serve::copy;
use super::spec::{ReverseSpec, ReverseTo};
use super::{Connector, Near};

/// How long the server may take to say what a stream is for, and this side to know the listener.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// How long connecting on this machine may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// The pause before the node is asked to listen again.
const AGAIN_PAUSE: Duration = Duration::from_secs(2);
/// Most connections from nodes at a time.
const MAX_CONNECTIONS: usize = 256;

/// What the listeners of a session lead to. Shared by the session's task, which hears of connections, and those who
/// have asked for listeners.
#[derive(Debug)]
pub(super) struct Reverses {
    /// By session and number of the listener. Held for single operations on the map only.
    listeners: Mutex<HashMap<(String, u64), ReverseTo>>,
    /// Counts the listeners that were added: one may be connected to before its number is known here.
    added: watch::Sender<u64>,
    places: Semaphore,
}

impl Default for Reverses {
    fn default() -> Self {
        Self { listeners: Mutex::default(), added: watch::Sender::new(0), places: Semaphore::new(MAX_CONNECTIONS) }
    }
}

/// Takes a listener out of the list when it is dropped.
struct Registered<'a> {
    reverses: &'a Reverses,
    key: (String, u64),
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.reverses.listeners.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Reverses {
    fn add(&self, key: (String, u64), to: ReverseTo) -> Registered<'_> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), to);
        self.added.send_modify(|count| *count = count.wrapping_add(1));
        Registered { reverses: self, key }
    }

    fn get(&self, key: &(String, u64)) -> Option<ReverseTo> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    async fn wait_for(&self, key: &(String, u64)) -> Option<ReverseTo> {
        let mut added = self.added.subscribe();
        let found = async {
            loop {
                added.mark_unchanged();
                if let Some(to) = self.get(key) {
                    return Some(to);
                }
                added.changed().await.ok()?;
            }
        };
        timeout(OPENING_LIMIT, found).await.ok()?
    }
}

/// A listener on the node.
pub(crate) struct Reverse {
    connector: Connector,
    spec: ReverseSpec,
    held: Held,
}

/// The stream that stands for a listener.
struct Held {
    stream: super::connect::Far,
    key: (String, u64),
    /// Where the node listens.
    address: String,
}

impl Reverse {
    /// Asks the node to listen.
    pub(crate) async fn open(connector: &Connector, spec: ReverseSpec) -> Result<Self, ConnectError> {
        let held = hold(connector, &spec).await?;
        Ok(Self { connector: connector.clone(), spec, held })
    }

    /// Returns where the node listens, `address:port`.
    pub(crate) fn address(&self) -> &str {
        &self.held.address
    }

    /// Keeps the node listening, with another session when this one is over, until it is refused for good or the
    /// future is dropped. `tell` hears of every change.
    pub(crate) async fn keep(mut self, tell: impl Fn(&str)) -> ConnectError {
        loop {
            let registered = self.connector.reverses().add(self.held.key.clone(), self.spec.to.clone());
            // Nothing comes but its end.
            let ended = self.held.stream.read(&mut [0]).await;
            tracing::debug!(?ended, "the node listens no longer");
            drop(registered);
            let before = self.held.address.clone();
            self.held = loop {
                tokio::time::sleep(AGAIN_PAUSE).await;
                match hold(&self.connector, &self.spec).await {
                    Ok(held) => break held,
                    Err(ConnectError::Over) => return ConnectError::Over,
                    Err(ConnectError::Refused { code, message }) if code == "AccessDeniedException" => {
                        return ConnectError::Refused { code, message };
                    }
                    Err(error) => tracing::debug!(%error, "the node does not listen again yet"),
                }
            };
            if self.held.address != before {
                tell(&format!("the node listens on {} now", self.held.address));
            }
        }
    }
}

async fn hold(connector: &Connector, spec: &ReverseSpec) -> Result<Held, ConnectError> {
    let connected = connector.connect(Some(&Endpoint::Listen(spec.listen))).await?;
    let key = (connected.session_id, connected.listener);
    Ok(Held { stream: connected.far, key, address: connected.address })
}

/// Serves a stream that the server has opened.
pub(super) async fn incoming(reverses: Arc<Reverses>, stream: Stream) {
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let opened = timeout(OPENING_LIMIT, reader.read(FrameSet::OPENING)).await;
    let Ok(Ok(Some(Frame::Open(opened)))) = opened else { return };
    let Open { wish: Some(open::Wish::Incoming(incoming)) } = *opened else { return };
    let place = reverses.places.try_acquire();
    let connected = match &place {
        Ok(_) => connect(&reverses, incoming).await,
        Err(_) => {
            Err(refused("TooManyConnections", format!("the client has {MAX_CONNECTIONS} connections from nodes")))
        }
    };
    let (answer, near) = match connected {
        Ok(near) => (Frame::Accepted(Box::default()), Some(near)),
        Err(refused) => {
            tracing::debug!(refused.code, refused.message, "a connection to the node was not taken up here");
            (Frame::Refused(refused), None)
        }
    };
    if writer.send(&answer).await.is_err() {
        return;
    }
    match near {
        Some(near) => {
            let (read, early) = reader.into_parts();
            let mut far = tokio::io::join(io::Cursor::new(early).chain(read), writer.into_inner());
            copy(near, &mut far).await;
        }
        None => finish(writer).await,
    }
}

/// Ends a stream in order, so that its last frame arrives.
async fn finish(mut writer: FrameWriter<WriteHalf<Stream>>) {
    // The server may be gone: then it does not matter.
    let _ = timeout(OPENING_LIMIT, writer.close()).await;
}

/// Connects to what the listener leads to.
async fn connect(reverses: &Reverses, incoming: Incoming) -> Result<Near, Refused> {
    let to = reverses.wait_for(&(incoming.session_id, incoming.listener)).await;
    let to = to.ok_or_else(|| refused("SessionEnded", "the client forwards this port no longer".to_owned()))?;
    let connecting = async {
        Ok::<_, io::Error>(match &to {
            ReverseTo::Tcp(destination) => Near::Tcp(tcp(destination).await?),
            ReverseTo::Unix(path) => Near::Unix(UnixStream::connect(path).await?),
        })
    };
    match timeout(CONNECT_LIMIT, connecting).await {
        Ok(Ok(near)) => Ok(near),
        Ok(Err(error)) => Err(refused(code(&error), format!("{to}, on the client's machine: {error}"))),
        Err(_) => Err(refused("ConnectionTimedOut", format!("{to} does not answer on the client's machine"))),
    }
}

async fn tcp(destination: &Destination) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = tokio::net::lookup_host((destination.host(), destination.port())).await?.collect();
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn refused(code: &str, message: String) -> Refused {
    Refused { code: code.to_owned(), message, ..Refused::default() }
}

fn code(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => "ConnectionRefused",
        io::ErrorKind::TimedOut => "ConnectionTimedOut",
        _ => "DestinationUnreachable",
    }
}
