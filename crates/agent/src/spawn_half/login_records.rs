//! utmp, wtmp and lastlog: who is logged in on which terminal, for `who`, `last` and `lastlog` (utmp(5)).
//!
//! Best effort, and only where the files are there: a session does not depend on them, its own record is the server's.
#![expect(unsafe_code, reason = "the records are C structures of the system")]

use std::ffi::c_char;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::{Pid, Uid};

use super::account::Account;
use super::program::Held;
use crate::clock;

/// Where glibc keeps who is logged in.
const UTMP: &str = "/var/run/utmp";
/// Everybody who ever was.
const WTMP: &str = "/var/log/wtmp";
/// When each user was last.
const LASTLOG: &str = "/var/log/lastlog";
/// What stands where a remote host's name would.
const HOST: &str = "munjigi";
/// Size of one entry of lastlog: time (32 bits), line (32 bytes), host (256 bytes).
const LASTLOG_ENTRY: usize = 4 + 32 + 256;

/// A login that was recorded, to be taken back at the session's end.
#[derive(Debug)]
pub(crate) struct LoginRecord {
    terminal: u32,
    process_id: i32,
}

/// Records the login of a program on a terminal; `None` without a terminal, root, or a number of the terminal.
pub(crate) fn begin(account: &Account, (leader, held): &(Pid, Held)) -> Option<LoginRecord> {
    let Held::Terminal(master) = held else { return None };
    if !Uid::effective().is_root() {
        return None;
    }
    let record = LoginRecord { terminal: number(master)?, process_id: leader.as_raw() };
    record.write(libc::USER_PROCESS, &account.name);
    record.write_last(account.uid);
    Some(record)
}

impl LoginRecord {
    /// Records the logout.
    pub(crate) fn end(self) {
        self.write(libc::DEAD_PROCESS, "");
    }

    fn line(&self) -> String {
        format!("pts/{}", self.terminal)
    }

    fn write(&self, kind: i16, user: &str) {
        let now = clock::now();
        // SAFETY: an all-zero record is valid: numbers and arrays of characters.
        let mut entry: libc::utmpx = unsafe { std::mem::zeroed() };
        entry.ut_type = kind;
        entry.ut_pid = self.process_id;
        copy(&self.line(), &mut entry.ut_line);
        // The last characters of the line, as other programs make it.
        copy(&format!("{:04}", self.terminal % 10_000), &mut entry.ut_id);
        copy(user, &mut entry.ut_user);
        if kind == libc::USER_PROCESS {
            copy(HOST, &mut entry.ut_host);
        }
        entry.ut_tv.tv_sec = now.as_secs() as _;
        if Path::new(UTMP).exists() {
            // SAFETY: one thread uses these functions, and the record lives through the call.
            unsafe {
                libc::setutxent();
                libc::pututxline(&raw const entry);
                libc::endutxent();
            }
        }
        // SAFETY: the record is plain data without padding of unknown content: it was zeroed as a whole.
        let bytes =
            unsafe { std::slice::from_raw_parts((&raw const entry).cast::<u8>(), std::mem::size_of::<libc::utmpx>()) };
        let file = OpenOptions::new().append(true).custom_flags(libc::O_NOFOLLOW).open(WTMP);
        // One write of a whole record; a full disk loses the record, not the session.
        let _ = file.and_then(|mut file| file.write_all(bytes));
    }

    fn write_last(&self, uid: Uid) {
        let seconds = u32::try_from(clock::now().as_secs()).unwrap_or(u32::MAX);
        let mut entry = seconds.to_ne_bytes().to_vec();
        for (text, length) in [(self.line(), 32), (HOST.to_owned(), 256)] {
            entry.extend(text.bytes().chain(std::iter::repeat(0)).take(length));
        }
        let at = u64::from(uid.as_raw()) * LASTLOG_ENTRY as u64;
        let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(LASTLOG);
        // As above.
        let _ = file.and_then(|file| file.write_all_at(&entry, at));
    }
}

/// Returns the number of a terminal, from its master.
fn number(master: impl AsFd) -> Option<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned number.
    let failed = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    (failed == 0).then_some(number)
}

/// Copies a text into a field; what does not fit is cut, the rest stays zero.
fn copy(text: &str, field: &mut [c_char]) {
    for (to, from) in field.iter_mut().zip(text.bytes()) {
        *to = from.cast_signed();
    }
}
