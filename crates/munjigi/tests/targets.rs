//! Targets: named services behind nodes, put, listed and deleted.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::databases::program;
use crate::harness::{TestDatabase, TestServer, output, success};

/// Runs a command that reads `input`, must succeed, and returns what it printed on both streams.
pub(crate) fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?} ended with {:?}: {text}", output.status);
    text
}

fn targets(server: &TestServer) -> Vec<Value> {
    serde_json::from_str(&success(&mut server.munjigi(&["target", "list", "--output", "json"]))).unwrap()
}

#[test]
fn targets_are_put_listed_shown_and_deleted() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let put =
        ["target", "put", "orders", "--address", "db.internal", "--kind", "postgres", "--through", "Role=bastion"];
    let recorded = ["--inspect", "--user", "app", "--password-file", "-", "--tag", "Env=prod", "--database", "orders"];
    let said = fed(&mut server.munjigi(&[&put[..], &recorded].concat()), "hunter2\n");
    assert_eq!(said, "");
    let said =
        fed(&mut server.munjigi(&["target", "put", "desk", "--address", "[fd00::9]:3389", "--through", "no-1"]), "");
    assert!(said.contains("no node matches"), "{said}");

    let listed = targets(&server);
    let orders = &listed[1];
    assert_eq!((&listed[0]["name"], &listed[0]["kind"]), (&"desk".into(), &"rdp".into()));
    assert_eq!((&orders["address"], &orders["kind"]), (&"db.internal:5432".into(), &"postgres".into()));
    assert_eq!((&orders["nodes"], &orders["nodesOnline"]), (&1.into(), &1.into()));
    assert_eq!((&orders["user"], &orders["hasPassword"]), (&"app".into(), &true.into()));
    assert_eq!(orders["tags"]["Env"], "prod");
    let table = success(&mut server.munjigi(&["ls", "--targets"]));
    assert!(table.contains("orders") && table.contains("1/1") && table.contains("statements"), "{table}");
    let shown = success(&mut server.munjigi(&["target", "show", "orders"]));
    assert!(shown.contains("app, with a password") && shown.contains(":target/orders"), "{shown}");

    // A file says the same again; what it leaves out of tags and credential stays.
    let file = server.directory().join("targets.json");
    std::fs::write(
        &file,
        r#"[{"Name":"orders","Address":"db.internal:5432","Kind":"postgres",
        "Through":["Role=bastion"],"Inspect":true,"Database":"orders"}]"#,
    )
    .unwrap();
    success(&mut server.munjigi(&["target", "apply", file.to_str().unwrap()]));
    let again = targets(&server);
    assert_eq!(
        (&again[1]["hasPassword"], &again[1]["tags"], &again[1]["created"]),
        (&orders["hasPassword"], &orders["tags"], &orders["created"])
    );

    success(&mut server.munjigi(&["target", "delete", "desk"]));
    assert_eq!(targets(&server).len(), 1);
    let gone = output(&mut server.munjigi(&["target", "show", "desk"]));
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&gone.stderr).contains("there is no target desk"), "{gone:?}");
    let wrong = output(&mut server.munjigi(&["target", "put", "x", "--address", "db", "--through", "hop-1"]));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("write --address HOST:PORT"), "{wrong:?}");
    assert!(!holds(&server.data_dir(), b"hunter2"));
}

/// Tells whether any file below a directory holds these bytes.
pub(crate) fn holds(directory: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        // A file may go while we look.
        let content = std::fs::read(&path).unwrap_or_default();
        content.windows(bytes.len()).any(|part| part == bytes)
    })
}

#[test]
fn the_databases_of_the_tests_answer_their_own_programs() {
    if let Some(postgres) = TestDatabase::postgres("") {
        assert_eq!(postgres.psql("postgres", "SELECT current_user"), "admin\n");
    }
    if let Some(mariadb) = TestDatabase::mariadb(&[]) {
        assert_eq!(mariadb.mysql("SELECT 40 + 2"), "42\n");
    }
    if let (Some(redis), Some(client)) = (TestDatabase::redis(), program("redis-cli")) {
        let port = redis.port().to_string();
        assert_eq!(success(Command::new(client).args(["-p", &port, "PING"])), "PONG\n");
        assert!(redis.directory().join("redis.sock").exists());
    }
}
