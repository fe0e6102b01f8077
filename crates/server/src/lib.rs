//! The control plane and gateway: signed API, policy decisions, sessions, recordings and the audit trail.
//!
//! [`Server`] is the shared state of one process; every request passes [`door`], which alone decides, audits and runs.
//! [`Server::start`] makes one and [`Running`] stops it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use munjigi_core::arn::Deployment;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod accounts;
pub mod api;
pub mod audit;
#[cfg(test)]
mod child;
pub mod clock;
pub mod config;
mod directory;
mod disk;
pub mod door;
mod evidence;
mod forwarding;
pub mod gateway;
mod http;
pub mod identity;
pub mod keys;
mod pace;
mod random;
pub mod recording;
mod revoke;
mod running;
mod service_event;
pub mod sessions;
mod setup;
pub mod ssh_authority;
mod ssh_logins;
pub mod store;
pub mod targets;
#[cfg(test)]
mod testing;
mod tls;
mod witness;

pub use evidence::{Problem, Progress, Report, verify_data_dir};
pub use running::Running;
pub use setup::ServerOptions;

/// The state that all requests of one server process share. Held in an `Arc`; its parts have their own locks.
pub struct Server {
    pub(crate) config: config::Config,
    pub(crate) deployment: Deployment,
    pub(crate) store: store::Store,
    pub(crate) identities: identity::Identities,
    pub(crate) session_tokens: identity::session_token::SessionTokens,
    pub(crate) oidc: identity::Providers,
    pub(crate) mfa_tries: identity::mfa::Tries,
    /// Keys that were pushed to nodes and not used at the SSH door.
    pub(crate) ssh_pushes: identity::ssh::Pushes,
    /// SSH logins that wait for somebody's approval.
    pub(crate) ssh_approvals: identity::ssh::approval::Approvals,
    /// How many proofs at the SSH door were refused of late.
    pub(crate) ssh_failures: identity::ssh::LoginFailures,
    /// The URL that people reach this server by, without a slash at its end.
    pub(crate) endpoint: String,
    pub(crate) audit: audit::AuditLog,
    pub(crate) recordings: recording::Recordings,
    pub(crate) gateway: gateway::Gateway,
    pub(crate) pace: pace::Pace,
    /// Where connections are carried that have proved to carry much.
    pub(crate) bulk: munjigi_link::BulkThreads,
    pub(crate) book: sessions::Book,
    /// People's accounts on nodes.
    pub(crate) accounts: accounts::Accounts,
    /// Tells when a node was deregistered or its tags changed; sent by the operations that do, received by the task
    /// that judges sessions again.
    pub(crate) nodes_changed: watch::Sender<u64>,
    /// Nodes as policy needs them for each connection.
    pub(crate) known_nodes: forwarding::KnownNodes,
    /// Records about connections, which nobody waits for.
    pub(crate) connection_trail: forwarding::Trail,
    pub(crate) preferences: api::ssm::preferences::PreferencesInForce,
    pub(crate) keys: keys::Keys,
    pub(crate) ssh_authority: ssh_authority::SshAuthority,
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

/// Locks a mutex, also after a thread that held it panicked: what it guards is changed in single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
