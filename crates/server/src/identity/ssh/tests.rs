//! Keys against a whole server: whom they name, until when, and what the trail has about everybody else.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use munjigi_core::id::{AccessKeyId, NodeId};
use munjigi_core::sigv4::Credentials;
use munjigi_core::ssh::PublicKey;

use super::*;
use crate::testing::TestServer;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f alice@laptop";
const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

fn key() -> PublicKey {
    PublicKey::parse(KEY).unwrap()
}

fn wish(node: &str, os_user: Option<&str>) -> SshWish {
    SshWish { node: Some(node.to_owned()), os_user: os_user.map(str::to_owned), source: SOURCE }
}

async fn comes_in(server: &Server, wish: &SshWish) -> Result<Caller, SshRefusal> {
    authenticate_key(server, proved(key(), Presence::Shown), wish).await
}

fn proved(key: PublicKey, presence: Presence) -> ProvedKey {
    ProvedKey { fingerprint: key.fingerprint(), key: Ok(key), presence }
}

async fn offered(server: &Server) -> bool {
    would_take(server, &OfferedKey::Key(Some(key())), &wish("web-1", None)).await
}

/// Returns the caller that signs with an access key.
fn caller(server: &Server, credentials: &Credentials) -> Caller {
    let key = AccessKeyId::parse(&credentials.access_key_id).unwrap();
    let (_, owner) = server.identities.by_access_key(&key).unwrap();
    Caller::new(owner, Some(key))
}

#[tokio::test]
async fn a_registered_key_names_its_user_until_it_is_inactive_or_gone() {
    let test = TestServer::start().await;
    let server = test.server();
    test.user("alice").await;
    assert!(!offered(server).await);
    assert_eq!(comes_in(server, &wish("web-1", None)).await.unwrap_err(), SshRefusal::UnknownKey);

    let registered = server.store.register_ssh_key("alice", &key(), clock::now()).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert!(offered(server).await);
    let alice = comes_in(server, &wish("web-1", Some("root"))).await.unwrap();
    assert_eq!(&*alice.principal().name, "alice");
    assert_eq!(alice.ssh().unwrap().kind, SshProofKind::Registered { key_id: registered.id.clone() });
    assert!(server.identities.present(&alice).is_some());

    server.store.set_ssh_key_active("alice", &registered.id, false).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert!(!offered(server).await);
    assert!(server.identities.present(&alice).is_none(), "a key that was switched off lets nobody go on");
    let refusal = comes_in(server, &wish("web-1", None)).await.unwrap_err();
    assert_eq!(refusal, SshRefusal::InactiveKey(registered.id.clone()));

    server.store.delete_ssh_key("alice", &registered.id).await.unwrap();
    server.store.register_ssh_key("admin", &key(), clock::now()).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert!(server.identities.present(&alice).is_none(), "the same key is somebody else's now");
    assert_eq!(&*comes_in(server, &wish("web-1", None)).await.unwrap().principal().name, "admin");

    let trail = test.trail("AuthenticateSsh");
    for (record, code) in trail.iter().zip(["UnknownKey", "InactiveKey"]) {
        let print = key().fingerprint().to_string();
        for part in [code, "192.0.2.7", "\"node\":\"web-1\"", &print, "\"authenticationMethod\":\"Ssh\""] {
            assert!(record.contains(part), "{part}: {record}");
        }
    }
    assert_eq!(trail.len(), 2, "{trail:?}");
    test.stop().await;
}

#[tokio::test]
async fn a_pushed_key_is_good_for_its_node_and_os_user_and_once() {
    let test = TestServer::start().await;
    let server = test.server();
    let bob = test.user("bob").await;
    let node = test.node_credentials().await;
    let node = NodeId::parse(&server.store.list_nodes(None, 1).await.unwrap().items[0].id.to_string())
        .unwrap_or_else(|_| panic!("{node:?}"));
    let push = |life: u64, single_use| Push {
        by: caller(server, &bob),
        node: node.clone(),
        os_user: "deploy".to_owned(),
        request_id: "11111111-2222-3333-4444-555555555555".to_owned(),
        expires: clock::now().plus(Duration::from_secs(life)),
        single_use,
    };
    let print = key().fingerprint();
    assert!(server.ssh_pushes.remember(print, push(600, true), clock::now()));
    assert!(offered(server).await);
    for elsewhere in [
        wish("mi-00000000000000000", None),
        wish(node.as_str(), Some("root")),
        SshWish { node: None, ..wish("", None) },
    ] {
        assert_eq!(comes_in(server, &elsewhere).await.unwrap_err(), SshRefusal::PushedForOther, "{elsewhere:?}");
    }
    let caller_bob = comes_in(server, &wish(node.as_str(), None)).await.unwrap();
    let proof = caller_bob.ssh().unwrap();
    assert_eq!((&*caller_bob.principal().name, proof.only_os_user()), ("bob", Some("deploy")));
    assert!(proof.allows(&node, Some("deploy")).is_ok() && proof.allows(&node, Some("root")).is_err());
    assert!(proof.allows(&NodeId::parse("mi-00000000000000000").unwrap(), Some("deploy")).is_err());
    assert_eq!(comes_in(server, &wish(node.as_str(), None)).await.unwrap_err(), SshRefusal::UnknownKey, "used up");

    assert!(server.ssh_pushes.remember(print, push(600, false), clock::now()));
    for _ in 0..3 {
        assert!(comes_in(server, &wish(node.as_str(), Some("deploy"))).await.is_ok());
    }
    assert!(server.ssh_pushes.remember(print, push(0, false), clock::now()), "takes the former's place");
    assert!(!offered(server).await, "its life is over");

    assert!(server.ssh_pushes.remember(print, push(600, false), clock::now()));
    let bobs_key = AccessKeyId::parse(&bob.access_key_id).unwrap();
    server.store.set_access_key_active("bob", &bobs_key, false).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert!(server.identities.present(&caller_bob).is_none(), "what stands behind it is gone (T-104)");
    assert_eq!(comes_in(server, &wish(node.as_str(), None)).await.unwrap_err(), SshRefusal::PrincipalGone);
    test.stop().await;
}

#[tokio::test]
async fn a_flood_of_refused_logins_is_one_record_and_a_number() {
    let test = TestServer::start().await;
    for _ in 0..1000 {
        assert!(comes_in(test.server(), &wish("web-1", None)).await.is_err());
    }
    // The first twenty have a reason of their own, and then they are too many.
    assert_eq!(test.trail("AuthenticateSsh").len(), 2);
    failures::flush(test.server(), Timestamp(i64::MAX)).await;
    let trail = test.trail("AuthenticateSsh");
    let folded = |events: u32| trail.iter().filter(|record| record.contains(&format!("\"events\":{events}"))).count();
    assert!(trail.len() == 4 && folded(19) == 1 && folded(979) == 1, "{trail:?}");
    test.stop().await;
}

#[tokio::test]
async fn a_security_key_that_nobody_touched_names_nobody() {
    let test = TestServer::start().await;
    let server = test.server();
    server.store.register_ssh_key("admin", &key(), clock::now()).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    let refusal = authenticate_key(server, proved(key(), Presence::Missing), &wish("web-1", None)).await.unwrap_err();
    assert_eq!(refusal, SshRefusal::NoPresence);
    let record = test.trail("AuthenticateSsh").pop().unwrap();
    assert!(record.contains("NoUserPresence"), "{record}");
    test.stop().await;
}

#[test]
fn the_flags_of_a_security_keys_signature_are_read_behind_it() {
    use russh::keys::Algorithm;
    use russh::keys::ssh_key::Signature;
    let signed = |flags: u8| {
        let mut bytes = vec![0xff; 64];
        bytes.extend([flags, 0, 0, 0, 7]);
        Presence::of(&Signature::new(Algorithm::SkEd25519, bytes).unwrap())
    };
    assert_eq!(
        [signed(0x00), signed(0x04), signed(0x01), signed(0x05)],
        [Presence::Missing, Presence::Missing, Presence::Shown, Presence::Shown]
    );
    let software = Signature::new(Algorithm::Ed25519, vec![0; 64]).unwrap();
    assert_eq!(Presence::of(&software), Presence::Shown);
}

#[test]
fn pushes_are_bounded_and_room_comes_back_when_they_expire() {
    let pushes = Pushes::default();
    let print = |number: u32| Fingerprint::of(&number.to_be_bytes());
    let push = |os_user: u32, expires| Push {
        by: Caller::anonymous(),
        node: NodeId::parse("mi-00000000000000000").unwrap(),
        os_user: format!("u{os_user}"),
        request_id: String::new(),
        expires: Timestamp(expires),
        single_use: true,
    };
    let accepted = (0..5000).filter(|number| pushes.remember(print(*number), push(0, 10), Timestamp(0))).count();
    assert_eq!(accepted, 4096);
    assert!(pushes.remember(print(0), push(0, 20), Timestamp(10)), "the others are over");
    let accepted = (1..100).filter(|number| pushes.remember(print(0), push(*number, 20), Timestamp(10))).count();
    assert_eq!(accepted, 31, "of one key");
}

#[test]
fn a_proof_that_is_bound_to_nobody_allows_nobody() {
    let kind = SshProofKind::Certificate { serial: 1, key_id: "k".to_owned() };
    let node = NodeId::parse("mi-00000000000000000").unwrap();
    let bound = |os_users: Option<&[&str]>| SshProof {
        os_users: os_users.map(|users| users.iter().map(|user| (*user).to_owned()).collect()),
        ..SshProof::new(kind.clone(), String::new())
    };
    for (os_users, asked, allowed) in [
        (None, Some("root"), true),
        (Some(&[][..]), Some("root"), false),
        (Some(&["alice"]), Some("root"), false),
        (Some(&["alice", "root"]), Some("root"), true),
        (Some(&["alice"]), None, true),
    ] {
        assert_eq!(bound(os_users).allows(&node, asked).is_ok(), allowed, "{os_users:?} {asked:?}");
    }
    let text = serde_json::to_string(&bound(Some(&["alice"]))).unwrap();
    assert_eq!(serde_json::from_str::<SshProof>(&text).unwrap(), bound(Some(&["alice"])));
}
