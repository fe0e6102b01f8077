//! Certificates against a whole server: how they are issued, whom they name, and what takes them away again.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use munjigi_core::sigv4::Credentials;
use russh::keys::Certificate;
use serde_json::{Value, json};

use super::super::*;
use super::*;
use crate::api::operation::Service;
use crate::testing::{Answer, TestServer};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f kim@laptop";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Lets a user have certificates for `alice` and `deploy`, and for `deploy` only without forwards.
const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[
    {"Effect":"Allow","Action":"munjigi:IssueSshCertificate","Resource":"arn:aws:iam::*:user/${aws:username}",
     "Condition":{"StringEquals":{"munjigi:OsUser":["alice","deploy"]},
                  "NumericLessThanEquals":{"munjigi:CertificateLifeSeconds":"28800"}}},
    {"Effect":"Deny","Action":"munjigi:IssueSshCertificate","Resource":"*",
     "Condition":{"StringEquals":{"munjigi:OsUser":"deploy","munjigi:CertificateExtension":"permit-port-forwarding"}}},
    {"Effect":"Deny","Action":"munjigi:IssueSshCertificate","Resource":"*",
     "Condition":{"StringEquals":{"munjigi:OsUser":"deploy"},"Null":{"munjigi:SourceAddress":"true"}}},
    {"Effect":"Allow","Action":"munjigi:RevokeSshCertificate","Resource":"arn:aws:iam::*:user/${aws:username}"}]}"#;

/// Asks for a certificate for `alice`; no two such requests are the same, or the second would be taken for the first
/// once more.
fn wanted() -> Value {
    static LIFE: AtomicU32 = AtomicU32::new(3600);
    json!({ "PublicKey": KEY, "OsUsers": ["alice"], "LifeSeconds": LIFE.fetch_add(1, Ordering::Relaxed) })
}

async fn call(test: &TestServer, who: &Credentials, operation: &str, input: Value) -> Answer {
    test.call(Some(who), Service::Munjigi, operation, &input).await
}

async fn kim(test: &TestServer) -> Credentials {
    let kim = test.user("kim").await;
    let input = json!({ "UserName": "kim", "PolicyName": "ssh", "PolicyDocument": POLICY });
    let answer = test.call(Some(&test.admin), Service::Iam, "PutUserPolicy", &input).await;
    assert_eq!(answer.code(), "", "{}", answer.text);
    kim
}

fn issued(answer: &Answer) -> (Certificate, Value) {
    let output: Value = serde_json::from_str(&answer.text).unwrap();
    let line = output["Certificate"].as_str().unwrap_or_else(|| panic!("{}", answer.text));
    (Certificate::from_openssh(line).unwrap(), output)
}

async fn comes_in(test: &TestServer, certificate: &Certificate, os_user: &str) -> Result<Caller, SshRefusal> {
    let proved = ProvedCertificate { certificate: certificate.clone(), presence: Presence::Shown };
    let wish = SshWish { node: Some("web-1".to_owned()), os_user: Some(os_user.to_owned()), source: HERE };
    authenticate_certificate(test.server(), proved, &wish).await
}

fn code(result: Result<Caller, SshRefusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code(), |_| "")
}

#[tokio::test]
async fn policy_decides_os_user_life_extensions_and_conditions() {
    let test = TestServer::start().await;
    let kim = kim(&test).await;
    let issue = async |input: Value| {
        let mut whole = json!({ "PublicKey": KEY });
        whole.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        call(&test, &kim, "IssueSshCertificate", whole).await
    };
    let (certificate, output) = issued(&issue(json!({ "OsUsers": ["alice"] })).await);
    assert_eq!(certificate.valid_principals(), ["alice"]);
    assert_eq!(output["Extensions"], json!(["permit-pty", "permit-port-forwarding"]));
    assert_eq!(certificate.valid_before() - certificate.valid_after(), 8 * 3600 + 60);
    assert!(certificate.key_id().starts_with("munjigi:arn:aws:iam::"), "{}", certificate.key_id());
    // What policy denies by default is left out; what is wished must be allowed.
    let narrow = json!({ "OsUsers": ["deploy"], "SourceAddresses": ["192.0.2.0/24"] });
    let (certificate, output) = issued(&issue(narrow).await);
    assert_eq!(output["Extensions"], json!(["permit-pty"]));
    assert_eq!(certificate.critical_options()["source-address"], "192.0.2.0/24");
    for (input, code) in [
        (json!({ "OsUsers": ["root"] }), "AccessDeniedException"),
        (json!({ "OsUsers": ["alice", "root"] }), "AccessDeniedException"),
        (json!({ "OsUsers": ["alice"], "LifeSeconds": 28801 }), "AccessDeniedException"),
        (json!({ "OsUsers": ["deploy"] }), "AccessDeniedException"),
        (
            json!({ "OsUsers": ["deploy"], "SourceAddresses": ["192.0.2.7"], "Extensions": ["permit-port-forwarding"] }),
            "AccessDeniedException",
        ),
        // Neither tag nor setting says as whom.
        (json!({}), "ValidationException"),
        (json!({ "OsUsers": ["Alice"] }), "ValidationException"),
        (json!({ "OsUsers": ["a,b"] }), "ValidationException"),
        (json!({ "OsUsers": ["alice"], "LifeSeconds": 59 }), "ValidationException"),
        (json!({ "OsUsers": ["alice"], "LifeSeconds": 86_401 }), "ValidationException"),
        (json!({ "OsUsers": ["alice"], "SourceAddresses": ["host"] }), "ValidationException"),
        (json!({ "OsUsers": ["alice"], "ForceCommand": "" }), "ValidationException"),
        (json!({ "OsUsers": ["alice"], "Extensions": ["permit-everything"] }), "ValidationException"),
    ] {
        let answer = issue(input.clone()).await;
        assert_eq!(answer.code(), code, "{input}: {}", answer.text);
    }
    // Without a wish, the tag says as whom.
    let tag = json!({ "UserName": "kim", "Tags": [{ "Key": "SSMSessionRunAs", "Value": "alice" }] });
    let answer = test.call(Some(&test.admin), Service::Iam, "TagUser", &tag).await;
    assert_eq!(answer.code(), "", "{}", answer.text);
    assert_eq!(issued(&issue(json!({ "LifeSeconds": 600 })).await).0.valid_principals(), ["alice"]);
    test.stop().await;
}

#[tokio::test]
async fn a_certificate_names_its_owner_and_says_what_binds_it() {
    let test = TestServer::start().await;
    let kim = kim(&test).await;
    let input = json!({ "PublicKey": KEY, "OsUsers": ["alice"], "ForceCommand": "uptime", "SourceAddresses": ["192.0.2.0/24"] });
    let (certificate, output) = issued(&call(&test, &kim, "IssueSshCertificate", input).await);
    let caller = comes_in(&test, &certificate, "alice").await.unwrap();
    assert_eq!(&*caller.principal().name, "kim");
    assert_eq!(caller.access_key().unwrap().as_str(), kim.access_key_id);
    let proof = caller.ssh().unwrap();
    assert_eq!(proof.os_users.as_deref(), Some(&["alice".to_owned()][..]));
    assert_eq!(proof.force_command.as_deref(), Some("uptime"));
    assert!(proof.permits(true, false).is_ok() && proof.permits(false, true).is_err());
    let SshProofKind::Certificate { serial, .. } = &proof.kind else { panic!("{proof:?}") };
    assert_eq!(Some(*serial), output["Serial"].as_u64());
    assert!(test.server().identities.present(&caller).is_some());
    assert_eq!(code(comes_in(&test, &certificate, "root").await), "CertificatePrincipalMismatch");
    let elsewhere = SshWish { node: None, os_user: None, source: "198.51.100.1".parse().unwrap() };
    let proved = ProvedCertificate { certificate: certificate.clone(), presence: Presence::Shown };
    let refused = authenticate_certificate(test.server(), proved, &elsewhere).await;
    assert_eq!(code(refused), "CertificateSourceAddressMismatch");
    let trail = test.trail("AuthenticateSsh");
    assert!(trail.iter().any(|line| line.contains("CertificatePrincipalMismatch")), "{trail:?}");
    // A certificate of our authority that this server does not remember is nobody's.
    let authority = test.server().ssh_authority.user();
    let made = crate::ssh_authority::NewCertificate {
        key: &munjigi_core::ssh::PublicKey::parse(KEY).unwrap(),
        key_id: "made elsewhere",
        owner: &caller.principal().arn,
        owner_id: caller.principal().unique_id.as_ref().unwrap(),
        os_users: &["alice".to_owned()],
        sources: &[],
        force_command: None,
        extensions: &[],
        issued: clock::now(),
        expires: clock::now().plus(Duration::from_secs(60)),
    };
    assert!(authority.current().is_some());
    let unknown = test.server().ssh_authority.issue(&made).unwrap().certificate;
    assert_eq!(code(comes_in(&test, &unknown, "alice").await), "CertificateUnknown");
    test.stop().await;
}

#[tokio::test]
async fn what_is_revoked_lets_nobody_in_and_nobody_go_on() {
    let test = TestServer::start().await;
    let kim = kim(&test).await;
    let issue = async || issued(&call(&test, &kim, "IssueSshCertificate", wanted()).await);
    // Its owner may: by number. Nobody's number looks like somebody else's.
    let (certificate, output) = issue().await;
    let caller = comes_in(&test, &certificate, "alice").await.unwrap();
    let unknown = call(&test, &kim, "RevokeSshCertificate", json!({ "Serial": 5 })).await;
    assert_eq!(unknown.code(), "AccessDeniedException");
    let revoked = call(&test, &kim, "RevokeSshCertificate", json!({ "Serial": output["Serial"] })).await;
    assert_eq!(revoked.code(), "", "{}", revoked.text);
    assert_eq!(code(comes_in(&test, &certificate, "alice").await), "CertificateRevoked");
    assert!(test.server().identities.present(&caller).is_none());
    // By key id, and by key: then no new certificate is made for it either.
    let (by_id, output) = issue().await;
    call(&test, &test.admin, "RevokeSshCertificate", json!({ "KeyId": output["KeyId"], "Reason": "lost" })).await;
    assert_eq!(code(comes_in(&test, &by_id, "alice").await), "CertificateRevoked");
    let (by_key, _) = issue().await;
    let print = munjigi_core::ssh::PublicKey::parse(KEY).unwrap().fingerprint().to_string();
    call(&test, &test.admin, "RevokeSshCertificate", json!({ "Fingerprint": print })).await;
    assert_eq!(code(comes_in(&test, &by_key, "alice").await), "CertificateRevoked");
    let again = call(&test, &kim, "IssueSshCertificate", wanted()).await;
    assert_eq!(again.code(), "ValidationException", "{}", again.text);
    let listed = call(&test, &test.admin, "ListSshCertificates", json!({ "MaxResults": 2 })).await;
    let listed: Value = serde_json::from_str(&listed.text).unwrap();
    let states: Vec<_> = listed["Certificates"].as_array().unwrap().iter().map(|one| one["State"].clone()).collect();
    assert_eq!(states, ["revoked", "revoked"]);
    assert_eq!(listed["Certificates"][1]["Reason"], "lost");
    let rest = json!({ "MaxResults": 2, "NextToken": listed["NextToken"] });
    let rest: Value = serde_json::from_str(&call(&test, &test.admin, "ListSshCertificates", rest).await.text).unwrap();
    assert_eq!(rest["Certificates"].as_array().unwrap().len(), 1);
    for input in
        [json!({}), json!({ "Serial": 0 }), json!({ "Serial": 1, "KeyId": "x" }), json!({ "Fingerprint": "x" })]
    {
        let answer = call(&test, &test.admin, "RevokeSshCertificate", input).await;
        assert_eq!(answer.code(), "ValidationException");
    }
    test.stop().await;
}

/// A certificate, and what takes it away.
async fn lost(test: &TestServer, kim: &Credentials, take_away: impl AsyncFn()) -> (Certificate, Caller) {
    let (certificate, _) = issued(&call(test, kim, "IssueSshCertificate", wanted()).await);
    let caller = comes_in(test, &certificate, "alice").await.unwrap();
    take_away().await;
    // The server revokes it by itself, so that every sshd learns of it.
    let serial = certificate.serial();
    let listed = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let found = test.server().store.certificate(serial).await.unwrap().unwrap();
            // It is written before it is believed.
            if found.revoked.is_some() && test.server().identities.revoked_ssh().serials.contains(&serial) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(listed.await.unwrap().revoked.unwrap().by, "munjigi");
    (certificate, caller)
}

#[tokio::test]
async fn a_certificate_goes_with_its_policy_its_access_key_and_its_owner() {
    let test = TestServer::start().await;
    let (server, kim) = (test.server(), kim(&test).await);
    let admin = async |operation: &str, input: Value| {
        let answer = test.call(Some(&test.admin), Service::Iam, operation, &input).await;
        assert_eq!(answer.code(), "", "{}", answer.text);
    };
    let (certificate, caller) =
        lost(&test, &kim, async || admin("DeleteUserPolicy", json!({ "UserName": "kim", "PolicyName": "ssh" })).await)
            .await;
    assert_eq!(code(comes_in(&test, &certificate, "alice").await), "CertificateRevoked");
    assert!(server.identities.present(&caller).is_none());

    let document = json!({ "UserName": "kim", "PolicyName": "again", "PolicyDocument": POLICY });
    admin("PutUserPolicy", document).await;
    let inactive = json!({ "UserName": "kim", "AccessKeyId": kim.access_key_id, "Status": "Inactive" });
    let (_, caller) = lost(&test, &kim, async || admin("UpdateAccessKey", inactive.clone()).await).await;
    assert!(server.identities.present(&caller).is_none());
    test.stop().await;
}

#[tokio::test]
async fn certificates_outlive_a_rotation_but_not_distrust() {
    let test = TestServer::start().await;
    let kim = kim(&test).await;
    let issue = async || issued(&call(&test, &kim, "IssueSshCertificate", wanted()).await);
    let (old, first) = issue().await;
    let denied = call(&test, &kim, "RotateSshAuthority", json!({ "Authority": "user" })).await;
    assert_eq!(denied.code(), "AccessDeniedException");
    let rotated = call(&test, &test.admin, "RotateSshAuthority", json!({ "Authority": "user" })).await;
    assert_eq!(rotated.code(), "", "{}", rotated.text);
    let (new, second) = issue().await;
    assert_ne!(first["Authority"], second["Authority"]);
    let caller = comes_in(&test, &old, "alice").await.unwrap();
    assert_eq!(code(comes_in(&test, &new, "alice").await), "");
    let distrusted = json!({ "Authority": "user", "Distrust": true });
    let answer: Value =
        serde_json::from_str(&call(&test, &test.admin, "RotateSshAuthority", distrusted).await.text).unwrap();
    assert_eq!(answer["Revoked"], 2);
    for certificate in [&old, &new] {
        assert_eq!(code(comes_in(&test, certificate, "alice").await), "CertificateAuthorityUnknown");
    }
    assert!(test.server().identities.present(&caller).is_none(), "sessions that began with them end");
    assert_eq!(code(comes_in(&test, &issue().await.0, "alice").await), "");
    test.stop().await;
}
