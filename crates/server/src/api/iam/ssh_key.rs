//! An SSH public key as the operations of IAM show it, and what is wrong with one in IAM's words.

use md5::{Digest as _, Md5};
use munjigi_core::id::SshKeyId;
use munjigi_core::ssh::{PublicKey, PublicKeyError};
use serde::Serialize;

use crate::api::error::ApiError;
use crate::api::time::IsoTime;
use crate::store::SshPublicKey;

/// A key with its text.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SSHPublicKey {
    /// Whose key it is.
    pub user_name: String,
    /// Its id.
    #[serde(rename = "SSHPublicKeyId")]
    pub id: SshKeyId,
    /// MD5 of the key, 16 pairs of hexadecimal digits: what AWS shows, and no proof of anything today.
    pub fingerprint: String,
    /// The key.
    #[serde(rename = "SSHPublicKeyBody")]
    pub body: String,
    /// `Active` or `Inactive`.
    pub status: &'static str,
    /// When it was registered.
    pub upload_date: IsoTime,
}

impl SSHPublicKey {
    /// Shows a key with `body` as its text.
    pub(super) fn of(key: SshPublicKey, body: String) -> Self {
        let pairs: Vec<String> = Md5::digest(key.key.blob()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            user_name: key.user_name,
            id: key.id,
            fingerprint: pairs.join(":"),
            body,
            status: status(key.active),
            upload_date: IsoTime(key.uploaded),
        }
    }
}

/// Returns the word for a key that is on or off.
pub(super) fn status(active: bool) -> &'static str {
    if active { "Active" } else { "Inactive" }
}

/// Reads a key that somebody uploads. Our own sentence says what is wrong, under IAM's codes: a text that is no form of
/// key is an unrecognised encoding, a key that is not taken is invalid.
pub(super) fn parse(body: &str) -> Result<PublicKey, ApiError> {
    PublicKey::parse(body).map_err(|error| {
        let code = match error {
            PublicKeyError::NotAKey
            | PublicKeyError::UnknownKind
            | PublicKeyError::Certificate
            | PublicKeyError::SeveralLines
            | PublicKeyError::Options
            | PublicKeyError::PrivateKey => "UnrecognizedPublicKeyEncoding",
            _ => "InvalidPublicKey",
        };
        ApiError::bad(code, error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use munjigi_core::time::Timestamp;

    #[test]
    fn the_fingerprint_is_that_of_ssh_keygen_with_md5() {
        // `ssh-keygen -l -E md5` of the same key.
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhn/6pFn80oeUxjQu2cJYUSmk45c8VzM0LtJHxAOxnO";
        let key = SshPublicKey {
            id: SshKeyId::parse("APKAAAAAAAAAAAAAAAAA").unwrap(),
            user_name: "kim".into(),
            key: PublicKey::parse(line).unwrap(),
            active: true,
            uploaded: Timestamp(0),
        };
        assert_eq!(SSHPublicKey::of(key, String::new()).fingerprint, "d2:08:6d:da:76:4d:10:fc:8e:da:44:a3:83:38:d2:6b");
    }

    #[test]
    fn what_is_no_key_and_what_is_a_bad_one_have_codes_of_their_own() {
        for (body, code) in [
            ("hello", "UnrecognizedPublicKeyEncoding"),
            ("ssh-foo AAAA", "UnrecognizedPublicKeyEncoding"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "UnrecognizedPublicKeyEncoding"),
            ("ssh-ed25519 AAAA", "InvalidPublicKey"),
            ("ssh-ed25519 !!!!", "InvalidPublicKey"),
            ("ssh-dss AAAA", "InvalidPublicKey"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "UnrecognizedPublicKeyEncoding"),
        ] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.code(crate::api::operation::Service::Iam), code, "{body}");
        }
    }
}
