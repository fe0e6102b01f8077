//! The texts of IAM, parsed once where they enter: names, paths, documents, markers (botocore's IAM model).

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::api::text::checked_text;

checked_text! {
    /// The name of a new user.
    UserName: |text| name(text, 64), "a user name must have 1 to 64 letters, digits or _+=,.@-";
    /// The URL of an OpenID Connect provider.
    ProviderUrl: provider_url, "a provider's URL is https://host or https://host/path, without query, fragment or port 443";
    /// An audience of tokens.
    ClientId: |text| (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control),
        "a client id must have 1 to 255 characters";
    /// SHA-1 of a certificate in hexadecimal.
    Thumbprint: |text| text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "a thumbprint has 40 hexadecimal digits";
    /// A code of an MFA device.
    TokenCode: |text| text.len() == 6 && text.bytes().all(|b| b.is_ascii_digit()), "a token code has six digits";
    /// The name of a new role.
    RoleName: |text| name(text, 64), "a role name must have 1 to 64 letters, digits or _+=,.@-";
    /// The name of a group or policy, or of anything that is looked up.
    EntityName: |text| name(text, 128), "a name must have 1 to 128 letters, digits or _+=,.@-";
    /// The path of a user, group, role or policy.
    Path: path, "a path must be / or begin and end with / and have at most 512 printable characters";
    /// The beginning of paths.
    PathPrefix: path_prefix, "a path prefix must begin with / and have at most 512 printable characters";
    /// A policy's text; whether it is a policy is the policy engine's to say.
    PolicyDocument: document, "a policy document must have 1 to 131072 characters and no control characters";
    /// The text of an SSH public key.
    PublicKeyBody: key_body, "a public key has 1 to 16384 characters of ASCII or Latin-1";
    /// A version of a managed policy.
    VersionId: |text| version(text).is_some(), "a version id is v and a number, such as v1";
    /// Where a page of a list begins.
    Marker: |text| (1..=320).contains(&text.len()), "a marker must be one that an earlier answer gave";
    /// What a policy is for.
    Description: |text| text.chars().count() <= 1000, "a description has at most 1000 characters";
}

impl ProviderUrl {
    /// Returns the URL without its scheme.
    pub fn host(&self) -> &str {
        self.strip_prefix("https://").unwrap_or_default()
    }
}

impl VersionId {
    /// Returns the version's number.
    pub fn number(&self) -> u64 {
        version(self).unwrap_or_default()
    }
}

/// How many entries a page may have: 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MaxItems(pub u16);

/// How long sessions of a role may last, in seconds: 3600, the default, to 43200.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct MaxSessionDuration(u32);

impl MaxSessionDuration {
    /// Returns the duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0.into())
    }
}

impl Default for MaxSessionDuration {
    fn default() -> Self {
        Self(3600)
    }
}

impl<'de> Deserialize<'de> for MaxSessionDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            seconds @ 3600..=43_200 => Ok(Self(seconds)),
            _ => Err(de::Error::custom("MaxSessionDuration must be 3600 to 43200 seconds")),
        }
    }
}

impl<'de> Deserialize<'de> for MaxItems {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u16::deserialize(deserializer)? {
            count @ 1..=1000 => Ok(Self(count)),
            _ => Err(de::Error::custom("MaxItems must be 1 to 1000")),
        }
    }
}

/// `[\w+=,.@-]+`.
fn name(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// `(\u002F)|(\u002F[\u0021-\u007E]+\u002F)`; a `*` or `?` in it would read as a wildcard where ARNs are written.
fn path(text: &str) -> bool {
    path_prefix(text) && text.ends_with('/') && !text.contains(['*', '?'])
}

fn path_prefix(text: &str) -> bool {
    text.len() <= 512 && text.starts_with('/') && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

fn provider_url(text: &str) -> bool {
    text.len() <= 255
        && text.strip_prefix("https://").is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b))
}

fn document(text: &str) -> bool {
    !text.is_empty()
        && text.chars().nth(131_072).is_none()
        && !text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
}

/// `[\u0009\u000A\u000D\u0020-\u00FF]+`.
fn key_body(text: &str) -> bool {
    (1..=16_384).contains(&text.chars().count())
        && text.chars().all(|c| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{ff}'))
}

fn version(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('v')?;
    (digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0'))
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts<T: for<'de> Deserialize<'de>>(text: &str) -> bool {
        serde_json::from_value::<T>(serde_json::Value::String(text.to_owned())).is_ok()
    }

    #[test]
    fn names_and_paths_follow_the_model() {
        assert!(accepts::<UserName>("a_b+c=d,e.f@g-h"));
        for bad in ["", "a b", "a/b", "앨리스", "a\n", "a*", &"x".repeat(65)] {
            assert!(!accepts::<UserName>(bad), "{bad:?}");
        }
        assert!(accepts::<EntityName>(&"x".repeat(128)));
        for good in ["/", "/a/", "/a/b-c/"] {
            assert!(accepts::<Path>(good), "{good:?}");
        }
        for bad in ["", "a", "/a", "a/", "/a b/", "/*/", "/가/", &format!("/{}/", "x".repeat(511))] {
            assert!(!accepts::<Path>(bad), "{bad:?}");
        }
        assert!(accepts::<PathPrefix>("/a"));
        assert!(!accepts::<PathPrefix>("a"));
    }

    #[test]
    fn versions_documents_and_pages_have_bounds() {
        assert!(accepts::<VersionId>("v12"));
        for bad in ["v0", "v", "1", "v-1", "v9999999999", "v01"] {
            assert!(!accepts::<VersionId>(bad), "{bad:?}");
        }
        assert!(accepts::<PolicyDocument>("{\n\t\"한글\": 1 }"));
        assert!(!accepts::<PolicyDocument>(""));
        assert!(!accepts::<PolicyDocument>("\u{0}"));
        assert!(!accepts::<PolicyDocument>(&"x".repeat(131_073)));
        for (count, good) in [(0, false), (1, true), (1000, true), (1001, false)] {
            assert_eq!(serde_json::from_str::<MaxItems>(&count.to_string()).is_ok(), good, "{count}");
        }
    }
}
