//! OCSP answers (RFC 6960) that came with a chain: whether one says that a certificate is good now, and is signed by whoever
//! may say so.

use aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use der::asn1::GeneralizedTime;
use der::{Decode as _, Tag, TagNumber};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, Cert, EndEntityCert, KeyUsage};

use super::Distrust;
use super::der::{Value, Values, only};
use super::signer::public_key;
use crate::time::Timestamp;
use std::time::Duration;

/// Most answers that come with a chain.
pub const MAX_STAPLES: usize = 16;
/// Largest answer in bytes.
pub const MAX_STAPLE: usize = 16 * 1024;
/// Most certificates of responders in an answer, and most certificates that one answer speaks of.
const MAX_RESPONDERS: usize = 4;
const MAX_SINGLE: usize = 16;
/// How far the clocks of responder and node may be apart; as OpenSSL's `ocsp` allows.
const SLACK: Duration = Duration::from_secs(300);
/// `id-pkix-ocsp-basic`, 1.3.6.1.5.5.7.48.1.1.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 48, 1, 1];
/// `id-kp-OCSPSigning`, 1.3.6.1.5.5.7.3.9.
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// `id-sha1`, 1.3.14.3.2.26, and `id-sha256`, 2.16.840.1.101.3.4.2.1: what certificates are named by.
const SHA1_ID: &[u8] = &[0x2b, 14, 3, 2, 26];
const SHA256_ID: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];

/// Reads the name of an answer: the SHA-1 or SHA-256 fingerprint of the certificate that it is about, in hexadecimal.
/// `None` for a name that is none.
pub fn staple_name(name: &str) -> Option<String> {
    let digits = name.replace(':', "").to_ascii_lowercase();
    (matches!(digits.len(), 40 | 64) && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// Who has issued a certificate.
pub(super) struct Above {
    /// Its name with the outer tag.
    name: Vec<u8>,
    /// Its `SubjectPublicKeyInfo` with the outer tag.
    key: Vec<u8>,
}

impl Above {
    /// Another certificate.
    pub(super) fn certificate(certificate: &Cert<'_>) -> Option<Self> {
        let key = certificate.subject_public_key_info().to_vec();
        Some(Self { name: sequence(certificate.subject())?, key })
    }

    /// A root.
    pub(super) fn root(root: &TrustAnchor<'_>) -> Option<Self> {
        Some(Self { name: sequence(&root.subject)?, key: sequence(&root.subject_public_key_info)? })
    }

    /// Returns it as what others' certificates may lead to.
    fn anchor(&self) -> Option<TrustAnchor<'_>> {
        let content = |whole| only(whole, Tag::Sequence).map(|value| value.content.into());
        Some(TrustAnchor {
            subject: content(&self.name)?,
            subject_public_key_info: content(&self.key)?,
            name_constraints: None,
        })
    }
}

/// Puts the tag of a sequence before its content.
fn sequence(content: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(content.len()).ok()?.to_be_bytes();
    let mut whole = match (high, low) {
        (0, 0..=127) => vec![0x30, low],
        (0, _) => vec![0x30, 0x81, low],
        _ => vec![0x30, 0x82, high, low],
    };
    whole.extend_from_slice(content);
    Some(whole)
}

/// Finds the answer about a certificate by its name and checks that it says `good` for now.
pub(super) fn check(
    certificate: &Cert<'_>,
    above: &Above,
    staples: &[(String, Vec<u8>)],
    now: Timestamp,
) -> Result<(), Distrust> {
    let whole = certificate.der();
    let names = [&SHA1_FOR_LEGACY_USE_ONLY, &SHA256].map(|by| hex::encode(digest(by, &whole)));
    let mut worst = Distrust::NotKnownGood;
    let about = |name: &str| staple_name(name).is_some_and(|name| names.contains(&name));
    for (_, staple) in staples.iter().take(MAX_STAPLES).filter(|(name, _)| about(name)) {
        let Some(answer) = BasicAnswer::parse(staple).filter(|answer| answer.is_signed_by(above, now)) else {
            continue;
        };
        match answer.status(certificate.serial(), above, now) {
            Some(Status::Good) => return Ok(()),
            Some(Status::Revoked) => worst = Distrust::RevokedSigner,
            None => {}
        }
    }
    Err(worst)
}

/// What an answer says of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Good,
    Revoked,
}

/// A `BasicOCSPResponse` of a successful answer.
struct BasicAnswer<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
    responders: Vec<&'a [u8]>,
    about: Vec<Single<'a>>,
}

/// A `SingleResponse`.
struct Single<'a> {
    hash: &'a [u8],
    name_hash: &'a [u8],
    key_hash: &'a [u8],
    serial: &'a [u8],
    status: Option<Status>,
    this_update: i64,
    /// An answer that names no end has one: now.
    next_update: Option<i64>,
}

const fn context(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific { constructed, number: TagNumber(number) }
}

impl<'a> BasicAnswer<'a> {
    fn parse(staple: &'a [u8]) -> Option<Self> {
        if staple.len() > MAX_STAPLE {
            return None;
        }
        let mut response = only(staple, Tag::Sequence)?.inside()?;
        // `successful`.
        response.expect(Tag::Enumerated).filter(|status| status.content == [0])?;
        let mut bytes = only(response.expect(context(0, true))?.content, Tag::Sequence)?.inside()?;
        bytes.expect(Tag::ObjectIdentifier).filter(|kind| kind.content == BASIC)?;
        let mut basic = only(bytes.expect(Tag::OctetString)?.content, Tag::Sequence)?.inside()?;
        let data = basic.expect(Tag::Sequence)?;
        let algorithm = basic.expect(Tag::Sequence)?.content;
        let signature = basic.expect(Tag::BitString)?.bits()?;
        let mut responders = Vec::new();
        if let Some(certificates) = basic.optional(context(0, true)) {
            let mut list = only(certificates.content, Tag::Sequence)?.inside()?;
            while !list.is_at_end() && responders.len() < MAX_RESPONDERS {
                responders.push(list.expect(Tag::Sequence)?.whole);
            }
        }
        Some(Self { signed: data.whole, algorithm, signature, responders, about: singles(data)? })
    }

    /// Tells whether whoever issued the certificate signed the answer, or somebody whom they have certified to do so.
    fn is_signed_by(&self, above: &Above, now: Timestamp) -> bool {
        self.has_key_signed(&above.key)
            || self.responders.iter().any(|responder| self.has_responder_signed(responder, above, now))
    }

    fn has_responder_signed(&self, responder: &[u8], above: &Above, now: Timestamp) -> bool {
        let responder = CertificateDer::from(responder);
        let (Ok(responder), Some(anchor)) = (EndEntityCert::try_from(&responder), above.anchor()) else { return false };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().try_into().unwrap_or(0)));
        let usage = KeyUsage::required(OCSP_SIGNING);
        responder.verify_for_usage(ALL_VERIFICATION_ALGS, &[anchor], &[], at, usage, None, None).is_ok()
            && self.has_key_signed(&responder.subject_public_key_info())
    }

    fn has_key_signed(&self, info: &[u8]) -> bool {
        let Some((kind, key)) = public_key(info) else { return false };
        ALL_VERIFICATION_ALGS
            .iter()
            .filter(|one| one.public_key_alg_id().as_ref() == kind && one.signature_alg_id().as_ref() == self.algorithm)
            .any(|one| one.verify_signature(key, self.signed, self.signature).is_ok())
    }

    /// Returns what the answer says of a certificate for now; `None` if it says nothing.
    fn status(&self, serial: &[u8], above: &Above, now: Timestamp) -> Option<Status> {
        let now = now.as_secs();
        let slack = i64::try_from(SLACK.as_secs()).unwrap_or(0);
        let is_now = |one: &&Single<'_>| {
            one.this_update <= now + slack
                && one.next_update.is_some_and(|next| next >= now - slack && next >= one.this_update)
        };
        let mut about = self.about.iter().filter(|one| one.serial == serial && one.is_issued_by(above));
        // Once revoked is revoked, whatever the time of the answer.
        let revoked = |one: &Single<'_>| one.status == Some(Status::Revoked);
        match about.clone().any(revoked) {
            true => Some(Status::Revoked),
            false => about.find(is_now)?.status,
        }
    }
}

/// Reads the `SingleResponse`s of a `ResponseData`.
fn singles(data: Value<'_>) -> Option<Vec<Single<'_>>> {
    let mut data = data.inside()?;
    // The version, which has a default, and who answers, whom the signature names better.
    data.optional(context(0, true));
    data.next()?;
    data.expect(Tag::GeneralizedTime)?;
    let mut list = data.expect(Tag::Sequence)?.inside()?;
    let mut singles = Vec::new();
    while !list.is_at_end() && singles.len() < MAX_SINGLE {
        singles.push(Single::read(list.expect(Tag::Sequence)?.inside()?)?);
    }
    no_critical(data.optional(context(1, true)))?;
    Some(singles)
}

impl<'a> Single<'a> {
    fn read(mut single: Values<'a>) -> Option<Self> {
        let mut id = single.expect(Tag::Sequence)?.inside()?;
        let hash = id.expect(Tag::Sequence)?.inside()?.expect(Tag::ObjectIdentifier)?.content;
        let (name_hash, key_hash) = (id.expect(Tag::OctetString)?.content, id.expect(Tag::OctetString)?.content);
        let serial = id.expect(Tag::Integer)?.content;
        let status = match single.next()?.tag {
            tag if tag == context(0, false) => Some(Status::Good),
            tag if tag == context(1, true) => Some(Status::Revoked),
            _ => None,
        };
        let this_update = seconds(single.expect(Tag::GeneralizedTime)?)?;
        let next_update = match single.optional(context(0, true)) {
            Some(next) => Some(seconds(only(next.content, Tag::GeneralizedTime)?)?),
            None => None,
        };
        no_critical(single.optional(context(1, true)))?;
        Some(Self { hash, name_hash, key_hash, serial, status, this_update, next_update })
    }

    fn is_issued_by(&self, above: &Above) -> bool {
        let by: &'static Algorithm = match self.hash {
            SHA1_ID => &SHA1_FOR_LEGACY_USE_ONLY,
            SHA256_ID => &SHA256,
            _ => return false,
        };
        let key = public_key(&above.key).map(|(_, key)| key).unwrap_or_default();
        digest(by, &above.name).as_ref() == self.name_hash && digest(by, key).as_ref() == self.key_hash
    }
}

/// Nothing that must be understood is: an extension that says so makes the answer none.
fn no_critical(extensions: Option<Value<'_>>) -> Option<()> {
    let Some(extensions) = extensions else { return Some(()) };
    let mut list = only(extensions.content, Tag::Sequence)?.inside()?;
    while !list.is_at_end() {
        let mut extension = list.expect(Tag::Sequence)?.inside()?;
        extension.expect(Tag::ObjectIdentifier)?;
        if extension.next()?.tag == Tag::Boolean {
            return None;
        }
    }
    Some(())
}

fn seconds(time: Value<'_>) -> Option<i64> {
    let time = GeneralizedTime::from_der(time.whole).ok()?;
    i64::try_from(time.to_unix_duration().as_secs()).ok()
}

#[cfg(test)]
pub(super) fn parses(staple: &[u8]) -> bool {
    BasicAnswer::parse(staple).is_some()
}
