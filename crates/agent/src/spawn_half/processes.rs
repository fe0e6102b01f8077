//! All processes of a session, so that its end ends every one of them (T-79).
//!
//! With cgroup v2 that is exact: each session has a cgroup of its own. Without it (no root, nothing delegated) the
//! agent is the reaper of everything its programs leave behind, and finds a session's processes by kinship and by
//! the session id in their environment.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use munjigi_core::id::{NodeId, SessionId};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The agent's own cgroup, below which each session gets one.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups(PathBuf);

impl Cgroups {
    /// Makes the agent's cgroup if the system lets it; ends what an earlier agent of this node left in it.
    pub(crate) fn prepare(node: &NodeId) -> Option<Self> {
        let parent = own_cgroup()?;
        let path = parent.join(format!("munjigi-{node}"));
        if path.is_dir() {
            Self(path.clone()).kill_all();
        }
        if !path.is_dir() {
            fs::create_dir(&path).ok()?;
        }
        // Without `cgroup.kill` (before Linux 5.14) the other way is as good.
        path.join("cgroup.kill").exists().then_some(Self(path))
    }

    /// Makes a session's cgroup; returns it and its `cgroup.procs`, through which a child joins.
    fn session(&self, session: &SessionId) -> std::io::Result<(PathBuf, OwnedFd)> {
        let path = self.0.join(format!("session-{session}"));
        fs::create_dir(&path)?;
        let procs = fs::OpenOptions::new().write(true).open(path.join("cgroup.procs"))?;
        Ok((path, procs.into()))
    }

    /// Kills every process in the agent's cgroups and removes them, as far as they are empty by then.
    pub(crate) fn kill_all(&self) {
        // Best effort: what cannot be killed at once is still in its own cgroup and found by the next run.
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

/// Returns the directory of this process's cgroup in the v2 hierarchy.
fn own_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4))?
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

/// The processes of one session.
#[derive(Debug)]
pub(crate) enum Processes {
    /// In a cgroup of their own.
    Cgroup(PathBuf),
    /// Found by kinship.
    Kinship {
        /// The first process, also the id of its kernel session.
        leader: Option<Pid>,
        /// The text in their environment.
        mark: Vec<u8>,
    },
    /// None: a port session runs nothing.
    Nothing,
}

impl Processes {
    /// Prepares for a session's processes; the descriptor, if any, is what its first process joins through.
    pub(crate) fn prepare(session: &SessionId, cgroups: Option<&Cgroups>) -> (Self, Option<OwnedFd>) {
        if let Some(Ok((path, procs))) = cgroups.map(|cgroups| cgroups.session(session)) {
            return (Self::Cgroup(path), Some(procs));
        }
        let mark = format!("MUNJIGI_SESSION_ID={session}").into_bytes();
        (Self::Kinship { leader: None, mark }, None)
    }

    /// Opens what a further process of the session joins through, if there is such a thing.
    pub(crate) fn joining(&self) -> std::io::Result<Option<OwnedFd>> {
        match self {
            Self::Cgroup(path) => {
                fs::OpenOptions::new().write(true).open(path.join("cgroup.procs")).map(|procs| Some(procs.into()))
            }
            Self::Kinship { .. } | Self::Nothing => Ok(None),
        }
    }

    /// Takes note of the session's first process.
    pub(crate) fn started(&mut self, pid: Pid) {
        if let Self::Kinship { leader, .. } = self {
            *leader = Some(pid);
        }
    }

    /// Tells whether no process is left.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Cgroup(path) => fs::read_to_string(path.join("cgroup.events"))
                .is_ok_and(|events| events.lines().any(|line| line == "populated 0")),
            Self::Kinship { .. } => self.list().is_empty(),
            Self::Nothing => true,
        }
    }

    /// Asks every process to end: SIGHUP, and SIGCONT so that stopped ones hear it.
    pub(crate) fn hang_up(&self) {
        for pid in self.list() {
            // A process that has just ended is what was wanted.
            let _ = kill(pid, Signal::SIGHUP);
            let _ = kill(pid, Signal::SIGCONT);
        }
    }

    /// Ends every process, now.
    pub(crate) fn kill(&self) {
        match self {
            Self::Cgroup(path) => {
                let written = fs::OpenOptions::new().write(true).open(path.join("cgroup.kill"));
                if written.and_then(|mut file| file.write_all(b"1")).is_ok() {
                    return;
                }
                self.list().into_iter().for_each(kill_now);
            }
            // Between two looks a process may have made another; the loop ends because each round leaves fewer.
            Self::Kinship { .. } => {
                for _ in 0..16 {
                    let left = self.list();
                    if left.is_empty() {
                        break;
                    }
                    left.into_iter().for_each(kill_now);
                }
            }
            Self::Nothing => {}
        }
    }

    /// Removes what stands for the session in the system; call when it is empty.
    pub(crate) fn remove(&self) {
        if let Self::Cgroup(path) = self {
            // A cgroup that cannot be removed yet is removed by the next run of the agent.
            let _ = fs::remove_dir(path);
        }
    }

    fn list(&self) -> Vec<Pid> {
        match self {
            Self::Cgroup(path) => {
                let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
                text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect()
            }
            Self::Kinship { leader, mark } => kin(*leader, mark),
            Self::Nothing => Vec::new(),
        }
    }
}

fn kill_now(pid: Pid) {
    // Gone already is as good as killed.
    let _ = kill(pid, Signal::SIGKILL);
}

/// A line of the process table.
struct Process {
    pid: i32,
    parent: i32,
    session: i32,
}

/// Reads the process table; zombies are left out, they run nothing.
fn table() -> Vec<Process> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name may hold anything; the fields begin behind its last parenthesis (proc(5)).
            let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
            let state = fields.next()?;
            let parent = fields.next()?.parse().ok()?;
            let session = fields.nth(1)?.parse().ok()?;
            (state != "Z" && state != "X").then_some(Process { pid, parent, session })
        })
        .collect()
}

fn kin(leader: Option<Pid>, mark: &[u8]) -> Vec<Pid> {
    let table = table();
    let own = nix::unistd::getpid().as_raw();
    let below = descendants(&table, own);
    let leader = leader.map_or(-1, Pid::as_raw);
    let mut members: HashSet<i32> = table
        .iter()
        .filter(|process| below.contains(&process.pid))
        .filter(|process| process.session == leader || process.pid == leader || is_marked(process.pid, mark))
        .map(|process| process.pid)
        .collect();
    for root in members.clone() {
        members.extend(descendants(&table, root));
    }
    members.into_iter().map(Pid::from_raw).collect()
}

fn descendants(table: &[Process], root: i32) -> HashSet<i32> {
    let mut found = HashSet::from([root]);
    loop {
        let before = found.len();
        found.extend(table.iter().filter(|process| found.contains(&process.parent)).map(|p| p.pid).collect::<Vec<_>>());
        if found.len() == before {
            break;
        }
    }
    found.remove(&root);
    found
}

fn is_marked(pid: i32, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

/// Kills everything that descends from this process, again and again until nothing is left or `rounds` are over.
pub(crate) fn kill_descendants(spare: &[Pid], rounds: u32) {
    let own = nix::unistd::getpid().as_raw();
    for _ in 0..rounds {
        let mut below = descendants(&table(), own);
        below.retain(|pid| !spare.contains(&Pid::from_raw(*pid)));
        if below.is_empty() {
            return;
        }
        below.into_iter().map(Pid::from_raw).for_each(kill_now);
        while matches!(
            nix::sys::wait::waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
            Ok(status) if status.pid().is_some()
        ) {}
    }
}

/// Returns the link halves below this process.
pub(crate) fn link_halves() -> Vec<Pid> {
    let own = nix::unistd::getpid().as_raw();
    let is_link =
        |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == b"munjigi\0agent\0link-half\0");
    descendants(&table(), own).into_iter().filter(is_link).map(Pid::from_raw).collect()
}
