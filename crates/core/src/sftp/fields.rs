//! The fields of packets: numbers are big-endian, byte strings stand behind a length of 32 bits.

use super::{Handle, MAX_PATH};

/// Why bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SftpError {
    /// They end inside of a field.
    #[error("a packet ends inside of a field")]
    Short,
    /// Bytes follow the last field.
    #[error("bytes follow the last field of a packet")]
    Trailing,
    /// A packet, a path or a list is longer than it may be.
    #[error("a packet, or a part of one, is longer than it may be")]
    TooLong,
    /// A kind that is not known, or may not come from that side.
    #[error("a packet has the unknown kind {0}")]
    Kind(u8),
    /// A number or text outside of what its field may hold.
    #[error("a field of a packet holds what it may not")]
    Value,
}

/// Reads fields.
#[derive(Clone)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], SftpError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(SftpError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, SftpError> {
        self.take(1)?.first().copied().ok_or(SftpError::Short)
    }

    pub(super) fn u32(&mut self) -> Result<u32, SftpError> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or(SftpError::Short)
    }

    pub(super) fn u64(&mut self) -> Result<u64, SftpError> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or(SftpError::Short)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], SftpError> {
        let length = usize::try_from(self.u32()?).map_err(|_| SftpError::TooLong)?;
        self.take(length)
    }

    /// Reads a path: no NUL, and not longer than the system takes.
    pub(super) fn path(&mut self) -> Result<&'a [u8], SftpError> {
        let path = self.bytes()?;
        match path {
            path if path.len() > MAX_PATH => Err(SftpError::TooLong),
            path if path.contains(&0) => Err(SftpError::Value),
            path => Ok(path),
        }
    }

    pub(super) fn handle(&mut self) -> Result<Handle, SftpError> {
        self.bytes()?.try_into().map(u32::from_be_bytes).map_err(|_| SftpError::Value)
    }

    /// Returns whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn end(self) -> Result<(), SftpError> {
        if self.0.is_empty() { Ok(()) } else { Err(SftpError::Trailing) }
    }
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    out.extend_from_slice(bytes);
}

pub(super) fn put_handle(out: &mut Vec<u8>, handle: Handle) {
    put_bytes(out, &handle.to_be_bytes());
}

/// Appends a packet whose body `fill` writes.
pub(super) fn put_packet(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    put_u32(out, 0);
    out.push(kind);
    fill(out);
    let length = u32::try_from(out.len() - begin - super::LENGTH_BYTES).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(begin..begin + super::LENGTH_BYTES) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}
