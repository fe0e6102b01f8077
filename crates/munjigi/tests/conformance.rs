//! One story through every door: our own link, AWS's data channel, SSH. What is recorded, listed and in the trail must be
//! the same, whichever way a person came.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::faults::user;
use crate::harness::aws_client::AwsClient;
use crate::harness::{Terminal, TestServer, TestSsh, output, success, wait_for};

/// What runs: it tells its size, waits for another one, asks something and ends.
const STORY: &str = "stty -echo; echo size $(stty size); while [ \"$(stty size)\" != '30 100' ]; do sleep 0.05; done; \
                     printf '이름? '; read name; echo \"안녕 $name\"; exit 3";
/// What it prints.
const PRINTED: &str = "size 24 80\r\n이름? 안녕 지현\r\n";
const TYPED: &str = "지현\r";

/// What is left of a session.
#[derive(Debug, PartialEq)]
struct Left {
    /// The recording: what happened in order, pieces of one kind put together.
    recorded: Vec<(String, String)>,
    /// The session's row.
    row: Value,
    /// The names of the members of its events in the trail, and what they say.
    events: Vec<Value>,
}

/// Runs the story at a door and returns what is left of it.
fn told(server: &TestServer, door: &str) -> Left {
    let before = server.sessions().len();
    match door {
        "link" => {
            let mut terminal = Terminal::start(server, 24, 80, &["run", "-t", "web-1", "--", "sh", "-c", STORY]);
            act(&mut terminal);
            assert_eq!(terminal.end(), Some(3));
        }
        "ssh" => {
            let ssh = TestSsh::of(server);
            let command = ssh.command("ssh", &["-t", "web-1.munjigi", STORY]);
            let mut terminal = Terminal::run(&command, 24, 80);
            act(&mut terminal);
            assert_eq!(terminal.end(), Some(3));
        }
        _ => {
            let start = json!({
                "Target": "web-1",
                "DocumentName": "AWS-StartInteractiveCommand",
                "Parameters": { "command": [STORY] },
            });
            let (mut client, _) = AwsClient::start(server, &start);
            client.wait_for("size 24 80");
            client.resize(30, 100);
            client.wait_for("이름? ");
            client.type_in(TYPED.as_bytes());
            client.wait_closed();
        }
    }
    let session = wait_for("the session's end", || {
        let sessions = server.sessions();
        (sessions.len() > before && sessions[0]["endReason"].is_string()).then(|| sessions[0].clone())
    });
    let id = session["id"].as_str().unwrap().to_owned();
    let shown = output(&mut server.munjigi(&["play", &id, "--text", "--raw"])).stdout;
    assert_eq!(String::from_utf8_lossy(&shown), PRINTED, "{door}");
    Left { recorded: recorded(server, &id), row: row(session), events: events(server, &id) }
}

fn act(terminal: &mut Terminal) {
    terminal.expect("size 24 80");
    terminal.resize(30, 100);
    terminal.expect("이름? ");
    terminal.type_in(TYPED);
}

/// Returns what the recording holds, without times and without how the output was cut into pieces.
fn recorded(server: &TestServer, id: &str) -> Vec<(String, String)> {
    let text = success(&mut server.munjigi(&["play", id, "--output", "json"]));
    let mut all: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let kind = event["Kind"].as_str().unwrap().to_owned();
        let said = match kind.as_str() {
            "Output" => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(event["Data"].as_str().unwrap()).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            // Its text has the command, which each door words in its own way, and the session.
            "Start" => String::new(),
            _ => {
                let mut event = event.clone();
                event.as_object_mut().unwrap().retain(|name, _| !["At", "Offset"].contains(&name.as_str()));
                event.to_string()
            }
        };
        match all.last_mut() {
            Some((last, text)) if *last == kind && kind == "Output" => text.push_str(&said),
            // Rows and columns may come one after the other.
            Some((last, text)) if *last == kind && kind == "Resize" => *text = said,
            _ => all.push((kind, said)),
        }
    }
    all
}

/// Returns a session's row without what is another's in each.
fn row(mut session: Value) -> Value {
    let own = ["id", "command", "start", "end", "durationSeconds", "recordingHash"];
    session.as_object_mut().unwrap().retain(|name, _| !own.contains(&name.as_str()));
    session
}

/// Returns the events of its start and its end, without ids, times and the proof.
fn events(server: &TestServer, id: &str) -> Vec<Value> {
    wait_for("the events", || {
        let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
        let of_session = trail.lines().filter(|line| line.contains(id));
        let mut events: Vec<Value> = of_session.map(|line| serde_json::from_str(line).unwrap()).collect();
        events.retain(|event| ["StartSession", "EndSession"].contains(&event["eventName"].as_str().unwrap()));
        (events.len() == 2).then(|| events.iter().map(shape).collect())
    })
}

/// Keeps what says who did what to which node with which outcome.
fn shape(event: &Value) -> Value {
    let data = &event["additionalEventData"];
    json!({
        "name": event["eventName"],
        "who": event["userIdentity"]["arn"],
        "error": event.get("errorCode"),
        "resources": event["resources"],
        "osUser": event["responseElements"]["osUser"],
        "document": event["requestParameters"]["documentName"],
        "target": event["requestParameters"]["target"],
        "end": [data["endReason"], data["exit"]],
    })
}

#[test]
fn every_door_leaves_the_same_records() {
    let server = TestServer::with_config(&format!("[session]\ndefault_os_user = \"{}\"\n", user()));
    let _agent = server.agent("web-1");
    let link = told(&server, "link");
    assert!(link.recorded.iter().any(|(kind, said)| kind == "Output" && said.contains("안녕 지현")), "{link:?}");
    assert!(
        link.recorded.iter().any(|(kind, _)| kind == "Resize") && link.recorded.iter().any(|(kind, _)| kind == "Input")
    );
    for door in ["aws", "ssh"] {
        assert_eq!(told(&server, door), link, "{door} differs from the link");
    }
}
