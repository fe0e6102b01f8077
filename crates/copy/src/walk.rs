//! Walks the sources: what comes next, directory by directory, without following a symbolic link inside of a tree.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use munjigi_core::copy::{Attributes, EntryPath};
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use crate::error::words;
use crate::names::{What, attributes, size, what};
use crate::sources::Source;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Step {
    Enter { path: EntryPath, attributes: Attributes },
    Leave { path: EntryPath, attributes: Attributes },
    Symlink { path: EntryPath, target: Vec<u8> },
    File(SourceFile),
    Skipped { path: EntryPath, why: String },
}

/// An open file to be sent.
#[derive(Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: EntryPath,
    pub(crate) fd: OwnedFd,
    /// `None`: until it ends.
    pub(crate) size: Option<u64>,
    pub(crate) attributes: Attributes,
    /// Whether parts of it take no place on the disk.
    pub(crate) is_sparse: bool,
}

/// A directory that is being read.
struct Level {
    path: EntryPath,
    attributes: Attributes,
    fd: OwnedFd,
    names: OwningIter,
}

/// The walk.
pub(crate) struct Walk {
    sources: VecDeque<Source>,
    levels: Vec<Level>,
    recursive: bool,
}

const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NOCTTY).union(OFlag::O_NONBLOCK);

impl Walk {
    pub(crate) fn new(sources: Vec<Source>, recursive: bool) -> Self {
        Self { sources: sources.into(), levels: Vec::new(), recursive }
    }

    /// Counts files and bytes of paths, up to `most` entries; `None` if there are more, or what cannot be counted.
    pub(crate) fn count(sources: &[Source], recursive: bool, most: usize) -> Option<(u64, u64)> {
        let copies = sources.iter().map(|source| match source {
            Source::Path { path, entry } => Some(Source::Path { path: path.clone(), entry: entry.clone() }),
            Source::Stream { .. } => None,
        });
        let walk = Self::new(copies.collect::<Option<_>>()?, recursive);
        let (mut files, mut bytes, mut entries) = (0, 0_u64, 0);
        for step in walk {
            entries += 1;
            if entries > most {
                return None;
            }
            if let Step::File(file) = step {
                files += 1;
                bytes = bytes.saturating_add(file.size?);
            }
        }
        Some((files, bytes))
    }

    fn next_in(&mut self) -> Option<Step> {
        let level = self.levels.last_mut()?;
        for entry in level.names.by_ref() {
            let name = match &entry {
                Ok(entry) => entry.file_name().to_bytes(),
                Err(errno) => {
                    return Some(Step::Skipped { path: level.path.clone(), why: words(*errno) });
                }
            };
            if name == b"." || name == b".." {
                continue;
            }
            let path = match level.path.join(name) {
                Ok(path) => path,
                Err(error) => return Some(Step::Skipped { path: level.path.clone(), why: error.to_string() }),
            };
            let found = look(level.fd.as_fd(), name, path, self.recursive);
            return Some(self.take(found));
        }
        let level = self.levels.pop()?;
        Some(Step::Leave { path: level.path, attributes: level.attributes })
    }

    fn next_source(&mut self) -> Option<Step> {
        let found = match self.sources.pop_front()? {
            Source::Stream { fd, entry } => {
                let modified = munjigi_core::copy::Moment { seconds: 0, nanoseconds: 0 };
                let attributes = Attributes { mode: 0o666, modified };
                return Some(Step::File(SourceFile { path: entry, fd, size: None, attributes, is_sparse: false }));
            }
            Source::Path { path, entry } => match fstatat(AT_FDCWD, &path, AtFlags::empty()) {
                Ok(stat) => opened(&stat, entry, self.recursive, || open(&path, FLAGS, Mode::empty())),
                Err(errno) => Found::Step(Step::Skipped { path: entry, why: words(errno) }),
            },
        };
        Some(self.take(found))
    }

    fn take(&mut self, found: Found) -> Step {
        match found {
            Found::Step(step) => step,
            Found::Directory(level) => {
                let step = Step::Enter { path: level.path.clone(), attributes: level.attributes };
                self.levels.push(*level);
                step
            }
        }
    }
}

impl Iterator for Walk {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        if self.levels.is_empty() { self.next_source() } else { self.next_in() }
    }
}

enum Found {
    Step(Step),
    Directory(Box<Level>),
}

fn look(dir: BorrowedFd<'_>, name: &[u8], path: EntryPath, recursive: bool) -> Found {
    let stat = match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        // It was there a moment ago.
        Err(errno) => return Found::Step(Step::Skipped { path, why: words(errno) }),
    };
    if what(&stat) == What::Symlink {
        return Found::Step(match readlinkat(dir, name) {
            Ok(target) => Step::Symlink { path, target: target.as_bytes().to_vec() },
            Err(errno) => Step::Skipped { path, why: words(errno) },
        });
    }
    opened(&stat, path, recursive, || nix::fcntl::openat(dir, name, FLAGS | OFlag::O_NOFOLLOW, Mode::empty()))
}

/// Opens what a look has found; special files are left alone, since opening one may do something.
fn opened(stat: &FileStat, path: EntryPath, recursive: bool, open: impl FnOnce() -> Result<OwnedFd, Errno>) -> Found {
    let skipped = |path: EntryPath, why: String| Found::Step(Step::Skipped { path, why });
    let before = match what(stat) {
        What::Special(kind) => return skipped(path, format!("it is {kind}, which is not copied")),
        What::Directory if !recursive => {
            return skipped(path, "it is a directory; -r copies directories".to_owned());
        }
        before => before,
    };
    let fd = match open() {
        Ok(fd) => fd,
        Err(errno) => return skipped(path, words(errno)),
    };
    let stat = match fstat(&fd) {
        Ok(stat) if what(&stat) == before => stat,
        Ok(_) => return skipped(path, "it was changed meanwhile".to_owned()),
        Err(errno) => return skipped(path, words(errno)),
    };
    let attributes = attributes(&stat);
    if before == What::File {
        let size = size(&stat);
        let is_sparse = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) < size;
        return Found::Step(Step::File(SourceFile { path, fd, size: Some(size), attributes, is_sparse }));
    }
    let names = fd.try_clone().map_err(|_| Errno::EMFILE).and_then(Dir::from_fd);
    match names {
        Ok(dir) => Found::Directory(Box::new(Level { path, attributes, fd, names: dir.into_iter() })),
        Err(errno) => skipped(path, words(errno)),
    }
}
