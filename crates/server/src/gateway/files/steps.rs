//! What each request by path needs: which paths are resolved, what policy is asked, what it becomes, what is told of it.

use munjigi_core::recording::{FileAction, FileChange, FileCopied, FileDirection};
use munjigi_core::sftp::{Attributes, OpenFlags, Request, ResolveLast, ResolvedKind};

use super::{FileJudge, FileQuestion};
use crate::gateway::copying::outbox::Noted;

/// A path as the worker has resolved it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) real: Vec<u8>,
    pub(super) plain: Vec<u8>,
    pub(super) kind: ResolvedKind,
}

impl Place {
    /// Returns the real path as policies and records have it.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.real).into_owned()
    }
}

/// A path that a request names, and what becomes of a symbolic link at its end.
type Named<'a> = (&'a [u8], ResolveLast);

/// Returns the paths of a request, at most two; none if it is not by path.
pub(super) fn paths<'a>(request: &Request<'a>) -> Vec<Named<'a>> {
    use ResolveLast::{Followed, Itself};
    match request {
        // An exclusive open takes no link for a place (open(2)).
        Request::Open { path, flags, .. } if flags.creates() && flags.is_exclusive() => vec![(path, Itself)],
        Request::Open { path, .. }
        | Request::Setstat { path, .. }
        | Request::Opendir { path }
        | Request::Stat { path }
        | Request::Statvfs { path }
        | Request::Realpath { path } => vec![(path, Followed)],
        Request::ExpandPath { path } => vec![(expanded(path), Followed)],
        Request::Lstat { path }
        | Request::Lsetstat { path, .. }
        | Request::Readlink { path }
        | Request::Remove { path }
        | Request::Mkdir { path, .. }
        | Request::Rmdir { path }
        | Request::Symlink { path, .. } => vec![(path, Itself)],
        Request::Rename { from, to } | Request::PosixRename { from, to } | Request::Hardlink { from, to } => {
            vec![(from, Itself), (to, Itself)]
        }
        _ => Vec::new(),
    }
}

/// `~` is the home directory, in which relative paths begin; another user's home stays a name that is not there.
fn expanded(path: &[u8]) -> &[u8] {
    match path {
        b"~" | b"~/" => b".",
        path => path.strip_prefix(b"~/").unwrap_or(path),
    }
}

/// Returns the request with real paths in place of those that were asked for.
pub(super) fn with_real_paths<'a>(request: Request<'a>, places: &'a [Place]) -> Request<'a> {
    let place = |index: usize| places.get(index).map_or(&[][..], |place| place.real.as_slice());
    let (first, second) = (place(0), place(1));
    match request {
        Request::Open { flags, attributes, .. } => Request::Open { path: first, flags, attributes },
        Request::Setstat { attributes, .. } => Request::Setstat { path: first, attributes },
        Request::Opendir { .. } => Request::Opendir { path: first },
        Request::Stat { .. } => Request::Stat { path: first },
        Request::Statvfs { .. } => Request::Statvfs { path: first },
        Request::Lstat { .. } => Request::Lstat { path: first },
        Request::Lsetstat { attributes, .. } => Request::Lsetstat { path: first, attributes },
        Request::Readlink { .. } => Request::Readlink { path: first },
        Request::Remove { .. } => Request::Remove { path: first },
        Request::Mkdir { attributes, .. } => Request::Mkdir { path: first, attributes },
        Request::Rmdir { .. } => Request::Rmdir { path: first },
        Request::Symlink { target, .. } => Request::Symlink { target, path: first },
        Request::Rename { .. } => Request::Rename { from: first, to: second },
        Request::PosixRename { .. } => Request::PosixRename { from: first, to: second },
        Request::Hardlink { .. } => Request::Hardlink { from: first, to: second },
        other => other,
    }
}

/// Asks policy about a request whose paths are known. The error is policy's word.
pub(super) fn judge(judge: &FileJudge, request: &Request<'_>, places: &[Place]) -> Result<(), String> {
    let Some(first) = places.first() else { return Ok(()) };
    let path = first.text();
    let second = places.get(1);
    match (request, second) {
        (Request::Open { flags, .. }, _) => opening(judge, &path, *flags),
        (
            Request::Setstat { .. }
            | Request::Lsetstat { .. }
            | Request::Remove { .. }
            | Request::Mkdir { .. }
            | Request::Rmdir { .. }
            | Request::Symlink { .. },
            _,
        ) => judge(FileQuestion::Upload(&path)),
        (Request::Rename { .. } | Request::PosixRename { .. } | Request::Hardlink { .. }, Some(second)) => {
            moving(judge, (&path, first.kind), &second.text())
        }
        _ => looking(judge, &path),
    }
}

/// Asks policy whether a file may be opened, or stay open, for this.
pub(super) fn opening(judge: &FileJudge, path: &str, flags: OpenFlags) -> Result<(), String> {
    if flags.writes() {
        judge(FileQuestion::Upload(path))?;
    }
    // What is opened for nothing is looked at.
    if flags.reads() || !flags.writes() {
        judge(FileQuestion::Download(path))?;
    }
    Ok(())
}

/// Names, sizes and times are for whoever may write or read.
pub(super) fn looking(judge: &FileJudge, path: &str) -> Result<(), String> {
    judge(FileQuestion::Download(path)).or_else(|why| judge(FileQuestion::Upload(path)).map_err(|_| why))
}

/// A further or another name must not make readable what was not, nor may it take something from where nothing may
/// be written. What holds for a directory must hold for everything in it.
fn moving(judge: &FileJudge, (from, kind): (&str, ResolvedKind), to: &str) -> Result<(), String> {
    if kind == ResolvedKind::Directory {
        judge(FileQuestion::UploadTree(from))?;
        judge(FileQuestion::UploadTree(to))?;
        // Readable as a whole before, or not readable at all afterwards.
        let before = judge(FileQuestion::DownloadTree(from));
        return before.or_else(|why| judge(FileQuestion::DownloadSome(to)).map_or(Ok(()), |()| Err(why)));
    }
    judge(FileQuestion::Upload(from))?;
    judge(FileQuestion::Upload(to))?;
    match judge(FileQuestion::Download(from)) {
        Err(why) if judge(FileQuestion::Download(to)).is_ok() => Err(why),
        _ => Ok(()),
    }
}

/// Returns what is told of a request that policy refused.
pub(super) fn denied(connection: u64, request: &Request<'_>, places: &[Place], why: &str) -> Noted {
    if let Request::Open { flags, .. } = request {
        return not_opened(connection, places, *flags, why);
    }
    let mut change = change(connection, request, places).unwrap_or_else(|| FileChange {
        connection,
        action: FileAction::Look,
        path: places.first().map(Place::text).unwrap_or_default(),
        detail: String::new(),
        bytes: 0,
        why: String::new(),
    });
    why.clone_into(&mut change.why);
    Noted::Changed(change)
}

/// Returns what is told of a request whose path the OS user may not even follow: with the path as it was asked for, as where
/// it leads is not known. Of mere looks nothing is told.
pub(super) fn not_reached(connection: u64, request: &Request<'_>, why: &str) -> Option<Noted> {
    let place = |(path, _): Named<'_>| Place { real: path.to_vec(), plain: Vec::new(), kind: ResolvedKind::Nothing };
    let places: Vec<_> = paths(request).into_iter().map(place).collect();
    if let Request::Open { flags, .. } = request {
        return Some(not_opened(connection, &places, *flags, why));
    }
    let change = change(connection, request, &places)?;
    Some(Noted::Changed(FileChange { why: why.to_owned(), ..change }))
}

/// Returns what is told of a file that was not opened.
pub(super) fn not_opened(connection: u64, places: &[Place], flags: OpenFlags, why: &str) -> Noted {
    Noted::Copied(FileCopied {
        connection,
        direction: if flags.writes() { FileDirection::Upload } else { FileDirection::Download },
        path: places.first().map(Place::text).unwrap_or_default(),
        bytes: 0,
        kept: 0,
        hash: [0; 32],
        why: why.to_owned(),
    })
}

/// Returns what is told of a request that changes something; `None` if it does not.
pub(super) fn change(connection: u64, request: &Request<'_>, places: &[Place]) -> Option<FileChange> {
    let place = |index: usize| places.get(index).map(Place::text).unwrap_or_default();
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (action, path, detail) = match request {
        Request::Setstat { attributes, .. } | Request::Lsetstat { attributes, .. } => {
            (FileAction::SetAttributes, place(0), told(attributes))
        }
        Request::Remove { .. } => (FileAction::Remove, place(0), String::new()),
        Request::Mkdir { .. } => (FileAction::MakeDirectory, place(0), String::new()),
        Request::Rmdir { .. } => (FileAction::RemoveDirectory, place(0), String::new()),
        Request::Rename { .. } | Request::PosixRename { .. } => (FileAction::Rename, place(0), place(1)),
        Request::Symlink { target, .. } => (FileAction::SymbolicLink, place(0), lossy(target)),
        Request::Hardlink { .. } => (FileAction::HardLink, place(1), place(0)),
        _ => return None,
    };
    Some(FileChange { connection, action, path, detail, bytes: 0, why: String::new() })
}

/// Says attributes in words.
pub(super) fn told(attributes: &Attributes) -> String {
    let mut parts = Vec::new();
    if let Some(size) = attributes.size {
        parts.push(format!("size {size}"));
    }
    if let Some(owner) = attributes.owner {
        parts.push(format!("owner {}:{}", owner.uid, owner.gid));
    }
    if let Some(mode) = attributes.permissions {
        parts.push(format!("mode {:04o}", mode & 0o7777));
    }
    if let Some(times) = attributes.times {
        parts.push(format!("modified {}", times.modified));
    }
    parts.join(", ")
}
