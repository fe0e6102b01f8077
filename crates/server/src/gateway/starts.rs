//! Wishes for sessions that were granted lately, so that a client that repeats one after a broken link finds its
//! session instead of running its command twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use munjigi_core::id::SessionId;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::lock;

/// How long a wish is remembered.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Most wishes remembered; the oldest go first.
const MOST: usize = 65_536;
/// Longest token of a wish in bytes: a UUID with room.
const MAX_TOKEN_BYTES: usize = 64;

/// The session that a wish got, once it got one. Who comes while it is being granted waits.
pub type Granted = Arc<OnceCell<SessionId>>;

/// The wishes of the last minutes.
#[derive(Default)]
pub struct Starts {
    wishes: Mutex<HashMap<(String, String), (Granted, Instant)>>,
}

impl Starts {
    /// Returns the place of a wish by its owner's ARN and its token. A wish without a usable token has one of its own.
    pub fn of(&self, owner: &str, token: &str, now: Instant) -> Granted {
        if token.is_empty() || token.len() > MAX_TOKEN_BYTES {
            return Granted::default();
        }
        let mut wishes = lock(&self.wishes);
        if wishes.len() >= MOST {
            wishes.retain(|_, (_, since)| now < *since + REMEMBERED);
        }
        if wishes.len() >= MOST {
            // More starts in five minutes than anybody makes: forgetting costs a repeat its recognition, no more.
            wishes.clear();
        }
        let place = wishes.entry((owner.to_owned(), token.to_owned())).or_insert_with(|| (Granted::default(), now));
        if now >= place.1 + REMEMBERED {
            *place = (Granted::default(), now);
        }
        place.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repeated_wish_gets_the_same_session_for_five_minutes() {
        let starts = Starts::default();
        let session = SessionId::parse("alice-0123456789abcdef0").unwrap();
        let now = Instant::now();
        starts.of("alice", "t", now).set(session.clone()).unwrap();
        let soon = now + REMEMBERED - Duration::from_secs(1);
        assert_eq!(starts.of("alice", "t", soon).get(), Some(&session));
        for (owner, token) in [("bob", "t"), ("alice", "u"), ("alice", "")] {
            assert_eq!(starts.of(owner, token, soon).get(), None, "{owner} {token}");
        }
        assert_eq!(starts.of("alice", "t", now + REMEMBERED).get(), None);
    }
}
