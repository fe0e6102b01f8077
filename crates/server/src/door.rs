//! The door: every call of an operation passes here and nowhere else. It decides, audits, runs and audits again.
//!
//! INVARIANT: [`Authorized`] has private fields and is made only here, after the decision; an operation runs only
//! with one in hand, and no answer leaves before its audit record is stored (T-3, T-11).

pub(crate) mod failures;
pub(crate) mod hidden;
mod judge;
mod record;
mod request;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use munjigi_core::audit::AuditRecord;
use serde_json::{Map, Value};

pub use judge::{Decided, judge};
pub(crate) use judge::{allow_demands, question};
pub(crate) use record::{Event, Outcome, Who};
pub use request::{RequestMeta, TlsDetails, Via};

use crate::Server;
use crate::api::WireInput;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Operation};
use crate::identity::Caller;

/// A call that may run: the proof that its caller was authenticated and allowed.
pub struct Authorized<O: Operation> {
    input: O::Input,
    caller: Caller,
    request: RequestMeta,
    decisions: Vec<Decided>,
    identities_version: u64,
    parameters: Value,
    extras: Map<String, Value>,
    server: Arc<Server>,
    granted: AtomicBool,
}

impl<O: Operation> Authorized<O> {
    /// Returns the input.
    pub fn input(&self) -> &O::Input {
        &self.input
    }

    /// Returns who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Returns what is known of the request.
    pub fn request(&self) -> &RequestMeta {
        &self.request
    }

    /// Returns what was required and how each was decided.
    pub fn decisions(&self) -> &[Decided] {
        &self.decisions
    }

    /// Returns the version of the identities that decided.
    pub fn identities_version(&self) -> u64 {
        self.identities_version
    }

    /// Stores the call's complete audit record now, durably, before the work goes on (T-3, T-62); the door then
    /// writes none when the work succeeds, and one more if it fails. `response_elements` as the record shall show it.
    pub async fn record_granted(&self, response_elements: Value) -> Result<(), ApiError> {
        let event = Event::of::<O>(&self.server, &self.request, Who::Caller(&self.caller));
        let record = event.parameters(&self.parameters).decisions(&self.decisions).extras(&self.extras);
        store(&self.server, record.complete(Outcome::Success(&response_elements))).await?;
        self.granted.store(true, Ordering::Release);
        Ok(())
    }
}

/// Calls an operation with a typed input.
pub async fn call<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: O::Input,
    request: RequestMeta,
) -> Result<O::Output, ApiError> {
    perform::<O>(server, caller, input, request).await.map(|(output, _)| output)
}

/// Calls an operation with an input from the wire, and returns its output as JSON.
pub(crate) async fn call_wire<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: WireInput,
    request: RequestMeta,
) -> Result<Value, ApiError> {
    match input.read::<O::Input>(O::SERVICE.wire()) {
        Ok(input) => perform::<O>(server, caller, input, request).await.map(|(_, json)| json),
        Err(error) => {
            let event = Event::of::<O>(server, &request, Who::Caller(caller));
            store(server, event.complete(Outcome::Failure(&error))).await?;
            Err(error)
        }
    }
}

// There are as many copies of what follows as operations, each with the operation's own work inside: it is entered in one
// place, and what is the same for all is done outside.
async fn perform<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: O::Input,
    request: RequestMeta,
) -> Result<(O::Output, Value), ApiError> {
    let proved = match O::ACCESS {
        Access::Open => O::prove(&input, server, &request).await,
        _ => Ok(None),
    };
    match proved {
        Ok(proved) => admit::<O>(server, proved.as_ref().unwrap_or(caller), input, request).await,
        Err(error) => {
            let parameters = serde_json::to_value(&input).map_err(ApiError::internal)?;
            let event = Event::of::<O>(server, &request, Who::Unknown(None)).parameters(&parameters);
            let record = event.complete(Outcome::Failure(&error));
            failures::record(server, request.source_ip, record).await;
            Err(error)
        }
    }
}

async fn admit<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: O::Input,
    request: RequestMeta,
) -> Result<(O::Output, Value), ApiError> {
    let parameters = serde_json::to_value(&input).map_err(ApiError::internal)?;
    let extras = O::audit_extras(&input);
    let identities_version = server.identities.version();
    let requirements = match judge::kept_out((O::ACCESS, O::SERVICE, O::NAME), caller) {
        Some(denial) => Err(ApiError::Denied(denial)),
        None => O::requirements(&input, server, caller).await,
    };
    let (decisions, verdict) = match requirements {
        Ok(requirements) => judge::decide((O::ACCESS, O::NAME), server, caller, requirements, &request),
        Err(error) => (Vec::new(), Err(error)),
    };
    let absent = hidden::absent(server, caller, &decisions, &request);
    if let Err(error) = absent.map_or(verdict, Err) {
        let event = Event::of::<O>(server, &request, Who::Caller(caller));
        let record = event.parameters(&parameters).decisions(&decisions).extras(&extras);
        store(server, record.complete(Outcome::Failure(&error))).await?;
        return Err(hidden::told(server, caller, &decisions, &request, error));
    }

    let granted = AtomicBool::new(false);
    let server_ref = server.clone();
    let authorized = Authorized::<O> {
        input,
        caller: caller.clone(),
        request,
        decisions,
        identities_version,
        parameters,
        extras,
        server: server_ref,
        granted,
    };
    // A panic is this call's fault alone, and in the trail like any other.
    let run = AssertUnwindSafe(O::run(&authorized, server)).catch_unwind().await;
    let result = run.unwrap_or_else(|_| {
        server.panics.fetch_add(1, Ordering::Relaxed);
        Err(ApiError::internal(anyhow::anyhow!("{} panicked", O::NAME)))
    });
    let result = result.and_then(|output| {
        let json = serde_json::to_value(&output).map_err(ApiError::internal)?;
        Ok((output, json))
    });
    let outcome = match &result {
        Ok(_) if authorized.granted.load(Ordering::Acquire) => return result,
        Ok((_, json)) => Outcome::Success(json),
        Err(error) => Outcome::Failure(error),
    };
    let event = Event::of::<O>(server, &authorized.request, Who::Caller(caller));
    let record = event.parameters(&authorized.parameters).decisions(&authorized.decisions).extras(&authorized.extras);
    store(server, record.complete(outcome)).await?;
    result
}

/// Stores a record; what cannot be recorded is refused (aws-api E.1). Boxed, or every operation would have its own copy.
pub(crate) fn store(server: &Server, record: AuditRecord) -> BoxFuture<'_, Result<(), ApiError>> {
    Box::pin(async move {
        match server.audit.append(record).await {
            Ok(_) => Ok(()),
            Err(cause) => {
                tracing::error!(%cause, "the audit trail cannot be written; calls are refused");
                Err(ApiError::Unavailable("the audit trail cannot be written, so the call is refused"))
            }
        }
    })
}
