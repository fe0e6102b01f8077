//! The audit record (CloudTrail form), its hash chain and signed checkpoints, as bytes.
//!
//! `docs/audit-format.md` describes the log in prose. When a line is durable, where it is kept and who may read it is
//! decided elsewhere.

mod chain;
mod checkpoint;
mod identity;
mod record;
#[cfg(test)]
mod tests;
mod text;
mod verify;

pub use chain::{Chain, Line, LineError, Link, LogId, MAX_LINE_BYTES};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use identity::{
    OnBehalfOf, SessionAttributes, SessionContext, SessionIssuer, UserIdentity, UserType, WebIdentityFederationData,
};
pub use record::{
    Addendum, AuditError, AuditRecord, EVENT_VERSION, EventType, HIDDEN, MAX_RECORD_BYTES, Resource, TlsDetails,
    parameters,
};
pub use text::{MAX_FIELD_BYTES, escape};
pub use verify::{Fault, Finding, Trust, Verdict, Verifier};
