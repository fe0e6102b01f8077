//! What the trail tells of the connections of forward sessions.
//!
//! Those that were allowed are written without anybody waiting for the disk; a refusal by policy is durable before it is
//! answered.

use std::num::NonZeroU64;
use std::sync::Arc;

use munjigi_core::audit::AuditRecord;
use munjigi_core::recording::{Connection, NO_HASH};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::Server;
use crate::api::error::{ApiError, Denial};
use crate::api::operation::{Effect, Service};
use crate::door::{Decided, Event, Outcome, RequestMeta, Who, store};
use crate::gateway::facts::SessionFacts;
use crate::gateway::ports::Ended;
use crate::identity::Caller;
use crate::service_event::service_event;

/// Records that may wait for the trail.
const QUEUE: usize = 4096;
/// Most records that are written in one go.
const BATCH: usize = 256;

/// Where records are handed in whose writing nobody waits for.
pub(crate) struct Trail {
    records: mpsc::Sender<Item>,
}

/// What is handed in.
pub(crate) enum Item {
    /// A record.
    Record(Box<AuditRecord>),
    /// Somebody waits until everything before this is in the trail.
    Flush(oneshot::Sender<()>),
}

impl Trail {
    /// Opens it; the receiver goes to [`keep`].
    pub(crate) fn new() -> (Self, mpsc::Receiver<Item>) {
        let (records, received) = mpsc::channel(QUEUE);
        (Self { records }, received)
    }
}

/// Writes records until the server stops, and then what is left.
pub(crate) async fn keep(server: Arc<Server>, mut items: mpsc::Receiver<Item>) {
    let mut batch = Vec::new();
    loop {
        if items.is_closed() {
            items.recv_many(&mut batch, BATCH).await;
        } else {
            tokio::select! {
                _ = items.recv_many(&mut batch, BATCH) => {}
                () = server.stop.cancelled() => items.close(),
            }
        }
        if batch.is_empty() && items.is_closed() {
            return;
        }
        let mut waiting = Vec::new();
        let mut records = Vec::new();
        for item in batch.drain(..) {
            match item {
                Item::Record(record) => records.push(*record),
                Item::Flush(done) => waiting.push(done),
            }
        }
        if !records.is_empty()
            && let Err(error) = server.audit.append_all(records).await
        {
            tracing::error!(%error, "connections could not be audited");
        }
        for done in waiting {
            // Nobody waits any more: fine.
            let _ = done.send(());
        }
    }
}

async fn hand_in(server: &Server, record: AuditRecord) {
    // The queue is the back-pressure; its receiver lives as long as the server.
    let _ = server.connection_trail.records.send(Item::Record(Box::new(record))).await;
}

/// Waits until everything that was handed in before is in the trail.
pub(crate) async fn flush(server: &Server) {
    let (done, written) = oneshot::channel();
    if server.connection_trail.records.send(Item::Flush(done)).await.is_ok() {
        // An error means that the server has stopped: everything is written then.
        let _ = written.await;
    }
}

/// Who wishes for a connection, and what is said of it whatever becomes of it.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The session's owner.
    pub(crate) caller: &'a Caller,
    /// The request.
    pub(crate) request: &'a RequestMeta,
    /// The session.
    pub(crate) facts: &'a SessionFacts,
}

/// Writes down a connection that was made.
pub(crate) async fn opened(server: &Server, asked: Asked<'_>, number: u64, endpoint: &str, address: &str) {
    let parameters = parameters(asked.facts, endpoint);
    let elements = json!({ "connection": number, "address": address });
    let record = event(server, asked).parameters(&parameters).complete(Outcome::Success(&elements));
    hand_in(server, data_event(record)).await;
}

/// Writes down a connection that was not made. What policy or the rules of the node refuse is durable when this returns.
pub(crate) async fn refused(
    server: &Server,
    asked: Asked<'_>,
    decided: &[Decided],
    endpoint: &str,
    (code, message): (&str, String),
) -> Result<(), ApiError> {
    let parameters = parameters(asked.facts, endpoint);
    let denial = ApiError::Denied(Denial { reason: "", message });
    let mut record =
        event(server, asked).parameters(&parameters).decisions(decided).complete(Outcome::Failure(&denial));
    record.error_code = Some(code.to_owned());
    let record = data_event(record);
    if matches!(code, "AccessDeniedException" | "DestinationDenied") {
        return store(server, record).await;
    }
    hand_in(server, record).await;
    Ok(())
}

/// Writes down the end of a connection. Of one that was lost nobody knows what it carried: the numbers are null.
pub(crate) async fn closed(server: &Server, facts: &SessionFacts, ended: &Ended) {
    let Ended { opened, at, endpoint, address, end } = ended;
    let (number, carried, why) = match end {
        Connection::Closed { number, bytes_in, bytes_out, hash_in, hash_out, why } => {
            let told = |hash: &[u8; 32]| (*hash != NO_HASH).then(|| hex::encode(hash));
            (number, Some((bytes_in, bytes_out, told(hash_in), told(hash_out))), why.clone())
        }
        Connection::Lost { number, why } => (number, None, format!("lost: {why}")),
        Connection::Opened { .. } | Connection::Refused { .. } => return,
    };
    let details = json!({
        "sessionId": facts.id,
        "target": facts.node,
        "owner": facts.owner,
        "endpoint": endpoint,
        "connection": number,
        "address": address,
        "durationSeconds": at.since(*opened).as_secs_f64(),
        "bytesIn": carried.as_ref().map(|carried| carried.0),
        "bytesOut": carried.as_ref().map(|carried| carried.1),
        "sha256In": carried.as_ref().map(|carried| &carried.2),
        "sha256Out": carried.as_ref().map(|carried| &carried.3),
        "endReason": why,
    });
    hand_in(server, data_event(service_event(server, "CloseConnection", details, None))).await;
}

/// Writes down that a session carries as much as it may and would carry more: worth an alarm (T-92).
pub(crate) async fn held_up(server: &Server, facts: &SessionFacts, rate: NonZeroU64) {
    tracing::info!(session = %facts.id, bytes_per_second = rate, "a forward is held to the rate that is allowed");
    let details = json!({
        "sessionId": facts.id,
        "target": facts.node,
        "owner": facts.owner,
        "bytesPerSecond": rate,
    });
    hand_in(server, service_event(server, "ForwardRateExceeded", details, None)).await;
}

fn event<'a>(server: &'a Server, asked: Asked<'a>) -> Event<'a> {
    let who = Who::Caller(asked.caller);
    Event::named(server, asked.request, who, Service::Munjigi, "OpenConnection", Effect::Write)
}

fn parameters(facts: &SessionFacts, endpoint: &str) -> Value {
    json!({ "sessionId": facts.id, "target": facts.node, "endpoint": endpoint })
}

/// Connections are what a session was opened for, not changes of how things are managed.
fn data_event(mut record: AuditRecord) -> AuditRecord {
    record.management_event = false;
    record.event_category = "Data".to_owned();
    record
}
