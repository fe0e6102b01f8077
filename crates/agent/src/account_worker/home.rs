//! Homes of accounts: made, archived when the account goes, and given back to the one who returns.
//!
//! An archive stands beside the homes (`/home/.munjigi-archive`), root's alone, so that moving there is one rename on any
//! system and nobody walks through a tree that its owner may still change (T-73: no recursive chown or chmod).

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use crate::clock;

/// Where homes are made.
pub(super) const HOMES: &str = "/home";
const ARCHIVE: &str = ".munjigi-archive";
/// What stands before the name of a home that is being made.
const DRAFT: &str = ".munjigi-new-";
/// What a new home begins with.
const SKELETON: &str = "/etc/skel";
/// Largest file of the skeleton that is copied.
const MAX_FILE: u64 = 1024 * 1024;

/// What stands where a home shall be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing.
    Free,
    /// A directory of the same user id: a home that was left or given back.
    Own,
}

/// Returns the home of an account that is made.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(HOMES).join(name)
}

/// Looks whether a home can be at its place; moves an archived one back there if it is this user's.
pub(super) fn prepare(name: &str, uid: u32) -> Result<Place, String> {
    let home = path(name);
    match fs::symlink_metadata(&home) {
        Ok(meta) if meta.is_dir() && meta.uid() == uid => Ok(Place::Own),
        Ok(_) => Err(format!("{} is there and belongs to somebody else; move it away", home.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => match newest(name, uid) {
            Some(archived) => {
                fs::rename(&archived, &home)
                    .map_err(|error| format!("{} cannot be moved: {error}", archived.display()))?;
                Ok(Place::Own)
            }
            None => Ok(Place::Free),
        },
        Err(error) => Err(format!("{} cannot be looked at: {error}", home.display())),
    }
}

/// The newest archived home of a name and user id.
fn newest(name: &str, uid: u32) -> Option<PathBuf> {
    let archive = Path::new(HOMES).join(ARCHIVE);
    let prefix = format!("{name}-{uid}-");
    let mut found: Vec<PathBuf> = fs::read_dir(archive)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|text| text.starts_with(&prefix)))
        .map(|entry| entry.path())
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid))
        .collect();
    found.sort();
    found.pop()
}

/// Where a home is made, until it is complete.
fn draft(name: &str) -> PathBuf {
    Path::new(HOMES).join(format!("{DRAFT}{name}"))
}

/// Makes a home with the files of the skeleton, its owner's alone. It is there complete or not at all.
pub(super) fn make(name: &str, uid: u32, gid: u32) -> Result<(), String> {
    let (home, place) = (draft(name), path(name));
    let failed = |error: std::io::Error| format!("{} cannot be made: {error}", place.display());
    // Left by a worker that was killed.
    match fs::symlink_metadata(&home) {
        Ok(meta) if meta.is_dir() && (meta.uid() == 0 || meta.uid() == uid) => {
            fs::remove_dir_all(&home).map_err(failed)?
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Ok(_) => return Err(format!("{} is in the way; move it away", home.display())),
        Err(error) => return Err(failed(error)),
    }
    DirBuilder::new().mode(0o700).create(&home).map_err(failed)?;
    for entry in fs::read_dir(SKELETON).into_iter().flatten().flatten() {
        let meta = fs::symlink_metadata(entry.path()).map_err(failed)?;
        if meta.is_file() && meta.len() <= MAX_FILE {
            let content = fs::read(entry.path()).map_err(failed)?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(meta.mode() & 0o755)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(home.join(entry.file_name()))
                .map_err(failed)?;
            fchown(&file, Some(uid), Some(gid)).map_err(failed)?;
            file.write_all(&content).map_err(failed)?;
        }
    }
    // Last: until here nobody but root could reach into it.
    chown(&home, Some(uid), Some(gid)).map_err(failed)?;
    fs::rename(&home, &place).map_err(failed)
}

/// Takes a home away that was made for an account which could then not be: nobody has been in it.
pub(super) fn unmake(name: &str, uid: u32) {
    for home in [draft(name), path(name)] {
        let is_ours = |meta: fs::Metadata| meta.is_dir() && (meta.uid() == 0 || meta.uid() == uid);
        if fs::symlink_metadata(&home).is_ok_and(is_ours) {
            // What stays is found by the next attempt.
            let _ = fs::remove_dir_all(&home);
        }
    }
}

/// Moves a home into the archive, or deletes it there. Says what became of it.
pub(super) fn archive(home: &Path, name: &str, uid: u32, remove: bool) -> Result<String, String> {
    let shown = home.display();
    match fs::symlink_metadata(home) {
        Ok(meta)
            if meta.is_dir() && meta.uid() == uid && home.parent().is_some_and(|parent| parent != Path::new("/")) => {}
        Ok(_) => return Ok(format!("{shown} is no home of its own and stays")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok("it had no home".to_owned()),
        Err(error) => return Err(format!("{shown} cannot be looked at: {error}")),
    }
    let failed = |error: std::io::Error| format!("{shown} cannot be archived: {error}");
    let archive = home.with_file_name(ARCHIVE);
    // Where somebody else may rename, links could lead whatever is done to the archive elsewhere.
    let parent = fs::metadata(home.parent().unwrap_or(Path::new("/"))).map_err(failed)?;
    if parent.uid() != 0 || parent.mode() & 0o022 != 0 {
        return Ok(format!("{shown} stands where not only root may write, and stays"));
    }
    match DirBuilder::new().mode(0o700).create(&archive) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let meta = fs::symlink_metadata(&archive).map_err(failed)?;
    if !meta.is_dir() || meta.uid() != 0 {
        return Err(format!("{} is not root's; the home stays", archive.display()));
    }
    fs::set_permissions(&archive, Permissions::from_mode(0o700)).map_err(failed)?;
    let place = archive.join(format!("{name}-{uid}-{}", clock::now().to_basic()));
    fs::rename(home, &place).map_err(failed)?;
    if remove {
        fs::remove_dir_all(&place).map_err(failed)?;
        return Ok(format!("{shown} was deleted"));
    }
    Ok(format!("its home is {}", place.display()))
}
