//! Session documents through the door: written, read back unchanged, versioned, shared, tagged and deleted.

use serde_json::{Value, json};

use crate::api::desk::{Desk, code};
use crate::api::operation::Service::Ssm;

fn preferences(inputs: &Value) -> String {
    json!({ "schemaVersion": "1.0", "description": "ours", "sessionType": "Standard_Stream", "inputs": inputs })
        .to_string()
}

fn create(name: &str, content: &str) -> Value {
    json!({ "Name": name, "DocumentType": "Session", "Content": content })
}

#[tokio::test]
async fn a_document_is_read_back_as_it_was_written_in_every_version() {
    let desk = Desk::open().await;
    let first = preferences(&json!({ "idleSessionTimeout": "20", "kmsKeyId": "alias/x" }));
    let name = "SSM-SessionManagerRunShell";
    let made = desk.ssm("CreateDocument", create(name, &first)).await.unwrap()["DocumentDescription"].clone();
    let described = desk.ssm("DescribeDocument", json!({ "Name": name })).await.unwrap()["Document"].clone();
    assert_eq!(made, described, "what is made is what is described");
    assert_eq!((&described["DefaultVersion"], &described["LatestVersion"]), (&json!("1"), &json!("1")));
    assert_eq!(described["Description"], "ours");
    assert!(described["StatusInformation"].as_str().unwrap().contains("refused"), "{described}");
    assert_eq!(code(Ssm, desk.ssm("CreateDocument", create(name, &first)).await), "DocumentAlreadyExists");

    let second = preferences(&json!({ "idleSessionTimeout": 5 }));
    let update = |version: &str, content: &str, version_name: Option<&str>| {
        let mut input = json!({ "Name": name, "DocumentVersion": version, "Content": content });
        version_name.into_iter().for_each(|version_name| input["VersionName"] = version_name.into());
        input
    };
    let updated = desk.ssm("UpdateDocument", update("$LATEST", &second, Some("strict"))).await.unwrap();
    assert_eq!(updated["DocumentDescription"]["DocumentVersion"], "2");
    for (version, content, version_name, refusal) in [
        ("$LATEST", second.as_str(), None, "DuplicateDocumentContent"),
        ("2", &first, Some("strict"), "DuplicateDocumentVersionName"),
        ("1", &first, None, "InvalidDocumentVersion"),
        ("$DEFAULT", &first, None, "InvalidDocumentVersion"),
        ("7", &first, None, "InvalidDocumentVersion"),
        ("2", "{}", None, "InvalidDocumentContent"),
        ("2", r#"{"schemaVersion":"2.2"}"#, None, "InvalidDocumentSchemaVersion"),
        ("x", &first, None, "ValidationException"),
    ] {
        let refused = desk.ssm("UpdateDocument", update(version, content, version_name)).await;
        assert_eq!(code(Ssm, refused), refusal, "{version} {content}");
    }
    let content = async |more: Value| {
        let mut input = json!({ "Name": name });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        desk.ssm("GetDocument", input).await.map(|found| found["Content"].as_str().unwrap().to_owned())
    };
    assert_eq!(content(json!({})).await.unwrap(), first, "a new version is not the default one by itself");
    assert_eq!(content(json!({ "DocumentVersion": "$LATEST" })).await.unwrap(), second);
    let default = json!({ "Name": name, "DocumentVersion": "2" });
    let default = desk.ssm("UpdateDocumentDefaultVersion", default).await.unwrap()["Description"].clone();
    assert_eq!(default, json!({ "Name": name, "DefaultVersion": "2", "DefaultVersionName": "strict" }));
    assert_eq!(content(json!({})).await.unwrap(), second);
    assert_eq!(content(json!({ "DocumentVersion": "1" })).await.unwrap(), first);
    assert_eq!(content(json!({ "VersionName": "strict" })).await.unwrap(), second);
    assert_eq!(
        code(Ssm, desk.ssm("GetDocument", json!({ "Name": name, "DocumentVersion": "3" })).await),
        "InvalidDocumentVersion"
    );
    let versions = desk.ssm("ListDocumentVersions", json!({ "Name": name, "MaxResults": 1 })).await.unwrap();
    assert_eq!(versions["DocumentVersions"][0]["DocumentVersion"], "2");
    assert_eq!(versions["DocumentVersions"][0]["IsDefaultVersion"], true);
    let next = json!({ "Name": name, "MaxResults": 1, "NextToken": versions["NextToken"] });
    let versions = desk.ssm("ListDocumentVersions", next).await.unwrap();
    assert_eq!(versions["DocumentVersions"][0]["DocumentVersion"], "1");
    assert!(versions.get("NextToken").is_none());

    let default = json!({ "Name": name, "DocumentVersion": "2" });
    assert_eq!(code(Ssm, desk.ssm("DeleteDocument", default).await), "InvalidDocumentOperation");
    desk.ssm("DeleteDocument", json!({ "Name": name, "DocumentVersion": "1" })).await.unwrap();
    let share = |add: Value, remove: Value| json!({ "Name": name, "PermissionType": "Share", "AccountIdsToAdd": add, "AccountIdsToRemove": remove });
    desk.ssm("ModifyDocumentPermission", share(json!(["All", "123456789012"]), json!([]))).await.unwrap();
    let shares =
        desk.ssm("DescribeDocumentPermission", json!({ "Name": name, "PermissionType": "Share" })).await.unwrap();
    assert_eq!(shares["AccountIds"], json!(["123456789012", "all"]));
    assert_eq!(code(Ssm, desk.ssm("DeleteDocument", json!({ "Name": name })).await), "InvalidDocumentOperation");
    desk.ssm("ModifyDocumentPermission", share(json!([]), json!(["all", "123456789012"]))).await.unwrap();
    let wrong = json!({ "Name": name, "PermissionType": "Own" });
    assert_eq!(code(Ssm, desk.ssm("DescribeDocumentPermission", wrong).await), "InvalidPermissionType");
    desk.ssm("DeleteDocument", json!({ "Name": name })).await.unwrap();
    assert_eq!(code(Ssm, desk.ssm("DeleteDocument", json!({ "Name": name })).await), "InvalidDocument");
    assert_eq!(code(Ssm, desk.ssm("DescribeDocument", json!({ "Name": name })).await), "InvalidDocument");
    desk.close().await;
}

#[tokio::test]
async fn documents_that_are_not_good_are_refused_with_the_codes_of_aws() {
    let desk = Desk::open().await;
    let good = preferences(&json!({}));
    let with = |more: Value| {
        let mut input = create("Ours", &good);
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let misspelt = preferences(&json!({ "maxSesionDuration": "60" }));
    for (input, refusal) in [
        (with(json!({ "Content": misspelt })), "InvalidDocumentContent"),
        (with(json!({ "Content": "schemaVersion: '1.0'" })), "InvalidDocumentContent"),
        (with(json!({ "DocumentFormat": "YAML" })), "InvalidDocumentContent"),
        (with(json!({ "Content": " ".repeat(65_537) })), "MaxDocumentSizeExceeded"),
        (with(json!({ "Content": "{\"schemaVersion\": \"0.3\"}" })), "InvalidDocumentSchemaVersion"),
        (with(json!({ "DocumentType": "Command" })), "ValidationException"),
        (with(json!({ "DocumentType": null })), "ValidationException"),
        (with(json!({ "Name": "AwsShell" })), "ValidationException"),
        (with(json!({ "Name": "amazon-x" })), "ValidationException"),
        (with(json!({ "Name": "a b" })), "ValidationException"),
        (with(json!({ "Name": "ab" })), "ValidationException"),
        (with(json!({ "Attachments": [{ "Key": "SourceUrl" }] })), "ValidationException"),
        (with(json!({ "Nmae": "x" })), "ValidationException"),
        (
            create(
                "SSM-SessionManagerRunShell",
                r#"{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"22"}}"#,
            ),
            "InvalidDocumentContent",
        ),
    ] {
        assert_eq!(code(Ssm, desk.ssm("CreateDocument", input.clone()).await), refusal, "{input}");
    }
    let path = desk.ssm("CreateDocument", create("Ours", &misspelt)).await.unwrap_err().to_string();
    assert!(path.contains("$.inputs.maxSesionDuration"), "{path}");
    for (operation, refusal) in [
        ("UpdateDocument", "InvalidDocumentOperation"),
        ("DeleteDocument", "InvalidDocumentOperation"),
        ("UpdateDocumentDefaultVersion", "InvalidDocumentOperation"),
    ] {
        let mut input = json!({ "Name": "AWS-StartSSHSession" });
        if operation != "DeleteDocument" {
            input["DocumentVersion"] = "1".into();
        }
        if operation == "UpdateDocument" {
            input["Content"] = good.clone().into();
        }
        assert_eq!(code(Ssm, desk.ssm(operation, input).await), refusal, "{operation}");
    }
    desk.close().await;
}

#[tokio::test]
async fn built_in_documents_stand_beside_the_accounts_own() {
    let desk = Desk::open().await;
    let content = preferences(&json!({}));
    let mut ours = create("Ours", &content);
    ours["Tags"] = json!([{ "Key": "team", "Value": "a" }]);
    ours["TargetType"] = "/AWS::EC2::Instance".into();
    desk.ssm("CreateDocument", ours).await.unwrap();
    let names = async |input: Value| -> Vec<String> {
        let listed = desk.ssm("ListDocuments", input).await.unwrap();
        let identifiers = listed["DocumentIdentifiers"].as_array().unwrap();
        identifiers.iter().map(|one| one["Name"].as_str().unwrap().to_owned()).collect()
    };
    let filter = |key: &str, value: &str| json!({ "Filters": [{ "Key": key, "Values": [value] }] });
    assert_eq!(names(json!({})).await.len(), 9);
    for (key, value, expected) in [
        ("Owner", "Self", vec!["Ours"]),
        ("DocumentType", "Command", vec!["AWS-RunShellScript"]),
        (
            "Name",
            "AWS-StartPort",
            vec![
                "AWS-StartPortForwardingSession",
                "AWS-StartPortForwardingSessionToRemoteHost",
                "AWS-StartPortForwardingSessionToSocket",
            ],
        ),
        ("tag:team", "a", vec!["Ours"]),
        ("TargetType", "/AWS::EC2::Instance", vec!["Ours"]),
        ("SearchKeyword", "ssh", vec!["AWS-StartSSHSession"]),
    ] {
        assert_eq!(names(filter(key, value)).await, expected, "{key}");
    }
    let old = json!({ "DocumentFilterList": [{ "key": "Owner", "value": "Amazon" }, { "key": "Name", "value": "AWS-Password" }] });
    assert_eq!(names(old).await, ["AWS-PasswordReset"]);
    assert_eq!(code(Ssm, desk.ssm("ListDocuments", filter("Colour", "red")).await), "InvalidFilterKey");
    let mut all = Vec::new();
    let mut token = Value::Null;
    loop {
        let mut input = json!({ "MaxResults": 2 });
        if !token.is_null() {
            input["NextToken"] = token;
        }
        let page = desk.ssm("ListDocuments", input).await.unwrap();
        all.extend(
            page["DocumentIdentifiers"].as_array().unwrap().iter().map(|one| one["Name"].as_str().unwrap().to_owned()),
        );
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(all, names(json!({})).await, "pages together are the list");
    let described =
        desk.ssm("DescribeDocument", json!({ "Name": "arn:aws:ssm:local-1::document/AWS-StartSSHSession" })).await;
    let described = described.unwrap()["Document"].clone();
    assert_eq!((&described["Owner"], &described["Parameters"][0]["DefaultValue"]), (&json!("Amazon"), &json!("22")));
    for elsewhere in
        ["arn:aws:ssm:mars-1::document/AWS-StartSSHSession", "arn:aws:ssm:local-1:999999999999:document/Ours"]
    {
        assert_eq!(code(Ssm, desk.ssm("GetDocument", json!({ "Name": elsewhere })).await), "InvalidDocument");
    }
    let tags = json!({ "ResourceType": "Document", "ResourceId": "Ours", "Tags": [{ "Key": "Team", "Value": "b" }] });
    desk.ssm("AddTagsToResource", tags).await.unwrap();
    let listed =
        desk.ssm("ListTagsForResource", json!({ "ResourceType": "Document", "ResourceId": "Ours" })).await.unwrap();
    assert_eq!(listed["TagList"], json!([{ "Key": "Team", "Value": "b" }]));

    // The tags are conditions: who may only read team b's documents reads this one and no other.
    let condition = json!({ "StringEquals": { "aws:ResourceTag/Team": "b" } });
    desk.user(
        "reader",
        json!([{ "Effect": "Allow", "Action": "ssm:GetDocument", "Resource": "*", "Condition": condition }]),
    )
    .await;
    let read = async |name: &str| desk.call("reader", Ssm, "GetDocument", json!({ "Name": name })).await;
    assert_eq!(read("Ours").await.unwrap()["Content"], content);
    assert_eq!(code(Ssm, read("AWS-StartSSHSession").await), "AccessDeniedException");
    assert_eq!(
        code(Ssm, read("Nothing").await),
        "AccessDeniedException",
        "what is absent and what is forbidden look alike"
    );
    desk.close().await;
}
