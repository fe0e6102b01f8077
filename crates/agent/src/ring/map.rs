//! Shared memory of fixed size as bytes: the one place where the ring touches raw pointers.
//!
//! INVARIANT: the memory is sealed against shrinking and growing before it is mapped, so no access can fault, and
//! every access goes through [`Map::range`], which checks the bounds. One process writes at a time: the link half
//! that holds the session, or the privileged half before it hands the session over.
#![expect(unsafe_code, reason = "shared memory is reached through pointers")]

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};

/// A mapping of shared memory.
#[derive(Debug)]
pub(crate) struct Map {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: the mapping lives until the drop and is not bound to a thread.
unsafe impl Send for Map {}
// SAFETY: shared references only read bytes that the one writer has published, or use atomics.
unsafe impl Sync for Map {}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// Makes anonymous shared memory of `length` bytes, all zero, whose size can no longer change.
pub(crate) fn create(length: usize) -> nix::Result<OwnedFd> {
    let fd = memfd_create(c"munjigi-ring", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&fd, i64::try_from(length).map_err(|_| nix::Error::EINVAL)?)?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(fd)
}

impl Map {
    /// Maps the memory; refuses one that is not sealed or has another size.
    pub(crate) fn open(fd: impl AsFd, length: usize) -> nix::Result<Self> {
        let present = SealFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GET_SEALS)?);
        let size = nix::sys::stat::fstat(&fd)?.st_size;
        if !present.contains(seals()) || usize::try_from(size) != Ok(length) {
            return Err(nix::Error::EINVAL);
        }
        let count = NonZeroUsize::new(length).ok_or(nix::Error::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses overlaps nothing.
        let start = unsafe { mmap(None, count, access, MapFlags::MAP_SHARED, fd, 0) }?;
        Ok(Self { start, length })
    }

    fn range(&self, at: usize, count: usize) -> Option<NonNull<u8>> {
        let end = at.checked_add(count)?;
        if end > self.length {
            return None;
        }
        // SAFETY: `at` lies inside the mapping, as just checked.
        Some(unsafe { self.start.cast::<u8>().add(at) })
    }

    /// Returns the atomic number at `at`, if it lies inside and on a multiple of eight.
    pub(crate) fn number(&self, at: usize) -> Option<&AtomicU64> {
        if !at.is_multiple_of(8) {
            return None;
        }
        let place = self.range(at, 8)?;
        // SAFETY: inside the mapping, aligned (mappings begin at a page), and only ever used as an atomic.
        Some(unsafe { place.cast::<AtomicU64>().as_ref() })
    }

    /// Returns published bytes for reading.
    pub(crate) fn bytes(&self, at: usize, count: usize) -> Option<&[u8]> {
        let place = self.range(at, count)?;
        // SAFETY: inside the mapping; the one writer does not change published bytes before they are acknowledged.
        Some(unsafe { std::slice::from_raw_parts(place.as_ptr(), count) })
    }

    /// Returns unpublished bytes for writing.
    pub(crate) fn bytes_mut(&mut self, at: usize, count: usize) -> Option<&mut [u8]> {
        let place = self.range(at, count)?;
        // SAFETY: inside the mapping; `&mut self` makes this the only access of this process, and no other process
        // writes while this one holds the session.
        Some(unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), count) })
    }

    /// Gives the pages from `at` on back to the system; they read as zero afterwards.
    pub(crate) fn release_from(&mut self, at: usize) {
        let Some(place) = self.range(at, 0) else { return };
        // SAFETY: the range ends with the mapping; the caller has nothing published in it. Failure keeps the pages.
        let _ = unsafe { madvise(place.cast(), self.length.saturating_sub(at), MmapAdvise::MADV_REMOVE) };
    }

    /// Loads a number, or zero outside the mapping.
    pub(crate) fn load(&self, at: usize) -> u64 {
        self.number(at).map_or(0, |number| number.load(Ordering::Acquire))
    }

    /// Stores a number; outside the mapping nothing happens.
    pub(crate) fn store(&self, at: usize, value: u64) {
        if let Some(number) = self.number(at) {
            number.store(value, Ordering::Release);
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `open` mapped; no reference outlives `self`.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}
