//! What a node is told for its own sshd: the authorities for people, what they revoked, and a certificate for its host
//! key. Signed by the server's grant key (T-20, T-21), because whoever can tell a node this can log in there.
//!
//! Written as grants are: fixed order, every field with its length. The version only rises.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};

use crate::id::NodeId;
use crate::time::Timestamp;
use crate::trust::{KeyId, TrustBundle};
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Keeps a signature from passing for one of another purpose (T-21).
const CONTEXT: &[u8] = b"munjigi ssh trust v1\0";
/// Most bytes of a signed document: it travels in one frame, and in one message between the agent's halves.
pub const MAX_BYTES: usize = 56 * 1024;
/// Most bytes of a line with a key or a certificate.
const MAX_LINE: usize = 4096;
/// Most authorities.
const MAX_AUTHORITIES: usize = 16;

/// The document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSshTrust {
    /// The only node that it is for.
    pub node: NodeId,
    /// Rises with every document, whatever changed.
    pub version: u64,
    /// Public keys of the authorities for people, one line each as in an `.pub` file. None means that nobody is let in
    /// by a certificate.
    pub user_authorities: Vec<String>,
    /// What they have revoked, as OpenSSH reads it.
    pub revoked: Vec<u8>,
    /// Certificate for the node's host key, if the server knows that: one line as in a `-cert.pub` file.
    pub host_certificate: Option<String>,
}

/// Why a document is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeTrustError {
    /// The bytes are no document of this version.
    #[error("the SSH trust is malformed: {0}")]
    Malformed(#[from] FieldError),
    /// No current grant key has this id.
    #[error("the SSH trust is signed by a key that this node does not trust")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the SSH trust's signature is wrong")]
    BadSignature,
    /// For another node.
    #[error("the SSH trust names another node")]
    OtherNode,
    /// Older than what the node has.
    #[error("the SSH trust has version {offered}, older than version {held} that this node holds")]
    Older {
        /// Version offered.
        offered: u64,
        /// Version held.
        held: u64,
    },
    /// A line holds what would be more than one key to sshd.
    #[error("the SSH trust holds a line that is no key")]
    BadLine,
}

impl NodeSshTrust {
    /// Signs the document; `None` if it is longer than [`MAX_BYTES`].
    pub fn sign(&self, key_id: KeyId, key: &Ed25519KeyPair) -> Option<Vec<u8>> {
        let mut body = FieldWriter::new(CONTEXT);
        body.text(self.node.as_str()).u64(self.version).texts(&self.user_authorities).bytes(&self.revoked);
        body.text(self.host_certificate.as_deref().unwrap_or_default());
        let body = body.finish();
        let mut signed = FieldWriter::default();
        signed.bytes(&key_id.0).bytes(key.sign(&body).as_ref()).bytes(&body);
        Some(signed.finish()).filter(|signed| signed.len() <= MAX_BYTES)
    }

    /// Verifies a signed document for a node that holds version `held`. The same version again is good: it repairs files.
    pub fn verify(
        signed: &[u8],
        trust: &TrustBundle,
        node: &NodeId,
        held: u64,
        now: Timestamp,
    ) -> Result<Self, NodeTrustError> {
        let mut fields = FieldReader::new(signed, b"")?;
        let key_id = KeyId(fields.fixed()?);
        let signature: [u8; 64] = fields.fixed()?;
        let body = fields.bytes(MAX_BYTES)?;
        fields.end()?;
        let key = trust.grant_key(key_id, now).ok_or(NodeTrustError::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key).verify(body, &signature).map_err(|_| NodeTrustError::BadSignature)?;
        let document = Self::read(body)?;
        if document.node != *node {
            return Err(NodeTrustError::OtherNode);
        }
        if document.version < held {
            return Err(NodeTrustError::Older { offered: document.version, held });
        }
        Ok(document)
    }

    fn read(body: &[u8]) -> Result<Self, NodeTrustError> {
        let mut fields = FieldReader::new(body, CONTEXT)?;
        let document = Self {
            node: NodeId::parse(fields.text(64)?).map_err(|_| FieldError::Unknown)?,
            version: fields.u64()?,
            user_authorities: fields.texts(MAX_AUTHORITIES, MAX_AUTHORITIES * MAX_LINE)?,
            revoked: fields.bytes(MAX_BYTES)?.to_vec(),
            host_certificate: Some(fields.text(MAX_LINE)?.to_owned()).filter(|line| !line.is_empty()),
        };
        fields.end()?;
        let mut lines = document.user_authorities.iter().chain(&document.host_certificate);
        // A line's end would make it two, of which sshd believes both.
        let good = lines.all(|line| !line.is_empty() && line.len() <= MAX_LINE && !line.chars().any(char::is_control));
        if good { Ok(document) } else { Err(NodeTrustError::BadLine) }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;
    use crate::trust::{KeyPurpose, TrustedKey};

    fn pair(seed: u8) -> (KeyId, Ed25519KeyPair) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        (KeyId::of(pair.public_key().as_ref()), pair)
    }

    fn trusted(purpose: KeyPurpose) -> TrustBundle {
        let (id, pair) = pair(1);
        let public = pair.public_key().as_ref().try_into().unwrap();
        let key = TrustedKey { id, purpose, public, not_before: Timestamp(0), not_after: Timestamp(i64::MAX) };
        TrustBundle { version: 1, keys: vec![key] }
    }

    fn document() -> NodeSshTrust {
        NodeSshTrust {
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            version: 5,
            user_authorities: vec!["ssh-ed25519 AAAA".to_owned(), "ssh-ed25519 BBBB".to_owned()],
            revoked: vec![1, 2, 3],
            host_certificate: Some("ssh-ed25519-cert-v01@openssh.com CCCC".to_owned()),
        }
    }

    fn verify(signed: &[u8], held: u64) -> Result<NodeSshTrust, NodeTrustError> {
        NodeSshTrust::verify(signed, &trusted(KeyPurpose::Grant), &document().node, held, Timestamp(1))
    }

    #[test]
    fn what_was_signed_is_read_and_everything_else_is_refused_by_name() {
        let (id, key) = pair(1);
        let signed = document().sign(id, &key).unwrap();
        assert_eq!(verify(&signed, 5), Ok(document()));
        assert_eq!(verify(&signed, 6), Err(NodeTrustError::Older { offered: 5, held: 6 }));
        let elsewhere = NodeId::parse("mi-0123456789abcdef1").unwrap();
        let other = NodeSshTrust::verify(&signed, &trusted(KeyPurpose::Grant), &elsewhere, 0, Timestamp(1));
        assert_eq!(other, Err(NodeTrustError::OtherNode));
        // A key of another purpose in the signer's place is none (T-21).
        let purpose =
            NodeSshTrust::verify(&signed, &trusted(KeyPurpose::Checkpoint), &document().node, 0, Timestamp(1));
        assert_eq!(purpose, Err(NodeTrustError::UnknownKey));
        let (other_id, other_key) = pair(2);
        assert_eq!(verify(&document().sign(other_id, &other_key).unwrap(), 0), Err(NodeTrustError::UnknownKey));
        assert_eq!(verify(&document().sign(id, &other_key).unwrap(), 0), Err(NodeTrustError::BadSignature));
        let two_lines = NodeSshTrust { user_authorities: vec!["a\nb".to_owned()], ..document() };
        assert_eq!(verify(&two_lines.sign(id, &key).unwrap(), 0), Err(NodeTrustError::BadLine));
        assert_eq!(NodeSshTrust { revoked: vec![0; MAX_BYTES], ..document() }.sign(id, &key), None);
    }

    #[test]
    fn no_alteration_passes_and_none_panics() {
        let (id, key) = pair(1);
        let signed = document().sign(id, &key).unwrap();
        crate::mutate::each(&signed, 0x6e6f_6465, |altered| {
            assert!(altered == signed || verify(altered, 0).is_err());
            let _ = NodeSshTrust::read(altered);
        });
    }
}
