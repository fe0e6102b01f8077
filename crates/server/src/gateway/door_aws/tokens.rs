//! Tokens of data channels: what `StartSession` and `ResumeSession` give out and the open message spends.
//!
//! A token opens one session's channel, once, within a minute, for the caller that it was given to. Only hashes are
//! kept, in memory: a restart makes all of them worthless, and clients ask for new ones.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use munjigi_core::id::SessionId;
use tokio::time::Instant;

use crate::identity::Caller;
use crate::random;

/// How long a token may be spent (aws-api C.3).
pub const TOKEN_LIFE: Duration = Duration::from_secs(60);
/// How long a token that was not spent in time is remembered, so that its refusal can say why.
const MEMORY: Duration = Duration::from_secs(600);
/// Unspent tokens of one session; a further one displaces the oldest.
const MOST_PER_SESSION: usize = 8;
/// Longest token looked at, characters. Ours have 43.
const MAX_TOKEN: usize = 128;

/// Unspent tokens.
#[derive(Default)]
pub struct Tokens {
    by_session: Mutex<HashMap<SessionId, Vec<Issued>>>,
}

struct Issued {
    hash: [u8; 32],
    caller: Caller,
    at: Instant,
}

/// Why a token opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was never given out for this session, or was spent.
    #[error("the token is not one for this session, or was used before; call ResumeSession for a new one")]
    Unknown,
    /// It was given out more than [`TOKEN_LIFE`] ago.
    #[error("the token is older than a minute; call ResumeSession for a new one")]
    Late,
}

impl Tokens {
    /// Makes a token for a session that the caller may open.
    pub fn issue(&self, session: &SessionId, caller: &Caller, now: Instant) -> String {
        let token = URL_SAFE_NO_PAD.encode(random::bytes::<32>());
        let mut by_session = self.lock();
        // Few sessions have unspent tokens at a time: those that start or come back within these minutes.
        by_session.retain(|_, tokens| {
            tokens.retain(|token| now.saturating_duration_since(token.at) < MEMORY);
            !tokens.is_empty()
        });
        let tokens = by_session.entry(session.clone()).or_default();
        if tokens.len() >= MOST_PER_SESSION {
            tokens.remove(0);
        }
        tokens.push(Issued { hash: hash(&token), caller: caller.clone(), at: now });
        token
    }

    /// Spends a token. Every candidate is compared in full, so that the time tells nothing.
    pub fn spend(&self, session: &SessionId, token: &str, now: Instant) -> Result<Caller, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::Unknown);
        }
        let presented = hash(token);
        let mut by_session = self.lock();
        let tokens = by_session.get_mut(session).ok_or(TokenError::Unknown)?;
        let mut found = None;
        for (index, issued) in tokens.iter().enumerate() {
            if verify_slices_are_equal(&issued.hash, &presented).is_ok() {
                found = Some(index);
            }
        }
        let issued = tokens.remove(found.ok_or(TokenError::Unknown)?);
        if tokens.is_empty() {
            by_session.remove(session);
        }
        match now.saturating_duration_since(issued.at) {
            age if age < TOKEN_LIFE => Ok(issued.caller),
            _ => Err(TokenError::Late),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Vec<Issued>>> {
        self.by_session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> [u8; 32] {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().unwrap_or([0; 32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> SessionId {
        SessionId::parse(&format!("{name}-0123456789abcdef0")).unwrap()
    }

    #[test]
    fn a_token_opens_its_session_once_and_no_other() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let (one, other) = (session("one"), session("other"));
        let token = tokens.issue(&one, &Caller::anonymous(), now);
        assert_eq!(tokens.spend(&other, &token, now).unwrap_err(), TokenError::Unknown);
        assert_eq!(tokens.spend(&one, "", now).unwrap_err(), TokenError::Unknown);
        assert_eq!(tokens.spend(&one, &token.to_lowercase(), now).unwrap_err(), TokenError::Unknown);
        assert_eq!(tokens.spend(&one, &token.repeat(1000), now).unwrap_err(), TokenError::Unknown);
        assert!(tokens.spend(&one, &token, now).is_ok());
        assert_eq!(tokens.spend(&one, &token, now).unwrap_err(), TokenError::Unknown);
        assert!(tokens.lock().is_empty());
    }

    #[test]
    fn a_late_token_is_refused_and_spent() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let one = session("one");
        let token = tokens.issue(&one, &Caller::anonymous(), now);
        assert_eq!(tokens.spend(&one, &token, now + TOKEN_LIFE).unwrap_err(), TokenError::Late);
        assert_eq!(tokens.spend(&one, &token, now).unwrap_err(), TokenError::Unknown);
        let token = tokens.issue(&one, &Caller::anonymous(), now);
        let just_in_time = now + TOKEN_LIFE - Duration::from_millis(1);
        assert!(tokens.spend(&one, &token, just_in_time).is_ok());
    }

    #[test]
    fn unspent_tokens_are_few_and_forgotten() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let one = session("one");
        let first = tokens.issue(&one, &Caller::anonymous(), now);
        for _ in 0..MOST_PER_SESSION {
            tokens.issue(&one, &Caller::anonymous(), now);
        }
        assert_eq!(tokens.lock().get(&one).map(Vec::len), Some(MOST_PER_SESSION));
        assert_eq!(tokens.spend(&one, &first, now).unwrap_err(), TokenError::Unknown);
        tokens.issue(&session("two"), &Caller::anonymous(), now + MEMORY);
        assert!(!tokens.lock().contains_key(&one));
    }
}
