//! The head of a recording file: which session, since when, and its data key wrapped under the master key.

use std::fmt;

use aws_lc_rs::digest;

use crate::id::SessionId;
use crate::secret::{EnvelopeError, MasterKey, MasterKeys, Place, Secret, open_secret, seal_secret};
use crate::time::Timestamp;
use crate::wire::bytes::{FieldReader, FieldWriter};

/// The version of the format that is written.
pub const VERSION: u16 = 1;
/// Longest header of any version.
pub const MAX_HEADER_BYTES: usize = 1024;

const MAGIC: &[u8; 8] = b"MUNJIREC";
/// Magic, version and the length of the whole header.
const FIXED: usize = 8 + 2 + 2;
const HASH: usize = 32;
const MAX_SESSION_ID: usize = 96;
const MAX_WRAPPED_KEY: usize = 256;

/// The key of one recording; wiped when dropped, prints nothing.
#[derive(Clone)]
pub struct DataKey(Secret<[u8; 32]>);

impl DataKey {
    /// Takes 32 random bytes as the key of one recording.
    pub const fn new(key: [u8; 32]) -> Self {
        Self(Secret::new(key))
    }

    pub(super) const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

/// Why the head of a file is not that of a readable recording.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file does not begin as a recording does.
    #[error("the file is not a recording")]
    NotARecording,
    /// The file was written by a version that this one does not know.
    #[error("the recording has format version {0}, this program reads version 1")]
    UnknownVersion(u16),
    /// Header bytes were changed: their hash does not fit.
    #[error("the recording's header was changed")]
    Changed,
    /// The header is of another session than expected.
    #[error("the recording belongs to session {0}")]
    OtherSession(SessionId),
    /// The data key does not open.
    #[error("the recording's key cannot be opened: {0}")]
    Key(#[from] EnvelopeError),
}

/// The head of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The session recorded.
    pub session: SessionId,
    /// When the file was made.
    pub created: Timestamp,
    wrapped_key: Vec<u8>,
    /// SHA-256 of the header's bytes: where the chain of records begins.
    hash: [u8; 32],
    length: usize,
}

impl Header {
    /// Makes the head of a new file and appends its bytes. `salt` is 32 fresh random bytes.
    pub(super) fn create(
        master: &MasterKey,
        session: &SessionId,
        created: Timestamp,
        key: &DataKey,
        salt: [u8; 32],
        out: &mut Vec<u8>,
    ) -> Result<Self, EnvelopeError> {
        let wrapped_key = seal_secret(master, place(session), key.expose(), salt)?;
        let mut fields = FieldWriter::default();
        fields.text(session.as_str()).i64(created.0).bytes(&wrapped_key);
        let fields = fields.finish();
        let length = FIXED + fields.len() + HASH;
        let start = out.len();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&u16::try_from(length).map_err(|_| EnvelopeError::TooLong)?.to_be_bytes());
        out.extend_from_slice(&fields);
        let hash = sha256(&[out.get(start..).unwrap_or_default()]);
        out.extend_from_slice(&hash);
        Ok(Self { session: session.clone(), created, wrapped_key, hash, length })
    }

    /// Reads the header at the beginning of `bytes`; `None` if more bytes are needed (never more than
    /// [`MAX_HEADER_BYTES`]).
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, HeaderError> {
        let head = bytes.get(..bytes.len().min(MAGIC.len())).unwrap_or_default();
        if !MAGIC.starts_with(head) {
            return Err(HeaderError::NotARecording);
        }
        let Some((fixed, _)) = bytes.split_first_chunk::<FIXED>() else { return Ok(None) };
        let [.., v1, v0, l1, l0] = *fixed;
        let (version, length) = (u16::from_be_bytes([v1, v0]), usize::from(u16::from_be_bytes([l1, l0])));
        if version != VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        if !(FIXED + HASH..=MAX_HEADER_BYTES).contains(&length) {
            return Err(HeaderError::Changed);
        }
        let Some(whole) = bytes.get(..length) else { return Ok(None) };
        let (content, hash) = whole.split_last_chunk::<HASH>().ok_or(HeaderError::Changed)?;
        if sha256(&[content]) != *hash {
            return Err(HeaderError::Changed);
        }
        Self::fields(content, *hash, length).map(Some).ok_or(HeaderError::Changed)
    }

    fn fields(content: &[u8], hash: [u8; 32], length: usize) -> Option<Self> {
        let mut fields = FieldReader::new(content.get(FIXED..)?, b"").ok()?;
        let session = SessionId::parse(fields.text(MAX_SESSION_ID).ok()?).ok()?;
        let created = Timestamp(fields.i64().ok()?);
        let wrapped_key = fields.bytes(MAX_WRAPPED_KEY).ok()?.to_vec();
        fields.end().ok()?;
        Some(Self { session, created, wrapped_key, hash, length })
    }

    /// Opens the data key.
    pub fn unlock(&self, keys: &MasterKeys) -> Result<DataKey, HeaderError> {
        let key = open_secret(keys, place(&self.session), &self.wrapped_key)?;
        let key: [u8; 32] = key.expose().as_slice().try_into().map_err(|_| EnvelopeError::Format)?;
        Ok(DataKey::new(key))
    }

    /// Returns how many bytes the header has in its file; records follow.
    pub const fn length(&self) -> usize {
        self.length
    }

    pub(super) const fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// Binds the wrapped key to purpose, session and version of the format.
fn place(session: &SessionId) -> Place<'_> {
    Place { table: "recording", row: session.as_str(), column: "data-key-v1" }
}

pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    hash
}
