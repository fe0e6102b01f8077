//! IAM through the door: what its operations answer, refuse and bring about.

use serde_json::{Value, json};

use crate::api::desk::{Desk, code};
use crate::api::operation::Service::Iam;

const ALLOW_USERS: &str = r#"{"Version":"2012-10-17","Statement":{"Sid":"한글 아님","Effect":"Allow","Action":"iam:GetUser","Resource":"*"}}"#;

fn allow(actions: &[&str], resource: &str) -> Value {
    json!({ "Effect": "Allow", "Action": actions, "Resource": resource })
}

fn document(statement: &Value) -> String {
    json!({ "Version": "2012-10-17", "Statement": statement }).to_string()
}

#[tokio::test]
async fn users_are_made_shown_moved_and_deleted() {
    let desk = Desk::open().await;
    let made = desk
        .form(
            "Action=CreateUser&Version=2010-05-08&UserName=alice&Path=%2Feng%2F\
             &Tags.member.1.Key=team&Tags.member.1.Value=%ED%8C%80",
        )
        .await
        .unwrap();
    let account = desk.server().deployment.account.to_string();
    assert_eq!(made["User"]["Arn"], format!("arn:aws:iam::{account}:user/eng/alice"));
    assert_eq!(made["User"]["Tags"][0]["Value"], "팀");
    assert_eq!(code(Iam, desk.iam("CreateUser", json!({ "UserName": "ALICE" })).await), "EntityAlreadyExists");
    for bad in ["", "a b", "a/b", &"x".repeat(65)] {
        assert_eq!(code(Iam, desk.iam("CreateUser", json!({ "UserName": bad })).await), "ValidationError");
    }
    let unknown = json!({ "UserName": "alice", "Colour": "red" });
    assert_eq!(code(Iam, desk.iam("GetUser", unknown).await), "ValidationError");
    assert_eq!(desk.iam("GetUser", json!({})).await.unwrap()["User"]["UserName"], "admin");

    desk.iam("UpdateUser", json!({ "UserName": "alice", "NewUserName": "Alicia", "NewPath": "/" })).await.unwrap();
    assert_eq!(code(Iam, desk.iam("GetUser", json!({ "UserName": "alice" })).await), "NoSuchEntity");
    let shown = desk.iam("GetUser", json!({ "UserName": "alicia" })).await.unwrap();
    assert_eq!((&shown["User"]["UserName"], &shown["User"]["Path"]), (&json!("Alicia"), &json!("/")));
    assert_eq!(shown["User"]["UserId"], made["User"]["UserId"]);

    let key = desk.iam("CreateAccessKey", json!({ "UserName": "Alicia" })).await.unwrap()["AccessKey"].clone();
    let secret = key["SecretAccessKey"].as_str().unwrap();
    assert_eq!(secret.len(), 40);
    desk.iam("CreateAccessKey", json!({ "UserName": "Alicia" })).await.unwrap();
    assert_eq!(code(Iam, desk.iam("CreateAccessKey", json!({ "UserName": "Alicia" })).await), "LimitExceeded");
    assert_eq!(code(Iam, desk.iam("DeleteUser", json!({ "UserName": "Alicia" })).await), "DeleteConflict");
    let listed = desk.iam("ListAccessKeys", json!({ "UserName": "Alicia" })).await.unwrap();
    assert_eq!(listed["AccessKeyMetadata"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(secret), "a secret is shown once");
    assert!(!desk.trail().contains(secret), "and never in the trail");
    let off = json!({ "UserName": "Alicia", "AccessKeyId": key["AccessKeyId"], "Status": "Inactive" });
    desk.iam("UpdateAccessKey", off).await.unwrap();
    let id = key["AccessKeyId"].as_str().unwrap().parse().unwrap();
    assert!(desk.server().identities.by_access_key(&id).is_none(), "an inactive key authenticates nobody");
    let used = desk.iam("GetAccessKeyLastUsed", json!({ "AccessKeyId": key["AccessKeyId"] })).await.unwrap();
    assert_eq!(used["AccessKeyLastUsed"]["ServiceName"], "N/A");
    for key in listed["AccessKeyMetadata"].as_array().unwrap() {
        let delete = json!({ "UserName": "Alicia", "AccessKeyId": key["AccessKeyId"] });
        desk.iam("DeleteAccessKey", delete).await.unwrap();
    }
    desk.iam("DeleteUser", json!({ "UserName": "Alicia" })).await.unwrap();
    assert_eq!(code(Iam, desk.iam("DeleteUser", json!({ "UserName": "Alicia" })).await), "NoSuchEntity");
    desk.close().await;
}

#[tokio::test]
async fn lists_come_in_pages_whose_markers_serve_nothing_else() {
    let desk = Desk::open().await;
    for number in 0..7 {
        desk.iam("CreateUser", json!({ "UserName": format!("user-{number}"), "Path": "/p/" })).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut marker = Value::Null;
    loop {
        let mut input = json!({ "PathPrefix": "/p/", "MaxItems": 3 });
        if !marker.is_null() {
            input["Marker"] = marker;
        }
        let page = desk.iam("ListUsers", input).await.unwrap();
        let users = page["Users"].as_array().unwrap();
        seen.extend(users.iter().map(|user| user["UserName"].as_str().unwrap().to_owned()));
        assert_eq!(page["IsTruncated"], page["Marker"].is_string());
        if page["IsTruncated"] == false {
            break;
        }
        marker = page["Marker"].clone();
        let elsewhere = json!({ "PathPrefix": "/", "Marker": marker });
        assert_eq!(code(Iam, desk.iam("ListUsers", elsewhere).await), "ValidationError");
        let other = json!({ "PathPrefix": "/p/", "Marker": marker });
        assert_eq!(code(Iam, desk.iam("ListGroups", other).await), "ValidationError");
    }
    assert_eq!(seen, (0..7).map(|number| format!("user-{number}")).collect::<Vec<_>>());
    for marker in ["", "x", "AAAA", &"A".repeat(321)] {
        assert_eq!(code(Iam, desk.iam("ListUsers", json!({ "Marker": marker })).await), "ValidationError");
    }
    for count in [json!(0), json!(1001), json!(-1), json!("many")] {
        assert_eq!(code(Iam, desk.iam("ListUsers", json!({ "MaxItems": count })).await), "ValidationError");
    }
    desk.close().await;
}

#[tokio::test]
async fn documents_are_judged_before_they_are_stored_and_encoded_in_answers() {
    let desk = Desk::open().await;
    desk.iam("CreateUser", json!({ "UserName": "alice" })).await.unwrap();
    let put = |name: &str, text: &str| json!({ "UserName": "alice", "PolicyName": name, "PolicyDocument": text });
    let refused = desk.iam("PutUserPolicy", put("p", "{\n \"Statement\": {}}")).await.unwrap_err();
    assert_eq!(refused.code(Iam), "MalformedPolicyDocument");
    assert!(refused.to_string().contains("line 2, column"), "{refused}");
    let spaced = document(&allow(&["iam:GetUser"], "*"));
    desk.iam("PutUserPolicy", put("p", &spaced)).await.unwrap();
    let shown = desk.iam("GetUserPolicy", json!({ "UserName": "alice", "PolicyName": "P" })).await.unwrap();
    let encoded = shown["PolicyDocument"].as_str().unwrap();
    assert!(encoded.starts_with("%7B%22"), "{encoded}");
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap();
    assert_eq!(decoded, spaced);

    let long = document(&allow(&[&format!("iam:{}", "x".repeat(2000))], "*"));
    assert_eq!(code(Iam, desk.iam("PutUserPolicy", put("q", &long)).await), "LimitExceeded");
    let blank = format!("{}{}", " ".repeat(5000), spaced);
    desk.iam("PutUserPolicy", put("p", &blank)).await.unwrap();
    let names = desk.iam("ListUserPolicies", json!({ "UserName": "alice" })).await.unwrap();
    assert_eq!(names["PolicyNames"], json!(["p"]));
    assert_eq!(
        code(Iam, desk.iam("CreatePolicy", json!({ "PolicyName": "x", "PolicyDocument": ALLOW_USERS })).await),
        "MalformedPolicyDocument",
        "a Sid has letters and digits only"
    );
    desk.close().await;
}

#[tokio::test]
async fn a_change_holds_from_its_answer_on() {
    let desk = Desk::open().await;
    desk.user("alice", allow(&["iam:ListUsers"], "*")).await;
    let list = async || desk.call("alice", Iam, "ListUsers", json!({})).await;
    list().await.unwrap();
    desk.iam("DeleteUserPolicy", json!({ "UserName": "alice", "PolicyName": "own" })).await.unwrap();
    assert_eq!(code(Iam, list().await), "AccessDenied");

    let made = desk
        .iam("CreatePolicy", json!({ "PolicyName": "look", "PolicyDocument": document(&allow(&["iam:List*"], "*")) }))
        .await
        .unwrap();
    let arn = made["Policy"]["Arn"].clone();
    desk.iam("CreateGroup", json!({ "GroupName": "eng" })).await.unwrap();
    desk.iam("AttachGroupPolicy", json!({ "GroupName": "eng", "PolicyArn": arn })).await.unwrap();
    assert_eq!(code(Iam, list().await), "AccessDenied");
    desk.iam("AddUserToGroup", json!({ "GroupName": "eng", "UserName": "alice" })).await.unwrap();
    list().await.unwrap();

    let boundary = "arn:aws:iam::aws:policy/MunjigiOperator";
    let bound = json!({ "UserName": "alice", "PermissionsBoundary": boundary });
    desk.iam("PutUserPermissionsBoundary", bound).await.unwrap();
    assert_eq!(code(Iam, list().await), "AccessDenied");
    desk.iam("DeleteUserPermissionsBoundary", json!({ "UserName": "alice" })).await.unwrap();
    list().await.unwrap();

    let nothing = document(&json!({ "Effect": "Deny", "Action": "*", "Resource": "*" }));
    let version = json!({ "PolicyArn": arn, "PolicyDocument": nothing, "SetAsDefault": true });
    assert_eq!(desk.iam("CreatePolicyVersion", version).await.unwrap()["PolicyVersion"]["VersionId"], "v2");
    assert_eq!(code(Iam, list().await), "AccessDenied");
    desk.iam("SetDefaultPolicyVersion", json!({ "PolicyArn": arn, "VersionId": "v1" })).await.unwrap();
    list().await.unwrap();
    let second = json!({ "PolicyArn": arn, "VersionId": "v2" });
    let shown = desk.iam("GetPolicyVersion", second.clone()).await.unwrap();
    assert_eq!(shown["PolicyVersion"]["IsDefaultVersion"], false);
    desk.iam("DeletePolicyVersion", second).await.unwrap();
    assert_eq!(code(Iam, desk.iam("DeletePolicy", json!({ "PolicyArn": arn })).await), "DeleteConflict");

    let entities = desk.iam("ListEntitiesForPolicy", json!({ "PolicyArn": arn })).await.unwrap();
    assert_eq!(entities["PolicyGroups"][0]["GroupName"], "eng");
    let attached = desk.iam("ListAttachedGroupPolicies", json!({ "GroupName": "eng" })).await.unwrap();
    assert_eq!(attached["AttachedPolicies"], json!([{ "PolicyName": "look", "PolicyArn": arn }]));
    desk.iam("RemoveUserFromGroup", json!({ "GroupName": "eng", "UserName": "alice" })).await.unwrap();
    assert_eq!(code(Iam, list().await), "AccessDenied");
    desk.close().await;
}

#[tokio::test]
async fn absent_and_forbidden_look_alike() {
    let desk = Desk::open().await;
    desk.user("alice", allow(&["iam:GetUser"], "arn:aws:iam::*:user/alice")).await;
    desk.iam("CreateUser", json!({ "UserName": "bob" })).await.unwrap();
    let own = json!({ "UserName": "alice" });
    desk.call("alice", Iam, "GetUser", own).await.unwrap();
    let mut messages = Vec::new();
    for name in ["bob", "eve"] {
        let refused = desk.call("alice", Iam, "GetUser", json!({ "UserName": name })).await.unwrap_err();
        assert_eq!((refused.code(Iam), refused.reason()), ("AccessDenied", Some("NoIdentityPolicyAllows")));
        messages.push(refused.to_string().replace(name, "…"));
    }
    assert_eq!(messages[0], messages[1]);
    let absent = json!({ "AccessKeyId": "AKIAAAAAAAAAAAAAAAAA" });
    assert_eq!(code(Iam, desk.call("alice", Iam, "GetAccessKeyLastUsed", absent).await), "AccessDenied");
    desk.close().await;
}

#[tokio::test]
async fn conditions_see_tags_boundaries_and_policies_of_the_call() {
    let desk = Desk::open().await;
    let statements = json!([
        { "Effect": "Allow", "Action": ["iam:CreateUser", "iam:TagUser"], "Resource": "*",
          "Condition": { "StringEquals": { "aws:RequestTag/team": "a" },
                         "ForAllValues:StringEquals": { "aws:TagKeys": ["team"] } } },
        { "Effect": "Allow", "Action": "iam:DeleteUser", "Resource": "*",
          "Condition": { "StringEquals": { "aws:ResourceTag/team": "a" } } },
        { "Effect": "Allow", "Action": "iam:AttachUserPolicy", "Resource": "*",
          "Condition": { "ArnEquals": { "iam:PolicyARN": "arn:aws:iam::aws:policy/ReadOnlyAccess" } } },
        { "Effect": "Allow", "Action": "iam:UpdateUser", "Resource": "arn:aws:iam::*:user/a/*" },
    ]);
    desk.user("lead", statements).await;
    let call = async |operation, input| desk.call("lead", Iam, operation, input).await;
    let tags = |team: &str| json!([{ "Key": "team", "Value": team }]);
    let two = json!([{ "Key": "team", "Value": "a" }, { "Key": "x", "Value": "y" }]);
    assert_eq!(code(Iam, call("CreateUser", json!({ "UserName": "u" })).await), "AccessDenied");
    assert_eq!(code(Iam, call("CreateUser", json!({ "UserName": "u", "Tags": tags("b") })).await), "AccessDenied");
    assert_eq!(code(Iam, call("CreateUser", json!({ "UserName": "u", "Tags": two })).await), "AccessDenied");
    call("CreateUser", json!({ "UserName": "u", "Tags": tags("a") })).await.unwrap();
    desk.iam("CreateUser", json!({ "UserName": "v", "Tags": tags("b"), "Path": "/a/" })).await.unwrap();
    assert_eq!(code(Iam, call("DeleteUser", json!({ "UserName": "v" })).await), "AccessDenied");
    call("DeleteUser", json!({ "UserName": "u" })).await.unwrap();

    let attach = |policy: &str| json!({ "UserName": "v", "PolicyArn": format!("arn:aws:iam::aws:policy/{policy}") });
    assert_eq!(code(Iam, call("AttachUserPolicy", attach("AdministratorAccess")).await), "AccessDenied");
    call("AttachUserPolicy", attach("ReadOnlyAccess")).await.unwrap();
    call("UpdateUser", json!({ "UserName": "v", "NewUserName": "w" })).await.unwrap();
    let out = call("UpdateUser", json!({ "UserName": "w", "NewPath": "/b/" })).await;
    assert_eq!(code(Iam, out), "AccessDenied", "a move is no way out of what a policy covers");

    let lookup = desk.iam("ListUserTags", json!({ "UserName": "w" })).await.unwrap();
    assert_eq!(lookup["Tags"], tags("b"));
    desk.iam("UntagUser", json!({ "UserName": "w", "TagKeys": ["TEAM"] })).await.unwrap();
    desk.iam("TagUser", json!({ "UserName": "w", "Tags": tags("a") })).await.unwrap();
    let reserved = json!({ "UserName": "w", "Tags": [{ "Key": "aws:x", "Value": "" }] });
    assert_eq!(code(Iam, desk.iam("TagUser", reserved).await), "ValidationError");
    desk.close().await;
}

#[tokio::test]
async fn the_simulator_answers_as_the_door_decides() {
    let desk = Desk::open().await;
    desk.user("alice", allow(&["iam:GetUser"], "arn:aws:iam::*:user/${aws:username}")).await;
    let account = desk.server().deployment.account.to_string();
    let arn = |name: &str| format!("arn:aws:iam::{account}:user/{name}");
    let ask = json!({
        "PolicySourceArn": arn("alice"), "ActionNames": ["iam:GetUser", "iam:DeleteUser"],
        "ResourceArns": [arn("alice"), arn("admin")],
    });
    let results = desk.iam("SimulatePrincipalPolicy", ask).await.unwrap()["EvaluationResults"].clone();
    for result in results.as_array().unwrap() {
        let resource = result["EvalResourceName"].as_str().unwrap();
        let name = resource.rsplit_once('/').unwrap().1;
        let operation = result["EvalActionName"].as_str().unwrap().strip_prefix("iam:").unwrap();
        if operation == "GetUser" {
            let live = desk.call("alice", Iam, operation, json!({ "UserName": name })).await;
            assert_eq!(result["EvalDecision"] == "allowed", live.is_ok(), "{result}");
        } else {
            assert_eq!(result["EvalDecision"], "implicitDeny");
        }
    }
    let matched = &results[0]["MatchedStatements"][0];
    assert_eq!((&matched["SourcePolicyType"], &matched["StartPosition"]["Line"]), (&json!("user"), &json!(1)));

    let policy = document(&json!({ "Effect": "Allow", "Action": "ssm:*", "Resource": "*",
        "Condition": { "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } } }));
    let custom = |ip: Option<&str>| {
        let entry =
            ip.map(|ip| json!({ "ContextKeyName": "aws:SourceIp", "ContextKeyValues": [ip], "ContextKeyType": "ip" }));
        json!({ "PolicyInputList": [policy], "ActionNames": ["ssm:StartSession"],
                "ContextEntries": entry.into_iter().collect::<Vec<_>>() })
    };
    for (ip, decision) in [(Some("10.1.2.3"), "allowed"), (Some("11.1.2.3"), "implicitDeny"), (None, "implicitDeny")] {
        let answer = desk.iam("SimulateCustomPolicy", custom(ip)).await.unwrap();
        assert_eq!(answer["EvaluationResults"][0]["EvalDecision"], decision, "{ip:?}");
        if ip.is_none() {
            assert_eq!(answer["EvaluationResults"][0]["MissingContextValues"], json!(["aws:SourceIp"]));
        }
    }
    let wild = json!({ "PolicyInputList": [policy], "ActionNames": ["ssm:*"] });
    assert_eq!(code(Iam, desk.iam("SimulateCustomPolicy", wild).await), "InvalidInput");
    let broken = json!({ "PolicyInputList": ["{"], "ActionNames": ["ssm:StartSession"] });
    assert_eq!(code(Iam, desk.iam("SimulateCustomPolicy", broken).await), "MalformedPolicyDocument");
    desk.close().await;
}

#[tokio::test]
async fn ssh_keys_are_registered_shown_switched_and_deleted() {
    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHhn/6pFn80oeUxjQu2cJYUSmk45c8VzM0LtJHxAOxnO";
    let desk = Desk::open().await;
    for name in ["alice", "bob"] {
        desk.iam("CreateUser", json!({ "UserName": name })).await.unwrap();
    }
    let body = format!("{ED25519} kim@laptop\n");
    let upload = |name: &str| json!({ "UserName": name, "SSHPublicKeyBody": body });
    let made = desk.iam("UploadSSHPublicKey", upload("Alice")).await.unwrap()["SSHPublicKey"].clone();
    assert_eq!((&made["UserName"], &made["Status"]), (&json!("alice"), &json!("Active")));
    assert_eq!(made["SSHPublicKeyBody"], body.trim());
    assert_eq!(made["Fingerprint"].as_str().unwrap().len(), 47);
    let id = made["SSHPublicKeyId"].clone();
    assert!(id.as_str().unwrap().starts_with("APKA"), "{id}");
    for name in ["alice", "bob"] {
        assert_eq!(code(Iam, desk.iam("UploadSSHPublicKey", upload(name)).await), "DuplicateSSHPublicKey");
    }
    for (body, expected) in [
        ("hello", "UnrecognizedPublicKeyEncoding"),
        ("ssh-ed25519 AAAA", "InvalidPublicKey"),
        ("", "ValidationError"),
        ("ssh-ed25519 앨리스", "ValidationError"),
    ] {
        let upload = json!({ "UserName": "bob", "SSHPublicKeyBody": body });
        assert_eq!(code(Iam, desk.iam("UploadSSHPublicKey", upload).await), expected, "{body}");
    }
    assert_eq!(code(Iam, desk.iam("UploadSSHPublicKey", upload("eve")).await), "NoSuchEntity");

    let get = |encoding: &str| json!({ "UserName": "alice", "SSHPublicKeyId": id, "Encoding": encoding });
    let shown = desk.iam("GetSSHPublicKey", get("SSH")).await.unwrap()["SSHPublicKey"].clone();
    assert_eq!(shown["SSHPublicKeyBody"], body.trim());
    assert_eq!(code(Iam, desk.iam("GetSSHPublicKey", get("PEM")).await), "UnrecognizedPublicKeyEncoding");
    assert_eq!(code(Iam, desk.iam("GetSSHPublicKey", get("ssh")).await), "ValidationError");

    let of = |name: &str| json!({ "UserName": name, "SSHPublicKeyId": id });
    let mut switch = of("alice");
    switch["Status"] = json!("Inactive");
    desk.iam("UpdateSSHPublicKey", switch.clone()).await.unwrap();
    let listed = desk.iam("ListSSHPublicKeys", json!({ "UserName": "alice" })).await.unwrap();
    assert_eq!(listed["SSHPublicKeys"][0]["Status"], "Inactive");
    assert!(listed["SSHPublicKeys"][0].get("SSHPublicKeyBody").is_none(), "{listed}");
    switch["Status"] = json!("Expired");
    assert_eq!(code(Iam, desk.iam("UpdateSSHPublicKey", switch).await), "ValidationError");
    assert_eq!(code(Iam, desk.iam("DeleteSSHPublicKey", of("bob")).await), "NoSuchEntity", "another's key");
    assert_eq!(code(Iam, desk.iam("DeleteUser", json!({ "UserName": "alice" })).await), "DeleteConflict");
    desk.iam("DeleteSSHPublicKey", of("alice")).await.unwrap();
    assert_eq!(code(Iam, desk.iam("DeleteSSHPublicKey", of("alice")).await), "NoSuchEntity");
    desk.iam("DeleteUser", json!({ "UserName": "alice" })).await.unwrap();
    let own = desk.iam("ListSSHPublicKeys", json!({})).await.unwrap();
    assert_eq!(own["SSHPublicKeys"], json!([]), "of the caller");
}
