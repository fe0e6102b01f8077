//! `Munjigi.ReadAudit`: the audit trail in its order, for reading and following.
//!
//! A follower's own calls of this operation stand in the trail too, but are left out of its answers unless it asks for
//! them by name: it would follow nothing but itself.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Authorized, Effect, Operation, Requirement, Service};
use crate::api::time::EpochTime;
use crate::audit::{Attribute, AttributeKey, AuditError, Filter, Found};
use crate::identity::Caller;

/// Records in an answer if the caller does not say.
const DEFAULT_RECORDS: u32 = 50;
/// Most records in an answer.
const MOST_RECORDS: u32 = 1000;
/// Longest wait for something new.
const MOST_WAIT_SECONDS: u32 = 20;
/// Most scans of one call, each over a bounded part of the trail; the answer then says where to go on.
const MOST_SCANS: usize = 8;

/// Reads the trail.
pub struct ReadAudit;

/// Which records; all that is set must hold.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields, default)]
pub struct ReadAuditInput {
    /// Number of the first record wanted, from 1.
    pub from_sequence: u64,
    /// Most records in the answer, 1 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_records: Option<u32>,
    /// Only events of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_name: Option<String>,
    /// Only events of this user, by name or ARN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Only at or after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<EpochTime>,
    /// Only before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<EpochTime>,
    /// Only refused and failed calls.
    pub errors_only: bool,
    /// The newest records that fit, still oldest first, in place of those from `FromSequence` on.
    pub newest: bool,
    /// How long to wait for a record that fits, at most 20 seconds.
    pub wait_seconds: u32,
}

/// Some records.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ReadAuditOutput {
    /// The CloudTrail records, oldest first.
    pub records: Vec<Value>,
    /// `FromSequence` of the next call.
    pub next_sequence: u64,
    /// Whether there was nothing more when this was answered.
    pub at_end: bool,
}

impl Operation for ReadAudit {
    const SERVICE: Service = Service::Munjigi;
    const NAME: &'static str = "ReadAudit";
    const EFFECT: Effect = Effect::Read;
    type Input = ReadAuditInput;
    type Output = ReadAuditOutput;

    async fn requirements(input: &Self::Input, _: &Server, _: &Caller) -> Result<Vec<Requirement>, ApiError> {
        if input.max_records.is_some_and(|records| !(1..=MOST_RECORDS).contains(&records)) {
            return Err(ApiError::Validation(format!("MaxRecords must be between 1 and {MOST_RECORDS}")));
        }
        if input.wait_seconds > MOST_WAIT_SECONDS {
            return Err(ApiError::Validation(format!("WaitSeconds must be at most {MOST_WAIT_SECONDS}")));
        }
        Ok(vec![Requirement::any("munjigi:ReadAudit")])
    }

    async fn run(call: &Authorized<Self>, server: &Arc<Server>) -> Result<Self::Output, ApiError> {
        let input = call.input();
        let reading = Reading {
            server,
            filter: filter(input),
            most: usize::try_from(input.max_records.unwrap_or(DEFAULT_RECORDS)).unwrap_or(usize::MAX),
            without: (input.event_name.as_deref() != Some(Self::NAME))
                .then(|| call.caller().principal().arn.as_str().to_owned()),
        };
        if input.newest {
            return reading.newest().await.map_err(ApiError::internal);
        }
        let wait = Duration::from_secs(u64::from(input.wait_seconds));
        tokio::select! {
            answer = reading.follow(input.from_sequence, wait) => answer.map_err(ApiError::internal),
            () = server.stop.cancelled() => Err(ApiError::Unavailable("the server is stopping")),
        }
    }
}

fn filter(input: &ReadAuditInput) -> Filter {
    let attribute = |key, value: &Option<String>| value.clone().map(|value| Attribute { key, value });
    let attributes =
        [attribute(AttributeKey::EventName, &input.event_name), attribute(AttributeKey::Username, &input.username)];
    Filter {
        attributes: attributes.into_iter().flatten().collect(),
        since: input.since.map(|EpochTime(since)| since),
        until: input.until.map(|EpochTime(until)| Timestamp(until.0.saturating_sub(1))),
        errors_only: input.errors_only,
    }
}

struct Reading<'a> {
    server: &'a Server,
    filter: Filter,
    most: usize,
    /// ARN of the caller whose own readings are left out.
    without: Option<String>,
}

impl Reading<'_> {
    /// Reads from a number on; waits for the first record that fits, at most `wait`.
    async fn follow(&self, from: u64, wait: Duration) -> Result<ReadAuditOutput, AuditError> {
        let deadline = tokio::time::Instant::now() + wait;
        let mut newest = self.server.audit.follow();
        let mut from = from.max(1);
        let mut scans = 0;
        loop {
            let page = self.server.audit.read(from, self.filter.clone(), self.most).await?;
            from = page.next.unwrap_or(from);
            scans += 1;
            let records: Vec<Value> = page.events.iter().filter_map(|found| self.shown(found)).collect();
            let stop = !records.is_empty() || (scans >= MOST_SCANS && !page.at_end);
            if stop {
                return Ok(ReadAuditOutput { records, next_sequence: from, at_end: page.at_end });
            }
            if page.at_end {
                let more = newest.wait_for(|newest| *newest >= from);
                if tokio::time::timeout_at(deadline, more).await.is_err() {
                    return Ok(ReadAuditOutput { records, next_sequence: from, at_end: true });
                }
            }
        }
    }

    /// Reads the newest records that fit.
    async fn newest(&self) -> Result<ReadAuditOutput, AuditError> {
        let next_sequence = *self.server.audit.follow().borrow() + 1;
        let mut records = Vec::new();
        let mut before = Some(next_sequence);
        for _ in 0..MOST_SCANS {
            let wanted = self.most - records.len();
            let page = self.server.audit.lookup(self.filter.clone(), before, wanted).await?;
            records.extend(page.events.iter().filter_map(|found| self.shown(found)));
            before = page.next;
            if before.is_none() || records.len() >= self.most {
                break;
            }
        }
        records.reverse();
        Ok(ReadAuditOutput { records, next_sequence, at_end: true })
    }

    fn shown(&self, found: &Found) -> Option<Value> {
        let own = self.without.is_some()
            && found.record.event_name == ReadAudit::NAME
            && found.record.user_identity.arn == self.without;
        if own { None } else { serde_json::from_str(&found.json).ok() }
    }
}
