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
    people(&test, "more", &["kim"]).await;
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
