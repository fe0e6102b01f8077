//! Changes of names and attributes, at real paths only.

use std::os::fd::{AsFd, AsRawFd as _};

use munjigi_core::sftp::{Attributes, Times};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, renameat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, fstat, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, ftruncate, linkat, symlinkat, unlinkat};

use super::open::{mode_of, parent, real};
use crate::names::{What, what};

/// What becomes of what has the new name already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    Yes,
    No,
}

pub(super) fn remove(path: &[u8]) -> nix::Result<()> {
    let (directory, name) = parent(path)?;
    unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)
}

pub(super) fn remove_directory(path: &[u8]) -> nix::Result<()> {
    let (directory, name) = parent(path)?;
    unlinkat(&directory, name, UnlinkatFlags::RemoveDir)
}

pub(super) fn make_directory(path: &[u8], attributes: &Attributes) -> nix::Result<()> {
    let (directory, name) = parent(path)?;
    mkdirat(&directory, name, mode_of(attributes.permissions.unwrap_or(0o777) & 0o1777))
}

pub(super) fn rename(from: &[u8], to: &[u8], replace: Replace) -> nix::Result<()> {
    let ((old, old_name), (new, new_name)) = (parent(from)?, parent(to)?);
    if replace == Replace::Yes {
        return renameat(&old, old_name, &new, new_name);
    }
    match renameat2(&old, old_name, &new, new_name, RenameFlags::RENAME_NOREPLACE) {
        // Not every file system knows it.
        Err(Errno::EINVAL | Errno::ENOSYS) => match super::open::stat(to) {
            Ok(_) => Err(Errno::EEXIST),
            Err(Errno::ENOENT) => renameat(&old, old_name, &new, new_name),
            Err(errno) => Err(errno),
        },
        result => result,
    }
}

pub(super) fn hard_link(from: &[u8], to: &[u8]) -> nix::Result<()> {
    let ((old, old_name), (new, new_name)) = (parent(from)?, parent(to)?);
    linkat(&old, old_name, &new, new_name, AtFlags::empty())
}

pub(super) fn symbolic_link(target: &[u8], path: &[u8]) -> nix::Result<()> {
    let (directory, name) = parent(path)?;
    symlinkat(target, &directory, name)
}

/// Changes attributes of what is at a real path.
pub(super) fn set(path: &[u8], attributes: &Attributes) -> nix::Result<()> {
    // The descriptor names the thing itself; nothing can take its place.
    let fd = real(path, OFlag::O_PATH, Mode::empty())?;
    if what(&fstat(&fd)?) == What::Symlink {
        return Err(Errno::ELOOP);
    }
    if let Some(size) = attributes.size {
        let file = real(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty())?;
        ftruncate(&file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)?;
    }
    set_open(&fd, attributes)
}

/// Changes attributes of what is open, but for its size.
pub(super) fn set_open(fd: impl AsFd, attributes: &Attributes) -> nix::Result<()> {
    let itself = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    if let Some(owner) = attributes.owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchownat(&fd, c"", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
    }
    if let Some(mode) = attributes.permissions {
        let is_directory = what(&fstat(&fd)?) == What::Directory;
        // Bits that raise privileges are not set from afar; on directories they only give the group on.
        let kept = if is_directory { 0o3777 } else { 0o1777 };
        fchmodat(AT_FDCWD, itself.as_str(), mode_of(mode & kept), FchmodatFlags::FollowSymlink)?;
    }
    if let Some(times) = attributes.times {
        let (accessed, modified) = moments(times);
        utimensat(AT_FDCWD, itself.as_str(), &accessed, &modified, UtimensatFlags::FollowSymlink)?;
    }
    Ok(())
}

/// Changes attributes of what is at a real path, of a symbolic link itself; a link has no size and no mode.
pub(super) fn set_itself(path: &[u8], attributes: &Attributes) -> nix::Result<()> {
    if what(&super::open::stat(path)?) != What::Symlink {
        return set(path, attributes);
    }
    if attributes.size.is_some() || attributes.permissions.is_some() {
        return Err(Errno::EOPNOTSUPP);
    }
    let (directory, name) = parent(path)?;
    if let Some(owner) = attributes.owner {
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        fchownat(&directory, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    if let Some(times) = attributes.times {
        let (accessed, modified) = moments(times);
        utimensat(&directory, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    }
    Ok(())
}

fn moments(times: Times) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(times.accessed.into(), 0), TimeSpec::new(times.modified.into(), 0))
}
