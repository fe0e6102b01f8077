//! SSH certificates and their authorities as the command line asks for them and reads them.

use munjigi_core::secret::Secret;
use serde::{Deserialize, Serialize, Serializer};

use super::api_types::Epoch;

/// `IssueSshCertificate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Issue {
    pub(crate) public_key: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) os_users: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) life_seconds: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) force_command: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) source_addresses: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extensions: Option<Vec<String>>,
}

/// Output of `IssueSshCertificate`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Issued {
    /// One line as in a `-cert.pub` file.
    pub(crate) certificate: String,
    pub(crate) serial: u64,
    pub(crate) key_id: String,
    pub(crate) os_users: Vec<String>,
    pub(crate) expires_at: Epoch,
}

/// `RevokeSshCertificate`; exactly one of the first four.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Revoke {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Output of `RevokeSshCertificate`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RevokedCount {
    pub(crate) revoked: usize,
}

/// `RotateSshAuthority`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rotate {
    /// `user` or `host`.
    pub(crate) authority: String,
    pub(crate) distrust: bool,
    /// The key that signs from now on, in OpenSSH's form; it is shown to nobody.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    pub(crate) private_key: Option<Secret<String>>,
}

fn exposed<S: Serializer>(key: &Option<Secret<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|key| key.expose().as_str()).serialize(serializer)
}

/// Output of `RotateSshAuthority`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Rotated {
    pub(crate) fingerprint: String,
    pub(crate) revoked: usize,
}

/// `DescribeSshAuthority`.
#[derive(Debug, Serialize)]
pub(crate) struct Describe {}

/// Output of `DescribeSshAuthority`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Authorities {
    pub(crate) user_keys: Vec<AuthorityKey>,
    pub(crate) host_keys: Vec<AuthorityKey>,
}

/// A key of an authority.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AuthorityKey {
    /// `previous`, `current` or `next`.
    pub(crate) stage: String,
    pub(crate) public_key: String,
    pub(crate) fingerprint: String,
    pub(crate) created_at: Epoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) believed_until: Option<Epoch>,
}

/// `ListSshCertificates`.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct List {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) principal: Option<String>,
    pub(crate) ended: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_token: Option<String>,
}

/// Output of `ListSshCertificates`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Listed {
    pub(crate) certificates: Vec<Certificate>,
    #[serde(default)]
    pub(crate) next_token: Option<String>,
}

/// A certificate that was issued.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Certificate {
    pub(crate) serial: u64,
    pub(crate) key_id: String,
    pub(crate) principal: String,
    pub(crate) os_users: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) source_addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) force_command: Option<String>,
    pub(crate) fingerprint: String,
    pub(crate) authority: String,
    pub(crate) issued_at: Epoch,
    pub(crate) expires_at: Epoch,
    /// `valid`, `ended` or `revoked`.
    pub(crate) state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<Epoch>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}
