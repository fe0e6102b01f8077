//! Temporary credentials against a whole server: what they open, and everything that must not.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use munjigi_core::id::AccessKeyId;
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::Credentials;
use serde_json::json;

use super::session_token::{StandsFor, Statement};
use crate::api::operation::Service;
use crate::api::serve::{Received, authenticate_once};
use crate::clock;
use crate::door::{RequestMeta, Via};
use crate::store::Owner;
use crate::testing::TestServer;

const WEEK: Duration = Duration::from_secs(7 * 86_400);

async fn user_session(test: &TestServer, name: &str, key: &Credentials) -> Statement {
    let user = test.server().store.user(name).await.unwrap();
    let key = AccessKeyId::parse(&key.access_key_id).unwrap();
    let session = Statement::new(StandsFor::User(user.id), clock::now(), Duration::from_secs(900));
    Statement { source_key: Some(key), ..session }
}

async fn whoami(test: &TestServer, who: &Credentials) -> String {
    let answer = test.call(Some(who), Service::Sts, "GetCallerIdentity", &json!({})).await;
    if answer.status.is_success() { answer.text } else { answer.code().to_owned() }
}

#[tokio::test]
async fn a_users_session_is_the_user_until_its_key_goes() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let statement = user_session(&test, "alice", &alice).await;
    let session = test.issue(&statement);
    assert!(whoami(&test, &session).await.contains(":user/alice"), "{}", whoami(&test, &session).await);

    let answer = test.call(Some(&session), Service::Sts, "GetCallerIdentity", &json!({})).await;
    let record = test.trail(answer.request_id()).pop().unwrap();
    for part in ["\"type\":\"IAMUser\"", "\"mfaAuthenticated\":\"false\"", &session.access_key_id] {
        assert!(record.contains(part), "{part}: {record}");
    }

    let server = test.server();
    let key = AccessKeyId::parse(&alice.access_key_id).unwrap();
    server.store.delete_access_key("alice", &key).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert_eq!(whoami(&test, &session).await, "InvalidClientTokenId");
    test.stop().await;
}

#[tokio::test]
async fn tokens_and_keys_that_do_not_belong_together_are_refused() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let statement = user_session(&test, "alice", &alice).await;
    let (session, other) = (test.issue(&statement), test.issue(&statement));
    let token = |text: &str| Some(Secret::new(text.to_owned()));
    for (what, presented) in [
        ("no token", Credentials { session_token: None, ..session.clone() }),
        ("another's token", Credentials { session_token: other.session_token.clone(), ..session.clone() }),
        ("a long-term key with a token", Credentials { session_token: session.session_token.clone(), ..alice.clone() }),
        ("no token of ours", Credentials { session_token: token("AAAA"), ..session.clone() }),
        ("an empty token", Credentials { session_token: token(""), ..session.clone() }),
    ] {
        assert_eq!(whoami(&test, &presented).await, "InvalidClientTokenId", "{what}");
    }
    let forged = Credentials { secret: other.secret.clone(), ..session.clone() };
    assert_eq!(whoami(&test, &forged).await, "SignatureDoesNotMatch");
    test.stop().await;
}

#[tokio::test]
async fn credentials_that_have_ended_say_so_and_only_to_who_has_their_secret() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let statement = user_session(&test, "alice", &alice).await;
    let past = clock::now().0 - 1;
    let session = test.issue(&Statement { expires: munjigi_core::time::Timestamp(past), ..statement });
    assert_eq!(whoami(&test, &session).await, "ExpiredToken");
    let answer = test.call(Some(&session), Service::Ssm, "DescribeSessions", &json!({ "State": "Active" })).await;
    assert_eq!(answer.code(), "ExpiredTokenException");
    let forged = Credentials { secret: alice.secret.clone(), ..session };
    assert_eq!(whoami(&test, &forged).await, "SignatureDoesNotMatch");
    test.stop().await;
}

#[tokio::test]
async fn a_users_session_reaches_identities_only_with_a_second_factor() {
    let test = TestServer::start().await;
    let admin = user_session(&test, "admin", &test.admin).await;
    let (without, with) = (test.issue(&admin), test.issue(&Statement { mfa: Some(clock::now()), ..admin }));
    let list = async |who: &Credentials| {
        let answer = test.call(Some(who), Service::Iam, "ListUsers", &json!({})).await;
        (answer.status.as_u16(), answer.text)
    };
    let refused = list(&without).await;
    assert!(refused.0 == 403 && refused.1.contains("without MFA"), "{refused:?}");
    assert_eq!(list(&with).await.0, 200);
    test.stop().await;
}

#[tokio::test]
async fn conditions_on_temporary_credentials_do_not_match_long_term_keys() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let server = test.server();
    let allow = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "ssm:DescribeSessions", "Resource": "*",
        "Condition": { "Bool": { "aws:MultiFactorAuthPresent": "true" }, "NumericLessThan": { "aws:MultiFactorAuthAge": "60" } },
    } });
    let fits = |_: &[crate::store::InlinePolicy]| Ok(());
    server.store.put_inline_policy(Owner::User("alice"), "mfa", &allow.to_string(), fits).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    let statement = user_session(&test, "alice", &alice).await;
    let hour_ago = munjigi_core::time::Timestamp(clock::now().0 - 3_600_000_000);
    for (what, who, allowed) in [
        ("long-term key", alice.clone(), false),
        ("session without MFA", test.issue(&statement), false),
        ("session with MFA", test.issue(&Statement { mfa: Some(clock::now()), ..statement.clone() }), true),
        ("session with old MFA", test.issue(&Statement { mfa: Some(hour_ago), ..statement }), false),
    ] {
        let answer = test.call(Some(&who), Service::Ssm, "DescribeSessions", &json!({ "State": "Active" })).await;
        assert_eq!(answer.status.is_success(), allowed, "{what}: {}", answer.text);
    }
    test.stop().await;
}

#[tokio::test]
async fn the_credentials_of_a_deregistered_node_are_worth_nothing() {
    let test = TestServer::start().await;
    let node = test.node_credentials().await;
    assert_eq!(whoami(&test, &node).await, "AccessDenied");
    let id = test.server().store.list_nodes(None, 1).await.unwrap().items.remove(0).id;
    test.server().store.deregister_node(&id).await.unwrap();
    assert_eq!(whoami(&test, &node).await, "InvalidClientTokenId");
    test.stop().await;
}

#[tokio::test]
async fn a_presigned_url_is_good_for_what_allows_it_and_for_a_minute() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let get = async |action: &str, service: &str, life: Duration| {
        let form = format!("Action={action}&Version=2011-06-15");
        let target = test.presign("/", &form, &alice, service, life);
        let request = Request::get(target).header("host", test.authority()).body(Bytes::new()).unwrap();
        let answer = test.send(request).await;
        (answer.code().to_owned(), answer.text)
    };
    let minute = Duration::from_secs(60);
    let (code, text) = get("GetCallerIdentity", "sts", minute).await;
    assert!(code.is_empty() && text.contains(":user/alice"), "{text}");
    assert_eq!(get("GetCallerIdentity", "sts", WEEK).await.0, "SignatureDoesNotMatch");
    assert_eq!(get("GetCallerIdentity", "iam", minute).await.0, "InvalidAction");
    test.stop().await;
}

#[tokio::test]
async fn a_url_that_is_good_once_is_refused_the_second_time() {
    let test = TestServer::start().await;
    let alice = test.user("alice").await;
    let minute = Duration::from_secs(60);
    let target = test.presign("/openTunnel", "remotePort=22", &alice, "ec2-instance-connect", minute);
    let verify = |life: Duration| {
        let meta = RequestMeta {
            request_id: uuid::Uuid::new_v4(),
            time: clock::now(),
            source_ip: std::net::Ipv4Addr::LOCALHOST.into(),
            user_agent: String::new(),
            referer: None,
            tls: None,
            host: test.authority().to_owned(),
            region: String::new(),
            invocation_id: None,
            via: Via::Api,
        };
        let headers = [(http::header::HOST, test.authority().parse().unwrap())].into_iter().collect();
        let (method, target) = (http::Method::GET, target.clone());
        let mut received = Received { method, target, headers, body: Bytes::new(), meta };
        match authenticate_once(test.server(), &mut received, "ec2-instance-connect", life) {
            Ok(authenticated) => authenticated.caller.principal().name.to_string(),
            Err(refused) => refused.error.code(Service::Munjigi).to_owned(),
        }
    };
    assert_eq!(verify(Duration::from_secs(59)), "InvalidSignatureException", "it lives too long");
    assert_eq!(verify(minute), "alice");
    assert_eq!(verify(minute), "RequestAlreadyCarriedOut");
    test.stop().await;
}
