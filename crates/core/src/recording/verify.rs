//! The proof that a recording is whole, with its key or, by order and chain alone, without.

use std::fmt;

use super::{Header, HeaderError, Reader, Seal, Tally, Tampered};
use crate::id::SessionId;
use crate::secret::MasterKeys;

/// The first bad place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the header.
    Header(HeaderError),
    /// In a record.
    Record(Tampered),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => write!(f, "tampered in the header: {error}"),
            Self::Record(tampered) => tampered.fmt(f),
        }
    }
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How many records are as written.
    pub records: u64,
    /// How many bytes, from the beginning, are as written.
    pub bytes: u64,
    /// Chain hash of the last good record; of a sealed recording the hash that its audit event names.
    pub hash: [u8; 32],
    /// Whether the last good record is the seal.
    pub sealed: bool,
    /// What the seal says; only with the key.
    pub seal: Option<Seal>,
    /// What the good records hold; only with the key.
    pub tally: Option<Tally>,
    /// Bytes of a record that was cut off. In an unsealed recording that is what a crash leaves behind.
    pub torn_bytes: u64,
    /// The first bad place, if there is one.
    pub bad: Option<Place>,
}

impl Verdict {
    /// Tells whether the recording is sealed and nothing of it was changed, added or removed.
    pub const fn is_whole(&self) -> bool {
        self.sealed && self.bad.is_none() && self.torn_bytes == 0
    }

    /// Tells whether everything there is as written, though the recording was not sealed (it runs, or was cut by a
    /// crash).
    pub const fn is_intact(&self) -> bool {
        self.bad.is_none()
    }
}

/// Verifies the recording of a session from its bytes, read in any pieces. Without `keys` only order and chain are
/// checked: whoever can write the file can then recompute it, so compare the hash with the audit event's.
pub fn verify<B: AsRef<[u8]>>(
    session: &SessionId,
    keys: Option<&MasterKeys>,
    pieces: impl IntoIterator<Item = B>,
) -> Verdict {
    let mut verifier = Verifier::new(session, keys);
    for piece in pieces {
        verifier.feed(piece.as_ref());
    }
    verifier.finish()
}

/// As [`verify`], for bytes that come one piece after the other.
pub struct Verifier<'a> {
    session: &'a SessionId,
    keys: Option<&'a MasterKeys>,
    head: Vec<u8>,
    reader: Option<Reader>,
    seal: Option<Seal>,
    bad: Option<Place>,
}

impl<'a> Verifier<'a> {
    /// Begins at the first byte of the file.
    pub const fn new(session: &'a SessionId, keys: Option<&'a MasterKeys>) -> Self {
        Self { session, keys, head: Vec::new(), reader: None, seal: None, bad: None }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.bad.is_some() {
            return;
        }
        match &mut self.reader {
            Some(reader) => reader.feed(bytes),
            None => {
                self.head.extend_from_slice(bytes);
                match self.begin() {
                    Ok(reader) => self.reader = reader,
                    Err(error) => self.bad = Some(Place::Header(error)),
                }
            }
        }
        self.drain();
    }

    /// Returns what was found.
    pub fn finish(self) -> Verdict {
        let Some(reader) = self.reader else {
            return Verdict {
                records: 0,
                bytes: 0,
                hash: [0; 32],
                sealed: false,
                seal: None,
                tally: None,
                torn_bytes: self.head.len() as u64,
                bad: self.bad,
            };
        };
        let position = reader.position();
        Verdict {
            records: position.sequence,
            bytes: position.byte_offset,
            hash: position.chain,
            sealed: position.sealed,
            seal: self.seal,
            tally: position.tally.clone(),
            torn_bytes: if self.bad.is_some() { 0 } else { reader.torn_bytes() },
            bad: self.bad,
        }
    }

    fn begin(&self) -> Result<Option<Reader>, HeaderError> {
        let Some(header) = Header::parse(&self.head)? else { return Ok(None) };
        if header.session != *self.session {
            return Err(HeaderError::OtherSession(header.session));
        }
        let key = self.keys.map(|keys| header.unlock(keys)).transpose()?;
        let mut reader = Reader::new(&header, key);
        reader.feed(self.head.get(header.length()..).unwrap_or_default());
        Ok(Some(reader))
    }

    fn drain(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        loop {
            match reader.next_record() {
                Ok(Some(record)) => self.seal = record.seal.or(self.seal.take()),
                Ok(None) => return,
                Err(tampered) => {
                    self.bad = Some(Place::Record(tampered));
                    return;
                }
            }
        }
    }
}
