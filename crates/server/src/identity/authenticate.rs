//! From a signed request to a caller: the one place where signatures are verified (T-44).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::rand;
use munjigi_core::id::AccessKeyId;
use munjigi_core::sigv4::{self, Rules, Scope, SecretKey, SigV4Error, SigningKey, TargetForm};
use munjigi_core::time::Timestamp;

use super::session_token::Statement;
use super::{AccessKey, Caller, Principal};
use crate::Server;
use crate::api::error::ApiError;
use crate::config::Config;

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
    /// does not say which of both they are. A presigned request is refused unless `presigned` gives its longest life
    /// (T-46).
    pub(crate) fn authenticate(
        &self,
        server: &Server,
        request: &sigv4::Request<'_>,
        service: &str,
        presigned: Option<Duration>,
        now: Timestamp,
    ) -> Result<Authenticated, Unauthenticated> {
        let presented = sigv4::parse(request, TargetForm::CanonicalOnly)
            .map_err(|error| Unauthenticated { error: error.into(), presented: None })?;
        let key_text = presented.access_key_id().to_owned();
        let refused = |error| Unauthenticated { error, presented: Some(key_text.clone()) };

        let known = AccessKeyId::parse(&key_text).ok().and_then(|id| known(server, id, presented.session_token()));
        let signing_key = match &known {
            Some(known) => match self.signing_key(server, known, presented.scope()) {
                Ok(signing_key) => signing_key,
                Err(cause) => return Err(refused(ApiError::internal(cause))),
            },
            None => SigningKey::derive(&self.nobody, presented.scope()),
        };

        let region = presented.scope().region().to_owned();
        let regions = accepted_regions(&server.config, &region);
        let rules = Rules { max_expires: presigned, ..Rules::new(&regions, service) };
        let verified = presented.verify(&signing_key, now, &rules);
        let (known, verified) = match (known, verified) {
            (Some(known), Ok(verified)) => (known, verified),
            (_, Err(error)) if error != SigV4Error::Mismatch => return Err(refused(error.into())),
            (Some(_), Err(error)) => return Err(refused(error.into())),
            (None, _) => return Err(refused(ApiError::InvalidClientToken)),
        };
        let replay_id = verified.replay_id();
        let (principal, key, use_is_due) = match known {
            Known::LongTerm(key, principal) => {
                let use_is_due = self.use_is_due(&key.id, now);
                (principal, key.id, use_is_due)
            }
            Known::Temporary(_, statement) if statement.has_expired(now) => {
                return Err(refused(ApiError::ExpiredToken));
            }
            Known::Temporary(key, statement) => match server.identities.of_statement(&Arc::new(statement)) {
                Some(principal) => (principal, key, false),
                None => return Err(refused(ApiError::InvalidClientToken)),
            },
        };
        Ok(Authenticated { use_is_due, caller: Caller::new(principal, Some(key)), region, replay_id })
    }

    fn signing_key(&self, server: &Server, known: &Known, scope: &Scope) -> anyhow::Result<SigningKey> {
        let name = (known.id().clone(), scope.clone());
        if let Some(derived) = lock(&self.derived).get(&name) {
            return Ok(derived.clone());
        }
        let secret = match known {
            Known::LongTerm(key, _) => {
                let opened = server.store.open_key_secret(&key.id, &key.sealed_secret);
                let secret = opened.with_context(|| format!("failed to open the secret of {}", key.id))?;
                SecretKey::new(secret.expose().clone())
            }
            Known::Temporary(key, _) => {
                server.session_tokens.secret_of(key).context("the secret of a temporary key cannot be derived")?
            }
        };
        let derived = SigningKey::derive(&secret, scope);
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

/// A key whose secret this server has, before the signature is verified.
enum Known {
    /// A user's own.
    LongTerm(AccessKey, Arc<Principal>),
    /// Issued with a token, which came along and opened.
    Temporary(AccessKeyId, Statement),
}

impl Known {
    fn id(&self) -> &AccessKeyId {
        match self {
            Self::LongTerm(key, _) => &key.id,
            Self::Temporary(id, _) => id,
        }
    }
}

/// Finds the key. Long-term keys come without a token and temporary ones with their own; whatever else comes is no key
/// (aws-api B.5).
fn known(server: &Server, id: AccessKeyId, token: Option<&str>) -> Option<Known> {
    match token {
        None => server.identities.by_access_key(&id).map(|(key, owner)| Known::LongTerm(key, owner)),
        Some(token) => {
            let statement = server.session_tokens.read(&id, token)?;
            Some(Known::Temporary(id, statement))
        }
    }
}

/// Returns the regions accepted in a scope that names `presented`.
pub(super) fn accepted_regions<'a>(config: &'a Config, presented: &'a str) -> Vec<&'a str> {
    let any = config.accepted_regions.is_empty() || config.accepted_regions.iter().any(|region| region == presented);
    std::iter::once(config.region.as_str()).chain(any.then_some(presented)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
