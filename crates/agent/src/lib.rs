//! The agent on a node: two processes that dial out, verify grants and run programs (design.md sections 1 to 3).
//!
//! The privileged half ([`run`]) starts programs and talks to nobody outside; the link half ([`link_half_main`]) talks
//! to the server and can start nothing. Nothing here listens on the network, but for what a verified grant names.

mod account_health;
mod account_worker;
mod aws_key_worker;
mod call;
mod clock;
mod config;
mod confine;
mod copy_worker;
mod destinations;
mod halves;
mod identity;
mod inventory;
mod keeper;
mod link_half;
mod listener;
mod lock;
mod register;
mod ring;
mod rsync_worker;
mod spawn_half;
mod sys;
pub mod syslog;
mod tool;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use account_health::{AccountHealth, AccountProblem, Health, account_health};
pub use register::{JoinOptions, Joined, Status, join, leave, status};

/// How to run the agent.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The agent's data directory, made by [`join`].
    pub data_dir: PathBuf,
}

/// Runs the agent until SIGTERM or SIGINT, which end its sessions in good order and return success. Prints `online
/// mi-…` on standard output once the link stands.
///
/// Call it while the process has one thread: it starts copies of itself. The program must lead `agent link-half` to
/// [`link_half_main`], `agent copy-worker` to [`copy_worker_main`], `agent listener` to [`listener_main`], `agent
/// account-worker` to [`account_worker_main`] and `agent aws-key-worker` to [`aws_key_worker_main`]; the agent runs it again that way.
pub fn run(options: &RunOptions) -> anyhow::Result<ExitCode> {
    keeper::run(&identity::DataDir::new(&options.data_dir))
}

/// The files in which an agent says whom the node's sshd may believe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshFiles {
    /// Public keys of the authorities for people: sshd's `TrustedUserCAKeys`.
    pub user_authorities: std::path::PathBuf,
    /// What they revoked: sshd's `RevokedKeys`.
    pub revoked: std::path::PathBuf,
    /// Certificate for the host key: sshd's `HostCertificate`. Missing while the server knows no host key.
    pub host_certificate: std::path::PathBuf,
}

/// Returns where the agent of a data directory writes whom sshd may believe.
pub fn ssh_files(data_dir: &Path) -> SshFiles {
    let directory = data_dir.join(spawn_half::SSH_DIRECTORY);
    SshFiles {
        user_authorities: directory.join(spawn_half::USER_AUTHORITIES),
        revoked: directory.join(spawn_half::REVOKED),
        host_certificate: directory.join(spawn_half::HOST_CERTIFICATE),
    }
}

/// Returns where the node's agent answers sshd's helper: from its data directory's identity and configuration.
pub fn keys_socket(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let data = identity::DataDir::new(data_dir);
    let (identity, config) = (data.identity()?, config::load(&data)?);
    Ok(config.keys_socket_path(&data, &identity.node_id))
}

/// Runs the link half; only the agent itself starts it, as `agent link-half`.
pub fn link_half_main() -> anyhow::Result<()> {
    link_half::run()
}

/// Listens on the node for a session; only the agent itself starts it, as `agent listener`.
pub fn listener_main() -> anyhow::Result<()> {
    listener::run()
}

/// Reads or writes the files of one copy; only the agent itself starts it, as `agent copy-worker`.
pub fn copy_worker_main() -> anyhow::Result<()> {
    copy_worker::run()
}

/// Makes this node's accounts what its bundle says; only the agent itself starts it, as `agent account-worker`.
pub fn account_worker_main() -> anyhow::Result<()> {
    account_worker::run()
}

/// Asks AWS's metadata service for pushed keys; only the agent itself starts it, as `agent aws-key-worker`.
pub fn aws_key_worker_main() -> anyhow::Result<()> {
    aws_key_worker::run()
}

/// Tells whether the agent of a data directory answers sshd with keys that AWS pushed, as its owner may have said.
pub fn answers_for_aws(data_dir: &Path) -> anyhow::Result<bool> {
    Ok(config::load(&identity::DataDir::new(data_dir))?.instance_connect.aws)
}
