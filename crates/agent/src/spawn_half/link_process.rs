//! The link half as a child of this process: started without privileges, fed messages, started again when it dies.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};

use super::child::{self, Child, Identity, SessionKind};
use super::program::Surroundings;
use crate::halves::{Channel, ChannelError, MAX_MESSAGE, ToLink, ToSpawn};

/// Shortest time between two starts (DESIGN: a new link half within 1 s).
const RESTART_AFTER: Duration = Duration::from_millis(500);
/// Most messages that wait for a slow link half; one that does not read at all is killed.
const MAX_WAITING: usize = 4096;
/// Variables that the link half needs to find its way: proxies and logging.
const KEPT_VARIABLES: [&str; 9] = [
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "MUNJIGI_LOG",
];

/// Users to run it as, in order of preference, when this process is root (T-74).
const LINK_USERS: [&str; 3] = ["munjigi", "_munjigi", "nobody"];

/// The running link half.
#[derive(Debug)]
pub(crate) struct LinkProcess {
    pid: Pid,
    channel: Channel,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    started: Instant,
}

impl LinkProcess {
    /// Starts it.
    pub(crate) fn start(surroundings: &Surroundings, user: Option<&str>, now: Instant) -> anyhow::Result<Self> {
        let (channel, far) = Channel::pair().context("failed to make the channel to the link half")?;
        let null = std::fs::OpenOptions::new().write(true).open("/dev/null").context("failed to open /dev/null")?;
        let errors = std::io::stderr().as_fd().try_clone_to_owned().context("failed to share standard error")?;
        let environment = KEPT_VARIABLES
            .iter()
            .filter_map(|name| std::env::var_os(name).map(|value| ((*name).to_owned(), value)))
            .collect();
        let pid = child::start(Child {
            // The file that this process runs, even if another has taken its place by now.
            program: OsString::from("/proc/self/exe"),
            name: OsString::from("munjigi"),
            arguments: vec!["agent".into(), "link-half".into()],
            environment,
            stdio: [far.into_fd(), null.into(), errors],
            session: SessionKind::Detached,
            cgroup: None,
            network: surroundings.network.as_ref().map(AsRawFd::as_raw_fd),
            identity: identity(user)?,
            no_new_privileges: true,
            directories: vec![c"/".to_owned()],
            limits: Vec::new(),
            umask: 0o077,
            // None: when the channel closes it ends by itself, after it has reported what became of its sessions. The
            // keeper ends one that does not.
            death_signal: 0,
        })
        .context("failed to start the link half")?;
        Ok(Self { pid, channel, waiting: VecDeque::new(), started: now })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns when the next one may be started.
    pub(crate) fn restart_at(&self) -> Instant {
        self.started + RESTART_AFTER
    }

    /// Returns the channel, for waiting on it.
    pub(crate) fn channel(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Tells whether messages wait for room in the channel.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends a message, or keeps it until there is room.
    pub(crate) fn send(&mut self, message: &ToLink, descriptors: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        let bytes = message.encode();
        if self.waiting.is_empty() {
            match self.channel.send(&bytes, descriptors) {
                Err(ChannelError::NotReady) => {}
                other => return other.context("failed to write to the link half"),
            }
        }
        if self.waiting.len() >= MAX_WAITING {
            bail!("the link half does not read");
        }
        let copies: Result<Vec<OwnedFd>, _> = descriptors.iter().map(BorrowedFd::try_clone_to_owned).collect();
        self.waiting.push_back((bytes, copies.context("failed to keep a descriptor")?));
        Ok(())
    }

    /// Sends what waits, as far as there is room.
    pub(crate) fn send_waiting(&mut self) -> anyhow::Result<()> {
        while let Some((bytes, descriptors)) = self.waiting.front() {
            let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
            match self.channel.send(bytes, &borrowed) {
                Err(ChannelError::NotReady) => break,
                other => other.context("failed to write to the link half")?,
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// Receives one message; `None` when there is none at present.
    pub(crate) fn receive(&self) -> anyhow::Result<Option<ToSpawn>> {
        let mut buffer = vec![0; MAX_MESSAGE];
        match self.channel.receive(&mut buffer) {
            // Descriptors from the link half are closed unseen: no message of it carries any.
            Ok((count, _)) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                ToSpawn::decode(bytes).map(Some).context("the link half sent no message of ours")
            }
            Err(ChannelError::NotReady) => Ok(None),
            Err(error) => Err(error).context("the link half is gone"),
        }
    }

    /// Ends it at once; the caller reaps it.
    pub(crate) fn kill(&self) {
        // It may have ended by itself.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

/// Returns whom the link half becomes; `None` without root: it stays this user, in a process of its own.
pub(super) fn identity(user: Option<&str>) -> anyhow::Result<Option<Identity>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let find = |name: &str| User::from_name(name).ok().flatten().filter(|found| !found.uid.is_root());
    let found = match user {
        Some(name) => find(name).with_context(|| format!("`link_user` {name} in agent.toml is no ordinary OS user"))?,
        None => LINK_USERS.iter().find_map(|name| find(name)).context(
            "this system has none of the users munjigi, _munjigi and nobody; name one in `link_user` of agent.toml",
        )?,
    };
    let gid = found.gid.as_raw();
    Ok(Some(Identity { uid: found.uid.as_raw(), gid, groups: vec![gid] }))
}
