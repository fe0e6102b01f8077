//! A directory of ours, held by its descriptor: everything in it is opened by one plain name below it, never through
//! a symbolic link, and nobody else can read it (T-71, T-73). What the files hold is not known here.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Owner only, for directories.
const DIRECTORY_MODE: Mode = Mode::S_IRWXU;
/// Owner only, for files.
const FILE_MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR);

/// A directory held open. One component at a time and `O_NOFOLLOW` is what `RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS` means
/// for names without a slash, and it works where `openat2` is filtered.
#[derive(Debug)]
pub(crate) struct Directory(File);

/// What an opened file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Directory {
    /// Opens a directory by its path, which the operator chose; makes it if it is missing.
    pub(crate) fn create_path(path: &Path) -> io::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE.bits()).create(path)?;
        Self::open_path(path)
    }

    /// Opens an existing directory by its path.
    pub(crate) fn open_path(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self(file))
    }

    /// Opens a directory below this one.
    pub(crate) fn child(&self, name: &str) -> io::Result<Self> {
        self.open(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY).map(Self)
    }

    /// Opens a directory below this one; makes it, durably, if it is missing.
    pub(crate) fn create_child(&self, name: &str) -> io::Result<Self> {
        match mkdirat(&self.0, single(name)?, DIRECTORY_MODE) {
            Ok(()) => self.sync()?,
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.child(name)
    }

    /// Makes a file that does not exist yet, for reading and writing. Its entry is durable after [`Self::sync`].
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        self.open(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Opens a regular file.
    pub(crate) fn open_file(&self, name: &str, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlag::O_RDONLY,
            Access::Write => OFlag::O_RDWR,
        };
        // Without O_NONBLOCK a planted FIFO would hold the caller for ever.
        let file = self.open(name, flags | OFlag::O_NONBLOCK)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Removes a file.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, single(name)?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Returns the names in the directory, sorted; names that are not UTF-8 are none of ours and are left out.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?
        {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Makes the directory's entries durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Returns the descriptor.
    pub(crate) const fn file(&self) -> &File {
        &self.0
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.0, single(name)?, flags, FILE_MODE)?.into())
    }
}

/// Lets only a single component pass.
fn single(name: &str) -> io::Result<&str> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_outside_is_reached_by_name_or_link() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::create_path(&place.path().join("ours")).unwrap();
        symlink(outside.path(), place.path().join("ours/link")).unwrap();
        symlink(outside.path().join("secret"), place.path().join("ours/file")).unwrap();
        assert!(directory.child("link").is_err());
        assert!(directory.create_child("link").is_err());
        for access in [Access::Read, Access::Write] {
            assert!(directory.open_file("file", access).is_err());
            for name in ["../ours", "..", ".", "", "link/secret", "/etc/passwd"] {
                assert!(directory.open_file(name, access).is_err(), "{name}");
            }
        }
        assert!(directory.create_file("file").is_err());
        directory.remove_file("file").unwrap();
        assert!(outside.path().join("secret").exists());
    }

    #[test]
    fn what_is_made_belongs_to_the_owner_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::create_path(&place.path().join("a/b")).unwrap();
        directory.create_child("c").unwrap().create_file("f").unwrap();
        let mode = |path: &str| std::fs::metadata(place.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("a"), mode("a/b/c"), mode("a/b/c/f")), (0o700, 0o700, 0o600));
        assert_eq!(directory.names().unwrap(), ["c"]);
        assert!(directory.child("c").unwrap().create_file("f").is_err(), "an existing file is never taken over");
    }
}
