//! Nodes through the door: from the activation to the farewell.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::id::NodeId;
use munjigi_core::wire::enrol::{leave_message, register_message};
use serde_json::{Value, json};

use crate::api::desk::{Desk, code};
use crate::api::operation::Service::{Munjigi, Ssm};
use crate::clock;

fn key(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap()
}

fn registration(activation: &Value, key: &Ed25519KeyPair, name: Option<&str>) -> Value {
    let id = activation["ActivationId"].as_str().unwrap();
    let mut input = json!({
        "ActivationId": id,
        "ActivationCode": activation["ActivationCode"],
        "PublicKey": STANDARD.encode(key.public_key()),
        "PublicKeySignature": STANDARD.encode(key.sign(&register_message(id))),
        "Tags": [{ "Key": "site", "Value": "b" }],
        "Hostname": "host-1",
        "PlatformName": "Debian GNU/Linux",
        "PlatformVersion": "12",
        "PlatformType": "Linux",
        "Architecture": "x86_64",
        "AgentVersion": "0.1.0",
    });
    if let Some(name) = name {
        input["Name"] = name.into();
    }
    input
}

#[tokio::test]
async fn a_node_joins_is_described_tagged_and_deregistered() {
    let desk = Desk::open().await;
    let create = json!({ "IamRole": "nodes", "RegistrationLimit": 2, "Description": "랙 3",
                         "Tags": [{ "Key": "env", "Value": "prod" }, { "Key": "Site", "Value": "a" }] });
    let activation = desk.ssm("CreateActivation", create).await.unwrap();
    let node = desk.open_call("RegisterNode", registration(&activation, &key(1), Some("웹-1"))).await.unwrap();
    let id = NodeId::from_public_key(key(1).public_key().as_ref());
    assert_eq!((&node["NodeId"], &node["Name"]), (&json!(id), &json!("웹-1")));
    assert_eq!(node["RootPublicKey"], STANDARD.encode(desk.server().keys.root_public()));
    let second = desk.open_call("RegisterNode", registration(&activation, &key(2), None)).await.unwrap();
    assert_eq!(second["Name"], "host-1");
    let trail = desk.trail();
    assert!(trail.contains("RegisterNode") && trail.contains(id.as_str()));
    assert!(!trail.contains(activation["ActivationCode"].as_str().unwrap()), "the code is in no record");

    let listed = desk.ssm("DescribeActivations", json!({})).await.unwrap()["ActivationList"][0].clone();
    assert_eq!((&listed["RegistrationsCount"], &listed["Expired"]), (&json!(2), &json!(false)));
    let by_role = json!({ "Filters": [{ "FilterKey": "IamRole", "FilterValues": ["other"] }] });
    assert_eq!(desk.ssm("DescribeActivations", by_role).await.unwrap()["ActivationList"], json!([]));

    let filter =
        json!({ "Filters": [{ "Key": "tag:site", "Values": ["b"] }, { "Key": "InstanceIds", "Values": [id] }] });
    let described = desk.ssm("DescribeInstanceInformation", filter).await.unwrap()["InstanceInformationList"].clone();
    assert_eq!(described.as_array().unwrap().len(), 1);
    assert_eq!((&described[0]["Name"], &described[0]["PingStatus"]), (&json!("웹-1"), &json!("Online")));
    assert_eq!(described[0]["IPAddress"], "127.0.0.1");
    let old = json!({ "InstanceInformationFilterList": [{ "key": "PingStatus", "valueSet": ["Inactive"] }] });
    assert_eq!(desk.ssm("DescribeInstanceInformation", old).await.unwrap()["InstanceInformationList"], json!([]));
    for (target, count) in [("웹-1", 1), ("HOST-1", 1), (id.as_str(), 1), ("mi-", 2), ("tag:env=prod", 2), ("x", 0)] {
        let nodes = desk.call("admin", Munjigi, "ListNodes", json!({ "Target": target })).await.unwrap();
        assert_eq!(nodes["Nodes"].as_array().unwrap().len(), count, "{target}");
    }
    let first = desk.call("admin", Munjigi, "ListNodes", json!({ "MaxResults": 1 })).await.unwrap();
    let rest = json!({ "MaxResults": 1, "NextToken": first["NextToken"] });
    let rest = desk.call("admin", Munjigi, "ListNodes", rest).await.unwrap();
    assert_ne!(first["Nodes"][0]["NodeId"], rest["Nodes"][0]["NodeId"]);
    assert!(rest.get("NextToken").is_none());
    let stolen = json!({ "NextToken": first["NextToken"] });
    assert_eq!(code(Ssm, desk.ssm("DescribeInstanceInformation", stolen).await), "InvalidNextToken");

    let named = |more: Value| {
        let mut input = json!({ "ResourceType": "ManagedInstance", "ResourceId": id });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let tags = named(json!({ "Tags": [{ "Key": "ENV", "Value": "test" }] }));
    desk.ssm("AddTagsToResource", tags).await.unwrap();
    desk.ssm("RemoveTagsFromResource", named(json!({ "TagKeys": ["Site"] }))).await.unwrap();
    let tags = desk.ssm("ListTagsForResource", named(json!({}))).await.unwrap();
    assert_eq!(tags["TagList"], json!([{ "Key": "ENV", "Value": "test" }]));
    for (kind, resource, refusal) in [
        ("Parameter", id.as_str(), "InvalidResourceType"),
        ("Document", "a b", "InvalidResourceId"),
        ("Document", "AWS-StartSSHSession", "InvalidResourceId"),
        ("Document", "No-Such", "InvalidResourceId"),
        ("ManagedInstance", "web", "InvalidResourceId"),
        ("ManagedInstance", "mi-00000000000000000", "InvalidInstanceId"),
    ] {
        let input = json!({ "ResourceType": kind, "ResourceId": resource });
        assert_eq!(code(Ssm, desk.ssm("ListTagsForResource", input).await), refusal);
    }

    desk.ssm("DeregisterManagedInstance", json!({ "InstanceId": id })).await.unwrap();
    let again = desk.ssm("DeregisterManagedInstance", json!({ "InstanceId": id })).await;
    assert_eq!(code(Ssm, again), "InvalidInstanceId");
    let back = desk.open_call("RegisterNode", registration(&activation, &key(1), None)).await;
    assert_eq!(code(Munjigi, back), "InvalidActivation", "both uses are used up");
    desk.close().await;
}

#[tokio::test]
async fn a_registration_without_proof_use_or_free_name_is_refused() {
    let desk = Desk::open().await;
    let activation = desk.ssm("CreateActivation", json!({ "IamRole": "nodes" })).await.unwrap();
    let good = || registration(&activation, &key(1), Some("web"));
    let with = |member: &str, value: Value| {
        let mut input = good();
        input[member] = value;
        input
    };
    let foreign = STANDARD.encode(key(2).sign(&register_message(activation["ActivationId"].as_str().unwrap())));
    for (member, value, refusal) in [
        ("PublicKeySignature", json!(foreign), "InvalidPublicKey"),
        ("PublicKeySignature", json!("!"), "InvalidPublicKey"),
        ("PublicKey", json!(STANDARD.encode([1; 31])), "InvalidPublicKey"),
        ("ActivationCode", json!("wrong"), "InvalidActivation"),
        ("ActivationCode", json!("x".repeat(300)), "InvalidActivation"),
        ("Name", json!("mi-0123456789abcdef0"), "ValidationException"),
        ("Hostname", json!("x".repeat(256)), "ValidationException"),
        ("PlatformType", json!("Plan9"), "ValidationException"),
    ] {
        assert_eq!(code(Munjigi, desk.open_call("RegisterNode", with(member, value)).await), refusal, "{member}");
    }
    let mut odd = good();
    odd["Hostname"] = "*".into();
    odd.as_object_mut().unwrap().remove("Name");
    let node = desk.open_call("RegisterNode", odd).await.unwrap();
    assert!(node["Name"].as_str().unwrap().starts_with("node-"), "{node}");

    let more = json!({ "IamRole": "nodes", "RegistrationLimit": 5 });
    let more = desk.ssm("CreateActivation", more).await.unwrap();
    desk.open_call("RegisterNode", registration(&more, &key(3), Some("db"))).await.unwrap();
    let taken = desk.open_call("RegisterNode", registration(&more, &key(4), Some("DB"))).await;
    assert_eq!(code(Munjigi, taken), "NameTaken");
    desk.ssm("DeleteActivation", json!({ "ActivationId": more["ActivationId"] })).await.unwrap();
    let late = desk.open_call("RegisterNode", registration(&more, &key(5), None)).await;
    assert_eq!(code(Munjigi, late), "InvalidActivation");
    for (id, refusal) in [("x".to_owned(), "InvalidActivationId"), (uuid::Uuid::nil().to_string(), "InvalidActivation")]
    {
        assert_eq!(code(Ssm, desk.ssm("DeleteActivation", json!({ "ActivationId": id })).await), refusal);
    }
    for input in [
        json!({ "IamRole": "nodes", "ExpirationDate": 1 }),
        json!({ "IamRole": "nodes", "ExpirationDate": clock::now().as_secs() + 31 * 86_400 }),
    ] {
        assert_eq!(code(Ssm, desk.ssm("CreateActivation", input).await), "InvalidParameters");
    }
    let none = json!({ "IamRole": "nodes", "RegistrationLimit": 0 });
    assert_eq!(code(Ssm, desk.ssm("CreateActivation", none).await), "ValidationException");
    desk.close().await;
}

#[tokio::test]
async fn only_the_node_itself_takes_its_leave_and_only_now() {
    let desk = Desk::open().await;
    let activation = desk.ssm("CreateActivation", json!({ "IamRole": "nodes" })).await.unwrap();
    desk.open_call("RegisterNode", registration(&activation, &key(1), None)).await.unwrap();
    let id = NodeId::from_public_key(key(1).public_key().as_ref());
    let leave = |signer: u8, time: munjigi_core::time::Timestamp| {
        let signature = STANDARD.encode(key(signer).sign(&leave_message(&id, time)));
        json!({ "NodeId": id, "Timestamp": time, "Signature": signature })
    };
    let now = clock::now();
    let old = munjigi_core::time::Timestamp::from_secs(now.as_secs() - 301);
    assert_eq!(code(Munjigi, desk.open_call("LeaveNode", leave(1, old)).await), "RequestExpired");
    assert_eq!(code(Munjigi, desk.open_call("LeaveNode", leave(2, now)).await), "InvalidSignature");
    desk.open_call("LeaveNode", leave(1, now)).await.unwrap();
    assert_eq!(code(Munjigi, desk.open_call("LeaveNode", leave(1, now)).await), "InvalidSignature");
    desk.close().await;
}

#[tokio::test]
async fn explain_names_the_statement_that_decides() {
    let desk = Desk::open().await;
    let statement = json!({ "Sid": "Web", "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
                            "Condition": { "StringEquals": { "aws:ResourceTag/env": "dev" } } });
    desk.user("alice", statement).await;
    let ask = |user: &str, context: Value| {
        json!({ "Principal": user, "Action": "ssm:StartSession",
                "Resource": "arn:aws:ssm:local-1:000000000000:managed-instance/mi-0", "Context": context })
    };
    let explain = async |input| desk.call("admin", Munjigi, "Explain", input).await;
    let no = explain(ask("alice", json!([]))).await.unwrap();
    assert_eq!((&no["Allowed"], &no["Code"]), (&json!(false), &json!("NoIdentityPolicyAllows")));
    assert_eq!(no["MissingContextKeys"], json!(["aws:ResourceTag/env"]));
    let tagged = json!([{ "Key": "aws:ResourceTag/Env", "Values": ["dev"] }]);
    let yes = explain(ask("ALICE", tagged)).await.unwrap();
    assert_eq!((&yes["Allowed"], &yes["Statements"][0]["Sid"]), (&json!(true), &json!("Web")));
    assert_eq!(code(Munjigi, explain(ask("eve", json!([]))).await), "NoSuchEntity");
    let own = desk.call("alice", Munjigi, "Explain", ask("alice", json!([]))).await;
    assert_eq!(code(Munjigi, own), "AccessDeniedException");
    desk.close().await;
}
