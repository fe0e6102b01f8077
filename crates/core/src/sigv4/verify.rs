//! Step two: the presented credentials against a key, the time and what this call expects.

use std::time::Duration;

use aws_lc_rs::digest;

use super::{Form, MAX_SKEW, Presented, Scope, SigV4Error, SigningKey};
use crate::secret::Secret;
use crate::time::Timestamp;

/// What a call expects of its signature.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The regions accepted in the scope, compared exactly (T-45).
    pub regions: &'a [&'a str],
    /// The service the request was routed to; the scope must name it exactly (T-45).
    pub service: &'a str,
    /// How far the signer's clock may be off, either way; usually [`MAX_SKEW`].
    pub max_skew: Duration,
    /// Longest accepted life of a presigned request; `None` refuses presigned requests (T-46: at most 60 s, and only
    /// for the few calls that allow it).
    pub max_expires: Option<Duration>,
}

impl<'a> Rules<'a> {
    /// Returns the usual rules: five minutes of skew, nothing presigned.
    pub const fn new(regions: &'a [&'a str], service: &'a str) -> Self {
        Self { regions, service, max_skew: MAX_SKEW, max_expires: None }
    }
}

/// Proof that a request's signature was right for the key of the access key id it names. Only
/// [`Presented::verify`] makes one.
#[derive(Debug)]
pub struct Verified {
    access_key_id: String,
    scope: Scope,
    signed_at: Timestamp,
    form: Form,
    session_token: Option<Secret<String>>,
    replay_id: [u8; 32],
}

impl Verified {
    /// Returns the access key id whose key signed.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Returns the verified scope.
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the signing time.
    pub const fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// Returns where the credentials stood.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Returns the session token that the signature covers.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.expose().as_str())
    }

    /// Returns the SHA-256 of the signature: what a replay cache remembers instead of the signature (T-49).
    pub const fn replay_id(&self) -> [u8; 32] {
        self.replay_id
    }
}

impl Presented {
    /// Verifies the signature with the key derived for [`Presented::scope`].
    ///
    /// For an access key id that nobody has, verify with a key of random bytes and answer as for an unknown key:
    /// both cases then take the same time.
    pub fn verify(self, key: &SigningKey, now: Timestamp, rules: &Rules<'_>) -> Result<Verified, SigV4Error> {
        check_scope(&self.scope, rules)?;
        check_time(self.signed_at, self.form, now, rules)?;
        if !key.matches(&self.string_to_sign, self.signature.expose()) {
            return Err(SigV4Error::Mismatch);
        }
        let replay_id = sha256(self.signature.expose());
        Ok(Verified {
            access_key_id: self.access_key_id,
            scope: self.scope,
            signed_at: self.signed_at,
            form: self.form,
            session_token: self.session_token,
            replay_id,
        })
    }
}

/// Checks that the scope is the one the call expects (T-45).
pub(super) fn check_scope(scope: &Scope, rules: &Rules<'_>) -> Result<(), SigV4Error> {
    if scope.service() != rules.service {
        return Err(SigV4Error::WrongScope("correct service"));
    }
    if !rules.regions.contains(&scope.region()) {
        return Err(SigV4Error::WrongScope("a valid region"));
    }
    Ok(())
}

/// Checks that the signature is neither too old nor from the future.
pub(super) fn check_time(
    signed_at: Timestamp,
    form: Form,
    now: Timestamp,
    rules: &Rules<'_>,
) -> Result<(), SigV4Error> {
    let latest = now.plus(rules.max_skew);
    if signed_at > latest {
        return Err(SigV4Error::NotYetCurrent { signed: signed_at, limit: latest });
    }
    match form {
        Form::Header => {
            if signed_at.plus(rules.max_skew) < now {
                let limit = Timestamp(now.0.saturating_sub(micros(rules.max_skew)));
                return Err(SigV4Error::Expired { signed: signed_at, limit });
            }
        }
        Form::Query { expires_seconds } => {
            let max = rules.max_expires.unwrap_or(Duration::ZERO);
            let life = Duration::from_secs(u64::from(expires_seconds));
            if life > max {
                return Err(SigV4Error::ExpiresTooLong(max.as_secs()));
            }
            let expiry = signed_at.plus(life);
            if expiry < now {
                return Err(SigV4Error::Expired { signed: expiry, limit: now });
            }
        }
    }
    Ok(())
}

/// Returns the SHA-256 of bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(digest::digest(&digest::SHA256, bytes).as_ref()) {
        *to = *from;
    }
    out
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
