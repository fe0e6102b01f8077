//! `GetSessionToken`: temporary credentials of the calling user, with a second factor if wanted. Needs no permission.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::policy::PrincipalKind;
use serde::{Deserialize, Serialize};

use super::issue::{Credentials, SECRET_FIELDS, Seconds, SerialNumber, TokenCode, denied, issue};
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::session_token::{StandsFor, Statement};
use crate::identity::{Caller, mfa};

/// Life of the credentials when the caller does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(43_200);

/// The operation.
pub struct GetSessionToken;

/// Its input.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Input {
    /// How long the credentials live; 12 hours if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<Seconds<900, 129_600>>,
    /// The caller's MFA device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<SerialNumber>,
    /// Its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_code: Option<TokenCode>,
}

/// Its output.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The credentials.
    pub credentials: Credentials,
}

impl Operation for GetSessionToken {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "GetSessionToken";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::Caller;
    const SECRET_FIELDS: &'static [&'static str] = SECRET_FIELDS;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let principal = caller.principal();
        if principal.kind != PrincipalKind::User || principal.session.is_some() {
            return Err(denied("KindOfCredentials", "Cannot call GetSessionToken with session credentials"));
        }
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let (input, caller, now) = (call.input(), call.caller(), call.request().time);
        let proved = match (&input.serial_number, &input.token_code) {
            (Some(serial), Some(code)) => {
                mfa::verify(server, caller, serial, code, now).await?;
                Some(now)
            }
            (None, None) => None,
            _ => return Err(ApiError::Validation("SerialNumber and TokenCode go together".to_owned())),
        };
        let id = caller.principal().unique_id.clone();
        let id = id.ok_or_else(|| ApiError::internal(anyhow::anyhow!("a user has no unique id")))?;
        let life = input.duration_seconds.map_or(DEFAULT_LIFE, Seconds::duration);
        let statement = Statement {
            source_key: caller.access_key().cloned(),
            mfa: proved,
            ..Statement::new(StandsFor::User(id), now, life)
        };
        Ok(Output { credentials: issue(server, &statement)? })
    }
}
