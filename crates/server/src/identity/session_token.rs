//! Session tokens: what temporary credentials stand for, sealed so that only this deployment reads or makes them.
//!
//! A token is a [`Statement`] as JSON, sealed under the deployment's token key for one access key id (T-37: nothing is
//! looked up, and an altered token does not open). The secret of the access key is derived from the same key, so that
//! neither is stored anywhere. Whether the principal still exists is not decided here.

use std::time::Duration;

use anyhow::Context as _;
use aws_lc_rs::{hkdf, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::arn::Arn;
use munjigi_core::id::{AccessKeyId, NodeId, UniqueId, base32_id};
use munjigi_core::secret::{MasterKey, MasterKeys, Place, Secret, open_secret, seal_secret};
use munjigi_core::sigv4::SecretKey;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::{Store, Tag};

/// Longest token, in characters (aws-api B.5).
pub const MAX_TOKEN: usize = 4096;
/// Name of the key among the sealed settings.
const KEY_NAME: &str = "session-token-key";
/// Version of the only token key there is; a rotation will add another.
const KEY_VERSION: u32 = 1;
/// Separates the secrets of access keys from everything else that is derived.
const SECRET_INFO: &[u8] = b"munjigi temporary secret v1";
/// Bytes behind a secret of 40 characters.
const SECRET_BYTES: usize = 30;

/// What temporary credentials stand for: fixed when they are issued, believed because of the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Who it is.
    pub who: StandsFor,
    /// When they were issued (`aws:TokenIssueTime`).
    pub issued: Timestamp,
    /// When they end.
    pub expires: Timestamp,
    /// The long-term key that they go back to; they are worth nothing once it is gone or inactive (T-104).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key: Option<AccessKeyId>,
    /// When the caller proved a second factor, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfa: Option<Timestamp>,
}

/// Whom temporary credentials stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum StandsFor {
    /// A user, by its unchanging id (`GetSessionToken`).
    User(UniqueId),
    /// A session of a role.
    Role(Box<RoleSession>),
    /// AWS's agent on a node.
    Node(NodeId),
}

/// A session of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleSession {
    /// The role, by its unchanging id.
    pub role: UniqueId,
    /// The name that the caller gave the session.
    pub name: String,
    /// Tags that were passed or inherited; they stand over those of the role.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// Keys of the tags that sessions made with this one inherit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transitive: Vec<String>,
    /// The policies that were passed; `None` if none were, which limits nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<SessionPolicies>,
    /// Who is behind it, as first said; every session made with this one carries it on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
    /// The web identity that it was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub web_identity: Option<WebIdentity>,
}

/// Policies passed when a session was made: it may do no more than they and its role allow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionPolicies {
    /// A document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Managed policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub managed: Vec<Arn>,
}

/// Whom an OpenID Connect provider vouched for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebIdentity {
    /// The provider's resource name.
    pub provider: Arn,
    /// For which audience.
    pub audience: String,
    /// What the provider calls the person or program.
    pub subject: String,
}

/// Freshly issued temporary credentials.
pub struct Issued {
    /// The access key, `ASIA…`.
    pub access_key: AccessKeyId,
    /// Its secret.
    pub secret: SecretKey,
    /// The sealed statement.
    pub token: Secret<String>,
}

/// Why no credentials were issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The statement makes a token longer than [`MAX_TOKEN`].
    #[error("the session policies and tags take too much room; pass less of them")]
    TooLarge,
    /// The system has no randomness, or the key cannot be used.
    #[error("a session token could not be made: {0}")]
    Failed(String),
}

/// Issues and opens session tokens.
pub struct SessionTokens {
    keys: MasterKeys,
    /// Derives the secrets; never sealed with.
    secrets: hkdf::Prk,
}

impl SessionTokens {
    /// Reads the deployment's token key, making it at the first start.
    pub async fn open(store: &Store) -> anyhow::Result<Self> {
        let key = match store.secret_setting(KEY_NAME).await? {
            Some(key) => key,
            None => {
                let mut bytes = vec![0; 32];
                rand::fill(&mut bytes).context("the system has no randomness")?;
                let fresh = Secret::new(bytes);
                store.set_secret_setting(KEY_NAME, fresh.expose()).await?;
                fresh
            }
        };
        let key: [u8; 32] = key.expose().as_slice().try_into().map_err(|_| {
            anyhow::anyhow!("the {KEY_NAME} in the database is damaged; restore the database from a backup")
        })?;
        Ok(Self::new(key))
    }

    /// Issues with a key of 32 random bytes.
    fn new(key: [u8; 32]) -> Self {
        let secrets = hkdf::Salt::new(hkdf::HKDF_SHA256, SECRET_INFO).extract(&key);
        Self { keys: MasterKeys::new(MasterKey::new(KEY_VERSION, key), Vec::new()), secrets }
    }

    /// Issues credentials that stand for `statement`.
    pub fn issue(&self, statement: &Statement) -> Result<Issued, IssueError> {
        let failed = |what: &str| IssueError::Failed(what.to_owned());
        let mut random = [0; 16 + 32];
        rand::fill(&mut random).map_err(|_| failed("the system has no randomness"))?;
        let (name, salt) = random.split_first_chunk::<16>().ok_or_else(|| failed("too few random bytes"))?;
        let access_key = AccessKeyId::parse(&base32_id("ASIA", name)).map_err(|cause| failed(&cause.to_string()))?;
        let salt = salt.try_into().map_err(|_| failed("too few random bytes"))?;

        let text = serde_json::to_vec(statement).map_err(|cause| failed(&cause.to_string()))?;
        let sealed = seal_secret(self.keys.current(), place(&access_key), &text, salt)
            .map_err(|cause| failed(&cause.to_string()))?;
        let token = STANDARD.encode(sealed);
        if token.len() > MAX_TOKEN {
            return Err(IssueError::TooLarge);
        }
        let secret = self.secret_of(&access_key).ok_or_else(|| failed("the token key cannot be used"))?;
        Ok(Issued { access_key, secret, token: Secret::new(token) })
    }

    /// Opens the token that came with an access key. `None` for whatever was not sealed here for this very key. Whether
    /// it has expired is the caller's to ask.
    pub fn read(&self, access_key: &AccessKeyId, token: &str) -> Option<Statement> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let sealed = STANDARD.decode(token).ok()?;
        let text = open_secret(&self.keys, place(access_key), &sealed).ok()?;
        serde_json::from_slice(text.expose()).ok()
    }

    /// Returns the secret of an access key issued here. It proves nothing without the token.
    pub fn secret_of(&self, access_key: &AccessKeyId) -> Option<SecretKey> {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                SECRET_BYTES
            }
        }
        let mut bytes = [0; SECRET_BYTES];
        self.secrets.expand(&[access_key.as_str().as_bytes()], Length).ok()?.fill(&mut bytes).ok()?;
        let bytes = Secret::new(bytes);
        Some(SecretKey::new(STANDARD.encode(bytes.expose())))
    }
}

impl Statement {
    /// Tells whether the credentials have ended.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now >= self.expires
    }

    /// Returns a statement that begins now.
    pub fn new(who: StandsFor, now: Timestamp, life: Duration) -> Self {
        Self { who, issued: now, expires: now.plus(life), source_key: None, mfa: None }
    }
}

fn place(access_key: &AccessKeyId) -> Place<'_> {
    Place { table: "session-token", row: access_key.as_str(), column: "statement" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        Statement::new(StandsFor::Node(node), Timestamp::from_secs(1_000), Duration::from_secs(900))
    }

    #[test]
    fn a_token_opens_for_its_own_key_and_says_what_was_sealed() {
        let tokens = SessionTokens::new([7; 32]);
        let issued = tokens.issue(&statement()).unwrap();
        assert!(issued.access_key.as_str().starts_with("ASIA"));
        assert_eq!(issued.secret.expose().len(), 40);
        assert_eq!(tokens.read(&issued.access_key, issued.token.expose()), Some(statement()));
        assert_eq!(tokens.secret_of(&issued.access_key).unwrap().expose(), issued.secret.expose());

        let other = tokens.issue(&statement()).unwrap();
        assert_ne!(other.secret.expose(), issued.secret.expose());
        assert_eq!(tokens.read(&other.access_key, issued.token.expose()), None, "the token of another key");
        assert_eq!(SessionTokens::new([8; 32]).read(&issued.access_key, issued.token.expose()), None, "elsewhere");
    }

    #[test]
    fn a_token_that_was_altered_or_cut_at_any_place_does_not_open() {
        let tokens = SessionTokens::new([7; 32]);
        let issued = tokens.issue(&statement()).unwrap();
        let token = issued.token.expose();
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            assert_eq!(tokens.read(&issued.access_key, &altered), None, "{at}");
            assert_eq!(tokens.read(&issued.access_key, &token[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_quarter_million_mutated_tokens_do_not_open() {
        let tokens = SessionTokens::new([7; 32]);
        let issued = tokens.issue(&statement()).unwrap();
        let token = issued.token.expose();
        crate::api::mutate::each(token.as_bytes(), 11, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            assert!(text == token.as_str() || tokens.read(&issued.access_key, &text).is_none());
        });
    }

    #[test]
    fn credentials_end_at_their_hour_and_not_before() {
        let statement = statement();
        assert!(!statement.has_expired(Timestamp::from_secs(1_000)));
        assert!(!statement.has_expired(Timestamp(1_899_999_999)));
        assert!(statement.has_expired(Timestamp::from_secs(1_900)));
    }
}
