//! Connects to a stream socket on the node as a session's OS user, once a grant for it was verified.
//!
//! A copy of this process becomes the user, connects, and hands the socket to the link half; whoever listens sees the
//! user's credentials, and the file system's permissions are the user's. The copy lives for as long as that takes.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use munjigi_core::endpoint::NodePath;
use munjigi_core::id::SessionId;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket, socketpair,
};
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::account::Account;
use super::{Refusal, SpawnHalf, account, default_user};
use crate::sys;

/// Most copies at once.
const MAX_CONNECTING: usize = 128;
/// How long a listener with a full queue is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// After so many seconds the kernel ends a copy that hangs, on a file system that does not answer.
const ALARM_SECS: u32 = 10;

impl SpawnHalf {
    /// Has a copy connect; returns the socket on which it sends what became of it: a number, 0 with the
    /// connected socket or the system's for an error.
    pub(super) fn connect_unix(&mut self, id: &SessionId, path: &NodePath) -> Result<OwnedFd, Refusal> {
        if self.connecting.len() >= MAX_CONNECTING {
            return Err(Refusal::failed("TooManyConnections", "the node opens as many sockets as it can; try again"));
        }
        let account = self.session_account(id)?;
        let path = match path.below_home() {
            Some(rest) => account.home.join(rest.trim_start_matches('/')),
            None => PathBuf::from(path.as_str()),
        };
        let failed =
            |what: &str, errno: Errno| Refusal::failed("StartFailed", &format!("the node could not {what}: {errno}"));
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| failed("make a socket", errno))?;
        match sys::fork().map_err(|errno| failed("start a process", errno))? {
            Some(copy) => {
                self.connecting.insert(copy);
                Ok(near)
            }
            None => {
                drop(near);
                hand_over(&far, as_user(&account).and_then(|()| connect_to(&path)));
                sys::exit_now()
            }
        }
    }

    /// Returns the account of a session's OS user, if it may be used now.
    pub(super) fn session_account(&self, id: &SessionId) -> Result<Account, Refusal> {
        let over =
            || Refusal { code: "SessionEnded", reason: "SessionEnded", message: "the session is over".to_owned() };
        let session = self.sessions.get(id).ok_or_else(over)?;
        let privileged = session.granted.as_ref().is_some_and(super::reach::Granted::privileged);
        let allowed = self.config.allowed_users.as_deref();
        default_user::make_if_missing(&session.os_user, allowed, self.config.create_default_user)
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))?;
        account::look_up(&session.os_user, privileged, allowed)
            .map_err(|error| Refusal::denied(error.reason(), error.to_string()))
    }
}

/// Becomes the user, for good, and makes sure of it (T-75).
fn as_user(account: &Account) -> Result<(), Errno> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    nix::unistd::alarm::set(ALARM_SECS);
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (account.uid, account.gid);
    setgroups(&account.groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let (users, groups) = (getresuid()?, getresgid()?);
    let mut have: Vec<Gid> = getgroups()?;
    have.sort_by_key(|group| group.as_raw());
    let is_user = [users.real, users.effective, users.saved] == [uid; 3];
    let is_group = [groups.real, groups.effective, groups.saved] == [gid; 3];
    if !is_user || !is_group || have != account.groups {
        return Err(Errno::EPERM);
    }
    // The change of user has cleared it.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
}

fn connect_to(path: &std::path::Path) -> Result<OwnedFd, Errno> {
    let address = UnixAddr::new(path)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let socket =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => return Ok(socket),
            // The listener's queue is full.
            Err(Errno::EAGAIN) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(Errno::EAGAIN) => return Err(Errno::ETIMEDOUT),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends the socket, or the number of the error.
fn hand_over(to: &OwnedFd, made: Result<OwnedFd, Errno>) {
    let errno = made.as_ref().err().map_or(0, |errno| *errno as i32).to_be_bytes();
    let descriptor = made.as_ref().ok().map(AsRawFd::as_raw_fd);
    let rights = [ControlMessage::ScmRights(descriptor.as_slice())];
    let control: &[ControlMessage<'_>] = if descriptor.is_some() { &rights } else { &[] };
    // A link half that does not listen any more has given up.
    let _ = sendmsg::<UnixAddr>(to.as_raw_fd(), &[IoSlice::new(&errno)], control, MsgFlags::MSG_NOSIGNAL, None);
}
