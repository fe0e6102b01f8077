//! Secrets as types: they print nothing and are wiped when dropped; the master key and the envelope around secrets at
//! rest (T-100). Where keys come from and where sealed bytes are stored is not decided here.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf;
use zeroize::Zeroize;

use crate::wire::bytes::FieldWriter;

/// A value that never appears in `Debug` output, logs or errors and is wiped when dropped.
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Wraps a value; the caller keeps no other copy of it.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Returns the value itself. Each call is a place where the secret can leak: keep it short.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Length of the sealed form beyond the plaintext.
pub const ENVELOPE_OVERHEAD: usize = 1 + 4 + SALT_LENGTH + TAG_LENGTH;
/// Longest plaintext that is sealed in one envelope.
pub const MAX_SEALED_PLAINTEXT: usize = 1024 * 1024;

const FORMAT: u8 = 1;
const SALT_LENGTH: usize = 32;
const TAG_LENGTH: usize = 16;
const INFO: &[u8] = b"munjigi envelope v1";

/// Why a sealed secret could not be made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The plaintext is longer than [`MAX_SEALED_PLAINTEXT`].
    #[error("the secret is too long to be sealed")]
    TooLong,
    /// The bytes are no envelope of a format this version knows.
    #[error("the sealed bytes have an unknown format")]
    Format,
    /// It was sealed under a master key that is not loaded.
    #[error("the secret was sealed under master key version {0}, which is not loaded")]
    UnknownMasterKey(u32),
    /// The bytes were altered, moved from another place, or sealed under another key of the same version.
    #[error("the sealed bytes do not open: altered, moved from elsewhere, or the wrong master key")]
    Opened,
}

/// A key that wraps other keys and secrets, with its version. Never used on data directly.
pub struct MasterKey {
    version: u32,
    key: Secret<[u8; 32]>,
}

impl MasterKey {
    /// Takes 32 random bytes as the master key of a version.
    pub const fn new(version: u32, key: [u8; 32]) -> Self {
        Self { version, key: Secret::new(key) }
    }

    /// Returns the version that is written beside everything sealed under it.
    pub const fn version(&self) -> u32 {
        self.version
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey(version {})", self.version)
    }
}

/// The master keys in use: one seals, the earlier ones still open what they sealed, so that a rotation can re-wrap
/// without downtime (T-100).
#[derive(Debug)]
pub struct MasterKeys {
    current: MasterKey,
    earlier: Vec<MasterKey>,
}

impl MasterKeys {
    /// Holds the key that seals and the earlier ones that only open.
    pub const fn new(current: MasterKey, earlier: Vec<MasterKey>) -> Self {
        Self { current, earlier }
    }

    /// Returns the key that seals.
    pub const fn current(&self) -> &MasterKey {
        &self.current
    }

    fn get(&self, version: u32) -> Option<&MasterKey> {
        std::iter::once(&self.current).chain(&self.earlier).find(|key| key.version == version)
    }
}

/// The place that a sealed secret belongs to; it opens nowhere else, so that sealed values cannot be swapped.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The table, or the kind of file.
    pub table: &'a str,
    /// The row's id.
    pub row: &'a str,
    /// The column.
    pub column: &'a str,
}

/// Seals a secret for one place (T-100). `salt` is 32 fresh random bytes.
///
/// Layout: format (1 byte), master key version (4, big-endian), salt (32), ciphertext, tag (16). Each envelope has its
/// own AES-256-GCM key, HKDF-SHA-256 of master key and salt, so the nonce can be zero. Associated data: format,
/// version and place.
pub fn seal_secret(
    master: &MasterKey,
    place: Place<'_>,
    plaintext: &[u8],
    salt: [u8; 32],
) -> Result<Vec<u8>, EnvelopeError> {
    if plaintext.len() > MAX_SEALED_PLAINTEXT {
        return Err(EnvelopeError::TooLong);
    }
    let mut sealed = Vec::with_capacity(plaintext.len() + ENVELOPE_OVERHEAD);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&master.version.to_be_bytes());
    sealed.extend_from_slice(&salt);
    let mut body = plaintext.to_vec();
    let key = derive_aead_key(master.key.expose(), &salt, INFO).map_err(|_| EnvelopeError::Opened)?;
    let done = key.seal_in_place_append_tag(zero_nonce(), associated_data(master.version, place), &mut body);
    if done.is_err() {
        body.zeroize();
        return Err(EnvelopeError::TooLong);
    }
    sealed.extend_from_slice(&body);
    Ok(sealed)
}

/// Opens what [`seal_secret`] sealed for the same place.
pub fn open_secret(keys: &MasterKeys, place: Place<'_>, sealed: &[u8]) -> Result<Secret<Vec<u8>>, EnvelopeError> {
    let (format, rest) = sealed.split_first().ok_or(EnvelopeError::Format)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or(EnvelopeError::Format)?;
    let (salt, body) = rest.split_first_chunk::<SALT_LENGTH>().ok_or(EnvelopeError::Format)?;
    if *format != FORMAT || body.len() < TAG_LENGTH || body.len() > MAX_SEALED_PLAINTEXT + TAG_LENGTH {
        return Err(EnvelopeError::Format);
    }
    let version = u32::from_be_bytes(*version);
    let master = keys.get(version).ok_or(EnvelopeError::UnknownMasterKey(version))?;
    let key = derive_aead_key(master.key.expose(), salt, INFO).map_err(|_| EnvelopeError::Opened)?;
    let mut body = body.to_vec();
    let length = key
        .open_in_place(zero_nonce(), associated_data(version, place), &mut body)
        .map_err(|_| EnvelopeError::Opened)?
        .len();
    body.truncate(length);
    Ok(Secret::new(body))
}

/// Derives an AES-256-GCM key from a 32-byte key, a salt and a purpose (HKDF-SHA-256).
pub(crate) fn derive_aead_key(key: &[u8; 32], salt: &[u8], info: &[u8]) -> Result<LessSafeKey, Unspecified> {
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    Ok(LessSafeKey::new(UnboundKey::from(derived.expand(&[info], &AES_256_GCM)?)))
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn associated_data(version: u32, place: Place<'_>) -> Aad<Vec<u8>> {
    let mut fields = FieldWriter::new(INFO);
    fields.u8(FORMAT).u64(u64::from(version)).text(place.table).text(place.row).text(place.column);
    Aad::from(fields.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { table: "access_key", row: "AKIA", column: "secret" };

    fn keys() -> MasterKeys {
        MasterKeys::new(MasterKey::new(2, [2; 32]), vec![MasterKey::new(1, [1; 32])])
    }

    #[test]
    fn a_sealed_secret_opens_at_its_place_only() {
        let sealed = seal_secret(keys().current(), PLACE, b"a marker in plain text", [9; 32]).unwrap();
        assert_eq!(sealed.len(), 22 + ENVELOPE_OVERHEAD);
        assert!(!sealed.windows(6).any(|window| window == b"marker"));
        assert_eq!(open_secret(&keys(), PLACE, &sealed).unwrap().expose(), b"a marker in plain text");
        for elsewhere in [
            Place { table: "access_keys", ..PLACE },
            Place { row: "AKIB", ..PLACE },
            Place { column: "secre", ..PLACE },
            Place { table: "access_keyA", row: "KIA", ..PLACE },
        ] {
            assert_eq!(open_secret(&keys(), elsewhere, &sealed).unwrap_err(), EnvelopeError::Opened);
        }
    }

    #[test]
    fn every_altered_or_missing_byte_is_found() {
        let sealed = seal_secret(keys().current(), PLACE, b"secret", [9; 32]).unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut altered = sealed.clone();
                altered[at] ^= 1 << bit;
                assert!(open_secret(&keys(), PLACE, &altered).is_err(), "byte {at} bit {bit}");
            }
            assert!(open_secret(&keys(), PLACE, &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn earlier_master_keys_still_open_and_unknown_ones_are_named() {
        let sealed = seal_secret(&MasterKey::new(1, [1; 32]), PLACE, b"x", [9; 32]).unwrap();
        assert_eq!(open_secret(&keys(), PLACE, &sealed).unwrap().expose(), b"x");
        let only_new = MasterKeys::new(MasterKey::new(2, [2; 32]), Vec::new());
        assert_eq!(open_secret(&only_new, PLACE, &sealed).unwrap_err(), EnvelopeError::UnknownMasterKey(1));
    }

    #[test]
    fn nothing_of_a_secret_is_printed() {
        let shown = format!("{:?} {:?}", Secret::new("hidden".to_owned()), keys());
        assert_eq!(shown, "Secret(..) MasterKeys { current: MasterKey(version 2), earlier: [MasterKey(version 1)] }");
    }
}
