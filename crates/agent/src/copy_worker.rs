//! The worker that reads or writes files for one copy, or serves them by SFTP: a process of its own, as the session's OS
//! user.
//!
//! The privileged half starts it once it has verified a grant for the endpoint; direction and path come from there, in
//! its environment, which no other user can read. Before it hears the client it gives up the network, other programs
//! and other identities.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use munjigi_copy::worker::{self, Direction};
use munjigi_core::endpoint::{Endpoint, FileAccess};
use nix::sys::signal::{SigSet, Signal};

use crate::{confine, rsync_worker, sys};

/// Names the way the files go.
pub(crate) const DIRECTION_VARIABLE: &str = "MUNJIGI_COPY";
/// Names the path on this node, or what may be done with files.
pub(crate) const PATH_VARIABLE: &str = "MUNJIGI_COPY_PATH";
const UPLOAD: &str = "upload";
const DOWNLOAD: &str = "download";
/// By SFTP, each file judged by the gateway.
const FILES: &str = "files";
/// By rsync, which is a program of its own.
const RSYNC: &str = "rsync";

/// Beyond what the link half gives up: everything that makes a socket or lets one lead somewhere.
const DENIED: &[i64] = &[libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect];
/// Its processes speak to each other over pairs of sockets.
const DENIED_TO_RSYNC: &[i64] = &[libc::SYS_socket, libc::SYS_connect];

/// Returns the words for direction and path of an endpoint that a worker serves.
pub(crate) fn words(endpoint: &Endpoint, home: &std::path::Path) -> Option<(&'static str, OsString)> {
    let (word, path) = match endpoint {
        Endpoint::Upload(path) => (UPLOAD, path),
        Endpoint::Download(path) => (DOWNLOAD, path),
        Endpoint::Files(access) => return Some((FILES, access.as_str().into())),
        Endpoint::Rsync(call) => return Some((RSYNC, call.to_string().into())),
        Endpoint::Tcp(_) | Endpoint::Unix(_) | Endpoint::Listen(_) | Endpoint::ListenUnix(_) | Endpoint::Agent => {
            return None;
        }
    };
    let path = match path.below_home() {
        Some(below) => {
            let mut bytes = home.as_os_str().as_bytes().to_vec();
            bytes.extend_from_slice(below.as_bytes());
            OsString::from_vec(bytes)
        }
        None => path.as_str().into(),
    };
    Some((word, path))
}

/// Serves one copy over standard input, which is a socket; the process does nothing else.
pub(crate) fn run() -> anyhow::Result<()> {
    let socket = sys::inherited(0).context("the copy worker is started by `munjigi agent run` only")?;
    let direction = match std::env::var(DIRECTION_VARIABLE).as_deref() {
        Ok(UPLOAD) => Some(Direction::Upload),
        Ok(DOWNLOAD) => Some(Direction::Download),
        Ok(FILES) => None,
        Ok(RSYNC) => return run_rsync(socket),
        _ => bail!("the copy worker is started by `munjigi agent run` only"),
    };
    let path = PathBuf::from(std::env::var_os(PATH_VARIABLE).context("the copy worker was given no path")?);
    // Asked to end, it is told by its socket too, and then leaves nothing half-written behind.
    let asked: SigSet = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    asked.thread_block().context("failed to hold signals back")?;
    // Before anything of the client is read, and while there is one thread.
    confine::confine(DENIED)?;
    match direction {
        Some(direction) => worker::serve(socket, direction, &path).context("the copy ended early"),
        None => serve_files(socket, &path),
    }
}

fn serve_files(socket: std::os::fd::OwnedFd, access: &std::path::Path) -> anyhow::Result<()> {
    let access = access.to_str().and_then(FileAccess::parse).context("the copy worker was given no access to files")?;
    munjigi_copy::sftp::serve(socket, access, home()).context("SFTP ended early")
}

fn run_rsync(socket: std::os::fd::OwnedFd) -> anyhow::Result<()> {
    let call = std::env::var(PATH_VARIABLE).context("the copy worker was given no call of rsync")?;
    let call = call.parse().context("the copy worker was given a call of rsync that is not taken")?;
    confine::confine_with_programs(DENIED_TO_RSYNC)?;
    rsync_worker::serve(socket, &call, &home()).context("rsync ended early")
}

/// Who has no home directory begins where sshd would leave him.
fn home() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.filter(|home| home.is_absolute() && home.is_dir()).unwrap_or_else(|| "/".into())
}
