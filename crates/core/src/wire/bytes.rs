//! Canonical binary fields for what is signed: fixed order, every field with its length, one encoding per value.

/// Why signed bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Short,
    /// A field is longer than its bound.
    #[error("a field is longer than {0} bytes")]
    TooLong(usize),
    /// A text field is not UTF-8.
    #[error("a text field is not UTF-8")]
    NotText,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    Trailing,
    /// A number stands outside what the field allows.
    #[error("a field holds a value that this version does not know")]
    Unknown,
}

/// Appends fields in their canonical form: numbers big-endian, byte strings behind a 32-bit length.
#[derive(Default)]
pub struct FieldWriter(Vec<u8>);

impl FieldWriter {
    /// Begins with a context string that keeps signatures of one purpose from passing for another (T-21).
    pub fn new(context: &[u8]) -> Self {
        Self(context.to_vec())
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Appends 64 bits, big-endian.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a signed 64-bit number, big-endian.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a byte string behind its 32-bit length.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// Appends a text as its UTF-8 bytes.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    /// Appends a list of texts behind its 32-bit count.
    pub fn texts<T: AsRef<str>>(&mut self, values: &[T]) -> &mut Self {
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&count.to_be_bytes());
        for value in values {
            self.text(value.as_ref());
        }
        self
    }

    /// Returns what was written.
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads fields in the order in which they were written; every length is checked before anything is copied.
pub struct FieldReader<'a>(&'a [u8]);

impl<'a> FieldReader<'a> {
    /// Begins behind the context string, or fails if the bytes do not begin with it.
    pub fn new(bytes: &'a [u8], context: &[u8]) -> Result<Self, FieldError> {
        bytes.strip_prefix(context).map(Self).ok_or(FieldError::Unknown)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], FieldError> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(FieldError::Short)?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        self.take(N)?.try_into().map_err(|_| FieldError::Short)
    }

    fn length(&mut self, limit: usize) -> Result<usize, FieldError> {
        let length = usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| FieldError::TooLong(limit))?;
        if length > limit { Err(FieldError::TooLong(limit)) } else { Ok(length) }
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Result<u8, FieldError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Reads 64 bits, big-endian.
    pub fn u64(&mut self) -> Result<u64, FieldError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads a signed 64-bit number, big-endian.
    pub fn i64(&mut self) -> Result<i64, FieldError> {
        self.array().map(i64::from_be_bytes)
    }

    /// Reads a byte string of at most `limit` bytes.
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], FieldError> {
        let length = self.length(limit)?;
        self.take(length)
    }

    /// Reads a byte string of exactly `N` bytes.
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        self.bytes(N)?.try_into().map_err(|_| FieldError::Short)
    }

    /// Reads a text of at most `limit` bytes.
    pub fn text(&mut self, limit: usize) -> Result<&'a str, FieldError> {
        std::str::from_utf8(self.bytes(limit)?).map_err(|_| FieldError::NotText)
    }

    /// Reads a list of at most `most` texts of together at most `limit` bytes.
    pub fn texts(&mut self, most: usize, limit: usize) -> Result<Vec<String>, FieldError> {
        let count = self.length(most)?;
        let mut total = 0_usize;
        let mut list = Vec::new();
        for _ in 0..count {
            let text = self.text(limit)?;
            total = total.saturating_add(text.len());
            if total > limit {
                return Err(FieldError::TooLong(limit));
            }
            list.push(text.to_owned());
        }
        Ok(list)
    }

    /// Ends the reading; bytes left over are an error, so that one value has one encoding.
    pub fn end(self) -> Result<(), FieldError> {
        if self.0.is_empty() { Ok(()) } else { Err(FieldError::Trailing) }
    }
}
