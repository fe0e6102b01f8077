//! Temporary credentials through the whole server: who gets them, and what they may do.

use std::time::Duration;

use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{Credentials, SecretKey};
use munjigi_core::totp;
use serde_json::{Value, json};

use crate::api::operation::Service::{self, Iam, Ssm, Sts};
use crate::clock;
use crate::testing::{Answer, TestServer};

/// A server with a role that may look at sessions and make others.
struct Scene(TestServer);

fn document(statement: &Value) -> String {
    json!({ "Version": "2012-10-17", "Statement": statement }).to_string()
}

impl Scene {
    async fn begin() -> Self {
        Self(TestServer::start().await)
    }

    async fn admin(&self, service: Service, operation: &str, input: Value) -> Answer {
        let answer = self.0.call(Some(&self.0.admin), service, operation, &input).await;
        assert!(answer.status.is_success(), "{operation}: {}", answer.text);
        answer
    }

    fn account(&self) -> String {
        self.0.server().deployment.account.to_string()
    }

    fn role_arn(&self, name: &str) -> String {
        format!("arn:aws:iam::{}:role/{name}", self.account())
    }

    async fn role(&self, name: &str, trust: Value, permissions: Value) {
        let input = json!({ "RoleName": name, "AssumeRolePolicyDocument": document(&trust) });
        self.admin(Iam, "CreateRole", input).await;
        let put = json!({ "RoleName": name, "PolicyName": "own", "PolicyDocument": document(&permissions) });
        self.admin(Iam, "PutRolePolicy", put).await;
    }

    /// Everybody of the account whose own policies let it may assume the role.
    fn trust_account(&self, actions: Value) -> Value {
        json!({ "Effect": "Allow", "Principal": { "AWS": self.account() }, "Action": actions })
    }

    async fn assume(&self, who: &Credentials, role: &str, more: Value) -> Result<Credentials, String> {
        let mut input = json!({ "RoleArn": self.role_arn(role), "RoleSessionName": "work" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.0.call(Some(who), Sts, "AssumeRole", &input).await;
        if answer.status.is_success() { Ok(credentials(&answer.text)) } else { Err(answer.code().to_owned()) }
    }

    async fn may_look(&self, who: &Credentials) -> bool {
        let answer = self.0.call(Some(who), Ssm, "DescribeSessions", &json!({ "State": "Active" })).await;
        answer.status.is_success()
    }
}

fn member<'t>(text: &'t str, name: &str) -> &'t str {
    text.split(&format!("<{name}>")).nth(1).and_then(|rest| rest.split("</").next()).unwrap_or_default()
}

pub(super) fn credentials(answer: &str) -> Credentials {
    Credentials {
        access_key_id: member(answer, "AccessKeyId").to_owned(),
        secret: SecretKey::new(member(answer, "SecretAccessKey").to_owned()),
        session_token: Some(Secret::new(member(answer, "SessionToken").to_owned())),
    }
}

fn look() -> Value {
    json!({ "Effect": "Allow", "Action": ["ssm:DescribeSessions", "sts:*"], "Resource": "*" })
}

#[tokio::test]
async fn a_role_is_assumed_by_whom_its_trust_policy_lets_in_and_its_session_may_what_the_role_may() {
    let scene = Scene::begin().await;
    let (alice, bob) = (scene.0.user("alice").await, scene.0.user("bob").await);
    let trust = json!({ "Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": { "AWS": format!("arn:aws:iam::{}:user/alice", scene.account()) } });
    scene.role("ops", trust, look()).await;

    assert_eq!(scene.assume(&bob, "ops", json!({})).await.unwrap_err(), "AccessDenied");
    assert_eq!(scene.assume(&alice, "nothing", json!({})).await.unwrap_err(), "AccessDenied");
    let session = scene.assume(&alice, "ops", json!({})).await.unwrap();
    assert!(!scene.may_look(&alice).await && scene.may_look(&session).await);

    let answer = scene.0.call(Some(&session), Sts, "GetCallerIdentity", &json!({})).await;
    let arn = format!("arn:aws:sts::{}:assumed-role/ops/work", scene.account());
    assert_eq!(member(&answer.text, "Arn"), arn);
    assert!(member(&answer.text, "UserId").starts_with("AROA") && answer.text.contains(":work</UserId>"));
    let record = scene.0.trail(answer.request_id()).pop().unwrap();
    for part in ["\"type\":\"AssumedRole\"", "\"sessionIssuer\":{\"type\":\"Role\"", "\"userName\":\"ops\"", &arn] {
        assert!(record.contains(part), "{part}: {record}");
    }
    let denied = scene.0.call(Some(&session), Iam, "ListUsers", &json!({})).await;
    assert!(denied.text.contains("assumed-role/ops/work is not authorized to perform: iam:ListUsers"));

    // A session that is called like a user is not that user.
    let named = scene.assume(&alice, "ops", json!({ "RoleSessionName": "alice" })).await.unwrap();
    let own = scene.0.call(Some(&named), Iam, "GetUser", &json!({})).await;
    assert_eq!(own.code(), "ValidationError", "{}", own.text);

    let assumed = scene
        .0
        .call(Some(&alice), Sts, "AssumeRole", &json!({ "RoleArn": scene.role_arn("ops"), "RoleSessionName": "work" }))
        .await;
    let record = scene.0.trail(assumed.request_id()).pop().unwrap();
    let issued = credentials(&assumed.text);
    assert!(record.contains(&issued.access_key_id), "which key was issued is in the trail: {record}");
    assert!(!record.contains(issued.secret.expose()) && !record.contains(issued.session_token.unwrap().expose()));

    // A user made anew under the old name is somebody else.
    scene.admin(Iam, "DeleteAccessKey", json!({ "UserName": "alice", "AccessKeyId": alice.access_key_id })).await;
    assert!(!scene.may_look(&session).await, "the session goes with the key that it goes back to");
    scene.admin(Iam, "DeleteUser", json!({ "UserName": "alice" })).await;
    let again = scene.0.user("alice").await;
    assert_eq!(scene.assume(&again, "ops", json!({})).await.unwrap_err(), "AccessDenied");
    let shown = scene.admin(Iam, "GetRole", json!({ "RoleName": "ops" })).await;
    assert!(shown.text.contains("AIDA") && !shown.text.contains("user%2Falice"), "{}", shown.text);
    scene.0.stop().await;
}

#[tokio::test]
async fn session_policies_limit_and_never_add() {
    let scene = Scene::begin().await;
    let trust = scene.trust_account(json!("sts:AssumeRole"));
    scene.role("ops", trust, look()).await;
    let admin = scene.0.admin.clone();
    let policy = |statement: Value| json!({ "Policy": document(&statement) });
    let all = json!({ "Effect": "Allow", "Action": "*", "Resource": "*" });
    let none = json!({ "Effect": "Allow", "Action": "ssm:GetDocument", "Resource": "*" });
    let wide = scene.assume(&admin, "ops", policy(all)).await.unwrap();
    assert!(scene.may_look(&wide).await);
    let users = scene.0.call(Some(&wide), Iam, "ListUsers", &json!({})).await;
    assert_eq!(users.code(), "AccessDenied", "what the role may not, no session policy gives");
    let narrow = scene.assume(&admin, "ops", policy(none.clone())).await.unwrap();
    assert!(!scene.may_look(&narrow).await);
    let arns = |arn: &str| json!({ "PolicyArns": [{ "arn": arn }] });
    let by_arn = scene.assume(&admin, "ops", arns("arn:aws:iam::aws:policy/ReadOnlyAccess")).await.unwrap();
    assert!(scene.may_look(&by_arn).await);

    for (what, input, code) in [
        ("no JSON", json!({ "Policy": "{" }), "MalformedPolicyDocument"),
        (
            "a principal in it",
            policy(json!({ "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*" })),
            "MalformedPolicyDocument",
        ),
        ("too long", json!({ "Policy": format!("{}{}", document(&none), " ".repeat(2048)) }), "PackedPolicyTooLarge"),
        ("no such policy", arns("arn:aws:iam::aws:policy/Nothing"), "MalformedPolicyDocument"),
    ] {
        assert_eq!(scene.assume(&admin, "ops", input).await.unwrap_err(), code, "{what}");
    }
    scene.0.stop().await;
}

#[tokio::test]
async fn conditions_of_the_trust_policy_are_asked_of_the_call() {
    let scene = Scene::begin().await;
    let admin = scene.0.admin.clone();
    let mut trust = scene.trust_account(json!(["sts:AssumeRole", "sts:SetSourceIdentity"]));
    trust["Condition"] = json!({ "StringEquals": { "sts:ExternalId": "between us" },
        "StringLike": { "sts:RoleSessionName": "w*", "sts:SourceIdentity": "a*" } });
    trust["Condition"]["StringEquals"]["sts:ExternalId"] = json!("between-us");
    scene.role("ops", trust, look()).await;
    let good = json!({ "ExternalId": "between-us", "SourceIdentity": "anna" });
    let session = scene.assume(&admin, "ops", good.clone()).await.unwrap();
    assert!(scene.may_look(&session).await);
    for (key, value) in [("ExternalId", "other"), ("SourceIdentity", "bert"), ("RoleSessionName", "xyz")] {
        let mut input = good.clone();
        input[key] = json!(value);
        assert_eq!(scene.assume(&admin, "ops", input).await.unwrap_err(), "AccessDenied", "{key}");
    }
    // Tags need a permission of their own, which this role gives nobody.
    let mut tagged = good;
    tagged["Tags"] = json!([{ "Key": "team", "Value": "blue" }]);
    assert_eq!(scene.assume(&admin, "ops", tagged).await.unwrap_err(), "AccessDenied");
    for (what, input, code) in [
        ("a short name", json!({ "RoleSessionName": "x" }), "ValidationError"),
        ("a name with a slash", json!({ "RoleSessionName": "a/b" }), "ValidationError"),
        ("too short a life", json!({ "DurationSeconds": 899 }), "ValidationError"),
        ("a code without a device", json!({ "TokenCode": "123456" }), "ValidationError"),
        ("an unknown member", json!({ "Colour": "red" }), "ValidationError"),
    ] {
        assert_eq!(scene.assume(&admin, "ops", input).await.unwrap_err(), code, "{what}");
    }
    scene.0.stop().await;
}

#[tokio::test]
async fn a_chain_inherits_tags_and_source_identity_and_lasts_an_hour() {
    let scene = Scene::begin().await;
    let admin = scene.0.admin.clone();
    let all = json!(["sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"]);
    scene.role("first", scene.trust_account(all.clone()), look()).await;
    let mut blue = look();
    blue["Condition"] = json!({ "StringEquals": { "aws:PrincipalTag/team": "blue", "aws:SourceIdentity": "anna" } });
    scene.role("second", scene.trust_account(all), blue).await;
    let long = json!({ "RoleName": "second", "MaxSessionDuration": 43_200 });
    scene.admin(Iam, "UpdateRole", long).await;

    let tags = json!([{ "Key": "team", "Value": "blue" }, { "Key": "mood", "Value": "good" }]);
    let input = json!({ "Tags": tags, "TransitiveTagKeys": ["team"], "SourceIdentity": "anna" });
    let first = scene.assume(&admin, "first", input).await.unwrap();
    let second = scene.assume(&first, "second", json!({})).await.unwrap();
    assert!(scene.may_look(&second).await, "team and source identity were inherited");
    let direct = scene.assume(&admin, "second", json!({})).await.unwrap();
    assert!(!scene.may_look(&direct).await);

    let other = json!({ "Tags": [{ "Key": "TEAM", "Value": "red" }] });
    assert_eq!(scene.assume(&first, "second", other).await.unwrap_err(), "ValidationError");
    let other = json!({ "SourceIdentity": "bert" });
    assert_eq!(scene.assume(&first, "second", other).await.unwrap_err(), "ValidationError");
    assert_eq!(
        scene.assume(&first, "second", json!({ "DurationSeconds": 3601 })).await.unwrap_err(),
        "ValidationError"
    );
    assert!(scene.assume(&admin, "second", json!({ "DurationSeconds": 43_200 })).await.is_ok());
    assert_eq!(scene.assume(&admin, "first", json!({ "DurationSeconds": 3601 })).await.unwrap_err(), "ValidationError");
    assert_eq!(
        scene.assume(&admin, "first", json!({ "TransitiveTagKeys": ["team"] })).await.unwrap_err(),
        "ValidationError"
    );
    let answer = scene.0.call(Some(&second), Sts, "GetSessionToken", &json!({})).await;
    assert_eq!(answer.code(), "AccessDenied");
    scene.0.stop().await;
}

#[tokio::test]
async fn what_ends_a_role_ends_its_sessions_and_older_ones_can_be_ended_by_policy() {
    let scene = Scene::begin().await;
    let admin = scene.0.admin.clone();
    scene.role("ops", scene.trust_account(json!("sts:AssumeRole")), look()).await;
    let session = scene.assume(&admin, "ops", json!({})).await.unwrap();
    // As the console of AWS revokes sessions: a Deny on those older than now.
    let later = clock::now().plus(Duration::from_secs(60)).to_iso_seconds();
    let older = json!({ "Effect": "Deny", "Action": "*", "Resource": "*",
        "Condition": { "DateLessThan": { "aws:TokenIssueTime": later } } });
    let put = json!({ "RoleName": "ops", "PolicyName": "AWSRevokeOlderSessions", "PolicyDocument": document(&older) });
    scene.admin(Iam, "PutRolePolicy", put).await;
    assert!(!scene.may_look(&session).await);
    scene.admin(Iam, "DeleteRolePolicy", json!({ "RoleName": "ops", "PolicyName": "AWSRevokeOlderSessions" })).await;
    assert!(scene.may_look(&session).await);

    let conflict = scene.0.call(Some(&admin), Iam, "DeleteRole", &json!({ "RoleName": "OPS" })).await;
    assert_eq!(conflict.code(), "DeleteConflict");
    scene.admin(Iam, "DeleteRolePolicy", json!({ "RoleName": "ops", "PolicyName": "own" })).await;
    scene.admin(Iam, "DeleteRole", json!({ "RoleName": "ops" })).await;
    let answer = scene.0.call(Some(&session), Sts, "GetCallerIdentity", &json!({})).await;
    assert_eq!(answer.code(), "InvalidClientTokenId");
    scene.role("ops", scene.trust_account(json!("sts:AssumeRole")), look()).await;
    assert!(!scene.may_look(&session).await, "a role made anew under the old name is another");
    scene.0.stop().await;
}

/// Undoes the two encodings of a seed in an answer.
fn seed(answer: &str) -> Vec<u8> {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.decode(member(answer, "Base32StringSeed")).unwrap();
    let digit = |c: u8| if c.is_ascii_uppercase() { c - b'A' } else { c - b'2' + 26 };
    let bits: String = text.iter().map(|c| format!("{:05b}", digit(*c))).collect();
    bits.as_bytes()
        .chunks_exact(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect()
}

#[tokio::test]
async fn a_second_factor_opens_what_asks_for_it_and_a_code_works_once() {
    let scene = Scene::begin().await;
    let (alice, bob) = (scene.0.user("alice").await, scene.0.user("bob").await);
    let mut trust = scene.trust_account(json!("sts:AssumeRole"));
    trust["Principal"]["AWS"] =
        json!(["alice", "bob"].map(|name| format!("arn:aws:iam::{}:user/{name}", scene.account())));
    trust["Condition"] = json!({ "Bool": { "aws:MultiFactorAuthPresent": "true" } });
    scene.role("careful", trust, look()).await;

    let made = scene.admin(Iam, "CreateVirtualMFADevice", json!({ "VirtualMFADeviceName": "alice-phone" })).await;
    assert!(!scene.0.trail(made.request_id()).pop().unwrap().contains(member(&made.text, "Base32StringSeed")));
    let (serial, seed) = (member(&made.text, "SerialNumber").to_owned(), seed(&made.text));
    assert_eq!(seed.len(), 20);
    let current = || u64::try_from(clock::now().as_secs()).unwrap() / totp::STEP_SECONDS;
    let code = |step: u64| totp::code(&seed, step);
    let enable = |first: String, second: String| {
        json!({ "UserName": "alice", "SerialNumber": serial,
        "AuthenticationCode1": first, "AuthenticationCode2": second })
    };
    let admin = &scene.0.admin;
    let wrong = scene.0.call(Some(admin), Iam, "EnableMFADevice", &enable(code(current()), code(current()))).await;
    assert_eq!((wrong.status.as_u16(), wrong.code()), (403, "InvalidAuthenticationCode"));
    // The pair before last leaves the present codes for later.
    let used = current() - 1;
    scene.admin(Iam, "EnableMFADevice", enable(code(used - 1), code(used))).await;
    let again = scene.0.call(Some(admin), Iam, "EnableMFADevice", &enable(code(current() - 1), code(current()))).await;
    assert_eq!(again.code(), "EntityAlreadyExists");
    let listed = scene.admin(Iam, "ListMFADevices", json!({ "UserName": "alice" })).await;
    assert!(listed.text.contains(&serial), "{}", listed.text);
    let conflict = scene.0.call(Some(admin), Iam, "DeleteUser", &json!({ "UserName": "alice" })).await;
    assert_eq!(conflict.code(), "DeleteConflict");

    let with = |code: &str| json!({ "SerialNumber": serial, "TokenCode": code });
    assert_eq!(scene.assume(&alice, "careful", json!({})).await.unwrap_err(), "AccessDenied");
    assert_eq!(scene.assume(&alice, "careful", with("000000")).await.unwrap_err(), "AccessDenied");
    assert_eq!(
        scene.assume(&bob, "careful", with(&code(current()))).await.unwrap_err(),
        "AccessDenied",
        "another's device"
    );
    assert_eq!(scene.assume(&alice, "careful", with(&code(used))).await.unwrap_err(), "AccessDenied", "used before");
    let now = code(current());
    let session = scene.assume(&alice, "careful", with(&now)).await.unwrap();
    assert!(scene.may_look(&session).await);
    // Not the same request again, which would get the same answer.
    let mut again = with(&now);
    again["RoleSessionName"] = json!("again");
    assert_eq!(scene.assume(&alice, "careful", again).await.unwrap_err(), "AccessDenied", "used");

    // A session of the user, begun with the next code, carries the proof along.
    let next = code(current() + 1);
    let answer = scene.0.call(Some(&alice), Sts, "GetSessionToken", &with(&next)).await;
    assert!(answer.status.is_success(), "{}", answer.text);
    let proved = credentials(&answer.text);
    assert!(scene.assume(&proved, "careful", json!({})).await.is_ok());
    let plain = credentials(&scene.0.call(Some(&alice), Sts, "GetSessionToken", &json!({})).await.text);
    assert_eq!(scene.assume(&plain, "careful", json!({})).await.unwrap_err(), "AccessDenied");

    scene.admin(Iam, "DeactivateMFADevice", json!({ "UserName": "alice", "SerialNumber": serial })).await;
    scene.admin(Iam, "DeleteVirtualMFADevice", json!({ "SerialNumber": serial })).await;
    scene.0.stop().await;
}
