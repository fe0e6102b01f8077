//! Targets over the API: who may put and see which, and that a credential goes in and never comes out.

use serde_json::{Value, json};

use crate::api::operation::Service;
use crate::testing::{Answer, TestServer};
use munjigi_core::sigv4::Credentials;

fn target(name: &str, more: &Value) -> Value {
    let mut input = json!({
        "Name": name, "Address": "db.internal:5432", "Kind": "postgres", "Through": ["Role=bastion"],
    });
    let more = more.as_object().unwrap().clone();
    input.as_object_mut().unwrap().extend(more);
    input
}

async fn call(test: &TestServer, who: &Credentials, operation: &str, input: &Value) -> Answer {
    test.call(Some(who), Service::Munjigi, operation, input).await
}

async fn put(test: &TestServer, input: &Value) -> Value {
    let answer = call(test, &test.admin, "PutTarget", input).await;
    assert_eq!(answer.code(), "", "{}", answer.text);
    serde_json::from_str::<Value>(&answer.text).unwrap()["Target"].clone()
}

/// Gives a user a policy of its own.
async fn allow(test: &TestServer, user: &str, statements: &Value) {
    let document = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let input = json!({ "UserName": user, "PolicyName": "own", "PolicyDocument": document });
    let answer = test.call(Some(&test.admin), Service::Iam, "PutUserPolicy", &input).await;
    assert_eq!(answer.code(), "", "{}", answer.text);
}

#[tokio::test]
async fn a_target_is_put_described_and_deleted() {
    let test = TestServer::start().await;
    let more = json!({ "Tags": [{ "Key": "Env", "Value": "prod" }], "Database": "orders", "LocalPort": 15432 });
    let made = put(&test, &target("orders", &more)).await;
    let account = &test.server().deployment.account;
    let region = &test.server().deployment.region;
    assert_eq!(made["Arn"], format!("arn:aws:munjigi:{region}:{account}:target/orders"));
    assert_eq!(
        (&made["Inspect"], &made["HasPassword"], &made["NodesOnline"]),
        (&json!(false), &json!(false), &json!(0))
    );
    assert_eq!(put(&test, &target("orders", &more)).await["CreatedAt"], made["CreatedAt"]);
    put(&test, &target("cache", &json!({ "Kind": "redis", "Address": "localhost:6379" }))).await;

    let answer = call(&test, &test.admin, "DescribeTargets", &json!({ "MaxResults": 1 })).await;
    let first: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(first["Targets"][0]["Address"], "localhost:6379", "{first}");
    let next = json!({ "MaxResults": 1, "NextToken": first["NextToken"] });
    let second: Value = serde_json::from_str(&call(&test, &test.admin, "DescribeTargets", &next).await.text).unwrap();
    assert_eq!((&second["Targets"][0]["Name"], &second["NextToken"]), (&json!("orders"), &Value::Null));

    assert_eq!(call(&test, &test.admin, "DeleteTarget", &json!({ "Name": "cache" })).await.code(), "");
    for (operation, input) in
        [("DeleteTarget", json!({ "Name": "Cache" })), ("DescribeTargets", json!({ "Names": ["orders", "cache"] }))]
    {
        assert_eq!(call(&test, &test.admin, operation, &input).await.code(), "DoesNotExistException");
    }
    test.stop().await;
}

#[tokio::test]
async fn a_password_goes_in_and_never_comes_out() {
    let test = TestServer::start().await;
    let input =
        target("orders", &json!({ "Inspect": true, "Credential": { "UserName": "app", "Password": "hunter2" } }));
    let answer = call(&test, &test.admin, "PutTarget", &input).await;
    assert!(answer.text.contains("\"HasPassword\":true") && !answer.text.contains("hunter2"), "{}", answer.text);
    let record = test.trail(answer.request_id()).concat();
    assert!(record.contains("\"userName\":\"app\"") && record.contains("HIDDEN"), "{record}");
    assert!(!record.contains("hunter2"), "{record}");

    // Not in the wrong place either.
    for credential in
        [json!("hunter2"), json!({ "UserName": "app", "Pasword": "hunter2" }), json!({ "Password": ["hunter2"] })]
    {
        let answer =
            call(&test, &test.admin, "PutTarget", &target("orders", &json!({ "Credential": credential }))).await;
        assert_eq!(answer.code(), "ValidationException", "{}", answer.text);
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        assert!(!test.trail(answer.request_id()).concat().contains("hunter2"));
    }
    let described = call(&test, &test.admin, "DescribeTargets", &json!({})).await;
    assert!(described.text.contains("orders") && !described.text.contains("hunter2"), "{}", described.text);

    // It stays where it was given for.
    let moved = target("orders", &json!({ "Inspect": true, "Address": "thief:5432" }));
    let answer = call(&test, &test.admin, "PutTarget", &moved).await;
    assert!(answer.text.contains("give the credential again"), "{}", answer.text);
    let removed = target("orders", &json!({ "Address": "thief:5432", "RemoveCredential": true }));
    assert_eq!(put(&test, &removed).await["HasPassword"], false);
    test.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_reason() {
    let test = TestServer::start().await;
    for (more, part) in [
        (json!({ "Name": "a/b" }), "a target's name"),
        (json!({ "Kind": "oracle" }), "a target's kind"),
        (json!({ "Address": "db" }), "a target's address"),
        (json!({ "Through": [] }), "1 to 16"),
        (json!({ "Through": ["a,b"] }), "nodes are named"),
        (json!({ "Inspect": true }), "needs a credential"),
        (json!({ "Credential": { "UserName": "" } }), "UserName must have"),
        (json!({ "Credential": { "UserName": "a", "Password": "" } }), "Password must have"),
        (json!({ "RemoveCredential": true, "Credential": { "UserName": "a" } }), "not both"),
        (json!({ "Tls": { "Mode": "verify-ca" } }), "verify-full"),
        (json!({ "Tls": { "Mode": "require", "CaPem": "nonsense" } }), "certificates in PEM"),
        (json!({ "Tls": { "Mode": "require", "More": 1 } }), "More"),
        (json!({ "More": 1 }), "More"),
    ] {
        let answer = call(&test, &test.admin, "PutTarget", &target("orders", &more)).await;
        assert_eq!(answer.code(), "ValidationException", "{more}: {}", answer.text);
        assert!(answer.text.contains(part), "{more}: {}", answer.text);
    }
    test.stop().await;
}

#[tokio::test]
async fn tags_destination_and_kind_stand_in_policies() {
    let test = TestServer::start().await;
    let dev = test.user("dev").await;
    let tagged = |value: &str| json!({ "Tags": [{ "Key": "Env", "Value": value }] });
    put(&test, &target("dev-db", &tagged("dev"))).await;
    put(&test, &target("prod-db", &tagged("prod"))).await;
    let on_dev = json!({ "StringEquals": { "aws:ResourceTag/Env": "dev" } });
    let new_dev = json!({
        "StringEqualsIfExists": { "aws:ResourceTag/Env": "dev", "aws:RequestTag/Env": "dev" },
        "StringLike": { "munjigi:DestinationHost": "*.internal", "munjigi:TargetKind": "postgres" },
    });
    allow(&test, "dev", &json!([
        { "Effect": "Allow", "Action": ["munjigi:DescribeTargets", "munjigi:DeleteTarget"], "Resource": "*", "Condition": on_dev },
        { "Effect": "Allow", "Action": "munjigi:PutTarget", "Resource": "arn:aws:munjigi:*:*:target/*-db", "Condition": new_dev },
    ]))
    .await;
    let allowed = async |operation: &str, input: Value| {
        let answer = call(&test, &dev, operation, &input).await;
        match answer.code() {
            "" => true,
            "AccessDeniedException" => false,
            _ => panic!("{}", answer.text),
        }
    };
    assert!(allowed("DescribeTargets", json!({ "Names": ["DEV-DB"] })).await);
    assert!(!allowed("DescribeTargets", json!({ "Names": ["dev-db", "prod-db"] })).await);
    assert!(!allowed("DescribeTargets", json!({})).await);
    assert!(!allowed("DescribeTargets", json!({ "Names": ["no-db"] })).await, "what is not there is as forbidden");
    assert!(allowed("PutTarget", target("dev-db", &tagged("dev"))).await);
    assert!(allowed("PutTarget", target("new-db", &tagged("dev"))).await);
    for refused in [
        target("dev-db", &tagged("prod")),
        target("prod-db", &tagged("dev")),
        target("other", &tagged("dev")),
        target("dev-db", &json!({ "Address": "db.example.com:5432" })),
        target("dev-db", &json!({ "Kind": "redis" })),
    ] {
        assert!(!allowed("PutTarget", refused.clone()).await, "{refused}");
    }
    assert!(!allowed("DeleteTarget", json!({ "Name": "prod-db" })).await);
    assert!(allowed("DeleteTarget", json!({ "Name": "dev-db" })).await);
    test.stop().await;
}
