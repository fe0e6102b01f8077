//! The control plane and gateway: signed API, policy decisions, sessions, recordings and the audit trail.
//!
//! [`Server`] is the shared state of one process; every request passes [`door`], which alone decides, audits and runs.
//! [`Server::start`] makes one and [`Running`] stops it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;

use munjigi_core::arn::Deployment;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub mod api;
pub mod audit;
pub mod clock;
pub mod config;
pub mod door;
mod gateway;
mod http;
pub mod identity;
pub mod keys;
mod running;
mod setup;
pub mod store;
mod tls;

pub use running::Running;
pub use setup::ServerOptions;

/// The state that all requests of one server process share. Held in an `Arc`; its parts have their own locks.
pub struct Server {
    pub(crate) config: config::Config,
    pub(crate) deployment: Deployment,
    pub(crate) store: store::Store,
    pub(crate) identities: identity::Identities,
    pub(crate) audit: audit::AuditLog,
    pub(crate) keys: keys::Keys,
    /// Every host name and address that the server is reached by.
    pub(crate) names: BTreeSet<String>,
    pub(crate) authenticator: identity::Authenticator,
    pub(crate) replays: api::replay::Replays,
    pub(crate) failures: door::failures::Failures,
    /// Requests that ended in a panic since the start.
    pub(crate) panics: AtomicU64,
    /// Everything that runs; waited for when the server stops.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server stops.
    pub(crate) stop: CancellationToken,
}
