//! The worker that reads or writes files for one copy: a process of its own, as the session's OS user.
//!
//! The privileged half starts it once it has verified a grant for the endpoint; direction and path come from there, in
//! its environment, which no other user can read. Before it hears the client it gives up the network, other programs
//! and other identities.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use munjigi_copy::worker::{self, Direction};
use munjigi_core::endpoint::Endpoint;
use nix::sys::signal::{SigSet, Signal};

use crate::{confine, sys};

/// Names the way the files go.
pub(crate) const DIRECTION_VARIABLE: &str = "MUNJIGI_COPY";
/// Names the path on this node.
pub(crate) const PATH_VARIABLE: &str = "MUNJIGI_COPY_PATH";
const UPLOAD: &str = "upload";
const DOWNLOAD: &str = "download";

/// Beyond what the link half gives up: everything that makes a socket or lets one lead somewhere.
const DENIED: &[i64] = &[libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect];

/// Returns the words for direction and path of an endpoint that a worker serves.
pub(crate) fn words(endpoint: &Endpoint, home: &std::path::Path) -> Option<(&'static str, OsString)> {
    let (word, path) = match endpoint {
        Endpoint::Upload(path) => (UPLOAD, path),
        Endpoint::Download(path) => (DOWNLOAD, path),
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
        Ok(UPLOAD) => Direction::Upload,
        Ok(DOWNLOAD) => Direction::Download,
        _ => bail!("the copy worker is started by `munjigi agent run` only"),
    };
    let path = PathBuf::from(std::env::var_os(PATH_VARIABLE).context("the copy worker was given no path")?);
    // Asked to end, it is told by its socket too, and then leaves nothing half-written behind.
    let asked: SigSet = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    asked.thread_block().context("failed to hold signals back")?;
    // Before anything of the client is read, and while there is one thread.
    confine::confine(DENIED)?;
    worker::serve(socket, direction, &path).context("the copy ended early")
}
