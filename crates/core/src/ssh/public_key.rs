//! SSH public keys: the line of an `.pub` file, the form of RFC 4716 and PEM for RSA, checked in type and size, and written again
//! as type and base64 alone.
//!
//! What sshd would read more into is refused: options before the key, several lines, certificates. So a key that
//! somebody hands in can never carry a command, a forwarding or an authority.

mod pem;

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Longest text of a key in bytes; the largest RSA key taken has about 800, the rest is comment.
pub const MAX_KEY_TEXT: usize = 16 * 1024;
/// Sizes of RSA keys that are taken, in bits. AWS lets 1024 in; that has been too little for years.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;
/// Longest application text of a security key (`ssh:` and what follows), in bytes.
const MAX_APPLICATION: usize = 256;
/// First and last line of RFC 4716, section 3.
const BEGIN: &str = "---- BEGIN SSH2 PUBLIC KEY ----";
const END: &str = "---- END SSH2 PUBLIC KEY ----";
/// Longest line of RFC 4716 and most header lines; the RFC says 72 bytes for the body, headers may go on.
const MAX_HEADERS: usize = 16;

/// The kinds of key that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// `ssh-rsa`, 2048 to 4096 bits.
    Rsa,
    /// `ssh-ed25519`.
    Ed25519,
    /// `ecdsa-sha2-nistp256`.
    EcdsaP256,
    /// `ecdsa-sha2-nistp384`.
    EcdsaP384,
    /// `ecdsa-sha2-nistp521`.
    EcdsaP521,
    /// `sk-ssh-ed25519@openssh.com`: on a security key.
    SkEd25519,
    /// `sk-ecdsa-sha2-nistp256@openssh.com`: on a security key.
    SkEcdsaP256,
}

impl KeyKind {
    /// All kinds.
    const ALL: [Self; 7] = [
        Self::Rsa,
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// Returns the name in key lines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rsa => "ssh-rsa",
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::EcdsaP521 => "ecdsa-sha2-nistp521",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// Finds the kind by its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a text is no public key that is taken. The messages are for the person who handed it in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Longer than [`MAX_KEY_TEXT`].
    #[error("the key has more than 16 KiB")]
    TooLong,
    /// No key at all.
    #[error("this is no SSH public key; give one line of an .pub file, for example `ssh-ed25519 AAAA…`")]
    NotAKey,
    /// A private key: it must not travel.
    #[error("this is a private key, which nobody must have but you; give the .pub file that belongs to it")]
    PrivateKey,
    /// More than one line.
    #[error("give exactly one key on one line")]
    SeveralLines,
    /// Options such as `command=` before the key.
    #[error("options before the key are not taken; give type and key alone")]
    Options,
    /// A certificate.
    #[error("this is a certificate, not a key")]
    Certificate,
    /// DSA.
    #[error("DSA keys are too weak and not taken; use ssh-ed25519")]
    Dsa,
    /// Another type.
    #[error("keys of this type are not taken; use ssh-ed25519, ssh-rsa, ecdsa-sha2-… or a security key")]
    UnknownKind,
    /// The base64 cannot be read.
    #[error("the key's base64 is damaged")]
    Base64,
    /// The bytes are no key of the named type.
    #[error("the key's content is no {0} key")]
    Malformed(KeyKind),
    /// An RSA key of a size that is not taken.
    #[error("RSA keys have 2048 to 4096 bits here; this one has {0}")]
    RsaSize(usize),
}

/// SHA-256 of a key's bytes; shown as OpenSSH shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Computes the fingerprint of a key's bytes.
    pub fn of(blob: &[u8]) -> Self {
        Self(digest(&SHA256, blob).as_ref().try_into().unwrap_or([0; 32]))
    }

    /// Returns the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads `SHA256:` and 43 characters of base64.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix("SHA256:")?;
        let bytes = STANDARD_NO_PAD.decode(encoded).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A public key that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    blob: Vec<u8>,
    comment: String,
}

impl PublicKey {
    /// Reads a key: one line `type base64 [comment]`, the form of RFC 4716, or PEM for RSA. White space around it is
    /// nothing.
    pub fn parse(text: &str) -> Result<Self, PublicKeyError> {
        if text.len() > MAX_KEY_TEXT {
            return Err(PublicKeyError::TooLong);
        }
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        if text.starts_with("-----BEGIN ") && text.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError::PrivateKey);
        }
        match text {
            _ if text.starts_with(BEGIN) => Self::from_rfc_4716(text),
            _ if pem::is_pem(text) => pem::read(text),
            _ => Self::from_line(text),
        }
    }

    /// Checks type and bytes as they stand apart, for example in a question of sshd.
    pub fn from_parts(kind: &str, blob: &[u8]) -> Result<Self, PublicKeyError> {
        let kind = kind_named(kind)?;
        check(kind, blob)?;
        Ok(Self { kind, blob: blob.to_vec(), comment: String::new() })
    }

    /// Returns the kind.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Returns the key's bytes in SSH's own encoding.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Returns what stood behind the key; for people, nothing is decided by it.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Returns the fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.blob)
    }

    /// Returns the line for sshd: type and base64, nothing else.
    pub fn line(&self) -> String {
        format!("{} {}", self.kind, STANDARD.encode(&self.blob))
    }

    /// Returns the key in PEM (`PUBLIC KEY`); `None` unless it is an RSA key.
    pub fn to_pem(&self) -> Option<String> {
        pem::write(self)
    }

    fn from_line(text: &str) -> Result<Self, PublicKeyError> {
        if text.contains(['\n', '\r', '\0']) {
            let keys = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')).count();
            return Err(if keys > 1 { PublicKeyError::SeveralLines } else { PublicKeyError::NotAKey });
        }
        let (name, rest) = text.split_once([' ', '\t']).ok_or(PublicKeyError::NotAKey)?;
        let kind = match kind_named(name) {
            // A kind further on says that what stands before it are options.
            Err(PublicKeyError::UnknownKind) => {
                let later = |word: &str| !matches!(kind_named(word), Err(PublicKeyError::UnknownKind));
                let error = match text.split([' ', '\t']).skip(1).any(later) {
                    true => PublicKeyError::Options,
                    false if looks_like_a_kind(name) => PublicKeyError::UnknownKind,
                    false => PublicKeyError::NotAKey,
                };
                return Err(error);
            }
            kind => kind?,
        };
        let rest = rest.trim_start_matches([' ', '\t']);
        let (encoded, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        let blob = STANDARD.decode(encoded).map_err(|_| PublicKeyError::Base64)?;
        check(kind, &blob)?;
        Ok(Self { kind, blob, comment: plain(comment) })
    }

    /// Reads the form of RFC 4716: header lines (a `\` at the end goes on in the next line), then base64.
    fn from_rfc_4716(text: &str) -> Result<Self, PublicKeyError> {
        let mut lines = text.lines().map(|line| line.trim_end_matches('\r'));
        if lines.next() != Some(BEGIN) {
            return Err(PublicKeyError::NotAKey);
        }
        let (mut encoded, mut comment, mut headers, mut closed) = (String::new(), String::new(), 0, false);
        while let Some(line) = lines.next() {
            if line == END {
                closed = true;
                break;
            }
            let Some((tag, value)) = line.split_once(':').filter(|_| encoded.is_empty()) else {
                encoded.push_str(line.trim());
                continue;
            };
            headers += 1;
            let mut value = value.trim_start().to_owned();
            while let Some(head) = value.strip_suffix('\\') {
                headers += 1;
                value = format!("{head}{}", lines.next().ok_or(PublicKeyError::NotAKey)?);
            }
            if headers > MAX_HEADERS {
                return Err(PublicKeyError::NotAKey);
            }
            if tag.eq_ignore_ascii_case("comment") {
                comment = plain(value.trim_matches('"'));
            }
        }
        if !closed {
            return Err(PublicKeyError::NotAKey);
        }
        if lines.any(|line| !line.trim().is_empty()) {
            return Err(PublicKeyError::SeveralLines);
        }
        let blob = STANDARD.decode(&encoded).map_err(|_| PublicKeyError::Base64)?;
        let name = Fields(&blob).string().and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
        let kind = kind_named(name)?;
        check(kind, &blob)?;
        Ok(Self { kind, blob, comment })
    }
}

fn kind_named(name: &str) -> Result<KeyKind, PublicKeyError> {
    match KeyKind::from_name(name) {
        Some(kind) => Ok(kind),
        None if name.ends_with("-cert-v01@openssh.com") => Err(PublicKeyError::Certificate),
        None if name == "ssh-dss" => Err(PublicKeyError::Dsa),
        None => Err(PublicKeyError::UnknownKind),
    }
}

fn looks_like_a_kind(name: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|head| name.starts_with(head)) && !name.contains(['=', '"'])
}

/// A comment without control characters; it is kept for the trail alone.
fn plain(comment: &str) -> String {
    comment.trim().chars().filter(|c| !c.is_control()).take(256).collect()
}

/// Checks that the bytes are a key of the kind: every field there, of a good size, and nothing behind the last.
fn check(kind: KeyKind, blob: &[u8]) -> Result<(), PublicKeyError> {
    let malformed = || PublicKeyError::Malformed(kind);
    let mut fields = Fields(blob);
    if fields.string() != Some(kind.as_str().as_bytes()) {
        return Err(malformed());
    }
    let point = |fields: &mut Fields<'_>, curve: &str, length: usize| {
        fields.string() == Some(curve.as_bytes())
            && fields.string().is_some_and(|point| point.len() == length && point.first() == Some(&4))
    };
    let application = |fields: &mut Fields<'_>| {
        let text = fields.string().filter(|text| text.len() <= MAX_APPLICATION);
        text.is_some_and(|text| text.iter().all(u8::is_ascii_graphic))
    };
    let good = match kind {
        KeyKind::Rsa => {
            let (Some(exponent), Some(modulus)) = (fields.positive(), fields.positive()) else {
                return Err(malformed());
            };
            let odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
            let size = bits(modulus);
            if !RSA_BITS.contains(&size) {
                return Err(PublicKeyError::RsaSize(size));
            }
            odd(exponent) && odd(modulus) && (2..=64).contains(&bits(exponent))
        }
        KeyKind::Ed25519 => fields.string().is_some_and(|key| key.len() == 32),
        KeyKind::EcdsaP256 => point(&mut fields, "nistp256", 65),
        KeyKind::EcdsaP384 => point(&mut fields, "nistp384", 97),
        KeyKind::EcdsaP521 => point(&mut fields, "nistp521", 133),
        KeyKind::SkEd25519 => fields.string().is_some_and(|key| key.len() == 32) && application(&mut fields),
        KeyKind::SkEcdsaP256 => point(&mut fields, "nistp256", 65) && application(&mut fields),
    };
    if good && fields.0.is_empty() { Ok(()) } else { Err(malformed()) }
}

/// Returns how many bits a number without leading zero bytes has.
fn bits(number: &[u8]) -> usize {
    let top = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(top)
}

/// Fields of SSH's encoding (RFC 4251, section 5): byte strings behind a 32-bit length.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn string(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let (field, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        self.0 = rest;
        Some(field)
    }

    /// Reads a positive multiple-precision number in its one encoding; returns it without the leading zero.
    fn positive(&mut self) -> Option<&'a [u8]> {
        match self.string()? {
            [0, rest @ ..] => rest.first().filter(|top| **top >= 0x80).map(|_| rest),
            number => number.first().filter(|top| (1..0x80).contains(*top)).map(|_| number),
        }
    }
}

#[cfg(test)]
mod tests;
