//! `AssumeRole`: temporary credentials of a role, for whom its trust policy lets in.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::arn::Arn;
use munjigi_core::policy::PolicyList;
use serde::{Deserialize, Serialize};

use super::issue::{
    AssumedRoleUser, Credentials, ExternalId, PolicyArn, PolicyText, SECRET_FIELDS, Seconds, SerialNumber, SessionName,
    TokenCode, issue, packed_size, session_policies,
};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::tag::{TagKeys, TagList};
use crate::clock;
use crate::identity::session_token::{RoleSession, StandsFor, Statement};
use crate::identity::{Caller, Role, mfa};
use crate::store::Tag;

/// Life of the credentials when the caller does not say, and the longest of a session made by another role session.
const HOUR: Duration = Duration::from_secs(3600);

/// The operation.
pub struct AssumeRole;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_arn: Arn,
    /// What the session is called.
    pub role_session_name: SessionName,
    /// Managed policies that the session is limited to.
    #[serde(default)]
    pub policy_arns: Vec<PolicyArn>,
    /// A policy that the session is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyText>,
    /// How long the credentials live; an hour if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<Seconds<900, 43_200>>,
    /// Tags of the session.
    #[serde(default)]
    pub tags: TagList,
    /// Keys of the tags that sessions made with this one inherit.
    #[serde(default)]
    pub transitive_tag_keys: TagKeys,
    /// What the trust policy may ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<ExternalId>,
    /// The caller's MFA device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<SerialNumber>,
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_code: Option<TokenCode>,
    /// Who is behind the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<SessionName>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The credentials.
    pub credentials: Credentials,
    /// The session.
    pub assumed_role_user: AssumedRoleUser,
    /// How much of a token's room policies and tags take, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_policy_size: Option<usize>,
    /// Who is behind the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<String>,
}

/// What the new session is given, and what it inherits from the session that makes it.
struct Passed {
    tags: Vec<Tag>,
    transitive: Vec<String>,
    source_identity: Option<String>,
}

impl Input {
    fn passed(&self, caller: &Caller) -> Result<Passed, ApiError> {
        let refuse = |message: String| Err(ApiError::Validation(message));
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        if let Some(key) = self.transitive_tag_keys.iter().find(|key| !self.tags.iter().any(|tag| same(&tag.key, key)))
        {
            return refuse(format!("TransitiveTagKeys names {key}, which is no key of Tags"));
        }
        let mut passed = Passed {
            tags: self.tags.to_vec(),
            transitive: self.transitive_tag_keys.to_vec(),
            source_identity: self.source_identity.as_ref().map(|name| name.to_string()),
        };
        let Some(maker) = caller.principal().role_session() else { return Ok(passed) };
        for key in &maker.transitive {
            if self.tags.iter().any(|tag| same(&tag.key, key)) {
                return refuse(format!("the tag {key} is inherited and cannot be passed anew"));
            }
            passed.tags.extend(maker.tags.iter().find(|tag| same(&tag.key, key)).cloned());
            passed.transitive.push(key.clone());
        }
        match (&maker.source_identity, &passed.source_identity) {
            (Some(own), Some(other)) if own != other => {
                return refuse(format!("the source identity of this session is {own} and cannot be changed"));
            }
            (Some(own), None) => passed.source_identity = Some(own.clone()),
            _ => {}
        }
        Ok(passed)
    }
}

impl Operation for AssumeRole {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "AssumeRole";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = SECRET_FIELDS;
    const EXAMPLE: &'static str = r#"{"RoleArn":"arn:aws:iam::000000000000:role/example","RoleSessionName":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let passed = input.passed(caller)?;
        let role = server.identities.role_by_arn(input.role_arn.as_str());
        let proved = match (&input.serial_number, &input.token_code) {
            (Some(serial), Some(code)) => {
                mfa::verify(server, caller, serial, code, clock::now()).await?;
                true
            }
            (None, None) => false,
            _ => return Err(ApiError::Validation("SerialNumber and TokenCode go together".to_owned())),
        };
        let need = |action| {
            let mut need = guarded(action, &input.role_arn, role.as_deref())
                .with("sts:RoleSessionName", &*input.role_session_name)
                .with_many("sts:TransitiveTagKeys", passed.transitive.iter().cloned())
                .request_tags(passed.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())));
            if let Some(id) = &input.external_id {
                need = need.with("sts:ExternalId", &**id);
            }
            if let Some(source) = &passed.source_identity {
                need = need.with("sts:SourceIdentity", source.as_str());
            }
            if proved {
                need = need.with("aws:MultiFactorAuthPresent", "true").with("aws:MultiFactorAuthAge", "0");
            }
            need
        };
        let mut needed = vec![need("sts:AssumeRole")];
        needed.extend((!passed.tags.is_empty()).then(|| need("sts:TagSession")));
        needed.extend(passed.source_identity.is_some().then(|| need("sts:SetSourceIdentity")));
        Ok(needed)
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, caller, now) = (call.input(), call.caller(), call.request().time);
        let principal = caller.principal();
        // It was there when the door decided; if it went since, so did the permission.
        let role = server.identities.role_by_arn(input.role_arn.as_str());
        let role = role.ok_or_else(|| ApiError::no_such_entity(format!("the role {} is gone", input.role_arn)))?;
        let life = input.duration_seconds.map_or(HOUR, Seconds::duration);
        check_life(&role, life)?;
        if principal.role_session().is_some() && life > HOUR {
            let message = "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role \
                           chaining.";
            return Err(ApiError::Validation(message.to_owned()));
        }
        let Passed { tags, transitive, source_identity } = input.passed(caller)?;
        let session = RoleSession {
            role: role.id.clone(),
            name: input.role_session_name.to_string(),
            tags,
            transitive,
            policies: session_policies(server, input.policy.as_ref(), &input.policy_arns)?,
            source_identity: source_identity.clone(),
            web_identity: None,
        };
        let packed_policy_size = packed_size(&session);
        let statement = Statement {
            source_key: match principal.statement() {
                Some(statement) => statement.source_key.clone(),
                None => caller.access_key().cloned(),
            },
            // A code that came with this very call was verified before it was allowed.
            mfa: input.token_code.as_ref().map(|_| now),
            ..Statement::new(StandsFor::Role(Box::new(session)), now, life)
        };
        Ok(Output {
            credentials: issue(server, &statement)?,
            assumed_role_user: assumed(server, &role, &input.role_session_name),
            packed_policy_size,
            source_identity,
        })
    }
}

/// Requires an action on a role, which its trust policy must allow; a role that does not exist trusts nobody.
pub(super) fn guarded(action: &'static str, arn: &Arn, role: Option<&Role>) -> Requirement {
    let trust = role.map_or_else(|| Arc::new(PolicyList::default()), |role| role.trust.clone());
    let need = Requirement::new(action, arn).of_type("AWS::IAM::Role").guarded_by(trust);
    match role {
        Some(role) => need.resource_tags(role.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()))),
        None => need,
    }
}

/// Refuses a session that is longer than the role allows.
pub(super) fn check_life(role: &Role, life: Duration) -> Result<(), ApiError> {
    if life > role.max_session {
        let message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(ApiError::Validation(message.to_owned()));
    }
    Ok(())
}

/// Names a session of a role.
pub(super) fn assumed(server: &Server, role: &Role, name: &str) -> AssumedRoleUser {
    AssumedRoleUser {
        assumed_role_id: format!("{}:{name}", role.id),
        arn: server.deployment.assumed_role(&role.name, name),
    }
}
