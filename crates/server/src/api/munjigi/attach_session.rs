//! `Munjigi.AttachSession`: lets a client of the link go on with its session, or watch somebody's.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::terminate_session::{find, session_requirement};
use crate::identity::Caller;
use crate::store::SessionRow;

/// What watching needs.
pub const WATCH_ACTION: &str = "munjigi:WatchSession";

/// Decides about an attach; the stream it arrived on is what gets attached.
pub struct AttachSession;

/// What is wished.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct AttachSessionInput {
    /// The session.
    pub session_id: SessionId,
    /// To type, or only to read.
    pub mode: AttachMode,
}

/// What the client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachMode {
    /// Read and type; needs `ssm:ResumeSession`, and only the session's owner can.
    Primary,
    /// Read; needs `munjigi:WatchSession`.
    Watch,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AttachSessionOutput {
    /// The session.
    pub session_id: SessionId,
}

impl Operation for AttachSession {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "AttachSession";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0", "Mode": "Watch"}"#;
    type Input = AttachSessionInput;
    type Output = AttachSessionOutput;

    async fn requirements(input: &Self::Input, server: &Server, caller: &Caller) -> Result<Vec<Requirement>, ApiError> {
        match input.mode {
            AttachMode::Primary => owned(server, "ssm:ResumeSession", &input.session_id, caller).await,
            AttachMode::Watch => {
                let row = find(server, &input.session_id).await?;
                Ok(vec![session_requirement(server, WATCH_ACTION, &input.session_id, row.as_ref())])
            }
        }
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let session_id = call.input().session_id.clone();
        existing(server, &session_id).await?;
        Ok(AttachSessionOutput { session_id })
    }
}

/// Returns what `action` on one's own session needs. Nobody takes another person's session, whatever policy says (R-6).
pub async fn owned(
    server: &Server,
    action: &'static str,
    id: &SessionId,
    caller: &Caller,
) -> Result<Vec<Requirement>, ApiError> {
    let row = find(server, id).await?;
    if row.as_ref().is_some_and(|row| row.owner_id != caller.principal().user_id()) {
        return Err(ApiError::Denied(Denial {
            reason: "NotTheOwner",
            message: format!("session {id} belongs to somebody else; you may ask to watch it"),
        }));
    }
    Ok(vec![session_requirement(server, action, id, row.as_ref())])
}

/// Looks a session up for somebody who was allowed.
pub async fn existing(server: &Server, id: &SessionId) -> Result<SessionRow, ApiError> {
    let missing = || ApiError::bad("DoesNotExistException", format!("there is no session {id}"));
    find(server, id).await?.ok_or_else(missing)
}
