//! `GetCallerIdentity`: tells the caller who it is. Needs no permission and cannot be denied. A presigned URL of it,
//! good for a minute, lets a third party ask in the caller's name.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// The operation.
pub struct GetCallerIdentity;

/// Nothing is asked.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Input {}

/// Who the caller is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// `AIDA…` for users, `AROA…:name` for role sessions.
    pub user_id: String,
    /// The account.
    pub account: String,
    /// The caller's name.
    pub arn: String,
}

impl Operation for GetCallerIdentity {
    const SERVICE: Service = Service::Sts;
    const NAME: &'static str = "GetCallerIdentity";
    const EFFECT: Effect = Effect::Read;
    const ACCESS: Access = Access::Caller;
    const PRESIGNED: Option<Duration> = Some(Duration::from_secs(60));
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let principal = call.caller().principal();
        Ok(Output {
            user_id: principal.user_id().to_owned(),
            account: server.deployment.account.to_string(),
            arn: principal.arn.to_string(),
        })
    }
}
