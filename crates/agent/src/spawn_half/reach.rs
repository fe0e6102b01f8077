//! What the connections of a port session may go to, as the privileged half knows it from verified grants.
//!
//! The first grant names endpoints, or none; later ones add to them. The link half asks about every endpoint that it
//! does not know yet, and gets nothing that no grant names.

use std::collections::VecDeque;
use std::os::fd::AsFd;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::grant::Action;
use munjigi_core::id::SessionId;

use super::{Refusal, SpawnHalf};
use crate::clock;
use crate::halves::ToLink;

/// Most endpoints that later grants have added and that are remembered; older ones need a grant again.
const MAX_ADDED: usize = 1024;

/// The endpoints of one session.
#[derive(Debug)]
pub(super) struct Granted {
    first: Vec<Endpoint>,
    /// Newest last.
    added: VecDeque<Endpoint>,
    /// Whether a grant lets the OS user be an administrator of this node (T-54).
    privileged: bool,
}

impl Granted {
    /// Begins with those of the first grant.
    pub(super) fn new(first: Vec<Endpoint>, privileged: bool) -> Self {
        Self { first, added: VecDeque::new(), privileged }
    }

    /// Tells whether the OS user may be an administrator.
    pub(super) fn privileged(&self) -> bool {
        self.privileged
    }

    /// Returns those of the first grant.
    pub(super) fn first(&self) -> &[Endpoint] {
        &self.first
    }

    fn contains(&self, endpoint: &Endpoint) -> bool {
        self.first.contains(endpoint) || self.added.contains(endpoint)
    }

    fn add(&mut self, endpoints: Vec<Endpoint>) {
        for endpoint in endpoints {
            if !self.contains(&endpoint) {
                self.added.push_back(endpoint);
            }
        }
        while self.added.len() > MAX_ADDED {
            self.added.pop_front();
        }
    }
}

impl SpawnHalf {
    /// Answers whether a session may reach an endpoint; with what was reached, where this half must do it.
    pub(super) fn reach(&mut self, request: u64, session: &SessionId, endpoint: &Endpoint, grant: &[u8]) {
        let reached = self.try_reach(session, endpoint, grant).and_then(|()| match endpoint {
            Endpoint::Upload(_) | Endpoint::Download(_) | Endpoint::Files(_) | Endpoint::Rsync(_) => {
                self.start_copying(session, endpoint).map(Some)
            }
            Endpoint::Unix(path) => self.connect_unix(session, path).map(Some),
            Endpoint::Listen(_) | Endpoint::ListenUnix(_) | Endpoint::Agent => {
                self.start_listening(session, endpoint).map(Some)
            }
            Endpoint::Tcp(_) => Ok(None),
        });
        let (answer, socket) = match reached {
            Ok(socket) => (ToLink::Reached { request }, socket),
            Err(Refusal { code, reason, message }) => {
                tracing::warn!(reason, %session, "a connection was refused: {message}");
                (ToLink::Refused { request, code: code.to_owned(), message, reason: reason.to_owned() }, None)
            }
        };
        let descriptors: Vec<_> = socket.iter().map(AsFd::as_fd).collect();
        self.with_link(|link| link.send(&answer, &descriptors));
    }

    fn try_reach(&mut self, session: &SessionId, endpoint: &Endpoint, grant: &[u8]) -> Result<(), Refusal> {
        let over =
            || Refusal { code: "SessionEnded", reason: "SessionEnded", message: "the session is over".to_owned() };
        if !grant.is_empty() {
            // A grant is used up whatever becomes of it (T-24).
            let grant = self.judge.admit(grant, clock::now())?;
            let Action::Extend(endpoints) = grant.action else {
                let message = "the grant begins something and adds nothing to a session".to_owned();
                return Err(Refusal::denied("GrantMalformed", message));
            };
            if grant.session != *session {
                return Err(Refusal::denied("GrantForOtherSession", "the grant names another session".to_owned()));
            }
            let session = self.sessions.get_mut(session).ok_or_else(over)?;
            if grant.os_user != session.os_user {
                return Err(Refusal::denied("OsUserInvalid", "the grant names another OS user".to_owned()));
            }
            let granted = session.granted.as_mut().ok_or_else(over)?;
            granted.privileged |= grant.privileged;
            granted.add(endpoints);
        }
        let session = self.sessions.get(session).filter(|session| session.exited.is_none()).ok_or_else(over)?;
        if !session.granted.as_ref().is_some_and(|granted| granted.contains(endpoint)) {
            let message = format!("no grant lets the session reach {endpoint}");
            return Err(Refusal { code: "GrantRequired", reason: "GrantRequired", message });
        }
        Ok(())
    }
}
