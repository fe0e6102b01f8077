use super::*;
use crate::trust::{KeyPurpose, TrustedKey};
use aws_lc_rs::signature::KeyPair;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

fn signer(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn trust(purpose: KeyPurpose) -> TrustBundle {
    let public: [u8; 32] = signer(7).public_key().as_ref().try_into().unwrap();
    let (not_before, not_after) = (Timestamp(0), Timestamp(i64::MAX));
    TrustBundle {
        version: 1,
        keys: vec![TrustedKey { id: KeyId::of(&public), purpose, public, not_before, not_after }],
    }
}

fn node() -> NodeId {
    NodeId::parse("mi-0123456789abcdef0").unwrap()
}

fn key(expires: Option<Timestamp>) -> BundleKey {
    BundleKey {
        key: PublicKey::parse(KEY).unwrap(),
        principal: "arn:aws:iam::123456789012:user/alice".into(),
        key_id: "APKA0123456789ABCDEF".into(),
        sources: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        expires,
        privileged: false,
        options: KeyOptions::default(),
    }
}

fn account(os_user: &str, uid: u32, state: AccountState) -> BundleAccount {
    BundleAccount {
        os_user: os_user.into(),
        uid,
        state,
        mode: AccountMode::Synchronised,
        owner: "arn:aws:iam::123456789012:user/한글".into(),
        groups: vec!["adm".into(), "docker".into()],
        sudo: Sudo::Commands(vec!["/usr/bin/systemctl restart nginx".into()]),
        shell: "/bin/bash".into(),
        remove_home: false,
        keys: vec![key(None), key(Some(NOW))],
    }
}

fn bundle() -> AccountBundle {
    AccountBundle {
        node: node(),
        version: 5,
        issued: NOW,
        accounts: vec![
            account("alice", 60_001, AccountState::Active),
            BundleAccount { sudo: Sudo::All, ..account("bob", 60_002, AccountState::Locked) },
            account("ec2-user", 0, AccountState::Foreign),
            BundleAccount { mode: AccountMode::JustInTime, ..account("zoe", 60_003, AccountState::Removed) },
        ],
        key_files: vec![KeyFile {
            group: "ops".into(),
            os_users: vec!["bob".into(), "deploy".into()],
            keys: vec![key(None)],
        }],
    }
}

fn signed(bundle: &AccountBundle) -> Vec<u8> {
    let key = signer(7);
    bundle.sign(KeyId::of(key.public_key().as_ref()), &key)
}

fn verify(bytes: &[u8], held: u64) -> Result<AccountBundle, BundleError> {
    AccountBundle::verify(bytes, &trust(KeyPurpose::Grant), &node(), held, NOW)
}

#[test]
fn a_bundle_travels_whole_and_no_older_one_is_believed() {
    let bytes = signed(&bundle());
    assert_eq!(verify(&bytes, 5), Ok(bundle()));
    assert_eq!(verify(&bytes, 6), Err(BundleError::Older { offered: 5, held: 6 }));
    let other = AccountBundle { node: NodeId::parse("mi-0123456789abcdef1").unwrap(), ..bundle() };
    assert_eq!(verify(&signed(&other), 0), Err(BundleError::OtherNode));
}

#[test]
fn another_key_or_a_key_of_another_purpose_signs_nothing() {
    let (bundle, stranger) = (bundle(), signer(8));
    let foreign = bundle.sign(KeyId::of(stranger.public_key().as_ref()), &stranger);
    assert_eq!(verify(&foreign, 0), Err(BundleError::UnknownKey));
    let borrowed = bundle.sign(KeyId::of(signer(7).public_key().as_ref()), &stranger);
    assert_eq!(verify(&borrowed, 0), Err(BundleError::BadSignature));
    let checkpoint = trust(KeyPurpose::Checkpoint);
    assert_eq!(AccountBundle::verify(&signed(&bundle), &checkpoint, &node(), 0, NOW), Err(BundleError::UnknownKey));
}

#[test]
fn every_changed_byte_is_refused() {
    let bytes = signed(&bundle());
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(verify(&altered, 0).is_err(), "byte {at}");
        assert!(verify(&bytes[..at], 0).is_err(), "cut at {at}");
    }
}

#[test]
fn a_quarter_million_mutated_bodies_neither_panic_nor_grow_and_have_one_encoding() {
    let body = bundle().body();
    let mut taken = 0;
    crate::mutate::each(&body, 0x5eed_0081, |bytes| {
        if let Ok(read) = AccountBundle::read(bytes) {
            assert_eq!(read.body(), bytes);
            taken += 1;
            let _ = read.check();
        }
    });
    assert!(taken > 100, "{taken}");
}

#[test]
fn what_no_account_may_have_is_refused_whoever_signed_it() {
    type Change = fn(&mut AccountBundle);
    let cases: [Change; 17] = [
        |b| b.accounts[0].os_user = "root".into(),
        |b| b.accounts[0].os_user = "Alice".into(),
        |b| b.accounts[0].os_user = "a\nb".into(),
        |b| b.accounts[0].uid = 0,
        |b| b.accounts[0].uid = 999,
        |b| b.accounts[0].uid = 60_002,
        |b| b.accounts[2].uid = 60_009,
        |b| b.accounts[0].groups = vec!["b".into(), "a".into()],
        |b| b.accounts[0].groups = vec!["a:b".into()],
        |b| b.accounts[0].shell = "bash".into(),
        |b| b.accounts[0].shell = "/bin/ba\nsh".into(),
        |b| b.accounts[0].sudo = Sudo::Commands(vec![]),
        |b| b.accounts[0].sudo = Sudo::Commands(vec!["ALL".into()]),
        |b| b.accounts.swap(0, 1),
        |b| b.key_files[0].os_users.clear(),
        |b| b.key_files[0].os_users = vec!["*".into()],
        |b| b.accounts[0].keys = vec![key(None); MAX_KEYS + 1],
    ];
    for (at, change) in cases.into_iter().enumerate() {
        let mut wrong = bundle();
        change(&mut wrong);
        assert!(verify(&signed(&wrong), 0).is_err(), "case {at}");
    }
}

#[test]
fn commands_of_sudo_are_exactly_what_they_say() {
    for good in ["/usr/bin/id", "/usr/bin/systemctl restart nginx", "/sbin/ip -4 a", "/bin/x a=b,c:d@e~%"] {
        assert!(valid_sudo_command(good), "{good}");
    }
    for bad in [
        "",
        "id",
        "ALL",
        "/usr/bin/",
        "/usr/bin/*",
        "/usr/bin/id *",
        "!/bin/sh",
        "/bin/a,/bin/sh",
        "/bin/a\n/bin/b",
        "/bin/a \"b\"",
        "/bin/a  b",
        "/bin/../sh",
        "/bin/a\\",
        "/bin/a #b",
        "/bin/a (b)",
        "/bin/한글",
    ] {
        assert!(!valid_sudo_command(bad), "{bad:?}");
    }
}

#[test]
fn keys_are_those_of_the_account_and_of_the_files_that_name_it_while_it_is_open() {
    let bundle = bundle();
    let count = |user: &str, now| bundle.keys_of(user, now).count();
    // One of two has expired; ec2-user has its own; deploy only those of the file.
    assert_eq!(count("alice", NOW), 1);
    assert_eq!(count("alice", Timestamp(NOW.0 - 1)), 2);
    assert_eq!(count("ec2-user", NOW), 1);
    assert_eq!(count("deploy", NOW), 1);
    // Locked and removed accounts have none, whatever file names them.
    assert_eq!(count("bob", NOW), 0);
    assert_eq!(count("zoe", NOW), 0);
    assert_eq!(count("nobody", NOW), 0);
}

#[test]
fn content_is_the_same_for_bundles_that_say_the_same() {
    let later = AccountBundle { version: 9, issued: Timestamp(1), ..bundle() };
    assert_eq!(later.content(), bundle().content());
    assert_ne!(AccountBundle { accounts: vec![], ..bundle() }.content(), bundle().content());
}

#[test]
fn options_come_back_and_a_bundle_without_any_is_as_it_was() {
    let plain = bundle();
    assert!(plain.body().starts_with(CONTEXT));
    let mut bound = plain.clone();
    let options = KeyOptions::parse(r#"restrict,from="10.0.0.0/8",command="uptime""#).unwrap();
    bound.accounts[0].keys[0].options = options;
    let body = bound.body();
    assert!(body.starts_with(CONTEXT_WITH_OPTIONS));
    assert_eq!(AccountBundle::read(&body).unwrap(), bound);
    // What an older node knows is the other form only.
    assert!(FieldReader::new(&body, CONTEXT).is_err());
}
