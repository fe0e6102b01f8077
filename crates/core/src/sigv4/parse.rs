//! Step one: from the raw parts of a request to the credentials it presents, with everything checked that needs no key.

use std::fmt;

use super::canonical::{self, SIGNATURE_KEY, decode, sha256_hex};
use super::{
    ALGORITHM, MAX_EXPIRES_SECONDS, MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES, Request, SigV4Error, TargetForm,
};
use crate::secret::Secret;
use crate::time::Timestamp;

/// The credential scope: day, region and service; its text is `DAY/REGION/SERVICE/aws4_request`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    day: Box<str>,
    region: Box<str>,
    service: Box<str>,
}

impl Scope {
    /// Builds the scope of a request signed at an instant.
    pub fn new(at: Timestamp, region: &str, service: &str) -> Self {
        Self { day: at.format("%Y%m%d").into(), region: region.into(), service: service.into() }
    }

    /// Returns the day, `YYYYMMDD` in UTC.
    pub fn day(&self) -> &str {
        &self.day
    }

    /// Returns the region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Returns the service's signing name.
    pub fn service(&self) -> &str {
        &self.service
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/aws4_request", self.day, self.region, self.service)
    }
}

/// Where the credentials stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In the `Authorization` header.
    Header,
    /// In the query (presigned), good for so many seconds from the signing time.
    Query {
        /// `X-Amz-Expires`, 1 to [`MAX_EXPIRES_SECONDS`].
        expires_seconds: u32,
    },
}

/// The credentials a request presents, well formed but not yet verified.
#[derive(Debug, Clone)]
pub struct Presented {
    pub(super) access_key_id: String,
    pub(super) scope: Scope,
    pub(super) signed_at: Timestamp,
    pub(super) form: Form,
    pub(super) session_token: Option<Secret<String>>,
    pub(super) signature: Secret<[u8; 32]>,
    pub(super) string_to_sign: String,
}

impl Presented {
    /// Returns the access key id as sent: 16 to 128 ASCII letters and digits, known to nobody yet.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Returns the credential scope as sent. Its day is the day of [`Presented::signed_at`].
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the signing time.
    pub const fn signed_at(&self) -> Timestamp {
        self.signed_at
    }

    /// Returns where the credentials stood.
    pub const fn form(&self) -> Form {
        self.form
    }

    /// Returns the session token of temporary credentials, covered by the signature.
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_ref().map(|token| token.expose().as_str())
    }
}

/// Reads the credentials that a request presents and prepares what their signature must match.
///
/// Refuses whatever the rules T-44 and T-46 refuse; only the key, the time and the expected scope are left to
/// [`Presented::verify`].
pub fn parse(request: &Request<'_>, form: TargetForm) -> Result<Presented, SigV4Error> {
    examine(request, form).map(|(presented, _)| presented)
}

/// As [`parse`], with the canonical request beside it.
pub(super) fn examine(request: &Request<'_>, form: TargetForm) -> Result<(Presented, Vec<u8>), SigV4Error> {
    let Examined { claim, canonical, string_to_sign } = examine_as(request, form, Signer::AccessKey)?;
    let presented = Presented {
        signature: Secret::new(parse_signature(&claim.signature)?),
        access_key_id: claim.access_key_id,
        scope: claim.scope,
        signed_at: claim.signed_at,
        form: claim.form,
        session_token: claim.session_token.map(Secret::new),
        string_to_sign,
    };
    Ok((presented, canonical))
}

/// Whose signature a request claims to carry; the two write key id and signature in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// Somebody with an access key and its secret.
    AccessKey,
    /// A managed node with its own RSA key.
    NodeKey,
}

/// What a request claims, and what its signature must cover.
pub(super) struct Examined {
    pub(super) claim: Claim,
    pub(super) canonical: Vec<u8>,
    pub(super) string_to_sign: String,
}

/// Checks everything about a request that needs no key.
pub(super) fn examine_as(request: &Request<'_>, form: TargetForm, signer: Signer) -> Result<Examined, SigV4Error> {
    check_bounds(request)?;
    let headers = Headers::collect(request.headers)?;
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target, None),
    };
    let pairs = canonical::pairs(query, form)?;

    let query_form = pairs.iter().any(|(name, _)| is_credential_key(name));
    let claim = match (headers.get("authorization"), query_form) {
        (None, false) => return Err(SigV4Error::NoCredentials),
        (Some(_), true) => return Err(SigV4Error::MixedForms),
        (Some(authorization), false) => Claim::from_header(authorization, &headers, signer)?,
        (None, true) if signer == Signer::NodeKey => return Err(SigV4Error::NoCredentials),
        (None, true) => Claim::from_query(&pairs)?,
    };
    if *claim.scope.day != *claim.signed_at.format("%Y%m%d") {
        return Err(SigV4Error::WrongScope("the day of the signature"));
    }

    let signed = headers.signed(&claim.signed_headers)?;
    check_signed_set(&claim, &headers, request.body, signer)?;
    let payload_hash = payload_hash(&claim, &headers, request.body)?;

    let path = canonical::path(path, &claim.scope.service, form)?;
    let canonical = canonical::request(request.method, &path, &canonical::query(&pairs), &signed, &payload_hash);
    let string_to_sign = canonical::string_to_sign(claim.signed_at, &claim.scope, &canonical);
    Ok(Examined { claim, canonical, string_to_sign })
}

/// Refuses what is too large or could break out of its line of the canonical request.
fn check_bounds(request: &Request<'_>) -> Result<(), SigV4Error> {
    if request.target.len() > MAX_TARGET_BYTES {
        return Err(SigV4Error::TooLarge("the request target"));
    }
    if request.headers.len() > MAX_HEADERS {
        return Err(SigV4Error::TooLarge("the number of headers"));
    }
    if request.headers.iter().any(|(name, value)| name.len() + value.len() > MAX_HEADER_BYTES) {
        return Err(SigV4Error::TooLarge("a header"));
    }
    if request.method.is_empty() || request.method.len() > 16 || !request.method.bytes().all(|b| b.is_ascii_uppercase())
    {
        return Err(SigV4Error::Malformed("the method is not written in capital letters"));
    }
    if !request.target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(SigV4Error::NotCanonical("the target has a blank, a control character or a fragment"));
    }
    Ok(())
}

/// The received headers by lower-case name.
struct Headers<'a>(Vec<(String, &'a [u8])>);

impl<'a> Headers<'a> {
    fn collect(received: &'a [(&'a str, &'a [u8])]) -> Result<Self, SigV4Error> {
        let mut headers = Vec::with_capacity(received.len());
        for (name, value) in received {
            // A line break in a value would let one header pose as two in the canonical request.
            if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
                return Err(SigV4Error::Malformed("a header value has a control character"));
            }
            headers.push((name.to_ascii_lowercase(), *value));
        }
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        for pair in headers.windows(2) {
            if let [(a, _), (b, _)] = pair
                && a == b
                && (a.starts_with("x-amz-") || matches!(a.as_str(), "authorization" | "host" | "date" | "content-type"))
            {
                return Err(SigV4Error::Duplicate(a.clone()));
            }
        }
        Ok(Self(headers))
    }

    fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok()).map(str::trim)
    }

    /// Returns the signed headers in the order of the list; each must have been received exactly once.
    fn signed(&self, names: &[String]) -> Result<Vec<(String, &'a [u8])>, SigV4Error> {
        let mut signed = Vec::with_capacity(names.len());
        for name in names {
            let mut received = self.0.iter().filter(|(own, _)| own == name);
            let Some((_, value)) = received.next() else { return Err(SigV4Error::NotSigned(name.clone())) };
            if received.next().is_some() {
                return Err(SigV4Error::Duplicate(name.clone()));
            }
            signed.push((name.clone(), *value));
        }
        Ok(signed)
    }
}

/// What header or query claim.
pub(super) struct Claim {
    pub(super) access_key_id: String,
    pub(super) scope: Scope,
    pub(super) signed_at: Timestamp,
    form: Form,
    signed_headers: Vec<String>,
    /// As sent; its form was checked.
    pub(super) signature: String,
    session_token: Option<String>,
}

impl Claim {
    fn from_header(authorization: &[u8], headers: &Headers<'_>, signer: Signer) -> Result<Self, SigV4Error> {
        let text = std::str::from_utf8(authorization)
            .map_err(|_| SigV4Error::Malformed("the Authorization header is not text"))?;
        let (algorithm, parts) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if algorithm != ALGORITHM {
            return Err(SigV4Error::UnsupportedAlgorithm);
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for part in parts.split(',') {
            let (name, value) = part
                .trim()
                .split_once('=')
                .ok_or(SigV4Error::Malformed("a part of the Authorization header has no value"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(SigV4Error::Malformed("the Authorization header has an unknown part")),
            };
            if slot.replace(value).is_some() {
                return Err(SigV4Error::Malformed("a part of the Authorization header stands twice"));
            }
        }
        let credential = credential.ok_or(SigV4Error::Malformed("the Authorization header has no Credential"))?;
        let signed_headers =
            signed_headers.ok_or(SigV4Error::Malformed("the Authorization header has no SignedHeaders"))?;
        let signature = signature.ok_or(SigV4Error::Malformed("the Authorization header has no Signature"))?;
        let (access_key_id, scope) = parse_credential(credential, signer)?;
        Ok(Self {
            access_key_id,
            scope,
            signed_at: header_time(headers)?,
            form: Form::Header,
            signed_headers: parse_signed_headers(signed_headers)?,
            signature: checked_signature(signature, signer)?,
            session_token: match headers.get("x-amz-security-token") {
                Some(_) => Some(
                    headers
                        .text("x-amz-security-token")
                        .ok_or(SigV4Error::Malformed("the session token is not text"))?
                        .to_owned(),
                ),
                None => None,
            },
        })
    }

    fn from_query(pairs: &[(&str, &str)]) -> Result<Self, SigV4Error> {
        let find = |wanted: &str| -> Result<Option<String>, SigV4Error> {
            let mut found = pairs.iter().filter(|(name, _)| decode(name).eq_ignore_ascii_case(wanted.as_bytes()));
            let Some((name, value)) = found.next() else { return Ok(None) };
            if found.next().is_some() {
                return Err(SigV4Error::Duplicate(wanted.to_owned()));
            }
            if *name != wanted {
                return Err(SigV4Error::NotCanonical("a signature parameter is spelled in another way"));
            }
            String::from_utf8(decode(value))
                .map(Some)
                .map_err(|_| SigV4Error::Malformed("a signature parameter is not text"))
        };
        let need = |name| find(name)?.ok_or(SigV4Error::Malformed("the query lacks a signature parameter"));
        if need("X-Amz-Algorithm")? != ALGORITHM {
            return Err(SigV4Error::UnsupportedAlgorithm);
        }
        let (access_key_id, scope) = parse_credential(&need("X-Amz-Credential")?, Signer::AccessKey)?;
        let expires = need("X-Amz-Expires")?;
        let expires_seconds = Some(expires.as_str())
            .filter(|text| text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|seconds| (1..=MAX_EXPIRES_SECONDS).contains(seconds))
            .ok_or(SigV4Error::Malformed("X-Amz-Expires is not a number from 1 to 604800"))?;
        Ok(Self {
            access_key_id,
            scope,
            signed_at: parse_time(&need("X-Amz-Date")?)?,
            form: Form::Query { expires_seconds },
            signed_headers: parse_signed_headers(&need("X-Amz-SignedHeaders")?)?,
            signature: checked_signature(&need(SIGNATURE_KEY)?, Signer::AccessKey)?,
            session_token: find("X-Amz-Security-Token")?,
        })
    }
}

fn is_credential_key(raw_name: &str) -> bool {
    const KEYS: [&str; 7] = [
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-security-token",
        "x-amz-signature",
    ];
    let name = decode(raw_name).to_ascii_lowercase();
    KEYS.iter().any(|key| key.as_bytes() == name)
}

fn parse_credential(text: &str, signer: Signer) -> Result<(String, Scope), SigV4Error> {
    const MALFORMED: SigV4Error =
        SigV4Error::Malformed("Credential must read access-key-id/YYYYMMDD/region/service/aws4_request");
    let parts: Vec<&str> = text.split('/').collect();
    let [access_key_id, day, region, service, "aws4_request"] = parts.as_slice() else { return Err(MALFORMED) };
    let word = |text: &str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !(16..=128).contains(&access_key_id.len())
        || !access_key_id.bytes().all(|b| b.is_ascii_alphanumeric() || (signer == Signer::NodeKey && b == b'-'))
        || day.len() != 8
        || !day.bytes().all(|b| b.is_ascii_digit())
        || !word(region)
        || !word(service)
    {
        return Err(MALFORMED);
    }
    let scope = Scope { day: (*day).into(), region: (*region).into(), service: (*service).into() };
    Ok(((*access_key_id).to_owned(), scope))
}

fn parse_signed_headers(text: &str) -> Result<Vec<String>, SigV4Error> {
    let names: Vec<String> = text.split(';').map(str::to_owned).collect();
    let well_formed = |name: &String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    };
    let in_order = names.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
    if names.len() > MAX_HEADERS || !names.iter().all(well_formed) || !in_order {
        return Err(SigV4Error::Malformed("SignedHeaders must be lower-case names in order, each once"));
    }
    Ok(names)
}

/// Checks the form of a signature as text. That of a node is decoded, and its length checked, when it is verified.
fn checked_signature(text: &str, signer: Signer) -> Result<String, SigV4Error> {
    if signer == Signer::AccessKey {
        parse_signature(text)?;
    }
    Ok(text.to_owned())
}

fn parse_signature(text: &str) -> Result<[u8; 32], SigV4Error> {
    const MALFORMED: SigV4Error = SigV4Error::Malformed("Signature must have 64 lower-case hexadecimal digits");
    if !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(MALFORMED);
    }
    let mut signature = [0; 32];
    hex::decode_to_slice(text, &mut signature).map_err(|_| MALFORMED)?;
    Ok(signature)
}

/// Parses `YYYYMMDDTHHMMSSZ` in its one spelling.
fn parse_time(text: &str) -> Result<Timestamp, SigV4Error> {
    Timestamp::parse_basic(text)
        .filter(|at| at.to_basic() == text)
        .ok_or(SigV4Error::Malformed("X-Amz-Date must read YYYYMMDDTHHMMSSZ"))
}

fn header_time(headers: &Headers<'_>) -> Result<Timestamp, SigV4Error> {
    if headers.get("x-amz-date").is_some() {
        return parse_time(headers.text("x-amz-date").unwrap_or_default());
    }
    let date = headers.text("date").ok_or(SigV4Error::Malformed("the request has neither X-Amz-Date nor Date"))?;
    if let Ok(at) = parse_time(date) {
        return Ok(at);
    }
    jiff::fmt::rfc2822::parse(date)
        .map(|zoned| Timestamp(zoned.timestamp().as_microsecond()))
        .map_err(|_| SigV4Error::Malformed("the Date header is no date"))
}

/// Checks that everything that steers a request is under its signature (T-46).
///
/// A node's own `X-Amz-Content-SHA256` may stay unsigned, as AWS's agent leaves it: the canonical request holds the
/// hash of the body received in any case.
fn check_signed_set(claim: &Claim, headers: &Headers<'_>, body: &[u8], signer: Signer) -> Result<(), SigV4Error> {
    let signed = |name: &str| claim.signed_headers.iter().any(|own| own == name);
    let need = |name: &str| if signed(name) { Ok(()) } else { Err(SigV4Error::NotSigned(name.to_owned())) };
    need("host")?;
    if claim.form == Form::Header && headers.get("x-amz-date").is_none() {
        need("date")?;
    }
    if !body.is_empty() {
        need("content-type")?;
    }
    let exempt = |name: &str| signer == Signer::NodeKey && name == "x-amz-content-sha256";
    for (name, _) in headers.0.iter().filter(|(name, _)| name.starts_with("x-amz-") && !exempt(name)) {
        need(name)?;
    }
    if claim.form != Form::Header && headers.get("x-amz-security-token").is_some() {
        return Err(SigV4Error::MixedForms);
    }
    Ok(())
}

/// Returns the payload hash for the canonical request: always that of the body received (T-46). Only a presigned S3
/// request has the fixed text instead, and then no body.
fn payload_hash(claim: &Claim, headers: &Headers<'_>, body: &[u8]) -> Result<String, SigV4Error> {
    let real = sha256_hex(body);
    if headers.get("x-amz-content-sha256").is_some() {
        let sent = headers.text("x-amz-content-sha256").unwrap_or_default();
        if sent == "UNSIGNED-PAYLOAD" || sent.starts_with("STREAMING-") {
            return Err(SigV4Error::UnsignedPayload);
        }
        if sent != real {
            return Err(SigV4Error::PayloadMismatch);
        }
    }
    if *claim.scope.service == *"s3" && claim.form != Form::Header {
        if !body.is_empty() {
            return Err(SigV4Error::UnsignedPayload);
        }
        return Ok("UNSIGNED-PAYLOAD".to_owned());
    }
    Ok(real)
}
