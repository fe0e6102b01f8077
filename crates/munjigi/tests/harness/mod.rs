//! Servers, agents, clients and a faulty network for tests. Each stops itself when it is dropped.

pub(crate) mod aws_client;
pub(crate) mod aws_metadata;
pub(crate) mod browser;
pub(crate) mod cut;
pub(crate) mod databases;
pub(crate) mod forward;
pub(crate) mod hostile;
pub(crate) mod link;
pub(crate) mod raw_ssh;
pub(crate) mod server;
pub(crate) mod ssh;
pub(crate) mod ssh_agent;
pub(crate) mod sshd;
pub(crate) mod terminal;
pub(crate) mod wait;

pub(crate) use aws_metadata::AwsMetadata;
pub(crate) use cut::CutProxy;
pub(crate) use databases::TestDatabase;
pub(crate) use forward::TestForward;
pub(crate) use server::{TestAgent, TestServer};
pub(crate) use ssh::TestSsh;
pub(crate) use sshd::TestSshd;
pub(crate) use terminal::Terminal;
pub(crate) use wait::{free_port, lasting, wait_for, wait_until_runs};

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Returns the binary under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_munjigi")
}

/// Returns a program of the virtual environment that `make test` installs, or of the machine.
pub(crate) fn python_tool(name: &str) -> PathBuf {
    std::env::var_os("MUNJIGI_TEST_VENV")
        .map(|venv| PathBuf::from(venv).join("bin").join(name))
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a command that must succeed, and returns its standard output.
pub(crate) fn success(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {:?}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
