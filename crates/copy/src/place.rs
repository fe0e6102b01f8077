//! Where a copy goes on this machine.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use munjigi_core::copy::RootKind;

use crate::error::CopyFailure;
use crate::sources::io_words;

/// Where entries go.
#[derive(Debug)]
pub enum Place {
    /// Into a directory that exists, each under its own name.
    Into(PathBuf),
    /// The one entry that comes takes this path.
    As(PathBuf),
    /// The one file that comes is written to this descriptor.
    Stream(OwnedFd),
}

/// A path on this machine as a place.
pub(crate) struct Found {
    pub(crate) kind: RootKind,
    /// Absolute, behind all symbolic links.
    pub(crate) real_path: PathBuf,
    pub(crate) place: Place,
}

impl Place {
    /// Finds out what stands at a path: a directory, something that is replaced, or nothing in a directory.
    pub(crate) fn find(path: &Path) -> Result<Found, CopyFailure> {
        let failed = |why: String| CopyFailure::here("NotFound", format!("{}: {why}", path.display()));
        if let Ok(real_path) = path.canonicalize() {
            return Ok(if real_path.is_dir() {
                Found { kind: RootKind::Directory, place: Self::Into(real_path.clone()), real_path }
            } else {
                Found { kind: RootKind::File, place: Self::As(real_path.clone()), real_path }
            });
        }
        let name = path.file_name().ok_or_else(|| failed("it has no last name".to_owned()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let real_path = parent.canonicalize().map_err(|error| failed(io_words(&error)))?.join(name);
        if real_path.symlink_metadata().is_ok() {
            return Err(failed("a symbolic link that leads nowhere is in its place".to_owned()));
        }
        Ok(Found { kind: RootKind::Missing, place: Self::As(real_path.clone()), real_path })
    }
}
