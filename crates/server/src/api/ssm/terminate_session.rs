//! `ssm:TerminateSession`: ends a session, whoever's it is, if policy lets the caller.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::session::EndReason;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::gateway::launch;
use crate::identity::Caller;
use crate::store::{SessionRow, StoreError};

/// Ends a session.
pub struct TerminateSession;

/// Members as in the AWS model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TerminateSessionInput {
    /// The session.
    pub session_id: SessionId,
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminateSessionOutput {
    /// The session.
    pub session_id: SessionId,
}

impl Operation for TerminateSession {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "TerminateSession";
    const EFFECT: Effect = Effect::Write;
    const EXAMPLE: &'static str = r#"{"SessionId": "alice-0123456789abcdef0"}"#;
    type Input = TerminateSessionInput;
    type Output = TerminateSessionOutput;

    async fn requirements(input: &Self::Input, server: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        let row = find(server, &input.session_id).await?;
        Ok(vec![session_requirement(server, "ssm:TerminateSession", &input.session_id, row.as_ref())])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let session_id = call.input().session_id.clone();
        // AWS answers the same for a session that is over or never was: the wish is fulfilled.
        let by = &call.caller().principal().arn;
        if let Some(prepared) = server.gateway.take_prepared(&session_id) {
            launch::abandon(server, &prepared.facts, prepared.recorder, format!("terminated by {by}")).await;
        } else {
            server.gateway.end_session(&session_id, EndReason::Terminated, &format!("terminated by {by}")).await;
        }
        Ok(TerminateSessionOutput { session_id })
    }
}

/// Looks a session up; an absent one is `None`.
pub async fn find(server: &Server, id: &SessionId) -> Result<Option<SessionRow>, ApiError> {
    match server.store.session(id).await {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(ApiError::internal(error)),
    }
}

/// Returns what `action` on a session needs, with the system tags that AWS's sample policies compare (iam-policy 8.2).
pub fn session_requirement(
    server: &Server,
    action: &'static str,
    id: &SessionId,
    row: Option<&SessionRow>,
) -> Requirement {
    let requirement = Requirement::new(action, server.deployment.session(id)).of_type("AWS::SSM::Session");
    match row {
        Some(row) => requirement.resource_tags([
            ("aws:ssmmessages:session-id", row.owner_id.as_str()),
            ("aws:ssmmessages:target-id", row.node.as_str()),
        ]),
        None => requirement,
    }
}
