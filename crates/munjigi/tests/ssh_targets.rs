//! Named services and real databases behind a node, through OpenSSH's own forwards.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::faults::user;
use crate::forward::{closed, echo, exchange};
use crate::harness::databases::program;
use crate::harness::{TestDatabase, TestServer, TestSsh, TestSshd, success, wait_for};
use crate::targets::fed;

/// An `ssh -N` in the background; ended when it is dropped.
struct Tunnel(Child);

impl Tunnel {
    fn start(ssh: &TestSsh, arguments: &[&str]) -> Self {
        let mut command = ssh.command("ssh", &["-N", "-o", "ExitOnForwardFailure=yes"]);
        Self(command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn events(server: &TestServer, name: &str) -> Vec<Value> {
    let text = success(&mut server.munjigi(&["audit", "--output", "json", "--name", name]));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Registers the person's key for the administrator.
fn register(server: &TestServer, ssh: &TestSsh) {
    let key = std::fs::read_to_string(ssh.path("id.pub")).unwrap();
    server.aws_json(&["iam", "upload-ssh-public-key", "--user-name", "admin", "--ssh-public-key-body", &key]);
}

/// Puts a target on this machine, which is the node itself.
fn put(server: &TestServer, name: &str, port: u16, more: &[&str], password: &str) {
    let address = format!("localhost:{port}");
    let put = ["target", "put", name, "--address", &address, "--through", "Role=bastion"];
    fed(&mut server.munjigi(&[&put[..], more].concat()), password);
}

fn psql(port: u16, login: &[(&str, &str)], statement: &str) -> Option<String> {
    let mut psql = Command::new(program("psql").unwrap());
    psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement]);
    psql.env("PGHOST", "127.0.0.1").env("PGPORT", port.to_string()).env("PGCONNECT_TIMEOUT", "90");
    psql.env("PGPASSFILE", "/nonexistent").env_remove("PGPASSWORD").envs(login.iter().copied());
    let output = psql.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_target_is_a_host_for_every_login_and_leads_to_its_port_alone() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let ssh = TestSsh::of(&server);
    register(&server, &ssh);
    let far = echo();
    put(&server, "echo", far, &["--kind", "tcp"], "");
    // A login that names no node, one that names any, and our own link.
    for login in [&["gate"][..], &["-l", "hop-1", "gate"], &["hop-1.munjigi"]] {
        let port = closed();
        let forward = format!("{port}:echo:{far}");
        let _tunnel = Tunnel::start(&ssh, &[&["-L", &forward], login].concat());
        wait_for("the forward", || exchange(port, "hello").ok().filter(|heard| heard == "hello"));
        let ran = ssh.ssh(&[&["-o", "LogLevel=INFO", "-W", "echo:81"], login].concat());
        assert!(ran.code == Some(255) && ran.err.contains("leads to localhost:"), "{ran:?}");
    }
    let opened = wait_for("the connections in the trail", || {
        let opened = events(&server, "OpenConnection");
        (opened.len() >= 3).then_some(opened)
    });
    let there = format!("localhost:{far}");
    assert!(opened.iter().all(|event| event["requestParameters"]["endpoint"] == there.as_str()), "{opened:?}");
    // Of each login it is a session of the target's, decided as one.
    let begun = events(&server, "OpenForward");
    let of_target = begun.iter().filter(|event| event["requestParameters"].to_string().contains("target:echo"));
    assert_eq!(of_target.count(), 3, "{begun:?}");
}

#[test]
fn an_ssh_target_is_the_end_of_a_jump() {
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let ssh = TestSsh::of(&server);
    register(&server, &ssh);
    let mut sshd = TestSshd::prepare("");
    sshd.start();
    put(&server, "old-box", sshd.port(), &["--kind", "ssh"], "");
    let (own, port) = (sshd.path("own"), sshd.port().to_string());
    let me = user();
    let jump = ["-J", "gate", "-i", own.to_str().unwrap(), "-p", &port, "-l", &me, "old-box", "echo there; exit 6"];
    let ran = ssh.ssh(&jump);
    assert_eq!((ran.code, ran.out.as_str()), (Some(6), "there\n"), "{ran:?}");
}

#[test]
fn psql_works_through_stock_ssh_and_its_connections_are_in_the_trail() {
    let (Some(database), Some(_)) = (TestDatabase::postgres(""), program("psql")) else { return };
    database.psql("postgres", "create role app login password 'tiger-secret'");
    database.psql("postgres", "create database shop owner app");
    let server = TestServer::start();
    let _agent = server.agent_through("hop-1", &["Role=bastion"], None);
    let ssh = TestSsh::of(&server);
    register(&server, &ssh);
    let shop = [("PGDATABASE", "shop"), ("PGUSER", "app"), ("PGPASSWORD", "tiger-secret")];

    // As an address of the node's: sealed, with the database's own password.
    let port = closed();
    let forward = format!("{port}:localhost:{}", database.port());
    let tunnel = Tunnel::start(&ssh, &["-L", &forward, "hop-1.munjigi"]);
    let made = wait_for("the forward", || psql(port, &shop, "create table items (name text)"));
    assert_eq!(made, "");
    psql(port, &shop, "insert into items select 'item ' || n from generate_series(1, 50000) n").unwrap();
    let rows = psql(port, &shop, "select name from items order by name").unwrap();
    assert_eq!(rows.lines().count(), 50_000);
    let carried = wait_for("the connections in the trail", || {
        let closed = events(&server, "CloseConnection");
        (closed.len() >= 3).then_some(closed)
    });
    let bytes = |event: &Value| event["additionalEventData"]["bytesOut"].as_u64().unwrap();
    assert!(carried.iter().any(|event| bytes(event) > rows.len() as u64), "{carried:?}");
    drop(tunnel);

    // As a target with a credential: without a password, and each statement is recorded.
    let credential = ["--kind", "postgres", "--inspect", "--user", "app", "--password-file", "-", "--database", "shop"];
    put(&server, "orders", database.port(), &credential, "tiger-secret\n");
    let port = closed();
    let forward = format!("{port}:orders:{}", database.port());
    let tunnel = Tunnel::start(&ssh, &["-L", &forward, "gate"]);
    let nobody = [("PGDATABASE", "shop"), ("PGUSER", "somebody")];
    let count = wait_for("the forward", || psql(port, &nobody, "select count(*) from items"));
    assert_eq!(count, "50000\n");
    drop(tunnel);
    let statements = wait_for("the statement in the recording", || {
        let sessions = server.sessions();
        let ended = sessions.iter().filter(|session| session["kind"] == "port" && session["endReason"].is_string());
        let texts = ended.map(|session| {
            let id = session["id"].as_str().unwrap();
            String::from_utf8_lossy(&server.munjigi(&["play", id, "--text"]).output().unwrap().stdout).into_owned()
        });
        texts.into_iter().find(|text| text.contains("count(*)"))
    });
    assert!(statements.contains("select count(*) from items"), "{statements}");
}
