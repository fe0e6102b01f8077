//! The processes that `munjigi up` starts: the server and the agent, as copies of this program.
//!
//! In the foreground they end with us, however we end: by order, by being dropped, and if we are killed by the
//! kernel's parent-death signal. In the background they have a session of their own and nothing of ours.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid, setsid};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// How long a server or agent may take until it says that it is ready; the first start makes keys and a database.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one may take to end in good order before it is killed; a server drains for at most 30 s.
const END_LIMIT: Duration = Duration::from_secs(35);
/// Most of a log that is shown when a start failed, bytes.
const LOG_TAIL: u64 = 4096;

/// Whether a process ends with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// It ends when we do.
    WithUs,
    /// It lives on.
    Background,
}

/// What `up` tells the copies it starts; not for people.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Upbringing {
    /// Leave the session and the descriptors of whoever started this
    #[arg(long, hide = true)]
    background: bool,
    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    end_with: Option<i32>,
}

impl Upbringing {
    /// Does so. Call it first of all, while the process has one thread and has opened nothing.
    pub(crate) fn apply(&self) -> anyhow::Result<()> {
        if let Some(parent) = self.end_with {
            set_pdeathsig(Signal::SIGTERM).context("cannot ask to end with the parent")?;
            if getppid() != Pid::from_raw(parent) {
                bail!("the process that started this has ended already");
            }
        }
        if self.background {
            leave();
        }
        Ok(())
    }
}

/// Leaves the session and the descriptors of whoever started this process. Call it as [`Upbringing::apply`].
pub(crate) fn leave() {
    // Fails only for the leader of a group: somebody else has started us, and sees to it.
    let _ = setsid();
    close_inherited();
}

/// Closes every descriptor beyond the standard three: they belong to whoever started us.
fn close_inherited() {
    let Ok(listing) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers: Vec<i32> = listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        // The listing's own descriptor is among them and closed by now; nothing else of ours is open yet.
        let _ = nix::unistd::close(number);
    }
}

/// A copy of this program at work.
pub(crate) struct Helper {
    name: &'static str,
    child: Child,
    life: Life,
}

impl Helper {
    /// Starts a copy with these arguments and waits until its standard output has a line that begins with `ready`.
    /// Its messages go to the log.
    pub(crate) async fn start(
        name: &'static str,
        arguments: &[&std::ffi::OsStr],
        life: Life,
        log: &Path,
        ready: &str,
    ) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let log_file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let log_start = log_file.metadata().map(|meta| meta.len()).unwrap_or_default();
        let mut command = Command::new(program);
        command.args(arguments);
        match life {
            Life::WithUs => command.arg("--end-with").arg(std::process::id().to_string()).kill_on_drop(true),
            Life::Background => command.arg("--background"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        if life == Life::WithUs {
            // Ctrl-C is for the program in the session: our helpers are told by us. The leader of a group could not
            // leave the session, which those in the background do themselves.
            command.process_group(0);
        }
        let mut child = command.spawn().with_context(|| format!("cannot start the {name}"))?;
        let output = child.stdout.take().context("the helper has no standard output")?;
        let said = tokio::time::timeout(START_LIMIT, wait_for_line(output, ready)).await;
        let helper = Self { name, child, life };
        match said {
            Ok(Ok(true)) => Ok(helper),
            Ok(Ok(false)) => Err(helper.failed(log, log_start).await),
            Ok(Err(error)) => Err(error).with_context(|| format!("cannot hear the {name}")),
            Err(_) => {
                Err(anyhow!("the {name} was not ready within {} s; see {}", START_LIMIT.as_secs(), log.display()))
            }
        }
    }

    /// Returns its process id, if it has not ended.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return Ok(()) };
        // It may have ended in this moment, which is what we want.
        let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        let ended: std::io::Result<ExitStatus> = match tokio::time::timeout(END_LIMIT, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.start_kill().ok();
                self.child.wait().await
            }
        };
        ended.map(|_| ()).with_context(|| format!("cannot wait for the {}", self.name))
    }

    /// Leaves it running when it lives in the background, ends it otherwise.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        match self.life {
            Life::WithUs => self.stop().await,
            Life::Background => Ok(()),
        }
    }

    /// Says why the start failed, in the words of its log.
    async fn failed(mut self, log: &Path, log_start: u64) -> anyhow::Error {
        self.child.start_kill().ok();
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        let words = tail(log, log_start).unwrap_or_default();
        let words = words.trim();
        if words.is_empty() {
            anyhow!("the {} ended at its start ({status}); see {}", self.name, log.display())
        } else {
            anyhow!("the {} ended at its start ({status}): {}", self.name, super::text::escaped(words))
        }
    }
}

/// Reads lines until one begins with the word; tells whether it came before the end. The rest is left unread: a helper
/// says nothing else there.
async fn wait_for_line(output: tokio::process::ChildStdout, ready: &str) -> std::io::Result<bool> {
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if line.starts_with(ready) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns what was appended to a log since `start`, the last part of it.
fn tail(log: &Path, start: u64) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Asks a process that an earlier `up` left in the background to end, and waits until it has.
pub(crate) async fn end_process(name: &str, id: i32) -> anyhow::Result<()> {
    let process = Pid::from_raw(id);
    match kill(process, Signal::SIGTERM) {
        Ok(()) => {}
        Err(Errno::ESRCH) => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot end the {name} (process {id})")),
    }
    let gone = async {
        while kill(process, None).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(END_LIMIT, gone).await.is_err() {
        bail!("the {name} (process {id}) does not end; look at its log, and if need be `kill -9 {id}`");
    }
    Ok(())
}
