//! Requests that proved nobody, in the trail: the first of a kind at once, the rest of its minute as one record with
//! their number (T-66). Somebody who knocks a thousand times a second fills no disk and is still counted.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use munjigi_core::audit::AuditRecord;
use munjigi_core::time::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Server;

/// How long failures of one kind are folded into one record.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);
/// Most kinds told apart at once; what comes beyond is folded together.
const MAX_KINDS: usize = 4096;

/// What makes failures one kind: where from, with which key, what, and why refused.
type Kind = (IpAddr, Option<String>, String, String);

/// The failures of the last minute.
#[derive(Default)]
pub(crate) struct Failures {
    kinds: Mutex<HashMap<Kind, Folded>>,
}

struct Folded {
    since: Timestamp,
    /// Failures since, that have no record of their own.
    unrecorded: u64,
    latest: AuditRecord,
}

impl Failures {
    /// Takes note of a failure. Returns the record to store now, if it is the first of its kind.
    fn note(&self, source: IpAddr, record: AuditRecord) -> Option<AuditRecord> {
        let key = record.user_identity.access_key_id.clone();
        let code = record.error_code.clone().unwrap_or_default();
        let mut kind = (source, key, record.event_name.clone(), code);
        let mut kinds = self.lock();
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kind = (Ipv4Addr::UNSPECIFIED.into(), None, String::new(), String::new());
        }
        if let Some(folded) = kinds.get_mut(&kind) {
            folded.unrecorded = folded.unrecorded.saturating_add(1);
            folded.latest = record;
            return None;
        }
        kinds.insert(kind, Folded { since: record.event_time, unrecorded: 0, latest: record.clone() });
        Some(record)
    }

    /// Takes out the kinds whose minute is over; returns a record for each that has failures without one.
    fn over(&self, now: Timestamp) -> Vec<AuditRecord> {
        let mut records = Vec::new();
        self.lock().retain(|_, folded| {
            let stays = now < folded.since.plus(WINDOW);
            if !stays && folded.unrecorded > 0 {
                records.push(folded.record());
            }
            stays
        });
        records
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Folded>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folded {
    fn record(&self) -> AuditRecord {
        let mut record = self.latest.clone();
        record.event_id = Uuid::new_v4().to_string();
        let folded = json!({ "events": self.unrecorded, "since": self.since.to_iso_seconds() });
        match &mut record.additional_event_data {
            Some(Value::Object(data)) => {
                data.insert("foldedEvents".into(), folded);
            }
            other => *other = Some(json!({ "foldedEvents": folded })),
        }
        record
    }
}

/// Stores the record of an unauthenticated failure, or counts it. It was refused already, so a trail that cannot be
/// written changes nothing for the caller.
pub(crate) async fn record(server: &Server, source: IpAddr, record: AuditRecord) {
    if let Some(record) = server.failures.note(source, record) {
        let _ = super::store(server, record).await;
    }
}

/// Stores what was folded in minutes that are over; with `now` at the end of time, all of it.
pub(crate) async fn flush(server: &Server, now: Timestamp) {
    for record in server.failures.over(now) {
        let _ = super::store(server, record).await;
    }
}
