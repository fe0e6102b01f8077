//! What the file system says, in the protocol's terms, and back.

use munjigi_core::copy::{Attributes, Moment};
use nix::sys::stat::{FileStat, SFlag};
use nix::sys::time::TimeSpec;

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    File,
    Directory,
    Symlink,
    /// A device, socket or pipe: not copied.
    Special(&'static str),
}

/// Tells what a name stands for.
pub(crate) fn what(stat: &FileStat) -> What {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    match kind {
        SFlag::S_IFREG => What::File,
        SFlag::S_IFDIR => What::Directory,
        SFlag::S_IFLNK => What::Symlink,
        SFlag::S_IFIFO => What::Special("a pipe"),
        SFlag::S_IFSOCK => What::Special("a socket"),
        _ => What::Special("a device"),
    }
}

/// Returns mode and time; bits that raise privileges are left behind.
pub(crate) fn attributes(stat: &FileStat) -> Attributes {
    let mode = u16::try_from(stat.st_mode & 0o777).unwrap_or(0o600);
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).ok().filter(|part| *part < 1_000_000_000).unwrap_or(0);
    Attributes { mode, modified: Moment { seconds: stat.st_mtime, nanoseconds } }
}

/// Returns a file's size.
pub(crate) fn size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Returns a time as the system takes it.
pub(crate) fn time(moment: Moment) -> TimeSpec {
    TimeSpec::new(moment.seconds, i64::from(moment.nanoseconds))
}
