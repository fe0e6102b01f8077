//! SFTP, version 3, with the extensions that OpenSSH's own programs use: the packets of both directions, read strictly
//! and written in one form.
//!
//! Layouts: draft-ietf-secsh-filexfer-02 and OpenSSH's `PROTOCOL`, section 4. A packet is 4 bytes length (big-endian),
//! 1 byte kind, 4 bytes request id, and what belongs to the kind. Two extensions are our own, between the gateway and
//! the worker on a node: [`Request::Resolve`] and [`Request::Glob`]. Who may do what is not known here, nor are files.

mod attributes;
mod fields;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub use attributes::{Attributes, Owner, Times};
pub use fields::SftpError;
pub use request::{OpenFlags, Request, ResolveLast};
pub use response::{Entry, FileSystem, Limits, Resolved, ResolvedKind, Response, Status, encode_names};

/// The version that is spoken.
pub const VERSION: u32 = 3;
/// Bytes before a packet's body: its length.
pub const LENGTH_BYTES: usize = 4;
/// Longest packet in bytes, without its length: OpenSSH's `SFTP_MAX_MSG_LENGTH` (T-93).
pub const MAX_PACKET: usize = 256 * 1024;
/// Most bytes of a file in one packet; OpenSSH leaves 1 KiB for the rest.
pub const MAX_DATA: usize = MAX_PACKET - 1024;
/// Longest path in bytes: Linux' `PATH_MAX` without the final NUL.
pub const MAX_PATH: usize = 4095;
/// Most files and directories that are open at once (T-95).
pub const MAX_HANDLES: usize = 64;
/// Most entries of one answer with names.
pub const MAX_ENTRIES: usize = 1024;
/// Most ids in one question for names of users and groups.
pub const MAX_IDS: usize = 256;
/// Bytes of a packet before what belongs to its kind: length, kind, request id.
pub const HEADER_BYTES: usize = 9;

/// A handle: we make and take numbers only.
pub type Handle = u32;

/// Returns the length of the packet that `bytes` begin with, its length field included; `None` while that is not
/// there. A packet longer than [`MAX_PACKET`], or without a kind, is refused before anything of it is kept.
pub fn packet_length(bytes: &[u8]) -> Result<Option<usize>, SftpError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| SftpError::TooLong)?;
    match length {
        0 => Err(SftpError::Short),
        length if length > MAX_PACKET => Err(SftpError::TooLong),
        length => Ok(Some(LENGTH_BYTES + length)),
    }
}

/// Gives a whole packet another request id.
pub fn set_id(packet: &mut [u8], id: u32) {
    if let Some(place) = packet.get_mut(LENGTH_BYTES + 1..HEADER_BYTES) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}
