//! Starts the worker of a copy once a grant for it was verified: as the session's OS user, in the session's cgroup, in this
//! half's own empty network namespace.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::id::SessionId;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::Uid;

use super::child::{self, Child, Identity, SessionKind};
use super::processes::Processes;
use super::{Refusal, SpawnHalf};
use crate::copy_worker::{DIRECTION_VARIABLE, PATH_VARIABLE, words};

/// Most workers at once; each is a process with a few megabytes.
const MAX_WORKERS: usize = 64;
/// File mode mask of a worker: what it makes may be read, as by any other copy program. Modes of sources only narrow it.
const UMASK: u32 = 0o022;
/// Room in the socket to the link half in bytes, each way. The system may give less.
const SOCKET_BYTES: usize = 512 * 1024;

impl SpawnHalf {
    /// Starts a worker for an endpoint that the session may reach; returns the socket that it speaks on.
    pub(super) fn start_copying(&mut self, id: &SessionId, endpoint: &Endpoint) -> Result<OwnedFd, Refusal> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Refusal::failed("StartFailed", &format!("the node could not {what}: {error}"))
        };
        if self.workers.len() >= MAX_WORKERS {
            return Err(Refusal::failed("TooManyCopies", "this node makes as many copies as it can; try again later"));
        }
        let account = self.session_account(id)?;
        let session = self.sessions.get_mut(id).ok_or_else(|| Refusal::failed("SessionEnded", "it is over"))?;
        let (direction, path) = words(endpoint, &account.home)
            .ok_or_else(|| Refusal::denied("GrantMalformed", format!("{endpoint} is no place for files")))?;
        if matches!(session.processes, Processes::Nothing) {
            session.processes = Processes::prepare(id, self.cgroups.as_ref()).0;
        }
        let cgroup = session.processes.joining().map_err(|error| failed("open the session's cgroup", &error))?;
        let (near, far) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| failed("make a socket", &error))?;
        for end in [&near, &far] {
            // Best effort: a smaller buffer only wakes both ends more often.
            let _ = setsockopt(end, sockopt::SndBuf, &SOCKET_BYTES);
        }
        let null = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .map_err(|error| failed("open /dev/null", &error))?;
        let errors = null.try_clone().map_err(|error| failed("share a descriptor", &error))?;
        let identity = Uid::effective().is_root().then(|| Identity {
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
            groups: account.groups.iter().map(|group| group.as_raw()).collect(),
        });
        let home = std::ffi::CString::new(account.home.as_os_str().as_bytes()).ok();
        let worker = child::start(Child {
            // The file that this process runs, even if another has taken its place by now.
            program: OsString::from("/proc/self/exe"),
            name: OsString::from("munjigi"),
            arguments: vec!["agent".into(), "copy-worker".into()],
            environment: vec![
                ("HOME".to_owned(), account.home.clone().into_os_string()),
                ("USER".to_owned(), account.name.clone().into()),
                ("MUNJIGI_SESSION_ID".to_owned(), id.as_str().into()),
                (DIRECTION_VARIABLE.to_owned(), direction.into()),
                (PATH_VARIABLE.to_owned(), path),
            ],
            stdio: [far, null.into(), errors.into()],
            session: SessionKind::Detached,
            cgroup: cgroup.as_ref().map(OwnedFd::as_raw_fd),
            // It stays where this half is: without a network.
            network: None,
            identity,
            no_new_privileges: true,
            directories: home.into_iter().chain([c"/".to_owned()]).collect(),
            limits: self.surroundings.limits.clone(),
            umask: UMASK,
            death_signal: libc::SIGKILL,
        })
        .map_err(|error| failed("start the copy", &error))?;
        session.processes.started(worker);
        self.workers.insert(worker);
        tracing::info!(session = %id, user = account.name, %endpoint, "a copy begins");
        Ok(near)
    }
}
