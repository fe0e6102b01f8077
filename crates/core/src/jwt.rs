//! OpenID Connect tokens: JSON Web Tokens signed with RS256 or ES256, verified with a provider's published keys.
//!
//! What the claims must say is the caller's to decide; here it is only proved that the provider said them. The algorithm
//! is that of the key, never the token's choice, and a token brings no keys of its own (T-43).

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Longest token, in characters (the model of `AssumeRoleWithWebIdentity`).
pub const MAX_TOKEN: usize = 20_000;
/// Most keys of one provider that are looked at.
const MAX_KEYS: usize = 64;

/// Why a token proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// It is not three parts of base64url, or one of them is not what it should be.
    #[error("the token is not a JSON Web Token")]
    Malformed,
    /// It is signed in a way that is not accepted, `none` among them.
    #[error("the token is not signed with RS256 or ES256")]
    Algorithm,
    /// The provider publishes no such key.
    #[error("the token's key is none of the provider's")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
}

/// Keys as a provider publishes them (RFC 7517). Others than RSA and P-256 signing keys are left out.
#[derive(Debug, Clone, Default)]
pub struct Jwks(Vec<Jwk>);

#[derive(Debug, Clone)]
struct Jwk {
    id: Option<String>,
    key: PublicKey,
}

#[derive(Debug, Clone)]
enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
}

/// What a token claims, as far as it is looked at.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Claims {
    /// Who made it.
    pub iss: String,
    /// Of whom it speaks.
    pub sub: String,
    /// For whom it is.
    pub aud: Audience,
    /// Until when it is good, seconds since 1970.
    pub exp: f64,
    /// From when on it is good.
    #[serde(default)]
    pub nbf: Option<f64>,
    /// When it was made.
    #[serde(default)]
    pub iat: Option<f64>,
    /// The party that it was made for, where that is not the audience.
    #[serde(default)]
    pub azp: Option<String>,
    /// How the person proved themselves.
    #[serde(default)]
    pub amr: Vec<String>,
}

/// One audience or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// Returns all of them.
    pub fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
}

#[derive(Deserialize)]
struct RawKeys {
    keys: Vec<RawKey>,
}

#[derive(Deserialize)]
struct RawKey {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default, rename = "use")]
    purpose: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl Jwks {
    /// Reads a provider's keys. `None` if it is no key set.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let raw: RawKeys = serde_json::from_slice(json).ok()?;
        Some(Self(raw.keys.into_iter().take(MAX_KEYS).filter_map(Jwk::read).collect()))
    }
}

impl Jwk {
    fn read(raw: RawKey) -> Option<Self> {
        if raw.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let field = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let is_for = |wanted: &str| raw.alg.as_deref().is_none_or(|alg| alg == wanted);
        let key = match raw.kty.as_str() {
            "RSA" if is_for("RS256") => PublicKey::Rsa { n: field(raw.n)?, e: field(raw.e)? },
            "EC" if is_for("ES256") && raw.crv.as_deref() == Some("P-256") => {
                let (x, y) = (field(raw.x)?, field(raw.y)?);
                if x.len() != 32 || y.len() != 32 {
                    return None;
                }
                PublicKey::P256([&[4], x.as_slice(), y.as_slice()].concat())
            }
            _ => return None,
        };
        Some(Self { id: raw.kid, key })
    }

    fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        match &self.key {
            PublicKey::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signed).is_ok()
            }
            PublicKey::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(message, signed).is_ok()
            }
        }
    }
}

/// Returns what a token claims without any proof: only to find the provider whose keys shall prove it.
pub fn unproven_claims(token: &str) -> Result<Claims, JwtError> {
    parts(token).and_then(|(_, [_, claims, _])| read_part(claims))
}

/// Verifies a token with its provider's keys.
pub fn verify(token: &str, keys: &Jwks) -> Result<Claims, JwtError> {
    let (message, [header, claims, signed]) = parts(token)?;
    let header: Header = read_part(header)?;
    let of_its_kind = |jwk: &&Jwk| {
        matches!((&jwk.key, header.alg.as_str()), (PublicKey::Rsa { .. }, "RS256") | (PublicKey::P256(_), "ES256"))
    };
    if !matches!(header.alg.as_str(), "RS256" | "ES256") {
        return Err(JwtError::Algorithm);
    }
    let named = |jwk: &&Jwk| header.kid.is_none() || jwk.id == header.kid;
    let mut candidates = keys.0.iter().filter(of_its_kind).filter(named).peekable();
    if candidates.peek().is_none() {
        return Err(JwtError::UnknownKey);
    }
    let signed = URL_SAFE_NO_PAD.decode(signed).map_err(|_| JwtError::Malformed)?;
    if !candidates.any(|jwk| jwk.verifies(message.as_bytes(), &signed)) {
        return Err(JwtError::Signature);
    }
    read_part(claims)
}

/// Splits a token into what is signed and its three parts.
fn parts(token: &str) -> Result<(&str, [&str; 3]), JwtError> {
    let (message, signed) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
    match message.split_once('.') {
        Some((header, claims)) if token.len() <= MAX_TOKEN && !claims.contains('.') => {
            Ok((message, [header, claims, signed]))
        }
        _ => Err(JwtError::Malformed),
    }
}

fn read_part<T: serde::de::DeserializeOwned>(part: &str) -> Result<T, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.2 (RS256), with its key.
    const RFC_KEYS: &str = r#"{"keys":[{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}]}"#;

    #[test]
    fn what_is_not_signed_in_an_accepted_way_proves_nothing() {
        let keys = Jwks::parse(RFC_KEYS.as_bytes()).unwrap();
        assert_eq!(keys.0.len(), 1);
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let claims = encode(r#"{"iss":"https://i","sub":"s","aud":"a","exp":1}"#);
        for (header, expected) in [
            (r#"{"alg":"none"}"#, JwtError::Algorithm),
            (r#"{"alg":"HS256"}"#, JwtError::Algorithm),
            (r#"{"alg":"ES256"}"#, JwtError::UnknownKey),
            (r#"{"alg":"RS256","kid":"other"}"#, JwtError::UnknownKey),
            (r#"{"alg":"RS256"}"#, JwtError::Signature),
            (r#"{"typ":"JWT"}"#, JwtError::Malformed),
        ] {
            assert_eq!(verify(&format!("{}.{claims}.AAAA", encode(header)), &keys), Err(expected), "{header}");
        }
        for bad in ["", ".", "..", "a.b", "a.b.c.d", &"a".repeat(MAX_TOKEN + 1)] {
            assert_eq!(unproven_claims(bad), Err(JwtError::Malformed));
        }
    }

    #[test]
    fn keys_that_are_not_for_signing_are_left_out() {
        for (key, kept) in [
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, 1),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB","use":"enc"}"#, 0),
            (r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS512"}"#, 0),
            (r#"{"kty":"oct","k":"AQAB"}"#, 0),
            (r#"{"kty":"EC","crv":"P-384","x":"AQAB","y":"AQAB"}"#, 0),
            (r#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB"}"#, 0),
        ] {
            assert_eq!(Jwks::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes()).unwrap().0.len(), kept, "{key}");
        }
        assert!(Jwks::parse(b"[]").is_none());
    }

    #[test]
    fn a_quarter_million_mutated_tokens_and_key_sets_do_not_panic() {
        let keys = Jwks::parse(RFC_KEYS.as_bytes()).unwrap();
        let token = format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"1"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"iss":"https://i","sub":"s","aud":["a","b"],"exp":1.5,"amr":["mfa"]}"#)
        );
        crate::mutate::each(token.as_bytes(), 5, |bytes| {
            assert!(verify(&String::from_utf8_lossy(bytes), &keys).is_err());
        });
        crate::mutate::each(br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"BB","use":"sig"}]}"#, 7, |bytes| {
            let _ = Jwks::parse(bytes);
        });
    }
}
