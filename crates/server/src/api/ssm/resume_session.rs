//! `ssm:ResumeSession`: a new token for a client that lost its data channel.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::session::EndReason;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::munjigi::attach_session::{existing, owned};
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::prepare::Judged;
use crate::gateway::door_aws;
use crate::identity::Caller;
use crate::store::SessionRow;

/// Resumes a session.
pub struct ResumeSession;

/// Members as in the AWS model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct ResumeSessionInput {
    /// The session.
    pub session_id: SessionId,
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ResumeSessionOutput {
    /// The session.
    pub session_id: SessionId,
    /// Opens the data channel, once, within a minute. Absent: the session is over, and AWS's client says so and exits;
    /// after an error it would try again and then hang.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_value: Option<String>,
    /// Where the data channel opens.
    pub stream_url: String,
}

impl Operation for ResumeSession {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "ResumeSession";
    const EFFECT: Effect = Effect::Write;
    const SECRET_FIELDS: &'static [&'static str] = &["TokenValue"];
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0"}"#;
    type Input = ResumeSessionInput;
    type Output = ResumeSessionOutput;

    async fn requirements(input: &Self::Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        owned(server, "ssm:ResumeSession", &input.session_id, caller).await
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let session_id = call.input().session_id.clone();
        let row = existing(server, &session_id).await?;
        let gateway = &server.gateway;
        let live = gateway.session(&session_id).is_some() && gateway.channels.may_begin(&session_id);
        let resumable = live || gateway.is_prepared(&session_id) || gateway.channels.is_open(&session_id);
        if !resumable && knows_its_end(server, &row) {
            let message = format!("Session {session_id} does not exist or is over.");
            return Err(ApiError::bad("DoesNotExistException", message));
        }
        let token = || gateway.channels.tokens.issue(&session_id, call.caller(), Instant::now());
        Ok(ResumeSessionOutput {
            token_value: resumable.then(token),
            stream_url: door_aws::stream_url(&call.request().host, &session_id),
            session_id,
        })
    }
}

/// Tells whether nobody waits at a data channel to hear of the session's end: it never had one, or its client was told.
fn knows_its_end(server: &Server, row: &SessionRow) -> bool {
    let over_api = serde_json::from_value::<Judged>(row.decision.clone()).is_ok_and(|judged| judged.over_api);
    let never_ran = row.end.as_ref().is_some_and(|end| end.reason == EndReason::StartFailed);
    !over_api || never_ran || server.gateway.channels.was_told(&row.id)
}
