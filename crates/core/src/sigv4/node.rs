//! Requests that a managed node signs with its own RSA key, as AWS's agent does before it has any credentials.
//!
//! They look like Signature Version 4, but the access key id is the node's id and the signature is RSASSA-PSS (SHA-256,
//! salt of 32 bytes, base 64) over the usual string to sign. Which node has which key is known elsewhere.

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::parse::{Examined, Form, Scope, Signer, examine_as};
use super::verify::{check_scope, check_time, sha256};
use super::{Request, Rules, SigV4Error, TargetForm};
use crate::id::NodeId;
use crate::time::Timestamp;

/// Smallest accepted key, bits; what AWS's agent makes.
const MIN_BITS: usize = 2048;
/// Largest accepted key, bits: verifying costs more with every bit.
const MAX_BITS: usize = 4096;
/// Longest accepted key in DER, bytes; 4096 bits take 550.
const MAX_DER_BYTES: usize = 1024;
/// Longest signature in base 64; 4096 bits take 684 characters.
const MAX_SIGNATURE_CHARS: usize = 1024;

/// The public RSA key of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeKey(Vec<u8>);

impl NodeKey {
    /// Reads a key in base 64 of its `SubjectPublicKeyInfo` in DER; `None` unless it is an RSA key of 2048 to 4096 bits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_DER_BYTES * 2 {
            return None;
        }
        let der = STANDARD.decode(text).ok()?;
        let key = PublicEncryptingKey::from_der(&der).ok()?;
        (der.len() <= MAX_DER_BYTES && (MIN_BITS..=MAX_BITS).contains(&key.key_size_bits())).then_some(Self(der))
    }

    /// Returns the key in DER.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }
}

/// What a request presents that claims to be signed by a node; not yet verified.
#[derive(Debug)]
pub struct NodePresented {
    node: NodeId,
    scope: Scope,
    signed_at: Timestamp,
    signature: Vec<u8>,
    string_to_sign: String,
}

/// Proof that a node's key signed a request. Only [`NodePresented::verify`] makes one.
#[derive(Debug)]
pub struct NodeVerified {
    node: NodeId,
    region: String,
    replay_id: [u8; 32],
}

impl NodeVerified {
    /// Returns the node whose key signed.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns the region of the scope.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the SHA-256 of the signature (T-49).
    pub fn replay_id(&self) -> [u8; 32] {
        self.replay_id
    }
}

/// Reads what a request presents in a node's name, under the same rules as any other (T-44, T-46).
pub fn parse_node(request: &Request<'_>) -> Result<NodePresented, SigV4Error> {
    let Examined { claim, string_to_sign, .. } = examine_as(request, TargetForm::CanonicalOnly, Signer::NodeKey)?;
    let malformed = SigV4Error::Malformed("a node signs with its id and an RSA signature in base 64");
    if claim.signature.len() > MAX_SIGNATURE_CHARS {
        return Err(malformed);
    }
    let (Ok(node), Ok(signature)) = (NodeId::parse(&claim.access_key_id), STANDARD.decode(&claim.signature)) else {
        return Err(malformed);
    };
    Ok(NodePresented { node, scope: claim.scope, signed_at: claim.signed_at, signature, string_to_sign })
}

impl NodePresented {
    /// Returns the node it claims to come from, known to nobody yet.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Returns the region of the scope.
    pub fn region(&self) -> &str {
        self.scope.region()
    }

    /// Verifies the signature with the key in DER that the node registered.
    pub fn verify(self, key: &[u8], now: Timestamp, rules: &Rules<'_>) -> Result<NodeVerified, SigV4Error> {
        check_scope(&self.scope, rules)?;
        check_time(self.signed_at, Form::Header, now, rules)?;
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key)
            .verify(self.string_to_sign.as_bytes(), &self.signature)
            .map_err(|_| SigV4Error::Mismatch)?;
        Ok(NodeVerified { region: self.scope.region().to_owned(), replay_id: sha256(&self.signature), node: self.node })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;
    use std::time::Duration;

    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};

    use super::super::canonical;
    use super::*;

    const NODE: &str = "mi-0123456789abcdef0";
    static KEY: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

    fn now() -> Timestamp {
        Timestamp::parse_basic("20261121T120000Z").unwrap()
    }

    fn public() -> Vec<u8> {
        let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = KEY.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    /// Signs as AWS's agent does and verifies.
    #[expect(clippy::disallowed_methods, reason = "only verifying is done without randomness")]
    fn verify(
        padding: &'static dyn RsaEncoding,
        credential: &str,
        body: &[u8],
        at: Timestamp,
        change: impl FnOnce(&mut Vec<(&'static str, String)>),
    ) -> Result<NodeVerified, SigV4Error> {
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", "gate.example.com:8443".to_owned()),
            ("x-amz-date", now().to_basic()),
            ("x-amz-target", "AmazonSSM.RequestManagedInstanceRoleToken".to_owned()),
        ];
        let signed: Vec<(String, &[u8])> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes())).collect();
        let hash = canonical::sha256_hex(b"{}");
        let canonical = canonical::request("POST", "/", "", &signed, &hash);
        let scope = Scope::new(now(), "local-1", "ssm");
        let string_to_sign = canonical::string_to_sign(now(), &scope, &canonical);
        let mut signature = vec![0; KEY.public_modulus_len()];
        KEY.sign(padding, &SystemRandom::new(), string_to_sign.as_bytes(), &mut signature).unwrap();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={credential}/{scope}, SignedHeaders={}, Signature={}",
            canonical::signed_list(&signed),
            STANDARD.encode(signature)
        );
        headers.push(("authorization", authorization));
        headers.push(("x-amz-content-sha256", hash));
        change(&mut headers);
        let headers: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = Request { method: "POST", target: "/", headers: &headers, body };
        parse_node(&request)?.verify(&public(), at, &Rules::new(&["local-1"], "ssm"))
    }

    #[test]
    fn a_nodes_signature_verifies_and_nothing_else_does() {
        let good = verify(&RSA_PSS_SHA256, NODE, b"{}", now(), |_| {}).unwrap();
        assert_eq!((good.node().as_str(), good.region()), (NODE, "local-1"));
        let mismatch = Some(SigV4Error::Mismatch);
        assert_eq!(verify(&RSA_PKCS1_SHA256, NODE, b"{}", now(), |_| {}).err(), mismatch, "another padding");
        let other = |headers: &mut Vec<(&str, String)>| headers[3].1 = "AmazonSSM.UpdateInstanceInformation".to_owned();
        assert_eq!(verify(&RSA_PSS_SHA256, NODE, b"{}", now(), other).err(), mismatch, "another operation");
        assert_eq!(verify(&RSA_PSS_SHA256, NODE, b"[]", now(), |_| {}).err(), Some(SigV4Error::PayloadMismatch));
        let no_hash = |headers: &mut Vec<(&str, String)>| drop(headers.pop());
        assert_eq!(verify(&RSA_PSS_SHA256, NODE, b"[]", now(), no_hash).err(), mismatch, "another body");
        let extra = |headers: &mut Vec<(&str, String)>| headers.push(("x-amz-security-token", "x".to_owned()));
        assert!(matches!(verify(&RSA_PSS_SHA256, NODE, b"{}", now(), extra).err(), Some(SigV4Error::NotSigned(_))));
        for name in ["AKIAIOSFODNN7EXAMPLE", "mi-0123456789abcdef", "i-0123456789abcdef0"] {
            assert!(matches!(verify(&RSA_PSS_SHA256, name, b"{}", now(), |_| {}), Err(SigV4Error::Malformed(_))));
        }
        let late = now().plus(Duration::from_secs(301));
        assert!(matches!(verify(&RSA_PSS_SHA256, NODE, b"{}", late, |_| {}), Err(SigV4Error::Expired { .. })));
    }

    #[test]
    fn a_nodes_key_is_rsa_of_a_good_size() {
        let text = STANDARD.encode(public());
        assert_eq!(text.len(), 392, "as AWS's agent sends it");
        assert_eq!(NodeKey::parse(&text).unwrap().as_der(), public());
        for bad in ["", "AAAA", text.get(..380).unwrap(), &"A".repeat(4096), &format!("{text}=")] {
            assert!(NodeKey::parse(bad).is_none(), "{bad:?}");
        }
        // An Ed25519 key.
        assert!(NodeKey::parse("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").is_none());
    }
}
