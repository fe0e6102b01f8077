//! The contract that scripts rely on, and the first steps of somebody new.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::faults::user;
use crate::harness::server::{children, is_alive};
use crate::harness::{TestServer, binary, output, success, wait_for};

/// Runs `munjigi …` for a person with an empty home directory.
fn at_home(home: &tempfile::TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env("HOME", home.path());
    for name in ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"]
    {
        command.env_remove(name);
    }
    command
}

fn home() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("munjigi-home-").tempdir().unwrap()
}

#[test]
fn up_with_a_command_is_that_command_and_leaves_its_session_behind() {
    let home = home();
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let script = "echo out; echo err >&2; exit 7";
    let ran = output(&mut at_home(&home, &["up", "--data-dir", data, "--", "sh", "-c", script]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&ran.stdout), "out\n", "{}", text(&ran.stderr));
    assert!(text(&ran.stderr).lines().any(|line| line == "err"), "{}", text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(7));

    let listed = success(&mut at_home(&home, &["sessions", "--data-dir", data, "--output", "json"]));
    let sessions: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(sessions.len(), 1, "{listed}");
    let id = sessions[0]["id"].as_str().unwrap();
    assert_eq!(sessions[0]["endReason"], "exited");
    assert_eq!(sessions[0]["exit"], 7);

    let played = output(&mut at_home(&home, &["play", id, "--text", "--data-dir", data]));
    assert!(text(&played.stdout).contains("out\n") && text(&played.stdout).contains("err\n"), "{played:?}");
    let cast = success(&mut at_home(&home, &["play", id, "--cast", "--data-dir", data]));
    let header: Value = serde_json::from_str(cast.lines().next().unwrap()).unwrap();
    assert_eq!(header["version"], 3);
    let trail = success(&mut at_home(&home, &["audit", "--output", "json", "--data-dir", data]));
    let events: Vec<Value> = trail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["StartSession", "EndSession"] {
        assert!(events.iter().any(|event| event["eventName"] == name), "no {name} in {trail}");
    }
    let end = events.iter().find(|event| event["eventName"] == "EndSession").unwrap();
    assert_eq!(end["additionalEventData"]["recordingId"], id);
    assert!(end["additionalEventData"]["recordingHash"].as_str().is_some_and(|hash| hash.len() == 64));
    success(&mut at_home(&home, &["verify", "--data-dir", data]));
}

#[test]
fn up_without_a_terminal_shows_a_recorded_command_and_the_server_is_found_afterwards() {
    let home = home();
    let up = output(&mut at_home(&home, &["up"]));
    assert!(up.status.success(), "{up:?}");
    let shown = String::from_utf8_lossy(&up.stderr).into_owned() + &String::from_utf8_lossy(&up.stdout);
    for line in ["sessions", "play", "audit", "verify"] {
        assert!(shown.contains(line), "{shown}");
    }
    let listed = success(&mut at_home(&home, &["sessions", "--output", "json"]));
    let sessions: Vec<Value> = serde_json::from_str(&listed).unwrap();
    assert_eq!(sessions.len(), 1);
    let nodes = success(&mut at_home(&home, &["ls", "--output", "json"]));
    assert_eq!(serde_json::from_str::<Vec<Value>>(&nodes).unwrap().len(), 1);
    let stopped = output(&mut at_home(&home, &["up", "--stop"]));
    assert!(stopped.status.success(), "{stopped:?}");
    let left = children_of_everybody(home.path().to_str().unwrap());
    assert!(left.is_empty(), "left running: {left:?}");
}

/// Finds processes whose command line names the directory.
fn children_of_everybody(directory: &str) -> Vec<String> {
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).unwrap() != own && is_alive(nix::unistd::Pid::from_raw(*pid)))
        .map(|pid| crate::harness::server::command_line(nix::unistd::Pid::from_raw(pid)))
        .filter(|line| line.contains(directory))
        .collect()
}

#[test]
fn a_first_start_makes_private_files_and_a_second_one_keeps_them() {
    let mut server = TestServer::start();
    let data = server.data_dir();
    let mode = |name: &str| std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin.credentials"), 0o600);
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let before = (read("ca.pem"), read("admin.credentials"), read("endpoint"));
    assert!(before.1.contains("[munjigi]"));
    assert_eq!(server.stop(), Some(0));
    server.start_again();
    assert_eq!(before, (read("ca.pem"), read("admin.credentials"), read("endpoint")));
}

#[test]
fn a_second_server_on_a_directory_and_a_taken_port_are_clear_errors() {
    let server = TestServer::start();
    let data = server.data_dir();
    let again = output(Command::new(binary()).arg("server").arg("--data-dir").arg(&data));
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("another munjigi server"), "{again:?}");
    let other = home();
    let address = server.address().to_string();
    let taken = output(Command::new(binary()).args(["server", "--listen", &address, "--data-dir"]).arg(other.path()));
    assert!(!taken.status.success());
    assert!(String::from_utf8_lossy(&taken.stderr).contains("taken"), "{taken:?}");
}

#[test]
fn bad_settings_are_refused_with_their_place() {
    let home = home();
    let config = home.path().join("munjigi.toml");
    let data = home.path().join("data");
    for (text, sign) in [
        ("listen = 7\n", "line 1"),
        ("[session]\nidle_timeout_seconds = 0\n", "line 2"),
        ("colour = \"blue\"\n", "colour"),
        ("[session]\n[session]\n", "session"),
        ("listen = \"\u{0}\"\n", "line 1"),
    ] {
        std::fs::write(&config, text).unwrap();
        let refused =
            output(Command::new(binary()).args(["server", "--config"]).arg(&config).arg("--data-dir").arg(&data));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains(sign) && !said.contains("panicked"), "{text:?}: {said}");
    }
}

#[test]
fn an_activation_works_once_and_its_code_is_taken_from_the_environment_only() {
    let server = TestServer::start();
    let (id, code) = server.activation();
    let join = |name: &str| {
        let mut join = Command::new(binary());
        join.args(["agent", "join", "--server", &server.url(None), "--name", name, "--ca"])
            .arg(server.data_dir().join("ca.pem"))
            .arg("--data-dir")
            .arg(server.directory().join(name))
            .env("MUNJIGI_ACTIVATION_ID", &id)
            .env("MUNJIGI_ACTIVATION_CODE", &code);
        join
    };
    success(&mut join("first"));
    let second = output(&mut join("second"));
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!said.contains(&code), "the code stands in the message: {said}");
    let known = server.aws_json(&["ssm", "describe-instance-information"]);
    assert_eq!(known["InstanceInformationList"].as_array().unwrap().len(), 1);
}

#[test]
fn nodes_are_found_by_name_tag_id_and_head_of_the_id() {
    let server = TestServer::start();
    let one = server.agent_through("web-1", &["Role=web"], None);
    let two = server.agent_through("db-1", &["Role=db"], None);
    let user = user();
    let head = &one.node[..10];
    for target in ["web-1", "WEB-1", one.node.as_str(), head, "tag:Role=web", "Role=web"] {
        let said =
            success(&mut server.munjigi(&["run", target, "--user", &user, "--", "printenv", "MUNJIGI_SESSION_ID"]));
        let session = server.sessions().remove(0);
        assert_eq!(said.trim(), session["id"].as_str().unwrap());
        assert_eq!(session["node"], "web-1", "{target}");
    }
    let nowhere = output(&mut server.munjigi(&["run", "absent", "--user", &user, "--", "true"]));
    assert_eq!(nowhere.status.code(), Some(255));
    drop(two);
    let gone = output(&mut server.munjigi(&["run", "db-1", "--user", &user, "--", "true"]));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("not connected"), "{gone:?}");
}

#[test]
fn the_aws_command_line_works_with_nothing_but_the_variables_of_env() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    let me = server.aws_json(&["sts", "get-caller-identity"]);
    assert!(me["Arn"].as_str().unwrap().ends_with(":user/admin"));
    server.aws_json(&["iam", "create-user", "--user-name", "alice"]);
    let key = server.aws_json(&["iam", "create-access-key", "--user-name", "alice"]);
    let policy =
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ssm:DescribeSessions","Resource":"*"}}"#;
    server.aws_json(&[
        "iam",
        "put-user-policy",
        "--user-name",
        "alice",
        "--policy-name",
        "look",
        "--policy-document",
        policy,
    ]);
    let nodes = server.aws_json(&["ssm", "describe-instance-information"]);
    let node = &nodes["InstanceInformationList"][0];
    assert_eq!(node["InstanceId"], agent.node.as_str());
    assert_eq!(node["PingStatus"], "Online");
    success(&mut server.munjigi(&["run", "web-1", "--user", &user(), "--", "true"]));
    let past = server.aws_json(&["ssm", "describe-sessions", "--state", "History"]);
    assert_eq!(past["Sessions"][0]["Status"], "Terminated");
    let filter = format!("key=Target,value={}", agent.node);
    let of_node = server.aws_json(&["ssm", "describe-sessions", "--state", "History", "--filters", &filter]);
    assert_eq!(of_node["Sessions"].as_array().unwrap().len(), 1);
    let attribute = "AttributeKey=EventName,AttributeValue=StartSession";
    let events = server.aws_json(&["cloudtrail", "lookup-events", "--lookup-attributes", attribute]);
    assert_eq!(events["Events"][0]["EventName"], "StartSession");
    // Alice may look, and no more; the refusal says why.
    let secret = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
    let as_alice = |arguments: &[&str]| {
        let mut command = server.aws(arguments);
        command.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
        command.env("AWS_ACCESS_KEY_ID", secret("AccessKeyId"));
        command.env("AWS_SECRET_ACCESS_KEY", secret("SecretAccessKey"));
        // Without the profile, this version of aws looks for its region here.
        command.env("AWS_DEFAULT_REGION", "local-1");
        output(&mut command)
    };
    assert!(as_alice(&["ssm", "describe-sessions", "--state", "Active"]).status.success());
    let denied = as_alice(&["iam", "list-users"]);
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(said.contains("AccessDenied") && said.contains("is not authorized to perform: iam:ListUsers"), "{said}");
}

#[test]
fn nothing_listens_in_the_agent() {
    let server = TestServer::start();
    let agent = server.agent("web-1");
    for half in [agent.spawn_half(), agent.link_half()] {
        let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{half}/fd"))
            .unwrap()
            .filter_map(|fd| Some(std::fs::read_link(fd.ok()?.path()).ok()?.to_str()?.to_owned()))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
            let rows = std::fs::read_to_string(format!("/proc/{half}/net/{table}")).unwrap_or_default();
            for row in rows.lines().skip(1) {
                let fields: Vec<&str> = row.split_whitespace().collect();
                // 0A is LISTEN; a datagram or raw socket hears everybody.
                let hears = fields[3] == "0A" || !table.starts_with("tcp");
                assert!(!(hears && sockets.iter().any(|inode| inode == fields[9])), "{half} listens: {row}");
            }
        }
    }
    assert!(!children(agent.spawn_half()).is_empty());
}

#[test]
fn pipes_carry_bytes_as_they_are_and_exit_codes_as_a_shell_gives_them() {
    let server = TestServer::start();
    let _agent = server.agent("web-1");
    let user = user();
    let run = |script: &str| server.munjigi(&["run", "web-1", "--user", &user, "--", "sh", "-c", script]);
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        assert_eq!(output(&mut run(script)).status.code(), Some(code), "{script}");
    }
    let missing = output(&mut server.munjigi(&["run", "web-1", "--user", &user, "--", "/no/such/program"]));
    assert_eq!(missing.status.code(), Some(127), "{missing:?}");
    // All 256 bytes, a mebibyte of them, through both pipes.
    let data: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut cat = run("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = cat.stdin.take().unwrap();
    let sent = data.clone();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent).unwrap());
    let echoed = cat.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(echoed.status.success());
    assert!(echoed.stdout == data, "{} bytes came back", echoed.stdout.len());
    wait_for("the end in the list", || (server.sessions()[0]["endReason"] == "exited").then_some(()));
}
