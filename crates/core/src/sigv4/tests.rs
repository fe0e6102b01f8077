mod random;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::parse::examine;
use super::*;
use crate::secret::Secret;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vectors {
    access_key_id: String,
    secret_access_key: String,
    now: String,
    requests: Vec<Vector>,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
struct Vector {
    name: String,
    service: String,
    region: String,
    method: String,
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
    canonical_request: String,
    string_to_sign: String,
}

/// A request with its own storage, to be altered.
#[derive(Clone, PartialEq, Debug)]
struct Owned {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Owned {
    fn with<T>(&self, use_it: impl FnOnce(&Request<'_>) -> T) -> T {
        let headers: Vec<(&str, &[u8])> = self.headers.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
        use_it(&Request { method: &self.method, target: &self.target, headers: &headers, body: &self.body })
    }

    fn set(&mut self, name: &str, value: &str) {
        self.headers.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/vectors/sigv4-requests.json")).unwrap()
}

fn owned(vector: &Vector) -> Owned {
    // One vector lists Host in two spellings, as its client library held it; one Host header was sent.
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    for (name, value) in &vector.headers {
        if !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            headers.push((name.clone(), value.clone().into_bytes()));
        }
    }
    Owned {
        method: vector.method.clone(),
        target: vector.target.clone(),
        headers,
        body: vector.body.clone().into_bytes(),
    }
}

fn form(vector: &Vector) -> TargetForm {
    if vector.name == "rest-path-double-encoding" { TargetForm::Normalized } else { TargetForm::CanonicalOnly }
}

struct Fixture {
    secret: SecretKey,
    now: Timestamp,
    vectors: Vec<Vector>,
}

fn fixture() -> Fixture {
    let vectors = vectors();
    assert_eq!(vectors.requests.len(), 9);
    assert_eq!(vectors.access_key_id, "AKIAMUNJIGIEXAMPLE01");
    Fixture {
        secret: SecretKey::new(vectors.secret_access_key),
        now: Timestamp::parse_iso(&vectors.now).unwrap(),
        vectors: vectors.requests,
    }
}

/// Looks the key up as a server does: an id that nobody has gets a key that nobody has.
fn key_for(fixture: &Fixture, presented: &Presented) -> SigningKey {
    let nobody = SecretKey::new("nobody".to_owned());
    let known = presented.access_key_id() == "AKIAMUNJIGIEXAMPLE01";
    SigningKey::derive(if known { &fixture.secret } else { &nobody }, presented.scope())
}

fn check(
    fixture: &Fixture,
    request: &Owned,
    form: TargetForm,
    region: &str,
    service: &str,
) -> Result<Verified, SigV4Error> {
    let presented = request.with(|request| parse(request, form))?;
    let key = key_for(fixture, &presented);
    let regions = [region];
    let rules = Rules { max_expires: Some(Duration::from_secs(60)), ..Rules::new(&regions, service) };
    presented.verify(&key, fixture.now, &rules)
}

#[test]
fn every_vector_canonicalises_and_verifies() {
    let fixture = fixture();
    for vector in &fixture.vectors {
        let request = owned(vector);
        let (presented, canonical) = request.with(|request| examine(request, form(vector))).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), vector.canonical_request, "{}", vector.name);
        assert_eq!(presented.string_to_sign, vector.string_to_sign, "{}", vector.name);
        let verified = check(&fixture, &request, form(vector), &vector.region, &vector.service).unwrap();
        assert_eq!(verified.access_key_id(), "AKIAMUNJIGIEXAMPLE01");
        assert_eq!(
            verified.session_token().is_some(),
            vector.string_to_sign.contains("Token") || {
                vector.name.contains("session-token") || vector.name.contains("open-tunnel")
            }
        );
    }
}

#[test]
fn one_altered_byte_anywhere_that_matters_is_refused() {
    let fixture = fixture();
    for vector in &fixture.vectors {
        let request = owned(vector);
        let refused = |altered: &Owned, what: &str| {
            let result = check(&fixture, altered, form(vector), &vector.region, &vector.service);
            assert!(result.is_err(), "{}: {what}", vector.name);
        };
        for at in 0..request.method.len() {
            let mut altered = request.clone();
            altered.method = flip(&request.method, at);
            refused(&altered, "method");
        }
        for at in 0..request.target.len() {
            // A segment that `..` takes away again is no part of what was signed.
            if (9..15).contains(&at) && vector.name == "rest-path-double-encoding" {
                continue;
            }
            let mut altered = request.clone();
            altered.target = flip(&request.target, at);
            refused(&altered, &format!("target at {at}: {}", altered.target));
        }
        for (index, (name, value)) in request.headers.iter().enumerate() {
            for (at, byte) in value.iter().enumerate() {
                if matches!(byte, b' ' | b'\t') {
                    continue;
                }
                let mut altered = request.clone();
                altered.headers[index].1[at] ^= 1;
                refused(&altered, &format!("{name} at {at}"));
            }
        }
        for at in 0..request.body.len() {
            let mut altered = request.clone();
            altered.body[at] ^= 1;
            refused(&altered, "body");
        }
        let mut altered = request.clone();
        altered.body.push(b' ');
        refused(&altered, "longer body");
    }
}

fn flip(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] ^= 1;
    String::from_utf8(bytes).unwrap()
}

fn vector_named(fixture: &Fixture, name: &str) -> Owned {
    owned(fixture.vectors.iter().find(|vector| vector.name == name).unwrap())
}

fn check_ssm(fixture: &Fixture, request: &Owned) -> Result<Verified, SigV4Error> {
    check(fixture, request, TargetForm::CanonicalOnly, "ap-northeast-2", "ssm")
}

#[test]
fn a_target_with_a_second_spelling_is_refused() {
    let fixture = fixture();
    let strict = |target: &str| {
        let mut request = vector_named(&fixture, "presigned-get-caller-identity");
        request.target = target.to_owned();
        request.with(|request| parse(request, TargetForm::CanonicalOnly)).map(|_| ()).unwrap_err()
    };
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAMUNJIGIEXAMPLE01%2F20261121%2Fr%2Fsts%2Faws4_request\
                 &X-Amz-Date=20261121T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=";
    let signature = "0".repeat(64);
    for path in ["//", "/a/./b", "/a/../b", "/a//b", "/a%2Fb", "/a%252Fb", "/%61", "/a\\b", "/a%", "/a%0A", "a", ""] {
        let error = strict(&format!("{path}?{query}{signature}"));
        assert!(matches!(error, SigV4Error::NotCanonical(_)), "{path}: {error}");
    }
    for more in ["a=1&a=2", "a=1&%61=2", "a&a", "Action=x&A%63tion=y"] {
        let error = strict(&format!("/?{more}&{query}{signature}"));
        assert!(matches!(error, SigV4Error::Duplicate(_)), "{more}: {error}");
    }
    for more in ["=1", "a=%zz", "&", "x-amz-expires=60"] {
        let error = strict(&format!("/?{more}&{query}{signature}"));
        assert!(matches!(error, SigV4Error::NotCanonical(_) | SigV4Error::Duplicate(_)), "{more}: {error}");
    }
}

#[test]
fn what_is_not_signed_is_refused() {
    let fixture = fixture();
    let request = vector_named(&fixture, "json-header");
    let resign = |signed: &str| {
        let mut request = request.clone();
        let zero = "0".repeat(64);
        request.set(
            "Authorization",
            &format!(
                "AWS4-HMAC-SHA256 Credential=AKIAMUNJIGIEXAMPLE01/20261121/ap-northeast-2/ssm/aws4_request, \
                 SignedHeaders={signed}, Signature={zero}"
            ),
        );
        request
    };
    for (signed, missing) in [
        ("content-type;x-amz-date;x-amz-target", "host"),
        ("content-type;host;x-amz-target", "x-amz-date"),
        ("host;x-amz-date;x-amz-target", "content-type"),
        ("content-type;host;x-amz-date", "x-amz-target"),
        ("content-type;host;x-amz-date;x-amz-meta;x-amz-target", "x-amz-meta"),
    ] {
        let error = check_ssm(&fixture, &resign(signed)).map(|_| ()).unwrap_err();
        assert_eq!(error, SigV4Error::NotSigned(missing.to_owned()), "{signed}");
    }
    let all = "content-type;host;x-amz-date;x-amz-target";
    let mut more = resign(all);
    more.set("X-Amz-Security-Token", "sneaked in");
    assert_eq!(
        check_ssm(&fixture, &more).map(|_| ()).unwrap_err(),
        SigV4Error::NotSigned("x-amz-security-token".to_owned())
    );
    let mut late = resign(all);
    late.headers.retain(|(name, _)| name != "X-Amz-Date");
    late.set("Date", "Sat, 21 Nov 2026 12:00:00 GMT");
    assert_eq!(
        check_ssm(&fixture, &resign(all)).map(|_| ()).unwrap_err(),
        SigV4Error::Mismatch,
        "everything signed, so only the signature is left to be wrong"
    );
    assert!(matches!(check_ssm(&fixture, &late), Err(SigV4Error::NotSigned(_))));
}

#[test]
fn doubled_headers_are_refused() {
    let fixture = fixture();
    for name in ["host", "Authorization", "CONTENT-TYPE", "x-amz-date", "X-Amz-Target", "x-amz-new"] {
        let mut request = vector_named(&fixture, "json-header");
        for _ in 0..2 {
            request.headers.push((name.to_owned(), b"x".to_vec()));
        }
        let error = check_ssm(&fixture, &request).map(|_| ()).unwrap_err();
        assert_eq!(error, SigV4Error::Duplicate(name.to_ascii_lowercase()));
    }
}

#[test]
fn unsigned_payloads_and_wrong_hashes_are_refused() {
    let fixture = fixture();
    for (hash, error) in [
        ("UNSIGNED-PAYLOAD", SigV4Error::UnsignedPayload),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", SigV4Error::UnsignedPayload),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", SigV4Error::UnsignedPayload),
        ("", SigV4Error::PayloadMismatch),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", SigV4Error::PayloadMismatch),
    ] {
        let mut request = vector_named(&fixture, "s3-path-single-encoding");
        request.set("X-Amz-Content-SHA256", hash);
        let result = check(&fixture, &request, TargetForm::CanonicalOnly, "ap-northeast-2", "s3");
        assert_eq!(result.map(|_| ()).unwrap_err(), error);
    }
}

#[test]
fn credentials_stand_in_one_place_and_are_well_formed() {
    let fixture = fixture();
    let header = vector_named(&fixture, "json-header");
    let presigned = vector_named(&fixture, "presigned-get-caller-identity");
    let authorization = header.headers.iter().find(|(name, _)| name == "Authorization").unwrap().1.clone();
    let authorization = String::from_utf8(authorization).unwrap();

    let mut none = header.clone();
    none.headers.retain(|(name, _)| name != "Authorization");
    assert_eq!(check_ssm(&fixture, &none).map(|_| ()).unwrap_err(), SigV4Error::NoCredentials);

    let mut mixed = presigned.clone();
    mixed.set("Authorization", &authorization);
    assert_eq!(check_ssm(&fixture, &mixed).map(|_| ()).unwrap_err(), SigV4Error::MixedForms);
    let mut mixed = header.clone();
    mixed.target = "/?X-Amz-Security-Token=x".to_owned();
    assert_eq!(check_ssm(&fixture, &mixed).map(|_| ()).unwrap_err(), SigV4Error::MixedForms);

    let tight = authorization.replace(", ", ",");
    let mut request = header.clone();
    request.set("Authorization", &tight);
    assert!(check_ssm(&fixture, &request).is_ok(), "commas without blanks are as good");

    for bad in [
        "".to_owned(),
        "Bearer abc".to_owned(),
        "Basic YTpi".to_owned(),
        "AWS AKIA:sig".to_owned(),
        authorization.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"),
        authorization.replace("/aws4_request", ""),
        authorization.replace("/aws4_request", "/aws5_request"),
        authorization.replace("AKIAMUNJIGIEXAMPLE01", "AKIA"),
        authorization.replace("AKIAMUNJIGIEXAMPLE01", "AKIA'; DROP TABLE--x"),
        authorization.replace("20261121/", "2026112/"),
        authorization.replace("content-type;host", "host;content-type"),
        authorization.replace("content-type;host", "Content-Type;host"),
        authorization.replace("content-type;host", "content-type;host;host"),
        authorization.replace("Signature=2d", "Signature=2D"),
        authorization.replace("Signature=2d", "Signature="),
        format!("{authorization}, Signature=00"),
        format!("{authorization}, Extra=1"),
        format!("{authorization},"),
    ] {
        let mut request = header.clone();
        request.set("Authorization", &bad);
        let error = check_ssm(&fixture, &request).map(|_| ()).unwrap_err();
        assert!(matches!(error, SigV4Error::Malformed(_) | SigV4Error::UnsupportedAlgorithm), "{bad}: {error}");
    }
}

#[test]
fn the_scope_must_be_ours_exactly() {
    let fixture = fixture();
    let request = vector_named(&fixture, "json-header");
    for (region, service) in [("ap-northeast-2", "iam"), ("us-east-1", "ssm"), ("AP-NORTHEAST-2", "ssm")] {
        let error = check(&fixture, &request, TargetForm::CanonicalOnly, region, service).map(|_| ()).unwrap_err();
        assert!(matches!(error, SigV4Error::WrongScope(_)));
    }
    let mut yesterday = request;
    yesterday.set("X-Amz-Date", "20261120T235959Z");
    assert_eq!(
        check_ssm(&fixture, &yesterday).map(|_| ()).unwrap_err(),
        SigV4Error::WrongScope("the day of the signature")
    );
}

#[test]
fn time_limits_hold_to_the_second() {
    let fixture = fixture();
    let verify = |name: &str, offset_seconds: i64, service: &str, max_expires: Option<u64>| {
        let request = vector_named(&fixture, name);
        let presented = request.with(|request| parse(request, TargetForm::CanonicalOnly)).unwrap();
        let key = SigningKey::derive(&fixture.secret, presented.scope());
        let rules =
            Rules { max_expires: max_expires.map(Duration::from_secs), ..Rules::new(&["ap-northeast-2"], service) };
        presented.verify(&key, Timestamp(fixture.now.0 + offset_seconds * 1_000_000), &rules).map(|_| ())
    };
    for (offset, good) in
        [(0, true), (300, true), (301, false), (-300, true), (-301, false), (i64::MAX / 2_000_000, false)]
    {
        assert_eq!(verify("json-header", offset, "ssm", None).is_ok(), good, "{offset}");
    }
    for (offset, good) in [(0, true), (60, true), (61, false), (-300, true), (-301, false)] {
        assert_eq!(verify("presigned-get-caller-identity", offset, "sts", Some(60)).is_ok(), good, "{offset}");
    }
    assert_eq!(verify("presigned-get-caller-identity", 0, "sts", Some(59)), Err(SigV4Error::ExpiresTooLong(59)));
    assert_eq!(verify("presigned-get-caller-identity", 0, "sts", None), Err(SigV4Error::ExpiresTooLong(0)));
    let text = verify("json-header", 3600, "ssm", None).unwrap_err().to_string();
    assert_eq!(text, "Signature expired: 20261121T120000Z is now earlier than 20261121T125500Z");
    for expires in ["0", "604801", "-1", "+1", "1e2", "", "99999999999999999999"] {
        let mut request = vector_named(&fixture, "presigned-get-caller-identity");
        request.target = request.target.replace("Expires=60", &format!("Expires={expires}"));
        assert!(matches!(
            request.with(|request| parse(request, TargetForm::CanonicalOnly)),
            Err(SigV4Error::Malformed(_))
        ));
    }
}

#[test]
fn oversized_parts_are_refused() {
    let fixture = fixture();
    let mut long = vector_named(&fixture, "json-header");
    long.target = format!("/{}", "a".repeat(MAX_TARGET_BYTES));
    assert_eq!(check_ssm(&fixture, &long).map(|_| ()).unwrap_err(), SigV4Error::TooLarge("the request target"));
    let mut many = vector_named(&fixture, "json-header");
    many.headers.extend((0..MAX_HEADERS).map(|i| (format!("h{i}"), Vec::new())));
    assert!(matches!(check_ssm(&fixture, &many), Err(SigV4Error::TooLarge(_))));
    let mut wide = vector_named(&fixture, "json-header");
    wide.headers.push(("cookie".to_owned(), vec![b'x'; MAX_HEADER_BYTES]));
    assert!(matches!(check_ssm(&fixture, &wide), Err(SigV4Error::TooLarge(_))));
    let mut broken = vector_named(&fixture, "json-header");
    broken.set("X-Amz-Target", "a\nx-amz-other:b");
    assert!(matches!(check_ssm(&fixture, &broken), Err(SigV4Error::Malformed(_))));
}

#[test]
fn a_wrong_secret_and_a_wrong_signature_read_the_same() {
    let fixture = fixture();
    let request = vector_named(&fixture, "json-header");
    let other = Fixture { secret: SecretKey::new("another".to_owned()), ..self::fixture() };
    assert_eq!(check_ssm(&other, &request).map(|_| ()).unwrap_err(), SigV4Error::Mismatch);
    let presented = request.with(|request| parse(request, TargetForm::CanonicalOnly)).unwrap();
    let key = SigningKey::derive(&fixture.secret, presented.scope());
    let shown = format!("{:?} {:?} {key:?}", presented, fixture.secret);
    assert!(!shown.contains("exampleSecretKey") && !shown.contains("2dc55df7"), "{shown}");
}

#[test]
fn our_presigned_url_is_that_of_the_vector() {
    let vectors = vectors();
    let vector = vectors.requests.iter().find(|vector| vector.name == "presigned-get-caller-identity").unwrap();
    let credentials = Credentials {
        access_key_id: vectors.access_key_id.clone(),
        secret: SecretKey::new(vectors.secret_access_key.clone()),
        session_token: None,
    };
    let url = ("munjigi.example.com", "/", "Action=GetCallerIdentity&Version=2011-06-15");
    let at = Timestamp::parse_basic("20261121T120000Z").unwrap();
    let target = presign(url, &credentials, (&vector.region, "sts"), 60, at).unwrap();
    assert_eq!(target, vector.target);
}
