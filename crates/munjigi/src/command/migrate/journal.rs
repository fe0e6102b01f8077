//! What was changed on the host, so that all of it can be taken back when a later step fails.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// One change.
enum Change {
    /// A file has other content; `None`: it was not there.
    Written(PathBuf, Option<Vec<u8>>),
    /// A file or link was moved.
    Moved { from: PathBuf, to: PathBuf },
    /// A link was made.
    Linked(PathBuf),
}

/// Changes in their order.
#[derive(Default)]
pub(super) struct Journal(Vec<Change>);

impl Journal {
    /// Puts text in the place of a file's, as a whole; owner and mode stay.
    pub(super) fn write(&mut self, path: &Path, text: &[u8]) -> anyhow::Result<()> {
        self.about_to_write(path)?;
        replace(path, text)
    }

    /// Notes what a file holds before somebody else writes it.
    pub(super) fn about_to_write(&mut self, path: &Path) -> anyhow::Result<()> {
        let old = match fs::read(path) {
            Ok(old) => Some(old),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        };
        self.0.push(Change::Written(path.to_owned(), old));
        Ok(())
    }

    /// Moves a file or a link, also to another file system.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        move_over(from, to)?;
        self.0.push(Change::Moved { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    /// Makes a link.
    pub(super) fn link(&mut self, target: &Path, path: &Path) -> anyhow::Result<()> {
        make_parent(path)?;
        symlink(target, path).with_context(|| format!("failed to make the link {}", path.display()))?;
        self.0.push(Change::Linked(path.to_owned()));
        Ok(())
    }

    /// Takes everything back, the newest first. Returns what could not be taken back.
    pub(super) fn undo(self) -> Vec<String> {
        let undone = self.0.into_iter().rev().map(|change| match change {
            Change::Written(path, Some(old)) => replace(&path, &old),
            Change::Written(path, None) | Change::Linked(path) => match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("failed to remove {}", path.display()))
                }
                _ => Ok(()),
            },
            Change::Moved { from, to } => move_over(&to, &from),
        });
        undone.filter_map(Result::err).map(|error| format!("{error:#}")).collect()
    }
}

fn make_parent(path: &Path) -> anyhow::Result<()> {
    let parent = path.parent().context("it has no directory")?;
    fs::create_dir_all(parent).with_context(|| format!("failed to make {}", parent.display()))
}

fn move_over(from: &Path, to: &Path) -> anyhow::Result<()> {
    let doing = || format!("failed to move {} to {}", from.display(), to.display());
    make_parent(to)?;
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {
            match fs::read_link(from) {
                Ok(target) => symlink(target, to).with_context(doing)?,
                Err(_) => drop(fs::copy(from, to).with_context(doing)?),
            }
            fs::remove_file(from).with_context(doing)
        }
        done => done.with_context(doing),
    }
}

/// Replaces a file as a whole: whoever reads it meanwhile sees the old one or the new one.
pub(super) fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".munjigi-new");
    let new = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let old = fs::metadata(path).ok();
        let mode = old.as_ref().map_or(0o644, |old| old.mode() & 0o7777);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&new)?;
        if let Some(old) = &old {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
            file.set_permissions(old.permissions())?;
        }
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn everything_is_taken_back_in_reverse() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("settings"), "old").unwrap();
        fs::set_permissions(path("settings"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path("script"), "#!").unwrap();
        symlink("/nowhere", path("unit")).unwrap();
        let mut journal = Journal::default();
        journal.write(&path("settings"), b"new").unwrap();
        journal.write(&path("settings"), b"newer").unwrap();
        journal.write(&path("fresh"), b"x").unwrap();
        journal.rename(&path("script"), &path("aside/opt/script")).unwrap();
        journal.rename(&path("unit"), &path("aside/unit")).unwrap();
        journal.link(Path::new("/dev/null"), &path("mask/one.conf")).unwrap();
        assert_eq!(fs::read_to_string(path("settings")).unwrap(), "newer");
        assert_eq!(fs::metadata(path("settings")).unwrap().mode() & 0o777, 0o600);
        assert!(!path("script").exists() && fs::symlink_metadata(path("unit")).is_err());
        assert!(journal.undo().is_empty());
        assert_eq!(fs::read_to_string(path("settings")).unwrap(), "old");
        assert_eq!(fs::metadata(path("settings")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(path("script")).unwrap(), "#!");
        assert_eq!(fs::read_link(path("unit")).unwrap(), Path::new("/nowhere"));
        assert!(!path("fresh").exists() && fs::symlink_metadata(path("mask/one.conf")).is_err());
    }
}
