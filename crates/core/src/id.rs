//! Identifiers as types, parsed once where text enters (T-57, T-71); a session id never passes for a node id.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is not a {kind}: {expected}")]
pub struct InvalidId {
    /// The kind that was wanted, e.g. "node id".
    pub kind: &'static str,
    /// What the kind looks like.
    pub expected: &'static str,
    /// The refused text, escaped and shortened to 64 characters.
    pub shown: String,
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// Declares a validated text identifier: `Display`, `FromStr`, serde as a string.
macro_rules! text_id {
    ($(#[$meta:meta])* $name:ident, $kind:literal, $expected:literal, $check:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Parses the identifier, or says what it should look like.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidId { kind: $kind, expected: $expected, shown: shown(text) })
                }
            }

            /// Returns the identifier's text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn base32(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b))
}

text_id!(
    /// A node (a host with an agent): `mi-` and 17 lower-case hexadecimal digits, the head of the SHA-256 of the
    /// node's public key (T-31).
    NodeId, "node id", "`mi-` followed by 17 lower-case hexadecimal digits",
    |text| text.strip_prefix("mi-").is_some_and(|hex| hex.len() == 17 && lower_hex(hex))
);

text_id!(
    /// A session: `<owner label>-<17 hexadecimal digits>`, at most 96 characters (`StartSession` in the AWS API).
    SessionId, "session id", "an owner label, `-` and 17 lower-case hexadecimal digits",
    |text| {
        text.len() <= 96
            && text.rsplit_once('-').is_some_and(|(label, hex)| {
                (1..=78).contains(&label.len())
                    && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b))
                    && hex.len() == 17
                    && lower_hex(hex)
            })
    }
);

text_id!(
    /// An access key: `AKIA` (long-term) or `ASIA` (temporary) and 16 characters of base 32.
    AccessKeyId, "access key id", "`AKIA` or `ASIA` followed by 16 characters of A-Z and 2-7",
    |text| text.len() == 20 && (text.starts_with("AKIA") || text.starts_with("ASIA"))
        && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
);

text_id!(
    /// An SSH public key that somebody registered: `APKA` and 16 characters of base 32, as in AWS.
    SshKeyId, "SSH public key id", "`APKA` followed by 16 characters of A-Z and 2-7",
    |text| text.len() == 20 && text.starts_with("APKA") && base32(text)
);

text_id!(
    /// The unchanging id of a user, group, role or policy: four letters and 17 characters of base 32.
    UniqueId, "unique id", "AIDA, AGPA, AROA or ANPA followed by 17 characters of A-Z and 2-7",
    |text| text.len() == 21
        && text.get(..4).is_some_and(|p| matches!(p, "AIDA" | "AGPA" | "AROA" | "ANPA"))
        && text.get(4..).is_some_and(base32)
);

text_id!(
    /// An account: twelve decimal digits.
    AccountId, "account id", "twelve decimal digits",
    |text| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
);

/// The other name of a node: `i-` and the same digits, for clients that know only instances of EC2.
const INSTANCE_PREFIX: &str = "i-";

impl NodeId {
    /// Parses the id in either form: `mi-…` or its alias `i-…`.
    pub fn parse_either(text: &str) -> Result<Self, InvalidId> {
        match text.strip_prefix(INSTANCE_PREFIX) {
            Some(digits) => Self::parse(&format!("mi-{digits}")),
            None => Self::parse(text),
        }
    }

    /// Returns the id as an instance of EC2 has it: `i-…`.
    pub fn instance_id(&self) -> String {
        format!("{INSTANCE_PREFIX}{}", self.0.trim_start_matches("mi-"))
    }

    /// Derives the node's id from its Ed25519 public key (T-31: identity is the key).
    pub fn from_public_key(public_key: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key);
        let mut text = hex::encode(digest.as_ref());
        text.truncate(17);
        Self(format!("mi-{text}").into())
    }
}

impl SessionId {
    /// Builds an id from the owner's label (characters that may not stand in an id are left out, at most 78 stay)
    /// and random bytes.
    pub fn new(owner: &str, random: [u8; 9]) -> Self {
        let mut label: String =
            owner.chars().filter(|c| c.is_ascii_alphanumeric() || "+=,.@_-".contains(*c)).take(78).collect();
        if label.is_empty() {
            label.push_str("session");
        }
        let mut text = hex::encode(random);
        text.truncate(17);
        Self(format!("{label}-{text}").into())
    }
}

/// Builds a key or unique id from its prefix and random bytes: each byte's low five bits pick one character of
/// base 32 (A-Z, 2-7).
pub fn base32_id(prefix: &str, random: &[u8]) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let tail = random.iter().filter_map(|b| ALPHABET.get(usize::from(b & 31))).map(|b| char::from(*b));
    prefix.chars().chain(tail).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_accept_their_own_form_and_refuse_neighbours() {
        assert_eq!(NodeId::parse("mi-0123456789abcdef0").unwrap().as_str(), "mi-0123456789abcdef0");
        for bad in [
            "",
            "mi-",
            "mi-0123456789ABCDEF0",
            "i-0123456789abcdef0",
            "mi-0123456789abcdef01",
            "mi-0123456789abcdef0\n",
        ] {
            assert!(NodeId::parse(bad).is_err(), "{bad:?}");
        }
        assert!(SessionId::parse("alice-0123456789abcdef0").is_ok());
        for bad in ["-0123456789abcdef0", "al/ice-0123456789abcdef0", "alice-0123", "alice"] {
            assert!(SessionId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_node_has_an_alias_in_the_form_of_ec2() {
        let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
        assert_eq!(node.instance_id(), "i-0123456789abcdef0");
        for text in ["i-0123456789abcdef0", "mi-0123456789abcdef0"] {
            assert_eq!(NodeId::parse_either(text).unwrap(), node);
        }
        for bad in ["i-", "i-mi-0123456789abcdef0", "i-0123456789abcdef", "mi-i-0123456789abcdef0", "web-1"] {
            assert!(NodeId::parse_either(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_session_id_is_always_valid_whatever_the_owner_is_called() {
        for owner in ["alice", "앨리스", "", "a/b c", &"x".repeat(300)] {
            let id = SessionId::new(owner, [7; 9]);
            assert_eq!(SessionId::parse(id.as_str()).unwrap(), id);
        }
    }
}
