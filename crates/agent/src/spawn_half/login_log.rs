//! Where sshd writes its logins: opened here, because it takes privileges, and read by the link half, which has none.
//! This half never looks at what is written there.
//!
//! The journal is followed by a `journalctl` of ours, asked for the lines that root's sshd wrote. A log file is handed
//! over as a descriptor whose place is shared, so that a new link half goes on where the old one was; when the file
//! was rotated, the new one follows.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::unistd::{Pid, Uid, pipe2};

use super::child::{self, Child, SessionKind};
use crate::config::SshdLog;
use crate::halves::LogKind;

/// How often a file is looked at for having been rotated, and a missing one for being there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How soon a journalctl that ended is started again.
const START_AGAIN: Duration = Duration::from_secs(30);
/// journald's socket: the journal is there.
const JOURNAL: &str = "/run/systemd/journal/stdout";
const JOURNALCTL: [&str; 2] = ["/usr/bin/journalctl", "/bin/journalctl"];
/// The auth log of Debian and of Red Hat.
const AUTH_LOGS: [&str; 2] = ["/var/log/auth.log", "/var/log/secure"];

/// The source of logins.
#[derive(Debug)]
pub(crate) struct LoginLog {
    source: Source,
    opened: Option<Opened>,
    look_at: Instant,
    /// The first file is read from its end: what is in it happened before our time.
    first: bool,
}

#[derive(Debug)]
enum Source {
    Journal(PathBuf),
    File(PathBuf),
}

#[derive(Debug)]
enum Opened {
    /// The read end of its standard output.
    Journal(Pid, OwnedFd),
    File(File),
}

impl LoginLog {
    /// Chooses the source; `None` if there is none or none is wanted.
    pub(crate) fn choose(wanted: &SshdLog, now: Instant) -> Option<Self> {
        let exists = |path: &&str| Path::new(path).exists();
        let source = match wanted {
            SshdLog::Off => return None,
            SshdLog::File(path) => Source::File(path.clone()),
            // Others cannot read the system's log.
            SshdLog::Auto if !Uid::effective().is_root() => return None,
            SshdLog::Auto => {
                let journal = JOURNALCTL.iter().copied().find(exists).filter(|_| Path::new(JOURNAL).exists());
                match journal {
                    Some(program) => Source::Journal(PathBuf::from(program)),
                    None => Source::File(PathBuf::from(AUTH_LOGS.iter().copied().find(exists)?)),
                }
            }
        };
        Some(Self { source, opened: None, look_at: now, first: true })
    }

    /// Returns when to look again.
    pub(crate) fn next_look(&self) -> Instant {
        self.look_at
    }

    /// Opens what is to be opened. Returns whether there is something new to hand over.
    pub(crate) fn look(&mut self, now: Instant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_AGAIN;
        match (&self.source, &self.opened) {
            (Source::Journal(program), None) => {
                match follow(program) {
                    Ok((pid, output)) => self.opened = Some(Opened::Journal(pid, output)),
                    Err(error) => {
                        self.look_at = now + START_AGAIN;
                        tracing::warn!(error = format!("{error:#}"), "sshd's logins cannot be read from the journal");
                        return false;
                    }
                }
                true
            }
            (Source::File(path), opened) => {
                let Some(file) = open(path) else { return false };
                let same = |old: &Opened| match (old, file.metadata()) {
                    (Opened::File(old), Ok(new)) => {
                        old.metadata().is_ok_and(|old| (old.dev(), old.ino()) == (new.dev(), new.ino()))
                    }
                    _ => false,
                };
                if opened.as_ref().is_some_and(same) {
                    return false;
                }
                if self.first && (&file).seek(SeekFrom::End(0)).is_err() {
                    return false;
                }
                self.first = false;
                self.opened = Some(Opened::File(file));
                true
            }
            (Source::Journal(_), Some(_)) => false,
        }
    }

    /// Returns what the link half reads.
    pub(crate) fn open(&self) -> Option<(LogKind, BorrowedFd<'_>)> {
        match self.opened.as_ref()? {
            Opened::Journal(_, output) => Some((LogKind::Journal, output.as_fd())),
            Opened::File(file) => Some((LogKind::File, file.as_fd())),
        }
    }

    /// Takes note that a child ended; a journalctl of ours is started again later.
    pub(crate) fn reaped(&mut self, pid: Pid, now: Instant) {
        if matches!(&self.opened, Some(Opened::Journal(own, _)) if *own == pid) {
            tracing::warn!("journalctl ended; sshd's logins are not seen until it is started again");
            self.opened = None;
            self.look_at = now + START_AGAIN;
        }
    }
}

fn open(path: &Path) -> Option<File> {
    // Not blocking: a FIFO would be waited for otherwise.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path).ok()?;
    file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
}

/// Follows the journal from now on: what root's sshd wrote, by the fields that journald itself fills in.
fn follow(program: &Path) -> anyhow::Result<(Pid, OwnedFd)> {
    let (output, input) = pipe2(OFlag::O_CLOEXEC)?;
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null");
    let fields = ["_UID=0", "_COMM=sshd", "+", "_UID=0", "_COMM=sshd-session"];
    let flags = ["--follow", "--lines=0", "--output=json", "--quiet", "--no-pager"];
    let pid = child::start(Child {
        program: program.as_os_str().to_owned(),
        name: OsString::from("journalctl"),
        arguments: flags.into_iter().chain(fields).map(OsString::from).collect(),
        environment: Vec::new(),
        stdio: [null()?.into(), input, null()?.into()],
        session: SessionKind::Detached,
        cgroup: None,
        network: None,
        identity: None,
        no_new_privileges: true,
        directories: vec![c"/".to_owned()],
        limits: Vec::new(),
        umask: 0o077,
        death_signal: libc::SIGKILL,
    })?;
    Ok((pid, output))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_file_is_read_from_its_end_and_its_successor_from_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("auth.log");
        let mut now = Instant::now();
        let mut log = LoginLog::choose(&SshdLog::File(path.clone()), now).unwrap();
        assert!(!log.look(now) && log.open().is_none());
        std::fs::write(&path, "before\n").unwrap();
        now += LOOK_AGAIN;
        assert!(log.look(now));
        let read = |log: &LoginLog| {
            let Some(Opened::File(file)) = &log.opened else { panic!("no file") };
            let mut text = String::new();
            // The place is shared with every copy.
            file.try_clone().unwrap().read_to_string(&mut text).unwrap();
            text
        };
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"one\n").unwrap();
        assert_eq!(read(&log), "one\n");
        assert_eq!(read(&log), "");
        now += LOOK_AGAIN;
        assert!(!log.look(now));
        std::fs::rename(&path, directory.path().join("auth.log.1")).unwrap();
        std::fs::write(&path, "two\n").unwrap();
        now += LOOK_AGAIN;
        assert!(log.look(now));
        assert_eq!(read(&log), "two\n");
    }

    #[test]
    fn nothing_is_chosen_where_nothing_is_wanted() {
        assert!(LoginLog::choose(&SshdLog::Off, Instant::now()).is_none());
    }
}
