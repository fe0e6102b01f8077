//! What an authority has revoked, and the same as a list that OpenSSH reads (`RevokedKeys`, format of its PROTOCOL.krl).
//!
//! Certificates are revoked by serial number or key id, each for one authority; keys wherever they stand, in whatever
//! certificate. Lists are written here and never read.

use std::collections::{BTreeMap, BTreeSet};

use super::Fingerprint;
use crate::time::Timestamp;

/// First bytes of a list.
const MAGIC: u64 = 0x5353_484b_524c_0a00;
/// Version of the format.
const FORMAT: u32 = 1;
/// Section of what one authority's certificates are revoked by.
const CERTIFICATES: u8 = 1;
/// Section of SHA-256 fingerprints of keys.
const FINGERPRINTS: u8 = 5;
/// Within the section of an authority: serial numbers one by one.
const SERIAL_LIST: u8 = 0x20;
/// Within the section of an authority: first and last serial number of a range.
const SERIAL_RANGE: u8 = 0x21;
/// Within the section of an authority: key ids.
const KEY_IDS: u8 = 0x23;

/// By what a certificate was revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevokedBy {
    /// Its serial number.
    Serial,
    /// Its key id.
    KeyId,
    /// The key in it.
    Key,
}

/// Everything that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revocations {
    /// By authority: its public key in SSH's own encoding.
    authorities: BTreeMap<Vec<u8>, OfAuthority>,
    keys: BTreeSet<Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct OfAuthority {
    serials: BTreeSet<u64>,
    key_ids: BTreeSet<String>,
}

impl Revocations {
    /// Revokes the certificate with a serial number. 0 is what certificates without a number have, and stands for none.
    pub fn revoke_serial(&mut self, authority: &[u8], serial: u64) {
        if serial != 0 {
            self.of(authority).serials.insert(serial);
        }
    }

    /// Revokes all certificates with a key id.
    pub fn revoke_key_id(&mut self, authority: &[u8], key_id: &str) {
        self.of(authority).key_ids.insert(key_id.to_owned());
    }

    /// Revokes a key in every certificate.
    pub fn revoke_key(&mut self, key: Fingerprint) {
        self.keys.insert(key);
    }

    fn of(&mut self, authority: &[u8]) -> &mut OfAuthority {
        self.authorities.entry(authority.to_vec()).or_default()
    }

    /// Returns by what a certificate is revoked, if it is: one of an authority, with a serial number, a key id and a key.
    pub fn find(&self, authority: &[u8], serial: u64, key_id: &str, key: &Fingerprint) -> Option<RevokedBy> {
        let of = self.authorities.get(authority);
        if self.keys.contains(key) {
            Some(RevokedBy::Key)
        } else if of.is_some_and(|of| of.serials.contains(&serial)) {
            Some(RevokedBy::Serial)
        } else if of.is_some_and(|of| of.key_ids.contains(key_id)) {
            Some(RevokedBy::KeyId)
        } else {
            None
        }
    }

    /// Tells whether a key is revoked.
    pub fn has_key(&self, key: &Fingerprint) -> bool {
        self.keys.contains(key)
    }

    /// Writes the list for OpenSSH. `version` rises with every change; `comment` is for people.
    pub fn to_krl(&self, version: u64, now: Timestamp, comment: &str) -> Vec<u8> {
        let mut list = Vec::new();
        list.extend_from_slice(&MAGIC.to_be_bytes());
        list.extend_from_slice(&FORMAT.to_be_bytes());
        list.extend_from_slice(&version.to_be_bytes());
        list.extend_from_slice(&u64::try_from(now.as_secs()).unwrap_or(0).to_be_bytes());
        // Flags and a reserved field, for which nothing is defined.
        list.extend_from_slice(&0_u64.to_be_bytes());
        string(&mut list, b"");
        string(&mut list, comment.as_bytes());
        for (authority, of) in &self.authorities {
            section(&mut list, CERTIFICATES, &of.section(authority));
        }
        if !self.keys.is_empty() {
            let mut prints = Vec::new();
            for key in &self.keys {
                string(&mut prints, key.as_bytes());
            }
            section(&mut list, FINGERPRINTS, &prints);
        }
        list
    }
}

impl OfAuthority {
    fn section(&self, authority: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        string(&mut out, authority);
        string(&mut out, b"");
        let (mut single, mut ranges) = (Vec::new(), Vec::new());
        for (first, last) in runs(&self.serials) {
            if first == last {
                single.extend_from_slice(&first.to_be_bytes());
            } else {
                ranges.push([first.to_be_bytes(), last.to_be_bytes()].concat());
            }
        }
        if !single.is_empty() {
            section(&mut out, SERIAL_LIST, &single);
        }
        for range in ranges {
            section(&mut out, SERIAL_RANGE, &range);
        }
        if !self.key_ids.is_empty() {
            let mut ids = Vec::new();
            for id in &self.key_ids {
                string(&mut ids, id.as_bytes());
            }
            section(&mut out, KEY_IDS, &ids);
        }
        out
    }
}

/// Returns the runs of numbers without a gap, each by its first and last.
fn runs(serials: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for &serial in serials {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(serial) => *last = serial,
            _ => runs.push((serial, serial)),
        }
    }
    runs
}

fn section(out: &mut Vec<u8>, kind: u8, data: &[u8]) {
    out.push(kind);
    string(out, data);
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_revoking_holds_for_its_own_authority_and_keys_for_all() {
        let (one, other) = (b"one".as_slice(), b"other".as_slice());
        let (key, clean) = (Fingerprint::of(b"stolen"), Fingerprint::of(b"clean"));
        let mut revoked = Revocations::default();
        revoked.revoke_serial(one, 7);
        revoked.revoke_serial(one, 0);
        revoked.revoke_key_id(one, "kim");
        revoked.revoke_key(key);
        for (authority, serial, id, key, found) in [
            (one, 7, "", &clean, Some(RevokedBy::Serial)),
            (other, 7, "", &clean, None),
            (one, 0, "", &clean, None),
            (one, 8, "kim", &clean, Some(RevokedBy::KeyId)),
            (other, 8, "kim", &clean, None),
            (other, 8, "lee", &key, Some(RevokedBy::Key)),
            (one, 8, "lee", &clean, None),
        ] {
            assert_eq!(revoked.find(authority, serial, id, key), found, "{serial} {id}");
        }
    }

    #[test]
    fn numbers_without_gaps_become_ranges() {
        let serials = [1, 2, 3, 5, 9, 10, u64::MAX].into_iter().collect();
        assert_eq!(runs(&serials), [(1, 3), (5, 5), (9, 10), (u64::MAX, u64::MAX)]);
    }

    /// The layout of PROTOCOL.krl, byte by byte; the real `ssh-keygen -Q` reads such lists in the integration tests.
    #[test]
    fn a_list_has_the_documented_layout() {
        let mut revoked = Revocations::default();
        for serial in [4, 5, 9] {
            revoked.revoke_serial(b"ca", serial);
        }
        revoked.revoke_key_id(b"ca", "id");
        let list = revoked.to_krl(3, Timestamp(2_000_000), "c");
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
        let expected = [
            b"SSHKRL\n\0\0\0\0\x01".to_vec(),
            numbers(&[3, 2, 0]),
            b"\0\0\0\0\0\0\0\x01c".to_vec(),
            b"\x01\0\0\0\x37\0\0\0\x02ca\0\0\0\0".to_vec(),
            b"\x20\0\0\0\x08".to_vec(),
            numbers(&[9]),
            b"\x21\0\0\0\x10".to_vec(),
            numbers(&[4, 5]),
            b"\x23\0\0\0\x06\0\0\0\x02id".to_vec(),
        ];
        assert_eq!(list, expected.concat());
        // Nothing revoked is a list too: sshd lets nobody in by key while the file is missing.
        assert_eq!(Revocations::default().to_krl(1, Timestamp(0), "").len(), 8 + 4 + 8 + 8 + 8 + 4 + 4);
    }
}
