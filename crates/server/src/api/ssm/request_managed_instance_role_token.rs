//! `RequestManagedInstanceRoleToken`: AWS's agent turns its RSA key into temporary credentials of its node.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use munjigi_core::id::AccessKeyId;
use serde::{Deserialize, Serialize};

use super::own_node;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::identity::session_token::{StandsFor, Statement};

/// How long the credentials live; the agent asks for new ones after half of it.
const LIFE: Duration = Duration::from_secs(3600);

/// The operation.
pub struct RequestManagedInstanceRoleToken;

/// Its input. The agent's versions differ, so unknown members are let be.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Input {
    /// The host's fingerprint, as it was at the registration.
    pub fingerprint: String,
}

/// Its output. The agent reads all five members.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Output {
    /// The access key.
    pub access_key_id: AccessKeyId,
    /// Its secret.
    pub secret_access_key: String,
    /// Goes with every request signed by it.
    pub session_token: String,
    /// When all of this ends.
    pub token_expiration_date: EpochTime,
    /// Whether the agent shall make a new key; it may do so by itself at any time.
    pub update_key_pair: bool,
}

impl Operation for RequestManagedInstanceRoleToken {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "RequestManagedInstanceRoleToken";
    const EFFECT: Effect = Effect::Write;
    const ACCESS: Access = Access::NodeKey;
    const SECRET_FIELDS: &'static [&'static str] = &["SecretAccessKey", "SessionToken"];
    const EXAMPLE: &'static str = r#"{"Fingerprint":"00000000-0000-0000-0000-000000000000"}"#;
    type Input = Input;
    type Output = Output;

    async fn requirements(_: &Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        own_node::calling(server, caller, Self::NAME).await?;
        Ok(Vec::new())
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Output, ApiError> {
        let node = own_node::calling(server, call.caller(), Self::NAME).await?;
        let registered = node.fingerprint.unwrap_or_default();
        if verify_slices_are_equal(registered.as_bytes(), call.input().fingerprint.as_bytes()).is_err() {
            // A copied key on another machine, or new hardware: a person has to say which.
            let message = "Fingerprint doesn't match the registered one; register the host with a new activation";
            return Err(ApiError::bad("MachineFingerprintDoesNotMatch", message));
        }
        let statement = Statement::new(StandsFor::Node(node.id), call.request().time, LIFE);
        let issued = server.session_tokens.issue(&statement).map_err(ApiError::internal)?;
        Ok(Output {
            access_key_id: issued.access_key,
            secret_access_key: issued.secret.expose().to_owned(),
            session_token: issued.token.expose().clone(),
            token_expiration_date: EpochTime(statement.expires),
            update_key_pair: false,
        })
    }
}
