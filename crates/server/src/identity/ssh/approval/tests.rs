//! Waiting logins: their codes, their bounds, and who they become.

use http::StatusCode;
use munjigi_core::id::NodeId;
use munjigi_core::totp;
use serde_json::json;

use super::*;
use crate::api::operation::Service::{Iam, Munjigi};
use crate::door::{RequestMeta, Via};
use crate::identity::ssh::approved;
use crate::store::Owner;
use crate::testing::TestServer;

fn wish(last: u8) -> SshWish {
    let source = IpAddr::from([192, 0, 2, last]);
    SshWish { node: Some("web-1".to_owned()), os_user: Some("deploy".to_owned()), source }
}

fn request() -> RequestMeta {
    RequestMeta {
        request_id: uuid::Uuid::nil(),
        time: at(0),
        source_ip: IpAddr::from([192, 0, 2, 7]),
        user_agent: String::new(),
        referer: None,
        tls: None,
        host: String::new(),
        region: "local-1".to_owned(),
        invocation_id: None,
        via: Via::Ssh,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

fn denied() -> Answer {
    Answer::Denied { by: "kim".to_owned() }
}

#[test]
fn a_code_is_good_for_one_answer_in_its_time_however_it_is_typed() {
    let approvals = Approvals::default();
    let (code, mut answer) = approvals.begin(&wish(1), at(0)).unwrap();
    assert!(code.len() == 8 && read_code(&code).as_deref() == Some(&code), "{code}");
    let (head, tail) = code.split_at(4);
    for typed in [code.clone(), code.to_lowercase(), format!("{head}-{tail}"), format!(" {head} {tail}")] {
        assert_eq!(approvals.look(&typed, "kim", at(119)), Ok(wish(1)), "{typed}");
    }
    for typed in ["", "2222-222", "22222222 2", "0000-0000", "ABCD_EFGH", "ÄBCDEFGH"] {
        assert_eq!(read_code(typed), None, "{typed}");
    }
    assert_eq!(approvals.answer(&code, "kim", denied(), at(119)), Ok(wish(1)));
    assert!(matches!(answer.try_recv(), Ok(Answer::Denied { .. })));
    assert_eq!(approvals.answer(&code, "kim", denied(), at(119)), Err(AnswerError::Unknown));

    let (late, _answer) = approvals.begin(&wish(1), at(0)).unwrap();
    assert_eq!(approvals.answer(&late, "lee", denied(), at(120)), Err(AnswerError::Unknown));
    let (left, answer) = approvals.begin(&wish(1), at(0)).unwrap();
    drop(answer);
    assert_eq!(approvals.answer(&left, "lee", denied(), at(1)), Err(AnswerError::Unknown), "nobody waits any more");
}

#[test]
fn logins_that_wait_and_begin_are_bounded_by_address_network_and_in_all() {
    let approvals = Approvals::default();
    let mut kept: Vec<_> = (0..8).map(|_| approvals.begin(&wish(1), at(0)).unwrap()).collect();
    assert_eq!(approvals.begin(&wish(1), at(0)).unwrap_err(), SshRefusal::TooManyApprovals, "eight wait");
    kept.clear();
    for _ in 8..20 {
        approvals.begin(&wish(1), at(0)).unwrap();
    }
    assert_eq!(approvals.begin(&wish(1), at(59)).unwrap_err(), SshRefusal::TooManyApprovals, "20 in a minute");
    for other in 0..80 {
        approvals.begin(&wish(2 + other / 20), at(0)).unwrap();
    }
    assert_eq!(approvals.begin(&wish(200), at(59)).unwrap_err(), SshRefusal::TooManyApprovals, "100 of the network");
    approvals.begin(&wish(1), at(60)).unwrap();

    let approvals = Approvals::default();
    let mut waiting = Vec::new();
    for number in 0..2000_u32 {
        let [_, a, b, c] = number.wrapping_mul(0x0010_0001).to_be_bytes();
        let source = IpAddr::from([10, a.wrapping_add(b), b, c]);
        waiting.extend(approvals.begin(&SshWish { source, ..wish(0) }, at(0)).ok());
    }
    assert_eq!(waiting.len(), MAX_WAITING);
}

#[test]
fn five_wrong_codes_close_it_for_who_named_them_and_nobody_else() {
    let approvals = Approvals::default();
    let (code, _answer) = approvals.begin(&wish(1), at(0)).unwrap();
    for _ in 0..5 {
        assert_eq!(approvals.look("22222222", "eve", at(0)), Err(AnswerError::Unknown));
    }
    assert_eq!(approvals.look(&code, "eve", at(1)), Err(AnswerError::TooManyWrong), "the right one, too");
    assert!(approvals.look(&code, "kim", at(1)).is_ok());
    let (code, _answer) = approvals.begin(&wish(1), at(300)).unwrap();
    assert!(approvals.look(&code, "eve", at(300)).is_ok());
}

#[tokio::test]
async fn a_login_becomes_whoever_approves_it_and_is_written_down_first() {
    let test = TestServer::start().await;
    let server = test.server();
    let alice = test.user("alice").await;
    let begun = begin(server, &wish(7)).await.unwrap();
    assert!(begun.url.starts_with("https://") && begun.url.ends_with(&format!("/approve/{}", begun.code)), "{begun:?}");
    let code = begun.shown_code();

    let ask = |decision: &str| json!({ "Code": code, "Decision": decision });
    // Another text than below: an equal call within a second is the same call.
    let refusal = json!({ "Code": code.to_lowercase(), "Decision": "Approve" });
    let refusal = test.call(Some(&alice), Munjigi, "ApproveSshLogin", &refusal).await;
    assert_eq!((refusal.status, refusal.code()), (StatusCode::BAD_REQUEST, "AccessDeniedException"));
    let allow = json!({ "Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "munjigi:ApproveSshLogin", "Resource": "arn:aws:iam::*:user/${aws:username}",
        "Condition": { "StringEqualsIfExists": { "munjigi:OsUser": "deploy" },
            "IpAddressIfExists": { "munjigi:SourceAddress": "192.0.2.0/24" } },
    } });
    server.store.put_inline_policy(Owner::User("alice"), "p", &allow.to_string(), |_| Ok(())).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();

    let shown = test.call(Some(&alice), Munjigi, "DescribeSshLogin", &json!({ "Code": code })).await;
    for part in ["\"SourceAddress\":\"192.0.2.7\"", "\"Node\":\"web-1\"", "\"OsUser\":\"deploy\"", ":user/alice\""] {
        assert!(shown.text.contains(part), "{part}: {}", shown.text);
    }
    let waiting = wait(server, begun);
    let answered = async {
        let answer = test.call(Some(&alice), Munjigi, "ApproveSshLogin", &ask("Approve")).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer
    };
    let (caller, answer) = tokio::join!(waiting, answered);
    let caller = caller.unwrap();
    assert_eq!(&*caller.principal().name, "alice");
    assert!(server.identities.present(&caller).is_some());
    // It is what was shown and approved, and nothing else.
    let (proof, node) = (caller.ssh().unwrap(), NodeId::parse("mi-0123456789abcdef0").unwrap());
    assert!(proof.allows(&node, Some("deploy")).is_ok() && proof.allows(&node, Some("root")).is_err());
    let bound = approved(&caller, &request(), &wish(7), Some(node.clone()));
    let other = NodeId::parse("mi-00000000000000000").unwrap();
    assert!(bound.ssh().unwrap().allows(&node, None).is_ok() && bound.ssh().unwrap().allows(&other, None).is_err());
    let record = test.trail(answer.request_id()).pop().unwrap();
    for part in ["\"osUser\":\"deploy\"", "\"sourceAddress\":\"192.0.2.7\"", "\"node\":\"web-1\""] {
        assert!(record.contains(part), "{part}: {record}");
    }
    assert!(!record.contains(&code), "the code is nobody's business: {record}");
    let again = test.call(Some(&alice), Munjigi, "ApproveSshLogin", &ask("Deny")).await;
    assert_eq!(again.code(), "ResourceNotFoundException", "used up");

    let key = munjigi_core::id::AccessKeyId::parse(&alice.access_key_id).unwrap();
    server.store.set_access_key_active("alice", &key, false).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert!(server.identities.present(&caller).is_none(), "the key that approved it is off");
    test.stop().await;
}

#[tokio::test]
async fn a_login_that_is_denied_or_left_alone_is_nobodys() {
    let test = TestServer::start().await;
    let server = test.server();
    let begun = begin(server, &wish(7)).await.unwrap();
    let deny = json!({ "Code": begun.code, "Decision": "Deny" });
    let (outcome, _) =
        tokio::join!(wait(server, begun), test.call(Some(&test.admin), Munjigi, "ApproveSshLogin", &deny));
    assert!(matches!(outcome, Err(SshRefusal::ApprovalDenied(by)) if by.ends_with(":user/admin")));

    let begun = begin(server, &wish(7)).await.unwrap();
    // As when its time is over and the next login begins.
    server.ssh_approvals.forget(&begun.code);
    let outcome = wait(server, begun).await;
    assert_eq!(outcome.unwrap_err(), SshRefusal::NotApproved);
    let trail = test.trail("\"eventName\":\"AuthenticateSsh\"");
    assert!(trail[0].contains("ApprovalDenied") && trail[1].contains("NotApproved"), "{trail:?}");
    test.stop().await;
}

#[tokio::test]
async fn a_second_factor_at_the_approval_counts_for_the_login() {
    let test = TestServer::start().await;
    let server = test.server();
    let made =
        test.call(Some(&test.admin), Iam, "CreateVirtualMFADevice", &json!({ "VirtualMFADeviceName": "phone" })).await;
    let part = |open: &str, close: &str| made.text.split(open).nth(1).unwrap().split(close).next().unwrap().to_owned();
    let serial = part("<SerialNumber>", "</SerialNumber>");
    let seed = {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.decode(part("<Base32StringSeed>", "</Base32StringSeed>"));
        base32(&String::from_utf8(text.unwrap()).unwrap())
    };
    let step = u64::try_from(clock::now().as_secs()).unwrap() / totp::STEP_SECONDS;
    let enable = json!({ "UserName": "admin", "SerialNumber": serial,
        "AuthenticationCode1": totp::code(&seed, step - 1), "AuthenticationCode2": totp::code(&seed, step) });
    let enabled = test.call(Some(&test.admin), Iam, "EnableMFADevice", &enable).await;
    assert_eq!(enabled.status, StatusCode::OK, "{}", enabled.text);

    let approve = async |code: &str, token: &str| {
        let input = json!({ "Code": code, "Decision": "Approve", "TokenCode": token });
        test.call(Some(&test.admin), Munjigi, "ApproveSshLogin", &input).await
    };
    let begun = begin(server, &wish(7)).await.unwrap();
    let code = begun.code.clone();
    let wrong = approve(&code, "000000").await;
    assert_eq!(wrong.code(), "AccessDeniedException", "{}", wrong.text);
    let right = totp::code(&seed, step + 1);
    let (caller, answer) = tokio::join!(wait(server, begun), approve(&code, &right));
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let caller = caller.unwrap();
    assert!(caller.principal().statement().unwrap().mfa.is_some());
    assert!(matches!(caller.ssh().unwrap().kind, crate::identity::ssh::SshProofKind::Approved { mfa: true, .. }));
    assert!(server.identities.present(&caller).is_some());
    test.stop().await;
}

fn base32(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for character in text.bytes().filter(|byte| *byte != b'=') {
        let value = if character.is_ascii_digit() { character - b'2' + 26 } else { character - b'A' };
        bits = bits << 5 | u32::from(value);
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap());
        }
    }
    out
}
