//! Between fork and exec: what the new process does to itself before it runs the user's program (T-75).
//!
//! The order: cgroup, network namespace, own session, controlling terminal, groups, gid, uid (each read back),
//! capabilities, signals, limits, umask, death signal, descriptors, home directory, exec. Only async-signal-safe calls
//! are made there, on data prepared before the fork.
#![expect(unsafe_code, reason = "code between fork and exec; each block says why it is sound")]

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::Pid;

/// Linux capability interface, version 3 (capset(2)).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// What a step between fork and exec is called when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Before the child did anything.
    Fork = 0,
    /// Joining the session's cgroup.
    Cgroup = 1,
    /// Going back to the host's network namespace.
    Network = 2,
    /// Own session and controlling terminal.
    Terminal = 3,
    /// Groups, gid and uid.
    Identity = 4,
    /// Clearing capabilities.
    Capabilities = 5,
    /// Signals, limits, umask, death signal, descriptors, home.
    Surroundings = 6,
    /// Running the program.
    Exec = 7,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Fork,
        Self::Cgroup,
        Self::Network,
        Self::Terminal,
        Self::Identity,
        Self::Capabilities,
        Self::Surroundings,
        Self::Exec,
    ];
}

/// Whom the child becomes.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// User id.
    pub(crate) uid: u32,
    /// Primary group.
    pub(crate) gid: u32,
    /// All groups, sorted, each once.
    pub(crate) groups: Vec<u32>,
}

/// Everything about the child, prepared before the fork.
#[derive(Debug)]
pub(crate) struct Child {
    /// Program, searched in the `PATH` of `environment` if it has no slash.
    pub(crate) program: OsString,
    /// `argv[0]`.
    pub(crate) name: OsString,
    /// The other arguments.
    pub(crate) arguments: Vec<OsString>,
    /// The whole environment.
    pub(crate) environment: Vec<(String, OsString)>,
    /// Standard input, output and error.
    pub(crate) stdio: [OwnedFd; 3],
    /// Whether it gets a session of its own, and standard input as its controlling terminal.
    pub(crate) session: SessionKind,
    /// `cgroup.procs` of its cgroup.
    pub(crate) cgroup: Option<RawFd>,
    /// The host's network namespace, when the parent has left it.
    pub(crate) network: Option<RawFd>,
    /// Whom it becomes; `None` stays who the parent is.
    pub(crate) identity: Option<Identity>,
    /// No new privileges by set-user-id programs.
    pub(crate) no_new_privileges: bool,
    /// Where it starts, tried in order once privileges are dropped.
    pub(crate) directories: Vec<CString>,
    /// Limits to set: resource, soft, hard.
    pub(crate) limits: Vec<(u32, u64, u64)>,
    /// File mode mask.
    pub(crate) umask: u32,
    /// Signal that the kernel sends it when the parent dies (T-79); 0 for none.
    pub(crate) death_signal: i32,
}

/// How the child relates to sessions and terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionKind {
    /// Own session; standard input becomes its controlling terminal.
    Terminal,
    /// Own session without a terminal.
    Detached,
}

/// Why a program does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step:?} failed: {errno}")]
pub(crate) struct SpawnError {
    /// Where.
    pub(crate) step: Step,
    /// Why.
    pub(crate) errno: Errno,
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        Self { step: Step::Fork, errno }
    }
}

/// Starts the child. Returns once it runs its program, or says which step failed; then nothing runs.
pub(crate) fn start(child: Child) -> Result<Pid, SpawnError> {
    let (progress_read, progress) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let [input, output, error] = child.stdio;
    let mut command = Command::new(&child.program);
    command.arg0(&child.name).args(&child.arguments).env_clear().envs(child.environment);
    command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(error));
    let mut plan = Plan {
        progress: progress.as_raw_fd(),
        parent: nix::unistd::getpid().as_raw(),
        session: child.session,
        cgroup: child.cgroup,
        network: child.network,
        // Room to read the groups back, one more than expected so that a longer list shows.
        readback: vec![0; child.identity.as_ref().map_or(0, |identity| identity.groups.len() + 1)],
        identity: child.identity,
        no_new_privileges: child.no_new_privileges,
        directories: child.directories,
        limits: child.limits,
        umask: child.umask,
        death_signal: child.death_signal,
    };
    // SAFETY: `Plan::carry_out` makes only async-signal-safe calls and neither allocates nor frees.
    unsafe { command.pre_exec(move || plan.carry_out().map_err(io::Error::from)) };
    let result = command.spawn();
    drop(command);
    drop(progress);
    match result {
        Ok(running) => Ok(Pid::from_raw(running.id().cast_signed())),
        Err(error) => {
            let errno = error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw);
            Err(SpawnError { step: last_step(progress_read), errno })
        }
    }
}

fn last_step(progress: OwnedFd) -> Step {
    let mut steps = [0; 16];
    let count = std::fs::File::from(progress).read(&mut steps).unwrap_or(0);
    let last = steps.get(..count).and_then(<[u8]>::last).copied().unwrap_or(0);
    Step::ALL.into_iter().find(|step| *step as u8 == last).unwrap_or(Step::Fork)
}

struct Plan {
    progress: RawFd,
    parent: i32,
    session: SessionKind,
    cgroup: Option<RawFd>,
    network: Option<RawFd>,
    identity: Option<Identity>,
    readback: Vec<u32>,
    no_new_privileges: bool,
    directories: Vec<CString>,
    limits: Vec<(u32, u64, u64)>,
    umask: u32,
    death_signal: i32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// INVARIANT: everything below runs between fork and exec: no allocation, no locks, no panics.
impl Plan {
    fn carry_out(&mut self) -> Result<(), Errno> {
        self.reached(Step::Cgroup);
        if let Some(procs) = self.cgroup {
            // SAFETY: one byte from a constant to a descriptor; "0" means the writer itself.
            Errno::result(unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) })?;
        }
        self.reached(Step::Network);
        if let Some(namespace) = self.network {
            // SAFETY: plain system call on a descriptor.
            Errno::result(unsafe { libc::setns(namespace, libc::CLONE_NEWNET) })?;
        }
        self.reached(Step::Terminal);
        // SAFETY: plain system call.
        Errno::result(unsafe { libc::setsid() })?;
        if self.session == SessionKind::Terminal {
            // SAFETY: TIOCSCTTY takes a number.
            Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        }
        self.reached(Step::Identity);
        self.drop_identity()?;
        self.reached(Step::Capabilities);
        self.clear_capabilities()?;
        self.reached(Step::Surroundings);
        self.arrange_surroundings()?;
        self.reached(Step::Exec);
        Ok(())
    }

    fn reached(&self, step: Step) {
        let byte = step as u8;
        // SAFETY: one byte to our own pipe, which holds more than there are steps; failure only blurs the message.
        let _ = unsafe { libc::write(self.progress, (&raw const byte).cast(), 1) };
    }

    fn drop_identity(&mut self) -> Result<(), Errno> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let groups = &identity.groups;
        let (uid, gid) = (identity.uid, identity.gid);
        // SAFETY: pointer and length of a live slice, then plain system calls.
        unsafe {
            Errno::result(libc::setgroups(groups.len(), groups.as_ptr()))?;
            Errno::result(libc::setresgid(gid, gid, gid))?;
            Errno::result(libc::setresuid(uid, uid, uid))?;
        }
        // Read back: a call that succeeded without effect must not give a shell more than its user (T-75).
        let (mut real, mut effective, mut saved) = (u32::MAX, u32::MAX, u32::MAX);
        // SAFETY: three live numbers each.
        unsafe {
            Errno::result(libc::getresuid(&raw mut real, &raw mut effective, &raw mut saved))?;
            if [real, effective, saved] != [uid; 3] {
                return Err(Errno::EPERM);
            }
            Errno::result(libc::getresgid(&raw mut real, &raw mut effective, &raw mut saved))?;
            if [real, effective, saved] != [gid; 3] {
                return Err(Errno::EPERM);
            }
        }
        let room = i32::try_from(self.readback.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: pointer and length of a live slice.
        let count = Errno::result(unsafe { libc::getgroups(room, self.readback.as_mut_ptr()) })?;
        let have = usize::try_from(count).ok().and_then(|count| self.readback.get(..count)).ok_or(Errno::EPERM)?;
        if have.len() != groups.len() || have.iter().any(|group| groups.binary_search(group).is_err()) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    fn clear_capabilities(&self) -> Result<(), Errno> {
        // SAFETY: prctl with numbers. Kernels before 4.3 know no ambient set; then there is none to clear.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
        let mut header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
        let empty = CapabilitySets { effective: 0, permitted: 0, inheritable: 0 };
        let mut sets = [empty; 2];
        // SAFETY: header and two sets, as version 3 of the interface demands.
        Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
        // SAFETY: plain system call.
        let root = unsafe { libc::geteuid() } == 0;
        for set in &mut sets {
            // Root's shell keeps root's powers; nobody else keeps any, and nothing is handed on beyond that.
            *set = if root { CapabilitySets { inheritable: 0, ..*set } } else { empty };
        }
        // SAFETY: as above.
        Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) })?;
        // SAFETY: as above.
        Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) })?;
        let left = |set: &CapabilitySets| set.inheritable != 0 || (!root && (set.effective | set.permitted) != 0);
        if sets.iter().any(left) { Err(Errno::EPERM) } else { Ok(()) }
    }

    fn arrange_surroundings(&self) -> Result<(), Errno> {
        // SAFETY: plain system calls with numbers and live pointers.
        unsafe {
            for signal in 1..=64 {
                // Fails for KILL, STOP and the numbers that libc keeps for itself; they are at their default.
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            Errno::result(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))?;
            for (resource, soft, hard) in &self.limits {
                let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
                // Raising is refused to ordinary users; the limit then stays as strict as it was.
                libc::setrlimit(*resource, &raw const limit);
            }
            libc::umask(self.umask);
            if self.no_new_privileges {
                Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            }
            // After the change of user, which clears it.
            Errno::result(libc::prctl(libc::PR_SET_PDEATHSIG, self.death_signal))?;
            if libc::getppid() != self.parent {
                // The parent died before the line above took effect.
                libc::_exit(1);
            }
            // Everything else closes at exec, what our parent inherited included. Kernels before 5.11 lack the call;
            // there the parent's own marking stands alone.
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed());
            for directory in &self.directories {
                if libc::chdir(directory.as_ptr()) == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Uid;

    use super::*;

    fn child(program: &str, arguments: &[&str], output: OwnedFd) -> Child {
        let null: OwnedFd = File::open("/dev/null").unwrap().into();
        Child {
            program: program.into(),
            name: program.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
            stdio: [null.try_clone().unwrap(), output, null],
            session: SessionKind::Detached,
            cgroup: None,
            network: None,
            identity: None,
            no_new_privileges: false,
            directories: vec![c"/no/such/home".to_owned(), c"/".to_owned()],
            limits: Vec::new(),
            umask: 0o077,
            death_signal: libc::SIGKILL,
        }
    }

    fn run(change: impl FnOnce(&mut Child)) -> String {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut child = child("sh", &["-c", "pwd; grep -E '^(Uid|Groups):' /proc/self/status"], write);
        change(&mut child);
        let pid = start(child).unwrap();
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)), "{text}");
        text
    }

    #[test]
    fn any_number_of_groups_is_set_exactly() {
        if !Uid::effective().is_root() {
            return;
        }
        for count in [0, 1, 16, 17, 1024, 1025] {
            let groups: Vec<u32> = (0..count).map(|number| 70_000 + number * 3).collect();
            let expected: Vec<String> = groups.iter().map(u32::to_string).collect();
            let text = run(|child| child.identity = Some(Identity { uid: 70_000, gid: 70_000, groups }));
            let found = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
            assert_eq!(found.split_whitespace().collect::<Vec<_>>(), expected);
            assert!(text.contains("Uid:\t70000\t70000\t70000\t70000"));
        }
    }

    #[test]
    fn a_home_that_is_not_there_is_replaced_by_the_root_directory() {
        assert!(run(|_| {}).starts_with("/\n"));
    }

    #[test]
    fn the_step_that_failed_is_named_and_nothing_runs() {
        let failed = |change: fn(&mut Child)| {
            let (_read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
            let mut child = child("true", &[], write);
            change(&mut child);
            start(child).unwrap_err()
        };
        let missing = failed(|child| child.program = "/no/such/program".into());
        assert_eq!(missing, SpawnError { step: Step::Exec, errno: Errno::ENOENT });
        // Standard input is no terminal.
        assert_eq!(failed(|child| child.session = SessionKind::Terminal).step, Step::Terminal);
        assert_eq!(failed(|child| child.cgroup = Some(9999)).step, Step::Cgroup);
    }
}
