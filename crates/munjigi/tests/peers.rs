//! Real clients of other people's over plain forwards: what they are told is what they would be told without one.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use crate::harness::databases::program;
use crate::harness::{TestDatabase, TestForward, TestServer, success};

/// MiB that are dumped and restored.
const DUMP_MIB: u64 = 1024;
/// What fills a table in the transaction that made it needs no log then: half the disk and half the time.
const UNLOGGED: &str = "wal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 1GB";

/// Answers each request with the path that was asked for, and some weight.
fn web() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                let body = format!("{path} {}\n", "x".repeat(50_000));
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = socket.write_all((head + &body).as_bytes());
            });
        }
    });
    port
}

/// Forwards to ports of the node itself, one for each.
fn forward(server: &TestServer, ports: &[u16]) -> TestForward {
    let specs: Vec<String> = ports.iter().map(|port| format!("0:localhost:{port}")).collect();
    let arguments: Vec<&str> = ["hop-1"].into_iter().chain(specs.iter().map(String::as_str)).collect();
    TestForward::start(server, &arguments)
}

#[test]
fn databases_and_pages_answer_through_a_forward_as_they_do_without() {
    let server = TestServer::start();
    let _agent = server.agent("hop-1");

    if let Some(postgres) = TestDatabase::postgres("") {
        let forward = forward(&server, &[postgres.port()]);
        let mut psql = Command::new(program("psql").unwrap());
        psql.env("PGPASSWORD", "admin-secret").args([
            "-XAtq",
            "-h",
            "127.0.0.1",
            "-U",
            "admin",
            "-d",
            "postgres",
            "-p",
        ]);
        psql.arg(forward.port(0).to_string()).args(["-c", "SELECT sum(n) FROM generate_series(1, 200000) AS g(n)"]);
        assert_eq!(success(&mut psql), "20000100000\n");
    }
    if let Some(mariadb) = TestDatabase::mariadb(&[]) {
        mariadb
            .mysql("CREATE DATABASE d; CREATE USER app@'%' IDENTIFIED BY 'of-the-app'; GRANT SELECT ON d.* TO app@'%'");
        let forward = forward(&server, &[mariadb.port()]);
        let mut client = Command::new(program("mariadb").unwrap());
        client.args(["--no-defaults", "-h", "127.0.0.1", "-u", "app", "-D", "d", "-N", "-B", "-P"]);
        client.arg(forward.port(0).to_string()).env("MYSQL_PWD", "of-the-app");
        client.args(["-e", "SELECT CURRENT_USER(); SELECT REPEAT(seq, 100) FROM seq_1_to_20000"]);
        let said = success(&mut client);
        assert!(said.starts_with("app@%\n") && said.lines().count() == 20_001, "{} bytes", said.len());
        assert_eq!(said.lines().last(), Some("20000".repeat(100).as_str()));
    }
    if let (Some(redis), Some(client)) = (TestDatabase::redis(), program("redis-cli")) {
        let forward = forward(&server, &[redis.port()]);
        let port = forward.port(0).to_string();
        let value = "v".repeat(200_000);
        let mut set = Command::new(&client);
        set.args(["-p", &port, "-x", "SET", "key"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut set = set.spawn().unwrap();
        set.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        assert_eq!(set.wait_with_output().unwrap().stdout, b"OK\n");
        assert_eq!(success(Command::new(&client).args(["-p", &port, "GET", "key"])).trim(), value);
    }
    if let Some(curl) = program("curl") {
        let forward = forward(&server, &[web()]);
        let url = format!("http://127.0.0.1:{}/page-[1-60]", forward.port(0));
        let mut curl = Command::new(curl);
        curl.args(["--silent", "--show-error", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "60"]);
        let directory = server.directory().join("pages");
        curl.args(["--create-dirs", "--noproxy", "*", "-o"]).arg(directory.join("#1")).arg(&url);
        success(&mut curl);
        for number in 1..=60 {
            let page = std::fs::read_to_string(directory.join(number.to_string())).unwrap();
            assert!(page.starts_with(&format!("/page-{number} x")) && page.ends_with("x\n"), "page {number}");
            assert!(page.len() > 50_000, "page {number} has {} bytes", page.len());
        }
    }
}

#[test]
fn a_dump_that_is_restored_through_forwards_is_equal_at_both_ends() {
    let Some(postgres) = TestDatabase::postgres(UNLOGGED) else { return };
    let (Some(pg_dump), Some(psql)) = (program("pg_dump"), program("psql")) else { return };
    let server = TestServer::start();
    let _agent = server.agent("hop-1");
    // A KiB in each row, which says nothing twice.
    for database in ["source", "copy"] {
        postgres.psql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let row = "SELECT string_agg(md5(n::text || '.' || part::text), '') FROM generate_series(1, 32) AS p(part)";
    let filled = format!(
        "CREATE TABLE rows (id bigint PRIMARY KEY, data text NOT NULL); \
         INSERT INTO rows SELECT n, ({row}) FROM generate_series(1, {}) AS g(n)",
        DUMP_MIB * 1024
    );
    postgres.psql("source", &filled);

    let forward = forward(&server, &[postgres.port(), postgres.port()]);
    let connect = |program: &std::path::Path, port: u16, database: &str| {
        let mut command = Command::new(program);
        command.env("PGPASSWORD", "admin-secret").env("PGHOST", "127.0.0.1").env("PGUSER", "admin");
        command.env("PGPORT", port.to_string()).env("PGDATABASE", database);
        command
    };
    let mut dumping = connect(&pg_dump, forward.port(0), "source").stdout(Stdio::piped()).spawn().unwrap();
    let mut restoring = connect(&psql, forward.port(1), "copy");
    restoring.args(["-Xq1", "-v", "ON_ERROR_STOP=1"]).stdin(dumping.stdout.take().unwrap()).stdout(Stdio::null());
    assert!(restoring.status().unwrap().success());
    assert!(dumping.wait().unwrap().success());

    let summed = "SELECT count(*), sum(length(data)), md5(string_agg(md5(data), '' ORDER BY id)) FROM rows";
    let [source, copy] = ["source", "copy"].map(|database| postgres.psql(database, summed));
    assert_eq!(source, copy);
    assert!(source.starts_with(&format!("{0}|{1}|", DUMP_MIB * 1024, DUMP_MIB << 20)), "{source}");
}
