//! RSA keys in PEM, which AWS takes and gives: `PUBLIC KEY` (RFC 5280, SubjectPublicKeyInfo) and `RSA PUBLIC KEY`
//! (RFC 8017, PKCS #1), as `ssh-keygen -e -m PKCS8` and `-m PEM` write them. Other kinds have no PEM form here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Fields, KeyKind, PublicKey, PublicKeyError};

/// The two labels, with what stands around them.
const SPKI: (&str, &str) = ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----");
const PKCS1: (&str, &str) = ("-----BEGIN RSA PUBLIC KEY-----", "-----END RSA PUBLIC KEY-----");
/// `rsaEncryption` (1.2.840.113549.1.1.1) without parameters: SEQUENCE { OBJECT IDENTIFIER, NULL }.
const RSA_ENCRYPTION: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;
/// Characters in a line of PEM (RFC 7468).
const LINE: usize = 64;

/// Tells whether a text says that it is a public key in PEM.
pub(super) fn is_pem(text: &str) -> bool {
    [SPKI, PKCS1].iter().any(|(begin, _)| text.starts_with(begin))
}

/// Reads an RSA key.
pub(super) fn read(text: &str) -> Result<PublicKey, PublicKeyError> {
    let malformed = || PublicKeyError::Malformed(KeyKind::Rsa);
    let within = |(begin, end): (&str, &str)| text.strip_prefix(begin)?.strip_suffix(end);
    let (body, wrapped) = match (within(SPKI), within(PKCS1)) {
        (Some(body), _) => (body, true),
        (None, Some(body)) => (body, false),
        (None, None) => return Err(PublicKeyError::NotAKey),
    };
    let encoded: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(encoded).map_err(|_| PublicKeyError::Base64)?;
    let inner = if wrapped { unwrap(&der).ok_or(PublicKeyError::UnknownKind)? } else { der.as_slice() };
    let (exponent, modulus) = numbers(inner).ok_or_else(malformed)?;
    let mut blob = Vec::new();
    for field in [KeyKind::Rsa.as_str().as_bytes(), exponent, modulus] {
        let length = u32::try_from(field.len()).map_err(|_| malformed())?;
        blob.extend(length.to_be_bytes());
        blob.extend(field);
    }
    // Size, encoding of the numbers and everything else is checked there.
    PublicKey::from_parts(KeyKind::Rsa.as_str(), &blob)
}

/// Writes an RSA key as SubjectPublicKeyInfo; `None` for other kinds.
pub(super) fn write(key: &PublicKey) -> Option<String> {
    if key.kind != KeyKind::Rsa {
        return None;
    }
    let mut fields = Fields(&key.blob);
    let (_, exponent, modulus) = (fields.string()?, fields.string()?, fields.string()?);
    let numbers = element(SEQUENCE, &[element(INTEGER, modulus), element(INTEGER, exponent)].concat());
    let bits = element(BIT_STRING, &[&[0], numbers.as_slice()].concat());
    let der = element(SEQUENCE, &[element(SEQUENCE, &RSA_ENCRYPTION), bits].concat());
    let encoded = STANDARD.encode(der);
    let mut text = format!("{}\n", SPKI.0);
    for line in encoded.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    Some(text + SPKI.1)
}

/// Takes PKCS #1 out of SubjectPublicKeyInfo, if the algorithm is RSA.
fn unwrap(der: &[u8]) -> Option<&[u8]> {
    let (info, []) = take(der, SEQUENCE)? else { return None };
    let (algorithm, rest) = take(info, SEQUENCE)?;
    let (bits, []) = take(rest, BIT_STRING)? else { return None };
    let unused_bits_and_key = bits.split_first()?;
    (algorithm == RSA_ENCRYPTION && *unused_bits_and_key.0 == 0).then_some(unused_bits_and_key.1)
}

/// Returns exponent and modulus of PKCS #1; both codings of the numbers are the same in DER and in SSH.
fn numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (both, []) = take(der, SEQUENCE)? else { return None };
    let (modulus, rest) = take(both, INTEGER)?;
    let (exponent, []) = take(rest, INTEGER)? else { return None };
    Some((exponent, modulus))
}

/// Takes an element of DER with a tag off the front; lengths in their shortest form alone, at most 65,535 bytes.
fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der {
        [found, length @ (..=0x7f), rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x81, length @ (0x80..), rest @ ..] if *found == tag => (usize::from(*length), rest),
        [found, 0x82, high @ (1..), low, rest @ ..] if *found == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Writes an element of DER; contents are far below 65,536 bytes ([`super::RSA_BITS`]).
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let [.., high, low] = content.len().to_be_bytes();
    let mut out = match content.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    out.extend(content);
    out
}
