//! The signing of our own requests, header form, whole payload.

use super::canonical::{self, sha256_hex};
use super::{ALGORITHM, Request, Scope, SecretKey, SigV4Error, SigningKey, TargetForm};
use crate::secret::Secret;
use crate::time::Timestamp;

/// Headers that carry meaning, ours and those of the scheme; each present one is signed.
const MEANINGFUL: [&str; 2] = ["x-amz-", "x-munjigi-"];

/// What a client signs with.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The access key id.
    pub access_key_id: String,
    /// Its secret.
    pub secret: SecretKey,
    /// The session token of temporary credentials.
    pub session_token: Option<Secret<String>>,
}

/// Signs a request and returns the headers to add to it: `x-amz-date`, `x-amz-security-token` where there is a token,
/// and `authorization`.
///
/// The request must have its `host` header, and `content-type` when it has a body; those and every `x-amz-*` and
/// `x-munjigi-*` header are signed. Fails when the target is not in canonical form or a header is missing, since the server would refuse it.
pub fn sign(
    request: &Request<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
    at: Timestamp,
) -> Result<Vec<(&'static str, String)>, SigV4Error> {
    let mut added = vec![("x-amz-date", at.to_basic())];
    if let Some(token) = &credentials.session_token {
        added.push(("x-amz-security-token", token.expose().clone()));
    }

    let mut signed: Vec<(String, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), *value))
        .filter(|(name, _)| {
            name == "host" || name == "content-type" || MEANINGFUL.iter().any(|prefix| name.starts_with(prefix))
        })
        .chain(added.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes())))
        .collect();
    signed.sort_by(|a, b| a.0.cmp(&b.0));
    for pair in signed.windows(2) {
        if let [(a, _), (b, _)] = pair
            && a == b
        {
            return Err(SigV4Error::Duplicate(a.clone()));
        }
    }
    let has = |wanted: &str| signed.iter().any(|(name, _)| name == wanted);
    if !has("host") {
        return Err(SigV4Error::NotSigned("host".to_owned()));
    }
    if !request.body.is_empty() && !has("content-type") {
        return Err(SigV4Error::NotSigned("content-type".to_owned()));
    }

    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let path = canonical::path(path, service, TargetForm::CanonicalOnly)?;
    let query = canonical::query(&canonical::pairs(query, TargetForm::CanonicalOnly)?);
    let canonical = canonical::request(request.method, &path, &query, &signed, &sha256_hex(request.body));
    let scope = Scope::new(at, region, service);
    let signature =
        SigningKey::derive(&credentials.secret, &scope).sign(&canonical::string_to_sign(at, &scope, &canonical));
    let authorization = format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
        credentials.access_key_id,
        canonical::signed_list(&signed),
    );
    added.push(("authorization", authorization));
    Ok(added)
}

/// Signs a GET request into its query and returns the target to ask for, good for `expires_seconds`. The only header
/// signed is `host`; `query` is percent-encoded and may be empty.
pub fn presign(
    (host, path, query): (&str, &str, &str),
    credentials: &Credentials,
    (region, service): (&str, &str),
    expires_seconds: u32,
    at: Timestamp,
) -> Result<String, SigV4Error> {
    let scope = Scope::new(at, region, service);
    let mut parameters: Vec<String> = query.split('&').filter(|pair| !pair.is_empty()).map(str::to_owned).collect();
    let mut add = |name: &str, value: &str| parameters.push(format!("{name}={}", encoded(value)));
    add("X-Amz-Algorithm", ALGORITHM);
    add("X-Amz-Credential", &format!("{}/{scope}", credentials.access_key_id));
    add("X-Amz-Date", &at.to_basic());
    add("X-Amz-Expires", &expires_seconds.to_string());
    add("X-Amz-SignedHeaders", "host");
    if let Some(token) = &credentials.session_token {
        add("X-Amz-Security-Token", token.expose());
    }
    let query = parameters.join("&");
    let canonical_path = canonical::path(path, service, TargetForm::CanonicalOnly)?;
    let canonical_query = canonical::query(&canonical::pairs(Some(&query), TargetForm::CanonicalOnly)?);
    let headers = [("host".to_owned(), host.as_bytes())];
    let canonical = canonical::request("GET", &canonical_path, &canonical_query, &headers, &sha256_hex(&[]));
    let signature =
        SigningKey::derive(&credentials.secret, &scope).sign(&canonical::string_to_sign(at, &scope, &canonical));
    Ok(format!("{path}?{query}&{}={signature}", canonical::SIGNATURE_KEY))
}

/// Percent-encodes everything but the unreserved characters (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
