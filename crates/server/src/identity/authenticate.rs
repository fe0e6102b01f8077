//! From a signed request to a caller: the one place where signatures are verified (T-44).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand;
use munjigi_core::id::AccessKeyId;
use munjigi_core::sigv4::{self, Rules, Scope, SecretKey, SigV4Error, SigningKey, TargetForm};
use munjigi_core::time::Timestamp;

use super::Caller;
use crate::Server;
use crate::api::error::ApiError;

/// Most derived keys kept; one per access key, day, region and service.
const MAX_DERIVED: usize = 4096;
/// The use of a key is written down at most this often.
const USE_RECORDED_EVERY: Duration = Duration::from_secs(60);

/// What verification keeps between requests.
pub(crate) struct Authenticator {
    derived: Mutex<HashMap<(AccessKeyId, Scope), SigningKey>>,
    /// When each key's use was last written down.
    used: Mutex<HashMap<AccessKeyId, Timestamp>>,
    /// Signs in place of the secret of a key that nobody has, so that it costs the same.
    nobody: SecretKey,
}

/// A verified request.
pub(crate) struct Authenticated {
    /// Who signed.
    pub(crate) caller: Caller,
    /// The region of the scope.
    pub(crate) region: String,
    /// The hash of the signature (T-49).
    pub(crate) replay_id: [u8; 32],
    /// The key's use is due to be written down.
    pub(crate) use_is_due: bool,
}

/// A request that proved nobody.
pub(crate) struct Unauthenticated {
    /// Why.
    pub(crate) error: ApiError,
    /// The access key id it presented, which proves nothing.
    pub(crate) presented: Option<String>,
}

impl Authenticator {
    /// Builds an empty one.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let mut bytes = [0; 20];
        rand::fill(&mut bytes).context("the system has no randomness")?;
        let nobody = SecretKey::new(hex::encode(bytes));
        Ok(Self { derived: Mutex::default(), used: Mutex::default(), nobody })
    }

    /// Verifies a request to a service. Unknown and inactive keys take the same way as wrong signatures; their error
    /// does not say which of both they are.
    pub(crate) fn authenticate(
        &self,
        server: &Server,
        request: &sigv4::Request<'_>,
        service: &str,
        now: Timestamp,
    ) -> Result<Authenticated, Unauthenticated> {
        let presented = sigv4::parse(request, TargetForm::CanonicalOnly)
            .map_err(|error| Unauthenticated { error: error.into(), presented: None })?;
        let key_text = presented.access_key_id().to_owned();
        let refused = |error| Unauthenticated { error, presented: Some(key_text.clone()) };

        let known = AccessKeyId::parse(&key_text).ok().and_then(|id| server.identities.by_access_key(&id));
        // Long-term keys have no token; temporary ones, which do, are none of the known keys.
        let has_token = presented.session_token().is_some();
        let signing_key = match &known {
            Some((key, _)) => match self.signing_key(server, key, presented.scope()) {
                Ok(signing_key) => signing_key,
                Err(cause) => return Err(refused(ApiError::internal(cause))),
            },
            None => SigningKey::derive(&self.nobody, presented.scope()),
        };

        let region = presented.scope().region().to_owned();
        let config = &server.config;
        let accepted = [config.region.as_str(), &region];
        let any = config.accepted_regions.is_empty() || config.accepted_regions.contains(&region);
        let regions = if any { accepted.as_slice() } else { accepted.get(..1).unwrap_or_default() };
        let verified = presented.verify(&signing_key, now, &Rules::new(regions, service));
        let (known, verified) = match (known, verified) {
            (Some(known), Ok(verified)) if !has_token => (known, verified),
            (_, Err(error)) if error != SigV4Error::Mismatch => return Err(refused(error.into())),
            (Some(_), Err(error)) => return Err(refused(error.into())),
            _ => return Err(refused(ApiError::InvalidClientToken)),
        };
        let (key, principal) = known;
        Ok(Authenticated {
            use_is_due: self.use_is_due(&key.id, now),
            caller: Caller::new(principal, Some(key.id)),
            region,
            replay_id: verified.replay_id(),
        })
    }

    fn signing_key(&self, server: &Server, key: &super::AccessKey, scope: &Scope) -> anyhow::Result<SigningKey> {
        let name = (key.id.clone(), scope.clone());
        if let Some(derived) = lock(&self.derived).get(&name) {
            return Ok(derived.clone());
        }
        let secret = server
            .store
            .open_key_secret(&key.id, &key.sealed_secret)
            .with_context(|| format!("failed to open the secret of {}", key.id))?;
        let derived = SigningKey::derive(&SecretKey::new(secret.expose().clone()), scope);
        let mut cache = lock(&self.derived);
        if cache.len() >= MAX_DERIVED {
            cache.clear();
        }
        cache.insert(name, derived.clone());
        Ok(derived)
    }

    fn use_is_due(&self, key: &AccessKeyId, now: Timestamp) -> bool {
        let mut used = lock(&self.used);
        if used.get(key).is_some_and(|last| now < last.plus(USE_RECORDED_EVERY)) {
            return false;
        }
        if used.len() >= MAX_DERIVED {
            used.retain(|_, last| now < last.plus(USE_RECORDED_EVERY));
        }
        used.insert(key.clone(), now);
        true
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
