//! Which sessions have a data channel: where a client that comes back finds its own, and who was told of an end.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use munjigi_core::id::SessionId;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::tokens::Tokens;
use crate::gateway::websocket::WebSocket;

/// Sockets that may wait for a channel's task.
const ARRIVALS: usize = 2;
/// Sessions of which is remembered that their client knows the end.
const MOST_TOLD: usize = 16 * 1024;

/// What a client hears that comes back to a session whose numbers this server no longer has.
pub const CHANNEL_LOST: &str = "the server was restarted and this client's place in the session is lost; the session itself may \
     still run: `munjigi attach` takes it up";

/// The data channels of this server.
#[derive(Default)]
pub struct Registry {
    /// Unspent tokens.
    pub tokens: Tokens,
    open: Mutex<HashMap<SessionId, Entry>>,
    told: Mutex<Told>,
    /// Sessions from before a restart.
    lost: Mutex<HashSet<SessionId>>,
}

struct Entry {
    client_id: String,
    /// Sent by the door, received by the channel's task.
    arrivals: mpsc::Sender<WebSocket>,
    displaced: CancellationToken,
}

/// What a channel's task holds of its place in the registry.
pub(super) struct Place {
    /// New sockets of the same client.
    pub(super) arrivals: mpsc::Receiver<WebSocket>,
    /// Cancelled when another client has the session.
    pub(super) displaced: CancellationToken,
}

/// What became of a socket that arrived.
pub(super) enum Comes {
    /// Its channel has it.
    Back,
    /// This client has no channel.
    Anew(WebSocket),
}

#[derive(Default)]
struct Told {
    sessions: HashSet<SessionId>,
    oldest_first: VecDeque<SessionId>,
}

impl Registry {
    /// Tells whether the session has a channel to which its client may come back.
    pub fn is_open(&self, session: &SessionId) -> bool {
        self.open().get(session).is_some_and(|entry| !entry.arrivals.is_closed())
    }

    /// Notes that a session outlived the server's run in which its channel was opened. Its client goes on counting from
    /// numbers that nobody has any more.
    pub fn lost(&self, session: &SessionId) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).insert(session.clone());
    }

    /// Tells whether a client may have a new channel to a running session. Not after a restart: the former client cannot
    /// be told from a new one, and would wait for ever for what it missed.
    pub fn may_begin(&self, session: &SessionId) -> bool {
        !self.lost.lock().unwrap_or_else(PoisonError::into_inner).contains(session)
    }

    /// Notes that the session's client knows of its end.
    pub fn told(&self, session: &SessionId) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.sessions.insert(session.clone()) {
            told.oldest_first.push_back(session.clone());
        }
        if told.oldest_first.len() > MOST_TOLD
            && let Some(oldest) = told.oldest_first.pop_front()
        {
            told.sessions.remove(&oldest);
        }
    }

    /// Tells whether the session's client knows of its end, as far as is remembered.
    pub fn was_told(&self, session: &SessionId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).sessions.contains(session)
    }

    /// Hands a socket to the channel of the same client, if there is one.
    pub(super) async fn comes(&self, session: &SessionId, client_id: &str, socket: WebSocket) -> Comes {
        let arrivals = {
            let open = self.open();
            open.get(session).filter(|entry| entry.client_id == client_id).map(|entry| entry.arrivals.clone())
        };
        match arrivals {
            Some(arrivals) => match arrivals.send(socket).await {
                Ok(()) => Comes::Back,
                Err(mpsc::error::SendError(socket)) => Comes::Anew(socket),
            },
            None => Comes::Anew(socket),
        }
    }

    /// Makes a client's channel the session's; a former one is displaced.
    pub(super) fn enter(&self, session: &SessionId, client_id: String) -> Place {
        let (sender, arrivals) = mpsc::channel(ARRIVALS);
        let displaced = CancellationToken::new();
        let entry = Entry { client_id, arrivals: sender, displaced: displaced.clone() };
        if let Some(former) = self.open().insert(session.clone(), entry) {
            former.displaced.cancel();
        }
        Place { arrivals, displaced }
    }

    /// Gives up a place. A place that was displaced is another's by now.
    pub(super) fn leave(&self, session: &SessionId, place: &Place) {
        if !place.displaced.is_cancelled() {
            self.open().remove(session);
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<SessionId, Entry>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: usize) -> SessionId {
        SessionId::parse(&format!("alice-{number:017x}")).unwrap()
    }

    #[test]
    fn a_displaced_client_does_not_remove_its_successor() {
        let (registry, id) = (Registry::default(), session(1));
        let first = registry.enter(&id, "one".to_owned());
        assert!(registry.is_open(&id));
        let second = registry.enter(&id, "two".to_owned());
        assert!(first.displaced.is_cancelled() && !second.displaced.is_cancelled());
        registry.leave(&id, &first);
        assert!(registry.is_open(&id));
        registry.leave(&id, &second);
        assert!(!registry.is_open(&id));
    }

    #[test]
    fn what_is_remembered_of_ends_is_bounded() {
        let registry = Registry::default();
        for number in 0..MOST_TOLD + 1 {
            registry.told(&session(number));
            registry.told(&session(number));
        }
        assert!(!registry.was_told(&session(0)));
        assert!(registry.was_told(&session(1)) && registry.was_told(&session(MOST_TOLD)));
    }
}
