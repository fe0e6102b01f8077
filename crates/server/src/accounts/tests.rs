//! Rounds over the API and a real store: who gets, keeps and loses an account, and what failed answers do.

use std::time::Duration;

use munjigi_core::id::NodeId;
use serde_json::{Value, json};

use super::round;
use crate::api::operation::Service;
use crate::clock;
use crate::store::{ActivationRequest, AgentKind, NewNode, NodeFacts};
use crate::testing::{Answer, TestServer};

async fn call(test: &TestServer, service: Service, operation: &str, input: &Value) -> Answer {
    let answer = test.call(Some(&test.admin), service, operation, input).await;
    assert_eq!(answer.code(), "", "{operation}: {}", answer.text);
    answer
}

async fn node(test: &TestServer, name: &str, key: u8) -> NodeId {
    let (store, now) = (&test.server().store, clock::now());
    let request = ActivationRequest {
        description: None,
        default_instance_name: None,
        iam_role: "nodes".to_owned(),
        registration_limit: 1,
        expires: now.plus(Duration::from_secs(3600)),
        created_by: "test".to_owned(),
        tags: Vec::new(),
    };
    let activation = store.create_activation(&request, now).await.unwrap();
    let new = NewNode {
        agent: AgentKind::Munjigi,
        public_key: vec![key; 32],
        fingerprint: None,
        name: None,
        facts: NodeFacts { hostname: name.to_owned(), ..NodeFacts::default() },
        ip_address: None,
        tags: Vec::new(),
    };
    store.register_node(&activation.id, &activation.code, &new, now).await.unwrap().id
}

async fn people(test: &TestServer, group: &str, names: &[&str]) {
    call(test, Service::Iam, "CreateGroup", &json!({ "GroupName": group })).await;
    for name in names {
        call(test, Service::Iam, "CreateUser", &json!({ "UserName": name })).await;
        call(test, Service::Iam, "AddUserToGroup", &json!({ "GroupName": group, "UserName": name })).await;
    }
}

async fn rule(test: &TestServer, name: &str, rule: &Value) {
    call(test, Service::Munjigi, "PutAccountRule", &json!({ "Name": name, "Rule": rule })).await;
}

async fn accounts(test: &TestServer) -> Vec<(String, String)> {
    let answer = call(test, Service::Munjigi, "DescribeAccounts", &json!({})).await;
    let answer: Value = serde_json::from_str(&answer.text).unwrap();
    let accounts = answer["Nodes"][0]["Accounts"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    accounts.iter().map(|account| (word(&account["OsUser"]), word(&account["State"]))).collect()
}

async fn states(test: &TestServer, state: &str) -> Vec<String> {
    accounts(test).await.into_iter().filter(|(_, it)| it == state).map(|(name, _)| name).collect()
}

/// Looks until what a look gives is what is expected: the server looks by itself, too.
async fn settled(test: &TestServer, state: &str, expected: &[&str]) {
    for _ in 0..200 {
        round(test.server()).await.unwrap();
        if states(test, state).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{state}: {:?}, not {expected:?}", accounts(test).await);
}

#[tokio::test]
async fn rules_give_accounts_and_who_is_removed_by_hand_leaves_at_once() {
    let test = TestServer::start().await;
    node(&test, "web-1", 1).await;
    people(&test, "dev", &["kim", "Lee@example.com", "kim@b", "Kim+ops"]).await;
    rule(&test, "dev", &json!({ "Who": ["group:dev"], "Nodes": ["*"], "Mode": "synchronised", "Sudo": ["ALL"] })).await;
    settled(&test, "active", &["kim", "kim.at.b", "kim.plus.ops", "lee.at.example.com"]).await;
    call(&test, Service::Iam, "RemoveUserFromGroup", &json!({ "GroupName": "dev", "UserName": "kim" })).await;
    settled(&test, "locked", &["kim"]).await;
    // In other words than the first time: two equal calls of one second are one (T-49).
    call(&test, Service::Iam, "AddUserToGroup", &json!({ "GroupName": "Dev", "UserName": "kim" })).await;
    settled(&test, "active", &["kim", "kim.at.b", "kim.plus.ops", "lee.at.example.com"]).await;
    // Renamed: the account stays what it is.
    call(&test, Service::Iam, "UpdateUser", &json!({ "UserName": "kim", "NewUserName": "park" })).await;
    settled(&test, "active", &["kim", "kim.at.b", "kim.plus.ops", "lee.at.example.com"]).await;
    // The name is still the renamed one's: a new kim gets none, and the others theirs.
    people(&test, "more", &[]).await;
    // In other words than the first kim's, as above.
    call(&test, Service::Iam, "CreateUser", &json!({ "UserName": "kim", "Path": "/more/" })).await;
    call(&test, Service::Iam, "AddUserToGroup", &json!({ "GroupName": "more", "UserName": "kim" })).await;
    rule(&test, "more", &json!({ "Who": ["group:more"], "Nodes": ["*"], "Mode": "synchronised" })).await;
    settled(&test, "active", &["kim", "kim.at.b", "kim.plus.ops", "lee.at.example.com"]).await;
    let refused = call(&test, Service::Munjigi, "ReadAudit", &json!({})).await;
    assert!(refused.text.contains("AccountNameRefused"), "{}", refused.text);
    test.stop().await;
}

#[tokio::test]
async fn an_answer_that_fails_removes_nobody_and_one_that_is_too_empty_waits_for_a_person() {
    let test = TestServer::start().await;
    let node = node(&test, "web-1", 1).await;
    let names = ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8"];
    people(&test, "dev", &names).await;
    let dev = json!({ "Who": ["group:dev"], "Nodes": ["*"], "Mode": "synchronised" });
    rule(&test, "dev", &dev).await;
    settled(&test, "active", &names).await;
    // A rule that cannot be read: the whole answer is none.
    let store = &test.server().store;
    store.damage_account_rules().await;
    for _ in 0..3 {
        assert!(round(test.server()).await.is_err());
    }
    assert_eq!(states(&test, "active").await, names);
    let repaired = json!({ "Who": ["group:dev"], "Nodes": ["*"], "Mode": "synchronised", "GraceDays": 9 });
    rule(&test, "dev", &repaired).await;
    // The rule goes: everybody would leave.
    call(&test, Service::Munjigi, "DeleteAccountRule", &json!({ "Name": "dev" })).await;
    settled(&test, "held", &names).await;
    for _ in 0..3 {
        round(test.server()).await.unwrap();
    }
    assert_eq!(states(&test, "held").await, names);
    let one = json!({ "Target": node.as_str(), "OsUsers": ["a1"] });
    call(&test, Service::Munjigi, "ConfirmAccountRemoval", &one).await;
    settled(&test, "locked", &["a1"]).await;
    // Not the same words again: two equal calls of one second are one (T-49).
    let again = json!({ "Who": ["group:dev"], "Nodes": ["*"], "Mode": "synchronised", "GraceDays": 8 });
    rule(&test, "dev", &again).await;
    settled(&test, "active", &names).await;
    test.stop().await;
}

#[tokio::test]
async fn a_certificate_is_for_the_accounts_that_rules_give_unless_something_else_is_said() {
    let test = TestServer::with_settings("[session]\ndefault_os_user = \"deploy\"\n").await;
    node(&test, "web-1", 1).await;
    node(&test, "db-1", 2).await;
    people(&test, "dev", &["Kim"]).await;
    let kim = test.user("Lee").await;
    call(&test, Service::Iam, "AddUserToGroup", &json!({ "GroupName": "dev", "UserName": "Lee" })).await;
    // No two in the same words: two equal calls of one second are one (T-49).
    let may = |sid: &str, except: &str| {
        let allow = json!({ "Sid": sid, "Effect": "Allow", "Action": "munjigi:IssueSshCertificate", "Resource": "*",
            "Condition": { "StringNotEquals": { "munjigi:OsUser": except } } });
        let policy = json!({ "Version": "2012-10-17", "Statement": allow }).to_string();
        json!({ "GroupName": "dev", "PolicyName": "p", "PolicyDocument": policy })
    };
    call(&test, Service::Iam, "PutGroupPolicy", &may("First", "nobody")).await;
    let names = async |number: u8| {
        use base64::Engine as _;
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
        blob.extend([number; 32]);
        let key = format!("ssh-ed25519 {}", base64::engine::general_purpose::STANDARD.encode(blob));
        let wish = json!({ "PublicKey": key });
        let answer = test.call(Some(&kim), Service::Munjigi, "IssueSshCertificate", &wish).await;
        let text: Value = serde_json::from_str(&answer.text).unwrap();
        text.get("OsUsers").cloned().unwrap_or_else(|| json!(answer.code()))
    };
    assert_eq!(names(1).await, json!(["deploy"]), "no rule");
    rule(&test, "dev", &json!({ "Who": ["group:dev"], "Nodes": ["web-1"], "Mode": "just-in-time" })).await;
    assert_eq!(names(2).await, json!(["deploy", "lee"]), "a rule for one of two nodes");
    call(&test, Service::Iam, "PutGroupPolicy", &may("Second", "deploy")).await;
    assert_eq!(names(3).await, json!(["lee"]), "what policy denies is left out");
    call(&test, Service::Iam, "PutGroupPolicy", &may("Third", "nobody")).await;
    rule(&test, "dev", &json!({ "Who": ["group:dev"], "Nodes": ["*"], "Mode": "synchronised" })).await;
    assert_eq!(names(4).await, json!(["lee"]), "a rule for every node");
    call(&test, Service::Iam, "PutGroupPolicy", &may("Fourth", "lee")).await;
    assert_eq!(names(5).await, json!("AccessDeniedException"));
    call(&test, Service::Iam, "PutGroupPolicy", &may("Fifth", "nobody")).await;
    let tag = json!({ "UserName": "Lee", "Tags": [{ "Key": "SSMSessionRunAs", "Value": "ops" }] });
    call(&test, Service::Iam, "TagUser", &tag).await;
    assert_eq!(names(6).await, json!(["ops"]), "the tag comes first");
    test.stop().await;
}

#[tokio::test]
async fn key_files_need_login_names_and_good_keys() {
    let test = TestServer::start().await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f kim";
    let put = |users: Value, keys: Value| json!({ "Name": "ops", "KeyFile": { "OsUsers": users, "Nodes": ["*"], "Keys": keys } });
    let good = put(json!(["deploy"]), json!([key]));
    let answer = call(&test, Service::Munjigi, "PutAccountKeyFile", &good).await;
    assert!(answer.text.contains("SHA256:"), "{}", answer.text);
    for bad in [
        put(json!([]), json!([key])),
        put(json!(["Root"]), json!([key])),
        put(json!(["deploy"]), json!(["command=\"x\" "])),
    ] {
        let answer = test.call(Some(&test.admin), Service::Munjigi, "PutAccountKeyFile", &bad).await;
        assert_eq!(answer.code(), "ValidationException", "{}", answer.text);
    }
    assert!(call(&test, Service::Munjigi, "DescribeAccountKeyFiles", &json!({})).await.text.contains("deploy"));
    call(&test, Service::Munjigi, "DeleteAccountKeyFile", &json!({ "Name": "ops" })).await;
    let again = test.call(Some(&test.admin), Service::Munjigi, "DeleteAccountKeyFile", &json!({ "Name": "Ops" })).await;
    assert_eq!(again.code(), "DoesNotExistException");
    test.stop().await;
}
