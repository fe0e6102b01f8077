//! What is known of a request besides its input.

use std::net::IpAddr;

use munjigi_core::time::Timestamp;
use uuid::Uuid;

use crate::clock;

/// What is known of a request besides its input; fixed when it arrives.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// `x-amzn-RequestId` and `requestID` of the audit record.
    pub request_id: Uuid,
    /// When it arrived; the clock is read once per request.
    pub time: Timestamp,
    /// The client's address, IPv4 in its own form.
    pub source_ip: IpAddr,
    /// The client's `User-Agent`, at most 1 KiB.
    pub user_agent: String,
    /// The `Referer`, at most 1 KiB.
    pub referer: Option<String>,
    /// What TLS agreed on; `None` without TLS.
    pub tls: Option<TlsDetails>,
    /// The `Host` header as sent.
    pub host: String,
    /// The region named in the credential scope.
    pub region: String,
    /// `amz-sdk-invocation-id`: the same in all repetitions of one call.
    pub invocation_id: Option<String>,
    /// Which way it came.
    pub via: Via,
}

impl RequestMeta {
    /// Returns the description of a new request that came over the link or SSH connection that this one opened.
    #[must_use]
    pub fn again(&self) -> Self {
        let via = if self.via == Via::Ssh { Via::Ssh } else { Via::Link };
        Self { request_id: Uuid::new_v4(), time: clock::now(), invocation_id: None, via, ..self.clone() }
    }
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
    /// A connection of the SSH door.
    Ssh,
}
