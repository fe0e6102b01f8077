//! The trust bundle: which keys a node believes for which purpose, signed by the deployment's root (T-20, T-21).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use crate::time::Timestamp;
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

const CONTEXT: &[u8] = b"munjigi trust bundle v1\0";
/// Most keys in one bundle: current and next of every purpose, with room for overlap.
const MAX_KEYS: u8 = 32;

/// Names a key: the first 16 bytes of the SHA-256 of its public half.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl KeyId {
    /// Derives the id of a public key.
    pub fn of(public_key: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key);
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Self(id)
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What a key may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPurpose {
    /// Start grants.
    Grant,
    /// Audit checkpoints.
    Checkpoint,
}

/// One key and what it is trusted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Its id.
    pub id: KeyId,
    /// The only thing it may sign.
    pub purpose: KeyPurpose,
    /// Ed25519 public key.
    pub public: [u8; 32],
    /// Trusted from here on.
    pub not_before: Timestamp,
    /// Trusted until here.
    pub not_after: Timestamp,
}

/// The list of trusted keys, with a version that only rises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// Rises with every change; an older bundle is refused (T-18).
    pub version: u64,
    /// The keys.
    pub keys: Vec<TrustedKey>,
}

/// Why a trust bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// The bytes are no bundle of this version.
    #[error("the trust bundle is malformed: {0}")]
    Malformed(#[from] FieldError),
    /// Not signed by the root that was pinned when the node joined.
    #[error("the trust bundle is not signed by the deployment root that this node joined")]
    BadSignature,
    /// Older than what the node has.
    #[error("the trust bundle has version {offered}, older than version {held} that this node holds")]
    Older {
        /// Version offered.
        offered: u64,
        /// Version held.
        held: u64,
    },
}

impl TrustBundle {
    /// Signs the bundle with the deployment root.
    pub fn sign(&self, root: &Ed25519KeyPair) -> Vec<u8> {
        let mut body = FieldWriter::new(CONTEXT);
        body.u64(self.version).u8(u8::try_from(self.keys.len()).unwrap_or(u8::MAX));
        for key in &self.keys {
            body.u8(match key.purpose {
                KeyPurpose::Grant => 1,
                KeyPurpose::Checkpoint => 2,
            })
            .bytes(&key.public)
            .i64(key.not_before.0)
            .i64(key.not_after.0);
        }
        let body = body.finish();
        let mut signed = FieldWriter::default();
        signed.bytes(root.sign(&body).as_ref()).bytes(&body);
        signed.finish()
    }

    /// Verifies a signed bundle against the pinned root and the version already held.
    pub fn verify(signed: &[u8], root: &[u8; 32], held_version: u64) -> Result<Self, TrustError> {
        let mut fields = FieldReader::new(signed, b"")?;
        let signature: [u8; 64] = fields.fixed()?;
        let body = fields.bytes(8192)?;
        fields.end()?;
        UnparsedPublicKey::new(&ED25519, root).verify(body, &signature).map_err(|_| TrustError::BadSignature)?;
        let mut fields = FieldReader::new(body, CONTEXT)?;
        let version = fields.u64()?;
        let count = fields.u8()?;
        if count > MAX_KEYS {
            return Err(FieldError::TooLong(usize::from(MAX_KEYS)).into());
        }
        let mut keys = Vec::new();
        for _ in 0..count {
            let purpose = match fields.u8()? {
                1 => KeyPurpose::Grant,
                2 => KeyPurpose::Checkpoint,
                _ => return Err(FieldError::Unknown.into()),
            };
            let public: [u8; 32] = fields.fixed()?;
            let (not_before, not_after) = (Timestamp(fields.i64()?), Timestamp(fields.i64()?));
            keys.push(TrustedKey { id: KeyId::of(&public), purpose, public, not_before, not_after });
        }
        fields.end()?;
        if version < held_version {
            return Err(TrustError::Older { offered: version, held: held_version });
        }
        Ok(Self { version, keys })
    }

    /// Returns the public half of a grant key that is trusted now; a key of another purpose is none (T-21).
    pub fn grant_key(&self, id: KeyId, now: Timestamp) -> Option<&[u8; 32]> {
        self.keys
            .iter()
            .find(|key| {
                key.id == id && key.purpose == KeyPurpose::Grant && key.not_before <= now && now <= key.not_after
            })
            .map(|key| &key.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::KeyPair;

    fn root(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = key.public_key().as_ref().try_into().unwrap();
        (key, public)
    }

    fn bundle() -> TrustBundle {
        let public = root(5).1;
        TrustBundle {
            version: 3,
            keys: vec![TrustedKey {
                id: KeyId::of(&public),
                purpose: KeyPurpose::Grant,
                public,
                not_before: Timestamp(10),
                not_after: Timestamp(20),
            }],
        }
    }

    #[test]
    fn only_the_pinned_root_and_no_older_version_is_believed() {
        let (key, public) = root(1);
        let signed = bundle().sign(&key);
        assert_eq!(TrustBundle::verify(&signed, &public, 3), Ok(bundle()));
        assert_eq!(TrustBundle::verify(&signed, &public, 4), Err(TrustError::Older { offered: 3, held: 4 }));
        assert_eq!(TrustBundle::verify(&signed, &root(2).1, 0), Err(TrustError::BadSignature));
        for at in 0..signed.len() {
            let mut altered = signed.clone();
            altered[at] ^= 1;
            assert!(TrustBundle::verify(&altered, &public, 0).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_key_counts_only_in_its_time() {
        let bundle = bundle();
        let id = bundle.keys[0].id;
        for (now, trusted) in [(9, false), (10, true), (20, true), (21, false)] {
            assert_eq!(bundle.grant_key(id, Timestamp(now)).is_some(), trusted);
        }
    }
}
