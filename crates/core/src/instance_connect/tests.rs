//! The whole judgement, over certificates, OCSP answers and signatures that the real openssl made (`tests/vectors/instance_connect`).

use std::fs;
use std::path::Path;

use super::*;

const ID: &str = "i-0123456789abcdef0";
const DAY: i64 = 86_400;

#[expect(clippy::disallowed_methods, reason = "test vectors lie in files")]
fn file(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/instance_connect").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_secs(text("now").parse().unwrap())
}

fn instance() -> Instance {
    Instance::new(ID, "ap-northeast-2c", "amazonaws.com").unwrap()
}

/// OCSP answers: each name is a file with the name, each content one with the answer.
fn staples(of: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    of.iter().map(|(name, answer)| (text(name), file(&format!("{answer}.der")))).collect()
}

fn good_staples() -> Vec<(String, Vec<u8>)> {
    staples(&[("signer.sha1", "signer-good"), ("authority.sha1", "authority-good")])
}

/// Judges a list of keys for the key that is offered, with everything else as it should be.
fn keys(list: &[u8], offered: Option<(&str, &[u8])>, at: Timestamp) -> Result<Judged, Distrust> {
    let (chain, staples) = (file("chain.pem"), good_staples());
    let roots = SignerRoots::from_pem(&file("root.pem")).unwrap();
    judge(&instance(), Answers { chain: &chain, staples: &staples, keys: list }, &roots, offered, at)
}

/// Judges the good list with another chain, other answers or another time.
fn signer(chain: &[u8], staples: &[(String, Vec<u8>)], root: &[u8], at: Timestamp) -> Result<Judged, Distrust> {
    let roots = SignerRoots::from_pem(root).unwrap();
    let list = file("keys-valid");
    judge(&instance(), Answers { chain, staples, keys: &list }, &roots, None, at)
}

fn offered() -> PublicKey {
    PublicKey::parse(text("offered.pub").trim()).unwrap()
}

#[test]
fn a_key_that_aws_pushed_is_good_with_all_that_is_said_of_it() {
    let key = offered();
    for list in ["keys-valid", "keys-unknown-field"] {
        let judged = keys(&file(list), Some((key.kind().as_str(), key.blob())), now()).unwrap();
        assert_eq!((judged.good.len(), judged.refused.as_ref()), (1, None), "{list}");
        let good = &judged.good[0];
        assert_eq!((good.key.blob(), good.expires), (key.blob(), now().plus(std::time::Duration::from_secs(60))));
        assert_eq!(good.caller, "arn:aws:iam::123456789012:user/kim");
        assert_eq!(
            good.log_line(),
            format!(
                "Providing ssh key from EC2 Instance Connect with fingerprint: {}, request-id: \
                 6c0f0000-0000-4000-8000-000000000001, for IAM principal: arn:aws:iam::123456789012:user/kim",
                key.fingerprint()
            )
        );
    }
}

#[test]
fn each_key_that_is_not_good_has_its_own_reason() {
    let key = offered();
    for (list, why) in [
        ("keys-expired", Distrust::Expired),
        ("keys-other-instance", Distrust::OtherInstance),
        ("keys-other-key", Distrust::OtherKey),
        ("keys-salt-20", Distrust::BadSignature),
        ("keys-altered", Distrust::BadSignature),
        ("keys-no-end", Distrust::IncompleteKey),
        ("keys-no-instance", Distrust::IncompleteKey),
        ("keys-no-signature", Distrust::IncompleteKey),
        ("keys-options", Distrust::KeyNotTaken),
        ("keys-dsa", Distrust::KeyNotTaken),
    ] {
        let judged = keys(&file(list), Some((key.kind().as_str(), key.blob())), now()).unwrap();
        assert_eq!((judged.good.len(), judged.refused.map(|refused| refused.why)), (0, Some(why)), "{list}");
    }
    let empty = keys(&file("keys-empty"), Some((key.kind().as_str(), key.blob())), now()).unwrap();
    assert_eq!(empty, Judged::default());
    // A second before its end it is good, at its end no more.
    let at = |seconds| {
        keys(&file("keys-valid"), None, now().plus(std::time::Duration::from_secs(seconds))).unwrap().good.len()
    };
    assert_eq!((at(59), at(60)), (1, 0));
}

#[test]
fn of_a_mixed_list_the_good_ones_count() {
    let (list, key) = (file("keys-mixed"), offered());
    let all = keys(&list, None, now()).unwrap();
    let kinds: Vec<&str> = all.good.iter().map(|good| good.key.kind().as_str()).collect();
    assert_eq!(kinds, ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]);
    let one = keys(&list, Some((key.kind().as_str(), key.blob())), now()).unwrap();
    assert_eq!(one.good.iter().map(|good| good.key.blob()).collect::<Vec<_>>(), [key.blob()]);
}

#[test]
fn a_signer_is_believed_only_by_its_name_its_way_to_a_root_and_answers_that_say_good() {
    let (chain, root, good) = (file("chain.pem"), file("root.pem"), good_staples());
    let after = |days: i64| Timestamp::from_secs(now().as_secs() + days * DAY);
    let authority = ("authority.sha1", "authority-good");
    for name in ["signer-good", "signer-sha256", "signer-delegated"] {
        for by in ["signer.sha1", "signer.sha256"] {
            let staples = staples(&[(by, name), authority]);
            assert_eq!(signer(&chain, &staples, &root, now()).unwrap().good.len(), 1, "{name} as {by}");
        }
    }
    let with = |name| staples(&[("signer.sha1", name), authority]);
    let other = file("other-chain.pem");
    let other_good = staples(&[("other.sha1", "other-good"), authority]);
    let short = &text("chain.pem").split_inclusive("-----END CERTIFICATE-----\n").take(1).collect::<String>();
    let table: [(&str, &[u8], Vec<_>, Timestamp, Distrust); 12] = [
        ("another name", &other, other_good, now(), Distrust::UnknownSigner),
        ("no chain", b"", good.clone(), now(), Distrust::UnknownSigner),
        ("no certificate", &chain[..500], good.clone(), now(), Distrust::UnknownSigner),
        ("no authority", short.as_bytes(), good.clone(), now(), Distrust::UntrustedSigner),
        ("not yet", &chain, good.clone(), after(-2), Distrust::UntrustedSigner),
        ("no more", &chain, good.clone(), after(3700), Distrust::UntrustedSigner),
        ("revoked", &chain, with("signer-revoked"), now(), Distrust::RevokedSigner),
        ("unknown to the responder", &chain, with("signer-unknown"), now(), Distrust::NotKnownGood),
        ("by a stranger", &chain, with("signer-stranger"), now(), Distrust::NotKnownGood),
        ("about another", &chain, with("other-good"), now(), Distrust::NotKnownGood),
        ("none for the authority", &chain, staples(&[("signer.sha1", "signer-good")]), now(), Distrust::NotKnownGood),
        ("too old", &chain, good.clone(), after(31), Distrust::NotKnownGood),
    ];
    for (what, chain, staples, at, why) in table {
        assert_eq!(signer(chain, &staples, &root, at), Err(why), "{what}");
    }
    assert_eq!(signer(&chain, &[], &root, now()), Err(Distrust::NotKnownGood));
    // Another root of the same form: the signer itself, taken for one.
    assert_eq!(signer(&chain, &good, short.as_bytes(), now()), Err(Distrust::UntrustedSigner));
    // An authority that is believed itself needs no answer.
    let authority: String = text("chain.pem").split_inclusive("-----END CERTIFICATE-----\n").skip(1).take(1).collect();
    let only = staples(&[("signer.sha1", "signer-good")]);
    assert_eq!(signer(&chain, &only, authority.as_bytes(), now()).unwrap().good.len(), 1);
    let huge = vec![b'\n'; MAX_CHAIN + 1];
    assert_eq!(signer(&huge, &good, &root, now()), Err(Distrust::UnknownSigner));
    assert_eq!(signer(&text("chain.pem").repeat(3).into_bytes(), &good, &root, now()), Err(Distrust::UnknownSigner));
}

#[test]
fn instances_are_known_by_form_zone_and_domain() {
    for zone in ["ap-northeast-2c", "us-gov-west-1a", "eu-west-1a"] {
        let instance = Instance::new(ID, zone, "amazonaws.com.cn").unwrap();
        let region = &zone[..zone.len() - 1];
        assert_eq!(instance.signer, format!("managed-ssh-signer.{region}.amazonaws.com.cn"));
    }
    for zone in [
        "",
        "a",
        "eu-1a",
        "eu-west-1",
        "eu-west-11a",
        "us-west-2-lax-1a",
        "EU-west-1a",
        "eu--1a",
        "eu-west-1a\n",
        "é-é-1é",
    ] {
        assert_eq!(Instance::new(ID, zone, "amazonaws.com"), Err(Distrust::UnknownZone), "{zone}");
    }
    for domain in ["", "amazonaws.com.", "example.com", "amazonaws.com.evil"] {
        assert_eq!(Instance::new(ID, "eu-west-1a", domain), Err(Distrust::UnknownDomain), "{domain}");
    }
    for id in
        ["", "i-0123456", "i-0123456789abcdef0123456789abcdef0", "i-0123456G", "mi-0123456789abcdef0", "i-01234567\n"]
    {
        assert_eq!(Instance::new(id, "eu-west-1a", "amazonaws.com"), Err(Distrust::NotAnInstance), "{id}");
    }
    assert!(valid_instance_id("i-01234567"));
    assert!(is_this_machine(ID, Some("ec2e1916-9099"), None) && is_this_machine(ID, None, Some(&format!("{ID}\n"))));
    for (hypervisor, board) in
        [(None, None), (Some("4c4c4544"), Some(ID)), (None, Some("Not Specified")), (None, Some(""))]
    {
        assert!(!is_this_machine(ID, hypervisor, board));
    }
}

#[test]
fn reasons_have_one_name_each() {
    for reason in Distrust::ALL {
        assert_eq!(Distrust::from_code(reason.code()), Some(reason));
    }
    assert_eq!(Distrust::from_code(""), None);
}

#[test]
fn names_of_answers_are_fingerprints() {
    let sha1 = text("signer.sha1");
    assert_eq!(staple_name(&sha1), Some(sha1.to_ascii_lowercase()));
    assert_eq!(staple_name(&format!("{}:{}", &sha1[..2], &sha1[2..])), Some(sha1.to_ascii_lowercase()));
    assert_eq!(staple_name(&text("signer.sha256")).unwrap().len(), 64);
    for bad in ["", "../active-keys", &sha1[1..], &format!("{}g", &sha1[1..])] {
        assert_eq!(staple_name(bad), None, "{bad}");
    }
}

#[test]
fn no_answer_makes_the_parser_panic_and_none_that_is_altered_where_it_is_signed_is_believed() {
    let (chain, root, key) = (file("chain.pem"), file("root.pem"), offered());
    let roots = SignerRoots::from_pem(&root).unwrap();
    let list = file("keys-valid");
    let (name, answer) = (text("signer.sha1"), file("signer-good.der"));
    assert!(staple::parses(&answer));
    let mut readable = 0_u32;
    crate::mutate::each(&answer, 0x6f63_7370, |bytes| readable += u32::from(staple::parses(bytes)));
    assert!(readable > 1000, "{readable}");
    // Bit by bit over all that says something: head, names, times, status and signature. The certificates behind them are
    // only helpers.
    let authority = (text("authority.sha1"), file("authority-good.der"));
    let signed = answer.windows(3).position(|bytes| bytes == [0xa0, 0x82, 0x03]).unwrap_or(answer.len());
    let mut refused = 0;
    for at in 0..signed {
        let mut altered = answer.clone();
        altered[at] ^= 1 << (at % 8);
        let staples = [(name.clone(), altered), authority.clone()];
        let answers = Answers { chain: &chain, staples: &staples, keys: &list };
        let judged = judge(&instance(), answers, &roots, Some((key.kind().as_str(), key.blob())), now());
        refused += u32::from(judged.is_err());
    }
    assert_eq!(refused as usize, signed, "an altered answer was believed");
}
