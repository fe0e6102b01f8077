//! `ssm:DescribeSessions`: active sessions, or those of the past, newest first.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::id::{NodeId, SessionId};
use munjigi_core::session::SessionStatus;
use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::identity::Caller;
use crate::store::{InvalidToken, SessionCursor, SessionFilter, SessionRow};

const MOST: u32 = 200;

/// Lists sessions.
pub struct DescribeSessions;

/// Members as in the AWS model.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct DescribeSessionsInput {
    /// `Active` or `History`.
    pub state: State,
    /// 1 to 200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_results: Option<u32>,
    /// Where the last page ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
    /// At most 6; all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
}

/// Which sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Connecting, connected or disconnected.
    Active,
    /// Over, or being ended.
    History,
}

/// One filter; the model spells its members in lower case.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// `InvokedAfter`, `InvokedBefore`, `Target`, `Owner`, `Status`, `SessionId` or `AccessType`.
    pub key: String,
    /// The value.
    pub value: String,
}

/// Members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DescribeSessionsOutput {
    /// The sessions, newest first.
    pub sessions: Vec<Session>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_token: Option<String>,
}

/// One session; members as in the AWS model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Session {
    session_id: SessionId,
    target: NodeId,
    status: &'static str,
    start_date: EpochTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_date: Option<EpochTime>,
    document_name: String,
    owner: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_session_duration: Option<String>,
    access_type: &'static str,
}

impl Session {
    fn of(row: SessionRow) -> Self {
        Self {
            session_id: row.id,
            target: row.node,
            status: row.status.as_str(),
            start_date: EpochTime(row.started),
            end_date: row.end.as_ref().map(|end| EpochTime(end.time)),
            document_name: row.document,
            owner: row.owner_arn,
            reason: row.reason,
            details: row.end.map(|end| end.reason.sentence().to_owned()),
            max_session_duration: row.limits.maximum.and_then(minutes),
            access_type: "Standard",
        }
    }
}

/// Returns a limit in minutes, rounded up; the model's text ends at a day, and longer ones have no word there.
fn minutes(limit: Duration) -> Option<String> {
    Some(limit.as_secs().div_ceil(60)).filter(|minutes| (1..=1440).contains(minutes)).map(|minutes| minutes.to_string())
}

impl Operation for DescribeSessions {
    const SERVICE: Service = Service::Ssm;
    const NAME: &'static str = "DescribeSessions";
    const EFFECT: Effect = Effect::Read;
    const EXAMPLE: &'static str = r#"{"State": "Active"}"#;
    type Input = DescribeSessionsInput;
    type Output = DescribeSessionsOutput;

    async fn requirements(_: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        Ok(vec![Requirement::any("ssm:DescribeSessions")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let limit = input.max_results.unwrap_or(MOST);
        if !(1..=MOST).contains(&limit) {
            return Err(ApiError::Validation(format!("MaxResults is 1 to {MOST}")));
        }
        let Some(filter) = filter(input)? else {
            return Ok(DescribeSessionsOutput { sessions: Vec::new(), next_token: None });
        };
        let tokens = server.store.pages();
        let caller = &call.caller().principal().arn;
        let bound = format!("{} {caller} {}", Self::NAME, serde_json::json!([input.state, input.filters]));
        let now = call.request().time;
        let invalid = |error: InvalidToken| ApiError::bad("InvalidNextToken", error.to_string());
        let after =
            input.next_token.as_ref().map(|token| tokens.read(&bound, token, now)).transpose().map_err(invalid)?;
        let after = after.as_deref().and_then(SessionCursor::parse);
        let page = server.store.list_sessions(&filter, after.as_ref(), limit as usize).await;
        let page = page.map_err(ApiError::internal)?;
        let next_token = page.next.map(|next| tokens.issue(&bound, &next.to_text(), now)).transpose();
        let next_token = next_token.map_err(ApiError::internal)?;
        Ok(DescribeSessionsOutput { sessions: page.items.into_iter().map(Session::of).collect(), next_token })
    }
}

/// Turns the filters into the store's; `None` when nothing can match.
fn filter(input: &DescribeSessionsInput) -> Result<Option<SessionFilter>, ApiError> {
    let invalid = |text: String| ApiError::bad("InvalidFilterKey", text);
    if input.filters.len() > 6 {
        return Err(ApiError::Validation("Filters has at most 6 members".to_owned()));
    }
    let mut seen = Vec::new();
    let mut filter = SessionFilter { active: Some(input.state == State::Active), ..SessionFilter::default() };
    for Filter { key, value } in &input.filters {
        if seen.contains(&key) {
            return Err(invalid(format!("filter {key} stands twice")));
        }
        seen.push(key);
        let time = || {
            Timestamp::parse_iso(value)
                .ok_or_else(|| ApiError::Validation(format!("{key} is an instant such as 2026-11-21T12:00:00Z")))
        };
        match key.as_str() {
            "InvokedAfter" => filter.invoked_after = Some(time()?),
            "InvokedBefore" => filter.invoked_before = Some(time()?),
            "Owner" => filter.owner = Some(value.clone()),
            "Target" => match NodeId::parse(value) {
                Ok(node) => filter.node = Some(node),
                Err(_) => return Ok(None),
            },
            "SessionId" => match SessionId::parse(value) {
                Ok(id) => filter.id = Some(id),
                Err(_) => return Ok(None),
            },
            "Status" => match SessionStatus::parse(value) {
                Some(status) => filter.status = Some(status),
                None => return Err(ApiError::Validation(format!("there is no session status {value}"))),
            },
            "AccessType" if value == "Standard" => {}
            "AccessType" => return Ok(None),
            _ => return Err(invalid(format!("there is no filter {key}"))),
        }
    }
    Ok(Some(filter))
}
