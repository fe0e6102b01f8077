//! Keys that AWS itself pushes to an EC2 instance: what the instance's metadata service tells of them is judged here, as AWS's
//! own package `ec2-instance-connect` does.
//!
//! A key counts only if AWS's signer for this region has signed it for this instance, and the signer's certificate is
//! good up to a root that the machine believes, none of it revoked. Nothing is fetched here; time and roots are arguments.

mod der;
mod keys_file;
mod signer;
mod staple;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::ssh::{Fingerprint, PublicKey};
use crate::time::Timestamp;

pub use keys_file::MAX_KEYS_FILE;
pub use signer::{MAX_CHAIN, SignerRoots};
pub use staple::{MAX_STAPLE, MAX_STAPLES, staple_name};

/// Domains of AWS's partitions whose signers are known.
const DOMAINS: [&str; 4] = ["amazonaws.com", "amazonaws.com.cn", "c2s.ic.gov", "sc2s.sgov.gov"];
/// Longest zone; the longest known has 16 bytes.
const MAX_ZONE: usize = 64;

/// Why AWS's keys are not believed, or one of them is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Distrust {
    /// The metadata service does not answer, or not as it should.
    #[error("the metadata service of the instance did not answer as it should")]
    NoMetadata,
    /// All took longer than it may.
    #[error("the metadata service of the instance took too long")]
    TooSlow,
    /// Neither the hypervisor nor the board says that this is the instance.
    #[error("this machine is not the EC2 instance that its metadata service names")]
    NotAnInstance,
    /// The availability zone is none.
    #[error("the metadata service names an availability zone that cannot be one")]
    UnknownZone,
    /// The domain is none of AWS's.
    #[error("the metadata service names a domain that is none of AWS's")]
    UnknownDomain,
    /// The signer's certificate is for something else.
    #[error("the signer's certificate is not that of this region's signer")]
    UnknownSigner,
    /// No way from the signer's certificate to a root that is believed here, at this time.
    #[error("the signer's certificate leads to no root that is believed here, or is out of date")]
    UntrustedSigner,
    /// A certificate has no staple that says that it is good now.
    #[error("a certificate of the signer has no OCSP answer saying that it is good now")]
    NotKnownGood,
    /// A certificate was revoked.
    #[error("a certificate of the signer was revoked")]
    RevokedSigner,
    /// The list of keys is too long or no text.
    #[error("the list of pushed keys cannot be read")]
    MalformedKeys,
    /// A key without its instance, its end, or a signature.
    #[error("the pushed key lacks its instance, its end or its signature")]
    IncompleteKey,
    /// A key of a kind or size that is never let in, or no key.
    #[error("the pushed key is of a kind or size that is never let in")]
    KeyNotTaken,
    /// A key for another instance.
    #[error("the key was pushed to another instance")]
    OtherInstance,
    /// A key whose time is over.
    #[error("the time of the pushed key is over")]
    Expired,
    /// The signature is not the signer's.
    #[error("the signature of the pushed key is not the signer's")]
    BadSignature,
    /// There are pushed keys, and the one that was offered is none of them.
    #[error("other keys were pushed, not the one that was offered")]
    OtherKey,
}

impl Distrust {
    const ALL: [Self; 16] = [
        Self::NoMetadata,
        Self::TooSlow,
        Self::NotAnInstance,
        Self::UnknownZone,
        Self::UnknownDomain,
        Self::UnknownSigner,
        Self::UntrustedSigner,
        Self::NotKnownGood,
        Self::RevokedSigner,
        Self::MalformedKeys,
        Self::IncompleteKey,
        Self::KeyNotTaken,
        Self::OtherInstance,
        Self::Expired,
        Self::BadSignature,
        Self::OtherKey,
    ];

    /// Returns the name that stands in the trail.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoMetadata => "MetadataUnavailable",
            Self::TooSlow => "MetadataTooSlow",
            Self::NotAnInstance => "NotAnInstance",
            Self::UnknownZone => "UnknownAvailabilityZone",
            Self::UnknownDomain => "UnknownServicesDomain",
            Self::UnknownSigner => "SignerUnrecognized",
            Self::UntrustedSigner => "SignerUntrusted",
            Self::NotKnownGood => "SignerNotKnownGood",
            Self::RevokedSigner => "SignerRevoked",
            Self::MalformedKeys => "PushedKeysMalformed",
            Self::IncompleteKey => "PushedKeyIncomplete",
            Self::KeyNotTaken => "PushedKeyNotTaken",
            Self::OtherInstance => "PushedForOtherInstance",
            Self::Expired => "PushedKeyExpired",
            Self::BadSignature => "PushedKeySignatureWrong",
            Self::OtherKey => "OtherKeyPushed",
        }
    }

    /// Finds the reason by its code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// An EC2 instance and the signer of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    id: String,
    signer: String,
}

impl Instance {
    /// Takes the instance's id, its availability zone and the domain of its partition's services, as the metadata service
    /// says them.
    pub fn new(id: &str, zone: &str, domain: &str) -> Result<Self, Distrust> {
        if !valid_instance_id(id) {
            return Err(Distrust::NotAnInstance);
        }
        let region = region(zone).ok_or(Distrust::UnknownZone)?;
        if !DOMAINS.contains(&domain) {
            return Err(Distrust::UnknownDomain);
        }
        Ok(Self { id: id.to_owned(), signer: format!("managed-ssh-signer.{region}.{domain}") })
    }
}

/// Tells whether a text is the id of an instance: `i-` and 8 to 32 hexadecimal digits.
pub fn valid_instance_id(id: &str) -> bool {
    id.strip_prefix("i-").is_some_and(|digits| {
        (8..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// Returns the region of an availability zone of the form `^([a-z]+-){2,3}[0-9][a-z]$`.
fn region(zone: &str) -> Option<&str> {
    let (region, letter) = zone.split_at_checked(zone.len().checked_sub(1)?)?;
    let (words, digit) = region.rsplit_once('-')?;
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    let good = zone.len() <= MAX_ZONE
        && is_word(letter)
        && matches!(digit.as_bytes(), [b'0'..=b'9'])
        && (2..=3).contains(&words.split('-').count())
        && words.split('-').all(is_word);
    good.then_some(region)
}

/// Tells whether a machine is the EC2 instance of this id, by what its hypervisor (`/sys/hypervisor/uuid`, Xen) or else its board
/// (`/sys/devices/virtual/dmi/id/board_asset_tag`, Nitro) says; `None` for what is not there.
pub fn is_this_machine(id: &str, hypervisor: Option<&str>, board: Option<&str>) -> bool {
    match (hypervisor, board) {
        (Some(uuid), _) => uuid.starts_with("ec2"),
        (None, Some(tag)) => tag.trim() == id,
        (None, None) => false,
    }
}

/// What the metadata service says about keys for one account.
#[derive(Clone, Copy)]
pub struct Answers<'a> {
    /// The signer's certificate and those above it, in PEM.
    pub chain: &'a [u8],
    /// OCSP answers about them: name and content.
    pub staples: &'a [(String, Vec<u8>)],
    /// The keys with what is said and signed about each.
    pub keys: &'a [u8],
}

/// A key that AWS has pushed for this instance and that is good now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsKey {
    /// The key.
    pub key: PublicKey,
    /// Until when it is good.
    pub expires: Timestamp,
    /// ARN of who pushed it; empty if AWS does not say.
    pub caller: String,
    /// Id of the request that pushed it; empty if AWS does not say.
    pub request_id: String,
}

impl AwsKey {
    /// Returns the line that AWS's own program writes into the system's log when it hands out such a key.
    pub fn log_line(&self) -> String {
        let mut line =
            format!("Providing ssh key from EC2 Instance Connect with fingerprint: {}", self.key.fingerprint());
        if !self.request_id.is_empty() {
            line = format!("{line}, request-id: {}", self.request_id);
        }
        if !self.caller.is_empty() {
            line = format!("{line}, for IAM principal: {}", self.caller);
        }
        line
    }
}

/// What became of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Judged {
    /// Those that are good now, and the one that was offered if one was.
    pub good: Vec<AwsKey>,
    /// Why the first other one that could have been meant is not good.
    pub refused: Option<RefusedKey>,
}

/// A pushed key that is not good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedKey {
    /// Why.
    pub why: Distrust,
    /// Its fingerprint, if it is a key at all.
    pub fingerprint: Option<Fingerprint>,
}

impl From<Distrust> for RefusedKey {
    fn from(why: Distrust) -> Self {
        Self { why, fingerprint: None }
    }
}

/// Judges what the metadata service says: first the signer, then each key, of which one that was `offered` (its type and bytes)
/// is looked for if there is one.
pub fn judge(
    instance: &Instance,
    answers: Answers<'_>,
    roots: &SignerRoots<'_>,
    offered: Option<(&str, &[u8])>,
    now: Timestamp,
) -> Result<Judged, Distrust> {
    let signer = signer::verified(&instance.signer, answers, roots, now)?;
    let mut judged = Judged::default();
    for block in keys_file::parse(answers.keys)? {
        match block.judge(&instance.id, &signer, offered, now) {
            Ok(key) => judged.good.push(key),
            // That it is another key says least of all.
            Err(refused) => match &judged.refused {
                Some(known) if known.why != Distrust::OtherKey => {}
                _ => judged.refused = Some(refused),
            },
        }
    }
    Ok(judged)
}

impl fmt::Debug for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("staples", &self.staples.len()).finish_non_exhaustive()
    }
}
