//! Port sessions: connections from a node to the session's destination, for whoever carries them to a client.
//!
//! A port session has a hub like any other, which starts it, ends it and keeps its recording; its connections do not
//! pass through it. Each is a stream to the node ([`PortStream`]); the [`Ledger`] counts them for the hub. Which door the
//! bytes come from is not known here.

mod granted;
mod journal;
mod ledger;
mod relay;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{Accepted, Connect, EndpointWish, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FrameReader;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub use granted::Granted;
pub use journal::Journal;
pub use ledger::Ledger;
pub use relay::relay;
pub use stream::PortStream;
pub use summary::ConnectionSummary;

use super::nodes::NodeStream;
use super::{Handle, launch};
use crate::door::RequestMeta;
use crate::identity::Caller;
use crate::{Server, forwarding};

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
            Self::NoEndpoint => "ValidationException",
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

    /// Waits until the session takes no further connections: it is over or being ended.
    pub async fn over(&self) {
        self.ledger.over().cancelled().await;
    }

    /// Makes one connection to the only endpoint of a session whose start was judged. Dropping the future gives it up.
    pub async fn connect(&self) -> Result<PortStream, PortError> {
        match (&self.handle.facts.forward, self.handle.facts.endpoints.as_slice()) {
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
        let named = facts.endpoints.contains(&endpoint);
        match &facts.forward {
            Some(forward) if named || forward.dynamic => self.make(&endpoint, Some((caller, request))).await,
            None if named => self.make(&endpoint, None).await,
            _ => Err(PortError::NotNamed(endpoint)),
        }
    }

    async fn make(&self, endpoint: &Endpoint, asker: Option<(&Caller, &RequestMeta)>) -> Result<PortStream, PortError> {
        let attempt = self.ledger.attempt()?;
        let made = self.ledger.over().run_until_cancelled(self.judge_and_open(endpoint, asker));
        match made.await.unwrap_or(Err(PortError::Ended)) {
            Ok((stream, early, address)) => {
                let connection = self.ledger.opened(attempt, &endpoint.to_string(), &address)?;
                Ok(PortStream::new(stream, early, address, connection, self.ledger.clone()))
            }
            Err(error) => {
                self.ledger.refused(attempt, &endpoint.to_string(), &error.to_string());
                Err(error)
            }
        }
    }

    async fn judge_and_open(
        &self,
        endpoint: &Endpoint,
        asker: Option<(&Caller, &RequestMeta)>,
    ) -> Result<(NodeStream, BytesMut, String), PortError> {
        let facts = &self.handle.facts;
        if let Some((caller, request)) = asker {
            let judged = forwarding::judge(&self.server, caller.principal(), facts, endpoint, request).await;
            judged.map_err(|_| PortError::NotJudged)?.map_err(|denial| PortError::Denied(denial.message))?;
        }
        let granted = self.ledger.granted();
        let without = granted.contains(endpoint);
        let opened = self.open(endpoint, !without).await;
        let opened = match opened {
            // The node has forgotten it, or never got it.
            Err(PortError::Refused { code, .. }) if without && code == GRANT_REQUIRED => {
                self.open(endpoint, true).await
            }
            opened => opened,
        };
        if opened.is_ok() {
            granted.add(endpoint);
        }
        opened
    }

    async fn open(&self, endpoint: &Endpoint, with_grant: bool) -> Result<(NodeStream, BytesMut, String), PortError> {
        let facts = &self.handle.facts;
        let not_connected = || PortError::NotConnected(facts.node_name.clone());
        let link = self.server.gateway.nodes.get(&facts.node).filter(|link| link.epoch == facts.epoch);
        let link = link.ok_or_else(not_connected)?;
        let opened = link.open_moving(&self.server.gateway.lanes).await;
        let (mut stream, token) = opened.map_err(|_| not_connected())?;
        let lane = token.map(|token| Bytes::copy_from_slice(token.as_bytes())).unwrap_or_default();
        let grant = match with_grant {
            true => launch::extension(&self.server, facts, endpoint, &link),
            false => Bytes::new(),
        };
        let session_id = facts.id.to_string();
        let endpoint = Some(EndpointWish::from(endpoint));
        let wish = open::Wish::Connect(Connect { session_id, endpoint, grant, lane, ..Connect::default() });
        let mut first = BytesMut::new();
        // A path and a grant of one endpoint fit a frame by far.
        let _ = Frame::Open(Box::new(Open { wish: Some(wish) })).encode(&mut first);
        let answered = timeout(CONNECT_LIMIT, async {
            stream.write_all(&first).await.ok()?;
            stream.flush().await.ok()?;
            let mut reader = FrameReader::new(stream);
            let answer = reader.read(FrameSet::ANSWER).await.ok()??;
            Some((answer, reader))
        });
        match answered.await.map_err(|_| PortError::TimedOut)?.ok_or_else(not_connected)? {
            (Frame::Accepted(accepted), reader) => {
                let (stream, early) = reader.into_parts();
                Ok((stream, early, address(*accepted)))
            }
            (Frame::Refused(refused), _) => Err(from_node(refused)),
            // FrameSet::ANSWER lets nothing else through.
            _ => Err(not_connected()),
        }
    }
}

/// Takes a node's word for the address, cut to what addresses have; it is for recording and trail.
fn address(accepted: Accepted) -> String {
    accepted.address.chars().filter(|c| c.is_ascii_hexdigit() || ".:[]".contains(*c)).take(64).collect()
}

/// Cuts a node's refusal to a word and a line, without anything that moves a cursor (T-69).
fn from_node(refused: Refused) -> PortError {
    let code = refused.code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let message = refused.message.chars().filter(|c| !c.is_control()).take(500).collect();
    PortError::Refused { code, message }
}
