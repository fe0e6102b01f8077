//! Names in directories, with their attributes and a line as `ls -l` prints it.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};

use munjigi_core::sftp::{Attributes, Entry, MAX_ENTRIES, Owner, Times};
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{Gid, Group, Uid, User};

use super::{Failed, change, open};
use crate::names::{What, size, what};

/// Entries of one answer: few enough for a packet, whatever their names are.
const AT_ONCE: usize = 128;
/// Names of users and groups that are remembered; beyond that they are asked for again.
const MAX_KNOWN: usize = 1024;
const _: () = assert!(AT_ONCE <= MAX_ENTRIES);

/// An open directory.
pub(super) struct Directory {
    fd: OwnedFd,
    entries: OwningIter,
}

/// Opens the directory at a real path.
pub(super) fn open(path: &[u8]) -> Result<Directory, Failed> {
    let fd = open::real(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK, Mode::empty())?;
    let again = fd.try_clone().map_err(|_| Errno::EMFILE)?;
    Ok(Directory { fd, entries: Dir::from_fd(again)?.into_iter() })
}

impl Directory {
    pub(super) fn stat(&self) -> nix::Result<FileStat> {
        fstat(&self.fd)
    }

    pub(super) fn set(&self, attributes: &Attributes) -> nix::Result<()> {
        if attributes.size.is_some() {
            return Err(Errno::EISDIR);
        }
        change::set_open(&self.fd, attributes)
    }

    pub(super) fn file_system(&self) -> nix::Result<Vec<u8>> {
        open::file_system_of(&self.fd)
    }
}

/// Names of users and groups, as this machine has them.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// Returns the name of a user; empty if there is none.
    pub(super) fn user(&mut self, uid: u32) -> &str {
        if self.users.len() > MAX_KNOWN {
            self.users.clear();
        }
        let look_up = || User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or(String::new(), |user| user.name);
        self.users.entry(uid).or_insert_with(look_up)
    }

    /// Returns the name of a group; empty if there is none.
    pub(super) fn group(&mut self, gid: u32) -> &str {
        if self.groups.len() > MAX_KNOWN {
            self.groups.clear();
        }
        let look_up = || Group::from_gid(Gid::from_raw(gid)).ok().flatten().map_or(String::new(), |group| group.name);
        self.groups.entry(gid).or_insert_with(look_up)
    }

    /// Returns the next names of a directory.
    pub(super) fn list(&mut self, directory: &mut Directory) -> Result<Vec<Entry>, Failed> {
        let mut listed = Vec::new();
        while listed.len() < AT_ONCE {
            let Some(entry) = directory.entries.next() else { break };
            let name = entry?.file_name().to_bytes().to_vec();
            let stat = match fstatat(directory.fd.as_fd(), name.as_slice(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // It is gone since, or nothing is known of it.
                Err(_) => continue,
            };
            let line = self.line(&name, &stat);
            listed.push(Entry { name, line, attributes: known(&stat) });
        }
        if listed.is_empty() { Err(Failed::Eof) } else { Ok(listed) }
    }

    fn line(&mut self, name: &[u8], stat: &FileStat) -> Vec<u8> {
        let or_number = |name: &str, number: u32| if name.is_empty() { number.to_string() } else { name.to_owned() };
        let user = or_number(self.user(stat.st_uid), stat.st_uid);
        let group = or_number(self.group(stat.st_gid), stat.st_gid);
        let (mode, links, bytes) = (mode_text(stat), stat.st_nlink, size(stat));
        let date = date(stat.st_mtime);
        let mut line = format!("{mode} {links:>4} {user:<8} {group:<8} {bytes:>8} {date} ").into_bytes();
        line.extend_from_slice(name);
        line
    }
}

/// Returns what is known of a file.
pub(super) fn known(stat: &FileStat) -> Attributes {
    let seconds = |seconds: i64| u32::try_from(seconds.max(0)).unwrap_or(u32::MAX);
    Attributes {
        size: Some(size(stat)),
        owner: Some(Owner { uid: stat.st_uid, gid: stat.st_gid }),
        permissions: Some(stat.st_mode),
        times: Some(Times { accessed: seconds(stat.st_atime), modified: seconds(stat.st_mtime) }),
    }
}

fn mode_text(stat: &FileStat) -> String {
    let mut text = String::from(match what(stat) {
        What::File => "-",
        What::Directory => "d",
        What::Symlink => "l",
        What::Special(_) => match stat.st_mode & libc::S_IFMT {
            libc::S_IFCHR => "c",
            libc::S_IFBLK => "b",
            libc::S_IFIFO => "p",
            _ => "s",
        },
    });
    for shift in [6, 3, 0] {
        let bits = stat.st_mode >> shift;
        for (bit, letter) in [(4, 'r'), (2, 'w'), (1, 'x')] {
            text.push(if bits & bit != 0 { letter } else { '-' });
        }
    }
    text
}

/// A day, in the time of the world: whoever reads it may be anywhere.
fn date(seconds: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    // Days since 0000-03-01 in the calendar of today (H. Hinnant, days and civil dates).
    let days = seconds.div_euclid(86_400) + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, year) = if month < 10 { (month + 2, year) } else { (month - 10, year + 1) };
    let name = usize::try_from(month).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"???");
    format!("{name} {day:>2}  {}", year + era * 400)
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Jan  1  1970"),
            (951_782_400, "Feb 29  2000"),
            (1_795_305_600, "Nov 22  2026"),
            (-1, "Dec 31  1969"),
            (4_107_542_400, "Mar  1  2100"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }
}
