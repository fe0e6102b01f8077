//! The account files themselves, for systems without the tools of shadow-utils: changed under the lock that those, glibc and
//! systemd take (`/etc/.pwd.lock`, lckpwdf(3)), written beside and renamed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

/// Users.
pub(super) const PASSWD: &str = "/etc/passwd";
/// Groups.
pub(super) const GROUP: &str = "/etc/group";
/// Passwords and expiry of users.
pub(super) const SHADOW: &str = "/etc/shadow";
/// Passwords and administrators of groups.
pub(super) const GSHADOW: &str = "/etc/gshadow";
const LOCK: &str = "/etc/.pwd.lock";
/// How long the lock is waited for, as lckpwdf does.
const LOCK_LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// The lock on all account files; gone when this is.
pub(super) struct Database {
    _lock: File,
}

impl Database {
    /// Waits for the lock.
    pub(super) fn lock() -> Result<Self, String> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(LOCK)
            .map_err(|error| format!("{LOCK} cannot be opened: {error}"))?;
        let wish = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap_or(1),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or(0),
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        let begun = Instant::now();
        loop {
            match fcntl(&file, FcntlArg::F_SETLK(&wish)) {
                Ok(_) => return Ok(Self { _lock: file }),
                Err(Errno::EAGAIN | Errno::EACCES | Errno::EINTR) if begun.elapsed() < LOCK_LIMIT => {
                    thread::sleep(PAUSE)
                }
                Err(errno) => return Err(format!("the account files are locked by another program: {errno}")),
            }
        }
    }

    /// Reads one of the files; `None`: the system has none.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, String> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{path} cannot be read: {error}")),
        }
    }

    /// Changes one of the files that must be there, if the change is one.
    pub(super) fn edit(&self, path: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<(), String> {
        let text = self.read(path)?.ok_or_else(|| format!("{path} is missing"))?;
        match change(&text) {
            Some(changed) if changed != text => write(path, &changed).map_err(|error| format!("{path}: {error}")),
            _ => Ok(()),
        }
    }

    /// As [`Self::edit`] for a file that a system may lack.
    pub(super) fn edit_if_there(&self, path: &str, change: impl FnOnce(&str) -> Option<String>) -> Result<(), String> {
        match self.read(path)? {
            Some(_) => self.edit(path, change),
            None => Ok(()),
        }
    }
}

/// Writes a file so that it is there whole or as before, with owner and mode of the one before (T-73).
fn write(path: &str, text: &str) -> std::io::Result<()> {
    let before = fs::metadata(path)?;
    let new = format!("{path}.munjigi");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(flags).open(&new)?;
    fchown(&file, Some(before.uid()), Some(before.gid()))?;
    file.set_permissions(Permissions::from_mode(before.mode() & 0o7777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open("/etc")?.sync_all()
}
