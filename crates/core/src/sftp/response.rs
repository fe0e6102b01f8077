//! What a server answers.

use super::attributes::Attributes;
use super::fields::{Fields, SftpError, put_bytes, put_handle, put_packet, put_u32, put_u64};
use super::request::OFFERED;
use super::{Handle, LENGTH_BYTES, MAX_DATA, MAX_ENTRIES, MAX_IDS, MAX_PATH};

/// How a request ended: `SSH_FX_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Well.
    Ok = 0,
    /// There is no more.
    Eof = 1,
    /// It is not there.
    NoSuchFile = 2,
    /// The system, or policy, says no.
    PermissionDenied = 3,
    /// Badly, in another way.
    Failure = 4,
    /// The request could not be understood.
    BadMessage = 5,
    /// There is no connection.
    NoConnection = 6,
    /// The connection was lost.
    ConnectionLost = 7,
    /// That is not known here.
    Unsupported = 8,
}

impl Status {
    fn of(number: u32) -> Result<Self, SftpError> {
        const ALL: [Status; 9] = [
            Status::Ok,
            Status::Eof,
            Status::NoSuchFile,
            Status::PermissionDenied,
            Status::Failure,
            Status::BadMessage,
            Status::NoConnection,
            Status::ConnectionLost,
            Status::Unsupported,
        ];
        usize::try_from(number).ok().and_then(|number| ALL.get(number).copied()).ok_or(SftpError::Value)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, or a path.
    pub name: Vec<u8>,
    /// A line as `ls -l` prints it.
    pub line: Vec<u8>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// What is at a real path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolvedKind {
    /// Nothing; its directory is there.
    Nothing,
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; only where it was to be taken itself.
    Link,
    /// Anything else.
    Other,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The real path: absolute, without `.`, `..` and symbolic links but for the last name of one that was to be taken
    /// itself.
    pub real: &'a [u8],
    /// The path without looking at anything: absolute, without `.` and `..`.
    pub plain: &'a [u8],
    /// What is there.
    pub kind: ResolvedKind,
    /// Bytes of a file; 0 of anything else.
    pub size: u64,
}

/// Limits of a server, in bytes and numbers (`limits@openssh.com`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the protocol")]
pub struct Limits {
    pub packet: u64,
    pub read: u64,
    pub write: u64,
    pub handles: u64,
}

/// A file system, as `statvfs` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are those of statvfs(3)")]
pub struct FileSystem {
    pub block_size: u64,
    pub fragment_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub files_available: u64,
    pub id: u64,
    pub flags: u64,
    pub longest_name: u64,
}

/// An answer without its id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of the protocol")]
pub enum Response<'a> {
    /// How it ended, with words for people.
    Status { status: Status, text: &'a [u8] },
    /// What is open.
    Handle { handle: Handle },
    /// Bytes of a file.
    Data { data: &'a [u8] },
    /// Names.
    Names { entries: Vec<Entry> },
    /// Attributes.
    Attributes { attributes: Attributes },
    /// The answer of an extension, whose form hangs on the question.
    Extended { body: &'a [u8] },
}

const VERSION: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAMES: u8 = 104;
const ATTRIBUTES: u8 = 105;
const EXTENDED_REPLY: u8 = 201;
/// Longest text of a status that is taken.
const MAX_TEXT: usize = 4096;
/// Most extensions of a server that are read past.
const MAX_EXTENSIONS: usize = 64;

impl<'a> Response<'a> {
    /// Appends the first packet of a server: the version and what is offered beyond it.
    pub fn encode_version(out: &mut Vec<u8>) {
        put_packet(out, VERSION, |out| {
            put_u32(out, super::VERSION);
            for (name, version) in OFFERED {
                put_bytes(out, name);
                put_bytes(out, version);
            }
        });
    }

    /// Reads the first packet of a server, whole with its length; returns the version that it speaks.
    pub fn decode_version(packet: &[u8]) -> Result<u32, SftpError> {
        let mut fields = Fields::new(packet.get(LENGTH_BYTES..).unwrap_or_default());
        match fields.u8()? {
            VERSION => {}
            other => return Err(SftpError::Kind(other)),
        }
        let version = fields.u32()?;
        let mut count = 0;
        while !fields.is_empty() {
            fields.bytes()?;
            fields.bytes()?;
            count += 1;
            if count > MAX_EXTENSIONS {
                return Err(SftpError::TooLong);
            }
        }
        Ok(version)
    }

    /// Reads a packet, whole with its length; returns the request's id with it.
    pub fn decode(packet: &'a [u8]) -> Result<(u32, Self), SftpError> {
        let mut fields = Fields::new(packet.get(LENGTH_BYTES..).unwrap_or_default());
        let kind = fields.u8()?;
        if !matches!(kind, STATUS..=ATTRIBUTES | EXTENDED_REPLY) {
            return Err(SftpError::Kind(kind));
        }
        let id = fields.u32()?;
        let response = match kind {
            STATUS => {
                let (status, text, _language) = (Status::of(fields.u32()?)?, fields.bytes()?, fields.bytes()?);
                if text.len() > MAX_TEXT {
                    return Err(SftpError::TooLong);
                }
                Self::Status { status, text }
            }
            HANDLE => Self::Handle { handle: fields.handle()? },
            DATA => {
                let data = fields.bytes()?;
                if data.len() > MAX_DATA {
                    return Err(SftpError::TooLong);
                }
                Self::Data { data }
            }
            NAMES => {
                let count = usize::try_from(fields.u32()?).map_err(|_| SftpError::TooLong)?;
                if count > MAX_ENTRIES {
                    return Err(SftpError::TooLong);
                }
                let mut entries = Vec::new();
                for _ in 0..count {
                    let name = fields.path()?.to_vec();
                    let line = fields.bytes()?.to_vec();
                    entries.push(Entry { name, line, attributes: Attributes::get(&mut fields)? });
                }
                Self::Names { entries }
            }
            ATTRIBUTES => Self::Attributes { attributes: Attributes::get(&mut fields)? },
            _ => {
                let body = fields.0;
                return Ok((id, Self::Extended { body }));
            }
        };
        fields.end()?;
        Ok((id, response))
    }

    /// Appends the packet.
    pub fn encode(&self, id: u32, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Status { .. } => STATUS,
            Self::Handle { .. } => HANDLE,
            Self::Data { .. } => DATA,
            Self::Names { .. } => NAMES,
            Self::Attributes { .. } => ATTRIBUTES,
            Self::Extended { .. } => EXTENDED_REPLY,
        };
        put_packet(out, kind, |out| {
            put_u32(out, id);
            match self {
                Self::Status { status, text } => {
                    put_u32(out, *status as u32);
                    put_bytes(out, text);
                    put_bytes(out, b"");
                }
                Self::Handle { handle } => put_handle(out, *handle),
                Self::Data { data } => put_bytes(out, data),
                Self::Names { entries } => {
                    put_u32(out, u32::try_from(entries.len()).unwrap_or(u32::MAX));
                    for Entry { name, line, attributes } in entries {
                        put_bytes(out, name);
                        put_bytes(out, line);
                        attributes.put(out);
                    }
                }
                Self::Attributes { attributes } => attributes.put(out),
                Self::Extended { body } => out.extend_from_slice(body),
            }
        });
    }

    /// Appends a packet with data that `fill` writes: it gets room for `length` bytes and says how many it used. With
    /// `None` nothing is appended.
    pub fn encode_data(
        id: u32,
        length: usize,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        let begin = out.len();
        let head = super::HEADER_BYTES + 4;
        out.resize(begin + head + length, 0);
        let Some(used) = fill(out.get_mut(begin + head..).unwrap_or_default()) else {
            out.truncate(begin);
            return None;
        };
        let used = used.min(length);
        out.truncate(begin + head + used);
        let mut header = Vec::with_capacity(head);
        let [packet, data] = [used + head - LENGTH_BYTES, used].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        put_u32(&mut header, packet);
        header.push(DATA);
        put_u32(&mut header, id);
        put_u32(&mut header, data);
        if let Some(place) = out.get_mut(begin..begin + head) {
            place.copy_from_slice(&header);
        }
        Some(used)
    }
}

impl<'a> Resolved<'a> {
    /// Reads the body of an extension's answer.
    pub fn decode(body: &'a [u8]) -> Result<Self, SftpError> {
        let mut fields = Fields::new(body);
        let (real, plain) = (fields.bytes()?, fields.bytes()?);
        let kind = match fields.u8()? {
            0 => ResolvedKind::Nothing,
            1 => ResolvedKind::File,
            2 => ResolvedKind::Directory,
            3 => ResolvedKind::Link,
            4 => ResolvedKind::Other,
            _ => return Err(SftpError::Value),
        };
        let size = fields.u64()?;
        fields.end()?;
        for path in [real, plain] {
            is_real(path)?;
        }
        Ok(Self { real, plain, kind, size })
    }

    /// Returns the body of an extension's answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_bytes(&mut out, self.real);
        put_bytes(&mut out, self.plain);
        out.push(match self.kind {
            ResolvedKind::Nothing => 0,
            ResolvedKind::File => 1,
            ResolvedKind::Directory => 2,
            ResolvedKind::Link => 3,
            ResolvedKind::Other => 4,
        });
        put_u64(&mut out, self.size);
        out
    }
}

/// Refuses what cannot be a real path: a policy's pattern would not mean what it says.
fn is_real(path: &[u8]) -> Result<(), SftpError> {
    let good = path.strip_prefix(b"/").is_some_and(|rest| {
        rest.is_empty() || rest.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
    });
    match path {
        path if path.len() > MAX_PATH => Err(SftpError::TooLong),
        path if !good || path.contains(&0) => Err(SftpError::Value),
        _ => Ok(()),
    }
}

impl Limits {
    /// The limits of this implementation.
    pub const OURS: Self = Self {
        packet: super::MAX_PACKET as u64,
        read: MAX_DATA as u64,
        write: MAX_DATA as u64,
        handles: super::MAX_HANDLES as u64,
    };

    /// Returns the body of an extension's answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.packet, self.read, self.write, self.handles] {
            put_u64(&mut out, number);
        }
        out
    }
}

impl FileSystem {
    /// Returns the body of an extension's answer.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [
            self.block_size,
            self.fragment_size,
            self.blocks,
            self.free,
            self.available,
            self.files,
            self.files_free,
            self.files_available,
            self.id,
            self.flags,
            self.longest_name,
        ] {
            put_u64(&mut out, number);
        }
        out
    }
}

/// Returns the body of the answer to `users-groups-by-id@openssh.com`: a list of names each, empty where there is none.
pub fn encode_names(users: &[String], groups: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for names in [users, groups] {
        let mut list = Vec::new();
        for name in names.iter().take(MAX_IDS) {
            put_bytes(&mut list, name.as_bytes());
        }
        put_bytes(&mut out, &list);
    }
    out
}
