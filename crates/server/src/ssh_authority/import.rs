//! A key of somebody's own authority, brought along because their sshds and known_hosts believe it already: read
//! strictly, and taken only if it is as good as one of ours.

use munjigi_core::secret::Secret;
use russh::keys::{Algorithm, PrivateKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest text that is read, in bytes; an RSA key of [`MAX_RSA_BITS`] takes half of it.
const MAX_TEXT: usize = 16 * 1024;
/// Fewest bits of an RSA key that vouches for others: as long a life as a signature's needs (NIST SP 800-57).
const MIN_RSA_BITS: usize = 3072;
/// Most bits; each login costs a check of a signature.
const MAX_RSA_BITS: usize = 8192;

/// Why a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// It is not a private key as ssh-keygen writes it.
    #[error(
        "this is no private key in OpenSSH's own form; `ssh-keygen -p -f FILE` writes one of another form anew in it"
    )]
    NotAKey,
    /// It has a passphrase, which whoever brings it has to open.
    #[error("the private key has a passphrase; take it off before it is sent")]
    Encrypted,
    /// An RSA key that is too short, or too long.
    #[error("an RSA key that vouches for others has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {0}")]
    RsaSize(usize),
    /// A type that signs no certificates here.
    #[error("keys of the type {0} are not taken; an authority has an ed25519, ECDSA or RSA key")]
    Type(String),
}

/// A private key that may become an authority's.
#[derive(Clone)]
pub struct ImportedKey {
    key: PrivateKey,
}

impl std::fmt::Debug for ImportedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportedKey").finish_non_exhaustive()
    }
}

impl ImportedKey {
    /// Reads a private key without a passphrase, as ssh-keygen writes it.
    pub fn read(text: &str) -> Result<Self, ImportError> {
        if text.len() > MAX_TEXT {
            return Err(ImportError::NotAKey);
        }
        let mut key = PrivateKey::from_openssh(text).map_err(|_| ImportError::NotAKey)?;
        match key.algorithm() {
            // What is encrypted says its type too, so the type comes first: a passphrase would be asked in vain.
            Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => {}
            Algorithm::Rsa { .. } => {
                let bits = rsa_bits(key.public_key()).unwrap_or(0);
                if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
                    return Err(ImportError::RsaSize(bits));
                }
            }
            other => return Err(ImportError::Type(other.as_str().to_owned())),
        }
        if key.is_encrypted() {
            return Err(ImportError::Encrypted);
        }
        // It is nobody's business here, and it may say something of its owner.
        key.set_comment("");
        Ok(Self { key })
    }

    /// Gives the key away.
    pub(super) fn into_key(self) -> PrivateKey {
        self.key
    }
}

fn rsa_bits(key: &russh::keys::PublicKey) -> Option<usize> {
    let modulus = key.key_data().rsa()?.n().as_positive_bytes()?;
    let first = modulus.first()?;
    Some(modulus.len() * 8 - usize::try_from(first.leading_zeros()).ok()?)
}

/// Says that there is one, for the audit record.
impl Serialize for ImportedKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("HIDDEN_DUE_TO_SECURITY_REASONS")
    }
}

impl<'de> Deserialize<'de> for ImportedKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde's own error would show what it found.
        let text = String::deserialize(deserializer).map_err(|_| de::Error::custom("PrivateKey must be a text"))?;
        let text = Secret::new(text);
        Self::read(text.expose()).map_err(|error| de::Error::custom(format!("PrivateKey: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Has ssh-keygen make a key.
    fn made(options: &[&str]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca");
        let ran = Command::new("ssh-keygen").arg("-q").args(options).arg("-f").arg(&path).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn keys_that_may_vouch_are_taken_and_each_other_is_refused_with_its_reason() {
        let table: [(&[&str], Option<ImportError>); 8] = [
            (&["-t", "ed25519", "-N", ""], None),
            (&["-t", "ecdsa", "-b", "256", "-N", ""], None),
            (&["-t", "ecdsa", "-b", "384", "-N", ""], None),
            (&["-t", "ecdsa", "-b", "521", "-N", ""], None),
            (&["-t", "rsa", "-b", "3072", "-N", ""], None),
            (&["-t", "rsa", "-b", "2048", "-N", ""], Some(ImportError::RsaSize(2048))),
            (&["-t", "ed25519", "-N", "a passphrase"], Some(ImportError::Encrypted)),
            (&["-t", "rsa", "-b", "3072", "-N", "", "-m", "PEM"], Some(ImportError::NotAKey)),
        ];
        for (options, wanted) in table {
            assert_eq!(ImportedKey::read(&made(options)).err(), wanted, "{options:?}");
        }
        for bad in ["", "ssh-ed25519 AAAA", &"x".repeat(MAX_TEXT + 1)] {
            assert_eq!(ImportedKey::read(bad).err(), Some(ImportError::NotAKey));
        }
    }

    #[test]
    fn nothing_shows_a_key() {
        let text = made(&["-t", "ed25519", "-N", ""]);
        let key = ImportedKey::read(&text).unwrap();
        let shown = format!("{key:?}{}", serde_json::to_string(&key).unwrap());
        assert!(shown.contains("HIDDEN") && !shown.contains(text.lines().nth(1).unwrap()), "{shown}");
        let error = serde_json::from_str::<ImportedKey>(r#"["hush"]"#).unwrap_err().to_string();
        assert!(!error.contains("hush"), "{error}");
    }
}
