//! The process that listens for a session on the node (`-R`): one for each listener, as the session's OS user or nobody.
//!
//! The privileged half starts it once it has verified a grant that names the address, which comes in its environment. It
//! hands every accepted socket to the link half, reads nothing from any, and ends when the link half lets go of it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Names the address and port.
pub(crate) const ADDRESS_VARIABLE: &str = "MUNJIGI_LISTEN";
/// Longest message: a number and an address.
const MAX_MESSAGE: usize = 128;
/// How long accepting pauses when the system has no descriptors left.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Listens and hands over; standard input is the socket to the link half.
pub(crate) fn run() -> anyhow::Result<()> {
    let to_link = sys::inherited(0).context("a listener is started by `munjigi agent run` only")?;
    let address = std::env::var(ADDRESS_VARIABLE).context("the listener was given no address")?;
    let address: SocketAddr = address.parse().context("the listener was given no address")?;
    let listener = match TcpListener::bind(address).and_then(|made| made.set_nonblocking(true).map(|()| made)) {
        Ok(listener) => listener,
        Err(error) => return hand(&to_link, error.raw_os_error().unwrap_or(libc::EINVAL), "", None),
    };
    hand(&to_link, 0, &listener.local_addr().context("failed to look at the listener")?.to_string(), None)?;
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
            Ok((socket, from)) => hand(&to_link, 0, &from.to_string(), Some(socket.into()))?,
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
