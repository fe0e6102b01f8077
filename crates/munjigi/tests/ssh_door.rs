//! The SSH door, with OpenSSH's own client.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::ssh::end;
use crate::harness::{Terminal, TestServer, TestSsh, free_port, output, success, wait_for};

/// Starts a server whose sessions run as the test's own user.
fn server() -> TestServer {
    server_with("")
}

fn server_with(settings: &str) -> TestServer {
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n{settings}", user()))
}

/// Starts a command that stays, and waits until it said `ready`.
fn begin(mut command: Command) -> Child {
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

/// Waits until the newest session has ended, and returns it.
fn ended(server: &TestServer) -> Value {
    wait_for("the session's end", || {
        let session = server.sessions().remove(0);
        session["endReason"].is_string().then_some(session)
    })
}

/// Waits for events of the trail.
fn events(server: &TestServer, name: &str, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    wait_for(&format!("the event {name}"), || {
        let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
        let events = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let found: Vec<Value> = events.filter(|event| event["eventName"] == name && wanted(event)).collect();
        (!found.is_empty()).then_some(found)
    })
}

/// Makes a user with a policy and a key; returns the key's id and secret.
fn person(server: &TestServer, name: &str, statement: &Value) -> (String, String) {
    server.aws_json(&["iam", "create-user", "--user-name", name]);
    put_policy(server, name, statement);
    let made = server.aws_json(&["iam", "create-access-key", "--user-name", name]);
    let field = |field: &str| made["AccessKey"][field].as_str().unwrap().to_owned();
    (field("AccessKeyId"), field("SecretAccessKey"))
}

fn put_policy(server: &TestServer, name: &str, statement: &Value) {
    let policy = json!({ "Version": "2012-10-17", "Statement": statement }).to_string();
    let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p", "--policy-document", &policy];
    success(&mut server.aws(&put));
}

#[test]
fn commands_run_by_the_login_shell_with_their_streams_and_exit_codes() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let ran = ssh.ssh(&["web-1.munjigi", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(7), "out\n", "err\n"));
    // Words are joined by one blank and read by a shell, as with sshd.
    assert_eq!(ssh.ssh(&["web-1.munjigi", "printf", "%s-", "a  b", "'c  d'", "한글"]).success(), "a-b-c  d-한글-");
    assert_eq!(ssh.ssh_with(&["web-1.munjigi", "wc -c"], &vec![b'x'; 3_000_000]).success().trim(), "3000000");
    assert_eq!(ssh.ssh_with(&["-T", "web-1.munjigi"], b"echo $((40+2))\nexit 5\n").code, Some(5));
    let killed = ssh.ssh(&["web-1.munjigi", "kill -TERM $$"]);
    assert_eq!(killed.code, Some(255), "ssh's own number for a program that a signal ended: {killed:?}");
    let script = "test -z \"$SSH_ORIGINAL_COMMAND\" && test -n \"$SSH_CONNECTION\" && echo $LANG";
    assert_eq!(ssh.ssh(&["web-1.munjigi", script]).success(), "C.UTF-8\n");
    // What the client may not set is left out.
    let ran = ssh.ssh(&["-o", "SetEnv=LD_PRELOAD=/x LC_TIME=ko_KR.UTF-8", "web-1.munjigi", "echo $LD_PRELOAD$LC_TIME"]);
    assert_eq!(ran.success(), "ko_KR.UTF-8\n");
    let unknown = ssh.ssh(&["web-2.munjigi", "true"]);
    assert_eq!(unknown.code, Some(255));
    assert!(unknown.err.contains("web-2 is not connected"), "{unknown:?}");
    let subsystem = ssh.ssh(&["-s", "web-1.munjigi", "netconf"]);
    assert!(subsystem.err.contains("subsystem request failed"), "{subsystem:?}");
}

#[test]
fn bulk_goes_both_ways_at_once_and_over_new_keys() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    // 48 MiB each way with the keys changed every MiB.
    let script = "ssh -F \"$0\" -o RekeyLimit=1M web-1.munjigi cat < \"$1\" | cmp - \"$1\" && echo same";
    let bulk = ssh.path("bulk");
    success(Command::new("sh").args(["-c", "head -c 50331648 /dev/urandom > \"$0\""]).arg(&bulk));
    let mut pipe = ssh.command("sh", &["-c", script]);
    pipe.arg(ssh.config()).arg(&bulk);
    assert_eq!(success(&mut pipe), "same\n");
    let session = ended(&server);
    assert_eq!((&session["endReason"], &session["exit"]), (&json!("exited"), &json!(0)), "{session}");
    let recorded = output(&mut server.munjigi(&["play", session["id"].as_str().unwrap(), "--text", "--raw"])).stdout;
    assert!(recorded == std::fs::read(&bulk).unwrap(), "the recording has other bytes");
}

#[test]
fn a_terminal_has_its_size_signals_and_hangul_and_is_recorded() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let mut terminal = Terminal::run(&ssh.command("ssh", &["-t", "web-1.munjigi", "exec sh"]), 24, 80);
    terminal.type_in("PS1=; stty size; echo TERM=$TERM\r");
    terminal.expect("24 80");
    terminal.expect("TERM=xterm-256color");
    terminal.resize(50, 132);
    terminal.type_in("echo 문지기 $((40+2)) 한글; stty size\r");
    terminal.expect("문지기 42 한글");
    terminal.expect("50 132");
    terminal.type_in("trap 'echo cau''ght' INT; sleep 100\r");
    terminal.expect("sleep 100");
    // Until the shell has the trap and waits, the key may come too early for it.
    wait_for("the trap", || {
        terminal.type_in("\x03");
        std::thread::sleep(std::time::Duration::from_millis(100));
        terminal.screen().contains("caught").then_some(())
    });
    terminal.type_in("exit 9\r");
    assert_eq!(terminal.end(), Some(9));
    let session = ended(&server);
    assert_eq!((&session["endReason"], &session["exit"]), (&json!("exited"), &json!(9)));
    let shown = success(&mut server.munjigi(&["play", session["id"].as_str().unwrap(), "--text"]));
    assert!(shown.contains("문지기 42 한글"), "{shown}");
}

#[test]
fn a_channel_that_is_left_ends_its_session() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let mut client = begin(ssh.command("ssh", &["web-1.munjigi", "printf ready; exec sleep 1000"]));
    wait_for("the session in the list", || (server.sessions()[0]["status"] == "Connected").then_some(()));
    client.kill().unwrap();
    client.wait().unwrap();
    let session = ended(&server);
    assert!(["client-lost", "terminated"].contains(&session["endReason"].as_str().unwrap()), "{session}");
}

#[test]
fn one_connection_carries_many_channels() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let socket = ssh.path("mux");
    let socket = socket.to_str().unwrap();
    let mut master = ssh.command("ssh", &["-M", "-N", "-S", socket, "web-1.munjigi"]).spawn().unwrap();
    wait_for("the master", || {
        let mut check = ssh.command("ssh", &["-S", socket, "-O", "check", "web-1.munjigi"]);
        output(&mut check).status.success().then_some(())
    });
    std::thread::scope(|scope| {
        let ssh = &ssh;
        let runs: Vec<_> = (0..16)
            .map(|n| {
                scope.spawn(move || {
                    let script = format!("echo {n}; cat; exit {n}");
                    let ran = ssh.ssh_with(&["-S", socket, "web-1.munjigi", &script], &vec![b'.'; 200_000]);
                    assert_eq!((ran.code, ran.out.len()), (Some(n), 200_001 + n.to_string().len()), "{}", ran.err);
                })
            })
            .collect();
        runs.into_iter().for_each(|run| run.join().unwrap());
    });
    assert!(output(&mut ssh.command("ssh", &["-S", socket, "-O", "exit", "web-1.munjigi"])).status.success());
    end(&mut master, "the master");
    assert_eq!(server.sessions().len(), 16);
}

#[test]
fn a_pushed_key_lets_its_owner_in_from_outside_and_nobody_else() {
    let server = server_with("[instance_connect]\nsingle_use = false\n");
    let agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let node = agent.node.replacen("mi-", "i-", 1);
    let login = format!("{}%web-1", user());
    let stranger = ssh.ssh(&["-l", &login, "gate", "true"]);
    assert_eq!(stranger.code, Some(255));
    assert!(stranger.err.contains("Permission denied (publickey,keyboard-interactive)"), "{stranger:?}");
    events(&server, "AuthenticateSsh", |event| event["errorCode"] == "NobodyProved");

    let key = format!("file://{}", ssh.path("id.pub").display());
    let pushed = server.aws_json(&[
        "ec2-instance-connect",
        "send-ssh-public-key",
        "--instance-id",
        &node,
        "--instance-os-user",
        &user(),
        "--ssh-public-key",
        &key,
    ]);
    assert_eq!(pushed["Success"], true);
    assert_eq!(ssh.ssh(&["-l", &login, "gate", "echo in"]).success(), "in\n");
    // The host's key is the one that was seen before, on every road.
    assert_eq!(ssh.ssh(&["-l", "web-1", "gate", "echo in"]).success(), "in\n");
    // The key is offered, but whoever has only its public half proves nothing.
    ssh.new_key("other");
    std::fs::copy(ssh.path("id.pub"), ssh.path("other.pub")).unwrap();
    let other = ssh.path("other");
    let unproved = ssh.ssh(&[
        "-F",
        "none",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-i",
        other.to_str().unwrap(),
        "-o",
        "BatchMode=yes",
        "-p",
        &server.address().port().to_string(),
        "-l",
        &login,
        "127.0.0.1",
        "true",
    ]);
    assert_ne!(unproved.code, Some(0));
    assert!(unproved.err.contains("Permission denied") || unproved.err.contains("sign"), "{unproved:?}");
    let starts = events(&server, "StartSession", |event| event["additionalEventData"]["ssh"].is_object());
    assert_eq!(starts[0]["additionalEventData"]["authenticationMethod"], "SshPushedKey", "{}", starts[0]);
}

#[test]
fn whoever_says_nothing_hears_that_this_is_ssh_and_weak_algorithms_are_not_there() {
    let server = server();
    let mut silent = std::net::TcpStream::connect(server.address()).unwrap();
    let mut said = [0; 16];
    silent.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"SSH-2.0-Munjigi_");
    // It has its time limit still.
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    let ssh = TestSsh::of(&server);
    for option in [
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "KexAlgorithms=ecdh-sha2-nistp256",
        "Ciphers=aes256-cbc",
        "Ciphers=aes256-ctr",
        "HostKeyAlgorithms=ssh-rsa",
    ] {
        let refused = ssh.ssh(&["-o", "LogLevel=INFO", "-o", option, "gate", "true"]);
        assert!(refused.err.contains("no matching") || refused.err.contains("closed"), "{option}: {refused:?}");
    }
}

#[test]
fn sessions_are_watched_killed_and_end_with_their_permission() {
    let server = server();
    let _agent = server.agent("web-1");
    let all = json!([{ "Effect": "Allow", "Action": ["ssm:StartSession", "munjigi:StartPrivilegedSession"], "Resource": "*" }]);
    let (key, secret) = person(&server, "alice", &all);
    let ssh = TestSsh::of(&server).acting_as(&key, &secret);
    let stay = || begin(ssh.command("ssh", &["web-1.munjigi", "printf ready; cat"]));

    let mut client = stay();
    let id = server.sessions()[0]["id"].as_str().unwrap().to_owned();
    let mut watcher = begin(server.munjigi(&["watch", &id]));
    client.stdin.as_mut().unwrap().write_all("안녕\n".as_bytes()).unwrap();
    let mut seen = [0; 7];
    watcher.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(seen, "안녕\n".as_bytes());
    success(&mut server.munjigi(&["kill", &id]));
    let killed = client.wait_with_output().unwrap();
    assert_eq!(killed.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&killed.stderr).contains("terminated"), "{killed:?}");
    assert_eq!(ended(&server)["endReason"], "terminated");
    watcher.wait().unwrap();

    let client = stay();
    put_policy(&server, "alice", &json!([{ "Effect": "Deny", "Action": "*", "Resource": "*" }]));
    let revoked = client.wait_with_output().unwrap();
    assert_eq!(revoked.status.code(), Some(255));
    assert_eq!(ended(&server)["endReason"], "revoked");
    let denied = ssh.ssh(&["web-1.munjigi", "true"]);
    assert_eq!(denied.code, Some(255));
    assert!(denied.err.contains("not authorized"), "{denied:?}");

    // With the key goes the connection, and what was in it.
    put_policy(&server, "alice", &all);
    let mut client = stay();
    let state = ["--access-key-id", &key, "--status", "Inactive"];
    server.aws_json(&[&["iam", "update-access-key", "--user-name", "alice"][..], &state].concat());
    end(&mut client, "ssh");
    assert_eq!(ended(&server)["endReason"], "revoked");
}

#[test]
fn policies_decide_by_the_exact_command() {
    let server = server();
    let _agent = server.agent("web-1");
    let allowed = json!([
        { "Effect": "Allow", "Action": "munjigi:StartPrivilegedSession", "Resource": "*" },
        { "Effect": "Allow", "Action": "ssm:StartSession", "Resource": "*",
          "Condition": { "StringLike": { "munjigi:Command": ["uptime -p", "journalctl -u web *"] } } },
        { "Effect": "Deny", "Action": "ssm:StartSession", "Resource": "*",
          "Condition": { "StringLike": { "munjigi:Command": ["*;*", "*|*", "*&*", "*`*", "*$*", "*>*", "*<*"] } } },
    ]);
    let (key, secret) = person(&server, "alice", &allowed);
    let ssh = TestSsh::of(&server).acting_as(&key, &secret);
    assert_ne!(ssh.ssh(&["web-1.munjigi", "uptime -p"]).code, Some(255));
    assert_ne!(ssh.ssh(&["web-1.munjigi", "journalctl -u web --version"]).code, Some(255));
    for refused in ["uptime", "uptime -p; id", "journalctl -u web x; id", "id"] {
        let ran = ssh.ssh(&["web-1.munjigi", refused]);
        assert_eq!(ran.code, Some(255), "{refused}: {ran:?}");
        assert!(ran.err.contains("not authorized"), "{ran:?}");
    }
    assert_eq!(ssh.ssh_with(&["-T", "web-1.munjigi"], b"id\n").code, Some(255), "a shell is no command of the list");
    // The same list holds for our own client.
    let run = |words: &[&str]| {
        let mut run = server.munjigi(&[&["run", "web-1", "--"], words].concat());
        run.env_remove("AWS_PROFILE").env_remove("AWS_SHARED_CREDENTIALS_FILE");
        run.env("AWS_ACCESS_KEY_ID", &key).env("AWS_SECRET_ACCESS_KEY", &secret);
        output(&mut run).status.code()
    };
    assert_ne!(run(&["uptime", "-p"]), Some(255));
    assert_eq!(run(&["uptime"]), Some(255));
    assert_eq!(run(&["uptime", "-p "]), Some(255), "what a shell would not read as the same is quoted");
}

#[test]
fn ssh_config_and_munjigi_ssh_need_no_settings_and_ask_nothing() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    success(&mut ssh.command(crate::harness::binary(), &["ssh-config", "--write"]));
    let person = std::fs::read_to_string(ssh.path(".ssh/config")).unwrap();
    assert!(person.starts_with("Include "), "{person}");
    let ours = ssh.path("munjigi/ssh/config");
    let mut plain = ssh.command("true", &[]);
    plain = {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&ours).args(["-o", "BatchMode=yes", "web-1.munjigi", "echo", "plain"]);
        ssh.configure(&mut command);
        drop(plain);
        command
    };
    assert_eq!(success(&mut plain), "plain\n");
    let own = |arguments: &[&str]| ssh.command(crate::harness::binary(), arguments);
    assert_eq!(success(&mut own(&["ssh", "web-1", "echo", "own"])), "own\n");
    assert_eq!(output(&mut own(&["ssh", &format!("{}@web-1", user()), "exit 3"])).status.code(), Some(3));
    // A host key of somebody else's is none that the authority vouches for.
    std::fs::write(ssh.path("munjigi/ssh/known_hosts"), "").unwrap();
    let text = success(&mut own(&["ssh-config"]));
    assert!(text.contains("Host *.munjigi !*.passthrough.munjigi\n") && text.contains("--stdio '%n'\n"), "{text}");
    let known = std::fs::read_to_string(ssh.path("munjigi/ssh/known_hosts")).unwrap();
    assert!(known.starts_with("@cert-authority * ssh-ed25519 "), "{known}");
}

#[test]
fn a_client_that_reads_nothing_blocks_its_program_and_nobody_else() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let socket = ssh.path("mux");
    let socket = socket.to_str().unwrap();
    let mut master = ssh.command("ssh", &["-M", "-N", "-S", socket, "web-1.munjigi"]).spawn().unwrap();
    let check = || output(&mut ssh.command("ssh", &["-S", socket, "-O", "check", "web-1.munjigi"]));
    wait_for("the master", || check().status.success().then_some(()));
    let count = ssh.path("count");
    // Counts what it could write, so that a blocked program is seen as one.
    let program = format!(
        "printf ready; exec python3 -c 'import os\nn = 0\nwhile True:\n    os.write(1, b\"y\" * 65536)\n    n += 1\n    \
         open(\"{}\", \"w\").write(str(n))'",
        count.display()
    );
    let mut silent = begin(ssh.command("ssh", &["-S", socket, "web-1.munjigi", &program]));
    let written = || std::fs::read_to_string(&count).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let stood_at = wait_for("the program to block", || {
        let first = written();
        std::thread::sleep(std::time::Duration::from_millis(500));
        (first > 0 && written() == first).then_some(first)
    });
    assert!(stood_at < 256, "{stood_at} times 64 KiB were taken");
    // The channel beside it in the same connection goes on, and so does everybody else.
    assert_eq!(ssh.ssh(&["-S", socket, "web-1.munjigi", "head -c 5000000 /dev/zero"]).success().len(), 5_000_000);
    assert_eq!(ssh.ssh(&["web-1.munjigi", "echo free"]).success(), "free\n");
    silent.kill().unwrap();
    silent.wait().unwrap();
    wait_for("the blocked session's end", || {
        let sessions = server.sessions();
        sessions.iter().all(|session| session["endReason"].is_string()).then_some(())
    });
    output(&mut ssh.command("ssh", &["-S", socket, "-O", "exit", "web-1.munjigi"]));
    end(&mut master, "the master");
}

#[test]
fn a_program_that_reads_nothing_blocks_its_channel_and_no_other() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let socket = ssh.path("mux");
    let socket = socket.to_str().unwrap();
    let mut master = ssh.command("ssh", &["-M", "-N", "-S", socket, "web-1.munjigi"]).spawn().unwrap();
    let check = || output(&mut ssh.command("ssh", &["-S", socket, "-O", "check", "web-1.munjigi"]));
    wait_for("the master", || check().status.success().then_some(()));
    let mut deaf = begin(ssh.command("ssh", &["-S", socket, "web-1.munjigi", "printf ready; exec sleep 1000"]));
    let mut stdin = deaf.stdin.take().unwrap();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let writer = {
        let sent = sent.clone();
        std::thread::spawn(move || {
            let chunk = vec![b'x'; 65536];
            while stdin.write_all(&chunk).is_ok() {
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        })
    };
    let taken = || sent.load(std::sync::atomic::Ordering::Relaxed);
    let stood_at = wait_for("the client to block", || {
        let first = taken();
        std::thread::sleep(std::time::Duration::from_millis(500));
        (first > 0 && taken() == first).then_some(first)
    });
    assert!(stood_at < 256, "{stood_at} times 64 KiB were taken");
    assert_eq!(
        ssh.ssh_with(&["-S", socket, "web-1.munjigi", "wc -c"], &vec![b'y'; 5_000_000]).success().trim(),
        "5000000"
    );
    // Closing the channel is heard although nobody takes what it carries.
    deaf.kill().unwrap();
    deaf.wait().unwrap();
    writer.join().unwrap();
    wait_for("the deaf session's end", || {
        let sessions = server.sessions();
        sessions.iter().all(|session| session["endReason"].is_string()).then_some(())
    });
    output(&mut ssh.command("ssh", &["-S", socket, "-O", "exit", "web-1.munjigi"]));
    end(&mut master, "the master");
}

#[test]
fn a_restarted_server_ends_connections_and_takes_new_ones_at_its_own_port_too() {
    let port = free_port().to_string();
    let mut server = server_with(&format!("[ssh]\nlisten = \"127.0.0.1:{port}\"\n"));
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let mut client = begin(ssh.command("ssh", &["web-1.munjigi", "printf ready; exec sleep 1000"]));
    server.stop();
    end(&mut client, "ssh");
    server.start_again();
    wait_for("the node", || (ssh.ssh(&["web-1.munjigi", "true"]).code == Some(0)).then_some(()));
    // Nobody knows this key, but it is SSH that says so.
    let stranger = ssh.ssh(&["-p", &port, "-l", "web-1", "gate", "true"]);
    assert!(stranger.err.contains("Permission denied (publickey"), "{stranger:?}");
}

#[test]
fn many_variables_and_requests_before_the_program_hold_nothing_up() {
    let server = server();
    let _agent = server.agent("web-1");
    let ssh = TestSsh::of(&server);
    let mut command = ssh.command("ssh", &["-o", "SendEnv=MANY_*", "web-1.munjigi", "echo in"]);
    for n in 0..200 {
        command.env(format!("MANY_{n}"), "x");
    }
    assert_eq!(success(&mut command), "in\n");
}
