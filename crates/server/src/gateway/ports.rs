//! Port sessions: connections from a node to the session's destination, for whoever carries them to a client.
//!
//! A port session has a hub like any other, which starts it, ends it and keeps its recording; its connections do not
//! pass through it. Each is a stream to the node ([`PortStream`]); the [`Ledger`] counts them for the hub. Which door the
//! bytes come from is not known here.

mod ends;
mod granted;
mod journal;
mod ledger;
mod rate;
mod relay;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::endpoint::{Endpoint, NodePath};
use munjigi_core::wire::message::{Connect, EndpointWish, Go, MAX_RESOLVED, Open, Refused, Resolved, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::Berth;
use munjigi_link::framed::FrameReader;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub use ends::{Ended, Ends};
pub use granted::Granted;
pub use journal::Journal;
pub use ledger::{Ledger, Reached};
pub(in crate::gateway) use relay::send;
pub use relay::{relay, relay_bulk};
pub use stream::PortStream;
pub use summary::ConnectionSummary;

use super::nodes::{Moving, NodeStream};
use super::{Handle, launch};
use crate::Server;
use crate::door::{Decided, RequestMeta};
use crate::forwarding::{self, Asked, Reaching};
use crate::identity::Caller;

/// How long a node may take to resolve, check and connect. Its own limits together are a little shorter.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// What a node answers about an endpoint that it knows from no grant.
const GRANT_REQUIRED: &str = "GrantRequired";

/// Why no connection was made. The texts are for people; [`PortError::code`] is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The session is over, or being ended.
    #[error("the port session is over")]
    Ended,
    /// The session has as many connections as it may have.
    #[error("the session has {} connections, as many as it can hold; close some", Ledger::MAX_CONNECTIONS)]
    TooMany,
    /// Policy says no.
    #[error("{0}")]
    Denied(String),
    /// What the node is could not be read, so policy could not be asked.
    #[error("the server could not ask its policies; try again")]
    NotJudged,
    /// Files that only a door which follows their use may reach.
    #[error("files are served over SSH alone: use sftp, scp or rsync there, or munjigi cp")]
    OnlyFollowed,
    /// No endpoint was named, and the session has not exactly one.
    #[error("the session has not exactly one endpoint; name one")]
    NoEndpoint,
    /// An endpoint that the session was not started for.
    #[error("the session was not started for {0}")]
    NotNamed(Endpoint),
    /// The node's link is down.
    #[error("{0} is not connected; the session goes on when it is back")]
    NotConnected(String),
    /// The node did not answer.
    #[error("the node did not answer within {} s", CONNECT_LIMIT.as_secs())]
    TimedOut,
    /// The node's answer was no.
    #[error("{message}")]
    Refused {
        /// As the node says it, e.g. `ConnectionRefused`.
        code: String,
        /// For people.
        message: String,
    },
}

impl PortError {
    /// Returns the word for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Ended => "SessionEnded",
            Self::TooMany => "TooManyConnections",
            Self::Denied(_) | Self::NotNamed(_) => "AccessDeniedException",
            Self::NotJudged => "ServiceUnavailableException",
            Self::NoEndpoint | Self::OnlyFollowed => "ValidationException",
            Self::NotConnected(_) => "TargetNotConnected",
            Self::TimedOut => "ConnectionTimedOut",
            Self::Refused { code, .. } => code,
        }
    }
}

/// A live port session, for a door that brings connections.
#[derive(Clone)]
pub struct PortSession {
    server: Arc<Server>,
    handle: Handle,
    ledger: Arc<Ledger>,
}

impl PortSession {
    /// Takes the handle of a live session; `None` if it is no port session.
    pub fn of(server: &Arc<Server>, handle: &Handle) -> Option<Self> {
        let ledger = handle.ports.clone()?;
        Some(Self { server: server.clone(), handle: handle.clone(), ledger })
    }

    /// Returns the session as others see it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Returns the journal for statements on a connection of this session.
    pub fn journal(&self, connection: &PortStream) -> Journal {
        Journal::new(self.ledger.clone(), connection.number(), self.handle.facts.limits.strict_recording)
    }

    /// Tells whether the session takes no further connections.
    pub fn is_over(&self) -> bool {
        self.ledger.over().is_cancelled()
    }

    /// Waits until the session takes no further connections: it is over or being ended.
    pub async fn over(&self) {
        self.ledger.over().cancelled().await;
    }

    /// Makes one connection to the only endpoint of a session whose start was judged. Dropping the future gives it up.
    pub async fn connect(&self) -> Result<PortStream, PortError> {
        match (&self.handle.facts.forward, self.handle.facts.endpoints.as_slice()) {
            (None, [Endpoint::Files(_) | Endpoint::Rsync(_)]) => Err(PortError::OnlyFollowed),
            (None, [only]) => self.make(only, None).await,
            _ => Err(PortError::NoEndpoint),
        }
    }

    /// Makes one connection to an endpoint, or to the only one, for whoever owns the session. In a forward session
    /// policy is asked about each. Dropping the future gives it up.
    pub async fn connect_to(
        &self,
        endpoint: Option<Endpoint>,
        caller: &Caller,
        request: &RequestMeta,
    ) -> Result<PortStream, PortError> {
        let facts = &self.handle.facts;
        let endpoint = match (endpoint, facts.endpoints.as_slice()) {
            (Some(endpoint), _) => endpoint,
            (None, [only]) => only.clone(),
            (None, _) => return Err(PortError::NoEndpoint),
        };
        // What passes there must be followed; see `connect_for_files`.
        if matches!(endpoint, Endpoint::Files(_) | Endpoint::Rsync(_)) {
            return Err(PortError::OnlyFollowed);
        }
        let named = facts.endpoints.contains(&endpoint);
        match &facts.forward {
            Some(_) => self.make(&endpoint, Some((caller, request))).await,
            None if named => self.make(&endpoint, None).await,
            None => Err(PortError::NotNamed(endpoint)),
        }
    }

    /// Makes the connection of a session for files. Whoever calls this follows everything that passes.
    pub(super) async fn connect_for_files(
        &self,
        caller: &Caller,
        request: &RequestMeta,
    ) -> Result<PortStream, PortError> {
        match (&self.handle.facts.forward, self.handle.facts.endpoints.as_slice()) {
            (Some(_), [only @ (Endpoint::Files(_) | Endpoint::Rsync(_))]) => {
                self.make(only, Some((caller, request))).await
            }
            _ => Err(PortError::NoEndpoint),
        }
    }

    /// Returns the session's connections.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Takes a connection that somebody made to a port on which the node listens for the session.
    pub(super) fn incoming(
        &self,
        endpoint: &Endpoint,
        stream: NodeStream,
        early: BytesMut,
        address: &str,
    ) -> Result<PortStream, PortError> {
        let address = cut_address(address);
        let connection = self.ledger.opened(self.ledger.attempt()?, endpoint, &address)?;
        Ok(PortStream::new(stream, early, address, connection, self.ledger.clone()))
    }

    async fn make(&self, endpoint: &Endpoint, asker: Option<(&Caller, &RequestMeta)>) -> Result<PortStream, PortError> {
        let facts = &self.handle.facts;
        let asked = asker.map(|(caller, request)| Asked { caller, request, facts });
        let mut decided = Vec::new();
        let attempt = self.ledger.attempt();
        let made = match &attempt {
            Ok(_) => {
                // On the heap: every door would hold it otherwise.
                let made = Box::pin(self.judge_and_open(endpoint, asked, &mut decided));
                self.ledger.over().run_until_cancelled(made).await.unwrap_or(Err(PortError::Ended))
            }
            Err(error) => Err(error.clone()),
        };
        match (made, attempt) {
            (Ok(Opened { stream, berth, early, address, listener }), Ok(attempt)) => {
                let number = attempt.number();
                let connection = self.ledger.opened(attempt, endpoint, &address)?;
                let stream = PortStream::new(stream, early, address, connection, self.ledger.clone());
                let stream = stream.with_listener(listener).with_berth(berth);
                if let Some(asked) = asked {
                    let to = endpoint.to_string();
                    forwarding::opened(&self.server, asked, number, &to, stream.address()).await;
                    if forwarding::asks_bytes(asked.caller.principal()) {
                        forwarding::watch_bytes(&self.server, &self.handle, &self.ledger);
                    }
                }
                Ok(stream)
            }
            (made, attempt) => {
                let error = made.err().unwrap_or(PortError::Ended);
                let (to, why) = (endpoint.to_string(), error.to_string());
                if let Some(asked) = asked {
                    let written = forwarding::refused(&self.server, asked, &decided, &to, (error.code(), why.clone()));
                    written.await.map_err(|_| PortError::NotJudged)?;
                }
                if let Ok(attempt) = attempt {
                    self.ledger.refused(attempt, &to, &why);
                }
                Err(error)
            }
        }
    }

    async fn judge_and_open(
        &self,
        endpoint: &Endpoint,
        asked: Option<Asked<'_>>,
        decided: &mut Vec<Decided>,
    ) -> Result<Opened, PortError> {
        let mut reveal = None;
        if let Some(asked) = asked {
            let dynamic = asked.facts.forward.as_ref().is_some_and(|forward| forward.dynamic);
            if !dynamic && !asked.facts.endpoints.contains(endpoint) {
                return Err(PortError::NotNamed(endpoint.clone()));
            }
            let hangs_on_address = self.judge(self.reaching(endpoint), asked, decided).await?;
            reveal = hangs_on_address.then_some(asked);
        }
        let granted = self.ledger.granted();
        let without = granted.contains(endpoint);
        let opened = self.open(endpoint, !without, reveal, decided).await;
        let opened = match opened {
            // The node has forgotten it, or never got it.
            Err(PortError::Refused { code, .. }) if without && code == GRANT_REQUIRED => {
                self.open(endpoint, true, reveal, decided).await
            }
            opened => opened,
        };
        if opened.is_ok() {
            granted.add(endpoint);
        }
        opened
    }

    fn reaching<'a>(&'a self, endpoint: &'a Endpoint) -> Reaching<'a> {
        Reaching::of(endpoint, &self.handle.facts).after(self.ledger.carried())
    }

    /// Asks policy. Returns whether the answer hangs on what the name stands for.
    async fn judge(
        &self,
        reaching: Reaching<'_>,
        asked: Asked<'_>,
        decided: &mut Vec<Decided>,
    ) -> Result<bool, PortError> {
        let (principal, facts) = (asked.caller.principal(), &self.handle.facts);
        let judged = forwarding::judge(&self.server, principal, facts, reaching, asked.request).await;
        let judged = judged.map_err(|_| PortError::NotJudged)?;
        *decided = judged.decided;
        match judged.denial {
            Some(message) => Err(PortError::Denied(message)),
            None => Ok(judged.asks_address),
        }
    }

    /// Opens a stream to the node and has it connect. With `reveal` the node says first what the name stands for, and
    /// policy is asked about each address.
    async fn open(
        &self,
        endpoint: &Endpoint,
        with_grant: bool,
        reveal: Option<Asked<'_>>,
        decided: &mut Vec<Decided>,
    ) -> Result<Opened, PortError> {
        let facts = &self.handle.facts;
        let not_connected = || PortError::NotConnected(facts.node_name.clone());
        let link = self.server.gateway.nodes.get(&facts.node).filter(|link| link.epoch == facts.epoch);
        let link = link.ok_or_else(not_connected)?;
        let opened = link.open_moving(&self.server.gateway.lanes).await;
        let Moving { stream, berth, token } = opened.map_err(|_| not_connected())?;
        let lane = token.map(|token| Bytes::copy_from_slice(token.as_bytes())).unwrap_or_default();
        let grant = match with_grant {
            true => launch::extension(&self.server, facts, endpoint, &link),
            false => Bytes::new(),
        };
        let session_id = facts.id.to_string();
        let wished = Some(EndpointWish::from(endpoint));
        let wish = Connect { session_id, endpoint: wished, grant, reveal: reveal.is_some(), lane };
        let open = Frame::Open(Box::new(Open { wish: Some(open::Wish::Connect(wish)) }));
        let conversation = async {
            let mut reader = FrameReader::new(stream);
            say(&mut reader, &open).await.ok_or_else(not_connected)?;
            if let Some(asked) = reveal {
                let resolved = match hear(&mut reader, FrameSet::RESOLUTION).await.ok_or_else(not_connected)? {
                    Frame::Resolved(resolved) => resolved,
                    Frame::Refused(refused) => return Err(from_node(refused)),
                    // FrameSet::RESOLUTION lets nothing else through.
                    _ => return Err(not_connected()),
                };
                let verdict = self.judge_addresses(endpoint, &resolved, asked, decided).await;
                say(&mut reader, &answer(&verdict)).await.ok_or_else(not_connected)?;
                verdict?;
            }
            match hear(&mut reader, FrameSet::ANSWER).await.ok_or_else(not_connected)? {
                Frame::Accepted(accepted) => {
                    let (stream, early) = reader.into_parts();
                    let listener = accepted.listener;
                    let address = match endpoint {
                        Endpoint::Tcp(_) | Endpoint::Listen(_) => cut_address(&accepted.address),
                        // The node chooses where.
                        Endpoint::Agent => cut_path(&accepted.address),
                        Endpoint::Unix(_)
                        | Endpoint::ListenUnix(_)
                        | Endpoint::Upload(_)
                        | Endpoint::Download(_)
                        | Endpoint::Files(_)
                        | Endpoint::Rsync(_) => endpoint.to_string(),
                    };
                    Ok(Opened { stream, berth, early, address, listener })
                }
                Frame::Refused(refused) => Err(from_node(refused)),
                // FrameSet::ANSWER lets nothing else through.
                _ => Err(not_connected()),
            }
        };
        timeout(CONNECT_LIMIT, conversation).await.unwrap_or(Err(PortError::TimedOut))
    }

    /// Returns those of the addresses that policy lets the session reach; if there is none, why the last one is not.
    async fn judge_addresses(
        &self,
        endpoint: &Endpoint,
        resolved: &Resolved,
        asked: Asked<'_>,
        decided: &mut Vec<Decided>,
    ) -> Result<Vec<String>, PortError> {
        let mut allowed = Vec::new();
        let mut denied = PortError::NotJudged;
        for text in resolved.addresses.iter().take(MAX_RESOLVED) {
            // What is no address is none that the node can be let connect to.
            let Ok(address) = text.parse::<IpAddr>() else { continue };
            match self.judge(self.reaching(endpoint).at(Some(address)), asked, decided).await {
                Ok(_) => allowed.push(text.clone()),
                Err(error) => denied = error,
            }
        }
        if allowed.is_empty() { Err(denied) } else { Ok(allowed) }
    }
}

/// What the node has opened.
struct Opened {
    /// On which the connection's bytes travel.
    stream: NodeStream,
    /// What knows of the stream's lanes, if it may have any.
    berth: Option<Arc<Berth>>,
    /// What came behind the node's answer.
    early: BytesMut,
    /// Where the node connected to, or listens.
    address: String,
    /// Number of the listener, if it listens.
    listener: u64,
}

async fn say(reader: &mut FrameReader<NodeStream>, frame: &Frame) -> Option<()> {
    let mut bytes = BytesMut::new();
    // A path, a grant of one endpoint and a few addresses fit a frame by far.
    frame.encode(&mut bytes).ok()?;
    let stream = reader.get_mut();
    stream.write_all(&bytes).await.ok()?;
    stream.flush().await.ok()
}

async fn hear(reader: &mut FrameReader<NodeStream>, allowed: FrameSet) -> Option<Frame> {
    reader.read(allowed).await.ok()?
}

/// Tells the node which addresses it may connect to.
fn answer(verdict: &Result<Vec<String>, PortError>) -> Frame {
    match verdict {
        Ok(addresses) => Frame::Go(Go { addresses: addresses.clone() }),
        Err(error) => {
            let (code, message) = (error.code().to_owned(), error.to_string());
            Frame::Refused(Refused { code, message, ..Refused::default() })
        }
    }
}

/// Takes a node's word for the address, cut to what addresses have; it is for recording and trail.
fn cut_address(address: &str) -> String {
    address.chars().filter(|c| c.is_ascii_hexdigit() || ".:[]".contains(*c)).take(64).collect()
}

/// Takes a node's word for the path of a socket, if it may be one.
fn cut_path(path: &str) -> String {
    NodePath::new(path).map(|path| path.to_string()).unwrap_or_default()
}

/// Cuts a node's refusal to a word and a line, without anything that moves a cursor (T-69).
fn from_node(refused: Refused) -> PortError {
    let code = refused.code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let message = refused.message.chars().filter(|c| !c.is_control()).take(500).collect();
    PortError::Refused { code, message }
}
