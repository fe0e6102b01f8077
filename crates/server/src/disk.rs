//! How full the disk is, and the reserve that lets sessions and the trail end properly on a full one.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use nix::sys::statvfs::fstatvfs;

use crate::directory::{Access, Directory};
use crate::lock;

/// From this share in use on, in percent, the disk is called low.
const LOW_PERCENT: u64 = 90;
/// From this share in use on, in percent, no session starts.
const FULL_PERCENT: u64 = 95;
/// With this many bytes available the disk is neither, whatever the share: five percent of a large disk are plenty.
const ENOUGH_BYTES: u64 = 1024 * 1024 * 1024;
const RESERVE: &str = "reserve";

/// How full the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskState {
    /// There is room.
    Ok,
    /// 90 % are in use and less than 1 GiB is available: an alarm.
    Low,
    /// 95 % are in use and less than 1 GiB is available: no new session starts.
    Full,
}

/// A directory's disk, with bytes set aside on it.
#[derive(Debug)]
pub(crate) struct Disk {
    directory: Directory,
    reserve_bytes: u64,
    held: Mutex<bool>,
}

impl Disk {
    /// Sets bytes aside in a directory. That they cannot be had is no error: the disk is then full already.
    pub(crate) fn new(directory: Directory, reserve_bytes: u64) -> Self {
        let disk = Self { directory, reserve_bytes, held: Mutex::new(false) };
        disk.restock();
        disk
    }

    /// Asks the file system.
    pub(crate) fn state(&self) -> io::Result<DiskState> {
        let stat = fstatvfs(self.directory.file())?;
        let block = stat.fragment_size();
        let used = stat.blocks().saturating_sub(stat.blocks_free());
        Ok(classify(used.saturating_mul(block), stat.blocks_available().saturating_mul(block)))
    }

    /// Returns a descriptor on the file system.
    pub(crate) const fn file(&self) -> &File {
        self.directory.file()
    }

    /// Gives the reserve back to the file system. Returns whether there was one.
    pub(crate) fn release(&self) -> bool {
        let mut held = lock(&self.held);
        if !*held {
            return false;
        }
        *held = false;
        tracing::error!("the disk is full: releasing the reserve so that sessions can end properly");
        self.directory.remove_file(RESERVE).is_ok()
    }

    /// Sets the bytes aside again, if they are not and there is room.
    pub(crate) fn restock(&self) {
        let mut held = lock(&self.held);
        if !*held {
            *held = self.set_aside().unwrap_or_else(|_| {
                let _ = self.directory.remove_file(RESERVE);
                false
            });
        }
    }

    fn set_aside(&self) -> io::Result<bool> {
        let mut file = match self.directory.open_file(RESERVE, Access::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.directory.create_file(RESERVE)?,
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.reserve_bytes {
            fill(&mut file, self.reserve_bytes)?;
        }
        Ok(true)
    }
}

/// Writes zeros: unlike `fallocate` that reserves space on every file system.
fn fill(file: &mut File, bytes: u64) -> io::Result<()> {
    file.set_len(0)?;
    let zeros = vec![0; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let piece = zeros.get(..usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len())).unwrap_or_default();
        file.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

/// Writes a part of a file again with the same content: after a failed sync the system may believe it written, and the
/// next sync would have nothing to do.
pub(crate) fn rewrite(file: &File, mut from: u64, to: u64) -> io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    while from < to {
        let want = usize::try_from(to - from).unwrap_or(piece.len()).min(piece.len());
        let bytes = piece.get_mut(..want).unwrap_or_default();
        file.read_exact_at(bytes, from)?;
        file.write_all_at(bytes, from)?;
        from += want as u64;
    }
    Ok(())
}

fn classify(used: u64, available: u64) -> DiskState {
    let percent = u128::from(used) * 100 / u128::from(used.saturating_add(available).max(1));
    match percent {
        _ if available >= ENOUGH_BYTES => DiskState::Ok,
        percent if percent >= u128::from(FULL_PERCENT) => DiskState::Full,
        percent if percent >= u128::from(LOW_PERCENT) => DiskState::Low,
        _ => DiskState::Ok,
    }
}

/// Tells whether an error means that there is no room, as opposed to a disk that fails.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_and_absolute_room_both_count() {
        const MIB: u64 = 1 << 20;
        for (used, available, expected) in [
            (0, 0, DiskState::Ok),
            (57 * MIB, 7 * MIB, DiskState::Ok),
            (58 * MIB, 6 * MIB, DiskState::Low),
            (61 * MIB, 3 * MIB, DiskState::Full),
            (64 * MIB, 0, DiskState::Full),
            (1 << 42, 1 << 33, DiskState::Ok),
            (1 << 42, 1 << 29, DiskState::Full),
            (u64::MAX, 1, DiskState::Full),
        ] {
            assert_eq!(classify(used, available), expected, "{used} used, {available} available");
        }
    }

    #[test]
    fn the_reserve_is_released_once_and_restocked() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(RESERVE);
        let disk = Disk::new(Directory::create_path(place.path()).unwrap(), 100_000);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100_000);
        assert!(disk.release());
        assert!(!path.exists());
        assert!(!disk.release());
        disk.restock();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100_000);
        assert!(disk.state().is_ok());
    }
}
