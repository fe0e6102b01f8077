//! Starts a process that listens on the node for a session, once a grant that names the address was verified.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};

use munjigi_core::endpoint::{Endpoint, NodePath};
use munjigi_core::id::SessionId;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::Uid;

use super::account::Account;
use super::child::{self, Child, Identity, SessionKind};
use super::processes::Processes;
use super::{Refusal, SpawnHalf, link_process};
use crate::listener::ENDPOINT_VARIABLE;

/// Most listeners at once.
const MAX_LISTENERS: usize = 64;
/// File mode mask; it makes no files.
const UMASK: u32 = 0o077;

impl SpawnHalf {
    /// Starts the process; returns the socket on which it hands over who connects.
    pub(super) fn start_listening(&mut self, id: &SessionId, at: &Endpoint) -> Result<OwnedFd, Refusal> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Refusal::failed("StartFailed", &format!("the node could not {what}: {error}"))
        };
        if self.workers.len() >= MAX_LISTENERS {
            return Err(Refusal::failed("TooManyConnections", "this node listens on as many ports as it can"));
        }
        // A session that names nobody only listens on ports.
        let named = self.sessions.get(id).is_some_and(|session| !session.os_user.is_empty());
        let account = if named || at.needs_user() { Some(self.session_account(id)?) } else { None };
        let identity = match &account {
            _ if !Uid::effective().is_root() => None,
            Some(account) => {
                let groups = account.groups.iter().map(|group| group.as_raw()).collect();
                Some(Identity { uid: account.uid.as_raw(), gid: account.gid.as_raw(), groups })
            }
            // Whoever carries the connections, without any more rights.
            None => link_process::identity(self.config.link_user.as_deref())
                .map_err(|error| failed("find a user", &error))?,
        };
        let at = absolute(at, account.as_ref())?;
        let session = self.sessions.get_mut(id).ok_or_else(|| Refusal::failed("SessionEnded", "it is over"))?;
        if matches!(session.processes, Processes::Nothing) {
            session.processes = Processes::prepare(id, self.cgroups.as_ref()).0;
        }
        let cgroup = session.processes.joining().map_err(|error| failed("open the session's cgroup", &error))?;
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| failed("make a socket", &error))?;
        let null = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/null")
            .map_err(|error| failed("open /dev/null", &error))?;
        let errors = null.try_clone().map_err(|error| failed("share a descriptor", &error))?;
        let listener = child::start(Child {
            // The file that this process runs, even if another has taken its place by now.
            program: OsString::from("/proc/self/exe"),
            name: OsString::from("munjigi"),
            arguments: vec!["agent".into(), "listener".into()],
            environment: vec![(ENDPOINT_VARIABLE.to_owned(), at.to_string().into())],
            stdio: [far, null.into(), errors.into()],
            session: SessionKind::Detached,
            cgroup: cgroup.as_ref().map(OwnedFd::as_raw_fd),
            network: self.surroundings.network.as_ref().map(|network| network.as_raw_fd()),
            identity,
            no_new_privileges: true,
            directories: vec![c"/".to_owned()],
            limits: self.surroundings.limits.clone(),
            umask: UMASK,
            death_signal: libc::SIGKILL,
        })
        .map_err(|error| failed("start a listener", &error))?;
        session.processes.started(listener);
        self.workers.insert(listener);
        tracing::info!(session = %id, %at, "the node listens for a session");
        Ok(near)
    }
}

/// Returns the endpoint with a path that needs nobody's home.
fn absolute(at: &Endpoint, account: Option<&Account>) -> Result<Endpoint, Refusal> {
    let Endpoint::ListenUnix(path) = at else { return Ok(at.clone()) };
    let Some((below, account)) = path.below_home().zip(account) else { return Ok(at.clone()) };
    let path = account.home.to_str().and_then(|home| NodePath::new(&format!("{home}{below}")).ok());
    let path = path.ok_or_else(|| Refusal::failed("StartFailed", "the OS user's home is no path that can be used"))?;
    Ok(Endpoint::ListenUnix(path))
}
