//! MariaDB with eyes: its own client and two drivers through a target whose statements are recorded, TLS on both sides,
//! and what recording, trail and logs say and do not say.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::databases::program;
use crate::harness::{TestDatabase, TestForward, TestServer, output, python_tool, success, wait_for};
use crate::targets::{fed, holds};

/// The stored password: in nothing that anybody can read.
const SECRET: &str = "hunter2-of-the-database";

/// A MariaDB with a database `shop` and its user `app`; `None` where there is none.
fn mariadb(settings: &[&str]) -> Option<TestDatabase> {
    let mariadb = TestDatabase::mariadb(&[&["--local-infile=1", "--max-allowed-packet=64M"][..], settings].concat())?;
    mariadb.mysql(&format!(
        "CREATE DATABASE shop; CREATE DATABASE other; CREATE USER app@'%' IDENTIFIED BY '{SECRET}'; \
         GRANT ALL ON shop.* TO app@'%'; GRANT ALL ON other.* TO app@'%'; GRANT CREATE USER ON *.* TO app@'%'"
    ));
    Some(mariadb)
}

/// Puts the target `shop-db`, which is read along.
fn put(server: &TestServer, port: u16, settings: &[&str]) {
    let address = format!("localhost:{port}");
    let target = ["target", "put", "shop-db", "--kind", "mysql", "--through", "hop-1", "--address", &address];
    let eyes = ["--inspect", "--database", "shop", "--user", "app", "--password-file", "-"];
    fed(&mut server.munjigi(&[&target[..], &eyes, settings].concat()), SECRET);
}

/// MariaDB's own client, as somebody without any password.
fn client(forward: &TestForward, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("mariadb").unwrap());
    command.args(["--no-defaults", "-h", "127.0.0.1", "-u", "anybody", "-N", "-B", "-P"]);
    command.arg(forward.port(0).to_string()).args(arguments);
    command
}

/// Waits until a statement that sleeps runs.
fn wait_until_it_sleeps(mariadb: &TestDatabase) {
    wait_for("the statement to run", || {
        let running = mariadb.mysql("SELECT 1 FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(6%'");
        (!running.is_empty()).then_some(())
    });
}

/// Returns the recording as text, once it holds `sign`.
fn recording(server: &TestServer, session: &str, sign: &str) -> String {
    wait_for(sign, || {
        let text = success(&mut server.munjigi(&["play", session, "--text"]));
        text.contains(sign).then_some(text)
    })
}

/// Returns what the recording says about the end of the first statement that `text` ends.
fn end_of<'r>(recording: &'r str, text: &str) -> &'r str {
    let mut lines = recording.lines();
    let begun = lines.find(|line| line.ends_with(text)).unwrap_or_else(|| panic!("no {text:?} in {recording}"));
    let number = &begun[begun.find('[').unwrap()..=begun.find(']').unwrap()];
    let end = lines.find(|line| line.contains(number)).unwrap_or_else(|| panic!("no end of {text:?} in {recording}"));
    &end[end.find(']').unwrap() + 2..]
}

#[test]
fn mariadbs_client_works_without_a_password_and_every_statement_is_recorded() {
    let Some(mariadb) = mariadb(&[]) else { return };
    let server = TestServer::start();
    let _agent = server.agent("hop-1");
    put(&server, mariadb.port(), &[]);
    let forward = TestForward::start(&server, &["shop-db"]);

    let who = success(&mut client(&forward, &["-e", "SELECT CURRENT_USER(), DATABASE()"]));
    assert_eq!(who, "app@%\tshop\n");
    let db = ["db", "shop-db", "--", "-N", "-B", "-e", "SELECT CURRENT_USER(), 'by munjigi db'"];
    assert_eq!(success(&mut server.munjigi(&db)), "app@%\tby munjigi db\n");
    let several = "CREATE TABLE t (a INT); INSERT INTO t VALUES (1),(2),(3); UPDATE t SET a = a + 1 WHERE a > 1; \
                   SELECT a FROM t ORDER BY a; USE other; SELECT DATABASE()";
    assert_eq!(success(&mut client(&forward, &["-e", several])), "1\n3\n4\nother\n");
    let failed = output(&mut client(&forward, &["-e", "SELECT broken FROM t"]));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("ERROR 1054 (42S22)"), "{failed:?}");
    // Read into the client's memory, and then in one go.
    let dumped = success(&mut client(&forward, &["-e", "SELECT REPEAT(seq, 30) FROM seq_1_to_30000"]));
    assert_eq!(dumped.lines().count(), 30_000);
    assert_eq!(dumped.lines().last(), Some("30000".repeat(30).as_str()));
    let new_user = "CREATE USER eve IDENTIFIED BY 'made-up-password'; ALTER USER eve IDENTIFIED BY 'another-one'";
    success(&mut client(&forward, &["-e", new_user]));
    // The client would have sent the file.
    let file = server.directory().join("rows");
    std::fs::write(&file, "7\n8\n").unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE t", file.display());
    let refused = output(&mut client(&forward, &["--local-infile=1", "-e", &load]));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("ERROR"), "{refused:?}");

    // Ctrl-C: MariaDB's client ends the statement by another connection.
    let mut sleeping = client(&forward, &["-e", "SELECT SLEEP(600)"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until_it_sleeps(&mariadb);
    kill(Pid::from_raw(i32::try_from(sleeping.id()).unwrap()), Signal::SIGINT).unwrap();
    assert!(!sleeping.wait().unwrap().success());

    let session = forward.session().to_owned();
    let text = recording(&server, &session, "error 1317");
    assert!(text.contains("query: KILL QUERY "), "{text}");
    assert!(text.contains("] login: user=app database=shop program_name=m"), "{text}");
    for (statement, end) in [
        ("query: SELECT CURRENT_USER(), DATABASE()", "done, 1 row,"),
        ("query: INSERT INTO t VALUES (1),(2),(3)", "done, 3 rows,"),
        ("query: UPDATE t SET a = a + 1 WHERE a > 1", "done, 2 rows,"),
        ("query: SELECT a FROM t ORDER BY a", "done, 3 rows,"),
        ("command: USE other", "done, "),
        ("query: SELECT broken FROM t", "failed, error 1054 (42S22),"),
        ("query: SELECT REPEAT(seq, 30) FROM seq_1_to_30000", "done, 30000 rows,"),
        ("query: CREATE USER eve IDENTIFIED BY '***'", "done, "),
        ("query: ALTER USER eve IDENTIFIED BY '***'", "done, "),
        ("query: SELECT SLEEP(600)", "failed, error 1317 (70100),"),
    ] {
        assert!(end_of(&text, statement).starts_with(end), "{statement}: {text}");
    }
    assert!(end_of(&text, &load).starts_with("failed, "), "{text}");
    assert!(!text.contains("made-up") && !text.contains("another-one"), "{text}");

    // Who is cut off in the middle of a statement hears of it.
    let mut lost = client(&forward, &["-e", "SELECT SLEEP(601)"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until_it_sleeps(&mariadb);
    success(&mut server.munjigi(&["kill", &session]));
    assert!(!lost.wait().unwrap().success());
    drop(forward);
    recording(&server, &session, "query: SELECT SLEEP(601)");
    success(&mut server.munjigi(&["verify"]));
    let audit = success(&mut server.munjigi(&["audit", "--output", "json"]));
    assert!(!audit.contains(SECRET) && !holds(&server.data_dir(), SECRET.as_bytes()));
}

/// Makes an authority and a certificate for `database.test`, below `directory`; MariaDB reads them.
fn certificates(directory: &std::path::Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).unwrap();
    let issuer = Issuer::from_params(&authority, &authority_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["database.test".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, pem) in [("ca.pem", certificate.pem()), ("leaf.pem", leaf.pem()), ("key.pem", key.serialize_pem())] {
        std::fs::write(directory.join(name), pem).unwrap();
    }
}

#[test]
fn drivers_work_over_tls_on_both_sides_and_a_wrong_certificate_is_never_spoken_to() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    certificates(directory.path());
    let [ca, leaf, key] = ["ca.pem", "leaf.pem", "key.pem"].map(|name| directory.path().join(name));
    let ssl = [format!("--ssl-cert={}", leaf.display()), format!("--ssl-key={}", key.display())];
    let settings = [ssl[0].as_str(), &ssl[1], "--require-secure-transport=ON"];
    let Some(mariadb) = mariadb(&settings) else { return };
    let server = TestServer::start();
    let _agent = server.agent("hop-1");
    let authority = ca.to_str().unwrap();
    let verified = ["--tls", "verify-full", "--tls-name", "database.test", "--tls-ca", authority];
    put(&server, mariadb.port(), &verified);
    let forward = TestForward::start(&server, &["shop-db"]);

    let ours = server.data_dir().join("ca.pem");
    let tls = ["--ssl-verify-server-cert", "--ssl-ca", ours.to_str().unwrap()];
    let status = success(&mut client(&forward, &[&tls[..], &["-e", "SHOW STATUS LIKE 'Ssl_version'"]].concat()));
    assert!(status.starts_with("Ssl_version\tTLSv1."), "the server's side is encrypted, too: {status}");
    let mut drivers = Command::new(python_tool("python3"));
    drivers.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/programs/mysql_drivers.py"));
    let said = success(drivers.arg(forward.port(0).to_string()).arg(&ours));
    assert_eq!(said, "pymysql: ok\nconnector: ok\n");

    let text = recording(&server, forward.session(), "(changing the user");
    for (statement, end) in [
        ("query: SELECT COUNT(*), MAX(name) FROM items", "done, 1 row,"),
        ("query: DELETE FROM items WHERE id > 50", "done, 50 rows,"),
        ("query: SELECT seq FROM seq_1_to_20000", "done, 20000 rows,"),
        ("command: (changing the user (COM_CHANGE_USER))", "failed, error 1047 (08S01),"),
    ] {
        assert!(end_of(&text, statement).starts_with(end), "{statement}: {text}");
    }
    let prepared = "INSERT INTO items (name, data) VALUES (?, ?)";
    assert!(text.lines().any(|line| line.contains("] prepare: ") && line.ends_with(prepared)), "{text}");
    let runs = text.lines().filter(|line| line.contains("] execute [") && line.ends_with(prepared)).count();
    assert_eq!(runs, 20, "{text}");
    assert!(text.contains("bytes in all)"), "the long statement is cut: {text}");

    // The name is another, and the authority: nothing is said to such a server, and the client hears why.
    let other = directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    certificates(&other);
    let other = other.join("ca.pem");
    for wrong in [
        ["--tls", "verify-full", "--tls-name", "other.test", "--tls-ca", authority],
        ["--tls", "verify-full", "--tls-name", "database.test", "--tls-ca", other.to_str().unwrap()],
    ] {
        put(&server, mariadb.port(), &wrong);
        let refused = output(&mut client(&forward, &["-e", "SELECT 1"]));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("no TLS with the database"), "{refused:?}");
    }
    // So is what goes wrong with the stored credential.
    fed(
        &mut server.munjigi(&[
            "target",
            "put",
            "shop-db",
            "--kind",
            "mysql",
            "--through",
            "hop-1",
            "--address",
            &format!("localhost:{}", mariadb.port()),
            "--inspect",
            "--user",
            "app",
            "--password-file",
            "-",
            "--tls",
            "require",
            "--tls-ca",
            authority,
        ]),
        "wrong-password",
    );
    let refused = output(&mut client(&forward, &["-e", "SELECT 1"]));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("ERROR 1045 (28000): Access denied for user 'app'"),
        "{refused:?}"
    );
    let text = recording(&server, forward.session(), "error 1045");
    assert!(!text.contains(SECRET) && !text.contains("wrong-password"), "{text}");
    assert!(!holds(&server.data_dir(), SECRET.as_bytes()) && !holds(&server.data_dir(), b"wrong-password"));
}

#[test]
fn files_of_the_client_are_loaded_where_the_target_allows_it() {
    let Some(mariadb) = mariadb(&[]) else { return };
    let server = TestServer::start();
    let _agent = server.agent("hop-1");
    put(&server, mariadb.port(), &["--allow-load-local"]);
    let forward = TestForward::start(&server, &["shop-db"]);
    let file = server.directory().join("rows");
    std::fs::write(&file, (0..200_000).map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE t", file.display());
    let statements = format!("CREATE TABLE t (a INT); {load}; SELECT SUM(a) FROM t");
    let said = success(&mut client(&forward, &["--local-infile=1", "-e", &statements]));
    assert_eq!(said.trim(), (0..200_000u64).sum::<u64>().to_string());
    let text = recording(&server, forward.session(), "SELECT SUM(a)");
    assert!(end_of(&text, &load).starts_with("done, 200000 rows,"), "{text}");
}

#[test]
fn under_strict_recording_nothing_reaches_the_database_before_it_is_stored() {
    let Some(mariadb) = mariadb(&[]) else { return };
    let mut server = TestServer::with_config("[session]\nstrict_recording = true\n");
    let _agent = server.agent("hop-1");
    put(&server, mariadb.port(), &[]);
    let forward = TestForward::start(&server, &["shop-db"]);
    let statements: String = (0..50).map(|n| format!("SELECT {n};")).collect();
    assert_eq!(success(&mut client(&forward, &["-e", &statements])).lines().count(), 50);
    let mut sleeping = client(&forward, &["-e", "SELECT SLEEP(602)"]).stderr(Stdio::null()).spawn().unwrap();
    wait_until_it_sleeps(&mariadb);
    // It runs, so it is on the disk: a server that dies now has it.
    server.kill();
    server.start_again();
    let text = recording(&server, forward.session(), "SELECT SLEEP(602)");
    assert!(text.contains("SELECT 49"), "{text}");
    let _ = sleeping.kill();
    let _ = sleeping.wait();
}
