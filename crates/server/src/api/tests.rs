//! The walk over the operations table: what is in it is signed for, allowed, and in the trail, or it does not pass.

use std::collections::HashSet;

use super::operation::{Access, Wire};
use super::table::OPERATIONS;
use crate::testing::TestServer;

/// Operations that anybody may call (T-50). They prove their caller by other means; a new one is a decision.
const OPEN: [&str; 4] = ["AssumeRoleWithWebIdentity", "LeaveNode", "RegisterManagedInstance", "RegisterNode"];

#[tokio::test]
async fn every_operation_is_refused_without_credentials_and_the_refusal_is_in_the_trail() {
    let test = TestServer::start().await;
    for entry in OPERATIONS.iter().filter(|entry| entry.access != Access::Open) {
        let input = serde_json::from_str(entry.example).unwrap();
        let answer = test.call(None, entry.service, entry.name, &input).await;
        let code = match entry.service.wire() {
            Wire::Json => "MissingAuthenticationTokenException",
            Wire::Query => "MissingAuthenticationToken",
            Wire::Ec2 => "AuthFailure",
        };
        assert_eq!(answer.code(), code, "{}", entry.name);
        let records = test.trail(answer.request_id());
        assert_eq!(records.len(), 1, "{}: {records:?}", entry.name);
        assert!(records[0].contains("\"type\":\"Unknown\"") && records[0].contains(entry.name), "{records:?}");
    }
    test.stop().await;
}

#[tokio::test]
async fn every_operation_is_refused_without_permission_with_a_reason_that_is_in_the_trail() {
    let test = TestServer::start().await;
    let nobody = test.user("nobody").await;
    for entry in OPERATIONS.iter().filter(|entry| entry.access == Access::Policy) {
        let input = serde_json::from_str(entry.example).unwrap();
        let answer = test.call(Some(&nobody), entry.service, entry.name, &input).await;
        let code = match entry.service.wire() {
            Wire::Json => "AccessDeniedException",
            Wire::Query => "AccessDenied",
            Wire::Ec2 => "UnauthorizedOperation",
        };
        assert_eq!(answer.code(), code, "{}: {}", entry.name, answer.text);
        assert!(answer.text.contains("user/nobody is not authorized to perform"), "{}", answer.text);
        let records = test.trail(answer.request_id());
        assert_eq!(records.len(), 1, "{}: {records:?}", entry.name);
        // Roles are guarded by their trust policies, which are asked first.
        let reason = if entry.name == "AssumeRole" { "ResourcePolicyDoesNotAllow" } else { "NoIdentityPolicyAllows" };
        let reason = format!("\"reason\":\"{reason}\"");
        for part in ["\"userName\":\"nobody\"", &reason, code] {
            assert!(records[0].contains(part), "{}: {part}: {}", entry.name, records[0]);
        }
    }
    test.stop().await;
}

#[tokio::test]
async fn every_operation_answers_the_administrator_and_its_outcome_is_in_the_trail() {
    let test = TestServer::start().await;
    for entry in OPERATIONS.iter().filter(|entry| matches!(entry.access, Access::Policy | Access::Caller)) {
        let input = serde_json::from_str(entry.example).unwrap();
        let answer = test.call(Some(&test.admin), entry.service, entry.name, &input).await;
        let unexpected =
            ["Denied", "Validation", "Serialization", "Internal", "Unavailable", "MalformedInput", "Unknown"];
        let code = answer.code();
        assert!(!unexpected.iter().any(|part| code.starts_with(part)), "{}: {}", entry.name, answer.text);
        let records = test.trail(answer.request_id());
        assert_eq!(records.len(), 1, "{}: {records:?}", entry.name);
        assert!(records[0].contains("\"userName\":\"admin\""), "{}", records[0]);
        assert_eq!(records[0].contains("\"errorCode\""), !code.is_empty(), "{}: {}", entry.name, records[0]);
    }
    test.stop().await;
}

#[tokio::test]
async fn what_is_for_nodes_is_refused_to_the_administrator_and_everything_else_to_nodes() {
    let test = TestServer::start().await;
    let node = test.node_credentials().await;
    for entry in OPERATIONS.iter().filter(|entry| !matches!(entry.access, Access::Open | Access::NodeKey)) {
        let who = if entry.access == Access::Node { &test.admin } else { &node };
        let input = serde_json::from_str(entry.example).unwrap();
        let answer = test.call(Some(who), entry.service, entry.name, &input).await;
        let denied = if entry.service.wire() == Wire::Ec2 { "UnauthorizedOperation" } else { "AccessDenied" };
        assert!(answer.code().starts_with(denied), "{}: {}", entry.name, answer.text);
        let records = test.trail(answer.request_id());
        assert!(records[0].contains("\"reason\":\"KindOfCredentials\""), "{}", records[0]);
    }
    test.stop().await;
}

#[test]
fn the_table_names_each_operation_once_and_only_the_listed_ones_are_open() {
    let mut seen = HashSet::new();
    for entry in OPERATIONS {
        assert!(seen.insert((entry.service, entry.name)), "{} stands twice", entry.name);
        assert!(serde_json::from_str::<serde_json::Value>(entry.example).unwrap().is_object(), "{}", entry.name);
        assert_eq!(entry.access == Access::Open, OPEN.contains(&entry.name), "{}", entry.name);
    }
}
