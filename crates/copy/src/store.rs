//! Writes entries below one directory and nowhere else: every step is taken by name from an open directory, and no
//! symbolic link is followed, so what a hostile sender or somebody on this machine puts in the way leads nowhere.
//!
//! A file is written under a name of its own and takes its place in one step when it is complete.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::rc::Rc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use munjigi_core::copy::{Attributes, EntryPath, FileHead, Pattern};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::uio::pwrite;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, ftruncate, geteuid, symlinkat, unlinkat};

use crate::error::{CopyFailure, words};
use crate::names::{What, size, time, what};
use crate::place::Place;
use crate::send::hash_head;

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Longest name that a file may have for its partial file to be named after it.
const MAX_NAMED: usize = 240;

/// Where entries are written.
pub(crate) struct Store {
    base: Rc<OwnedFd>,
    /// Name of the root entry in `base`; without one `base` is the root.
    root_name: Option<Vec<u8>>,
    /// The directories that are open; `None` for one that could not be made.
    open: Vec<Option<Rc<OwnedFd>>>,
    preserve: bool,
    /// Partial files have names that are found again, and stay.
    resume: bool,
    /// What the first name of every path must fit.
    expected: Option<Pattern>,
}

/// What is there of a file that was asked about.
pub(crate) struct Held {
    pub(crate) path: EntryPath,
    pub(crate) offset: u64,
    pub(crate) hash: Context,
    is_complete: bool,
}

/// A file that is being written.
pub(crate) struct Writing {
    fd: OwnedFd,
    dir: Rc<OwnedFd>,
    name: Vec<u8>,
    /// Its name until it is complete; `None` when it is in its place already, or has none.
    partial: Option<Vec<u8>>,
    /// Left behind if it is not completed.
    keeps_partial: bool,
    preserve: bool,
    /// What it replaces.
    existing: Option<FileStat>,
    at: u64,
    ends_in_hole: bool,
    pub(crate) hash: Context,
    head: FileHead,
}

impl Store {
    /// Opens the place; `None` for a stream, which has no tree.
    pub(crate) fn open(
        place: &Place,
        preserve: bool,
        resume: bool,
        expected: Option<Pattern>,
    ) -> Result<Option<Self>, CopyFailure> {
        let (directory, root_name) = match place {
            Place::Into(path) => (path.as_path(), None),
            Place::As(path) => {
                let name = path.file_name().map(|name| std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec());
                let name = name.ok_or_else(|| CopyFailure::here("NotFound", "the place has no last name"))?;
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                (parent.unwrap_or(std::path::Path::new(".")), Some(name))
            }
            Place::Stream(_) => return Ok(None),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let base = open(directory, flags, Mode::empty())
            .map_err(|errno| CopyFailure::here("NotFound", format!("{}: {}", directory.display(), words(errno))))?;
        Ok(Some(Self { base: Rc::new(base), root_name, open: Vec::new(), preserve, resume, expected }))
    }

    /// Returns the directory and the name in it that a path stands for.
    fn place<'a>(&'a self, path: &'a EntryPath) -> Result<(Rc<OwnedFd>, &'a [u8]), String> {
        if let Some(expected) = &self.expected
            && !path.names().next().is_some_and(|name| expected.matches(name))
        {
            return Err("the sender was not asked for it".to_owned());
        }
        match (self.open.last(), path.split(), &self.root_name) {
            (Some(Some(open)), Some((_, name)), _) => Ok((Rc::clone(open), name)),
            (Some(None), ..) => Err("its directory could not be made".to_owned()),
            (None, None, Some(name)) => Ok((Rc::clone(&self.base), name)),
            (None, Some((_, name)), None) => Ok((Rc::clone(&self.base), name)),
            (None, None, None) => Err("a directory is in its place".to_owned()),
            (None, Some(_), Some(_)) | (Some(Some(_)), None, _) => {
                Err("it stands outside of what is copied".to_owned())
            }
        }
    }

    /// Makes a directory, or goes into the one that is there.
    pub(crate) fn enter(&mut self, path: &EntryPath, attributes: &Attributes) -> Result<(), String> {
        let entered = self.try_enter(path, attributes);
        let (open, result) = match entered {
            Ok(open) => (Some(open), Ok(())),
            Err(why) => (None, Err(why)),
        };
        self.open.push(open);
        result
    }

    fn try_enter(&self, path: &EntryPath, attributes: &Attributes) -> Result<Rc<OwnedFd>, String> {
        if path.is_root() && self.root_name.is_none() && self.open.is_empty() {
            return Ok(Rc::clone(&self.base));
        }
        let (dir, name) = self.place(path)?;
        // Writable for its owner until it is complete.
        match mkdirat(dir.as_fd(), name, Mode::from_bits_truncate(u32::from(attributes.mode) | 0o700)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(words(errno)),
        }
        openat(dir.as_fd(), name, DIRECTORY, Mode::empty()).map(Rc::new).map_err(|errno| match errno {
            Errno::ENOTDIR | Errno::ELOOP => "something that is no directory is in its place".to_owned(),
            other => words(other),
        })
    }

    /// A directory is complete: it gets its mode and, if they are kept, its time.
    pub(crate) fn leave(&mut self, attributes: &Attributes) -> Result<(), String> {
        let Some(Some(dir)) = self.open.pop() else { return Ok(()) };
        let wanted = u32::from(attributes.mode);
        if self.preserve {
            fchmod(dir.as_fd(), Mode::from_bits_truncate(wanted)).map_err(words)?;
            let at = time(attributes.modified);
            futimens(dir.as_fd(), &at, &at).map_err(words)?;
        } else if wanted & 0o700 != 0o700 {
            let now = fstat(dir.as_fd()).map_err(words)?.st_mode;
            fchmod(dir.as_fd(), Mode::from_bits_truncate(now & wanted)).map_err(words)?;
        }
        Ok(())
    }

    /// Makes a symbolic link that says what the sender's says; nothing here follows it.
    pub(crate) fn symlink(&self, path: &EntryPath, target: &[u8]) -> Result<(), String> {
        let (dir, name) = self.place(path)?;
        let partial = unused_name()?;
        symlinkat(target, dir.as_fd(), partial.as_slice()).map_err(words)?;
        renameat(dir.as_fd(), partial.as_slice(), dir.as_fd(), name).map_err(|errno| {
            remove(dir.as_fd(), &partial);
            words(errno)
        })
    }

    /// Looks for what is there of a file: the complete one, or a part of it. Nothing of use is nothing.
    pub(crate) fn held(&self, path: &EntryPath, size: u64) -> Held {
        let found = self.look_for(path, size);
        let nothing = || Held { path: path.clone(), offset: 0, hash: Context::new(&SHA256), is_complete: false };
        found.unwrap_or_else(nothing)
    }

    fn look_for(&self, path: &EntryPath, wanted: u64) -> Option<Held> {
        let (parent, name) = match path.split() {
            Some((parent, name)) => (Some(parent), name),
            None => (None, self.root_name.as_deref()?),
        };
        // Directories are not entered yet when their files are asked about.
        let mut dir = Rc::clone(&self.base);
        let first = parent.as_ref().and(self.root_name.as_deref());
        for step in first.into_iter().chain(parent.iter().flat_map(EntryPath::names)) {
            dir = Rc::new(openat(dir.as_fd(), step, DIRECTORY, Mode::empty()).ok()?);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let look = |name: &[u8]| {
            let fd = openat(dir.as_fd(), name, flags, Mode::empty()).ok()?;
            let stat = fstat(&fd).ok().filter(|stat| what(stat) == What::File)?;
            Some((fd, stat))
        };
        let held = |fd: OwnedFd, offset: u64, is_complete: bool| {
            let hash = hash_head(&fd, offset).ok()?;
            Some(Held { path: path.clone(), offset, hash, is_complete })
        };
        if let Some((fd, _)) = look(name).filter(|(_, stat)| size(stat) == wanted) {
            return held(fd, wanted, true);
        }
        let (fd, stat) = look(&partial_name(name))?;
        let usable = is_own(&stat) && size(&stat) <= wanted;
        if usable { held(fd, size(&stat), false) } else { None }
    }

    /// Begins a file, or goes on with what is there of it.
    pub(crate) fn begin(&self, head: FileHead, held: Option<Held>) -> Result<Writing, String> {
        let (dir, name) = self.place(&head.path)?;
        let name = name.to_vec();
        let existing = match fstatat(dir.as_fd(), name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => match what(&stat) {
                What::File => Some(stat),
                What::Symlink => None,
                What::Directory => return Err("a directory is in its place".to_owned()),
                What::Special(kind) => return Err(format!("{kind} is in its place")),
            },
            Err(Errno::ENOENT) => None,
            Err(errno) => return Err(words(errno)),
        };
        let writing = |fd: OwnedFd, partial: Option<Vec<u8>>, hash: Context| Writing {
            fd,
            dir: Rc::clone(&dir),
            name: name.clone(),
            partial,
            keeps_partial: self.resume,
            preserve: self.preserve,
            existing,
            at: head.offset,
            ends_in_hole: false,
            hash,
            head: head.clone(),
        };
        let fresh = || Context::new(&SHA256);
        if head.offset > 0 {
            let held = held.filter(|held| held.offset == head.offset).ok_or("it was not asked for")?;
            if held.is_complete {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let fd = openat(dir.as_fd(), name.as_slice(), flags, Mode::empty()).map_err(words)?;
                return Ok(writing(fd, None, held.hash));
            }
            let partial = partial_name(&name);
            let fd = open_own(dir.as_fd(), &partial).map_err(words)?;
            if fstat(&fd).map_err(words)?.st_size != i64::try_from(head.offset).unwrap_or(-1) {
                return Err("the part of it that is here was changed meanwhile".to_owned());
            }
            return Ok(writing(fd, Some(partial), held.hash));
        }
        if self.resume {
            // One that is there and of no use is emptied; somebody else's is left alone.
            let partial = partial_name(&name);
            if let Ok(fd) = open_own(dir.as_fd(), &partial) {
                ftruncate(&fd, 0).map_err(words)?;
                return Ok(writing(fd, Some(partial), fresh()));
            }
            if let Some(fd) = create(dir.as_fd(), &partial, &head.attributes).ok().filter(lock) {
                return Ok(writing(fd, Some(partial), fresh()));
            }
        }
        let partial = unused_name()?;
        let fd = create(dir.as_fd(), &partial, &head.attributes).map_err(words)?;
        let mut writing = writing(fd, Some(partial), fresh());
        // Nothing would find it again.
        writing.keeps_partial = false;
        Ok(writing)
    }
}

impl Writing {
    /// Returns its head.
    pub(crate) fn head(&self) -> &FileHead {
        &self.head
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        self.hash.update(bytes);
        self.ends_in_hole = false;
        while !bytes.is_empty() {
            match pwrite(&self.fd, bytes, i64::try_from(self.at).map_err(|_| Errno::EFBIG)?) {
                Ok(0) => return Err(Errno::EIO),
                Ok(count) => {
                    self.at += count as u64;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Leaves a hole.
    pub(crate) fn skip(&mut self, count: u64) {
        crate::send::hash_zeros(&mut self.hash, count);
        self.at = self.at.saturating_add(count);
        self.ends_in_hole = count > 0;
    }

    /// Puts the complete file into its place.
    pub(crate) fn complete(mut self) -> Result<(), String> {
        let fd = &self.fd;
        if self.ends_in_hole {
            ftruncate(fd, i64::try_from(self.at).map_err(|_| words(Errno::EFBIG))?).map_err(words)?;
        }
        let is_in_place = self.partial.is_none();
        if let Some(existing) = self.existing.filter(|_| !is_in_place) {
            // As if its content had been written over. Only root may give it back to another owner.
            let own = fstat(fd).map_err(words)?;
            if (own.st_uid, own.st_gid) != (existing.st_uid, existing.st_gid) {
                let _ = fchown(fd, Some(Uid::from_raw(existing.st_uid)), Some(Gid::from_raw(existing.st_gid)));
            }
            if !self.preserve {
                fchmod(fd, Mode::from_bits_truncate(existing.st_mode & 0o777)).map_err(words)?;
            }
        }
        if self.preserve {
            fchmod(fd, Mode::from_bits_truncate(u32::from(self.head.attributes.mode))).map_err(words)?;
            let at = time(self.head.attributes.modified);
            futimens(fd, &at, &at).map_err(words)?;
        }
        if let Some(partial) = &self.partial {
            renameat(self.dir.as_fd(), partial.as_slice(), self.dir.as_fd(), self.name.as_slice()).map_err(words)?;
            self.partial = None;
        }
        Ok(())
    }

    /// The bytes are not what was sent: nothing of it is of use.
    pub(crate) fn discard(mut self) {
        self.keeps_partial = false;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            if self.keeps_partial && self.at > 0 {
                // A hole at the end counts as received.
                let _ = ftruncate(&self.fd, i64::try_from(self.at).unwrap_or(0));
            } else {
                remove(self.dir.as_fd(), partial);
            }
        }
    }
}

/// Makes a new file; the system takes the process's mask off the mode.
fn create(dir: BorrowedFd<'_>, name: &[u8], attributes: &Attributes) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::from_bits_truncate(u32::from(attributes.mode)))
}

/// Opens a partial file of our own, which nobody else writes at present.
fn open_own(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = openat(dir, name, flags, Mode::empty())?;
    if !is_own(&fstat(&fd)?) || !lock(&fd) {
        return Err(Errno::EBUSY);
    }
    Ok(fd)
}

/// Takes the file for this process alone, for as long as it is open; fails if another one has it.
fn lock(fd: &OwnedFd) -> bool {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(fd, FcntlArg::F_OFD_SETLK(&whole)).is_ok()
}

/// Tells whether a partial file is ours alone: in a directory for everybody, anybody can put one there.
fn is_own(stat: &FileStat) -> bool {
    what(stat) == What::File && stat.st_uid == geteuid().as_raw() && stat.st_nlink == 1
}

/// Returns the name of a file's partial file, the same every time.
fn partial_name(name: &[u8]) -> Vec<u8> {
    const SUFFIX: &[u8] = b".munjigi-part";
    let mut partial = b".".to_vec();
    if name.len() + SUFFIX.len() < MAX_NAMED {
        partial.extend_from_slice(name);
    } else {
        partial.extend_from_slice(hex::encode(digest(&SHA256, name)).as_bytes());
    }
    partial.extend_from_slice(SUFFIX);
    partial
}

/// Returns a name that nothing has yet.
fn unused_name() -> Result<Vec<u8>, String> {
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| "the system gave no random bytes".to_owned())?;
    Ok(format!(".munjigi-{}", hex::encode(random)).into_bytes())
}

fn remove(dir: BorrowedFd<'_>, name: &[u8]) {
    // It may be gone already; what cannot be removed stays.
    let _ = unlinkat(dir, name, UnlinkatFlags::NoRemoveDir);
}
