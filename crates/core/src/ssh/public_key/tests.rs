//! Keys made by ssh-keygen, and what people hand in instead of keys.

use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhn/6pFn80oeUxjQu2cJYUSmk45c8VzM0LtJHxAOxnO kim@laptop";
const RSA_2048: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC6nrHVGrzweafcPJLeNAAcDoCz6ZrR9AI+dtK/dcMeny49kRt12HSuIxJy3OwA\
    dlTH4YBagDVh+6EE7ep3HKhE9d/93r2+ZbwPqhPp0hEhowGx7+JBRIPXm0HoHrxBdeKuEnMdnHYKoVscz8e3KKM7PF8vjDmaRgOd\
    O8vBhQg5NAPwrVtqDewYXmBkcAKijuFlOkUva+smYPRnctVrnBjqPWLhnhG0OunyugMahGh2geI7+VNAEkjdbCfNQ13wV+yFxvxF\
    cUTwwTlGM6oz22kivRNk+PvimfahNBBK1ORs+WwqnyGVu9pRd2kuPpwN/ZYkpLuVehjjrSdE/hKKpotB kim@laptop";
const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCdkv6zDczi1KvP2b9gE9dzOXHBW4yf15X2UtRb8wtaIUs9f3F38sNqTROQp4tV\
    4Gv7MS2QA41Y6f9a3V9GZ2K/J+Qp0spbWslF4VY6vJ4K1942YxLKQM3OOfqAMwQzc9/yBNnUstBMGw1fTy1Uz+aKwIa3jUkRNjn/\
    8qSJTNLtRw== kim@laptop";
const ECDSA_256: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBAXCLoSw8BaMaclZ3lUWHfYua4uT\
    ESsztUcHt+oZVAil9DA4hS2jHILwHBOiNDHRHYUfkfMKzZIspi5QH3MPkrM= kim@laptop";
const ECDSA_384: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBJ2VSUBculcpULc7AcbLDrZjTPoT\
    PEcNk8QXSuYemfq9AWrokWIDi3MjZwDzqkHBmtBdtfPTiOS0vwEFITXt4lvNYejVI5UyzqEVrMPlfT4CCcZI7vOMpBI8DDZ/BOw2\
    oA== kim@laptop";
const ECDSA_521: &str = "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAER+o5dTvCzhUIO11cBajDdGeHq\
    PA9TIHmoqzWWEsda/2guJL+rT04sk+jPKNoTfX4LH8vaILoLjfB3CW+J5uuZ9wCTJSj4440mn+jzkAZgCyEh+vfJADQ++gjmfZQu\
    RBgWLioiH2Go0a1lgTQZASKzfSK25e1QNbX7B57Szo1W3g2mkA== kim@laptop";
const RFC_4716: &str = r#"---- BEGIN SSH2 PUBLIC KEY ----
Comment: "kim at \
work"
AAAAB3NzaC1yc2EAAAADAQABAAABAQC6nrHVGrzweafcPJLeNAAcDoCz6ZrR9AI+dtK/dc
Meny49kRt12HSuIxJy3OwAdlTH4YBagDVh+6EE7ep3HKhE9d/93r2+ZbwPqhPp0hEhowGx
7+JBRIPXm0HoHrxBdeKuEnMdnHYKoVscz8e3KKM7PF8vjDmaRgOdO8vBhQg5NAPwrVtqDe
wYXmBkcAKijuFlOkUva+smYPRnctVrnBjqPWLhnhG0OunyugMahGh2geI7+VNAEkjdbCfN
Q13wV+yFxvxFcUTwwTlGM6oz22kivRNk+PvimfahNBBK1ORs+WwqnyGVu9pRd2kuPpwN/Z
YkpLuVehjjrSdE/hKKpotB
---- END SSH2 PUBLIC KEY ----"#;

#[test]
fn keys_of_ssh_keygen_are_read_and_written_without_their_comment() {
    for (text, kind) in [
        (ED25519, KeyKind::Ed25519),
        (RSA_2048, KeyKind::Rsa),
        (ECDSA_256, KeyKind::EcdsaP256),
        (ECDSA_384, KeyKind::EcdsaP384),
        (ECDSA_521, KeyKind::EcdsaP521),
    ] {
        let key = PublicKey::parse(&format!("{text}\n")).unwrap();
        assert_eq!((key.kind(), key.comment()), (kind, "kim@laptop"));
        assert_eq!(format!("{} kim@laptop", key.line()), text);
        assert_eq!(PublicKey::from_parts(kind.as_str(), key.blob()).unwrap().line(), key.line());
    }
}

#[test]
fn fingerprints_are_those_of_ssh_keygen() {
    for (text, print) in [
        (ED25519, "SHA256:Lu1dTaHTBrJChuUJ9opN3BY63AtzCF1YGkCAFuKEjmQ"),
        (RSA_2048, "SHA256:gsmNkZHUdCvKHfJPi03S3iEq5bhkKJVYqXa2NS/en9E"),
    ] {
        let fingerprint = PublicKey::parse(text).unwrap().fingerprint();
        assert_eq!(fingerprint.to_string(), print);
        assert_eq!(Fingerprint::parse(print), Some(fingerprint));
    }
    for bad in ["", "SHA256:", "MD5:00", "SHA256:Lu1dTaHTBrJChuUJ9opN3BY63AtzCF1YGkCAFuKEjmQ="] {
        assert_eq!(Fingerprint::parse(bad), None, "{bad:?}");
    }
}

#[test]
fn the_form_of_rfc_4716_is_the_same_key() {
    let key = PublicKey::parse(RFC_4716).unwrap();
    assert_eq!(key.line(), PublicKey::parse(RSA_2048).unwrap().line());
    assert_eq!(key.comment(), "kim at work");
    assert_eq!(PublicKey::parse(&RFC_4716.replace('\n', "\r\n")).unwrap(), key);
    let open = RFC_4716.strip_suffix(END).unwrap();
    assert_eq!(PublicKey::parse(open), Err(PublicKeyError::NotAKey));
    assert_eq!(PublicKey::parse(&format!("{RFC_4716}\n{RFC_4716}")), Err(PublicKeyError::SeveralLines));
}

#[test]
fn everything_that_is_not_one_plain_key_is_refused_by_name() {
    let key = |text: &str| text.rsplit_once(' ').unwrap().0.to_owned();
    let kind_and_bytes = key(ED25519);
    let bytes = kind_and_bytes.split_once(' ').unwrap().1;
    let mut longer = STANDARD.decode(bytes).unwrap();
    longer.push(0);
    for (text, expected) in [
        (String::new(), PublicKeyError::NotAKey),
        ("hello world".to_owned(), PublicKeyError::NotAKey),
        ("ssh-ed25519".to_owned(), PublicKeyError::NotAKey),
        ("ssh-ed25519 !!!!".to_owned(), PublicKeyError::Base64),
        ("ssh-ed25519 AAAA".to_owned(), PublicKeyError::Malformed(KeyKind::Ed25519)),
        (format!("ssh-ed25519 {}", STANDARD.encode(longer)), PublicKeyError::Malformed(KeyKind::Ed25519)),
        (format!("ssh-rsa {bytes}"), PublicKeyError::Malformed(KeyKind::Rsa)),
        (format!("command=\"id\" {ED25519}"), PublicKeyError::Options),
        (format!("from=\"10.0.0.1\",no-pty {RSA_2048}"), PublicKeyError::Options),
        (format!("cert-authority {ED25519}"), PublicKeyError::Options),
        (format!("{ED25519}\n{RSA_2048}"), PublicKeyError::SeveralLines),
        (format!("{ED25519}\ncommand=\"id\""), PublicKeyError::SeveralLines),
        (format!("{kind_and_bytes} a\0b"), PublicKeyError::NotAKey),
        (RSA_1024.to_owned(), PublicKeyError::RsaSize(1024)),
        ("ssh-dss AAAAB3NzaC1kc3M= x".to_owned(), PublicKeyError::Dsa),
        ("ssh-rsa-cert-v01@openssh.com AAAA x".to_owned(), PublicKeyError::Certificate),
        ("ssh-ed448 AAAA x".to_owned(), PublicKeyError::UnknownKind),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA".to_owned(), PublicKeyError::PrivateKey),
        ("a".repeat(MAX_KEY_TEXT + 1), PublicKeyError::TooLong),
    ] {
        assert_eq!(PublicKey::parse(&text), Err(expected), "{text:.80}");
    }
}

#[test]
fn a_comment_keeps_no_control_characters() {
    let key = PublicKey::parse(&format!("{ED25519} \u{1b}[2J문지기")).unwrap();
    assert_eq!(key.comment(), "kim@laptop [2J문지기");
}

#[test]
fn security_keys_have_their_application() {
    let field = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let name = b"sk-ssh-ed25519@openssh.com";
    let blob = [field(name), field(&[7; 32]), field(b"ssh:")].concat();
    assert_eq!(PublicKey::from_parts("sk-ssh-ed25519@openssh.com", &blob).unwrap().kind(), KeyKind::SkEd25519);
    let without = [field(name), field(&[7; 32])].concat();
    assert!(PublicKey::from_parts("sk-ssh-ed25519@openssh.com", &without).is_err());
    let huge = [&u32::MAX.to_be_bytes()[..], b"x"].concat();
    assert!(PublicKey::from_parts("ssh-ed25519", &huge).is_err());
}

#[test]
fn no_text_makes_it_panic() {
    for (seed, start) in [(ED25519, 0x6b65_7931), (RFC_4716, 0x6b65_7932)] {
        crate::mutate::each(seed.as_bytes(), start, |bytes| {
            if let Ok(key) = PublicKey::parse(&String::from_utf8_lossy(bytes)) {
                assert!(!key.line().contains(['\n', '\r', '"']) && key.line().split(' ').count() == 2);
            }
        });
    }
}

/// The key of [`RSA_2048`] as `ssh-keygen -e -m PKCS8` and `-m PEM` write it is read to the same key; `ssh-keygen` itself
/// checks what is written in `munjigi/tests/ssh_keys.rs`.
#[test]
fn rsa_keys_go_through_pem_and_back() {
    let key = PublicKey::parse(RSA_2048).unwrap();
    let pem = key.to_pem().unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"), "{pem}");
    assert!(pem.lines().all(|line| line.len() <= 64));
    let read = PublicKey::parse(&format!("\n{pem}\n")).unwrap();
    assert_eq!((read.blob(), read.comment()), (key.blob(), ""));
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let pkcs1 =
        format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----", STANDARD.encode(&der[24..]));
    assert_eq!(PublicKey::parse(&pkcs1).unwrap(), read);
    assert_eq!(PublicKey::parse(ED25519).unwrap().to_pem(), None);
}

#[test]
fn a_quarter_million_mutated_pem_texts_are_keys_or_refused() {
    let pem = PublicKey::parse(RSA_2048).unwrap().to_pem().unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(body).unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..1 << 18 {
        let mut bytes = der.clone();
        bytes.truncate(bytes.len() - random(3) * random(40));
        for _ in 0..=random(3) {
            // Most changes where lengths and tags are.
            let at = if random(4) == 0 { random(bytes.len()) } else { random(40) };
            bytes[at] = u8::try_from(random(256)).unwrap();
        }
        let text = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", STANDARD.encode(&bytes));
        if let Ok(key) = PublicKey::parse(&text) {
            assert_eq!(PublicKey::parse(&key.line()).unwrap().blob(), key.blob());
        }
    }
}
