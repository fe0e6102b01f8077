//! The socket pair between the halves: whole messages, with descriptors travelling beside them.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, setsockopt, socketpair, sockopt,
};

use super::MAX_MESSAGE;
use crate::sys;

/// Most descriptors that travel with one message: ring, input, output, error.
pub(crate) const MAX_DESCRIPTORS: usize = 4;
/// Room for messages under way, in bytes; the sender is slowed beyond it.
const BUFFER_BYTES: usize = 512 * 1024;

/// One end of the socket pair, non-blocking.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Why nothing came or went.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// Nothing to read, or no room to write, at the moment.
    #[error("the channel between the halves is not ready")]
    NotReady,
    /// The other half is gone.
    #[error("the other half of the agent is gone")]
    Closed,
    /// A message was over its limits.
    #[error("a message between the halves is over its limit")]
    TooLarge,
    /// The system refused.
    #[error("the channel between the halves failed: {0}")]
    System(Errno),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS => Self::NotReady,
            Errno::EPIPE | Errno::ECONNRESET => Self::Closed,
            other => Self::System(other),
        }
    }
}

impl Channel {
    /// Makes both ends; they are close-on-exec.
    pub(crate) fn pair() -> nix::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        for end in [&one, &other] {
            // Best effort: a smaller buffer only slows the sender earlier.
            let _ = setsockopt(end, sockopt::SndBuf, &BUFFER_BYTES);
        }
        Ok((Self(one), Self(other)))
    }

    /// Takes over an end, e.g. the standard input of the link half.
    pub(crate) fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the end away, e.g. to a child as its standard input.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends a whole message and descriptors, or nothing.
    pub(crate) fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if message.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(ChannelError::TooLarge);
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Receives a whole message into `buffer`, which must have [`MAX_MESSAGE`] bytes, and the descriptors with it.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), ChannelError> {
        if buffer.len() < MAX_MESSAGE {
            return Err(ChannelError::TooLarge);
        }
        let (count, descriptors) = sys::receive_with_descriptors(&self.0, &mut [IoSliceMut::new(buffer)])?;
        // No message is empty, so nothing read means that the other end is closed.
        if count == 0 { Err(ChannelError::Closed) } else { Ok((count, descriptors)) }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
