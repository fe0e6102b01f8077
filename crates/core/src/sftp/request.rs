//! What a client asks for.

use super::attributes::Attributes;
use super::fields::{Fields, SftpError, put_bytes, put_handle, put_packet, put_u32, put_u64};
use super::{Handle, LENGTH_BYTES, MAX_DATA, MAX_IDS};

/// How a file is opened: `SSH_FXF_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenFlags(u32);

impl OpenFlags {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    const APPEND: u32 = 4;
    const CREATE: u32 = 8;
    const TRUNCATE: u32 = 16;
    const EXCLUSIVE: u32 = 32;
    /// To be read.
    pub const TO_READ: Self = Self(Self::READ);
    /// To be written anew, whatever is there.
    pub const TO_REPLACE: Self = Self(Self::WRITE | Self::CREATE | Self::TRUNCATE);

    fn new(bits: u32) -> Result<Self, SftpError> {
        if bits < 64 { Ok(Self(bits)) } else { Err(SftpError::Value) }
    }

    /// Whether it is read.
    pub fn reads(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether it is changed, if only by being made or emptied.
    pub fn writes(self) -> bool {
        self.0 & !Self::READ != 0
    }

    /// Whether bytes may be written to it.
    pub fn takes_data(self) -> bool {
        self.0 & (Self::WRITE | Self::APPEND) != 0
    }

    /// Whether everything is written at its end.
    pub fn appends(self) -> bool {
        self.0 & Self::APPEND != 0
    }

    /// Whether it is made if it is not there.
    pub fn creates(self) -> bool {
        self.0 & Self::CREATE != 0
    }

    /// Whether it is emptied.
    pub fn truncates(self) -> bool {
        self.0 & Self::TRUNCATE != 0
    }

    /// Whether it must not be there.
    pub fn is_exclusive(self) -> bool {
        self.0 & Self::EXCLUSIVE != 0
    }
}

/// What becomes of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveLast {
    /// It is followed.
    Followed,
    /// It is meant itself.
    Itself,
}

/// A request without its id. Paths and data lie in the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the protocol")]
pub enum Request<'a> {
    /// Open a file.
    Open { path: &'a [u8], flags: OpenFlags, attributes: Attributes },
    /// Close a file or directory.
    Close { handle: Handle },
    /// Read from a file.
    Read { handle: Handle, offset: u64, length: u32 },
    /// Write to a file.
    Write { handle: Handle, offset: u64, data: &'a [u8] },
    /// Attributes of a path, of a link itself.
    Lstat { path: &'a [u8] },
    /// Attributes of what is open.
    Fstat { handle: Handle },
    /// Change attributes of a path, behind links.
    Setstat { path: &'a [u8], attributes: Attributes },
    /// Change attributes of what is open.
    Fsetstat { handle: Handle, attributes: Attributes },
    /// Open a directory.
    Opendir { path: &'a [u8] },
    /// Read names from a directory.
    Readdir { handle: Handle },
    /// Remove what is no directory.
    Remove { path: &'a [u8] },
    /// Make a directory.
    Mkdir { path: &'a [u8], attributes: Attributes },
    /// Remove an empty directory.
    Rmdir { path: &'a [u8] },
    /// The real path of a path.
    Realpath { path: &'a [u8] },
    /// Attributes of a path, behind links.
    Stat { path: &'a [u8] },
    /// Rename, if nothing has the new name.
    Rename { from: &'a [u8], to: &'a [u8] },
    /// What a symbolic link says.
    Readlink { path: &'a [u8] },
    /// Make a symbolic link that says `target`. In the order of OpenSSH, which is not that of the draft.
    Symlink { target: &'a [u8], path: &'a [u8] },
    /// `posix-rename@openssh.com`: rename, in place of what has the new name.
    PosixRename { from: &'a [u8], to: &'a [u8] },
    /// `statvfs@openssh.com`.
    Statvfs { path: &'a [u8] },
    /// `fstatvfs@openssh.com`.
    Fstatvfs { handle: Handle },
    /// `hardlink@openssh.com`.
    Hardlink { from: &'a [u8], to: &'a [u8] },
    /// `fsync@openssh.com`.
    Fsync { handle: Handle },
    /// `lsetstat@openssh.com`: change attributes of a path, of a link itself.
    Lsetstat { path: &'a [u8], attributes: Attributes },
    /// `limits@openssh.com`.
    Limits,
    /// `expand-path@openssh.com`: as [`Request::Realpath`], and `~` is the home directory.
    ExpandPath { path: &'a [u8] },
    /// `copy-data`: copy inside of the node; a length of 0 is up to the end.
    CopyData { from: Handle, from_offset: u64, length: u64, to: Handle, to_offset: u64 },
    /// `users-groups-by-id@openssh.com`: names for numbers.
    UsersGroupsById { uids: Vec<u32>, gids: Vec<u32> },
    /// `resolve@munjigi`, from the gateway alone: where a path leads.
    Resolve { path: &'a [u8], last: ResolveLast },
    /// `glob@munjigi`, from the gateway alone: which paths a pattern stands for.
    Glob { pattern: &'a [u8] },
    /// An extension that is not known.
    Unknown,
}

const INIT: u8 = 1;
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const FSTAT: u8 = 8;
const SETSTAT: u8 = 9;
const FSETSTAT: u8 = 10;
const OPENDIR: u8 = 11;
const READDIR: u8 = 12;
const REMOVE: u8 = 13;
const MKDIR: u8 = 14;
const RMDIR: u8 = 15;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const RENAME: u8 = 18;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const EXTENDED: u8 = 200;

const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
const STATVFS: &[u8] = b"statvfs@openssh.com";
const FSTATVFS: &[u8] = b"fstatvfs@openssh.com";
const HARDLINK: &[u8] = b"hardlink@openssh.com";
const FSYNC: &[u8] = b"fsync@openssh.com";
const LSETSTAT: &[u8] = b"lsetstat@openssh.com";
const LIMITS: &[u8] = b"limits@openssh.com";
const EXPAND_PATH: &[u8] = b"expand-path@openssh.com";
const COPY_DATA: &[u8] = b"copy-data";
const USERS_GROUPS: &[u8] = b"users-groups-by-id@openssh.com";
const RESOLVE: &[u8] = b"resolve@munjigi";
const GLOB: &[u8] = b"glob@munjigi";

/// The extensions that are offered to clients, each with its version.
pub(super) const OFFERED: [(&[u8], &[u8]); 10] = [
    (POSIX_RENAME, b"1"),
    (STATVFS, b"2"),
    (FSTATVFS, b"2"),
    (HARDLINK, b"1"),
    (FSYNC, b"1"),
    (LSETSTAT, b"1"),
    (LIMITS, b"1"),
    (EXPAND_PATH, b"1"),
    (COPY_DATA, b"1"),
    (USERS_GROUPS, b"1"),
];

impl<'a> Request<'a> {
    /// Appends the first packet of a client.
    pub fn encode_init(out: &mut Vec<u8>) {
        put_packet(out, INIT, |out| put_u32(out, super::VERSION));
    }

    /// Reads the first packet of a client, whole with its length; returns the version that it speaks. Extensions of a
    /// client are read past.
    pub fn decode_init(packet: &[u8]) -> Result<u32, SftpError> {
        let mut fields = Fields::new(packet.get(LENGTH_BYTES..).unwrap_or_default());
        match fields.u8()? {
            INIT => {}
            other => return Err(SftpError::Kind(other)),
        }
        let version = fields.u32()?;
        while !fields.is_empty() {
            fields.bytes()?;
            fields.bytes()?;
        }
        Ok(version)
    }

    /// Reads a packet, whole with its length; returns the request's id with it. An extension that is not known is
    /// [`Request::Unknown`].
    pub fn decode(packet: &'a [u8]) -> Result<(u32, Self), SftpError> {
        let mut fields = Fields::new(packet.get(LENGTH_BYTES..).unwrap_or_default());
        let kind = fields.u8()?;
        if !matches!(kind, OPEN..=SYMLINK | EXTENDED) {
            return Err(SftpError::Kind(kind));
        }
        let id = fields.u32()?;
        let request = match kind {
            OPEN => Self::Open {
                path: fields.path()?,
                flags: OpenFlags::new(fields.u32()?)?,
                attributes: Attributes::get(&mut fields)?,
            },
            CLOSE => Self::Close { handle: fields.handle()? },
            READ => Self::Read { handle: fields.handle()?, offset: fields.u64()?, length: fields.u32()? },
            WRITE => {
                let (handle, offset, data) = (fields.handle()?, fields.u64()?, fields.bytes()?);
                if data.len() > MAX_DATA {
                    return Err(SftpError::TooLong);
                }
                Self::Write { handle, offset, data }
            }
            LSTAT => Self::Lstat { path: fields.path()? },
            FSTAT => Self::Fstat { handle: fields.handle()? },
            SETSTAT => Self::Setstat { path: fields.path()?, attributes: Attributes::get(&mut fields)? },
            FSETSTAT => Self::Fsetstat { handle: fields.handle()?, attributes: Attributes::get(&mut fields)? },
            OPENDIR => Self::Opendir { path: fields.path()? },
            READDIR => Self::Readdir { handle: fields.handle()? },
            REMOVE => Self::Remove { path: fields.path()? },
            MKDIR => Self::Mkdir { path: fields.path()?, attributes: Attributes::get(&mut fields)? },
            RMDIR => Self::Rmdir { path: fields.path()? },
            REALPATH => Self::Realpath { path: fields.path()? },
            STAT => Self::Stat { path: fields.path()? },
            RENAME => Self::Rename { from: fields.path()?, to: fields.path()? },
            READLINK => Self::Readlink { path: fields.path()? },
            SYMLINK => Self::Symlink { target: fields.path()?, path: fields.path()? },
            // What follows in an unknown extension has no form that could be judged.
            _ => match Self::extended(&mut fields)? {
                Self::Unknown => return Ok((id, Self::Unknown)),
                known => known,
            },
        };
        fields.end()?;
        Ok((id, request))
    }

    fn extended(fields: &mut Fields<'a>) -> Result<Self, SftpError> {
        Ok(match fields.bytes()? {
            POSIX_RENAME => Self::PosixRename { from: fields.path()?, to: fields.path()? },
            STATVFS => Self::Statvfs { path: fields.path()? },
            FSTATVFS => Self::Fstatvfs { handle: fields.handle()? },
            HARDLINK => Self::Hardlink { from: fields.path()?, to: fields.path()? },
            FSYNC => Self::Fsync { handle: fields.handle()? },
            LSETSTAT => Self::Lsetstat { path: fields.path()?, attributes: Attributes::get(fields)? },
            LIMITS => Self::Limits,
            EXPAND_PATH => Self::ExpandPath { path: fields.path()? },
            COPY_DATA => Self::CopyData {
                from: fields.handle()?,
                from_offset: fields.u64()?,
                length: fields.u64()?,
                to: fields.handle()?,
                to_offset: fields.u64()?,
            },
            USERS_GROUPS => Self::UsersGroupsById { uids: ids(fields.bytes()?)?, gids: ids(fields.bytes()?)? },
            RESOLVE => Self::Resolve {
                path: fields.path()?,
                last: match fields.u8()? {
                    0 => ResolveLast::Followed,
                    1 => ResolveLast::Itself,
                    _ => return Err(SftpError::Value),
                },
            },
            GLOB => Self::Glob { pattern: fields.path()? },
            _ => Self::Unknown,
        })
    }

    /// Appends the packet. [`Request::Unknown`] has none.
    pub fn encode(&self, id: u32, out: &mut Vec<u8>) {
        let kind = self.kind();
        put_packet(out, kind, |out| {
            put_u32(out, id);
            match self {
                Self::Open { path, flags, attributes } => {
                    put_bytes(out, path);
                    put_u32(out, flags.0);
                    attributes.put(out);
                }
                Self::Close { handle } | Self::Fstat { handle } | Self::Readdir { handle } => put_handle(out, *handle),
                Self::Read { handle, offset, length } => {
                    put_handle(out, *handle);
                    put_u64(out, *offset);
                    put_u32(out, *length);
                }
                Self::Write { handle, offset, data } => {
                    put_handle(out, *handle);
                    put_u64(out, *offset);
                    put_bytes(out, data);
                }
                Self::Setstat { path, attributes } | Self::Mkdir { path, attributes } => {
                    put_bytes(out, path);
                    attributes.put(out);
                }
                Self::Fsetstat { handle, attributes } => {
                    put_handle(out, *handle);
                    attributes.put(out);
                }
                Self::Lstat { path }
                | Self::Opendir { path }
                | Self::Remove { path }
                | Self::Rmdir { path }
                | Self::Realpath { path }
                | Self::Stat { path }
                | Self::Readlink { path } => put_bytes(out, path),
                Self::Rename { from: first, to: second } | Self::Symlink { target: first, path: second } => {
                    put_bytes(out, first);
                    put_bytes(out, second);
                }
                extended => extended.put_extended(out),
            }
        });
    }

    fn put_extended(&self, out: &mut Vec<u8>) {
        match self {
            Self::PosixRename { from, to } => put_all(out, &[POSIX_RENAME, from, to]),
            Self::Hardlink { from, to } => put_all(out, &[HARDLINK, from, to]),
            Self::Statvfs { path } => put_all(out, &[STATVFS, path]),
            Self::ExpandPath { path } => put_all(out, &[EXPAND_PATH, path]),
            Self::Fstatvfs { handle } => put_all(out, &[FSTATVFS, &handle.to_be_bytes()]),
            Self::Fsync { handle } => put_all(out, &[FSYNC, &handle.to_be_bytes()]),
            Self::Lsetstat { path, attributes } => {
                put_all(out, &[LSETSTAT, path]);
                attributes.put(out);
            }
            Self::Limits => put_all(out, &[LIMITS]),
            Self::CopyData { from, from_offset, length, to, to_offset } => {
                put_all(out, &[COPY_DATA, &from.to_be_bytes()]);
                put_u64(out, *from_offset);
                put_u64(out, *length);
                put_handle(out, *to);
                put_u64(out, *to_offset);
            }
            Self::UsersGroupsById { uids, gids } => {
                put_bytes(out, USERS_GROUPS);
                for ids in [uids, gids] {
                    put_bytes(out, &ids.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<_>>());
                }
            }
            Self::Resolve { path, last } => {
                put_all(out, &[RESOLVE, path]);
                out.push(match last {
                    ResolveLast::Followed => 0,
                    ResolveLast::Itself => 1,
                });
            }
            Self::Glob { pattern } => put_all(out, &[GLOB, pattern]),
            _ => put_bytes(out, b"unknown"),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Open { .. } => OPEN,
            Self::Close { .. } => CLOSE,
            Self::Read { .. } => READ,
            Self::Write { .. } => WRITE,
            Self::Lstat { .. } => LSTAT,
            Self::Fstat { .. } => FSTAT,
            Self::Setstat { .. } => SETSTAT,
            Self::Fsetstat { .. } => FSETSTAT,
            Self::Opendir { .. } => OPENDIR,
            Self::Readdir { .. } => READDIR,
            Self::Remove { .. } => REMOVE,
            Self::Mkdir { .. } => MKDIR,
            Self::Rmdir { .. } => RMDIR,
            Self::Realpath { .. } => REALPATH,
            Self::Stat { .. } => STAT,
            Self::Rename { .. } => RENAME,
            Self::Readlink { .. } => READLINK,
            Self::Symlink { .. } => SYMLINK,
            _ => EXTENDED,
        }
    }
}

fn put_all(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        put_bytes(out, part);
    }
}

fn ids(bytes: &[u8]) -> Result<Vec<u32>, SftpError> {
    if bytes.len() > MAX_IDS * 4 {
        return Err(SftpError::TooLong);
    }
    let mut fields = Fields::new(bytes);
    let mut ids = Vec::new();
    while !fields.is_empty() {
        ids.push(fields.u32()?);
    }
    Ok(ids)
}
