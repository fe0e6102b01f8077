//! The tokens of CreateControlChannel and CreateDataChannel: each opens one channel, once, within a minute.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use munjigi_core::id::{NodeId, SessionId};
use tokio::time::Instant;

use crate::random;

/// How long a token lives. The agent uses it at once.
const LIFE: Duration = Duration::from_secs(60);
/// Most tokens kept; at the limit no new ones are given until old ones have ended (T-91).
const MOST: usize = 16_384;

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The control channel of a node.
    Control(NodeId),
    /// The data channel of a session on a node.
    Data(NodeId, SessionId),
}

/// The tokens given out, by their hash (T-37): nothing in memory is a token.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    given: HashMap<[u8; 32], (Place, Instant)>,
}

impl Tokens {
    /// Gives out a token: 256 random bits in 43 characters. `None` when too many are out.
    pub(super) fn give(&mut self, place: Place, now: Instant) -> Option<String> {
        if self.given.len() >= MOST {
            self.given.retain(|_, (_, since)| now < *since + LIFE);
        }
        if self.given.len() >= MOST {
            return None;
        }
        let token = URL_SAFE_NO_PAD.encode(random::bytes::<32>());
        self.given.insert(hash(&token), (place, now));
        Some(token)
    }

    /// Takes a token; it is worth nothing afterwards, whatever it was shown for.
    pub(super) fn take(&mut self, token: &str, place: &Place, now: Instant) -> bool {
        let given = self.given.remove(&hash(token));
        given.is_some_and(|(of, since)| of == *place && now < since + LIFE)
    }
}

fn hash(token: &str) -> [u8; 32] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or([0; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_opens_its_own_place_once_within_a_minute() {
        let mut tokens = Tokens::default();
        let now = Instant::now();
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        let control = Place::Control(node.clone());
        let data = Place::Data(node, SessionId::parse("alice-0123456789abcdef0").unwrap());
        let token = tokens.give(data.clone(), now).unwrap();
        assert!(tokens.take(&token, &data, now + LIFE / 2));
        assert!(!tokens.take(&token, &data, now), "a second time");
        let token = tokens.give(control.clone(), now).unwrap();
        assert!(!tokens.take(&token, &data, now), "for another place");
        assert!(!tokens.take(&token, &control, now), "shown once is used");
        let token = tokens.give(control.clone(), now).unwrap();
        assert!(!tokens.take(&token, &control, now + LIFE), "too late");
        for _ in 0..MOST {
            assert!(tokens.give(control.clone(), now).is_some());
        }
        assert!(tokens.give(control.clone(), now).is_none());
        assert!(tokens.give(control, now + LIFE).is_some());
    }
}
