//! The process that listens for a session on the node (`-R`): one for each listener, as the session's OS user or nobody.
//!
//! The privileged half starts it once it has verified a grant that names the address, which comes in its environment. It
//! hands every accepted socket to the link half, reads nothing from any, and ends when the link half lets go of it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::Context as _;
use munjigi_core::endpoint::Endpoint;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use nix::unistd::mkdtemp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Names the endpoint; a path in it is absolute.
pub(crate) const ENDPOINT_VARIABLE: &str = "MUNJIGI_LISTEN";
/// What the directory of an agent's socket is called; [`munjigi_core::session::environment_allowed`] knows the form.
const AGENT_DIRECTORY: &str = "/tmp/munjigi-XXXXXX";
/// What an agent's socket is called in it.
const AGENT_SOCKET: &str = "agent.sock";
/// Longest message: a number, and an address or the path of a socket (107 bytes at most).
const MAX_MESSAGE: usize = 128;
/// How long accepting pauses when the system has no descriptors left.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What the node listens with.
enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket, which is removed when this is dropped.
    Unix(UnixListener, Made),
}

/// A socket in the file system that was made here, and perhaps its directory.
struct Made {
    socket: PathBuf,
    directory: Option<PathBuf>,
}

impl Drop for Made {
    fn drop(&mut self) {
        // What is gone already, or is not empty any more, stays as it is.
        let _ = std::fs::remove_file(&self.socket);
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

impl Listener {
    fn open(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Listen(at) => {
                let listener = TcpListener::bind(at.socket())?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(listener))
            }
            Endpoint::ListenUnix(path) => Self::at(PathBuf::from(path.as_str()), None),
            Endpoint::Agent => {
                // A directory of the user's own; as sshd does it.
                let directory = mkdtemp(AGENT_DIRECTORY)?;
                Self::at(directory.join(AGENT_SOCKET), Some(directory))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Makes a socket that only the user connects to: the mask of this process lets nobody else.
    fn at(socket: PathBuf, directory: Option<PathBuf>) -> io::Result<Self> {
        let listener = match UnixListener::bind(&socket) {
            Ok(listener) => listener,
            Err(error) => {
                if let Some(directory) = directory {
                    let _ = std::fs::remove_dir(directory);
                }
                return Err(error);
            }
        };
        let made = Made { socket, directory };
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(listener, made))
    }

    /// Returns where it listens.
    fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Self::Unix(_, made) => Ok(made.socket.to_string_lossy().into_owned()),
        }
    }

    /// Takes the next connection and says who it is.
    fn accept(&self) -> io::Result<(OwnedFd, String)> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(socket, from)| (socket.into(), from.to_string())),
            Self::Unix(listener, _) => listener.accept().map(|(socket, _)| (socket.into(), String::new())),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// Listens and hands over; standard input is the socket to the link half.
pub(crate) fn run() -> anyhow::Result<()> {
    let to_link = sys::inherited(0).context("a listener is started by `munjigi agent run` only")?;
    let endpoint = std::env::var(ENDPOINT_VARIABLE).context("the listener was given no endpoint")?;
    let endpoint: Endpoint = endpoint.parse().context("the listener was given no endpoint")?;
    // The session's end hangs up; this process ends by itself then, and removes what it made.
    SigSet::from(Signal::SIGHUP).thread_block().context("failed to block a signal")?;
    let listener = match Listener::open(&endpoint) {
        Ok(listener) => listener,
        Err(error) => return hand(&to_link, error.raw_os_error().unwrap_or(libc::EINVAL), "", None),
    };
    hand(&to_link, 0, &listener.address().context("failed to look at the listener")?, None)?;
    loop {
        let mut fds =
            [PollFd::new(to_link.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("failed to wait"),
        }
        // The link half never says anything: what can be read there is its end.
        if fds.first().and_then(PollFd::any) == Some(true) {
            return Ok(());
        }
        match listener.accept() {
            // Sending waits while the link half is behind, and further callers wait in the listener's queue.
            Ok((socket, from)) => hand(&to_link, 0, &from, Some(socket))?,
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)) =>
            {
                std::thread::sleep(PAUSE);
            }
            // Whoever it was has left again, or nobody was there.
            Err(_) => {}
        }
    }
}

/// Sends a number (0, or the system's for an error), an address, and perhaps a socket.
fn hand(to_link: &OwnedFd, errno: i32, address: &str, socket: Option<OwnedFd>) -> anyhow::Result<()> {
    let number = errno.to_be_bytes();
    let raw = socket.as_ref().map(|socket| socket.as_raw_fd());
    let rights = [ControlMessage::ScmRights(raw.as_slice())];
    let control: &[ControlMessage<'_>] = if raw.is_some() { &rights } else { &[] };
    let parts = [IoSlice::new(&number), IoSlice::new(address.as_bytes())];
    sendmsg::<UnixAddr>(to_link.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)
        .context("the link half is gone")?;
    Ok(())
}

/// What a listener says.
#[derive(Debug)]
pub(crate) struct Said {
    /// 0, or why it does not listen.
    pub(crate) errno: i32,
    /// Where it listens, or who connected.
    pub(crate) address: String,
    /// Who connected.
    pub(crate) socket: Option<OwnedFd>,
}

/// Receives the next thing that a listener says; `None` when it has ended.
pub(crate) async fn receive(from: &AsyncFd<OwnedFd>) -> Option<Said> {
    let mut buffer = [0; MAX_MESSAGE];
    let received = from.async_io(Interest::READABLE, |fd| {
        sys::receive_with_descriptors(fd, &mut [IoSliceMut::new(&mut buffer)]).map_err(io::Error::from)
    });
    let (count, mut descriptors) = received.await.ok()?;
    let (number, address) = buffer.get(..count)?.split_first_chunk()?;
    let address = str::from_utf8(address).ok()?.to_owned();
    Some(Said { errno: i32::from_be_bytes(*number), address, socket: descriptors.pop() })
}
