//! `Munjigi.ListSessions`: sessions with everything that `DescribeSessions` has no member for, newest first.

use std::sync::Arc;

use munjigi_core::arn::Arn;
use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::{EndReason, ExitStatus, SessionKind};
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::ssm::describe_sessions::State;
use crate::api::ssm::target::Target;
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{InvalidToken, SessionCursor, SessionFilter, SessionRow};

/// Most sessions of one answer.
const MOST: u32 = 200;

/// Lists sessions.
pub struct ListSessions;

/// Which sessions; all that is set must hold.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
#[derive(Default)]
pub struct ListSessionsInput {
    /// Active ones or those of the past; both if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// A session's id or the head of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// A node by id, name, tag or head of its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The owner by ARN or user name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Started at or after this, epoch seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<f64>,
    /// 1 to 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    /// Where the last page ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// The sessions.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListSessionsOutput {
    /// Newest first.
    pub sessions: Vec<ListedSession>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// One session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ListedSession {
    session_id: SessionId,
    status: &'static str,
    owner: String,
    node_id: NodeId,
    node_name: String,
    kind: SessionKind,
    command: Vec<String>,
    os_user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    document_name: String,
    source_ip: String,
    started_at: EpochTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<EpochTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_reason: Option<EndReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_signal: Option<String>,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording_hash: Option<String>,
}

impl ListedSession {
    fn of(row: SessionRow) -> Self {
        let end = row.end;
        let exit = end.as_ref().and_then(|end| end.exit.clone());
        let (exit_code, exit_signal) = match exit {
            Some(ExitStatus::Code(code)) => (Some(code), None),
            Some(ExitStatus::Signal { name, .. }) => (None, Some(name)),
            None => (None, None),
        };
        Self {
            session_id: row.id,
            status: row.status.as_str(),
            owner: row.owner_arn,
            node_id: row.node,
            node_name: row.node_name,
            kind: row.kind,
            command: row.command.unwrap_or_default(),
            os_user: row.os_user,
            reason: row.reason,
            document_name: row.document,
            source_ip: row.source_ip,
            started_at: EpochTime(row.started),
            ended_at: end.as_ref().map(|end| EpochTime(end.time)),
            end_reason: end.as_ref().map(|end| end.reason),
            exit_code,
            exit_signal,
            bytes_in: end.as_ref().map_or(0, |end| end.bytes_in),
            bytes_out: end.as_ref().map_or(0, |end| end.bytes_out),
            recording_hash: end.and_then(|end| end.recording_hash),
        }
    }
}

impl Operation for ListSessions {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ListSessions";
    const EFFECT: Effect = Effect::Read;
    type Input = ListSessionsInput;
    type Output = ListSessionsOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        // What it shows is what DescribeSessions shows, and more of the same.
        Ok(vec![Requirement::any("ssm:DescribeSessions")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let limit = input.max_results.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(ApiError::Validation(format!("MaxResults is 1 to {MOST}")));
        }
        if let Some(head) = input.session_id.as_ref().filter(|text| SessionId::parse(text).is_err()) {
            let rows = server.store.sessions_by_prefix(head, limit as usize).await.map_err(ApiError::internal)?;
            let sessions = rows.into_iter().map(ListedSession::of).collect();
            return Ok(ListSessionsOutput { sessions, next_token: None });
        }
        let Some(filter) = filter(input, server).await? else {
            return Ok(ListSessionsOutput { sessions: Vec::new(), next_token: None });
        };
        let tokens = server.store.pages();
        let caller = &call.caller().principal().arn;
        let chosen = serde_json::json!([input.state, input.session_id, input.target, input.owner, input.since]);
        let bound = format!("{} {caller} {chosen}", Self::NAME);
        let now = call.request().time;
        let invalid = |error: InvalidToken| ApiError::bad("InvalidNextToken", error.to_string());
        let after =
            input.next_token.as_ref().map(|token| tokens.read(&bound, token, now)).transpose().map_err(invalid)?;
        let after = after.as_deref().and_then(SessionCursor::parse);
        let page = server.store.list_sessions(&filter, after.as_ref(), limit as usize).await;
        let page = page.map_err(ApiError::internal)?;
        let next_token = page.next.map(|next| tokens.issue(&bound, &next.to_text(), now)).transpose();
        let next_token = next_token.map_err(ApiError::internal)?;
        Ok(ListSessionsOutput { sessions: page.items.into_iter().map(ListedSession::of).collect(), next_token })
    }
}

/// Turns the wishes into the store's filter; `None` when nothing can match.
async fn filter(input: &ListSessionsInput, server: &Server) -> Result<Option<SessionFilter>, ApiError> {
    let mut filter = SessionFilter { active: input.state.map(|state| state == State::Active), ..Default::default() };
    filter.id = input.session_id.as_deref().and_then(|text| SessionId::parse(text).ok());
    // A float saturates where it leaves the range of instants.
    filter.invoked_after = input.since.map(|seconds| Timestamp((seconds * 1e6) as i64));
    filter.owner = input.owner.as_ref().map(|owner| match Arn::parse(owner) {
        Ok(arn) => arn.to_string(),
        Err(_) => server.deployment.user("/", owner).to_string(),
    });
    if let Some(text) = &input.target {
        match Target::resolve(server, text).await? {
            Target::Unknown => match NodeId::parse(text) {
                // A node that was deregistered still has its past.
                Ok(node) => filter.node = Some(node),
                Err(_) => return Ok(None),
            },
            target => filter.node = Some(target.into_node(text)?.id),
        }
    }
    Ok(Some(filter))
}
