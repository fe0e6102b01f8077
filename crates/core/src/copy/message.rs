//! The messages and their bytes: a kind, a length, a body of fixed fields.

use super::path::{EntryPath, MAX_ENTRY_PATH};
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Version of the protocol, spoken in [`Hello`] and [`Ready`].
pub const VERSION: u8 = 1;
/// Kind (1) and length of the body (4, big-endian).
pub const HEADER_BYTES: usize = 5;
/// Longest body of a message other than data, in bytes: two longest paths and a little.
pub const MAX_BODY: usize = 12 * 1024;
/// Most bytes of a file in one data message.
pub const MAX_DATA: usize = 1024 * 1024;
/// Longest text for people, in bytes; longer ones are cut when written.
const MAX_TEXT: usize = 1024;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of the open file.
    Data = 0,
    /// [`Message::Hello`]
    Hello = 1,
    /// [`Message::Ready`]
    Ready = 2,
    /// [`Message::Total`]
    Total = 3,
    /// [`Message::Enter`]
    Enter = 4,
    /// [`Message::Leave`]
    Leave = 5,
    /// [`Message::Symlink`]
    Symlink = 6,
    /// [`Message::Ask`]
    Ask = 7,
    /// [`Message::File`]
    File = 8,
    /// [`Message::Zeros`]
    Zeros = 9,
    /// [`Message::EndFile`]
    EndFile = 10,
    /// [`Message::AbortFile`]
    AbortFile = 11,
    /// [`Message::Skipped`]
    Skipped = 12,
    /// [`Message::Finish`]
    Finish = 13,
    /// [`Message::Have`]
    Have = 14,
    /// [`Message::Done`]
    Done = 15,
    /// [`Message::Problem`]
    Problem = 16,
    /// [`Message::Finished`]
    Finished = 17,
    /// [`Message::Failed`]
    Failed = 18,
}

impl Kind {
    const ALL: [Self; 19] = [
        Self::Data,
        Self::Hello,
        Self::Ready,
        Self::Total,
        Self::Enter,
        Self::Leave,
        Self::Symlink,
        Self::Ask,
        Self::File,
        Self::Zeros,
        Self::EndFile,
        Self::AbortFile,
        Self::Skipped,
        Self::Finish,
        Self::Have,
        Self::Done,
        Self::Problem,
        Self::Finished,
        Self::Failed,
    ];

    /// Reads a kind.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// A set of kinds: what may come at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds(u32);

impl Kinds {
    /// The first message of a client.
    pub const OPENING: Self = Self::of(&[Kind::Hello]);
    /// The first message of a worker.
    pub const ANSWER: Self = Self::of(&[Kind::Ready, Kind::Failed]);
    /// From the sender while no file is open.
    pub const BETWEEN_FILES: Self = Self::of(&[
        Kind::Total,
        Kind::Enter,
        Kind::Leave,
        Kind::Symlink,
        Kind::Ask,
        Kind::File,
        Kind::Skipped,
        Kind::Finish,
        Kind::Failed,
    ]);
    /// From the sender while a file is open. Questions about later files are put meanwhile.
    pub const IN_FILE: Self =
        Self::of(&[Kind::Data, Kind::Zeros, Kind::EndFile, Kind::AbortFile, Kind::Ask, Kind::Failed]);
    /// From the receiver.
    pub const RECEIVER: Self = Self::of(&[Kind::Have, Kind::Done, Kind::Problem, Kind::Finished, Kind::Failed]);

    /// Makes a set.
    pub const fn of(kinds: &[Kind]) -> Self {
        let mut bits = 0;
        let mut rest = kinds;
        while let Some((kind, more)) = rest.split_first() {
            bits |= 1 << *kind as u8;
            rest = more;
        }
        Self(bits)
    }

    /// Tells whether a kind is in the set.
    pub const fn contains(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }
}

/// What the client wants of the worker; what it copies, and where, stands in the grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Version of the protocol.
    pub version: u8,
    /// Directories are copied too.
    pub recursive: bool,
    /// Modes and times are kept.
    pub preserve: bool,
    /// What is there already is asked for first, and what could not be finished is kept.
    pub resume: bool,
    /// The sender says first how much there is.
    pub totals: bool,
}

/// What stands at the root on the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RootKind {
    /// Nothing.
    Missing = 0,
    /// A file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// What fits a pattern; the first name of each path is that of a match.
    Matches = 3,
}

/// The worker is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Version of the protocol.
    pub version: u8,
    /// What is there.
    pub kind: RootKind,
    /// The absolute path behind all symbolic links; entries stand below it. At most [`MAX_ENTRY_PATH`] bytes.
    pub real_path: Vec<u8>,
}

/// Mode and time of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits; bits above 0o777 are not carried.
    pub mode: u16,
    /// When its content changed.
    pub modified: Moment,
}

/// A point in time as file systems have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds, below 10^9.
    pub nanoseconds: u32,
}

/// A file begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileHead {
    /// Where it goes.
    pub path: EntryPath,
    /// Bytes of the whole file; `None` if the end shows only when it comes.
    pub size: Option<u64>,
    /// Bytes that the receiver has already, after [`Message::Ask`]; 0 begins anew.
    pub offset: u64,
    /// Mode and time.
    pub attributes: Attributes,
}

/// A file is in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Which one, counted from 0 in the order of [`Message::File`].
    pub file: u64,
    /// SHA-256 of the whole file as the receiver has it.
    pub hash: [u8; 32],
}

/// Everything but data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client: first.
    Hello(Hello),
    /// Worker: the answer.
    Ready(Ready),
    /// Sender: how much there is; the first message, if there is one.
    Total {
        /// Files.
        files: u64,
        /// Bytes in them.
        bytes: u64,
    },
    /// Sender: a directory begins; what is in it follows.
    Enter {
        /// Where.
        path: EntryPath,
        /// Mode and time.
        attributes: Attributes,
    },
    /// Sender: a directory is complete.
    Leave {
        /// Where.
        path: EntryPath,
        /// Mode and time.
        attributes: Attributes,
    },
    /// Sender: a symbolic link.
    Symlink {
        /// Where.
        path: EntryPath,
        /// What it says, at most [`MAX_ENTRY_PATH`] bytes.
        target: Vec<u8>,
    },
    /// Sender: how much of this file does the receiver have? Answered by [`Message::Have`], in order.
    Ask {
        /// Where.
        path: EntryPath,
        /// Bytes of the whole file.
        size: u64,
    },
    /// Sender: a file begins.
    File(FileHead),
    /// Sender: so many zero bytes.
    Zeros(u64),
    /// Sender: the file is complete.
    EndFile {
        /// SHA-256 of the whole file, what the receiver had included.
        hash: [u8; 32],
    },
    /// Sender: the file cannot be completed.
    AbortFile {
        /// Why.
        why: String,
    },
    /// Sender: an entry is left out.
    Skipped {
        /// Which.
        path: EntryPath,
        /// Why.
        why: String,
    },
    /// Sender: that was all.
    Finish,
    /// Receiver: so much of the asked file is here.
    Have {
        /// Bytes; 0 for nothing of use.
        offset: u64,
        /// SHA-256 of them.
        hash: [u8; 32],
    },
    /// Receiver: a file is in its place.
    Done(Done),
    /// Receiver: an entry could not be written.
    Problem {
        /// Which file, if it is one.
        file: Option<u64>,
        /// Where.
        path: EntryPath,
        /// Why.
        why: String,
    },
    /// Receiver: after [`Message::Finish`], all is in its place or reported.
    Finished,
    /// Either: nothing more is done.
    Failed {
        /// For programs, e.g. `AccessDeniedException`.
        code: String,
        /// For people.
        why: String,
    },
}

/// Returns the header of a data message with so many bytes; at most [`MAX_DATA`].
pub fn data_header(length: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [Kind::Data as u8, a, b, c, d]
}

impl Message {
    /// Returns its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Ready(_) => Kind::Ready,
            Self::Total { .. } => Kind::Total,
            Self::Enter { .. } => Kind::Enter,
            Self::Leave { .. } => Kind::Leave,
            Self::Symlink { .. } => Kind::Symlink,
            Self::Ask { .. } => Kind::Ask,
            Self::File(_) => Kind::File,
            Self::Zeros(_) => Kind::Zeros,
            Self::EndFile { .. } => Kind::EndFile,
            Self::AbortFile { .. } => Kind::AbortFile,
            Self::Skipped { .. } => Kind::Skipped,
            Self::Finish => Kind::Finish,
            Self::Have { .. } => Kind::Have,
            Self::Done(_) => Kind::Done,
            Self::Problem { .. } => Kind::Problem,
            Self::Finished => Kind::Finished,
            Self::Failed { .. } => Kind::Failed,
        }
    }

    /// Appends header and body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut body = FieldWriter::default();
        match self {
            Self::Hello(hello) => {
                let bits = [hello.recursive, hello.preserve, hello.resume, hello.totals];
                let flags = bits.iter().rev().fold(0, |flags, bit| flags << 1 | u8::from(*bit));
                body.u8(hello.version).u8(flags);
            }
            Self::Ready(ready) => {
                body.u8(ready.version).u8(ready.kind as u8).bytes(&ready.real_path);
            }
            Self::Total { files, bytes } => {
                body.u64(*files).u64(*bytes);
            }
            Self::Enter { path, attributes } | Self::Leave { path, attributes } => {
                put_attributes(body.bytes(path.as_bytes()), attributes);
            }
            Self::Symlink { path, target } => {
                body.bytes(path.as_bytes()).bytes(target);
            }
            Self::Ask { path, size } => {
                body.bytes(path.as_bytes()).u64(*size);
            }
            Self::File(head) => {
                body.bytes(head.path.as_bytes()).u8(u8::from(head.size.is_some()));
                put_attributes(body.u64(head.size.unwrap_or(0)).u64(head.offset), &head.attributes);
            }
            Self::Zeros(count) => {
                body.u64(*count);
            }
            Self::EndFile { hash } => {
                body.bytes(hash);
            }
            Self::AbortFile { why } => {
                body.text(cut(why));
            }
            Self::Skipped { path, why } => {
                body.bytes(path.as_bytes()).text(cut(why));
            }
            Self::Finish | Self::Finished => {}
            Self::Have { offset, hash } => {
                body.u64(*offset).bytes(hash);
            }
            Self::Done(done) => {
                body.u64(done.file).bytes(&done.hash);
            }
            Self::Problem { file, path, why } => {
                body.u8(u8::from(file.is_some())).u64(file.unwrap_or(0)).bytes(path.as_bytes()).text(cut(why));
            }
            Self::Failed { code, why } => {
                body.text(cut(code)).text(cut(why));
            }
        }
        let body = body.finish();
        out.push(self.kind() as u8);
        out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&body);
    }

    /// Reads a body; one encoding per value. Data has no message.
    pub fn decode(kind: Kind, body: &[u8]) -> Result<Self, FieldError> {
        let mut fields = FieldReader::new(body, b"")?;
        let message = match kind {
            Kind::Data => return Err(FieldError::Unknown),
            Kind::Hello => {
                let (version, flags) = (fields.u8()?, fields.u8()?);
                let flag = |bit: u8| flags & 1 << bit != 0;
                if flags >= 16 {
                    return Err(FieldError::Unknown);
                }
                let (recursive, preserve, resume, totals) = (flag(0), flag(1), flag(2), flag(3));
                Self::Hello(Hello { version, recursive, preserve, resume, totals })
            }
            Kind::Ready => Self::Ready(Ready {
                version: fields.u8()?,
                kind: match fields.u8()? {
                    0 => RootKind::Missing,
                    1 => RootKind::File,
                    2 => RootKind::Directory,
                    3 => RootKind::Matches,
                    _ => return Err(FieldError::Unknown),
                },
                real_path: fields.bytes(MAX_ENTRY_PATH)?.to_vec(),
            }),
            Kind::Total => Self::Total { files: fields.u64()?, bytes: fields.u64()? },
            Kind::Enter => Self::Enter { path: path(&mut fields)?, attributes: attributes(&mut fields)? },
            Kind::Leave => Self::Leave { path: path(&mut fields)?, attributes: attributes(&mut fields)? },
            Kind::Symlink => Self::Symlink { path: path(&mut fields)?, target: fields.bytes(MAX_ENTRY_PATH)?.to_vec() },
            Kind::Ask => Self::Ask { path: path(&mut fields)?, size: fields.u64()? },
            Kind::File => {
                let path = path(&mut fields)?;
                let size = number_if(flag(&mut fields)?, fields.u64()?)?;
                Self::File(FileHead { path, size, offset: fields.u64()?, attributes: attributes(&mut fields)? })
            }
            Kind::Zeros => Self::Zeros(fields.u64()?),
            Kind::EndFile => Self::EndFile { hash: fields.fixed()? },
            Kind::AbortFile => Self::AbortFile { why: text(&mut fields)? },
            Kind::Skipped => Self::Skipped { path: path(&mut fields)?, why: text(&mut fields)? },
            Kind::Finish => Self::Finish,
            Kind::Have => Self::Have { offset: fields.u64()?, hash: fields.fixed()? },
            Kind::Done => Self::Done(Done { file: fields.u64()?, hash: fields.fixed()? }),
            Kind::Problem => {
                let file = number_if(flag(&mut fields)?, fields.u64()?)?;
                Self::Problem { file, path: path(&mut fields)?, why: text(&mut fields)? }
            }
            Kind::Finished => Self::Finished,
            Kind::Failed => Self::Failed { code: text(&mut fields)?, why: text(&mut fields)? },
        };
        fields.end()?;
        Ok(message)
    }
}

fn put_attributes(body: &mut FieldWriter, attributes: &Attributes) {
    let Attributes { mode, modified } = attributes;
    body.u64(u64::from(mode & 0o777)).i64(modified.seconds).u64(u64::from(modified.nanoseconds));
}

fn attributes(fields: &mut FieldReader<'_>) -> Result<Attributes, FieldError> {
    let mode = u16::try_from(fields.u64()?).ok().filter(|mode| *mode <= 0o777).ok_or(FieldError::Unknown)?;
    let seconds = fields.i64()?;
    let nanoseconds =
        u32::try_from(fields.u64()?).ok().filter(|part| *part < 1_000_000_000).ok_or(FieldError::Unknown)?;
    Ok(Attributes { mode, modified: Moment { seconds, nanoseconds } })
}

fn path(fields: &mut FieldReader<'_>) -> Result<EntryPath, FieldError> {
    EntryPath::new(fields.bytes(MAX_ENTRY_PATH)?).map_err(|_| FieldError::Unknown)
}

fn text(fields: &mut FieldReader<'_>) -> Result<String, FieldError> {
    fields.text(MAX_TEXT).map(str::to_owned)
}

fn flag(fields: &mut FieldReader<'_>) -> Result<bool, FieldError> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FieldError::Unknown),
    }
}

fn number_if(present: bool, number: u64) -> Result<Option<u64>, FieldError> {
    match (present, number) {
        (true, number) => Ok(Some(number)),
        (false, 0) => Ok(None),
        (false, _) => Err(FieldError::Unknown),
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mutate;

    pub(crate) fn samples() -> Vec<Message> {
        let path = EntryPath::new("문서/a.txt".as_bytes()).unwrap();
        let attributes = Attributes { mode: 0o644, modified: Moment { seconds: -5, nanoseconds: 999_999_999 } };
        let head = FileHead { path: path.clone(), size: Some(7), offset: 3, attributes };
        vec![
            Message::Hello(Hello { version: VERSION, recursive: true, preserve: false, resume: true, totals: false }),
            Message::Ready(Ready { version: VERSION, kind: RootKind::Directory, real_path: b"/srv".to_vec() }),
            Message::Total { files: 5000, bytes: u64::MAX },
            Message::Enter { path: EntryPath::root(), attributes },
            Message::Leave { path: path.clone(), attributes },
            Message::Symlink { path: path.clone(), target: b"../x".to_vec() },
            Message::Ask { path: path.clone(), size: 7 },
            Message::File(head.clone()),
            Message::File(FileHead { size: None, offset: 0, ..head }),
            Message::Zeros(1 << 40),
            Message::EndFile { hash: [1; 32] },
            Message::AbortFile { why: "읽을 수 없음".to_owned() },
            Message::Skipped { path: path.clone(), why: "a socket".to_owned() },
            Message::Finish,
            Message::Have { offset: 3, hash: [2; 32] },
            Message::Done(Done { file: 3, hash: [3; 32] }),
            Message::Problem { file: Some(3), path: path.clone(), why: "no space".to_owned() },
            Message::Problem { file: None, path, why: "no space".to_owned() },
            Message::Finished,
            Message::Failed { code: "NotFound".to_owned(), why: "no such file".to_owned() },
        ]
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in samples() {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert!(bytes.len() <= HEADER_BYTES + MAX_BODY);
            assert_eq!(Kind::from_byte(bytes[0]), Some(message.kind()));
            assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - HEADER_BYTES);
            assert_eq!(Message::decode(message.kind(), &bytes[HEADER_BYTES..]), Ok(message));
        }
        assert_eq!(Kind::ALL.map(|kind| kind as u8), std::array::from_fn(|index| index as u8));
    }

    #[test]
    fn what_is_read_is_written_the_same_way_again() {
        let fixed = [Kind::Hello, Kind::File, Kind::Problem];
        for message in samples().into_iter().filter(|message| fixed.contains(&message.kind())) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            let kind = message.kind();
            mutate::each(&bytes[HEADER_BYTES..], 3, |body| {
                if let Ok(read) = Message::decode(kind, body) {
                    let mut again = Vec::new();
                    read.encode(&mut again);
                    assert_eq!(&again[HEADER_BYTES..], body);
                }
            });
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut bytes = Vec::new();
        Message::AbortFile { why: "가".repeat(1000) }.encode(&mut bytes);
        let Ok(Message::AbortFile { why }) = Message::decode(Kind::AbortFile, &bytes[HEADER_BYTES..]) else { panic!() };
        assert_eq!(why, "가".repeat(341));
    }
}
