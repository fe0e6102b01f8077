//! `AssumeRoleWithWebIdentity`: temporary credentials of a role for whom an OpenID Connect provider vouches. Unsigned:
//! the token is the proof.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::arn::Arn;
use munjigi_core::jwt;
use serde::{Deserialize, Serialize};

use super::assume_role::{assumed, check_life, guarded};
use super::issue::{
    AssumedRoleUser, Credentials, PolicyArn, PolicyText, SECRET_FIELDS, Seconds, SessionName, issue, packed_size,
    session_policies,
};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::door::RequestMeta;
use crate::identity::Caller;
use crate::identity::session_token::{RoleSession, StandsFor, Statement};
use crate::identity::web_identity::{self, WebCaller};

/// Life of the credentials when the caller does not say.
const HOUR: Duration = Duration::from_secs(3600);

/// The operation.
pub struct AssumeRoleWithWebIdentity;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// The role.
    pub role_arn: Arn,
    /// What the session is called.
    pub role_session_name: SessionName,
    /// The provider's token.
    pub web_identity_token: String,
    /// For providers that are not OpenID Connect; none of those is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Managed policies that the session is limited to.
    #[serde(default)]
    pub policy_arns: Vec<PolicyArn>,
    /// A policy that the session is limited to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyText>,
    /// How long the credentials live; an hour if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<Seconds<900, 43_200>>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The credentials.
    pub credentials: Credentials,
    /// What the provider calls the person or program.
    pub subject_from_web_identity_token: String,
    /// The session.
    pub assumed_role_user: AssumedRoleUser,
    /// How much of a token's room policies take, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packed_policy_size: Option<usize>,
    /// The provider.
    pub provider: String,
    /// For whom the token was made.
    pub audience: String,
}

impl Operation for AssumeRoleWithWebIdentity {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "AssumeRoleWithWebIdentity";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Open;
    const SECRET_FIELDS: &'static [&'static str] = SECRET_FIELDS;
    const EXAMPLE: &'static str = r#"{"RoleArn":"arn:aws:iam::000000000000:role/example","RoleSessionName":"example",
        "WebIdentityToken":"example"}"#;
    type Input = Input;
    type Output = Output;

    async fn prove(input: &Input, server: &Server, request: &RequestMeta) -> Result<Option<Caller>, ApiError> {
        if input.web_identity_token.len() > jwt::MAX_TOKEN || input.provider_id.is_some() {
            let message = "the token is too long, or of a provider that is not OpenID Connect";
            return Err(ApiError::bad("InvalidIdentityToken", message));
        }
        web_identity::prove(server, &input.web_identity_token, request.time).await.map(Some)
    }

    async fn requirements(input: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let WebCaller { identity, host, amr } = proven(caller)?;
        let role = server.identities.role_by_arn(input.role_arn.as_str());
        let need = guarded("sts:AssumeRoleWithWebIdentity", &input.role_arn, role.as_deref())
            .with("sts:RoleSessionName", &*input.role_session_name)
            .with("aws:FederatedProvider", identity.provider.as_str())
            .with(format!("{host}:aud"), identity.audience.as_str())
            .with(format!("{host}:sub"), identity.subject.as_str())
            .with_many(format!("{host}:amr"), amr.iter().cloned());
        Ok(vec![need])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, now) = (call.input(), call.request().time);
        let WebCaller { identity, host, .. } = proven(call.caller())?;
        let role = server.identities.role_by_arn(input.role_arn.as_str());
        let role = role.ok_or_else(|| ApiError::no_such_entity(format!("the role {} is gone", input.role_arn)))?;
        let life = input.duration_seconds.map_or(HOUR, Seconds::duration);
        check_life(&role, life)?;
        let session = RoleSession {
            role: role.id.clone(),
            name: input.role_session_name.to_string(),
            tags: Vec::new(),
            transitive: Vec::new(),
            policies: session_policies(server, input.policy.as_ref(), &input.policy_arns)?,
            source_identity: None,
            web_identity: Some(identity.clone()),
        };
        let packed_policy_size = packed_size(&session);
        let statement = Statement::new(StandsFor::Role(Box::new(session)), now, life);
        Ok(Output {
            credentials: issue(server, &statement)?,
            subject_from_web_identity_token: identity.subject.clone(),
            assumed_role_user: assumed(server, &role, &input.role_session_name),
            packed_policy_size,
            provider: host.clone(),
            audience: identity.audience.clone(),
        })
    }
}

fn proven(caller: &Caller) -> Result<&WebCaller, ApiError> {
    caller.web_identity().ok_or_else(|| ApiError::bad("InvalidIdentityToken", "nobody vouches for the caller"))
}
