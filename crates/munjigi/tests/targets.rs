//! Targets: named services behind nodes, put, listed and deleted, opened in the real clients of real databases, and served
//! by another node when one dies.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::databases::program;
use crate::harness::{Terminal, TestDatabase, TestServer, output, success, wait_for};

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

/// Puts a target that listens on this machine, which is the node itself.
fn put(server: &TestServer, name: &str, port: u16, more: &[&str]) {
    let address = format!("localhost:{port}");
    let put = ["target", "put", name, "--address", &address, "--through", "Role=bastion"];
    fed(&mut server.munjigi(&[&put[..], more].concat()), "");
}

/// Runs `munjigi db` with a password where clients look for it, and returns its status and what it printed.
fn db(server: &TestServer, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = server.munjigi(&[&["db"], arguments].concat());
    command.env("PGPASSWORD", "admin-secret").env("MYSQL_PWD", "app-secret");
    let output = output(&mut command);
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    (output.status.code(), text)
}

#[test]
fn postgresql_opens_in_its_own_clients_with_terminal_signals_and_status() {
    let (Some(postgres), Some(_)) = (TestDatabase::postgres(""), program("psql")) else { return };
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    put(&server, "orders", postgres.port(), &["--kind", "postgres", "--user", "admin", "--database", "postgres"]);
    let answer = db(&server, &["orders", "--", "-XAtc", "SELECT current_user || ' at ' || inet_server_port()"]);
    assert_eq!(answer, (Some(0), format!("admin at {}\n", postgres.port())));
    let (status, said) = db(&server, &["orders", "--", "-Xc", "nonsense"]);
    assert!(status == Some(1) && said.contains("syntax error"), "{status:?}: {said}");
    // Other programs of the family take the same settings.
    let (status, dump) =
        db(&server, &["orders", "--client", program("pg_dump").unwrap().to_str().unwrap(), "--", "-s"]);
    assert!(status == Some(0) && dump.contains("PostgreSQL database dump complete"), "{status:?}: {dump}");

    // On a terminal Ctrl-C cancels the statement and ends nothing.
    let mut command = server.munjigi(&["db", "orders", "--", "-X"]);
    command.env("PGPASSWORD", "admin-secret").env("TERM", "dumb").env("PAGER", "cat");
    let mut person = Terminal::run(&command, 24, 80);
    person.expect("postgres=# ");
    person.type_in("SELECT 'slee' || 'ps', pg_sleep(600);\r");
    wait_for("the statement to run", || {
        (postgres.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''slee%'") == "1\n")
            .then_some(())
    });
    person.type_in("\u{3}");
    person.expect("canceling statement due to user request");
    person.type_in("SELECT 'still ' || 'there';\r");
    person.expect("still there");
    person.type_in("\\q\r");
    assert_eq!(person.end(), Some(0));

    // A signal to us alone is the client's.
    let mut command = server.munjigi(&["db", "orders", "--", "-Xc", "SELECT 'here', pg_sleep(600)"]);
    let mut running = command.env("PGPASSWORD", "admin-secret").stdin(Stdio::null()).spawn().unwrap();
    wait_for("the statement to run", || {
        (postgres.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT ''here%'") == "1\n")
            .then_some(())
    });
    kill(Pid::from_raw(i32::try_from(running.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(128 + 15));

    let trail = success(&mut server.munjigi(&["audit", "--output", "json"]));
    assert!(trail.contains("OpenForward") && trail.contains(":target/orders"), "{trail}");
    assert!(!holds(&server.data_dir(), b"admin-secret"));
    assert_eq!(server.sessions().iter().filter(|session| session["state"] == "Active").count(), 0);
}

#[test]
fn mariadb_and_redis_open_in_their_own_clients() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    if let Some(mariadb) = TestDatabase::mariadb(&[]) {
        mariadb.mysql("CREATE DATABASE shop; CREATE USER app IDENTIFIED BY 'app-secret'; GRANT ALL ON shop.* TO app");
        put(&server, "shop", mariadb.port(), &["--kind", "mysql", "--user", "app", "--database", "shop"]);
        let told = ["shop", "--", "--no-defaults", "-N", "-B", "-e", "SELECT DATABASE(), CURRENT_USER(), 40 + 2"];
        assert_eq!(db(&server, &told), (Some(0), "shop\tapp@%\t42\n".to_owned()));
        let over_tcp = [&["shop", "--port", "0"], &told[1..]].concat();
        assert_eq!(db(&server, &over_tcp), (Some(0), "shop\tapp@%\t42\n".to_owned()));
        assert_eq!(db(&server, &["shop", "--", "--no-defaults", "-e", "nonsense"]).0, Some(1));
    }
    if let Some(redis) = TestDatabase::redis() {
        put(&server, "cache", redis.port(), &["--kind", "redis"]);
        assert_eq!(db(&server, &["cache", "--", "SET", "greeting", "안녕"]), (Some(0), "OK\n".to_owned()));
        assert_eq!(db(&server, &["cache", "--", "--raw", "GET", "greeting"]), (Some(0), "안녕\n".to_owned()));
    }
    put(&server, "web", 1, &["--kind", "http"]);
    let (status, said) = db(&server, &["web"]);
    assert!(status == Some(255) && said.contains("no database: use `munjigi forward web`"), "{status:?}: {said}");
    let (status, said) = db(&server, &["nothing"]);
    assert!(status == Some(255) && said.contains("there is no target nothing"), "{status:?}: {said}");
    // Nothing listens there.
    put(&server, "dead", 1, &["--kind", "redis"]);
    let (status, said) = db(&server, &["dead", "--", "PING"]);
    assert!(status != Some(0) && said.contains("refused"), "{status:?}: {said}");
}

/// A `munjigi db --print` that stays, and the port that it told.
struct Stays {
    process: Child,
    port: String,
}

impl Stays {
    fn start(server: &TestServer, name: &str) -> Self {
        let mut command = server.munjigi(&["db", name, "--print", "--port", "0"]);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().split_once(" -p ").unwrap_or_else(|| panic!("{line}")).1;
        Self { port: port.to_owned(), process }
    }

    fn ping(&self) -> String {
        success(Command::new(program("redis-cli").unwrap()).args(["-p", &self.port, "PING"]))
    }
}

impl Drop for Stays {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn another_node_takes_over_when_the_one_that_serves_a_target_dies() {
    let (Some(redis), Some(_)) = (TestDatabase::redis(), program("redis-cli")) else { return };
    let server = TestServer::start();
    let mut agents = [server.agent_through("hop-1", &["Role=bastion"], None)]
        .into_iter()
        .chain([server.agent_through("hop-2", &["Role=bastion"], None), server.agent("elsewhere")])
        .collect::<Vec<_>>();
    put(&server, "cache", redis.port(), &["--kind", "redis"]);
    let stays = Stays::start(&server, "cache");
    assert_eq!(stays.ping(), "PONG\n");
    let mut served = Vec::new();
    for _ in 0..2 {
        let sessions = server.sessions();
        let newest = sessions.iter().find(|session| session["kind"] == "port").unwrap();
        let node = newest["nodeId"].as_str().or(newest["node"].as_str()).unwrap().to_owned();
        served.push(node.clone());
        if served.len() == 2 {
            break;
        }
        agents.iter_mut().find(|agent| agent.node == node).unwrap().die();
        // The first connection after it already gets through.
        assert_eq!(stays.ping(), "PONG\n");
    }
    assert_ne!(served[0], served[1]);
    assert!(!served.contains(&agents[2].node), "{served:?}");

    // When nobody is left, that is said.
    for agent in &mut agents[..2] {
        if agent.node != served[0] {
            agent.die();
        }
    }
    drop(stays);
    let (status, said) = db(&server, &["cache", "--", "PING"]);
    assert!(status == Some(255) && said.contains("none of its nodes is connected"), "{status:?}: {said}");
}

#[test]
fn policy_goes_by_the_targets_tags_and_what_changes_ends() {
    let (Some(redis), Some(_)) = (TestDatabase::redis(), program("redis-cli")) else { return };
    let server = TestServer::start();
    let agent = server.agent_through("hop-1", &["Role=bastion"], None);
    put(&server, "dev", redis.port(), &["--kind", "redis", "--tag", "Env=dev"]);
    put(&server, "prod", redis.port(), &["--kind", "redis", "--tag", "Env=prod"]);
    let policy = server.directory().join("policy.json");
    std::fs::write(
        &policy,
        r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Resource":"arn:aws:munjigi:*:*:target/*",
        "Action":["munjigi:OpenForward","munjigi:DescribeTargets"],
        "Condition":{"StringEquals":{"aws:ResourceTag/Env":"dev"}}}}"#,
    )
    .unwrap();
    let profile = success(&mut server.munjigi(&["user", "add", "dora", "--policy", policy.to_str().unwrap(), "--key"]));
    let credentials = server.directory().join("dora");
    std::fs::write(&credentials, profile).unwrap();
    let as_dora = |arguments: &[&str]| {
        let mut command = server.munjigi(arguments);
        command.env("AWS_SHARED_CREDENTIALS_FILE", &credentials).env("AWS_PROFILE", "dora");
        command
    };
    assert_eq!(success(&mut as_dora(&["db", "dev", "--", "PING"])), "PONG\n");
    let port = format!("0:localhost:{}", redis.port());
    for refused in [&["db", "prod", "--", "PING"][..], &["forward", &agent.node, &port], &["forward", "prod"]] {
        let output = output(&mut as_dora(refused));
        assert_eq!(output.status.code(), Some(255), "{refused:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("dora is not authorized to perform"), "{refused:?}: {said}");
    }
    // A target leads to its own place alone.
    let elsewhere = output(&mut server.munjigi(&["forward", "dev", "0:localhost:1"]));
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(elsewhere.status.code() == Some(255) && said.contains("is a target and leads to"), "{said}");

    // Whoever chose a node's name chose no target by it.
    put(&server, "hop-1", redis.port(), &["--kind", "redis"]);
    let node = output(&mut server.munjigi(&["forward", "hop-1", "0:localhost:1"]));
    assert!(String::from_utf8_lossy(&node.stderr).contains("is a target and leads to"), "{node:?}");

    // With the tag goes what the tag allowed, and with the target everything.
    let mut command = as_dora(&["db", "dev", "--print", "--port", "0"]);
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    put(&server, "dev", redis.port(), &["--kind", "redis", "--tag", "Env=prod"]);
    assert_ne!(running.wait().unwrap().code(), Some(0));
    let mut stays = Stays::start(&server, "prod");
    success(&mut server.munjigi(&["target", "delete", "prod"]));
    assert_ne!(stays.process.wait().unwrap().code(), Some(0));
}
