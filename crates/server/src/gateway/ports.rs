//! Port sessions: connections from a node to the session's destination, for whoever carries them to a client.
//!
//! A port session has a hub like any other, which starts it, ends it and keeps its recording; its connections do not
//! pass through it. Each is a stream to the node ([`PortStream`]); the [`Ledger`] counts them for the hub. Which door the
//! bytes come from is not known here.

mod journal;
mod ledger;
mod relay;
mod stream;
mod summary;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::wire::message::{Accepted, Connect, Open, Refused, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FrameReader;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub use journal::Journal;
pub use ledger::Ledger;
pub use relay::relay;
pub use stream::PortStream;
pub use summary::ConnectionSummary;

use super::Handle;
use super::nodes::NodeStream;
use crate::Server;

/// How long a node may take to resolve, check and connect. Its own limits together are a little shorter.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Why no connection was made. The texts are for people; [`PortError::code`] is for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The session is over, or being ended.
    #[error("the port session is over")]
    Ended,
    /// The session has as many connections as it may have.
    #[error("the session has {} connections, as many as it can hold; close some", Ledger::MAX_CONNECTIONS)]
    TooMany,
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

    /// Makes one connection to the destination. Dropping the future gives it up.
    pub async fn connect(&self) -> Result<PortStream, PortError> {
        let attempt = self.ledger.attempt()?;
        let made = self.ledger.over().run_until_cancelled(self.open());
        match made.await.unwrap_or(Err(PortError::Ended)) {
            Ok((stream, early, address)) => {
                let connection = self.ledger.opened(attempt, &self.destination(), &address)?;
                Ok(PortStream::new(stream, early, address, connection, self.ledger.clone()))
            }
            Err(error) => {
                self.ledger.refused(attempt, &self.destination(), &error.to_string());
                Err(error)
            }
        }
    }

    fn destination(&self) -> String {
        self.handle.facts.destination().map(ToString::to_string).unwrap_or_default()
    }

    async fn open(&self) -> Result<(NodeStream, BytesMut, String), PortError> {
        let facts = &self.handle.facts;
        let not_connected = || PortError::NotConnected(facts.node_name.clone());
        let link = self.server.gateway.nodes.get(&facts.node).filter(|link| link.epoch == facts.epoch);
        let mut stream = link.ok_or_else(not_connected)?.open().await.map_err(|_| not_connected())?;
        let wish = open::Wish::Connect(Connect { session_id: facts.id.to_string(), ..Connect::default() });
        let mut first = BytesMut::new();
        // An `Open` with a session id fits a frame by far.
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
