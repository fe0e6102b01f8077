//! The canonical request and the string to sign: the one canonicalisation that verifying and signing share.

use aws_lc_rs::digest;

use super::{ALGORITHM, Scope, SigV4Error, TargetForm};
use crate::time::Timestamp;

/// The query parameter that carries a presigned request's signature; it is no part of the canonical query.
pub(super) const SIGNATURE_KEY: &str = "X-Amz-Signature";

/// Returns the SHA-256 of bytes in lower-case hexadecimal.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Builds the canonical request. `headers` are the signed ones: lower-case names, in order, with their raw values.
pub(super) fn request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(String, &[u8])],
    payload_hash: &str,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + path.len() + query.len());
    for line in [method, path, query] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    for (name, value) in headers {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        push_folded(&mut out, value);
        out.push(b'\n');
    }
    out.push(b'\n');
    out.extend_from_slice(signed_list(headers).as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload_hash.as_bytes());
    out
}

/// Returns the signed header list as it stands in `SignedHeaders`.
pub(super) fn signed_list(headers: &[(String, &[u8])]) -> String {
    headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";")
}

/// Returns the string to sign for a canonical request.
pub(super) fn string_to_sign(at: Timestamp, scope: &Scope, canonical_request: &[u8]) -> String {
    format!("{ALGORITHM}\n{}\n{scope}\n{}", at.to_basic(), sha256_hex(canonical_request))
}

/// Appends a header value trimmed and with inner runs of blanks folded to one.
fn push_folded(out: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

/// Returns the canonical form of a path: S3 keeps the path as received; all others resolve dot and empty segments and
/// percent-encode what is already encoded once more.
pub(super) fn path(path: &str, service: &str, form: TargetForm) -> Result<String, SigV4Error> {
    if !path.starts_with('/') {
        return Err(SigV4Error::NotCanonical("the path does not begin with a slash"));
    }
    check_percent_encoding(path)?;
    if service == "s3" {
        return Ok(path.to_owned());
    }
    if form == TargetForm::CanonicalOnly {
        check_canonical_path(path)?;
    }
    let mut out = String::with_capacity(path.len() + 16);
    for b in resolve_segments(path).bytes() {
        if b.is_ascii_alphanumeric() || b"-_.~/".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    Ok(out)
}

fn resolve_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let tail = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{tail}", kept.join("/"))
}

/// Refuses every second spelling of a path (T-46): two readers of it must agree on what it names.
fn check_canonical_path(path: &str) -> Result<(), SigV4Error> {
    let inner = path.strip_prefix('/').unwrap_or(path);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    let whole_is_root = path == "/";
    for segment in inner.split('/') {
        if segment.is_empty() && !whole_is_root {
            return Err(SigV4Error::NotCanonical("the path has an empty segment"));
        }
        if segment == "." || segment == ".." {
            return Err(SigV4Error::NotCanonical("the path has a dot segment"));
        }
    }
    if path.contains('\\') {
        return Err(SigV4Error::NotCanonical("the path has a backslash"));
    }
    for piece in path.split('%').skip(1) {
        let code = piece.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()).unwrap_or(0);
        if code == b'%' {
            return Err(SigV4Error::NotCanonical("the path is percent-encoded twice"));
        }
        if code.is_ascii_alphanumeric() || code < 0x20 || code == 0x7f || b"-_.~/\\".contains(&code) {
            return Err(SigV4Error::NotCanonical("the path encodes a character that must stand plain or not at all"));
        }
    }
    Ok(())
}

/// Returns the canonical form of a query: the encoding received, sorted by name then value, `=` after bare names.
/// The signature parameter is left out.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let mut sorted: Vec<_> = pairs.iter().filter(|(name, _)| *name != SIGNATURE_KEY).collect();
    sorted.sort_unstable();
    let mut out = String::new();
    for (index, (name, value)) in sorted.into_iter().enumerate() {
        if index > 0 {
            out.push('&');
        }
        out.push_str(name);
        out.push('=');
        out.push_str(value);
    }
    out
}

/// Splits a query into its raw pairs; refuses empty names, broken encoding and (in canonical form) a name that stands
/// twice, also when it is spelled in two ways.
pub(super) fn pairs(query: Option<&str>, form: TargetForm) -> Result<Vec<(&str, &str)>, SigV4Error> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(Vec::new()) };
    check_percent_encoding(query)?;
    let mut pairs = Vec::new();
    for piece in query.split('&') {
        let pair = piece.split_once('=').unwrap_or((piece, ""));
        if pair.0.is_empty() {
            return Err(SigV4Error::NotCanonical("the query has a nameless parameter"));
        }
        pairs.push(pair);
    }
    if form == TargetForm::CanonicalOnly {
        let mut names: Vec<Vec<u8>> = pairs.iter().map(|(name, _)| decode(name)).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.windows(2).find(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(SigV4Error::Duplicate(String::from_utf8_lossy(name).chars().take(64).collect()));
        }
    }
    Ok(pairs)
}

/// Decodes percent encoding of a query name or value.
pub(super) fn decode(text: &str) -> Vec<u8> {
    percent_encoding::percent_decode_str(text).collect()
}

fn check_percent_encoding(text: &str) -> Result<(), SigV4Error> {
    for piece in text.split('%').skip(1) {
        if !piece.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(SigV4Error::NotCanonical("a percent sign is not followed by two hexadecimal digits"));
        }
    }
    Ok(())
}
