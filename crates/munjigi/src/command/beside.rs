//! A program of this machine that runs beside a forward to a target: found, started, given the signals, and waited for.
//! Used by `db` and `rdp`.

use std::ffi::OsString;
use std::io;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::session::Signal;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Finish, looking, resolve};
use crate::cli::Where;
use crate::client::forward::{ForwardStart, Lead, Listener, Opened, Served, Standing, serve};
use crate::client::signals::Signals;
use crate::client::targets::{self, Target};
use crate::client::text::escaped;
use crate::client::wish::Outcome;

/// What the exit status of a program that a signal ended is added to, as shells do.
const SIGNALLED: i32 = 128;

/// A directory that only this user can enter, for sockets and files of one run; removed with what is in it.
#[derive(Debug)]
pub(super) struct Stage(PathBuf);

impl Stage {
    /// Makes one where this user's run-time files are, else where temporary ones are.
    pub(super) fn new() -> anyhow::Result<Self> {
        let own = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir());
        let name = format!("munjigi-{}", Uuid::new_v4().simple());
        // Half of it is random enough, and a socket's path has room for about a hundred bytes.
        let path = own.unwrap_or_else(std::env::temp_dir).join(name.get(..24).unwrap_or(&name));
        // It fails if there is one: nobody else can have made it ready for us.
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Returns a path in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it.
    pub(super) fn write(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        write_private(&path, content)?;
        Ok(path)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // What is left is in a directory for temporary files, and nobody else's to read.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a file that only this user can read.
pub(super) fn write_private(path: &Path, content: &str) -> anyhow::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Asks what a target is.
pub(super) async fn look_up(place: &Where, name: &str) -> anyhow::Result<Target> {
    let name = name.strip_prefix("target:").unwrap_or(name);
    looking(place, async |api| targets::describe(api, name).await).await
}

/// Returns the first of the programs that the `PATH` has.
pub(super) fn first_installed(programs: &[&str]) -> Option<OsString> {
    let path = std::env::var_os("PATH")?;
    let directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let is_there = |name: &&&str| directories.iter().any(|directory| directory.join(name).is_file());
    programs.iter().find(is_there).map(OsString::from)
}

/// Listens on a port of the loopback; 0 takes the one that the target is meant to have here, or a free one.
pub(super) async fn loopback(target: &Target, port: u16) -> anyhow::Result<(Listener, u16)> {
    let wanted = if port == 0 { target.local_port.unwrap_or(0) } else { port };
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = match Listener::tcp(address(wanted)).await {
        // Nobody insisted on it: two windows may be open to the same target.
        Err(_) if port == 0 && wanted != 0 => Listener::tcp(address(0)).await,
        listening => listening,
    };
    let shown = address(wanted);
    let listener = listener.with_context(|| format!("cannot listen on {shown}; --port 0 takes a free port"))?;
    let taken = listener.address().context("cannot tell the port that was taken")?;
    Ok((listener, taken.port()))
}

/// Opens the forward to a target, or says how it ended before it stood.
pub(super) async fn open(
    place: &Where,
    target: &Target,
    purpose: &'static str,
    reason: Option<String>,
) -> anyhow::Result<Result<Standing, Finish>> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let context = Arc::new(resolve(place)?);
    let start = ForwardStart {
        // A node may have the same name.
        target: format!("target:{}", target.name),
        reason: reason.unwrap_or_default(),
        purpose,
        ..ForwardStart::default()
    };
    tokio::select! {
        opened = Standing::open(context, start, note) => Ok(match opened? {
            Opened::Stands(standing) => Ok(standing),
            Opened::Not(outcome) => Err(Finish::Session(outcome)),
        }),
        signal = signals.next_ending() => Ok(Err(Finish::Session(Outcome::Interrupted(signal)))),
    }
}

/// Serves the forward until a signal comes or its session is over.
pub(super) async fn stay(mut standing: Standing, listener: Listener) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let connector = standing.connector().clone();
    let error = tokio::select! {
        outcome = standing.over() => return Ok(Finish::Session(outcome)),
        _ = signals.next_ending() => None,
        error = serve(&listener, &connector, &Lead::To(None), tell) => Some(error),
    };
    standing.end().await;
    error.map_or(Ok(Finish::Done), |error| Err(error.into()))
}

/// Runs a program on this terminal while the forward stands, and finishes as it does.
pub(super) async fn run(mut standing: Standing, listener: Listener, mut command: Command) -> anyhow::Result<Finish> {
    // Ctrl-C is the program's business: the terminal gives it to both, and here it must end nothing.
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let connector = standing.connector().clone();
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = command.kill_on_drop(true).spawn().with_context(|| format!("cannot start {program}"))?;
    let lead = Lead::To(None);
    let mut is_over = false;
    let ended = {
        let mut serving = pin!(serve(&listener, &connector, &lead, tell));
        loop {
            tokio::select! {
                status = child.wait() => {
                    // Why a connection was not made is said, even if the program ended at once because of it.
                    let _ = timeout(Duration::ZERO, &mut serving).await;
                    break status.with_context(|| format!("cannot wait for {program}"));
                }
                outcome = standing.over(), if !is_over => {
                    is_over = true;
                    note(&format!("the forward is over: {}", escaped(&why(&outcome))));
                }
                signal = signals.next_ending() => pass(&child, signal),
                error = &mut serving => break Err(error.into()),
            }
        }
    };
    if !is_over {
        standing.end().await;
    }
    Ok(Finish::Status(status_of(ended?)))
}

/// Gives a signal on that came to us alone. Those of the terminal's keys the program has got already.
fn pass(child: &Child, signal: Signal) {
    let signal = match signal {
        Signal::Hangup => nix::sys::signal::Signal::SIGHUP,
        Signal::Terminate => nix::sys::signal::Signal::SIGTERM,
        _ => return,
    };
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // It may have ended in this moment, which the next turn sees.
        let _ = kill(Pid::from_raw(id), signal);
    }
}

fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn why(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Ended { message, .. } | Outcome::Refused { message, .. } | Outcome::Lost(message) => message.clone(),
        _ => "it was ended".to_owned(),
    }
}

fn tell(served: Served) -> io::Result<()> {
    if let Served::Failed(failed) = served {
        note(&escaped(&failed.to_string()));
    }
    Ok(())
}

/// A line for the person on standard error.
pub(super) fn note(text: &str) {
    super::note(&format!("munjigi: {text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_needs_is_private_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let stage = Stage::new().unwrap();
        let file = stage.write("ca.pem", "x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let directory = file.parent().unwrap().to_owned();
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
        drop(stage);
        assert!(!directory.exists());
    }

    #[test]
    fn a_program_that_a_signal_ended_has_the_status_that_shells_give() {
        assert_eq!(status_of(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(status_of(ExitStatus::from_raw(2)), 130);
    }
}
