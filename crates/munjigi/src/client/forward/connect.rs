//! One connection of a session: asked for on a stream of its own, and from the answer on its bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::endpoint::Endpoint;
use munjigi_core::wire::message::{Accepted, Connect, Open, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{MovingStream, Opener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::Near;
use super::reverse::Reverses;
use crate::client::road::why;

/// How long the node may take to connect to the destination; its own limit comes first.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long a connection waits for a link, a node or a session that is away.
const AWAY_LIMIT: Duration = Duration::from_secs(30);
/// The pause before a connection is tried again that was refused for want of a node.
const AWAY_PAUSE: Duration = Duration::from_millis(500);
/// Most connections at a time; a session has no more. Further ones wait where they are accepted.
const MAX_CONNECTIONS: usize = 250;

/// The far end of a connection, as bytes.
pub(crate) type Far = MovingStream;

/// A connection that stands.
pub(crate) struct Connected {
    /// Its bytes. `shutdown` ends this side's direction; dropped without it, the other end sees a reset.
    pub(crate) far: Far,
    /// What the node connected to, `address:port`.
    pub(crate) address: String,
    /// The session that it belongs to.
    pub(crate) session_id: String,
    /// Number of the listener, if it stands for one.
    pub(crate) listener: u64,
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
    /// The link broke before there was an answer, or there was none.
    #[error("{0}")]
    Broken(String),
    /// There was no answer in time.
    #[error("the node did not connect within {} s", CONNECT_LIMIT.as_secs())]
    Late,
    /// The session is over.
    #[error("the session is over")]
    Over,
}

impl ConnectError {
    /// Tells whether another session, or the same when its node is back, may be able to connect.
    fn is_of_the_session(&self) -> bool {
        let of_the_session = ["TargetNotConnected", "SessionEnded", "DoesNotExistException"];
        matches!(self, Self::Refused { code, .. } if of_the_session.contains(&code.as_str()))
    }

    /// Tells whether it may be worth asking again.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Broken(_)) || self.is_of_the_session()
    }
}

/// Where the session is to be had.
#[derive(Debug, Clone)]
pub(crate) enum State {
    /// On this link.
    Up(Up),
    /// Nowhere at the moment.
    Down,
    /// It was idle for too long; the next connection starts another one.
    Resting,
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
    /// Name of its node.
    pub(crate) node: String,
}

/// Makes connections of a session; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connector {
    /// From the session's task.
    state: watch::Receiver<State>,
    /// To the session's task: this session cannot be connected with, or none is there; another one is wanted. `None` if
    /// there is never another one.
    wanted: Option<mpsc::Sender<Wanted>>,
    places: Arc<Semaphore>,
    reverses: Arc<Reverses>,
}

/// A wish for another session than this one.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// The session that is of no use at the moment; empty if there was none.
    pub(crate) instead_of: String,
}

impl Connector {
    /// Makes connections where the state says.
    pub(super) fn new(
        state: watch::Receiver<State>,
        wanted: Option<mpsc::Sender<Wanted>>,
        reverses: Arc<Reverses>,
    ) -> Self {
        Self { state, wanted, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)), reverses }
    }

    /// Returns what the listeners on the node lead to.
    pub(super) fn reverses(&self) -> &Arc<Reverses> {
        &self.reverses
    }

    /// Returns where the session is to be had, now and whenever that changes.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Returns the present link and session, if there is one.
    pub(crate) fn present(&self) -> Option<Up> {
        match &*self.state.borrow() {
            State::Up(up) => Some(up.clone()),
            State::Down | State::Resting | State::Over => None,
        }
    }

    /// Waits until there is room for one more connection.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.places).acquire_owned().await {
            Ok(place) => place,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes a connection on the node; `None` is the only place that the session leads to. While there is no link, no
    /// node or no session it waits, and asks for another session where there may be one.
    pub(crate) async fn connect(&self, endpoint: Option<&Endpoint>) -> Result<Connected, ConnectError> {
        let place = self.place().await;
        self.connect_in(place, endpoint, &mut Early::none()).await
    }

    /// As [`Self::connect`], in a place that was taken before. What is said early travels with the wish.
    pub(crate) async fn connect_in(
        &self,
        place: OwnedSemaphorePermit,
        endpoint: Option<&Endpoint>,
        early: &mut Early<'_>,
    ) -> Result<Connected, ConnectError> {
        let until = Instant::now() + AWAY_LIMIT;
        let no_link = |_| ConnectError::Broken("there is no link to the server".to_owned());
        loop {
            let up = timeout_at(until, self.up()).await.map_err(no_link)??;
            let mut changes = self.state.clone();
            changes.mark_unchanged();
            let opened = timeout(CONNECT_LIMIT, open(&up, endpoint, early)).await.unwrap_or(Err(ConnectError::Late));
            match opened {
                Ok((far, accepted)) => {
                    let Accepted { address, listener, .. } = accepted;
                    return Ok(Connected { far, address, listener, session_id: up.session_id, _place: place });
                }
                Err(error @ (ConnectError::Late | ConnectError::Over)) => return Err(error),
                Err(error) if Instant::now() >= until => return Err(error),
                // What was said already may have arrived: saying it twice could do it twice.
                Err(ConnectError::Broken(why)) if early.bytes.is_empty() => {
                    tracing::debug!(why, "a connection is asked for again");
                }
                Err(error) if error.is_of_the_session() && self.wanted.is_some() => self.want_another(up.session_id),
                Err(error) => return Err(error),
            }
            // Whichever comes first: the session is elsewhere, or it is time to ask again.
            let _ = timeout(AWAY_PAUSE, changes.changed()).await;
        }
    }

    /// Waits for a link with the session.
    async fn up(&self) -> Result<Up, ConnectError> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                State::Up(up) => return Ok(up.clone()),
                State::Over => return Err(ConnectError::Over),
                State::Resting => self.want_another(String::new()),
                State::Down => {}
            }
            state.changed().await.map_err(|_| ConnectError::Over)?;
        }
    }

    fn want_another(&self, instead_of: String) {
        if let Some(wanted) = &self.wanted {
            // Full: somebody else has asked already.
            let _ = wanted.try_send(Wanted { instead_of });
        }
    }
}

/// What a program says before its connection stands: sent with the wish, so that its answer is there a round trip
/// earlier. Kept, in case another session has to be asked.
pub(crate) struct Early<'n> {
    near: Option<&'n mut Near>,
    bytes: BytesMut,
}

impl<'n> Early<'n> {
    /// Most of it, in bytes; the rest follows when the connection stands.
    const MOST: usize = 16 * 1024;

    /// Nothing is said early.
    pub(crate) fn none() -> Early<'static> {
        Early { near: None, bytes: BytesMut::new() }
    }

    /// Whatever comes from `near`.
    pub(crate) fn from(near: &'n mut Near) -> Self {
        Self { near: Some(near), bytes: BytesMut::new() }
    }

    /// Waits for more, and returns it. Safe to drop and call again.
    async fn more(&mut self) -> Bytes {
        let had = self.bytes.len();
        let room = Self::MOST - had;
        if let Some(near) = self.near.as_deref_mut().filter(|_| room > 0) {
            match (&mut *near).take(room as u64).read_buf(&mut self.bytes).await {
                Ok(1..) => return Bytes::copy_from_slice(self.bytes.get(had..).unwrap_or_default()),
                // Its end, or what broke, shows again when the connection is carried.
                Ok(0) | Err(_) => self.near = None,
            }
        }
        std::future::pending().await
    }
}

async fn open(up: &Up, endpoint: Option<&Endpoint>, early: &mut Early<'_>) -> Result<(Far, Accepted), ConnectError> {
    let broken = |why: String| ConnectError::Broken(why);
    let stream = up.opener.open().await.map_err(|error| broken(error.to_string()))?;
    let (read, write) = tokio::io::split(stream);
    let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
    let wish = open::Wish::Connect(Connect {
        session_id: up.session_id.clone(),
        endpoint: endpoint.map(Into::into),
        ..Connect::default()
    });
    writer.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).map_err(|error| broken(error.to_string()))?;
    writer.flush().await.map_err(|error| broken(why(&error)))?;
    let mut write = writer.into_inner();
    let mut say = Bytes::copy_from_slice(&early.bytes);
    let answer = loop {
        if write.write_all(&say).await.is_err() || write.flush().await.is_err() {
            // The answer says why.
            early.near = None;
        }
        tokio::select! {
            answer = reader.read(FrameSet::ANSWER) => break answer,
            more = early.more() => say = more,
        }
    };
    let accepted = match answer {
        Ok(Some(Frame::Accepted(accepted))) => *accepted,
        Ok(Some(Frame::Refused(refused))) => {
            return Err(ConnectError::Refused { code: refused.code, message: refused.message });
        }
        Ok(_) => return Err(broken("the server closed the connection".to_owned())),
        Err(error) => return Err(broken(why(&error))),
    };
    let (read, early) = reader.into_parts();
    let mut far = up.opener.moving(read.unsplit(write), &accepted.lane);
    far.unread(early);
    Ok((far, accepted))
}
