//! Temporary credentials: as boto3 and `aws` get and use them, and in sessions of our own client.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::{TestServer, binary, output, python_tool, success, wait_for};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/sts.py");

#[test]
fn roles_tokens_devices_and_providers_are_what_boto3_and_terraform_expect() {
    let server = TestServer::start();
    let mut program = Command::new(python_tool("python3"));
    program.arg(PROGRAM).env("AWS_EC2_METADATA_DISABLED", "true");
    server.configure(&mut program);
    assert_eq!(success(&mut program).trim(), "ok");
}

fn account(server: &TestServer) -> String {
    server.aws_json(&["sts", "get-caller-identity"])["Account"].as_str().unwrap().to_owned()
}

/// Makes a role that everybody in the account may assume, with tags, and what it may do.
fn role(server: &TestServer, name: &str, permissions: &Value) -> String {
    let trust = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow",
        "Principal": { "AWS": account(server) }, "Action": ["sts:AssumeRole", "sts:TagSession"] } });
    let trust = trust.to_string();
    let made = server.aws_json(&["iam", "create-role", "--role-name", name, "--assume-role-policy-document", &trust]);
    let document = json!({ "Version": "2012-10-17", "Statement": permissions }).to_string();
    let put = ["iam", "put-role-policy", "--role-name", name, "--policy-name", "own", "--policy-document", &document];
    success(&mut server.aws(&put));
    made["Role"]["Arn"].as_str().unwrap().to_owned()
}

/// Has a command use the credentials of a new session of a role.
fn as_role(server: &TestServer, command: &mut Command, role: &str, name: &str, team: &str) {
    let tag = format!("Key=team,Value={team}");
    let assume = ["sts", "assume-role", "--role-arn", role, "--role-session-name", name, "--tags", &tag];
    let credentials = server.aws_json(&assume)["Credentials"].clone();
    let field = |name: &str| credentials[name].as_str().unwrap().to_owned();
    command.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
    command.env("AWS_ACCESS_KEY_ID", field("AccessKeyId")).env("AWS_SECRET_ACCESS_KEY", field("SecretAccessKey"));
    command.env("AWS_SESSION_TOKEN", field("SessionToken"));
}

#[test]
fn a_role_session_opens_what_its_tag_allows_and_ends_with_its_roles_permission() {
    let server = TestServer::start();
    let _agent = server.agent_through("web-1", &["team=blue"], None);
    // Only nodes of the session's own team, and the choice of the account that the tests run as.
    let own = json!([
        { "Effect": "Allow", "Action": ["ssm:StartSession", "munjigi:*"], "Resource": "*",
          "Condition": { "StringEquals": { "aws:ResourceTag/team": "${aws:PrincipalTag/team}" } } },
        { "Effect": "Allow", "Action": ["ssm:StartSession"], "Resource": "arn:aws:ssm:*:*:document/*" },
        { "Effect": "Allow", "Action": ["munjigi:ListNodes", "ssm:DescribeInstanceInformation"], "Resource": "*" },
    ]);
    let arn = role(&server, "ops", &own);
    let run = |name: &str, team: &str, script: &str| {
        let mut command = server.munjigi(&["run", "web-1", "--user", &user(), "--", "sh", "-c", script]);
        as_role(&server, &mut command, &arn, name, team);
        command
    };
    let refused = output(&mut run("red-work", "red", "echo in"));
    assert!(!refused.status.success(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("assumed-role/ops/red-work"), "{refused:?}");
    let ran = output(&mut run("blue-work", "blue", "echo in; exit 3"));
    assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stdout).as_ref()), (Some(3), "in\n"), "{ran:?}");
    let session = server.sessions().into_iter().find(|session| session["owner"].to_string().contains("blue-work"));
    let session = session.unwrap();
    assert!(session["id"].as_str().unwrap().starts_with("blue-work-"), "{session}");

    let mut client = run("long-work", "blue", "echo here; sleep 600")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _stdin = client.stdin.take();
    let mut first = [0; 5];
    std::io::Read::read_exact(client.stdout.as_mut().unwrap(), &mut first).unwrap();
    success(&mut server.aws(&["iam", "delete-role-policy", "--role-name", "ops", "--policy-name", "own"]));
    assert!(!client.wait().unwrap().success());
    let ended = wait_for("the end of the session in the list", || {
        let all = server.sessions();
        let found = all.into_iter().find(|session| session["owner"].to_string().contains("long-work"))?;
        found["endReason"].as_str().map(str::to_owned)
    });
    assert_eq!(ended, "revoked");
}

#[test]
fn a_profile_of_aws_gets_its_credentials_from_our_program() {
    let server = TestServer::start();
    let arn = role(&server, "ops", &json!({ "Effect": "Allow", "Action": "ssm:DescribeSessions", "Resource": "*" }));
    let config = server.directory().join("config");
    let process = format!("{} credential-process --profile munjigi", binary());
    let profiles = format!(
        "[profile ops]\ncredential_process = {process} --role-arn {arn} --role-session-name work\n\
         [profile mine]\ncredential_process = {process} --duration 900\n\
         [profile broken]\ncredential_process = {process} --role-arn {arn}-that-is-not-there\n"
    );
    std::fs::write(&config, profiles).unwrap();
    let aws = |arguments: &[&str]| {
        let mut command = server.aws(arguments);
        command.env("AWS_CONFIG_FILE", &config).env_remove("AWS_PROFILE").args(["--output", "json"]);
        command
    };
    let me = success(&mut aws(&["sts", "get-caller-identity", "--profile", "ops"]));
    assert!(me.contains("assumed-role/ops/work"), "{me}");
    success(&mut aws(&["ssm", "describe-sessions", "--state", "Active", "--profile", "ops"]));
    let me = success(&mut aws(&["sts", "get-caller-identity", "--profile", "mine"]));
    assert!(me.contains("user/admin"), "{me}");
    let broken = output(&mut aws(&["sts", "get-caller-identity", "--profile", "broken"]));
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!broken.status.success() && said.contains("not authorized to perform: sts:AssumeRole"), "{said}");

    let printed = success(&mut server.munjigi(&["credential-process", "--role-arn", &arn]));
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((&printed["Version"], printed["AccountId"].as_str()), (&json!(1), Some(account(&server).as_str())));
    assert!(printed["AccessKeyId"].as_str().unwrap().starts_with("ASIA"));
    assert!(printed["Expiration"].as_str().unwrap().ends_with('Z'));
}
