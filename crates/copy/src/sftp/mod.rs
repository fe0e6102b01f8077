//! The worker that serves files by SFTP, as the OS user that this process already is.
//!
//! Paths of operations are real ones: they are opened without following any symbolic link, so what the gateway has judged is
//! what is used, whatever somebody puts in the way meanwhile. Where a path leads is asked by a request of its own
//! ([`munjigi_core::sftp::Request::Resolve`]). Requests are answered one after the other, in their order.

mod change;
mod handles;
mod listing;
mod open;
mod resolve;
#[cfg(test)]
mod tests;

use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use munjigi_core::endpoint::FileAccess;
use munjigi_core::sftp::{Attributes, Entry, Limits, Request, Response, Status, VERSION, encode_names, packet_length};
use nix::errno::Errno;

use crate::error::words;
use handles::Handles;
use listing::Names;

pub use resolve::{Place, glob, open_real, resolve};

/// Room for requests, bytes: two of the longest packets.
const INPUT_BYTES: usize = 512 * 1024;
/// So many bytes of answers go on their way at once.
const ENOUGH: usize = 256 * 1024;

/// Serves files over a socket until the client ends its direction. Blocks.
pub fn serve(socket: OwnedFd, access: FileAccess, home: PathBuf) -> io::Result<()> {
    let mut socket = std::fs::File::from(socket);
    let mut worker = Worker { access, home, handles: Handles::default(), names: Names::default(), greeted: false };
    let mut input = vec![0; INPUT_BYTES];
    let mut output = Vec::with_capacity(2 * ENOUGH);
    let mut filled = 0;
    loop {
        let room = input.get_mut(filled..).unwrap_or_default();
        let count = match socket.read(room) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        let mut at = 0;
        while let Some(packet) = next(input.get(at..filled).unwrap_or_default())? {
            worker.answer(packet, &mut output)?;
            at += packet.len();
            if output.len() >= ENOUGH {
                socket.write_all(&output)?;
                output.clear();
            }
        }
        input.copy_within(at..filled, 0);
        filled -= at;
        socket.write_all(&output)?;
        output.clear();
    }
}

/// Returns the packet that bytes begin with, if it is whole.
fn next(bytes: &[u8]) -> io::Result<Option<&[u8]>> {
    let length = packet_length(bytes).map_err(invalid)?;
    Ok(length.and_then(|length| bytes.get(..length)))
}

fn invalid(error: munjigi_core::sftp::SftpError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// How an operation failed.
#[derive(Debug, PartialEq, Eq)]
enum Failed {
    System(Errno),
    /// Not an error: there is no more.
    Eof,
    Said(Status, &'static str),
}

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// What an operation answers.
enum Answer {
    Done,
    Handle(u32),
    Attributes(Attributes),
    Names(Vec<Entry>),
    Extended(Vec<u8>),
    /// It is in the output already.
    Written,
}

struct Worker {
    access: FileAccess,
    home: PathBuf,
    handles: Handles,
    names: Names,
    /// The client has said its version.
    greeted: bool,
}

impl Worker {
    /// Answers a packet. Fails only where the client does not keep to the protocol.
    fn answer(&mut self, packet: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if !self.greeted {
            if Request::decode_init(packet).map_err(invalid)? < VERSION {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "SFTP before version 3 is not spoken"));
            }
            self.greeted = true;
            Response::encode_version(out);
            return Ok(());
        }
        let (id, request) = Request::decode(packet).map_err(invalid)?;
        let answer = self.serve(id, request, out);
        let status = |status, text: &str, out: &mut Vec<u8>| {
            Response::Status { status, text: text.as_bytes() }.encode(id, out);
        };
        match answer {
            Ok(Answer::Done) => status(Status::Ok, "done", out),
            Ok(Answer::Handle(handle)) => Response::Handle { handle }.encode(id, out),
            Ok(Answer::Attributes(attributes)) => Response::Attributes { attributes }.encode(id, out),
            Ok(Answer::Names(entries)) => Response::Names { entries }.encode(id, out),
            Ok(Answer::Extended(body)) => Response::Extended { body: &body }.encode(id, out),
            Ok(Answer::Written) => {}
            Err(Failed::Eof) => status(Status::Eof, "there is no more", out),
            Err(Failed::Said(what, why)) => status(what, why, out),
            Err(Failed::System(errno)) => status(status_of(errno), &words(errno), out),
        }
        Ok(())
    }

    fn serve(&mut self, id: u32, request: Request<'_>, out: &mut Vec<u8>) -> Result<Answer, Failed> {
        self.may(&request)?;
        match request {
            Request::Open { path, flags, attributes } => {
                self.handles.room()?;
                let file = open::file(path, flags, &attributes)?;
                Ok(Answer::Handle(self.handles.add_file(file, flags)))
            }
            Request::Opendir { path } => {
                self.handles.room()?;
                Ok(Answer::Handle(self.handles.add_directory(listing::open(path)?)))
            }
            Request::Close { handle } => self.handles.close(handle).map(|()| Answer::Done),
            Request::Read { handle, offset, length } => {
                self.handles.read(handle, offset, length, id, out).map(|()| Answer::Written)
            }
            Request::Write { handle, offset, data } => self.handles.write(handle, offset, data).map(|()| Answer::Done),
            Request::Readdir { handle } => {
                let directory = self.handles.directory(handle)?;
                self.names.list(directory).map(Answer::Names)
            }
            Request::Fstat { handle } => {
                self.handles.stat(handle).map(|stat| Answer::Attributes(listing::known(&stat)))
            }
            Request::Lstat { path } | Request::Stat { path } => {
                Ok(Answer::Attributes(listing::known(&open::stat(path)?)))
            }
            Request::Fsetstat { handle, attributes } => {
                self.handles.set(handle, &attributes)?;
                Ok(Answer::Done)
            }
            Request::Setstat { path, attributes } => done(change::set(path, &attributes)),
            Request::Lsetstat { path, attributes } => done(change::set_itself(path, &attributes)),
            Request::Remove { path } => done(change::remove(path)),
            Request::Mkdir { path, attributes } => done(change::make_directory(path, &attributes)),
            Request::Rmdir { path } => done(change::remove_directory(path)),
            Request::Rename { from, to } => done(change::rename(from, to, change::Replace::No)),
            Request::PosixRename { from, to } => done(change::rename(from, to, change::Replace::Yes)),
            Request::Hardlink { from, to } => done(change::hard_link(from, to)),
            Request::Symlink { target, path } => done(change::symbolic_link(target, path)),
            Request::Readlink { path } => Ok(Answer::Names(vec![plain_entry(open::read_link(path)?)])),
            Request::Realpath { path } => {
                let place = resolve(&self.home, path, munjigi_core::sftp::ResolveLast::Followed)?;
                Ok(Answer::Names(vec![plain_entry(place.real)]))
            }
            Request::ExpandPath { path } => {
                let path = resolve::expanded(path).ok_or(Failed::Said(Status::NoSuchFile, "only ~ alone is known"))?;
                let place = resolve(&self.home, path, munjigi_core::sftp::ResolveLast::Followed)?;
                Ok(Answer::Names(vec![plain_entry(place.real)]))
            }
            Request::Resolve { path, last } => Ok(Answer::Extended(resolve(&self.home, path, last)?.encode())),
            Request::Glob { pattern } => {
                let found = glob(&self.home, pattern)?;
                Ok(Answer::Names(found.into_iter().map(plain_entry).collect()))
            }
            Request::Statvfs { path } => Ok(Answer::Extended(open::file_system(path)?)),
            Request::Fstatvfs { handle } => self.handles.file_system(handle).map(Answer::Extended),
            Request::Fsync { handle } => self.handles.sync(handle).map(|()| Answer::Done),
            Request::CopyData { from, from_offset, length, to, to_offset } => {
                self.handles.copy((from, from_offset), (to, to_offset), length).map(|()| Answer::Done)
            }
            Request::Limits => Ok(Answer::Extended(Limits::OURS.encode())),
            Request::UsersGroupsById { uids, gids } => {
                let users: Vec<_> = uids.iter().map(|uid| self.names.user(*uid).to_owned()).collect();
                let groups: Vec<_> = gids.iter().map(|gid| self.names.group(*gid).to_owned()).collect();
                Ok(Answer::Extended(encode_names(&users, &groups)))
            }
            Request::Unknown => Err(Failed::Said(Status::Unsupported, "that extension is not known")),
        }
    }

    /// Refuses what the grant does not allow at all; each file was judged by the gateway before.
    fn may(&self, request: &Request<'_>) -> Result<(), Failed> {
        let (reads, writes) = match request {
            Request::Open { flags, .. } => (flags.reads(), flags.writes()),
            Request::Setstat { .. }
            | Request::Fsetstat { .. }
            | Request::Lsetstat { .. }
            | Request::Remove { .. }
            | Request::Mkdir { .. }
            | Request::Rmdir { .. }
            | Request::Rename { .. }
            | Request::PosixRename { .. }
            | Request::Hardlink { .. }
            | Request::Symlink { .. } => (false, true),
            _ => (false, false),
        };
        let denied = |why| Err(Failed::Said(Status::PermissionDenied, why));
        match () {
            () if reads && !self.access.reads() => denied("this session reads no files"),
            () if writes && !self.access.writes() => denied("this session writes no files"),
            () => Ok(()),
        }
    }
}

fn done(result: nix::Result<()>) -> Result<Answer, Failed> {
    result.map(|()| Answer::Done).map_err(Failed::System)
}

/// A path by itself, as the answer to a question about one.
fn plain_entry(name: Vec<u8>) -> Entry {
    Entry { line: name.clone(), name, attributes: Attributes::default() }
}

/// As OpenSSH's `sftp-server` has it, which its clients rely on.
fn status_of(errno: Errno) -> Status {
    match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::EBADF | Errno::ELOOP => Status::NoSuchFile,
        Errno::EPERM | Errno::EACCES | Errno::EFAULT => Status::PermissionDenied,
        Errno::ENAMETOOLONG | Errno::EINVAL => Status::BadMessage,
        Errno::ENOSYS => Status::Unsupported,
        _ => Status::Failure,
    }
}
