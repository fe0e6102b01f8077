//! What is said of a file: size, owner, mode, times.

use super::fields::{Fields, SftpError, put_u32, put_u64};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;
/// Extended attributes that are read past; more are refused.
const MAX_EXTENDED: u32 = 16;

/// User and group, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Seconds since 1970; version 3 has no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Last read.
    pub accessed: u32,
    /// Last changed.
    pub modified: u32,
}

/// Attributes; what is absent is not known, or shall stay as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// Whose.
    pub owner: Option<Owner>,
    /// Mode with the file's type, as in `st_mode`.
    pub permissions: Option<u32>,
    /// Times.
    pub times: Option<Times>,
}

impl Attributes {
    pub(super) fn get(fields: &mut Fields<'_>) -> Result<Self, SftpError> {
        let flags = fields.u32()?;
        if flags & !(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED) != 0 {
            return Err(SftpError::Value);
        }
        let mut attributes = Self::default();
        if flags & SIZE != 0 {
            attributes.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some(Owner { uid: fields.u32()?, gid: fields.u32()? });
        }
        if flags & PERMISSIONS != 0 {
            attributes.permissions = Some(fields.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some(Times { accessed: fields.u32()?, modified: fields.u32()? });
        }
        if flags & EXTENDED != 0 {
            let count = fields.u32()?;
            if count > MAX_EXTENDED {
                return Err(SftpError::TooLong);
            }
            for _ in 0..count {
                fields.bytes()?;
                fields.bytes()?;
            }
        }
        Ok(attributes)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let flag = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        let flags = flag(self.size.is_some(), SIZE)
            | flag(self.owner.is_some(), OWNER)
            | flag(self.permissions.is_some(), PERMISSIONS)
            | flag(self.times.is_some(), TIMES);
        put_u32(out, flags);
        if let Some(size) = self.size {
            put_u64(out, size);
        }
        if let Some(Owner { uid, gid }) = self.owner {
            put_u32(out, uid);
            put_u32(out, gid);
        }
        if let Some(permissions) = self.permissions {
            put_u32(out, permissions);
        }
        if let Some(Times { accessed, modified }) = self.times {
            put_u32(out, accessed);
            put_u32(out, modified);
        }
    }
}
