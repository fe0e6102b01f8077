//! One record: its frame, encryption and place in the hash chain. Shared by writer and reader.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::error::Unspecified;

use super::header::{DataKey, sha256};
use crate::secret::derive_aead_key;

/// Most plaintext bytes of one record.
pub const MAX_RECORD_PAYLOAD: usize = 64 * 1024;
/// Most bytes of one record in the file.
pub const MAX_RECORD_BYTES: usize = HEAD + SALT + MAX_RECORD_PAYLOAD + TAG + CHAIN;

/// Length, sequence, kind and check.
pub(super) const HEAD: usize = 4 + 8 + 1 + CHECK;
pub(super) const SALT: usize = 16;
pub(super) const TAG: usize = 16;
pub(super) const CHAIN: usize = 32;
const CHECK: usize = 4;
const SEGMENT_INFO: &[u8] = b"munjigi recording segment v1";

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// Begins a segment with a key of its own, and holds events. The first record of a file and the first one after
    /// each reopening are of this kind.
    Segment,
    /// Holds events.
    Events,
    /// The last record: end and tallies.
    Seal,
}

impl RecordKind {
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::Events => 2,
            Self::Seal => 3,
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Segment),
            2 => Some(Self::Events),
            3 => Some(Self::Seal),
            _ => None,
        }
    }

    /// Returns the shortest and the longest body.
    pub(super) const fn body_bounds(self) -> (usize, usize) {
        let salt = if matches!(self, Self::Segment) { SALT } else { 0 };
        (salt + TAG, salt + MAX_RECORD_PAYLOAD + TAG)
    }
}

/// The fixed fields at the head of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Bytes between head and chain hash: salt (in a segment record), ciphertext, tag.
    pub body_length: u32,
    pub sequence: u64,
    pub kind: u8,
}

impl Head {
    /// Returns the head's bytes. The last four are a check over the previous chain hash and the other fields: a
    /// changed length is found before a single byte is waited for.
    pub(super) fn to_bytes(self, previous: &[u8; 32]) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        let fields = self.fields();
        let hash = sha256(&[previous, &fields]);
        for (to, from) in bytes.iter_mut().zip(fields.iter().chain(hash.iter().take(CHECK))) {
            *to = *from;
        }
        bytes
    }

    fn fields(self) -> [u8; HEAD - CHECK] {
        let mut fields = [0; HEAD - CHECK];
        let source = self.body_length.to_be_bytes().into_iter().chain(self.sequence.to_be_bytes()).chain([self.kind]);
        for (to, from) in fields.iter_mut().zip(source) {
            *to = from;
        }
        fields
    }

    pub(super) fn from_bytes(bytes: &[u8; HEAD]) -> Self {
        let [l3, l2, l1, l0, s7, s6, s5, s4, s3, s2, s1, s0, kind, ..] = *bytes;
        Self {
            body_length: u32::from_be_bytes([l3, l2, l1, l0]),
            sequence: u64::from_be_bytes([s7, s6, s5, s4, s3, s2, s1, s0]),
            kind,
        }
    }
}

/// Returns the chain hash of a record: over the previous one and everything of this record before its own.
pub(super) fn chain_hash(previous: &[u8; 32], head: &[u8; HEAD], body: &[u8]) -> [u8; 32] {
    sha256(&[previous, head, body])
}

/// The key of one segment. A new segment has a new key, so that a sequence number used again after a crash never
/// meets the nonce of a record that was cut off.
pub(super) struct SegmentKey(LessSafeKey);

impl SegmentKey {
    pub(super) fn derive(key: &DataKey, salt: &[u8; SALT]) -> Result<Self, Unspecified> {
        derive_aead_key(key.expose(), salt, SEGMENT_INFO).map(Self)
    }

    /// Encrypts the bytes of `out` from `start` on and appends the tag.
    pub(super) fn seal(
        &self,
        previous: &[u8; 32],
        head: &[u8; HEAD],
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), Unspecified> {
        let plaintext = out.get_mut(start..).ok_or(Unspecified)?;
        let tag = self.0.seal_in_place_separate_tag(nonce(head), associated(previous, head), plaintext)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Decrypts a ciphertext with its tag in place and cuts the tag off.
    pub(super) fn open(&self, previous: &[u8; 32], head: &[u8; HEAD], sealed: &mut Vec<u8>) -> Result<(), Unspecified> {
        let length = self.0.open_in_place(nonce(head), associated(previous, head), sealed)?.len();
        sealed.truncate(length);
        Ok(())
    }
}

/// The nonce is the sequence number: used once under a segment's key.
fn nonce(head: &[u8; HEAD]) -> Nonce {
    let [_, _, _, _, s7, s6, s5, s4, s3, s2, s1, s0, ..] = *head;
    Nonce::assume_unique_for_key([0, 0, 0, 0, s7, s6, s5, s4, s3, s2, s1, s0])
}

/// Associated data: the previous chain hash, which covers header and all records before, and this record's head.
fn associated(previous: &[u8; 32], head: &[u8; HEAD]) -> Aad<[u8; 32 + HEAD]> {
    let mut data = [0; 32 + HEAD];
    for (to, from) in data.iter_mut().zip(previous.iter().chain(head)) {
        *to = *from;
    }
    Aad::from(data)
}
