//! Session documents and preferences: as boto3 and Terraform use them, and as sessions keep to them.

use std::io::{Read as _, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::{TestServer, output, python_tool, success};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/documents.py");
const PREFERENCES: &str = "SSM-SessionManagerRunShell";

/// Keeps a session document, over an earlier one of the name.
fn keep(server: &TestServer, name: &str, content: &Value) {
    output(&mut server.aws(&["ssm", "delete-document", "--name", name]));
    let content = content.to_string();
    server.aws_json(&["ssm", "create-document", "--name", name, "--document-type", "Session", "--content", &content]);
}

fn prefer(server: &TestServer, inputs: Value) {
    let content = json!({ "schemaVersion": "1.0", "sessionType": "Standard_Stream", "inputs": inputs });
    keep(server, PREFERENCES, &content);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a client to its end with something typed into it; the input stays open until then.
fn typed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(input.as_bytes()).unwrap();
    let ended = std::thread::spawn(move || child.wait_with_output().unwrap());
    let ended = ended.join().unwrap();
    drop(keys);
    ended
}

#[test]
fn documents_are_written_read_back_and_refused_as_boto3_and_terraform_expect() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let mut program = Command::new(python_tool("python3"));
    program.arg(PROGRAM).env("NODE", &agent.node).env("AWS_EC2_METADATA_DISABLED", "true");
    server.configure(&mut program);
    assert_eq!(success(&mut program).trim(), "ok");
    assert!(!server.sessions().iter().any(|session| session["status"] == "Connecting"), "refused starts begin nothing");
}

#[test]
fn a_session_keeps_to_the_preferences() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    // Run as: the document's account, unless the principal's tag names another; without either nothing starts.
    let whoami = ["run", "web-1", "--", "sh", "-c", "id -un; exit 3"];
    prefer(&server, json!({ "runAsEnabled": true }));
    let ran = output(&mut server.munjigi(&whoami));
    assert!(ran.status.code() == Some(255) && text(&ran.stderr).contains("runAsEnabled"), "{ran:?}");
    prefer(&server, json!({ "runAsEnabled": true, "runAsDefaultUser": user() }));
    let ran = output(&mut server.munjigi(&whoami));
    assert_eq!((ran.status.code(), text(&ran.stdout)), (Some(3), format!("{}\n", user())), "{ran:?}");
    prefer(&server, json!({ "runAsEnabled": true, "runAsDefaultUser": "no-such-user" }));
    let ran = output(&mut server.munjigi(&whoami));
    assert_eq!(ran.status.code(), Some(255), "a missing account fails the session: {ran:?}");
    let tag = format!("Key=SSMSessionRunAs,Value={}", user());
    success(&mut server.aws(&["iam", "tag-user", "--user-name", "admin", "--tags", &tag]));
    let ran = output(&mut server.munjigi(&whoami));
    assert_eq!(ran.status.code(), Some(3), "the principal's tag wins: {ran:?}");

    // The profile is the shell's first input; the limits are those of the document.
    prefer(
        &server,
        json!({ "shellProfile": { "linux": "echo profile-$((40+2))" }, "maxSessionDuration": "7", "idleSessionTimeout": 5 }),
    );
    let ran = typed(server.munjigi(&["shell", "web-1", "-t"]), "echo typed-$((1+1)); exit 4\n");
    let shown = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(4), "{ran:?}");
    let (profile, keys) = (shown.find("profile-42").unwrap(), shown.find("typed-2").unwrap());
    assert!(profile < keys, "{shown}");
    let history = server.aws_json(&["ssm", "describe-sessions", "--state", "History"]);
    let newest = &history["Sessions"][0];
    assert_eq!(
        (&newest["MaxSessionDuration"], &newest["DocumentName"]),
        (&json!("7"), &json!(PREFERENCES)),
        "{newest}"
    );
}

#[test]
fn a_document_runs_its_command_with_checked_parameters() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let greet = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "parameters": { "name": { "type": "String", "allowedPattern": "[가-힣a-z ;$()]{1,20}" } },
        "properties": { "linux": { "commands": "printf '%s|' hello '{{ name }}'" } },
    });
    keep(&server, "Greet", &greet);
    let greet = |name: &str| {
        output(&mut server.munjigi(&["run", "web-1", "--document", "Greet", "--parameter", &format!("name={name}")]))
    };
    let ran = greet("세계");
    assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(0), "hello|세계|"), "{ran:?}");
    // No shell reads the value.
    assert_eq!(text(&greet("a; id $(id)").stdout), "hello|a; id $(id)|");
    let ran = greet("UPPER");
    assert!(ran.status.code() == Some(255) && text(&ran.stderr).contains("name"), "{ran:?}");
    let ran = output(&mut server.munjigi(&["run", "web-1", "--document", "Greet"]));
    assert!(ran.status.code() == Some(255) && text(&ran.stderr).contains("`name` is required"), "{ran:?}");

    let quoted = json!({
        "schemaVersion": "1.0", "sessionType": "InteractiveCommands",
        "parameters": { "word": { "type": "String", "interpolationType": "ENV_VAR" } },
        "properties": { "linux": { "commands": "test -t 0 && echo \"<{{ word }}>\"; exit 6" } },
    });
    keep(&server, "Quoted", &quoted);
    let command = server.munjigi(&["shell", "web-1", "-t", "--document", "Quoted", "--parameter", "word=$(id)'\""]);
    let ran = typed(command, "");
    assert!(text(&ran.stdout).contains("<$(id)'\">") && ran.status.code() == Some(6), "{ran:?}");
    let ran = output(&mut server.munjigi(&["shell", "web-1", "--document", "Greet", "--", "id"]));
    assert_eq!(ran.status.code(), Some(2), "a document brings its own command: {ran:?}");

    // Root is for those whom policy lets be root, also when a document asks for it.
    let elevated = json!({
        "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
        "properties": { "linux": { "commands": "id -u", "runAsElevated": true } },
    });
    keep(&server, "Elevated", &elevated);
    success(&mut server.munjigi(&["user", "add", "carol"]));
    let statement =
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:StartSession","Resource":"*"}}"#;
    server.aws_json(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "carol",
        "--policy-name",
        "p",
        "--policy-document",
        statement,
    ]);
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "carol"]);
    let secret = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let mut carol = server.munjigi(&["run", "web-1", "--document", "Elevated"]);
    carol.env("AWS_ACCESS_KEY_ID", secret("AccessKeyId")).env("AWS_SECRET_ACCESS_KEY", secret("SecretAccessKey"));
    let ran = output(&mut carol);
    assert!(ran.status.code() == Some(255) && ran.stdout.is_empty(), "{ran:?}");
}

#[test]
fn a_deleted_document_ends_its_sessions_and_nobody_has_more_sessions_than_allowed() {
    let config = format!("[session]\ndefault_os_user = \"{}\"\n[limits]\nsessions_per_principal = 1\n", user());
    let server = TestServer::with_config(&config);
    let _agent = server.agent("web-1");
    let content = json!({ "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands",
                          "properties": { "linux": { "commands": "sh -c 'echo begun; sleep 1000'" } } });
    keep(&server, "Sleep", &content);
    let mut command = server.munjigi(&["run", "web-1", "--document", "Sleep"]);
    let mut client = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 6];
    client.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    let second = output(&mut server.munjigi(&["run", "web-1", "--", "true"]));
    assert!(second.status.code() == Some(255) && text(&second.stderr).contains("no more than 1 session"), "{second:?}");
    success(&mut server.aws(&["ssm", "delete-document", "--name", "Sleep"]));
    let ended = client.wait_with_output().unwrap();
    assert!(!ended.status.success() && text(&ended.stderr).contains("document was deleted"), "{ended:?}");
    assert_eq!(server.sessions()[0]["endReason"], "revoked");
}

/// The shortest limits that documents can set are a minute long.
#[test]
fn a_session_ends_when_it_is_idle_or_too_long_as_its_document_says() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let document = |inputs: Value| {
        json!({ "schemaVersion": "1.0", "sessionType": "NonInteractiveCommands", "inputs": inputs,
                "properties": { "linux": { "commands": "sh -c 'while echo x; do sleep 1; done'" } } })
    };
    let mut silent = document(json!({ "idleSessionTimeout": "1" }));
    silent["properties"]["linux"]["commands"] = "sleep 1000".into();
    keep(&server, "Idle", &silent);
    keep(&server, "Long", &document(json!({ "maxSessionDuration": "1" })));
    let begun = Instant::now();
    let start = |name: &str| {
        let command = server.munjigi(&["run", "web-1", "--document", name]);
        std::thread::spawn(move || typed(command, ""))
    };
    let ended = [start("Idle"), start("Long")].map(|client| client.join().unwrap());
    assert!(begun.elapsed() >= Duration::from_secs(55), "both limits are a minute");
    for (ran, why) in ended.iter().zip(["idle for too long", "maximum duration"]) {
        assert!(!ran.status.success() && text(&ran.stderr).contains(why), "{ran:?}");
    }
    let history = server.aws_json(&["ssm", "describe-sessions", "--state", "History"]);
    let details = |document: &str| {
        let mut sessions = history["Sessions"].as_array().unwrap().iter();
        let found = sessions.find(|session| session["DocumentName"] == document);
        found.unwrap_or_else(|| panic!("{history}"))["Details"].as_str().unwrap().to_owned()
    };
    assert!(details("Idle").contains("idle"), "{history}");
    assert!(details("Long").contains("maximum duration"), "{history}");
}
