//! Opens real paths, and nothing that a symbolic link leads to.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use munjigi_core::sftp::{Attributes, FileSystem, OpenFlags};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat, major, minor};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::ftruncate;

use crate::names::{What, what};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Opens a real path; fails with `ELOOP` where a symbolic link stands (T-71).
pub(super) fn real(path: &[u8], flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    check(path)?;
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let how = OpenHow::new().flags(flags).mode(mode);
    let how = how.resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(AT_FDCWD, path, how) {
        // Before Linux 5.6, or forbidden by the surroundings: the same by hand.
        Err(Errno::ENOSYS) => match parent(path) {
            Ok((directory, name)) => openat(&directory, name, flags, mode),
            Err(_) => openat(AT_FDCWD, path, flags, mode),
        },
        opened => opened,
    }
}

/// Refuses what is no real path.
fn check(path: &[u8]) -> nix::Result<()> {
    let Some(rest) = path.strip_prefix(b"/") else { return Err(Errno::EINVAL) };
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    if rest.is_empty() || rest.split(|byte| *byte == b'/').all(is_name) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Opens the directory that a real path stands in; returns the name in it as well. The root stands in none.
pub(super) fn parent(path: &[u8]) -> nix::Result<(OwnedFd, &[u8])> {
    check(path)?;
    let at = path.iter().rposition(|byte| *byte == b'/').ok_or(Errno::EINVAL)?;
    let (directory, name) = (path.get(..at.max(1)).unwrap_or_default(), path.get(at + 1..).unwrap_or_default());
    if name.is_empty() {
        return Err(Errno::EBUSY);
    }
    let how = OpenHow::new().flags(DIRECTORY).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(AT_FDCWD, directory, how) {
        Err(Errno::ENOSYS) => walk(directory).map(|fd| (fd, name)),
        opened => opened.map(|fd| (fd, name)),
    }
}

fn walk(path: &[u8]) -> nix::Result<OwnedFd> {
    let mut at = openat(AT_FDCWD, "/", DIRECTORY, Mode::empty())?;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        at = openat(&at, name, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
    }
    Ok(at)
}

/// Opens a file as a client asks for it.
pub(super) fn file(path: &[u8], flags: OpenFlags, attributes: &Attributes) -> nix::Result<OwnedFd> {
    let way = match (flags.reads(), flags.takes_data()) {
        (true, true) => OFlag::O_RDWR,
        (false, true) => OFlag::O_WRONLY,
        (true, false) if !flags.writes() => OFlag::O_RDONLY,
        _ => return Err(Errno::EINVAL),
    };
    let mut open = way | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open.set(OFlag::O_APPEND, flags.appends());
    open.set(OFlag::O_CREAT, flags.creates());
    open.set(OFlag::O_EXCL, flags.creates() && flags.is_exclusive());
    let mode = match flags.creates() {
        true => mode_of(attributes.permissions.unwrap_or(0o666) & 0o777),
        false => Mode::empty(),
    };
    let fd = real(path, open, mode)?;
    let stat = fstat(&fd)?;
    match what(&stat) {
        What::File => {}
        // What programs write to that want to measure.
        What::Special(_) if is_null(&stat) => return Ok(fd),
        What::Directory => return Err(Errno::EISDIR),
        _ => return Err(Errno::EACCES),
    }
    if leads_into_a_process(path, &fd) {
        return Err(Errno::EACCES);
    }
    if flags.truncates() {
        ftruncate(&fd, 0)?;
    }
    Ok(fd)
}

fn is_null(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
}

/// Tells whether a file is a process' own, such as its memory: never only a file.
fn leads_into_a_process(path: &[u8], fd: impl AsFd) -> bool {
    let is_number = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    path.split(|byte| *byte == b'/').any(is_number)
        && fstatfs(fd).is_ok_and(|system| system.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Returns what is at a real path.
pub(super) fn stat(path: &[u8]) -> nix::Result<FileStat> {
    match parent(path) {
        Ok((directory, name)) => fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW),
        Err(Errno::EBUSY) => fstatat(AT_FDCWD, "/", AtFlags::AT_SYMLINK_NOFOLLOW),
        Err(errno) => Err(errno),
    }
}

/// Returns what a symbolic link says.
pub(super) fn read_link(path: &[u8]) -> nix::Result<Vec<u8>> {
    let (directory, name) = parent(path)?;
    Ok(readlinkat(&directory, name)?.into_vec())
}

/// Returns the file system at a real path, as an answer has it.
pub(super) fn file_system(path: &[u8]) -> nix::Result<Vec<u8>> {
    file_system_of(real(path, OFlag::O_PATH, Mode::empty())?)
}

/// Returns the file system of what is open.
pub(super) fn file_system_of(fd: impl AsFd) -> nix::Result<Vec<u8>> {
    let stat = fstatvfs(fd)?;
    // SSH_FXE_STATVFS_ST_RDONLY and _NOSUID have the numbers of Linux.
    let flags = stat.flags().bits() & 3;
    let system = FileSystem {
        block_size: stat.block_size(),
        fragment_size: stat.fragment_size(),
        blocks: stat.blocks(),
        free: stat.blocks_free(),
        available: stat.blocks_available(),
        files: stat.files(),
        files_free: stat.files_free(),
        files_available: stat.files_available(),
        id: stat.filesystem_id(),
        flags,
        longest_name: stat.name_max(),
    };
    Ok(system.encode())
}

/// Returns a mode as the system takes it.
pub(super) fn mode_of(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}
