//! What is sent: the paths that were named, and what wildcards in the last part of one stand for.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use munjigi_core::copy::{EntryPath, Pattern, RootKind};
use nix::dir::Dir;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{CopyFailure, words};

/// Most matches of a pattern.
const MAX_MATCHES: usize = 100_000;

/// One thing that is sent.
#[derive(Debug)]
pub enum Source {
    /// What stands at a path. A symbolic link that was named itself is followed, as `cp` does.
    Path {
        /// Where it is here.
        path: PathBuf,
        /// Where it goes below the other end's root.
        entry: EntryPath,
    },
    /// What can be read from a descriptor until it ends, as one file.
    Stream {
        /// The descriptor.
        fd: OwnedFd,
        /// Where it goes below the other end's root.
        entry: EntryPath,
    },
}

/// What a path on this machine stands for.
pub(crate) struct Found {
    pub(crate) kind: RootKind,
    /// Absolute, behind all symbolic links.
    pub(crate) real_path: PathBuf,
    pub(crate) sources: Vec<Source>,
}

/// Finds what is at a path; wildcards stand in its last part only.
pub(crate) fn find(path: &Path) -> Result<Found, CopyFailure> {
    match path.canonicalize() {
        Ok(real_path) => {
            let kind = if real_path.is_dir() { RootKind::Directory } else { RootKind::File };
            let source = Source::Path { path: real_path.clone(), entry: EntryPath::root() };
            Ok(Found { kind, real_path, sources: vec![source] })
        }
        // A name with a star in it goes before the pattern.
        Err(error) => match path.file_name().filter(|name| munjigi_core::copy::has_wildcards(name.as_bytes())) {
            Some(name) => find_matches(path, name),
            None => Err(CopyFailure::here("NotFound", format!("{}: {}", path.display(), io_words(&error)))),
        },
    }
}

fn find_matches(path: &Path, name: &OsStr) -> Result<Found, CopyFailure> {
    let failed = |why: String| CopyFailure::here("NotFound", format!("{}: {why}", path.display()));
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real_path = parent.canonicalize().map_err(|error| failed(io_words(&error)))?;
    let pattern = Pattern::new(name.as_bytes());
    let mut dir = Dir::open(&real_path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| failed(words(errno)))?;
    let mut names: Vec<Vec<u8>> = Vec::new();
    for entry in dir.iter().flatten() {
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." && pattern.matches(name) {
            if names.len() >= MAX_MATCHES {
                return Err(failed("too many names fit".to_owned()));
            }
            names.push(name.to_vec());
        }
    }
    if names.is_empty() {
        return Err(failed("no name there fits the pattern".to_owned()));
    }
    names.sort_unstable();
    let sources = names
        .into_iter()
        .filter_map(|name| {
            let entry = EntryPath::new(&name).ok()?;
            Some(Source::Path { path: real_path.join(OsStr::from_bytes(&name)), entry })
        })
        .collect();
    Ok(Found { kind: RootKind::Matches, real_path, sources })
}

/// Says an error of the standard library in our words.
pub(crate) fn io_words(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| words(nix::Error::from_raw(code)))
}
