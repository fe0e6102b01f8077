//! What is open: files and directories under their numbers, and what is done with open files.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use munjigi_core::sftp::{Attributes, MAX_DATA, MAX_HANDLES, OpenFlags, Response, Status};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, fstat};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{fsync, ftruncate, write};

use super::listing::Directory;
use super::{Failed, change, open};

/// Bytes that are copied at once inside of the node.
const PIECE: usize = 256 * 1024;

enum Open {
    File(OwnedFd, OpenFlags),
    Directory(Directory),
}

/// Everything that is open; numbers are used once.
#[derive(Default)]
pub(super) struct Handles {
    open: HashMap<u32, Open>,
    last: u32,
}

const NO_HANDLE: Failed = Failed::Said(Status::Failure, "nothing is open under that handle");

impl Handles {
    /// Fails if no more may be opened.
    pub(super) fn room(&self) -> Result<(), Failed> {
        if self.open.len() < MAX_HANDLES { Ok(()) } else { Err(Failed::System(Errno::EMFILE)) }
    }

    pub(super) fn add_file(&mut self, file: OwnedFd, flags: OpenFlags) -> u32 {
        self.add(Open::File(file, flags))
    }

    pub(super) fn add_directory(&mut self, directory: Directory) -> u32 {
        self.add(Open::Directory(directory))
    }

    fn add(&mut self, open: Open) -> u32 {
        self.last = self.last.wrapping_add(1);
        self.open.insert(self.last, open);
        self.last
    }

    fn file(&self, handle: u32) -> Result<(&OwnedFd, OpenFlags), Failed> {
        match self.open.get(&handle) {
            Some(Open::File(file, flags)) => Ok((file, *flags)),
            _ => Err(NO_HANDLE),
        }
    }

    fn readable(&self, handle: u32) -> Result<&OwnedFd, Failed> {
        let (file, flags) = self.file(handle)?;
        if flags.reads() {
            Ok(file)
        } else {
            Err(Failed::Said(Status::PermissionDenied, "it was not opened to be read"))
        }
    }

    fn writable(&self, handle: u32) -> Result<(&OwnedFd, OpenFlags), Failed> {
        let (file, flags) = self.file(handle)?;
        match flags.takes_data() {
            true => Ok((file, flags)),
            false => Err(Failed::Said(Status::PermissionDenied, "it was not opened to be written")),
        }
    }

    pub(super) fn directory(&mut self, handle: u32) -> Result<&mut Directory, Failed> {
        match self.open.get_mut(&handle) {
            Some(Open::Directory(directory)) => Ok(directory),
            _ => Err(NO_HANDLE),
        }
    }

    pub(super) fn close(&mut self, handle: u32) -> Result<(), Failed> {
        match self.open.remove(&handle).ok_or(NO_HANDLE)? {
            // What a network file system could not store is heard here.
            Open::File(file, _) => Ok(nix::unistd::close(file)?),
            Open::Directory(_) => Ok(()),
        }
    }

    /// Reads into the output.
    pub(super) fn read(&self, handle: u32, offset: u64, length: u32, id: u32, out: &mut Vec<u8>) -> Result<(), Failed> {
        let file = self.readable(handle)?;
        let at = offset_of(offset)?;
        let length = usize::try_from(length).unwrap_or(MAX_DATA).min(MAX_DATA);
        let mut result = Ok(());
        Response::encode_data(id, length, out, |room| {
            loop {
                match pread(file, room, at) {
                    Err(Errno::EINTR) => {}
                    Err(errno) => {
                        result = Err(Failed::System(errno));
                        return None;
                    }
                    Ok(0) if length > 0 => {
                        result = Err(Failed::Eof);
                        return None;
                    }
                    Ok(count) => return Some(count),
                }
            }
        });
        result
    }

    pub(super) fn write(&self, handle: u32, offset: u64, data: &[u8]) -> Result<(), Failed> {
        let (file, flags) = self.writable(handle)?;
        Ok(write_all(file, data, if flags.appends() { None } else { Some(offset) })?)
    }

    pub(super) fn stat(&self, handle: u32) -> Result<FileStat, Failed> {
        match self.open.get(&handle) {
            Some(Open::File(file, _)) => Ok(fstat(file)?),
            Some(Open::Directory(directory)) => Ok(directory.stat()?),
            None => Err(NO_HANDLE),
        }
    }

    pub(super) fn set(&self, handle: u32, attributes: &Attributes) -> Result<(), Failed> {
        if let Some(Open::Directory(directory)) = self.open.get(&handle) {
            return Ok(directory.set(attributes)?);
        }
        let (file, flags) = self.file(handle)?;
        if let Some(size) = attributes.size {
            if !flags.takes_data() {
                return Err(Failed::Said(Status::PermissionDenied, "it was not opened to be written"));
            }
            ftruncate(file, offset_of(size)?)?;
        }
        Ok(change::set_open(file, attributes)?)
    }

    pub(super) fn file_system(&self, handle: u32) -> Result<Vec<u8>, Failed> {
        match self.open.get(&handle) {
            Some(Open::File(file, _)) => Ok(open::file_system_of(file)?),
            Some(Open::Directory(directory)) => Ok(directory.file_system()?),
            None => Err(NO_HANDLE),
        }
    }

    pub(super) fn sync(&self, handle: u32) -> Result<(), Failed> {
        let (file, _) = self.file(handle)?;
        Ok(fsync(file)?)
    }

    /// Copies from one open file to another, 0 bytes meaning up to the end.
    pub(super) fn copy(&self, from: (u32, u64), to: (u32, u64), length: u64) -> Result<(), Failed> {
        let source = self.readable(from.0)?;
        let (target, flags) = self.writable(to.0)?;
        let limit = if length == 0 { u64::MAX } else { length };
        if from.0 == to.0 {
            return Err(Failed::Said(Status::Unsupported, "a file is not copied within itself"));
        }
        let mut piece = vec![0; PIECE];
        let mut copied = 0;
        while copied < limit {
            let want = usize::try_from(limit - copied).unwrap_or(PIECE).min(PIECE);
            let room = piece.get_mut(..want).unwrap_or_default();
            let count = match pread(source, room, offset_of(from.1.saturating_add(copied))?) {
                Ok(0) => break,
                Ok(count) => count,
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(Failed::System(errno)),
            };
            let at = to.1.checked_add(copied).ok_or(Errno::EFBIG)?;
            write_all(target, piece.get(..count).unwrap_or_default(), (!flags.appends()).then_some(at))?;
            copied += count as u64;
        }
        Ok(())
    }
}

/// Writes everything, at an offset or at the end.
fn write_all(file: &OwnedFd, mut data: &[u8], mut offset: Option<u64>) -> nix::Result<()> {
    while !data.is_empty() {
        let written = match offset {
            Some(at) => pwrite(file, data, i64::try_from(at).map_err(|_| Errno::EFBIG)?),
            None => write(file, data),
        };
        match written {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => {
                data = data.get(count..).unwrap_or_default();
                offset = offset.map(|at| at + count as u64);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn offset_of(offset: u64) -> Result<i64, Failed> {
    i64::try_from(offset).map_err(|_| Failed::System(Errno::EFBIG))
}
