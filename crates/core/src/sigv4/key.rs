//! The secret access key and the keys derived from it for one day, region and service.

use std::fmt;

use aws_lc_rs::{constant_time, hmac};

use super::Scope;
use crate::secret::Secret;

/// A secret access key; prints nothing and is wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(Secret<String>);

impl SecretKey {
    /// Wraps the key's text.
    pub const fn new(text: String) -> Self {
        Self(Secret::new(text))
    }

    /// Returns the key's text, to show it once to its owner or to seal it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// The key derived for one day, region and service, worth keeping per (access key, day, region, service): deriving
/// costs four HMACs. Prints nothing and is wiped when dropped.
#[derive(Clone)]
pub struct SigningKey(Secret<[u8; 32]>);

impl SigningKey {
    /// Derives the key for a scope.
    pub fn derive(secret: &SecretKey, scope: &Scope) -> Self {
        let start = Secret::new(format!("AWS4{}", secret.expose()).into_bytes());
        let day = mac(start.expose(), scope.day().as_bytes());
        let region = mac(day.expose(), scope.region().as_bytes());
        let service = mac(region.expose(), scope.service().as_bytes());
        Self(mac(service.expose(), b"aws4_request"))
    }

    /// Returns the signature of a string to sign in lower-case hexadecimal.
    pub(super) fn sign(&self, string_to_sign: &str) -> String {
        hex::encode(mac(self.0.expose(), string_to_sign.as_bytes()).expose())
    }

    /// Compares in constant time (T-37).
    pub(super) fn matches(&self, string_to_sign: &str, signature: &[u8; 32]) -> bool {
        let right = mac(self.0.expose(), string_to_sign.as_bytes());
        constant_time::verify_slices_are_equal(right.expose(), signature).is_ok()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

fn mac(key: &[u8], message: &[u8]) -> Secret<[u8; 32]> {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut bytes = [0; 32];
    for (to, from) in bytes.iter_mut().zip(tag.as_ref()) {
        *to = *from;
    }
    Secret::new(bytes)
}
