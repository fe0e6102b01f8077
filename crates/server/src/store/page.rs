//! Pages of lists: opaque tokens that carry a place in a list, bound to the call they belong to.
//!
//! A token is the place and the time of its making in a sealed envelope whose associated data is the binding: only this
//! deployment can make or read it, and it serves no other caller, operation or parameters.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use munjigi_core::secret::{MasterKeys, Place, open_secret, seal_secret};
use munjigi_core::time::Timestamp;

use super::{StoreError, row};

/// How long a token can be used (`aws-api`, part C).
const LIFE: Duration = Duration::from_secs(3600);
/// Longest token that is looked at; ours have at most 320 characters, the length IAM allows a `Marker`.
const MAX_TOKEN: usize = 512;

/// One page of a list and, if there is more, the key of its last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T, C = String> {
    /// The entries, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins: behind this key.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// Makes a page of at most `limit` entries from a list that was read with a limit of one more.
    pub fn cut(mut items: Vec<T>, limit: usize, key: impl FnOnce(&T) -> C) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(key) } else { None };
        Self { items, next }
    }
}

/// The token was not made by this deployment for this call, or is older than an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token is not valid for this call, or has expired; start again without one")]
pub struct InvalidToken;

/// Makes and reads page tokens.
pub struct PageTokens {
    master: Arc<MasterKeys>,
}

impl PageTokens {
    pub(super) fn new(master: Arc<MasterKeys>) -> Self {
        Self { master }
    }

    /// Makes a token for a place in a list. `binding` names caller, operation and parameters.
    pub fn issue(&self, binding: &str, place: &str, now: Timestamp) -> Result<String, StoreError> {
        let mut plain = now.0.to_be_bytes().to_vec();
        plain.extend_from_slice(place.as_bytes());
        let sealed = seal_secret(self.master.current(), bound(binding), &plain, row::random()?)?;
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// Reads a token back.
    pub fn read(&self, binding: &str, token: &str, now: Timestamp) -> Result<String, InvalidToken> {
        if token.len() > MAX_TOKEN {
            return Err(InvalidToken);
        }
        let sealed = URL_SAFE_NO_PAD.decode(token).map_err(|_| InvalidToken)?;
        let plain = open_secret(&self.master, bound(binding), &sealed).map_err(|_| InvalidToken)?;
        let (made, place) = plain.expose().split_first_chunk().ok_or(InvalidToken)?;
        let made = Timestamp(i64::from_be_bytes(*made));
        if now.since(made) > LIFE || made.since(now) > LIFE {
            return Err(InvalidToken);
        }
        std::str::from_utf8(place).map(str::to_owned).map_err(|_| InvalidToken)
    }
}

fn bound(binding: &str) -> Place<'_> {
    Place { table: "page", row: binding, column: "token" }
}
