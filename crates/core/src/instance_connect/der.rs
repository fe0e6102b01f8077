//! DER, read from front to back; what is not whole is `None`.

use der::asn1::AnyRef;
use der::{Decode as _, Reader as _, SliceReader, Tag, Tagged as _};

/// Values that follow each other.
pub(super) struct Values<'a>(SliceReader<'a>);

/// One value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    /// What it is.
    pub(super) tag: Tag,
    /// Its content.
    pub(super) content: &'a [u8],
    /// All of it, tag and length included.
    pub(super) whole: &'a [u8],
}

impl<'a> Values<'a> {
    /// Reads values out of bytes; `None` for more bytes than any of ours has.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        SliceReader::new(bytes).ok().map(Self)
    }

    /// Reads the next value; `None` behind the last one and before what is none.
    pub(super) fn next(&mut self) -> Option<Value<'a>> {
        let whole = self.0.tlv_bytes().ok()?;
        let any = AnyRef::from_der(whole).ok()?;
        Some(Value { tag: any.tag(), content: any.value(), whole })
    }

    /// Reads the next value, which has to be of this kind.
    pub(super) fn expect(&mut self, tag: Tag) -> Option<Value<'a>> {
        self.next().filter(|value| value.tag == tag)
    }

    /// Reads the next value if it is of this kind.
    pub(super) fn optional(&mut self, tag: Tag) -> Option<Value<'a>> {
        (Tag::peek(&self.0).ok()? == tag).then(|| self.next()).flatten()
    }

    /// Tells whether nothing follows.
    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_finished()
    }
}

impl<'a> Value<'a> {
    /// Returns the values inside.
    pub(super) fn inside(&self) -> Option<Values<'a>> {
        Values::new(self.content)
    }

    /// Returns the bytes of a bit string that is made of whole ones.
    pub(super) fn bits(&self) -> Option<&'a [u8]> {
        match self.content.split_first()? {
            (0, bytes) if self.tag == Tag::BitString => Some(bytes),
            _ => None,
        }
    }
}

/// Reads bytes that are one value of this kind and nothing else.
pub(super) fn only(bytes: &[u8], tag: Tag) -> Option<Value<'_>> {
    let mut values = Values::new(bytes)?;
    let value = values.expect(tag)?;
    values.is_at_end().then_some(value)
}
