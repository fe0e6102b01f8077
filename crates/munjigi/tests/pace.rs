//! How fast one person may start sessions, on how many nodes, through whatever door (T-92).

use serde_json::{Value, json};

use crate::faults::user;
use crate::forward::{echo, exchange};
use crate::harness::{TestForward, TestServer, TestSsh, output, success, wait_for};

fn server(limits: &str) -> TestServer {
    let os_user = user();
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{os_user}\"\n[limits]\n{limits}"))
}

fn events(server: &TestServer, name: &str) -> Vec<Value> {
    let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", name]));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asks until it is refused, and returns the words: on a slow machine what was started first is forgotten meanwhile.
fn refused(what: &str, mut ask: impl FnMut() -> Result<(), String>) -> String {
    wait_for(&format!("{what} to be refused"), || ask().err())
}

fn ran(code: Option<i32>, said: String) -> Result<(), String> {
    if code == Some(0) { Ok(()) } else { Err(said) }
}

#[test]
fn more_starts_in_a_minute_than_allowed_are_refused_at_every_door() {
    let server = server("starts_per_minute = 3\nnodes_per_minute = 1000\n");
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let far = echo();
    let run = || {
        let output = output(&mut server.munjigi(&["run", "web-1", "--", "true"]));
        ran(output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for _ in 0..3 {
        assert_eq!(run(), Ok(()));
    }
    let stock = |arguments: &[&str]| {
        let ran_it = ssh.ssh(&[&["-o", "LogLevel=INFO"], arguments].concat());
        ran(ran_it.code, ran_it.err)
    };
    let to = format!("localhost:{far}");
    let aws = || {
        let mut aws = server.aws(&["ssm", "start-session", "--target", "web-1"]);
        // Its answer is its own affair: the plugin is told to do nothing.
        let output = output(aws.env("AWS_MAX_ATTEMPTS", "1").env("PATH", without_plugin(&server)));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("ThrottlingException") { Err(said) } else { Ok(()) }
    };
    for (door, said) in [
        ("our own client", refused("our own client", run)),
        ("ssh", refused("ssh", || stock(&["web-1.munjigi", "true"]))),
        ("a forward over ssh", refused("a forward", || stock(&["-W", &to, "web-1.munjigi"]))),
        ("aws", refused("aws", aws)),
    ] {
        assert!(said.contains("no more than 3 sessions of one principal may start in a minute"), "{door}: {said}");
        assert!(said.contains("try again in"), "{door}: {said}");
    }
    // Somebody else has a minute of his own.
    server.aws_json(&["iam", "create-user", "--user-name", "bob"]);
    let policy = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": "*", "Resource": "*" } });
    let put = ["iam", "put-user-policy", "--user-name", "bob", "--policy-name", "p", "--policy-document"];
    server.aws_json(&[&put[..], &[&policy.to_string()]].concat());
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "bob"]);
    let field = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let bob = TestSsh::of(&server).acting_as(&field("AccessKeyId"), &field("SecretAccessKey"));
    assert_eq!(bob.ssh(&["web-1.munjigi", "echo in"]).success(), "in\n");
    // Each refusal is in the trail, and one alarm about them for each minute.
    let denied = events(&server, "StartSession");
    let throttled = denied.iter().filter(|event| event["errorCode"] == "ThrottlingException").count();
    let alarms = events(&server, "StartLimitExceeded");
    assert!(throttled >= 3 && !alarms.is_empty() && alarms.len() < throttled, "{throttled} {alarms:?}");
    let who = alarms[0]["additionalEventData"]["principal"].as_str().unwrap();
    assert!(who.ends_with(":user/admin"), "{alarms:?}");
}

/// Returns a search path without AWS's plugin.
fn without_plugin(server: &TestServer) -> std::ffi::OsString {
    let empty = server.directory().join("no-plugin");
    std::fs::create_dir_all(&empty).unwrap();
    empty.into_os_string()
}

#[test]
fn more_nodes_in_a_minute_than_allowed_are_refused() {
    let server = server("starts_per_minute = 1000\nnodes_per_minute = 2\n");
    let _agents = ["web-1", "web-2", "web-3"].map(|name| server.agent(name));
    let ssh = TestSsh::of(&server);
    let enter = |node: &str| {
        let ran_it = ssh.ssh(&[&format!("{node}.munjigi"), "true"]);
        ran(ran_it.code, ran_it.err)
    };
    let mut turn = ["web-1", "web-2", "web-3"].into_iter().cycle();
    let said = refused("the third node", || enter(turn.next().unwrap()));
    assert!(said.contains("no more than 2 different nodes may be entered by one principal in a minute"), "{said}");
    // Where one is already one may go on.
    wait_for("a node that was entered already", || enter("web-2").ok());
    assert_eq!(enter("web-2"), Ok(()));
}

#[test]
fn a_limited_forward_carries_everything_and_says_once_that_it_was_held_up() {
    // Ten seconds' worth pass at once: 200 000 bytes.
    let server = server("forward_bytes_per_second = 20000\n");
    let _agent = server.agent("web-1");
    let forward = TestForward::start(&server, &["web-1", &format!("0:127.0.0.1:{}", echo())]);
    let alarms = || {
        let mut alarms = events(&server, "ForwardRateExceeded");
        alarms.retain(|event| event["additionalEventData"]["sessionId"] == forward.session());
        alarms
    };
    assert_eq!(exchange(forward.port(0), "no wait for a little").unwrap(), "no wait for a little");
    assert!(alarms().is_empty());
    let text = "0123456789".repeat(6_000);
    for _ in 0..2 {
        assert!(exchange(forward.port(0), &text).unwrap() == text, "something was lost or changed on the way");
    }
    wait_for("the alarm", || (!alarms().is_empty()).then_some(()));
    let alarms = alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["additionalEventData"]["bytesPerSecond"], 20_000, "{alarms:?}");
    let owner = alarms[0]["additionalEventData"]["owner"].as_str().unwrap();
    assert!(owner.ends_with(":user/admin"), "{alarms:?}");
    // Another session begins with a full bucket of its own.
    let other = TestForward::start(&server, &["web-1", &format!("0:127.0.0.1:{}", echo())]);
    assert_eq!(exchange(other.port(0), "at once").unwrap(), "at once");
}
