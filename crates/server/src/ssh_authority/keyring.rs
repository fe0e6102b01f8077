//! The keys of one authority (for users, or for hosts) over time: those that signed before, the one that signs, and
//! the next one, which nodes and people know before anything is signed with it (T-38). A key that signed for somebody
//! before may be brought along; it signs from then on.
//!
//! Time is an argument. Where the keys are kept is the business of the parent module.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::secret::Secret;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;
use russh::keys::ssh_key::certificate::Builder;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{Certificate, PrivateKey, PublicKey, ssh_key};

use super::rsa::RsaSigner;

/// First byte of a stored keyring: each key as stage, when made, until when believed, length, and private key as
/// OpenSSH writes it.
const VERSION: u8 = 2;
/// First byte of one that holds seeds of ed25519 keys instead, all of the same length; still read.
const SEEDS: u8 = 1;
/// Bytes of a key stored as a seed.
const STORED_SEED: usize = 1 + 8 + 8 + 32;
/// Most keys at once. More rotations wait until former keys have ended.
const MAX_KEYS: usize = 8;

/// What a key of an authority is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It signed before; what it signed is honoured until it ends.
    Previous,
    /// It signs.
    Current,
    /// It will sign after the next rotation. Nodes know it already, so that a rotation locks nobody out.
    Next,
}

impl Stage {
    /// Returns the word for it in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Previous => "previous",
            Self::Current => "current",
            Self::Next => "next",
        }
    }
}

/// A key of an authority.
pub struct AuthorityKey {
    /// What it is for.
    pub stage: Stage,
    /// When it was made.
    pub made: Timestamp,
    /// Until when it is believed, of previous keys.
    pub until: Option<Timestamp>,
    key: PrivateKey,
    /// Signs in its place, for an RSA key.
    rsa: Option<Arc<RsaSigner>>,
}

impl AuthorityKey {
    /// Takes a key; `None` for an RSA key whose parts do not fit each other.
    fn new(stage: Stage, made: Timestamp, until: Option<Timestamp>, key: PrivateKey) -> Option<Self> {
        let rsa = match key.key_data().is_rsa() {
            true => Some(Arc::new(RsaSigner::new(&key)?)),
            false => None,
        };
        Some(Self { stage, made, until, key, rsa })
    }

    fn from_seed(stage: Stage, made: Timestamp, until: Option<Timestamp>, seed: &[u8; 32]) -> Self {
        Self { stage, made, until, key: PrivateKey::from(Ed25519Keypair::from_seed(seed)), rsa: None }
    }

    /// Returns its public half.
    pub fn public(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// Signs a certificate.
    pub(super) fn sign(&self, certificate: Builder) -> ssh_key::Result<Certificate> {
        match &self.rsa {
            Some(rsa) => certificate.sign(rsa.as_ref()),
            None => certificate.sign(&self.key),
        }
    }

    /// Returns the fingerprint of its public half.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.public())
    }
}

/// Why an authority was not rotated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateError {
    /// As many former keys as there may be are still believed.
    #[error("{} keys of this authority are believed already; wait until the oldest ends, or end them now", MAX_KEYS)]
    Full,
    /// An RSA key that cannot sign.
    #[error("the parts of this RSA key do not fit each other")]
    Unfit,
    /// The key that was brought is one of the authority's.
    #[error("this key is one of the authority's already")]
    Known,
}

/// The keys of one authority. There is always exactly one current key and one next.
pub struct Keyring {
    keys: Vec<AuthorityKey>,
}

impl Keyring {
    /// Returns a new authority with a current and a next key.
    pub fn new(current: &[u8; 32], next: &[u8; 32], now: Timestamp) -> Self {
        let current = AuthorityKey::from_seed(Stage::Current, now, None, current);
        Self { keys: vec![current, AuthorityKey::from_seed(Stage::Next, now, None, next)] }
    }

    /// Returns the keys that are believed at an instant: the current one, the next one, and former ones whose
    /// certificates have not all ended.
    pub fn believed(&self, now: Timestamp) -> impl Iterator<Item = &AuthorityKey> {
        self.keys.iter().filter(move |key| key.until.is_none_or(|until| now < until))
    }

    /// Returns the key that signs.
    pub fn current(&self) -> Option<&AuthorityKey> {
        self.keys.iter().find(|key| key.stage == Stage::Current)
    }

    /// Returns the keyring after a rotation: the next key signs, `seed` becomes the next one, and the current one is
    /// believed for `overlap` more; none of the former ones if that is zero, for a key that somebody else may have.
    pub fn rotated(&self, seed: &[u8; 32], now: Timestamp, overlap: Duration) -> Result<Self, RotateError> {
        let next = AuthorityKey::from_seed(Stage::Next, now, None, seed);
        self.replaced(next, now, overlap)
    }

    /// Returns the keyring after a rotation to a key that was brought along: it signs, the next one stays the next one,
    /// and with the former ones it is as in every rotation.
    pub fn imported(&self, key: PrivateKey, now: Timestamp, overlap: Duration) -> Result<Self, RotateError> {
        let brought = AuthorityKey::new(Stage::Current, now, None, key).ok_or(RotateError::Unfit)?;
        if self.believed(now).any(|known| known.public().key_data() == brought.public().key_data()) {
            return Err(RotateError::Known);
        }
        self.replaced(brought, now, overlap)
    }

    fn replaced(&self, new: AuthorityKey, now: Timestamp, overlap: Duration) -> Result<Self, RotateError> {
        let mut keys: Vec<_> = self
            .believed(now)
            .filter_map(|key| {
                let (stage, until) = match key.stage {
                    Stage::Previous => (Stage::Previous, key.until),
                    Stage::Current => (Stage::Previous, Some(now.plus(overlap))),
                    Stage::Next if new.stage == Stage::Next => (Stage::Current, None),
                    Stage::Next => (Stage::Next, None),
                };
                let kept = stage != Stage::Previous || !overlap.is_zero();
                kept.then(|| AuthorityKey { stage, until, made: key.made, key: key.key.clone(), rsa: key.rsa.clone() })
            })
            .collect();
        if keys.len() >= MAX_KEYS {
            return Err(RotateError::Full);
        }
        keys.push(new);
        Ok(Self { keys })
    }

    /// Writes the keys as they are sealed and stored; `None` if one cannot be written, which no key here is.
    pub fn to_bytes(&self) -> Option<Secret<Vec<u8>>> {
        let written = self.keys.iter().map(|key| key.key.to_bytes().ok()).collect::<Option<Vec<_>>>()?;
        // Never grows, so that no copy of a key is left behind.
        let length: usize = written.iter().map(|key| 1 + 8 + 8 + 2 + key.len()).sum();
        let mut bytes = Vec::with_capacity(1 + length);
        bytes.push(VERSION);
        for (key, private) in self.keys.iter().zip(&written) {
            bytes.push(match key.stage {
                Stage::Previous => 0,
                Stage::Current => 1,
                Stage::Next => 2,
            });
            bytes.extend_from_slice(&key.made.0.to_be_bytes());
            bytes.extend_from_slice(&key.until.map_or(i64::MAX, |until| until.0).to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(private.len()).ok()?.to_be_bytes());
            bytes.extend_from_slice(private);
        }
        Some(Secret::new(bytes))
    }

    /// Reads what [`Keyring::to_bytes`] wrote, now or in the form with seeds; `None` if it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let mut keys = Vec::new();
        while !rest.is_empty() && keys.len() <= MAX_KEYS {
            let (key, behind) = match *version {
                VERSION => read_key(rest)?,
                SEEDS => read_seed(rest)?,
                _ => return None,
            };
            keys.push(key);
            rest = behind;
        }
        let count = |stage| keys.iter().filter(|key| key.stage == stage).count();
        let whole = keys.len() <= MAX_KEYS && count(Stage::Current) == 1 && count(Stage::Next) == 1;
        whole.then_some(Self { keys })
    }
}

/// What stands before a stored key: stage, when made, until when believed.
type Head = (Stage, Timestamp, Option<Timestamp>);

fn read_head(bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (&stage, rest) = bytes.split_first()?;
    let (made, rest) = rest.split_first_chunk::<8>()?;
    let (until, rest) = rest.split_first_chunk::<8>()?;
    let stage = match stage {
        0 => Stage::Previous,
        1 => Stage::Current,
        2 => Stage::Next,
        _ => return None,
    };
    let until = Some(i64::from_be_bytes(*until)).filter(|&until| until != i64::MAX).map(Timestamp);
    Some(((stage, Timestamp(i64::from_be_bytes(*made)), until), rest))
}

fn read_key(bytes: &[u8]) -> Option<(AuthorityKey, &[u8])> {
    let ((stage, made, until), rest) = read_head(bytes)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (private, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let key = PrivateKey::from_bytes(private).ok()?;
    Some((AuthorityKey::new(stage, made, until, key)?, rest))
}

fn read_seed(bytes: &[u8]) -> Option<(AuthorityKey, &[u8])> {
    let (stored, behind) = bytes.split_at_checked(STORED_SEED)?;
    let ((stage, made, until), seed) = read_head(stored)?;
    Some((AuthorityKey::from_seed(stage, made, until, seed.try_into().ok()?), behind))
}

/// Returns the fingerprint of a public key; that of nothing for a key without bytes, which no ed25519 key is.
pub fn fingerprint(key: &PublicKey) -> Fingerprint {
    Fingerprint::of(&key.to_bytes().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn stages(keyring: &Keyring, now: Timestamp) -> Vec<(Stage, i64)> {
        keyring.believed(now).map(|key| (key.stage, key.made.0)).collect()
    }

    #[test]
    fn a_rotation_signs_with_the_key_that_was_known_before_and_believes_the_former_one_until_its_end() {
        let start = Timestamp(1_000_000);
        let first = Keyring::new(&[1; 32], &[2; 32], start);
        let next = first.believed(start).nth(1).unwrap().fingerprint();
        let later = start.plus(DAY);
        let second = first.rotated(&[3; 32], later, DAY).unwrap();
        assert_eq!(second.current().unwrap().fingerprint(), next);
        let (a, b) = (start.0, later.0);
        assert_eq!(stages(&second, later), [(Stage::Previous, a), (Stage::Current, a), (Stage::Next, b)]);
        assert_eq!(stages(&second, later.plus(DAY)), [(Stage::Current, a), (Stage::Next, b)]);
        let ended = second.rotated(&[4; 32], later, Duration::ZERO).unwrap();
        assert_eq!(stages(&ended, later), [(Stage::Current, b), (Stage::Next, b)]);
    }

    #[test]
    fn a_keyring_that_is_full_of_believed_keys_is_not_rotated() {
        let now = Timestamp(0);
        let mut ring = Keyring::new(&[1; 32], &[2; 32], now);
        for seed in 3..9 {
            ring = ring.rotated(&[seed; 32], now, DAY).unwrap();
        }
        assert_eq!(ring.rotated(&[9; 32], now, DAY).err(), Some(RotateError::Full));
        assert_eq!(stages(&ring.rotated(&[9; 32], now.plus(DAY), DAY).unwrap(), now.plus(DAY)).len(), 3);
    }

    #[test]
    fn a_key_that_is_brought_signs_and_is_brought_once() {
        let now = Timestamp(5);
        let ring = Keyring::new(&[1; 32], &[2; 32], now);
        let key = || PrivateKey::from(Ed25519Keypair::from_seed(&[7; 32]));
        let next = ring.believed(now).nth(1).unwrap().fingerprint();
        let brought = ring.imported(key(), now.plus(DAY), DAY).unwrap();
        assert_eq!(brought.current().unwrap().public(), key().public_key());
        let stage = |stage| brought.believed(now.plus(DAY)).find(|key| key.stage == stage).unwrap().fingerprint();
        assert_eq!(stage(Stage::Next), next);
        assert_eq!(stage(Stage::Previous), ring.current().unwrap().fingerprint());
        assert_eq!(brought.imported(key(), now, DAY).err(), Some(RotateError::Known));
        let alone = ring.imported(key(), now, Duration::ZERO).unwrap();
        assert_eq!(stages(&alone, now), [(Stage::Next, 5), (Stage::Current, 5)]);
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_noticed() {
        let now = Timestamp(5);
        let ring = Keyring::new(&[1; 32], &[2; 32], now).rotated(&[3; 32], now, DAY).unwrap();
        let bytes = ring.to_bytes().unwrap();
        let read = Keyring::from_bytes(bytes.expose()).unwrap();
        let prints = |ring: &Keyring| ring.believed(now).map(|key| (key.fingerprint(), key.until)).collect::<Vec<_>>();
        assert_eq!(prints(&read), prints(&ring));
        // The form with seeds says the same.
        let mut seeds = vec![SEEDS];
        for (stage, until, seed) in [(0, now.plus(DAY).0, 1), (1, i64::MAX, 2), (2, i64::MAX, 3)] {
            seeds.push(stage);
            seeds.extend_from_slice(&now.0.to_be_bytes());
            seeds.extend_from_slice(&until.to_be_bytes());
            seeds.extend_from_slice(&[seed; 32]);
        }
        assert_eq!(prints(&Keyring::from_bytes(&seeds).unwrap()), prints(&ring));
        assert!(Keyring::from_bytes(&seeds[..seeds.len() - 1]).is_none());
        for bad in [&[][..], &[VERSION], &[3, 0], &bytes.expose()[..bytes.expose().len() - 1]] {
            assert!(Keyring::from_bytes(bad).is_none());
        }
        let mut two_current = bytes.expose().clone();
        two_current[1] = 1;
        assert!(Keyring::from_bytes(&two_current).is_none());
    }
}
