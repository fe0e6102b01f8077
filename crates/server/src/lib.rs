//! The control plane and gateway: signed API, policy decisions, sessions, recordings and the audit trail.
//!
//! [`Server`] is the shared state of one process; every request passes [`door`], which alone decides, audits and runs.
#![forbid(unsafe_code)]

use munjigi_core::arn::Deployment;

pub mod api;
pub mod audit;
pub mod clock;
pub mod config;
pub mod door;
pub mod identity;
pub mod store;

/// The state that all requests of one server process share. Held in an `Arc`; its parts have their own locks.
pub struct Server {
    pub(crate) config: config::Config,
    pub(crate) deployment: Deployment,
    pub(crate) identities: identity::Identities,
    pub(crate) audit: audit::AuditLog,
    pub(crate) store: store::Store,
}
