//! Every reason to refuse a certificate, by table, and alterations of a good one.

use ssh_key::PrivateKey;
use ssh_key::certificate::{Builder, CertType};
use ssh_key::private::Ed25519Keypair;

use super::*;

const NOW: u64 = 1_800_000_000;
const ARN: &str = "arn:aws:iam::123456789012:user/kim";
const ID: &str = "AIDAABCDEFGHIJKLMNOPQ";
const HERE: &str = "192.0.2.7";

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

fn print(key: &PrivateKey) -> Fingerprint {
    Fingerprint::of(&key.public_key().to_bytes().unwrap())
}

/// What a certificate is made of; the good one, for the table to change.
struct Made {
    authority: PrivateKey,
    kind: CertType,
    from: u64,
    to: u64,
    principals: Vec<String>,
    critical: Vec<(String, String)>,
    extensions: Vec<(String, String)>,
}

fn good() -> Made {
    Made {
        authority: key(1),
        kind: CertType::User,
        from: NOW - 60,
        to: NOW + 3600,
        principals: vec!["alice".to_owned(), "deploy".to_owned()],
        critical: Vec::new(),
        extensions: vec![
            (PERMIT_PTY.to_owned(), String::new()),
            (PRINCIPAL_EXTENSION.to_owned(), format!("{ARN} {ID}")),
        ],
    }
}

impl Made {
    fn sign(self) -> Certificate {
        let mut builder = Builder::new([9; 32], key(2).public_key().key_data().clone(), self.from, self.to).unwrap();
        builder.serial(77).unwrap().key_id("munjigi:kim:1").unwrap().cert_type(self.kind).unwrap();
        if self.principals.is_empty() {
            builder.all_principals_valid().unwrap();
        }
        for name in self.principals {
            builder.valid_principal(name).unwrap();
        }
        for (name, value) in self.critical {
            builder.critical_option(name, value).unwrap();
        }
        for (name, value) in self.extensions {
            builder.extension(name, value).unwrap();
        }
        builder.sign(&self.authority).unwrap()
    }
}

fn check_with(
    certificate: &Certificate,
    revoked: &Revocations,
    wished: Option<&str>,
) -> Result<CertificateFacts, CertificateError> {
    let rules = Rules {
        authorities: &[print(&key(3)), print(&key(1))],
        revoked,
        now: instant(NOW),
        source: HERE.parse().unwrap(),
        os_user: wished,
        max_life: Duration::from_secs(24 * 3600),
    };
    judge(certificate, &rules)
}

fn check(certificate: &Certificate) -> Result<CertificateFacts, CertificateError> {
    check_with(certificate, &Revocations::default(), Some("alice"))
}

fn option(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn a_good_certificate_says_who_and_what() {
    let mut made = good();
    made.critical = option(FORCE_COMMAND, "uptime");
    made.critical.extend(option(SOURCE_ADDRESS, "192.0.2.0/24,2001:db8::1"));
    let facts = check(&made.sign()).unwrap();
    assert_eq!((facts.serial, facts.key_id.as_str()), (77, "munjigi:kim:1"));
    assert_eq!((facts.owner.as_str(), facts.owner_id.as_str()), (ARN, ID));
    assert_eq!(facts.os_users, ["alice", "deploy"]);
    assert_eq!(facts.force_command.as_deref(), Some("uptime"));
    assert_eq!(facts.sources, ["192.0.2.0/24".parse().unwrap(), "2001:db8::1/128".parse::<IpNet>().unwrap()]);
    assert_eq!((facts.expires, facts.key), (instant(NOW + 3600), print(&key(2))));
    assert_eq!(facts.permits, Permits { pty: true, ..Permits::default() });
    // As whom is asked for later: any of them.
    assert!(check_with(&good().sign(), &Revocations::default(), None).is_ok());
}

#[test]
fn each_reason_to_refuse_has_its_own_error() {
    type Change = fn(&mut Made);
    let table: [(&str, Change); 19] = [
        ("CertificateAuthorityUnknown", |made| made.authority = key(4)),
        ("CertificateOfHost", |made| made.kind = CertType::Host),
        ("CertificateNotYetValid", |made| made.from = NOW + 1),
        ("CertificateExpired", |made| made.to = NOW),
        ("CertificateExpired", |made| (made.from, made.to) = (NOW - 9, NOW - 1)),
        ("CertificateLifeTooLong", |made| made.to = made.from + 24 * 3600 + 1),
        ("CertificateLifeTooLong", |made| made.to = u64::MAX),
        ("CertificateWithoutPrincipals", |made| made.principals.clear()),
        ("CertificatePrincipalInvalid", |made| made.principals.push("*".to_owned())),
        ("CertificatePrincipalInvalid", |made| made.principals.push("a,b".to_owned())),
        ("CertificatePrincipalInvalid", |made| made.principals = vec!["alice".to_owned(); 17]),
        ("CertificatePrincipalMismatch", |made| made.principals = vec!["alice2".to_owned()]),
        ("CertificateOptionUnknown", |made| made.critical = option("verify-required", "")),
        ("CertificateSourceAddressInvalid", |made| made.critical = option(SOURCE_ADDRESS, "host")),
        ("CertificateSourceAddressInvalid", |made| made.critical = option(SOURCE_ADDRESS, "")),
        ("CertificateSourceAddressMismatch", |made| made.critical = option(SOURCE_ADDRESS, "198.51.100.0/24")),
        ("CertificateForceCommandInvalid", |made| made.critical = option(FORCE_COMMAND, "")),
        ("CertificateForceCommandInvalid", |made| made.critical = option(FORCE_COMMAND, "a\nb")),
        ("CertificateWithoutOwner", |made| drop(made.extensions.pop())),
    ];
    let mut codes = std::collections::BTreeSet::new();
    for (code, change) in table {
        let mut made = good();
        change(&mut made);
        let error = check(&made.sign()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        codes.insert(error.code());
    }
    assert_eq!(codes.len(), 13);
}

#[test]
fn what_is_revoked_is_refused_by_number_id_and_key() {
    let authority = key(1).public_key().to_bytes().unwrap();
    let certificate = good().sign();
    let refused = |revoke: &dyn Fn(&mut Revocations)| {
        let mut revoked = Revocations::default();
        revoke(&mut revoked);
        check_with(&certificate, &revoked, Some("alice")).err()
    };
    assert_eq!(refused(&|r| r.revoke_serial(&authority, 77)), Some(CertificateError::RevokedSerial(77)));
    let by_id = refused(&|r| r.revoke_key_id(&authority, "munjigi:kim:1"));
    assert_eq!(by_id, Some(CertificateError::RevokedKeyId("munjigi:kim:1".to_owned())));
    assert_eq!(refused(&|r| r.revoke_key(print(&key(2)))), Some(CertificateError::RevokedKey(print(&key(2)))));
    // What another authority has revoked says nothing.
    let other = key(3).public_key().to_bytes().unwrap();
    assert_eq!(refused(&|r| r.revoke_serial(&other, 77)), None);
}

#[test]
fn addresses_of_mapped_form_are_what_they_stand_for() {
    let mut made = good();
    made.critical = option(SOURCE_ADDRESS, "192.0.2.7");
    let certificate = made.sign();
    let revoked = Revocations::default();
    let rules = |source: &str| Rules {
        authorities: &[],
        revoked: &revoked,
        now: instant(NOW),
        source: source.parse().unwrap(),
        os_user: None,
        max_life: Duration::from_secs(86_400),
    };
    let authorities = [print(&key(1))];
    let judged = |source| judge(&certificate, &Rules { authorities: &authorities, ..rules(source) });
    assert!(judged("::ffff:192.0.2.7").is_ok());
    assert!(judged("::ffff:192.0.2.8").is_err());
}

#[test]
fn no_alteration_of_a_certificate_passes_and_none_panics() {
    let certificate = good().sign();
    let bytes = certificate.to_bytes().unwrap();
    let facts = check(&certificate).unwrap();
    let mut read = 0;
    crate::mutate::each(&bytes, 0x6365_7274, |altered| {
        if altered == bytes {
            return;
        }
        if let Ok(altered) = Certificate::from_bytes(altered) {
            read += 1;
            // What is read may be what was signed all the same; then it must say the same.
            if let Ok(same) = check(&altered) {
                assert_eq!(same, facts);
            }
        }
    });
    assert!(read > 100, "{read}");
}
