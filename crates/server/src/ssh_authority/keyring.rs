//! The keys of one authority (for users, or for hosts) over time: those that signed before, the one that signs, and
//! the next one, which nodes and people know before anything is signed with it (T-38).
//!
//! Time is an argument. Where the keys are kept is the business of the parent module.

use std::time::Duration;

use munjigi_core::secret::Secret;
use munjigi_core::ssh::Fingerprint;
use munjigi_core::time::Timestamp;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PublicKey};

/// First byte of a stored keyring.
const VERSION: u8 = 1;
/// Bytes of one stored key: stage, when made, until when believed, seed.
const STORED_KEY: usize = 1 + 8 + 8 + 32;
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
    seed: Secret<Vec<u8>>,
}

impl AuthorityKey {
    fn from_seed(stage: Stage, made: Timestamp, until: Option<Timestamp>, seed: &[u8; 32]) -> Self {
        let key = PrivateKey::from(Ed25519Keypair::from_seed(seed));
        Self { stage, made, until, key, seed: Secret::new(seed.to_vec()) }
    }

    /// Returns its public half.
    pub fn public(&self) -> &PublicKey {
        self.key.public_key()
    }

    /// Returns its private half, which signs.
    pub(super) fn private(&self) -> &PrivateKey {
        &self.key
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
        let mut keys: Vec<_> = self
            .believed(now)
            .filter_map(|key| {
                let (stage, until) = match key.stage {
                    Stage::Previous => (Stage::Previous, key.until),
                    Stage::Current => (Stage::Previous, Some(now.plus(overlap))),
                    Stage::Next => (Stage::Current, None),
                };
                let kept = stage != Stage::Previous || !overlap.is_zero();
                kept.then(|| AuthorityKey {
                    stage,
                    until,
                    made: key.made,
                    key: key.key.clone(),
                    seed: key.seed.clone(),
                })
            })
            .collect();
        if keys.len() >= MAX_KEYS {
            return Err(RotateError::Full);
        }
        keys.push(AuthorityKey::from_seed(Stage::Next, now, None, seed));
        Ok(Self { keys })
    }

    /// Writes the keys as they are sealed and stored.
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        // Never grows, so that no copy of a seed is left behind.
        let mut bytes = Vec::with_capacity(1 + self.keys.len() * STORED_KEY);
        bytes.push(VERSION);
        for key in &self.keys {
            bytes.push(match key.stage {
                Stage::Previous => 0,
                Stage::Current => 1,
                Stage::Next => 2,
            });
            bytes.extend_from_slice(&key.made.0.to_be_bytes());
            bytes.extend_from_slice(&key.until.map_or(i64::MAX, |until| until.0).to_be_bytes());
            bytes.extend_from_slice(key.seed.expose());
        }
        Secret::new(bytes)
    }

    /// Reads what [`Keyring::to_bytes`] wrote; `None` if it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, keys) = bytes.split_first()? else { return None };
        if !keys.len().is_multiple_of(STORED_KEY) || keys.len() / STORED_KEY > MAX_KEYS {
            return None;
        }
        let keys = keys.chunks_exact(STORED_KEY).map(read_key).collect::<Option<Vec<_>>>()?;
        let count = |stage| keys.iter().filter(|key| key.stage == stage).count();
        (count(Stage::Current) == 1 && count(Stage::Next) == 1).then_some(Self { keys })
    }
}

fn read_key(bytes: &[u8]) -> Option<AuthorityKey> {
    let (&stage, rest) = bytes.split_first()?;
    let (made, rest) = rest.split_first_chunk::<8>()?;
    let (until, seed) = rest.split_first_chunk::<8>()?;
    let stage = match stage {
        0 => Stage::Previous,
        1 => Stage::Current,
        2 => Stage::Next,
        _ => return None,
    };
    let until = Some(i64::from_be_bytes(*until)).filter(|&until| until != i64::MAX).map(Timestamp);
    Some(AuthorityKey::from_seed(stage, Timestamp(i64::from_be_bytes(*made)), until, seed.try_into().ok()?))
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
    fn what_is_written_is_read_and_damage_is_noticed() {
        let now = Timestamp(5);
        let ring = Keyring::new(&[1; 32], &[2; 32], now).rotated(&[3; 32], now, DAY).unwrap();
        let bytes = ring.to_bytes();
        let read = Keyring::from_bytes(bytes.expose()).unwrap();
        let prints = |ring: &Keyring| ring.believed(now).map(|key| (key.fingerprint(), key.until)).collect::<Vec<_>>();
        assert_eq!(prints(&read), prints(&ring));
        for bad in [&[][..], &[VERSION], &[2, 0], &bytes.expose()[..bytes.expose().len() - 1]] {
            assert!(Keyring::from_bytes(bad).is_none());
        }
        let mut two_current = bytes.expose().clone();
        two_current[1] = 1;
        assert!(Keyring::from_bytes(&two_current).is_none());
    }
}
