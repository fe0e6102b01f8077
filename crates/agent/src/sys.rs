//! System calls that no safe wrapper covers, each in a function that is safe to call.
#![expect(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use munjigi_core::session::TerminalSize;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::halves::MAX_DESCRIPTORS;

/// Receives one message and the descriptors that came with it; they are close-on-exec.
pub(crate) fn receive_with_descriptors(
    socket: impl AsFd,
    buffer: &mut [IoSliceMut<'_>],
) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), buffer, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(list) = part {
            for raw in list {
                // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(raw) });
            }
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, descriptors))
}

/// Takes over a descriptor that this process was started with; fails if it is not open.
pub(crate) fn inherited(raw: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: F_GETFD on any number is harmless; it fails for one that is not open.
    Errno::result(unsafe { libc::fcntl(raw, libc::F_GETFD) })?;
    // SAFETY: the number is open, and by the contract of the caller nothing else in the process uses it.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    Ok(fd)
}

/// Marks every descriptor above standard error as close-on-exec, those inherited included (T-75). Best effort: kernels
/// before 5.11 lack the call, and children close them once more before they run anything.
pub(crate) fn close_on_exec_from(first: u32) {
    // SAFETY: sets flags only.
    let _ = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
}

/// Sets a terminal's size and tells its foreground programs.
pub(crate) fn set_terminal_size(terminal: impl AsFd, size: TerminalSize) -> nix::Result<()> {
    let size = window_size(size);
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}

/// Returns the size in the form of the system.
pub(crate) fn window_size(size: TerminalSize) -> libc::winsize {
    libc::winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width_pixels,
        ws_ypixel: size.height_pixels,
    }
}

/// Registers a descriptor with the runtime; call inside it.
pub(crate) fn watched<T: AsFd + AsRawFd>(owner: T, interest: Interest) -> std::io::Result<AsyncFd<T>> {
    // SAFETY: `owner` owns an open descriptor, as `AsFd` demands; the types used here (OwnedFd, Channel) name the same
    // one for as long as they live.
    unsafe { AsyncFd::register_with_interest(owner, interest) }.map_err(Into::into)
}

/// Starts a copy of this process. Call only while it has a single thread.
pub(crate) fn fork() -> nix::Result<Option<Pid>> {
    // SAFETY: by the contract the process has one thread, so the copy's locks are all free.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child)),
        nix::unistd::ForkResult::Child => Ok(None),
    }
}

/// Ends this process without running anything that its parent has prepared for its own end.
pub(crate) fn exit_now() -> ! {
    // SAFETY: a system call that does not return.
    unsafe { libc::_exit(0) }
}

/// What the shadow file says of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shadow {
    /// A password was set and then locked (`passwd -l`). An account without any password is not locked: keys and
    /// this system are how its owner comes in.
    pub(crate) locked: bool,
    /// Day since 1970 on which the account expires.
    pub(crate) expires: Option<i64>,
}

/// Reads the account's entry in the shadow file; `None` when there is none or it may not be read.
pub(crate) fn shadow(name: &CStr) -> Option<Shadow> {
    let mut buffer = vec![0; 16 * 1024];
    let mut found = std::ptr::null_mut();
    // SAFETY: an all-zero spwd is valid: null pointers and numbers.
    let mut entry: libc::spwd = unsafe { std::mem::zeroed() };
    // SAFETY: all pointers live through the call and the buffer's length is given.
    let failed =
        unsafe { libc::getspnam_r(name.as_ptr(), &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    if failed != 0 || found.is_null() || entry.sp_pwdp.is_null() {
        return None;
    }
    // SAFETY: on success the field points to a terminated text inside `buffer`.
    let password = unsafe { CStr::from_ptr(entry.sp_pwdp) }.to_bytes();
    let locked = password.starts_with(b"!") && password.contains(&b'$');
    Some(Shadow { locked, expires: (entry.sp_expire > 0).then_some(entry.sp_expire) })
}
