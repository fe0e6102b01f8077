//! Who may sign pushed keys: a certificate with the name of the region's signer, good up to a root that is believed, of
//! which nothing was revoked.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::der::{Values, only};
use super::staple::{self, Above};
use super::{Answers, Distrust};
use crate::time::Timestamp;
use der::Tag;
use std::time::Duration;

/// Largest chain in bytes, as PEM.
pub const MAX_CHAIN: usize = 64 * 1024;
/// Most certificates in a chain.
const MAX_CERTIFICATES: usize = 8;
/// `id-at-commonName`, 2.5.4.3 (RFC 5280, appendix A.1).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The roots that signers may lead to.
#[derive(Debug)]
pub struct SignerRoots<'a>(Vec<TrustAnchor<'a>>);

impl SignerRoots<'static> {
    /// Takes certificates as DER; those that cannot be roots are left out, as stores of systems hold odd ones.
    pub fn from_der<C: AsRef<[u8]>>(certificates: impl IntoIterator<Item = C>) -> Self {
        let anchor = |certificate: C| {
            let certificate = CertificateDer::from(certificate.as_ref());
            anchor_from_trusted_cert(&certificate).ok().map(|anchor| anchor.to_owned())
        };
        Self(certificates.into_iter().filter_map(anchor).collect())
    }

    /// Takes the certificates of a PEM file, each of which has to be good; `None` if one is not or there are none.
    pub fn from_pem(pem: &[u8]) -> Option<Self> {
        let certificates: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
        let roots = Self::from_der(&certificates);
        (!roots.is_empty() && roots.0.len() == certificates.len()).then_some(roots)
    }
}

impl SignerRoots<'_> {
    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A signer whose certificate is good: its public key.
#[derive(Debug)]
pub(super) struct Signer(Vec<u8>);

impl Signer {
    /// Verifies an RSA-PSS signature with SHA-256 and a salt of 32 bytes.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        webpki::aws_lc_rs::RSA_PSS_2048_8192_SHA256_LEGACY_KEY.verify_signature(&self.0, message, signature).is_ok()
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self(Vec::new())
    }
}

/// Verifies the signer's certificate: its name, the way to a root, and that nothing on that way was revoked.
pub(super) fn verified(
    name: &str,
    answers: Answers<'_>,
    roots: &SignerRoots<'_>,
    now: Timestamp,
) -> Result<Signer, Distrust> {
    if answers.chain.len() > MAX_CHAIN {
        return Err(Distrust::UnknownSigner);
    }
    let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(answers.chain)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    let (leaf, others) =
        chain.split_first().filter(|_| chain.len() <= MAX_CERTIFICATES).ok_or(Distrust::UnknownSigner)?;
    let leaf = EndEntityCert::try_from(leaf).map_err(|_| Distrust::UnknownSigner)?;
    if common_name(leaf.subject()) != Some(name.as_bytes()) {
        return Err(Distrust::UnknownSigner);
    }
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().try_into().unwrap_or(0)));
    // A server's certificate, or one that says nothing of its use. AWS's own program does not look at that.
    let usage = KeyUsage::server_auth();
    let path = leaf
        .verify_for_usage(ALL_VERIFICATION_ALGS, &roots.0, others, at, usage, None, None)
        .map_err(|_| Distrust::UntrustedSigner)?;
    // Each certificate with the one above it, up to the root, which is believed without more.
    let way: Vec<&webpki::Cert<'_>> = std::iter::once(&*leaf).chain(path.intermediate_certificates()).collect();
    for (index, certificate) in way.iter().enumerate() {
        let above = match way.get(index + 1) {
            Some(above) => Above::certificate(above),
            None => Above::root(path.anchor()),
        };
        staple::check(certificate, &above.ok_or(Distrust::UntrustedSigner)?, answers.staples, now)?;
    }
    let key = leaf.subject_public_key_info();
    public_key(&key).map(|(_, key)| Signer(key.to_vec())).ok_or(Distrust::UnknownSigner)
}

/// Returns algorithm (without its tag) and bits of a `SubjectPublicKeyInfo`.
pub(super) fn public_key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut inside = only(info, Tag::Sequence)?.inside()?;
    let algorithm = inside.expect(Tag::Sequence)?;
    Some((algorithm.content, inside.expect(Tag::BitString)?.bits()?))
}

/// Returns the common name out of a name (without its tag), if there is exactly one.
fn common_name(subject: &[u8]) -> Option<&[u8]> {
    let (mut sets, mut found) = (Values::new(subject)?, None);
    while !sets.is_at_end() {
        let mut parts = sets.expect(Tag::Set)?.inside()?;
        while !parts.is_at_end() {
            let mut pair = parts.expect(Tag::Sequence)?.inside()?;
            let (kind, value) = (pair.expect(Tag::ObjectIdentifier)?, pair.next()?);
            let is_text = matches!(value.tag, Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
            if kind.content == COMMON_NAME && (!is_text || found.replace(value.content).is_some()) {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `C=US, CN=kim` in DER, without its outer tag.
    const NAME: &[u8] =
        b"\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02US\x31\x0c\x30\x0a\x06\x03\x55\x04\x03\x0c\x03kim";

    #[test]
    fn the_common_name_is_found_if_there_is_one() {
        assert_eq!(common_name(NAME), Some(&b"kim"[..]));
        assert_eq!(common_name(&[NAME, NAME].concat()), None, "two");
        assert_eq!(common_name(&NAME[..13]), None, "none");
        assert_eq!(common_name(&NAME[..NAME.len() - 1]), None, "cut off");
        crate::mutate::each(NAME, 0x6e61_6d65, |bytes| {
            common_name(bytes);
        });
    }
}
