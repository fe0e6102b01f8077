//! One running agent per data directory and per identity (T-30): a locked file, and a name that only one process can hold.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};
use munjigi_core::id::NodeId;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};

use crate::identity::DataDir;

/// The proof that this is the only agent; held as long as it runs.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: Flock<File>,
    /// Bound to an abstract name, never listened on: nothing can connect to it.
    _name: OwnedFd,
}

/// Takes the lock, or says who holds it. Call before the network namespace changes: abstract names belong to it.
pub(crate) fn take(data: &DataDir, node: &NodeId) -> anyhow::Result<Lock> {
    let path = data.path("lock");
    let shown = path.display();
    let file = open(data).with_context(|| format!("failed to open {shown}"))?;
    let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(file) => file,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).unwrap_or_default();
            bail!("an agent is already running with this data directory (process {})", pid.trim());
        }
        Err((_, errno)) => return Err(errno).with_context(|| format!("failed to lock {shown}")),
    };
    let name = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .context("failed to make the agent's name socket")?;
    let address = UnixAddr::new_abstract(format!("munjigi-agent-{node}").as_bytes())?;
    match bind(name.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => {
            bail!("an agent with the identity {node} is already running on this machine, from another data directory")
        }
        Err(errno) => return Err(errno).context("failed to take the agent's name"),
    }
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())?;
    Ok(Lock { _file: file, _name: name })
}

/// Returns the process id of the agent that runs with this data directory, if one does.
pub(crate) fn holder(data: &DataDir) -> anyhow::Result<Option<u32>> {
    if !data.path("lock").exists() {
        return Ok(None);
    }
    let mut file = open(data).with_context(|| format!("failed to open {}", data.path("lock").display()))?;
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap_or_default();
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((_, Errno::EWOULDBLOCK)) => Ok(Some(text.trim().parse().unwrap_or(0))),
        Err((_, errno)) => Err(errno).context("failed to look at the agent's lock"),
    }
}

fn open(data: &DataDir) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(data.path("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_by_directory_and_by_identity() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let node = NodeId::from_public_key(&std::process::id().to_be_bytes());
        let data = DataDir::new(one.path());
        assert_eq!(holder(&data).unwrap(), None);
        let lock = take(&data, &node).unwrap();
        assert_eq!(holder(&data).unwrap(), Some(std::process::id()));
        let other = NodeId::from_public_key(b"other");
        assert!(take(&data, &other).unwrap_err().to_string().contains("this data directory"));
        assert!(take(&DataDir::new(two.path()), &node).unwrap_err().to_string().contains("another data directory"));
        drop(lock);
        assert_eq!(holder(&data).unwrap(), None);
        take(&data, &node).unwrap();
    }
}
