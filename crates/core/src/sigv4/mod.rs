//! Signature Version 4: verification of requests and the signing of our own.
//!
//! [`parse`] turns the raw parts of a request into [`Presented`] credentials or says what is wrong with their form;
//! [`Presented::verify`] turns those into [`Verified`], the only proof that a signature was right (T-44). Whose key it
//! is, session tokens, replays (T-49) and error codes on the wire are decided elsewhere.

mod canonical;
mod key;
mod node;
mod parse;
mod sign;
#[cfg(test)]
mod tests;
mod verify;

use crate::time::Timestamp;

pub use key::{SecretKey, SigningKey};
pub use node::{NodeKey, NodePresented, NodeVerified, parse_node};
pub use parse::{Form, Presented, Scope, parse};
pub use sign::{Credentials, presign, sign};
pub use verify::{Rules, Verified};

/// The one algorithm served. SigV4a (`AWS4-ECDSA-P256-SHA256`) and Signature Version 2 are refused.
pub const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far the signer's clock may be off, either way, for json and query services.
pub const MAX_SKEW: std::time::Duration = std::time::Duration::from_secs(300);
/// Longest life of a presigned request that the scheme itself allows: seven days, in seconds.
pub const MAX_EXPIRES_SECONDS: u32 = 604_800;
/// Longest request target (path and query). Presigned requests carry a session token of up to 4 KiB in it.
pub const MAX_TARGET_BYTES: usize = 16 * 1024;
/// Most headers of one request.
pub const MAX_HEADERS: usize = 100;
/// Longest value of one header; session tokens may have 4 KiB.
pub const MAX_HEADER_BYTES: usize = 8 * 1024;

/// The parts of a request exactly as received; nothing decoded, folded or reordered.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// Path and query as in the request line.
    pub target: &'a str,
    /// Every header as received, in any case and order, repeated ones repeated.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// The whole body. Its size limit is the reader's business.
    pub body: &'a [u8],
}

/// How strictly the target must be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// Only one spelling: no dot or empty segments, no needless or doubled percent encoding, no query key twice
    /// (T-46). What the server uses.
    CanonicalOnly,
    /// Dot segments and doubled slashes are resolved before hashing and keys may repeat, as the scheme describes.
    /// Only for services that resolve paths by the same rule.
    Normalized,
}

/// Why a request's signature was not accepted. The code that goes with each on the wire is that of the condition in
/// the table of authentication failures (json code / query code).
///
/// No variant tells whether a key id exists or which part of a secret was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SigV4Error {
    /// No credentials at all: `MissingAuthenticationTokenException` / `MissingAuthenticationToken`.
    #[error("the request carries no credentials")]
    NoCredentials,
    /// Malformed, missing or doubled parts: `IncompleteSignatureException` / `IncompleteSignature`.
    #[error("{0}")]
    Malformed(&'static str),
    /// Another algorithm than [`ALGORITHM`]: `IncompleteSignatureException` / `IncompleteSignature`.
    #[error("only the algorithm AWS4-HMAC-SHA256 is accepted")]
    UnsupportedAlgorithm,
    /// Credentials in header and query at once: `IncompleteSignatureException` / `IncompleteSignature`.
    #[error("credentials stand both in the Authorization header and in the query")]
    MixedForms,
    /// A header or query key stands twice: `IncompleteSignatureException` / `IncompleteSignature`.
    #[error("`{0}` stands more than once")]
    Duplicate(String),
    /// A part is longer than its limit: `IncompleteSignatureException` / `IncompleteSignature`.
    #[error("{0} is too large")]
    TooLarge(&'static str),
    /// A header that must be signed is not: `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error("the header `{0}` must be present and signed")]
    NotSigned(String),
    /// The path or query could be read in more than one way: `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error("the request target is not in canonical form: {0}")]
    NotCanonical(&'static str),
    /// Unsigned or streamed payload: `InvalidSignatureException` / `SignatureDoesNotMatch` (s3 `NotImplemented`).
    #[error("the payload must be signed whole")]
    UnsignedPayload,
    /// `X-Amz-Content-SHA256` is not the body's hash: `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error("the provided x-amz-content-sha256 header does not match what was computed")]
    PayloadMismatch,
    /// Region, service or day of the scope is not ours (T-45): `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error("Credential should be scoped to {0}")]
    WrongScope(&'static str),
    /// Signed too long ago, or the presigned life is over: `InvalidSignatureException` / `SignatureDoesNotMatch`
    /// (s3 `RequestTimeTooSkewed`).
    #[error("Signature expired: {} is now earlier than {}", .signed.to_basic(), .limit.to_basic())]
    Expired {
        /// When it was signed (for a presigned request: when it expired).
        signed: Timestamp,
        /// The earliest time still accepted.
        limit: Timestamp,
    },
    /// Signed in the future: same codes as [`SigV4Error::Expired`].
    #[error("Signature not yet current: {} is still later than {}", .signed.to_basic(), .limit.to_basic())]
    NotYetCurrent {
        /// When it claims to be signed.
        signed: Timestamp,
        /// The latest time accepted.
        limit: Timestamp,
    },
    /// A presigned request where the call allows none, or with too long a life:
    /// `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error("a presigned request may live at most {0} seconds here")]
    ExpiresTooLong(u64),
    /// Wrong signature: `InvalidSignatureException` / `SignatureDoesNotMatch`.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}
