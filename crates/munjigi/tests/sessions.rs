//! Running sessions: limits, revocation, watchers, termination, a reader who stops, and what is left on disk.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use crate::faults::user;
use crate::harness::{TestServer, output, success, wait_for};

/// Starts a command that stays, and waits until it said `ready`.
fn start(server: &TestServer, arguments: &[&str]) -> Child {
    let mut command = server.munjigi(arguments);
    begin(&mut command)
}

fn begin(command: &mut Command) -> Child {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"ready") {
        let mut byte = [0];
        let count = child.stdout.as_mut().unwrap().read(&mut byte).unwrap();
        assert!(count == 1, "ended before it was ready: {:?}", child.wait_with_output());
        seen.push(byte[0]);
    }
    child
}

const STAY: &str = "printf ready; cat";

fn ended(server: &TestServer, reason: &str) {
    let last = wait_for("the session's end", || {
        let session = server.sessions().remove(0);
        session["endReason"].is_string().then_some(session)
    });
    assert_eq!(last["endReason"], reason, "{last}");
}

#[test]
fn an_idle_session_is_warned_and_ended() {
    let server = TestServer::with_config("[session]\nidle_timeout_seconds = 3\n");
    let _agent = server.agent("web-1");
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
    // Its standard input stays open and silent.
    let _stdin = client.stdin.take();
    let ended_client = client.wait_with_output().unwrap();
    assert!(!ended_client.status.success());
    let said = String::from_utf8_lossy(&ended_client.stderr).into_owned();
    assert!(said.contains("idle"), "{said}");
    ended(&server, "idle-timeout");
}

#[test]
fn a_session_that_prints_is_idle_only_where_output_does_not_count() {
    let server = TestServer::with_config("[session]\nidle_timeout_seconds = 2\nidle_counts_output = false\n");
    let _agent = server.agent("web-1");
    let script = "printf ready; while :; do echo tick; sleep 0.2; done";
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", script]);
    let _stdin = client.stdin.take();
    assert!(!client.wait_with_output().unwrap().status.success());
    ended(&server, "idle-timeout");
}

#[test]
fn a_session_ends_at_its_maximum_duration() {
    let server = TestServer::with_config("[session]\nmaximum_duration_seconds = 2\n");
    let _agent = server.agent("web-1");
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
    let _stdin = client.stdin.take();
    assert!(!client.wait().unwrap().success());
    ended(&server, "maximum-duration");
}

#[test]
fn kill_ends_everything_that_the_session_started() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let mark = format!("7{}", std::process::id());
    let script = format!("sleep {mark} & setsid sleep {mark} & printf ready; cat");
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", &script]);
    let _stdin = client.stdin.take();
    let id = server.sessions().remove(0)["id"].as_str().unwrap().to_owned();
    success(&mut server.munjigi(&["kill", &id]));
    assert!(!client.wait().unwrap().success());
    ended(&server, "terminated");
    wait_for("the end of its background programs", || {
        let sleeping = output(Command::new("pgrep").args(["-f", &format!("sleep {mark}")]));
        sleeping.stdout.is_empty().then_some(())
    });
}

#[test]
fn a_session_ends_when_its_permission_goes() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["ssm:StartSession","munjigi:ChooseOsUser","munjigi:StartPrivilegedSession"],"Resource":"*"}}"#;
    let put = |name: &str| {
        server.aws_json(&[
            "iam",
            "put-user-policy",
            "--user-name",
            name,
            "--policy-name",
            "p",
            "--policy-document",
            policy,
        ])
    };
    type Change<'a> = Box<dyn Fn(&str, &str) + 'a>;
    let changes: [(&str, Change<'_>); 3] = [
        (
            "policy",
            Box::new(|name, _| {
                server.aws_json(&["iam", "delete-user-policy", "--user-name", name, "--policy-name", "p"]);
            }),
        ),
        (
            "key",
            Box::new(|name, key| {
                server.aws_json(&[
                    "iam",
                    "update-access-key",
                    "--user-name",
                    name,
                    "--access-key-id",
                    key,
                    "--status",
                    "Inactive",
                ]);
            }),
        ),
        (
            "user",
            Box::new(|name, key| {
                server.aws_json(&["iam", "delete-user-policy", "--user-name", name, "--policy-name", "p"]);
                server.aws_json(&["iam", "delete-access-key", "--user-name", name, "--access-key-id", key]);
                server.aws_json(&["iam", "delete-user", "--user-name", name]);
            }),
        ),
    ];
    for (name, change) in changes {
        server.aws_json(&["iam", "create-user", "--user-name", name]);
        put(name);
        let made = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
        let field = |field: &str| made["AccessKey"][field].as_str().unwrap().to_owned();
        let mut command = server.munjigi(&["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
        command.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
        command.env("AWS_ACCESS_KEY_ID", field("AccessKeyId")).env("AWS_SECRET_ACCESS_KEY", field("SecretAccessKey"));
        let mut client = begin(&mut command);
        let _stdin = client.stdin.take();
        change(name, &field("AccessKeyId"));
        assert!(!client.wait().unwrap().success(), "{name}");
        ended(&server, "revoked");
    }
}

#[test]
fn a_watcher_sees_what_the_person_sees_and_types_nothing() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
    let id = server.sessions().remove(0)["id"].as_str().unwrap().to_owned();
    let mut watcher = begin(&mut server.munjigi(&["watch", &id]));
    watcher.stdin.take().unwrap().write_all(b"not for you\n").unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all("안녕\n".as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut stdout = watcher.stdout.take().unwrap();
    while !seen.ends_with("안녕\n".as_bytes()) {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1);
        seen.push(byte[0]);
    }
    drop(stdin);
    let rest = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&rest.stdout), "안녕\n");
    assert!(watcher.wait().unwrap().success());
}

/// Makes a user with a policy and a key; returns a maker of its commands, and the key's id.
fn person<'s>(server: &'s TestServer, name: &str, policy: &str) -> (impl Fn(&[&str]) -> Command + 's, String) {
    server.aws_json(&["iam", "create-user", "--user-name", name]);
    let tag = format!("Key=SSMSessionRunAs,Value={}", user());
    server.aws_json(&["iam", "tag-user", "--user-name", name, "--tags", &tag]);
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", policy];
    server.aws_json(&put);
    let made = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
    let field = |field: &str| made["AccessKey"][field].as_str().unwrap().to_owned();
    let (id, secret) = (field("AccessKeyId"), field("SecretAccessKey"));
    let key = id.clone();
    let command = move |arguments: &[&str]| {
        let mut command = server.munjigi(arguments);
        command.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
        command.env("AWS_ACCESS_KEY_ID", &id).env("AWS_SECRET_ACCESS_KEY", &secret);
        command
    };
    (command, key)
}

#[test]
fn a_policy_can_allow_commands_and_no_shells() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let policy = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":["ssm:StartSession"],"Resource":"arn:aws:ssm:*:*:managed-instance/*",
         "Condition":{"Bool":{"ssm:SessionDocumentAccessCheck":"true"}}},
        {"Effect":"Allow","Action":"ssm:StartSession","Resource":"arn:aws:ssm:*:*:document/AWS-StartNonInteractiveCommand"},
        {"Effect":"Allow","Action":"munjigi:StartPrivilegedSession","Resource":"*"}]}"#;
    let (alice, _) = person(&server, "alice", policy);
    assert_eq!(success(&mut alice(&["run", "web-1", "--", "echo", "commands"])), "commands\n");
    let refused = output(&mut alice(&["shell", "web-1"]));
    assert_eq!(refused.status.code(), Some(255));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("document/SSM-SessionManagerRunShell"), "{said}");
}

#[test]
fn a_watcher_is_sent_away_when_permission_or_key_goes() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
    let _stdin = client.stdin.take();
    let id = server.sessions().remove(0)["id"].as_str().unwrap().to_owned();
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow",
        "Action":["munjigi:WatchSession","ssm:DescribeSessions"],"Resource":"*"}}"#;
    for name in ["policy", "key"] {
        let (command, key) = person(&server, name, policy);
        let mut watcher = begin(&mut command(&["watch", &id]));
        if name == "policy" {
            server.aws_json(&["iam", "delete-user-policy", "--user-name", name, "--policy-name", "p"]);
        } else {
            let state = ["--access-key-id", &key, "--status", "Inactive"];
            server.aws_json(&[&["iam", "update-access-key", "--user-name", name][..], &state].concat());
        }
        drop(watcher.stdin.take());
        let left = watcher.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&left.stderr).into_owned();
        // With the key goes the link as well; which of both the watcher hears of first is chance.
        assert!(["taken away", "security token"].iter().any(|sign| said.contains(sign)), "{name}: {left:?}");
    }
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_client_that_stops_reading_blocks_its_program_and_nobody_else() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let resident = |pid: nix::unistd::Pid| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = (resident(server.pid()), resident(agent.link_half()));
    let count = server.directory().join("count");
    // Counts what it could write, so that a blocked program is seen as one.
    let program = format!(
        "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_DFL)\nos.write(1, b'ready')\nn = 0\nwhile True:\n    os.write(1, b'y' * 65536)\n    n += 1\n    open({:?}, 'w').write(str(n))\n",
        count.to_str().unwrap()
    );
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "python3", "-c", &program]);
    let written = || std::fs::read_to_string(&count).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    // Nobody reads the client's output: in the end the program stands still.
    let stood_at = wait_for("the program to block", || {
        let first = written();
        std::thread::sleep(std::time::Duration::from_millis(500));
        (first > 0 && written() == first).then_some(first)
    });
    assert!(stood_at < 256, "{stood_at} times 64 KiB were taken");
    let grown = (resident(server.pid()) - before.0, resident(agent.link_half()).saturating_sub(before.1));
    assert!(grown.0 < 12 * 1024 && grown.1 < 6 * 1024, "grown by {grown:?} KiB");
    assert_eq!(success(&mut server.munjigi(&["run", "web-1", "--user", &user(), "--", "echo", "free"])), "free\n");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(client.id()).unwrap()),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    // Its last output is still unread, so the session lasts; the program does not.
    wait_for("the blocked program's end", || {
        let mark = count.to_str().unwrap();
        output(Command::new("pgrep").args(["-f", &format!("^python3 -c .*{mark}")])).stdout.is_empty().then_some(())
    });
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the blocked session's end", || {
        let ended = |session: &serde_json::Value| {
            let is_it = session["command"].as_array().is_some_and(|words| words[0] == "python3");
            is_it && session["endReason"].is_string()
        };
        server.sessions().iter().any(ended).then_some(())
    });
}

#[test]
fn a_session_whose_recording_cannot_begin_does_not_start_and_is_over() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let ran = server.directory().join("ran");
    let mark = ran.to_str().unwrap();
    let touch = || output(&mut server.munjigi(&["run", "web-1", "--user", &user(), "--", "touch", mark]));
    // A file stands where the year's directory of recordings would be made.
    let year = success(Command::new("date").args(["-u", "+%Y"]));
    let in_the_way = server.data_dir().join("recordings").join(year.trim());
    std::fs::write(&in_the_way, "").unwrap();
    let refused = touch();
    assert_eq!(refused.status.code(), Some(255), "{refused:?}");
    assert!(!ran.exists(), "an unrecorded program ran");
    ended(&server, "recording-failed");
    std::fs::remove_file(&in_the_way).unwrap();
    let again = touch();
    assert!(again.status.success() && ran.exists(), "{again:?}");
    ended(&server, "exited");
}

#[test]
fn what_was_typed_and_every_secret_are_nowhere_in_plain_text() {
    let mut server = TestServer::start();
    let _agent = server.agent("web-1");
    let marker = "marker-4f6c1d9e-안녕";
    let mut client = start(&server, &["run", "web-1", "--user", &user(), "--", "sh", "-c", STAY]);
    client.stdin.take().unwrap().write_all(marker.as_bytes()).unwrap();
    assert_eq!(client.wait_with_output().unwrap().stdout, marker.as_bytes());
    let credentials = std::fs::read_to_string(server.data_dir().join("admin.credentials")).unwrap();
    let secret = credentials.lines().find_map(|line| line.strip_prefix("aws_secret_access_key = ")).unwrap().to_owned();
    let (_, code) = server.activation();
    assert_eq!(server.stop(), Some(0));
    let mut read = 0;
    for path in files(&server.data_dir()) {
        let bytes = std::fs::read(&path).unwrap();
        read += bytes.len();
        for plain in [marker, secret.as_str(), code.as_str()] {
            let own = path.ends_with("admin.credentials") && plain == secret;
            let found = bytes.windows(plain.len()).any(|window| window == plain.as_bytes());
            assert!(own || !found, "{} holds {plain}", path.display());
        }
    }
    assert!(read > 10_000);
}

#[test]
fn every_change_to_trail_or_recordings_is_found() {
    let mut server = TestServer::start();
    let _agent = server.agent("web-1");
    for text in ["one", "two"] {
        success(&mut server.munjigi(&["run", "web-1", "--user", &user(), "--", "echo", text]));
    }
    let data = server.data_dir();
    let verify = |server: &TestServer| output(&mut server.munjigi(&["verify", "--data-dir", data.to_str().unwrap()]));
    assert!(verify(&server).status.success());
    assert_eq!(server.stop(), Some(0));
    assert!(verify(&server).status.success(), "{:?}", verify(&server));
    let evidence: Vec<_> = files(&data)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "mjr" || ending == "log"))
        .collect();
    assert!(evidence.len() >= 3, "{evidence:?}");
    for path in evidence {
        let whole = std::fs::read(&path).unwrap();
        let at = whole.len() / 2;
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let mut shorter = whole.clone();
        shorter.remove(at);
        let mut longer = whole.clone();
        longer.insert(at, b'x');
        for (what, changed) in [("changed", flipped), ("removed", shorter), ("inserted", longer)] {
            std::fs::write(&path, changed).unwrap();
            let found = verify(&server);
            assert!(!found.status.success(), "a byte {what} in {} was not found", path.display());
        }
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(verify(&server).status.success());
}

fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}
