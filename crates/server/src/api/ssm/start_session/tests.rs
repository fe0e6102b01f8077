//! What a start comes to, without a node.

use std::collections::BTreeMap;
use std::time::Duration;

use munjigi_core::session::SessionLimits;
use serde_json::{Value, json};

use super::*;
use crate::api::desk::{Desk, code};
use crate::api::operation::Service::Ssm;

async fn plan(desk: &Desk, document: Option<&str>, parameters: Value) -> Result<Plan, ApiError> {
    let input = StartSessionInput {
        target: "web-1".into(),
        document_name: document.map(str::to_owned),
        reason: None,
        parameters: serde_json::from_value(parameters).unwrap(),
        native: None,
    };
    input.check()?;
    let limits = SessionLimits {
        idle: Some(Duration::from_secs(1200)),
        idle_counts_output: true,
        maximum: None,
        resume_window: Duration::from_secs(600),
        strict_recording: false,
    };
    Plan::make(desk.server(), &input, limits).await
}

fn refused(result: Result<Plan, ApiError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    (error.code(Ssm), error.to_string())
}

async fn keep(desk: &Desk, name: &str, content: Value) {
    let input = json!({ "Name": name, "DocumentType": "Session", "Content": content.to_string() });
    desk.ssm("CreateDocument", input).await.unwrap();
}

async fn prefer(desk: &Desk, inputs: Value) {
    let content = json!({ "schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs });
    // The first time there is nothing to delete.
    let _ = desk.ssm("DeleteDocument", json!({ "Name": DEFAULT_DOCUMENT })).await;
    keep(desk, DEFAULT_DOCUMENT, content).await;
}

#[tokio::test]
async fn each_document_becomes_what_it_says() {
    let desk = Desk::open().await;
    let shell = plan(&desk, None, json!({})).await.unwrap();
    assert_eq!((shell.kind, shell.pty, shell.document.as_str()), (SessionKind::Shell, true, DEFAULT_DOCUMENT));
    assert_eq!(plan(&desk, Some(DEFAULT_DOCUMENT), json!({})).await.unwrap(), shell);

    let command = plan(&desk, Some(INTERACTIVE), json!({ "command": ["top | cat"] })).await.unwrap();
    assert_eq!((command.kind, command.pty), (SessionKind::Command, true));
    assert_eq!(command.command, ["/bin/sh", "-c", "top | cat"]);
    let command = plan(&desk, Some(NON_INTERACTIVE), json!({ "command": ["id; id"] })).await.unwrap();
    assert_eq!((command.pty, command.command[2].as_str()), (false, "id; id"));
    let reset = plan(&desk, Some("AWS-PasswordReset"), json!({ "username": ["alice"] })).await.unwrap();
    assert!(reset.elevated && reset.pty);

    let remote = json!({ "host": ["DB.internal"], "portNumber": ["5432"] });
    let remote = plan(&desk, Some(REMOTE_PORT), remote).await.unwrap();
    assert_eq!(remote.destination, Some(Destination::new("db.internal", 5432).unwrap()));
    assert_eq!(remote.port_properties["type"], "LocalPortForwarding");
    let ssh = plan(&desk, Some("arn:aws:ssm:local-1::document/AWS-StartSSHSession"), json!({})).await.unwrap();
    assert_eq!((ssh.kind, ssh.document.as_str()), (SessionKind::Port, "AWS-StartSSHSession"));
    assert_eq!(ssh.port_properties, BTreeMap::from([("portNumber".to_owned(), "22".to_owned())]));

    let restart = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": { "unit": { "type": "String", "allowedPattern": "[a-z-]+" } },
        "inputs": { "idleSessionTimeout": "2", "runAsEnabled": true, "runAsDefaultUser": "ops" },
        "properties": { "linux": { "commands": "systemctl restart {{ unit }}", "separateOutputStream": true, "stdErrSeparatorPrefix": "E:" } },
    });
    keep(&desk, "Restart", restart).await;
    let restart = plan(&desk, Some("Restart"), json!({ "unit": ["nginx"] })).await.unwrap();
    assert_eq!(restart.command, ["systemctl", "restart", "nginx"], "no shell in between");
    assert_eq!(restart.separated.unwrap().stderr_prefix, "E:");
    assert_eq!((restart.run_as.as_deref(), restart.limits.idle), (Some("ops"), Some(Duration::from_secs(120))));

    let grep = json!({
        "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": { "word": { "type": "String", "interpolationType": "ENV_VAR" } },
        "properties": { "linux": { "commands": "grep -- \"{{ word }}\" /var/log/app" } },
    });
    keep(&desk, "Grep", grep).await;
    let grep = plan(&desk, Some("Grep"), json!({ "word": ["$(id)"] })).await.unwrap();
    assert_eq!(grep.command[2], "grep -- \"${SSM_word}\" /var/log/app");
    assert_eq!(grep.variables, [("SSM_word".to_owned(), "$(id)".to_owned())]);
    desk.close().await;
}

#[tokio::test]
async fn what_a_document_does_not_take_is_refused_by_name() {
    let desk = Desk::open().await;
    let long = "x".repeat(40_000);
    for (document, parameters, expected, part) in [
        (Some("Nothing"), json!({}), "InvalidDocument", "Nothing"),
        (
            Some("AWS-RunShellScript"),
            json!({ "commands": ["ls"] }),
            "InvalidDocument",
            "not a document of type Session",
        ),
        (Some("arn:aws:ssm:mars-1::document/AWS-StartSSHSession"), json!({}), "InvalidDocument", "mars-1"),
        (Some("a b"), json!({}), "ValidationException", "DocumentName"),
        (None, json!({ "x": ["1"] }), "ValidationException", "x"),
        (Some(INTERACTIVE), json!({}), "ValidationException", "command"),
        (Some(INTERACTIVE), json!({ "command": ["a"], "other": ["b"] }), "ValidationException", "other"),
        (Some(INTERACTIVE), json!({ "command": ["a", "b"] }), "ValidationException", "command"),
        (Some(INTERACTIVE), json!({ "command": [] }), "ValidationException", "command"),
        (Some(INTERACTIVE), json!({ "command": [""] }), "ValidationException", "1 to 65535"),
        (Some(INTERACTIVE), json!({ "command": [long] }), "InvalidDocument", "32768 characters"),
        (Some("AWS-StartSSHSession"), json!({ "portNumber": ["0"] }), "InvalidDocument", "portNumber"),
        (Some("AWS-StartSSHSession"), json!({ "portNumber": ["22\n"] }), "InvalidDocument", "portNumber"),
        (Some(REMOTE_PORT), json!({ "host": ["a b.internal"] }), "InvalidDocument", "host"),
        (Some("AWS-PasswordReset"), json!({ "username": ["root; id"] }), "InvalidDocument", "username"),
    ] {
        let (found, message) = refused(plan(&desk, document, parameters.clone()).await);
        assert_eq!(found, expected, "{document:?}: {message}");
        assert!(message.contains(part), "{document:?} {parameters}: {message}");
    }
    let many: BTreeMap<String, Vec<String>> = (0..65).map(|number| (format!("p{number}"), vec!["x".into()])).collect();
    assert_eq!(refused(plan(&desk, Some(INTERACTIVE), json!(many)).await).0, "ValidationException");
    let large = json!({ "command": ["x".repeat(65_535), "y".repeat(65_535), "z".repeat(10)] });
    assert_eq!(refused(plan(&desk, Some(INTERACTIVE), large).await).0, "ValidationException");
    desk.close().await;
}

#[tokio::test]
async fn the_accounts_preferences_hold_for_every_document_and_only_tighten() {
    let desk = Desk::open().await;
    prefer(&desk, json!({ "idleSessionTimeout": "60", "maxSessionDuration": "30", "runAsEnabled": true, "runAsDefaultUser": "ops", "shellProfile": { "linux": "cd /srv" } })).await;
    let command = json!({ "command": ["x"] });
    for (document, parameters) in [(None, json!({})), (Some(INTERACTIVE), command.clone()), (Some(PORT), json!({}))] {
        let found = plan(&desk, document, parameters).await.unwrap();
        assert_eq!(found.limits.idle, Some(Duration::from_secs(1200)), "the server's limit is shorter");
        assert_eq!(found.limits.maximum, Some(Duration::from_secs(1800)));
        assert_eq!(found.run_as.as_deref(), Some("ops"));
        assert_eq!(found.profile, if document.is_none() { "cd /srv" } else { "" });
    }
    let own = json!({
        "schemaVersion": "1.0", "sessionType": "Standard_Stream",
        "inputs": { "maxSessionDuration": "1440", "runAsEnabled": true, "runAsDefaultUser": "web", "shellProfile": { "linux": "pwd" } },
    });
    keep(&desk, "Own", own).await;
    let own = plan(&desk, Some("Own"), json!({})).await.unwrap();
    assert_eq!((own.limits.maximum, own.profile.as_str()), (Some(Duration::from_secs(1800)), "pwd"));
    assert_eq!(own.run_as.as_deref(), Some("web"));

    // A key cannot be used here, and what was demanded is not left out.
    prefer(&desk, json!({ "kmsKeyId": "alias/sessions" })).await;
    for (document, parameters) in [(None, json!({})), (Some("Own"), json!({})), (Some(NON_INTERACTIVE), command)] {
        let (found, message) = refused(plan(&desk, document, parameters).await);
        assert!(found == "InvalidDocument" && message.contains("kmsKeyId"), "{found} {message}");
    }
    plan(&desk, Some(PORT), json!({})).await.unwrap();
    // A new version holds once it is the default one.
    let content =
        json!({ "schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": { "maxSessionDuration": 3 } });
    let update = json!({ "Name": DEFAULT_DOCUMENT, "DocumentVersion": "$LATEST", "Content": content.to_string() });
    desk.ssm("UpdateDocument", update).await.unwrap();
    assert!(refused(plan(&desk, None, json!({})).await).1.contains("kmsKeyId"));
    let default = json!({ "Name": DEFAULT_DOCUMENT, "DocumentVersion": "2" });
    desk.ssm("UpdateDocumentDefaultVersion", default).await.unwrap();
    assert_eq!(plan(&desk, None, json!({})).await.unwrap().limits.maximum, Some(Duration::from_secs(180)));
    // What is only kept stops nothing.
    prefer(&desk, json!({ "s3BucketName": "logs", "cloudWatchLogGroupName": "g" })).await;
    plan(&desk, None, json!({})).await.unwrap();
    desk.close().await;
}

#[tokio::test]
async fn documents_are_refused_to_whom_policy_does_not_let_use_them() {
    let desk = Desk::open().await;
    let start = async |user: &str, document: Option<&str>, parameters: Value| {
        let mut input = json!({ "Target": "mi-00000000000000000", "Parameters": parameters });
        document.into_iter().for_each(|document| input["DocumentName"] = document.into());
        code(Ssm, desk.call(user, Ssm, "StartSession", input).await)
    };
    let nodes = "arn:aws:ssm:*:*:managed-instance/*";
    let allow = |resources: Value| json!({ "Effect": "Allow", "Action": "ssm:StartSession", "Resource": resources });
    desk.user("nodes-only", json!([allow(json!([nodes]))])).await;
    desk.user("ssh", json!([allow(json!([nodes, "arn:aws:ssm:*:*:document/AWS-StartSSHSession"]))])).await;
    let mut checked = allow(json!([nodes]));
    checked["Condition"] = json!({ "BoolIfExists": { "ssm:SessionDocumentAccessCheck": "true" } });
    desk.user("checked", json!([checked])).await;
    let mut database = allow(json!("*"));
    database["Condition"] = json!({ "StringEquals": { "munjigi:DestinationHost": "db.internal" }, "NumericEquals": { "munjigi:DestinationPort": "5432" } });
    desk.user("database", json!([database])).await;
    let host = |host: &str, port: &str| json!({ "host": [host], "portNumber": [port] });
    // Allowed, as far as policy goes: there is no such node.
    let allowed = "TargetNotConnected";
    for (user, document, parameters, expected) in [
        ("nodes-only", None, json!({}), allowed),
        ("nodes-only", Some("AWS-StartSSHSession"), json!({}), "AccessDeniedException"),
        ("nodes-only", Some(DEFAULT_DOCUMENT), json!({}), "AccessDeniedException"),
        ("nodes-only", Some("Nothing"), json!({}), "AccessDeniedException"),
        ("ssh", Some("AWS-StartSSHSession"), json!({}), allowed),
        ("ssh", Some("AWS-StartSSHSession"), json!({ "portNumber": ["x"] }), "InvalidDocument"),
        ("ssh", Some(PORT), json!({}), "AccessDeniedException"),
        ("checked", None, json!({}), "AccessDeniedException"),
        ("database", Some(REMOTE_PORT), host("db.internal", "5432"), allowed),
        ("database", Some(REMOTE_PORT), host("DB.internal", "5432"), allowed),
        ("database", Some(REMOTE_PORT), host("db.internal", "22"), "AccessDeniedException"),
        ("database", Some(REMOTE_PORT), host("web.internal", "5432"), "AccessDeniedException"),
        ("database", None, json!({}), "AccessDeniedException"),
    ] {
        assert_eq!(start(user, document, parameters.clone()).await, expected, "{user} {document:?} {parameters}");
    }
    desk.close().await;
}
