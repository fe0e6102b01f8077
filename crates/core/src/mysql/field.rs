//! Fields inside a packet: integers in little-endian order, texts, and length-encoded forms of both.

/// Reads fields from the front of a packet's payload; every reader returns `None` where the payload is too short.
pub(super) struct Fields<'p>(&'p [u8]);

impl<'p> Fields<'p> {
    pub(super) fn new(payload: &'p [u8]) -> Self {
        Self(payload)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Option<&'p [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes(4)?.try_into().ok()?))
    }

    /// An integer of one, three, four or nine bytes; the marks for NULL and for errors are no integers.
    pub(super) fn length_encoded(&mut self) -> Option<u64> {
        let more = match self.u8()? {
            small @ 0..=0xfa => return Some(u64::from(small)),
            0xfc => 2,
            0xfd => 3,
            0xfe => 8,
            _ => return None,
        };
        let mut wide = [0; 8];
        wide.get_mut(..more)?.copy_from_slice(self.bytes(more)?);
        Some(u64::from_le_bytes(wide))
    }

    /// Bytes behind their length.
    pub(super) fn length_encoded_bytes(&mut self) -> Option<&'p [u8]> {
        let length = self.length_encoded()?;
        self.bytes(usize::try_from(length).ok()?)
    }

    /// Bytes up to a NUL, which is taken as well.
    pub(super) fn until_nul(&mut self) -> Option<&'p [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let taken = self.bytes(end)?;
        self.bytes(1)?;
        Some(taken)
    }

    /// Bytes up to a NUL or the end: some programs leave the last NUL of a packet away.
    pub(super) fn until_nul_or_end(&mut self) -> &'p [u8] {
        self.until_nul().unwrap_or_else(|| self.rest())
    }

    pub(super) fn rest(&mut self) -> &'p [u8] {
        std::mem::take(&mut self.0)
    }
}

/// Appends an integer in its shortest length-encoded form.
pub(super) fn put_length(out: &mut Vec<u8>, value: u64) {
    let bytes = value.to_le_bytes();
    let (mark, count) = match value {
        0..=0xfa => (None, 1),
        0xfb..=0xffff => (Some(0xfc), 2),
        0x1_0000..=0xff_ffff => (Some(0xfd), 3),
        _ => (Some(0xfe), 8),
    };
    out.extend(mark);
    out.extend(bytes.iter().take(count));
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length_come_back() {
        for value in [0, 1, 0xfa, 0xfb, 0xff, 0x100, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000, u64::MAX] {
            let mut out = Vec::new();
            put_length(&mut out, value);
            let mut fields = Fields::new(&out);
            assert_eq!((fields.length_encoded(), fields.rest().len()), (Some(value), 0), "{out:?}");
            out.pop();
            assert_eq!(Fields::new(&out).length_encoded(), None, "{out:?}");
        }
        assert_eq!(Fields::new(&[0xfb]).length_encoded(), None);
        assert_eq!(Fields::new(&[0xff, 1, 2]).length_encoded(), None);
    }

    #[test]
    fn a_length_beyond_the_payload_is_refused_before_anything_is_taken() {
        assert_eq!(Fields::new(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255, 1]).length_encoded_bytes(), None);
        assert_eq!(Fields::new(&[3, b'a', b'b', b'c', b'd']).length_encoded_bytes(), Some(&b"abc"[..]));
        assert_eq!(Fields::new(b"ab\0c").until_nul(), Some(&b"ab"[..]));
        assert_eq!(Fields::new(b"ab").until_nul(), None);
        assert_eq!(Fields::new(b"ab").until_nul_or_end(), b"ab");
    }
}
