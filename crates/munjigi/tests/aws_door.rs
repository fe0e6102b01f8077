//! The AWS door: sessions over the data channel, as AWS's plugin would have them, and everything that may go wrong.

use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::faults::user;
use crate::harness::aws_client::{AwsClient, boto3};
use crate::harness::{TestServer, output, success, wait_for};

fn server(settings: &str) -> TestServer {
    TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n{settings}", user()))
}

fn shell() -> Value {
    json!({ "Target": "web-1" })
}

fn command(document: &str, text: &str) -> Value {
    json!({ "Target": "web-1", "DocumentName": document, "Parameters": { "command": [text] } })
}

fn resume(server: &TestServer, session: &str) -> Value {
    boto3(server, "ssm", "resume_session", &json!({ "SessionId": session }))
}

/// Returns the output as the recording has it, byte for byte.
fn recorded(server: &TestServer, session: &str) -> Vec<u8> {
    output(&mut server.munjigi(&["play", session, "--text", "--raw"])).stdout
}

fn row(server: &TestServer, session: &str) -> Value {
    server.sessions().into_iter().find(|row| row["id"] == session).unwrap_or_default()
}

fn wait_status(server: &TestServer, session: &str, status: &str) {
    wait_for(status, || (row(server, session)["status"] == status).then_some(()));
}

fn audited(server: &TestServer, event: &str, part: &str) -> bool {
    let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
    trail.lines().any(|line| line.contains(&format!("\"{event}\"")) && line.contains(part))
}

#[test]
fn a_shell_with_hangul_sizes_and_ctrl_c_is_recorded_and_ends_with_exit() {
    let server = server("");
    let _agent = server.agent("web-1");
    let (mut client, session) = AwsClient::start(&server, &shell());
    client.type_in(b"stty size; echo TERM=$TERM $LANG\r");
    client.wait_for("24 80");
    client.wait_for("TERM=xterm-256color C.UTF-8");
    client.resize(50, 132);
    client.type_in("echo 문지기 $((40+2)) 한글\r".as_bytes());
    client.wait_for("문지기 42 한글");
    client.type_in(b"stty size\r");
    client.wait_for("50 132");
    client.type_in(b"sh -c 'trap \"echo caught; exit\" INT; echo sleep''ing; while :; do sleep 0.1; done'\r");
    client.wait_for("sleeping");
    client.type_in(b"\x03");
    client.wait_for("caught\r\n");
    client.type_in(b"echo after $((1+1))\r");
    client.wait_for("after 2");
    assert_eq!(client.session_type, None, "a shell has no handshake");
    assert_eq!(row(&server, &session)["status"], "Connected");
    client.type_in(b"exit\r");
    assert_eq!(client.wait_closed(), "");
    wait_status(&server, &session, "Terminated");
    assert_eq!(row(&server, &session)["endReason"], "exited");
    assert_eq!(String::from_utf8_lossy(&recorded(&server, &session)), String::from_utf8_lossy(&client.output));
    // The client knows of the end: for it, the session is no more.
    assert_eq!(resume(&server, &session)["Error"], "DoesNotExistException");
    assert!(audited(&server, "OpenDataChannel", &session) && audited(&server, "EndSession", &session));
}

#[test]
fn eight_megabytes_arrive_byte_for_byte_as_they_are_recorded() {
    let server = server("");
    let _agent = server.agent("web-1");
    let script = "stty raw -echo; i=0; while [ $i -lt 8 ]; do head -c 1048576 /dev/urandom; i=$((i+1)); done";
    let (mut client, session) = AwsClient::start(&server, &command("AWS-StartInteractiveCommand", script));
    client.wait("8 MB", |client| client.output.len() >= 8 << 20);
    client.wait_closed();
    assert_eq!(client.output.len(), 8 << 20);
    wait_status(&server, &session, "Terminated");
    assert!(recorded(&server, &session) == client.output, "the recording has other bytes");
}

#[test]
fn a_command_without_a_terminal_has_a_handshake_and_signals_but_no_input() {
    let server = server("");
    let _agent = server.agent("web-1");
    let script = "trap 'echo interrupted; exit 7' INT; cat; echo ready; echo problem >&2; while :; do sleep 0.1; done";
    let (mut client, session) = AwsClient::start(&server, &command("AWS-StartNonInteractiveCommand", script));
    client.wait_for("ready\n");
    client.wait_for("problem\n");
    assert_eq!(client.session_type.as_deref(), Some("NonInteractiveCommands"));
    client.type_in(b"this goes nowhere\n");
    client.type_in(b"\x03");
    client.wait_for("interrupted\n");
    assert_eq!(client.wait_closed(), "");
    // Without separateOutputStream both streams are one and there is no status.
    assert_eq!(client.apart, []);
    // Two pipes have no common order.
    assert_eq!(client.output.len(), "ready\nproblem\ninterrupted\n".len());
    assert!(client.output.ends_with(b"interrupted\n"));
    wait_status(&server, &session, "Terminated");
    assert_eq!(row(&server, &session)["exit"], 7);
}

#[test]
fn separated_streams_are_told_apart_with_prefixes_and_the_exit_code() {
    let server = server("");
    let _agent = server.agent("web-1");
    let parameters = json!({
        "command": ["echo good; sleep 0.2; echo bad >&2; exit 9"],
        "separateOutputStream": ["true"],
        "stdErrSeparatorPrefix": ["E:"],
    });
    let document = "AWS-StartNonInteractiveCommand";
    let start = json!({ "Target": "web-1", "DocumentName": document, "Parameters": parameters });
    let (mut client, _) = AwsClient::start(&server, &start);
    assert_eq!(client.wait_closed(), "");
    let text = String::from_utf8(client.output.clone()).unwrap();
    assert!(text.contains("good\n") && text.contains("E:bad\n") && text.ends_with("EXIT_CODE: 9"), "{text}");
    let kinds: Vec<_> = client.apart.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
    let expected =
        [(PayloadType::StdErr, "E:"), (PayloadType::StdErr, "bad\n"), (PayloadType::ExitCode, "EXIT_CODE: 9")];
    assert_eq!(kinds, expected);
}

#[test]
fn a_client_that_loses_its_socket_goes_on_where_it_was() {
    let server = server("");
    let _agent = server.agent("web-1");
    // A terminal, and a shell that neither echoes nor prompts.
    let script = "stty -echo; echo begun; while read -r line; do eval \"$line\"; done";
    let (mut client, session) = AwsClient::start(&server, &command("AWS-StartInteractiveCommand", script));
    client.wait_for("begun\r\n");
    let before = client.output.len();
    for round in 0..3 {
        // Output is under way and input not acknowledged when the socket goes.
        client.type_in(b"i=0; while [ $i -lt 2000 ]; do echo line-$i; i=$((i+1)); done\r");
        client.wait_for("line-1");
        client.type_in(format!("echo round-{round}-over\r").as_bytes());
        client.lose_socket();
        wait_status(&server, &session, "Disconnected");
        let resumed = resume(&server, &session);
        assert_eq!(resumed["SessionId"], session.as_str());
        client.open(&server, &resumed);
        client.wait_for(&format!("round-{round}-over"));
        assert_eq!(row(&server, &session)["status"], "Connected");
    }
    let one: String = (0..2000).map(|line| format!("line-{line}\r\n")).collect();
    let all: String = (0..3).map(|round| format!("{one}round-{round}-over\r\n")).collect();
    client.wait("the last line", |client| client.output.ends_with(b"round-2-over\r\n"));
    let shown = String::from_utf8_lossy(&client.output[before..]).into_owned();
    assert!(shown == all, "lost or doubled: {} bytes instead of {}", shown.len(), all.len());
    client.type_in(b"exit\r");
    client.wait_closed();
}

#[test]
fn what_a_session_printed_last_waits_for_a_client_that_comes_back() {
    let server = server("");
    let _agent = server.agent("web-1");
    let script = "echo first; read line; echo last-words";
    let (mut client, session) = AwsClient::start(&server, &command("AWS-StartInteractiveCommand", script));
    client.wait_for("first");
    client.type_in(b"go\r");
    client.wait_for("go");
    client.lose_socket();
    wait_status(&server, &session, "Terminated");
    let resumed = resume(&server, &session);
    assert!(resumed["TokenValue"].is_string(), "{resumed}");
    client.open(&server, &resumed);
    client.wait_for("last-words");
    assert_eq!(client.wait_closed(), "");
    assert_eq!(resume(&server, &session)["Error"], "DoesNotExistException");
}

#[test]
fn another_client_of_the_owner_takes_the_session_over() {
    let server = server("");
    let _agent = server.agent("web-1");
    let (mut first, session) = AwsClient::start(&server, &shell());
    first.type_in(b"here=$((40+2)); echo set-$here\r");
    first.wait_for("set-42");
    let mut second = AwsClient::new("0b0e8ffa-0001-4000-8000-00000000000f", None);
    second.open(&server, &resume(&server, &session));
    assert!(first.wait_closed().contains("took this session over"), "{:?}", first.closed);
    second.wait_for("you are back");
    second.type_in(b"echo still-$here\r");
    second.wait_for("still-42");
    second.flag(Flag::TerminateSession);
    assert!(second.wait_closed().contains("ended"));
    wait_status(&server, &session, "Terminated");
    assert_eq!(row(&server, &session)["endReason"], "terminated");
}

#[test]
fn a_terminated_session_says_who_ended_it() {
    let server = server("");
    let _agent = server.agent("web-1");
    let (mut client, session) = AwsClient::start(&server, &shell());
    client.wait("a prompt", |client| !client.output.is_empty());
    boto3(&server, "ssm", "terminate_session", &json!({ "SessionId": session }));
    assert!(client.wait_closed().contains("terminated by arn:aws:iam"), "{:?}", client.closed);
    assert_eq!(resume(&server, &session)["Error"], "DoesNotExistException");
}

#[test]
fn an_idle_session_says_so_at_once_or_to_the_client_that_comes_back() {
    let server = server("idle_timeout_seconds = 4\nresume_window_seconds = 3\n");
    let _agent = server.agent("web-1");
    let (mut client, session) = AwsClient::start(&server, &shell());
    assert!(client.wait_closed().contains("idle"), "{:?}", client.closed);
    wait_status(&server, &session, "Terminated");
    assert_eq!(row(&server, &session)["endReason"], "idle-timeout");

    // A client that was away when it happened learns it from the answer without a token.
    let (mut client, session) = AwsClient::start(&server, &shell());
    client.wait("a prompt", |client| !client.output.is_empty());
    client.lose_socket();
    wait_status(&server, &session, "Terminated");
    let over = wait_for("an answer without a token", || {
        let answer = resume(&server, &session);
        (answer["TokenValue"].is_null()).then_some(answer)
    });
    assert_eq!(over["SessionId"], session.as_str(), "{over}");
}

#[test]
fn tokens_that_are_unknown_used_or_of_another_session_open_nothing() {
    let server = server("");
    let _agent = server.agent("web-1");
    let started = boto3(&server, "ssm", "start_session", &shell());
    let other = boto3(&server, "ssm", "start_session", &shell());
    let session = started["SessionId"].as_str().unwrap();
    let refused = |answer: &Value| {
        let mut client = AwsClient::new("x", None);
        client.open(&server, answer);
        client.wait_goodbye()
    };
    let with = |token: &Value| json!({ "TokenValue": token, "StreamUrl": started["StreamUrl"] });
    for token in [json!("nonsense"), json!(""), other["TokenValue"].clone()] {
        let (code, why) = refused(&with(&token));
        assert_eq!(code, 1008);
        assert!(why.contains("call ResumeSession"), "{why}");
    }
    let mut client = AwsClient::new("x", None);
    client.open(&server, &started);
    client.wait("a prompt", |client| !client.output.is_empty());
    assert_eq!(refused(&started).0, 1008, "a token opens once");
    // The session does not mind.
    client.type_in(b"echo fine-$((1+1))\r");
    client.wait_for("fine-2");
    assert!(audited(&server, "OpenDataChannel", "AccessDeniedException"));

    // First messages that are none.
    for first in
        [Message::Binary(vec![0; 200].into()), Message::Text("{}".into()), Message::Text("x".repeat(9000).into())]
    {
        let mut client = AwsClient::new("x", None);
        client.open_with(&server, started["StreamUrl"].as_str().unwrap(), first);
        assert_eq!(client.wait_goodbye().0, 1008);
    }
    for id in ["nobody-0123456789abcdef0", session] {
        let answer = resume(&server, id);
        assert_eq!(answer["Error"].is_string(), id != session, "{answer}");
    }
}

#[test]
fn messages_that_cannot_be_read_are_dropped_and_a_flood_of_them_closes_the_socket() {
    let server = server("");
    let _agent = server.agent("web-1");
    let (mut client, session) = AwsClient::start(&server, &shell());
    client.wait("a prompt", |client| !client.output.is_empty());
    for length in [0, 1, 116, 119, 120, 4000] {
        client.send_raw(Message::Binary(vec![0xff; length].into()));
    }
    client.send_raw(Message::Text("text".into()));
    client.type_in(b"echo alive-$((1+1))\r");
    client.wait_for("alive-2");
    for _ in 0..64 {
        client.send_raw(Message::Binary(vec![0; 40].into()));
    }
    assert_eq!(client.wait_goodbye().0, 1008);
    assert!(audited(&server, "DataChannelClosed", &session));
    // It is the same session that goes on, for a client that behaves.
    client.open(&server, &resume(&server, &session));
    client.type_in(b"echo again-$((1+1))\r");
    client.wait_for("again-2");
}

#[test]
fn a_client_that_takes_nothing_holds_its_program_back_and_misses_nothing() {
    let server = server("");
    let _agent = server.agent("web-1");
    let made = server.directory().join("made");
    let script =
        format!("stty raw; for i in $(seq 200); do head -c 100000 /dev/zero; echo $i > {}; done", made.display());
    let (mut client, _) = AwsClient::start(&server, &command("AWS-StartInteractiveCommand", &script));
    client.not_ready = true;
    let progress = || std::fs::read_to_string(&made).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut stuck = (0, std::time::Instant::now());
    client.wait("the program to stand still", |_| {
        let now = progress().unwrap_or_default();
        if now != stuck.0 {
            stuck = (now, std::time::Instant::now());
        }
        now > 0 && stuck.1.elapsed().as_secs() >= 5
    });
    assert!(stuck.0 < 100, "the program wrote {} of 200 pieces", stuck.0);
    client.not_ready = false;
    client.wait("everything", |client| client.output.len() >= 20_000_000);
    client.wait_closed();
    assert_eq!(client.output.len(), 20_000_000);
}

#[test]
fn a_restarted_server_ends_the_client_and_leaves_the_session_to_our_own() {
    let mut server = server("");
    let _agent = server.agent("web-1");
    let (mut client, session) = AwsClient::start(&server, &shell());
    client.type_in(b"echo mine-$((1+1))\r");
    client.wait_for("mine-2");
    server.kill();
    client.lose_socket();
    server.start_again();
    let answer = resume(&server, &session);
    assert_eq!((answer["TokenValue"].is_null(), &answer["SessionId"]), (true, &json!(session)), "{answer}");
    boto3(&server, "ssm", "terminate_session", &json!({ "SessionId": session }));
    wait_status(&server, &session, "Terminated");
}

#[test]
fn policy_decides_again_when_the_channel_opens_and_sessions_belong_to_their_owner() {
    let server = server("");
    let _agent = server.agent("web-1");
    let iam = |operation: &str, arguments: Value| boto3(&server, "iam", operation, &arguments);
    iam("create_user", json!({ "UserName": "bob" }));
    let policy = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": ["ssm:StartSession", "ssm:ResumeSession"], "Resource": "*" },
        { "Effect": "Allow", "Action": "munjigi:StartPrivilegedSession", "Resource": "*" },
    ] });
    let policy = json!({ "UserName": "bob", "PolicyName": "start", "PolicyDocument": policy.to_string() });
    iam("put_user_policy", policy);
    let key = iam("create_access_key", json!({ "UserName": "bob" }));
    let bob = |operation: &str, arguments: Value| {
        const CALL: &str = "import boto3, botocore.exceptions, json, sys\n\
            key, secret, operation, arguments = sys.argv[1:]\n\
            ssm = boto3.client('ssm', aws_access_key_id=key, aws_secret_access_key=secret)\n\
            try:\n    print(json.dumps(getattr(ssm, operation)(**json.loads(arguments))))\n\
            except botocore.exceptions.ClientError as error:\n    print(json.dumps({'Error': error.response['Error']['Code']}))\n";
        let text = |name: &str| key["AccessKey"][name].as_str().unwrap().to_owned();
        let mut command = std::process::Command::new(crate::harness::python_tool("python3"));
        command.args(["-c", CALL, &text("AccessKeyId"), &text("SecretAccessKey"), operation, &arguments.to_string()]);
        server.configure(&mut command);
        serde_json::from_str::<Value>(&success(&mut command)).unwrap()
    };
    // The key's start is seen by the server within moments.
    let started = wait_for("bob's start", || {
        let started = bob("start_session", shell());
        started["TokenValue"].is_string().then_some(started)
    });
    let mut client = AwsClient::new("x", None);
    client.open(&server, &started);
    // A closed socket alone would make AWS's client come back for ever.
    let why = client.wait_closed();
    assert!(why.contains("ssmmessages:OpenDataChannel") && why.contains("user/bob"), "{why}");
    assert!(audited(&server, "OpenDataChannel", "AccessDenied"));

    let (mut client, session) = AwsClient::start(&server, &shell());
    client.wait("a prompt", |client| !client.output.is_empty());
    assert_eq!(bob("resume_session", json!({ "SessionId": session }))["Error"], "AccessDeniedException");
    client.flag(Flag::TerminateSession);
    client.wait_closed();
}

#[test]
fn a_client_that_fell_silent_is_noticed_and_comes_back() {
    let server = server("");
    let _agent = server.agent("web-1");
    let proxy = crate::harness::CutProxy::start(server.address());
    let through = |answer: &Value| {
        let url = answer["StreamUrl"].as_str().unwrap();
        let url = url.replace(&format!(":{}/", server.address().port()), &format!(":{}/", proxy.port()));
        json!({ "TokenValue": answer["TokenValue"], "StreamUrl": url })
    };
    let started = boto3(&server, "ssm", "start_session", &shell());
    let session = started["SessionId"].as_str().unwrap().to_owned();
    let mut client = AwsClient::new("x", None);
    client.open(&server, &through(&started));
    client.type_in(b"echo one-$((1+1))\r");
    client.wait_for("one-2");
    proxy.silence();
    wait_status(&server, &session, "Disconnected");
    client.lose_socket();
    proxy.reset();
    proxy.pass();
    client.open(&server, &through(&resume(&server, &session)));
    client.type_in(b"echo two-$((1+1))\r");
    client.wait_for("two-2");
    client.type_in(b"exit\r");
    client.wait_closed();
}
