//! The door: every call of an operation passes here and nowhere else. It decides, audits, runs and audits again.
//!
//! INVARIANT: [`Authorized`] has private fields and is made only here, after the decision; an operation runs only
//! with one in hand.

use std::net::IpAddr;
use std::sync::Arc;

use munjigi_core::time::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use crate::Server;
use crate::api::error::ApiError;
use crate::api::operation::{Access, Operation};
use crate::identity::Caller;

/// What is known of a request besides its input; fixed when it arrives.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// `x-amzn-RequestId` and `requestID` of the audit record.
    pub request_id: Uuid,
    /// When it arrived; the clock is read once per request.
    pub time: Timestamp,
    /// The client's address.
    pub source_ip: IpAddr,
    /// The client's `User-Agent`, at most 1 KiB.
    pub user_agent: String,
    /// What TLS agreed on; `None` without TLS.
    pub tls: Option<TlsDetails>,
    /// The `Host` header as sent.
    pub host: String,
    /// The region named in the credential scope.
    pub region: String,
    /// Which way it came.
    pub via: Via,
}

/// What a TLS handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsDetails {
    /// For example `TLSv1.3`.
    pub version: String,
    /// For example `TLS_AES_256_GCM_SHA384`.
    pub cipher_suite: String,
}

/// The way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A signed HTTP request.
    Api,
    /// A stream of an authenticated link.
    Link,
}

/// A call that may run: the proof that its caller was authenticated and allowed.
pub struct Authorized<O: Operation> {
    input: O::Input,
    caller: Caller,
    request: RequestMeta,
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
}

/// Calls an operation with a typed input.
pub async fn call<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: O::Input,
    request: RequestMeta,
) -> Result<O::Output, ApiError> {
    let requirements = O::requirements(&input, server, caller).await?;
    if O::ACCESS == Access::Policy {
        // Nothing that needs a decision is let through before there is an engine to make it (T-11).
        let count = requirements.len();
        return Err(ApiError::internal(anyhow::anyhow!("no policy engine judges the {count} needs of {}", O::NAME)));
    }
    let authorized = Authorized::<O> { input, caller: caller.clone(), request };
    O::run(&authorized, server).await
}

/// Calls an operation with an input from the wire, already turned into JSON.
pub(crate) async fn call_wire<O: Operation>(
    server: &Arc<Server>,
    caller: &Caller,
    input: Value,
    request: RequestMeta,
) -> Result<Value, ApiError> {
    let input: O::Input = serde_json::from_value(input).map_err(|cause| ApiError::Validation(cause.to_string()))?;
    let output = call::<O>(server, caller, input, request).await?;
    serde_json::to_value(output).map_err(ApiError::internal)
}
