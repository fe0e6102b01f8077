//! The process that stands above the agent so that nothing of a session outlives it (T-79).
//!
//! It is the reaper of all that descends from it, so when the privileged half is killed, whatever its programs started
//! comes here and is ended. It then starts the privileged half again. It knows no keys and reads no input. When it is
//! killed itself, the privileged half gets SIGTERM and ends its sessions.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::identity::DataDir;
use crate::{clock, spawn_half, sys};

/// How long the link half may report what became of its sessions before it is ended too.
const REPORT: Duration = Duration::from_secs(2);
/// Before the privileged half is started again.
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// A privileged half that is killed sooner than this after its start is not started again.
const LEAST_LIFE: Duration = Duration::from_secs(5);

/// Runs the agent below a keeper. Call while the process has one thread.
pub(crate) fn run(data: &DataDir) -> anyhow::Result<ExitCode> {
    nix::sys::prctl::set_child_subreaper(true).context("failed to become the reaper of the agent")?;
    let wanted: SigSet = [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    wanted.thread_block().context("failed to hold signals back")?;
    loop {
        let started = clock::monotonic();
        let Some(child) = sys::fork().context("failed to start the privileged half")? else {
            // If the keeper is killed, this half ends its sessions and itself.
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).context("failed to watch the keeper")?;
            return spawn_half::run(data);
        };
        let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_CLOEXEC).context("failed to receive signals")?;
        let status = watch(child, &signals)?;
        end_orphans();
        match status {
            WaitStatus::Exited(_, code) => return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
            WaitStatus::Signaled(_, signal, _) if started.elapsed() >= LEAST_LIFE => {
                tracing::error!(%signal, "the agent's privileged half was killed; it is started again");
            }
            _ => anyhow::bail!("the agent's privileged half was killed right after its start"),
        }
        std::thread::sleep(RESTART_AFTER);
    }
}

/// Passes signals on until the child has ended.
fn watch(child: Pid, signals: &SignalFd) -> anyhow::Result<WaitStatus> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
            other => return other.context("failed to wait for the privileged half"),
        }
        let Ok(Some(info)) = signals.read_signal() else { continue };
        match Signal::try_from(info.ssi_signo.cast_signed()) {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            // It may have ended a moment ago.
            Ok(signal) => drop(kill(child, signal)),
        }
    }
}

/// Ends everything that the privileged half left behind; its link half gets a moment to say what happened.
fn end_orphans() {
    let until = clock::monotonic() + REPORT;
    let links = spawn_half::link_halves();
    spawn_half::kill_descendants(&links, 50);
    while clock::monotonic() < until && !spawn_half::link_halves().is_empty() {
        // Reaps what ends meanwhile.
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status.pid().is_some()) {}
        std::thread::sleep(Duration::from_millis(10));
    }
    spawn_half::kill_descendants(&[], 50);
}
