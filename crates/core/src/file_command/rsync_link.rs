//! What the worker that runs `rsync` on a node says to the gateway, which follows it: 1 byte kind, 4 bytes length
//! (big-endian), body. The other way go a byte that lets it begin, [`GO`], and then the client's bytes as they are.

use crate::sftp::MAX_PATH;
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Lets the worker begin.
pub const GO: u8 = 1;
/// Bytes before a body.
pub const HEADER_BYTES: usize = 5;
/// Longest body in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Longest text in bytes.
const MAX_TEXT: usize = 4096;

/// What became of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsyncDone {
    /// A file was sent.
    Sent,
    /// A file was received.
    Received,
    /// Something was removed.
    Removed,
    /// A directory was made.
    Directory,
    /// A symbolic link was made.
    Link,
    /// A further name was made for a file.
    HardLink,
}

impl RsyncDone {
    const ALL: [Self; 6] = [Self::Sent, Self::Received, Self::Removed, Self::Directory, Self::Link, Self::HardLink];
}

/// What the worker says, but for the bytes of [`KIND_DATA`] and [`KIND_ERRORS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RsyncSays {
    /// Where the paths lead, first of all.
    Ready {
        /// Real paths, in the order of the call; behind them, where directories lead that options name.
        paths: Vec<Vec<u8>>,
    },
    /// Something was done.
    Done {
        /// What.
        done: RsyncDone,
        /// Its path.
        path: Vec<u8>,
        /// Bytes of the file.
        size: u64,
        /// SHA-256 of the file as it is on the node now.
        hash: Option<[u8; 32]>,
        /// Why there is no hash of a file.
        why: String,
    },
    /// It does not run, and why.
    Failed {
        /// For people.
        why: String,
    },
    /// It has ended.
    Exit {
        /// Its status.
        status: u8,
    },
}

const KIND_READY: u8 = 1;
/// Bytes for the client.
pub const KIND_DATA: u8 = 2;
/// Bytes for the client's standard error.
pub const KIND_ERRORS: u8 = 3;
const KIND_DONE: u8 = 4;
const KIND_FAILED: u8 = 5;
const KIND_EXIT: u8 = 6;

/// Reads the length of a body.
pub fn body_length(header: [u8; HEADER_BYTES]) -> Result<(u8, usize), FieldError> {
    let [kind, a, b, c, d] = header;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    match (kind, length) {
        (KIND_READY..=KIND_EXIT, ..=MAX_BODY) => Ok((kind, length)),
        (KIND_READY..=KIND_EXIT, _) => Err(FieldError::TooLong(MAX_BODY)),
        _ => Err(FieldError::Unknown),
    }
}

/// Returns the header of a body; it has at most [`MAX_BODY`] bytes.
pub fn header(kind: u8, length: usize) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind, a, b, c, d]
}

impl RsyncSays {
    /// Returns the message with its header. Texts are cut to what the other end takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::default();
        let cut = |text: &str| text.chars().take(MAX_TEXT / 4).collect::<String>();
        let kind = match self {
            Self::Ready { paths } => {
                out.u64(paths.len() as u64);
                for path in paths {
                    out.bytes(path);
                }
                KIND_READY
            }
            Self::Done { done, path, size, hash, why } => {
                let number = RsyncDone::ALL.iter().zip(0..).find(|(one, _)| *one == done).map_or(0, |(_, at)| at);
                out.u8(number).bytes(path).u64(*size).bytes(hash.as_ref().map_or(&[][..], |hash| hash)).text(&cut(why));
                KIND_DONE
            }
            Self::Failed { why } => {
                out.text(&cut(why));
                KIND_FAILED
            }
            Self::Exit { status } => {
                out.u8(*status);
                KIND_EXIT
            }
        };
        let body = out.finish();
        [&header(kind, body.len())[..], &body].concat()
    }

    /// Reads a body of a kind that is neither [`KIND_DATA`] nor [`KIND_ERRORS`].
    pub fn decode(kind: u8, body: &[u8]) -> Result<Self, FieldError> {
        let mut fields = FieldReader::new(body, b"")?;
        let says = match kind {
            KIND_READY => {
                let count = fields.u64()?;
                if count > super::MAX_PATHS as u64 {
                    return Err(FieldError::TooLong(super::MAX_PATHS));
                }
                let paths = (0..count).map(|_| fields.bytes(MAX_PATH).map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
                Self::Ready { paths }
            }
            KIND_DONE => {
                let done = RsyncDone::ALL.get(usize::from(fields.u8()?)).copied().ok_or(FieldError::Unknown)?;
                let (path, size) = (fields.bytes(2 * MAX_PATH)?.to_vec(), fields.u64()?);
                let hash = match fields.bytes(32)? {
                    [] => None,
                    hash => Some(hash.try_into().map_err(|_| FieldError::Short)?),
                };
                Self::Done { done, path, size, hash, why: fields.text(MAX_TEXT)?.to_owned() }
            }
            KIND_FAILED => Self::Failed { why: fields.text(MAX_TEXT)?.to_owned() },
            KIND_EXIT => Self::Exit { status: fields.u8()? },
            _ => return Err(FieldError::Unknown),
        };
        fields.end()?;
        Ok(says)
    }
}

/// A line that `rsync --log-file-format=`[`LOG_FORMAT`] writes about a file: what was done, to which path, with how many bytes.
/// `None`: it is a line about something else, or about attributes alone.
pub fn log_line(line: &[u8]) -> Option<(RsyncDone, Vec<u8>, u64)> {
    // Date, time and process stand in front.
    let begin = line.windows(3).position(|part| part == b"] =")? + 3;
    let mut parts = line.get(begin..)?.splitn(4, |byte| *byte == b'|');
    let (operation, changes, size, path) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let size = std::str::from_utf8(size).ok()?.trim().parse().unwrap_or(0);
    let done = match (operation, changes.first_chunk::<2>()) {
        (b"del.", _) => RsyncDone::Removed,
        (b"send", Some(b"<f" | b"cf")) => RsyncDone::Sent,
        (b"recv", Some(b">f" | b"cf")) => RsyncDone::Received,
        (b"recv", Some(b"cd")) => RsyncDone::Directory,
        (b"recv", Some(b"cL" | b"cD" | b"cS")) => RsyncDone::Link,
        (b"recv", Some([b'h', _])) => RsyncDone::HardLink,
        _ => return None,
    };
    Some((done, unescaped(path), size))
}

/// The form of such a line.
pub const LOG_FORMAT: &str = "=%o|%i|%l|%f";

/// rsync writes a byte that is not printable, and a backslash before something like that, as `\#` and three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"#").and_then(|after| after.first_chunk::<3>());
        let octal = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|octal| u8::from_str_radix(octal, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = after.get(4..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_round_trips_and_altered_ones_are_refused_or_read() {
        let done = RsyncSays::Done {
            done: RsyncDone::HardLink,
            path: b"/srv/\xff".to_vec(),
            size: 7,
            hash: Some([3; 32]),
            why: "x".to_owned(),
        };
        for says in [
            RsyncSays::Ready { paths: vec![b"/a".to_vec(), b"/b".to_vec()] },
            done,
            RsyncSays::Failed { why: "없음".to_owned() },
            RsyncSays::Exit { status: 23 },
        ] {
            let bytes = says.encode();
            let (head, body) = bytes.split_first_chunk().unwrap();
            let (kind, length) = body_length(*head).unwrap();
            assert_eq!(length, body.len());
            assert_eq!(RsyncSays::decode(kind, body), Ok(says));
            crate::mutate::each(body, 7, |bytes| drop(RsyncSays::decode(kind, bytes)));
        }
        assert!(body_length(header(KIND_DATA, MAX_BODY + 1)).is_err());
        assert!(body_length(header(9, 1)).is_err());
    }

    #[test]
    fn lines_of_rsync_are_read_whatever_names_hold() {
        let line = |text: &str| log_line(format!("2026/11/22 10:39:08 [22407] {text}").as_bytes());
        let path = |text: &str| text.as_bytes().to_vec();
        assert_eq!(line("=recv|>f+++++++++|11|a|b"), Some((RsyncDone::Received, path("a|b"), 11)));
        assert_eq!(line("=recv|>f.st......|1|new\\#012line"), Some((RsyncDone::Received, path("new\nline"), 1)));
        assert_eq!(line("=send|<f+++++++++|2|tmp/\\#355\\#225\\#234"), Some((RsyncDone::Sent, path("tmp/한"), 2)));
        assert_eq!(line("=recv|>f+++++++++|2|x\\#134#012"), Some((RsyncDone::Received, path("x\\#012"), 2)));
        assert_eq!(line("=del.|*deleting  |0|old/f"), Some((RsyncDone::Removed, path("old/f"), 0)));
        assert_eq!(line("=recv|cL+++++++++|1|link"), Some((RsyncDone::Link, path("link"), 1)));
        for other in
            ["=recv|.d..t......|4096|.", "building file list", "rsync: [Receiver] = x", "=send|cd+++++++++|1|d"]
        {
            assert_eq!(line(other), None, "{other}");
        }
        crate::mutate::each(b"2026/11/22 10:39:08 [1] =recv|>f+|7|a\\#012", 5, |bytes| drop(log_line(bytes)));
    }
}
