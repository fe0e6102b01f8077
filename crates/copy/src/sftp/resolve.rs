//! Where a path leads: its real path, behind all symbolic links, or where it would be made.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use munjigi_core::copy::{Pattern, has_wildcards};
use munjigi_core::sftp::{MAX_ENTRIES, MAX_PATH, ResolveLast, Resolved, ResolvedKind};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::names::{What, size, what};

/// Links that are followed to where nothing is yet, as the system follows 40.
const MAX_LINKS: usize = 40;
/// Names of directories that a pattern is compared with at most.
const MAX_COMPARED: usize = 100_000;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The real path.
    pub real: Vec<u8>,
    /// The path as it was asked for: absolute, without `.` and `..`.
    pub plain: Vec<u8>,
    /// What is there.
    pub kind: ResolvedKind,
    /// Bytes of a file.
    pub size: u64,
}

impl Place {
    /// Returns it as the answer to a request.
    pub(super) fn encode(&self) -> Vec<u8> {
        Resolved { real: &self.real, plain: &self.plain, kind: self.kind, size: self.size }.encode()
    }

    fn new(real: Vec<u8>, plain: Vec<u8>, stat: Option<&FileStat>) -> nix::Result<Self> {
        // What is no file has no path: `pipe:[4026]`.
        if real.first() != Some(&b'/') {
            return Err(Errno::EACCES);
        }
        let (kind, bytes) = match stat.map(|stat| (what(stat), size(stat))) {
            None => (ResolvedKind::Nothing, 0),
            Some((What::File, bytes)) => (ResolvedKind::File, bytes),
            Some((What::Directory, _)) => (ResolvedKind::Directory, 0),
            Some((What::Symlink, _)) => (ResolvedKind::Link, 0),
            Some((What::Special(_), _)) => (ResolvedKind::Other, 0),
        };
        Ok(Self { real, plain, kind, size: bytes })
    }
}

/// Finds out where a path leads; a relative one begins in `home`.
pub fn resolve(home: &Path, path: &[u8], last: ResolveLast) -> nix::Result<Place> {
    let begin = home.join(OsStr::from_bytes(path));
    let plain = plain(begin.as_os_str().as_bytes());
    let mut path = begin.into_os_string().into_vec();
    for _ in 0..MAX_LINKS {
        if path.len() > MAX_PATH {
            return Err(Errno::ENAMETOOLONG);
        }
        let trimmed = trimmed(&path);
        let (parent, name) = split(trimmed);
        let is_name = !matches!(name, b"" | b"." | b"..");
        if last == ResolveLast::Followed || !is_name {
            match open(trimmed, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(fd) => {
                    let stat = fstat(&fd)?;
                    return Place::new(path_of(&fd)?, plain, Some(&stat));
                }
                Err(Errno::ENOENT) if is_name => {}
                Err(errno) => return Err(errno),
            }
        }
        let directory = open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let real_parent = path_of(&directory)?;
        let mut real = real_parent.clone();
        if real.last() != Some(&b'/') {
            real.push(b'/');
        }
        let is_link = match fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(errno),
            Ok(stat) => Some(stat),
        };
        match is_link {
            // A link to where nothing is: what would be made is made there.
            Some(stat) if last == ResolveLast::Followed && what(&stat) == What::Symlink => {
                let said = readlinkat(&directory, name)?.into_vec();
                path = if said.first() == Some(&b'/') { said } else { [real, said].concat() };
            }
            // It came into being a moment ago.
            Some(_) if last == ResolveLast::Followed => {}
            stat => {
                real.extend_from_slice(name);
                return Place::new(real, plain, stat.as_ref());
            }
        }
    }
    Err(Errno::ELOOP)
}

/// Returns the path under which the system knows what is open.
fn path_of(fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    let path = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str())?.into_vec();
    if path.len() > MAX_PATH { Err(Errno::ENAMETOOLONG) } else { Ok(path) }
}

/// Takes `.`, `..`, doubled and final slashes away, without looking at anything.
fn plain(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let mut plain: Vec<u8> = names.iter().flat_map(|name| [b"/", *name].concat()).collect();
    if plain.is_empty() {
        plain.push(b'/');
    }
    plain
}

fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(1, |last| last + 1);
    path.get(..end).unwrap_or(path)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (path.get(..at.max(1)).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (b".", path),
    }
}

/// Returns a path without a `~` at its beginning, relative to the home directory; `None` for the home of another user.
pub(super) fn expanded(path: &[u8]) -> Option<&[u8]> {
    match path.strip_prefix(b"~") {
        None => Some(path),
        Some(b"") => Some(b"."),
        Some(rest) => match rest.strip_prefix(b"/") {
            Some(b"") => Some(b"."),
            below => below,
        },
    }
}

/// Returns the paths that a pattern of a shell stands for, sorted; the pattern without its quotation if there is none. A
/// slash at its end stays.
pub fn glob(home: &Path, pattern: &[u8]) -> nix::Result<Vec<Vec<u8>>> {
    let below = expanded(pattern).ok_or(Errno::ENOENT)?;
    let begin = if below.first() == Some(&b'/') { PathBuf::from("/") } else { home.to_owned() };
    let literal = || begin.join(OsStr::from_bytes(&unquoted(below.strip_prefix(b"/").unwrap_or(below))));
    let ends_in_slash = below.len() > 1 && below.last() == Some(&b'/');
    let finish = |path: PathBuf| {
        let mut bytes = path.into_os_string().into_vec();
        if ends_in_slash && bytes.last() != Some(&b'/') {
            bytes.push(b'/');
        }
        bytes
    };
    if !has_wildcards(below) {
        return Ok(vec![finish(literal())]);
    }
    let mut found = vec![begin.clone()];
    let mut compared = 0;
    for part in below.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for directory in found {
            if has_wildcards(part) {
                matching(&directory, part, &mut compared, &mut next)?;
            } else {
                next.push(directory.join(OsStr::from_bytes(&unquoted(part))));
            }
        }
        if next.len() > MAX_ENTRIES {
            return Err(Errno::E2BIG);
        }
        found = next;
    }
    found.retain(|path| path.symlink_metadata().is_ok());
    if found.is_empty() {
        found.push(literal());
    }
    Ok(found.into_iter().map(finish).collect())
}

fn matching(directory: &Path, part: &[u8], compared: &mut usize, out: &mut Vec<PathBuf>) -> nix::Result<()> {
    let pattern = Pattern::new(part);
    let mut names = Vec::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    for entry in entries.flatten() {
        *compared += 1;
        if *compared > MAX_COMPARED {
            return Err(Errno::E2BIG);
        }
        let name = entry.file_name().into_vec();
        let hidden = name.first() == Some(&b'.') && part.first() != Some(&b'.');
        if !hidden && pattern.matches(&name) {
            names.push(name);
        }
    }
    names.sort();
    out.extend(names.into_iter().map(|name| directory.join(OsStr::from_bytes(&name))));
    Ok(())
}

fn unquoted(pattern: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut bytes = pattern.iter().copied();
    while let Some(byte) = bytes.next() {
        text.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    text
}

/// Opens a real path to be read; fails where a symbolic link stands.
pub fn open_real(path: &[u8]) -> nix::Result<std::fs::File> {
    super::open::real(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).map(Into::into)
}
