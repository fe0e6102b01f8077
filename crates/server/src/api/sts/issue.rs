//! What the operations that issue temporary credentials share: their inputs' rules, the policies passed with them, and
//! the form of what they give.

use std::time::Duration;

use munjigi_core::arn::Arn;
use munjigi_core::policy::{Policy, PolicyKind, size};
use serde::{Deserialize, Deserializer, Serialize, de};

use crate::Server;
use crate::api::error::{ApiError, Denial};
pub(super) use crate::api::iam::names::TokenCode;
use crate::api::text::checked_text;
use crate::api::time::IsoTime;
use crate::identity::session_token::{IssueError, RoleSession, SessionPolicies, Statement};

/// Members that the audit record hides.
pub(super) const SECRET_FIELDS: &[&str] = &["SecretAccessKey", "SessionToken", "TokenCode", "WebIdentityToken"];
/// Bytes of policies and tags that a token has room for; what is said of it is a percentage.
const PACKED_LIMIT: usize = 2600;

checked_text! {
    /// The name of a session, or a source identity.
    SessionName: |text| name(text, 2..=64), "a session name must have 2 to 64 letters, digits or _+=,.@-";
    /// A secret that two sides agreed on, so that one does not act for a third by mistake.
    ExternalId: |text| (2..=1224).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@:/-".contains(&b)),
        "an external id must have 2 to 1224 letters, digits or _+=,.@:/-";
    /// The text of a session policy; whether it is a policy is the policy engine's to say.
    PolicyText: |text| !text.is_empty() && text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}')),
        "a session policy must not be empty and may hold no character beyond U+00FF";
    /// The serial number of an MFA device.
    SerialNumber: |text| (9..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=/:,.@-".contains(&b)),
        "a serial number must have 9 to 256 letters, digits or _+=/:,.@-";
}

fn name(text: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// A life of `MIN` to `MAX` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Seconds<const MIN: u32, const MAX: u32>(u32);

impl<const MIN: u32, const MAX: u32> Seconds<MIN, MAX> {
    /// Returns the duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Seconds<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            seconds if (MIN..=MAX).contains(&seconds) => Ok(Self(seconds)),
            _ => Err(de::Error::custom(format!("DurationSeconds must be {MIN} to {MAX}"))),
        }
    }
}

/// A managed policy passed for a session.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyArn {
    /// Its resource name.
    pub arn: Arn,
}

/// Temporary credentials as answers hold them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Credentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// What must come along.
    pub session_token: String,
    /// When they end.
    pub expiration: IsoTime,
}

/// The session of a role as answers name it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AssumedRoleUser {
    /// `AROA…:name`.
    pub assumed_role_id: String,
    /// Its resource name.
    pub arn: Arn,
}

/// Checks the policies passed for a session. `None` if none were passed.
pub(super) fn session_policies(
    server: &Server,
    document: Option<&PolicyText>,
    arns: &[PolicyArn],
) -> Result<Option<SessionPolicies>, ApiError> {
    if document.is_none() && arns.is_empty() {
        return Ok(None);
    }
    if arns.len() > size::SESSION_POLICY_ARNS {
        let most = size::SESSION_POLICY_ARNS;
        return Err(ApiError::Validation(format!("no more than {most} policies may be passed by ARN")));
    }
    let passed = document.map_or(0, |text| text.chars().count());
    let total = arns.iter().fold(passed, |total, policy| total.saturating_add(policy.arn.as_str().chars().count()));
    if total > size::SESSION_POLICY_TEXT {
        let message = format!(
            "Packed policy consumes {}% of allotted space, please use smaller policy.",
            total.saturating_mul(100) / size::SESSION_POLICY_TEXT
        );
        return Err(ApiError::bad("PackedPolicyTooLarge", message));
    }
    if let Some(text) = document {
        Policy::parse(text, PolicyKind::Session).map_err(|error| ApiError::bad(error.code(), error.to_string()))?;
    }
    for PolicyArn { arn } in arns {
        if server.identities.managed_policy(arn.as_str()).is_none() {
            return Err(ApiError::bad("MalformedPolicyDocument", format!("there is no policy {arn} to pass")));
        }
    }
    Ok(Some(SessionPolicies {
        document: document.map(|text| text.to_string()),
        managed: arns.iter().map(|policy| policy.arn.clone()).collect(),
    }))
}

/// Returns how much of a token's room policies and tags take, in percent; `None` if there are none.
pub(super) fn packed_size(session: &RoleSession) -> Option<usize> {
    let bytes = |json: Result<String, _>| json.map_or(0, |text: String| text.len());
    let policies = session.policies.as_ref().map_or(0, |policies| bytes(serde_json::to_string(policies)));
    let tags = if session.tags.is_empty() { 0 } else { bytes(serde_json::to_string(&session.tags)) };
    match policies.saturating_add(tags) {
        0 => None,
        total => Some(total.saturating_mul(100).div_ceil(PACKED_LIMIT)),
    }
}

/// Issues the credentials of a statement.
pub(super) fn issue(server: &Server, statement: &Statement) -> Result<Credentials, ApiError> {
    let issued = server.session_tokens.issue(statement).map_err(|error| match error {
        IssueError::TooLarge => ApiError::bad("PackedPolicyTooLarge", error.to_string()),
        IssueError::Failed(_) => ApiError::internal(error),
    })?;
    Ok(Credentials {
        access_key_id: issued.access_key.to_string(),
        secret_access_key: issued.secret.expose().to_owned(),
        session_token: issued.token.expose().clone(),
        expiration: IsoTime(statement.expires),
    })
}

/// Returns the refusal of a call that policies have no say in.
pub(super) fn denied(reason: &'static str, message: impl Into<String>) -> ApiError {
    ApiError::Denied(Denial { reason, message: message.into() })
}
