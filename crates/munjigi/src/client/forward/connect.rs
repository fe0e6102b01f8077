//! One connection of a session: asked for on a stream of its own, and from the answer on its bytes.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use munjigi_core::wire::message::{Connect, Open, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{Opener, Stream};
use tokio::io::{AsyncReadExt as _, Chain, Join, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::client::road::why;

/// How long the node may take to connect to the destination; its own limit comes first.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long a connection waits for a link that is lost.
const LINK_LIMIT: Duration = Duration::from_secs(60);
/// Most connections at a time; a link carries no more streams. Further ones wait where they are accepted.
const MAX_CONNECTIONS: usize = 500;

/// The far end of a connection, as bytes.
pub(crate) type Far = Join<Chain<Cursor<BytesMut>, ReadHalf<Stream>>, WriteHalf<Stream>>;

/// A connection that stands.
pub(crate) struct Connected {
    /// Its bytes. `shutdown` ends this side's direction; dropped without it, the other end sees a reset.
    pub(crate) far: Far,
    /// Its place among the connections of its session.
    _place: OwnedSemaphorePermit,
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The server or the node said no.
    #[error("{message} ({code})")]
    Refused {
        /// For programs, e.g. `ConnectionRefused`.
        code: String,
        /// For people.
        message: String,
    },
    /// The link broke before there was an answer.
    #[error("{0}")]
    Broken(String),
    /// There was no answer in time.
    #[error("the node did not connect within {} s", CONNECT_LIMIT.as_secs())]
    Late,
    /// The session is over.
    #[error("the session is over")]
    Over,
}

/// Where the session is to be had.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// On this link.
    Up(Up),
    /// Nowhere at the moment.
    Down,
    /// Never again.
    Over,
}

/// A link with the session on it.
#[derive(Debug, Clone)]
pub(crate) struct Up {
    /// Opens streams.
    pub(crate) opener: Opener,
    /// The session.
    pub(crate) session_id: String,
}

/// Makes connections of a session; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// From the session's task.
    state: watch::Receiver<State>,
    places: Arc<Semaphore>,
}

impl Connector {
    /// Makes connections where the state says.
    pub(super) fn new(state: watch::Receiver<State>) -> Self {
        Self { state, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// Waits until there is room for one more connection.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => place,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes a connection on the node, and waits for a link if there is none.
    pub(crate) async fn connect(&self) -> Result<Connected, ConnectError> {
        let place = self.place().await;
        self.connect_in(place).await
    }

    /// As [`Self::connect`], in a place that was taken before.
    pub(crate) async fn connect_in(&self, place: OwnedSemaphorePermit) -> Result<Connected, ConnectError> {
        let up = timeout(LINK_LIMIT, self.up());
        let up = up.await.map_err(|_| ConnectError::Broken("there is no link to the server".to_owned()))??;
        let far = timeout(CONNECT_LIMIT, open(up)).await.map_err(|_| ConnectError::Late)??;
        Ok(Connected { far, _place: place })
    }

    /// Waits for a link.
    async fn up(&self) -> Result<Up, ConnectError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Down)).await;
        match settled.map(|state| state.clone()) {
            Ok(State::Up(up)) => Ok(up),
            _ => Err(ConnectError::Over),
        }
    }
}

async fn open(up: Up) -> Result<Far, ConnectError> {
    let broken = |why: String| ConnectError::Broken(why);
    let stream = up.opener.open().await.map_err(|error| broken(error.to_string()))?;
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let wish = open::Wish::Connect(Connect { session_id: up.session_id, ..Connect::default() });
    writer.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).map_err(|error| broken(error.to_string()))?;
    writer.flush().await.map_err(|error| broken(why(&error)))?;
    match reader.read(FrameSet::ANSWER).await {
        Ok(Some(Frame::Accepted(_))) => {}
        Ok(Some(Frame::Refused(refused))) => {
            return Err(ConnectError::Refused { code: refused.code, message: refused.message });
        }
        Ok(_) => return Err(broken("the server closed the connection".to_owned())),
        Err(error) => return Err(broken(why(&error))),
    }
    let (read, early) = reader.into_parts();
    Ok(tokio::io::join(Cursor::new(early).chain(read), writer.into_inner()))
}
