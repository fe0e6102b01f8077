//! `Munjigi.OpenDataChannel`: lets a client of the AWS door open the channel of its session.
//!
//! The door calls it when a token was spent; what it decides about is the stream that the token came on. The action is
//! AWS's own, `ssmmessages:OpenDataChannel` on the session (aws-api C.3).

use std::sync::Arc;

use munjigi_core::id::SessionId;
use serde::{Deserialize, Serialize};

use super::attach_session::owned;
use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::identity::Caller;

/// Decides about a data channel.
pub struct OpenDataChannel;

/// What is wished.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct OpenDataChannelInput {
    /// The session.
    pub session_id: SessionId,
    /// The client's id for its whole life, as it says.
    #[serde(default)]
    pub client_id: String,
    /// The client's version, as it says; old ones do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OpenDataChannelOutput {
    /// The session.
    pub session_id: SessionId,
}

impl Operation for OpenDataChannel {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "OpenDataChannel";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0"}"#;
    type Input = OpenDataChannelInput;
    type Output = OpenDataChannelOutput;

    async fn requirements(input: &Self::Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        owned(server, "ssmmessages:OpenDataChannel", &input.session_id, caller).await
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let session_id = call.input().session_id.clone();
        super::attach_session::existing(server, &session_id).await?;
        Ok(OpenDataChannelOutput { session_id })
    }
}
