//! PostgreSQL with eyes: real psql, pgbench and drivers against a real server whose password they do not have, and what
//! is recorded of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::databases::program;
use crate::harness::{TestAgent, TestDatabase, TestServer, output, python_tool, success, wait_for};
use crate::targets::{fed, holds};

/// The password of the stored user. It must be nowhere.
const PASSWORD: &str = "tiger-7f3a-secret";
/// Set in a statement. It must be nowhere either.
const NEW_PASSWORD: &str = "lion-99d1-secret";

/// A database behind a node, and a forward to it.
struct Eyes {
    forward: Option<Child>,
    port: String,
    _agent: TestAgent,
    server: TestServer,
    database: TestDatabase,
}

impl Eyes {
    /// Starts everything; `None` where there is no PostgreSQL.
    fn start(config: &str, settings: &str, more: &[&str]) -> Option<Self> {
        let database = TestDatabase::postgres(settings)?;
        program("psql")?;
        database.psql("postgres", &format!("create role app login password '{PASSWORD}'"));
        database.psql("postgres", "create database shop owner app");
        let server = TestServer::with_config(config);
        let agent = server.agent_through("hop-1", &["Role=bastion"], None);
        let mut eyes = Self { forward: None, port: String::new(), _agent: agent, server, database };
        eyes.put(PASSWORD, more);
        eyes.open();
        Some(eyes)
    }

    /// Puts the target, with a password.
    fn put(&self, password: &str, more: &[&str]) {
        let address = format!("localhost:{}", self.database.port());
        let put = ["target", "put", "orders", "--address", &address, "--kind", "postgres", "--through", "Role=bastion"];
        let credential = ["--inspect", "--user", "app", "--password-file", "-", "--database", "shop"];
        fed(&mut self.server.munjigi(&[&put[..], &credential, more].concat()), &format!("{password}\n"));
    }

    /// Opens a forward to the target, and closes the one before.
    fn open(&mut self) {
        self.close();
        let mut command = self.server.munjigi(&["db", "orders", "--print", "--port", "0"]);
        let mut forward = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(forward.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let behind = line.split_once("PGPORT=").unwrap_or_else(|| panic!("{line}")).1;
        self.port = behind.trim_start_matches('\'').chars().take_while(char::is_ascii_digit).collect();
        self.forward = Some(forward);
    }

    /// Ends the forward as Ctrl-C does.
    fn close(&mut self) {
        if let Some(mut forward) = self.forward.take() {
            kill(pid(&forward), Signal::SIGINT).unwrap();
            forward.wait().unwrap();
        }
    }

    /// Builds a command of PostgreSQL's that connects through the forward, without a password anywhere.
    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name).unwrap());
        command.args(arguments).env("PGHOST", "127.0.0.1").env("PGPORT", &self.port).env("PGUSER", "somebody");
        command.env("PGPASSFILE", "/nonexistent").env_remove("PGPASSWORD").env("PGCONNECT_TIMEOUT", "90");
        command
    }

    fn psql(&self, statements: &str) -> String {
        success(&mut self.command("psql", &["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statements]))
    }

    /// Runs psql and returns what it says against the statements.
    fn refused(&self, statements: &str) -> String {
        let output = output(&mut self.command("psql", &["-XAtq", "-c", statements]));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Returns the id of the newest session, if there is one.
    fn session(&self) -> Option<String> {
        let sessions = self.server.sessions();
        let newest = sessions.iter().find(|session| session["kind"] == "port")?;
        Some(newest["sessionId"].as_str().or(newest["id"].as_str()).unwrap().to_owned())
    }

    /// Returns the lines of the newest session's recording, once one of them has `wanted` in it.
    fn recorded(&self, wanted: &str) -> Vec<String> {
        wait_for(wanted, || {
            let text = success(&mut self.server.munjigi(&["play", &self.session()?, "--text"]));
            text.contains(wanted).then(|| text.lines().map(str::to_owned).collect())
        })
    }

    /// Asserts that no password is on any disk, in what people can read of the recordings, or in the trail.
    fn keeps_secrets(&self, recorded: &[String]) {
        let trail = success(&mut self.server.munjigi(&["audit", "--output", "json"]));
        for secret in [PASSWORD, NEW_PASSWORD] {
            assert!(!holds(self.server.directory(), secret.as_bytes()), "{secret} is on the disk");
            assert!(!recorded.iter().any(|line| line.contains(secret)), "{secret} is in the recording");
            assert!(!trail.contains(secret), "{secret} is in the trail");
        }
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        self.close();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Counts the lines that have all of these in them.
fn count(lines: &[String], parts: &[&str]) -> usize {
    lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count()
}

#[test]
fn psql_runs_unchanged_without_a_password_and_every_statement_is_recorded() {
    let Some(mut eyes) = Eyes::start("", "", &[]) else { return };
    // Whoever the client says it is, the stored user it is, in the stored database.
    assert_eq!(eyes.psql("select current_user || '/' || current_database()"), "app/shop\n");
    eyes.psql("create table items (id int primary key, name text)");
    eyes.psql("insert into items select n, '문' || n from generate_series(1, 1000) n");
    let file = eyes.server.directory().join("items.csv");
    let file = file.to_str().unwrap();
    eyes.psql(&format!("\\copy items to '{file}' csv"));
    eyes.psql("create table again (like items)");
    eyes.psql(&format!("\\copy again from '{file}' csv"));
    assert_eq!(eyes.psql("select count(*), max(name) from again"), "1000|문999\n");
    assert!(eyes.refused("select * from nothing").contains("relation \"nothing\" does not exist"));
    assert!(eyes.refused(&format!("create role x password '{NEW_PASSWORD}'")).contains("permission denied"));
    assert!(success(&mut eyes.command("psql", &["-X", "-d", "shop", "-c", "\\d items"])).contains("items_pkey"));
    // Another database is taken where one is named.
    let named = eyes.command("psql", &["-XAtq", "-d", "postgres", "-c", "select current_database()"]);
    assert_eq!(success(&mut { named }), "postgres\n");
    assert!(
        String::from_utf8_lossy(&output(&mut eyes.command("psql", &["-d", "nowhere", "-c", "x"])).stderr)
            .contains("database \"nowhere\" does not exist")
    );
    // A large result and a large statement pass whole.
    assert_eq!(eyes.psql("select repeat('x', 30000000)").len(), 30_000_001);
    let mut long = eyes.command("psql", &["-XAtq"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = long.stdin.take().unwrap();
    let writing = std::thread::spawn(move || {
        input.write_all(b"select length('").unwrap();
        input.write_all(&vec![b'y'; 10_000_000]).unwrap();
        input.write_all(b"');\n").unwrap();
    });
    assert_eq!(String::from_utf8(long.wait_with_output().unwrap().stdout).unwrap(), "10000000\n");
    writing.join().unwrap();

    let lines = eyes.recorded("10000018 bytes in all");
    for (parts, times) in [
        (&["login: user=app database=shop", "application_name=psql"][..], 12),
        (&["query: select current_user || '/' || current_database()"], 1),
        (&["done: INSERT 0 1000, 1000 rows, "], 1),
        (&["query: COPY  items TO STDOUT csv"], 1),
        (&["query: COPY  again FROM STDIN csv"], 1),
        (&["done: COPY 1000, 1000 rows, "], 2),
        (&["failed, error 42P01, "], 1),
        (&["query: create role x password '***'"], 1),
        (&["failed, error 42501, "], 1),
        (&["login: user=app database=nowhere"], 1),
        (&["failed, error 3D000, "], 1),
        (&["done: SELECT 1, 1 row, "], 4),
    ] {
        let found = count(&lines, parts);
        assert!(found == times || (times > 3 && found > times / 2), "{parts:?}: {found} of {times} in {lines:#?}");
    }
    eyes.keeps_secrets(&lines);
    eyes.close();
    let lines = eyes.recorded("10000018 bytes in all");
    // Each statement has its end.
    let begun = [": ", "] query", "] login"];
    assert_eq!(
        lines.iter().filter(|line| begun[1..].iter().any(|word| line.contains(word))).count(),
        lines.iter().filter(|line| line.contains("] done") || line.contains("] failed")).count(),
        "{lines:#?}"
    );
    // For programs, each event is a line.
    let json = success(&mut eyes.server.munjigi(&["play", &eyes.session().unwrap(), "--output", "json"]));
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_kind = |kind: &str| events.iter().filter(|event| event["Kind"] == kind).cloned().collect::<Vec<_>>();
    let inserted = of_kind("Statement").into_iter().find(|event| event["Text"].to_string().contains("insert")).unwrap();
    let inserted = &inserted["Statement"];
    assert_eq!((&inserted["kind"], &inserted["masked"]), (&"query".into(), &false.into()));
    let ended = |end: &&Value| ["connection", "number"].iter().all(|name| end["StatementEnd"][name] == inserted[name]);
    let ends = of_kind("StatementEnd");
    let end = &ends.iter().find(ended).unwrap()["StatementEnd"];
    assert_eq!((&end["outcome"], &end["rows"], &end["tag"]), (&"done".into(), &1000.into(), &"INSERT 0 1000".into()));
    assert!(end["micros"].as_u64().unwrap() > 0);
    // The trail counts them.
    let trail = success(&mut eyes.server.munjigi(&["audit", "--output", "json", "--name", "EndSession"]));
    assert!(trail.contains("\"failedStatements\":3") && trail.contains("\"statements\":"), "{trail}");
    success(&mut eyes.server.munjigi(&["verify"]));
}

#[test]
fn ctrl_c_cancels_the_statement_and_a_killed_session_ends_the_connection() {
    // Without that a server notices only when it has something to say.
    let Some(eyes) = Eyes::start("", "client_connection_check_interval = '100ms'", &[]) else { return };
    let sleeping = || {
        let mut command = eyes.command("psql", &["-XAt", "-c", "select pg_sleep(600)"]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the statement to run", || {
            let running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)'";
            (eyes.database.psql("postgres", running) == "1\n").then_some(())
        });
        child
    };
    let child = sleeping();
    kill(pid(&child), Signal::SIGINT).unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("canceling statement due to user request"), "{said}");
    let lines = eyes.recorded("cancel: ");
    assert_eq!(count(&lines, &["cancel: what connection 1 runs"]), 1, "{lines:#?}");
    assert_eq!(count(&lines, &["[1.2] failed, error 57014"]), 1, "{lines:#?}");

    // A key that was guessed cancels nothing and is told nothing.
    let mut guess = TcpStream::connect(("127.0.0.1", eyes.port.parse().unwrap())).unwrap();
    guess.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    guess.write_all(&[0, 0, 0, 16, 4, 0xd2, 0x16, 0x2e, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
    assert_eq!(guess.read(&mut [0; 16]).unwrap(), 0);
    eyes.recorded("with a key that stands for no connection");

    let child = sleeping();
    success(&mut eyes.server.munjigi(&["kill", &eyes.session().unwrap()]));
    let ended = child.wait_with_output().unwrap();
    assert!(!ended.status.success());
    // The server's own end of it is over as well.
    wait_for("the server to give up", || {
        let connected = "select count(*) from pg_stat_activity where usename = 'app'";
        (eyes.database.psql("postgres", connected) == "0\n").then_some(())
    });
    let lines = eyes.recorded("select pg_sleep(600)");
    eyes.keeps_secrets(&lines);
}

#[test]
fn pgbench_runs_in_every_mode_and_no_statement_is_missing() {
    let Some(mut eyes) = Eyes::start("", "", &[]) else { return };
    success(&mut eyes.command("pgbench", &["-i", "-s", "1", "-q", "shop"]));
    for mode in ["simple", "extended", "prepared"] {
        let arguments = ["-M", mode, "-c", "4", "-j", "2", "-t", "25", "-n", "shop"];
        let text = success(&mut eyes.command("pgbench", &arguments));
        assert!(text.contains("number of transactions actually processed: 100/100"), "{text}");
    }
    eyes.close();
    let lines = eyes.recorded("pgbench_history");
    // Four clients with 25 transactions each, in two modes as a text, in one as prepared statements.
    assert_eq!(count(&lines, &["query: UPDATE pgbench_accounts SET abalance = abalance + "]), 200, "{}", lines.len());
    assert_eq!(count(&lines, &["execute [", "UPDATE pgbench_accounts SET abalance = abalance + $1"]), 100);
    assert_eq!(count(&lines, &["prepare: UPDATE pgbench_accounts SET abalance = abalance + $1"]), 4);
    assert_eq!(count(&lines, &["done: UPDATE 1, 1 row, "]), 3 * 300);
    assert_eq!(count(&lines, &["query: copy pgbench_accounts from stdin"]), 1);
    assert_eq!(count(&lines, &["done: COPY 100000, 100000 rows"]), 1);
    assert_eq!(count(&lines, &["] lost"]) + count(&lines, &["] skipped"]), 0);
    eyes.keeps_secrets(&lines);
}

/// Prints what differs, and nothing if all is well.
const DRIVERS: &str = r#"
import asyncio, os, sys
import asyncpg, pg8000.native, psycopg
host, port = "127.0.0.1", int(sys.argv[1])
def same(found, wanted, what):
    if found != wanted:
        print(what, found, wanted)
with psycopg.connect(host=host, port=port, user="x", dbname="shop") as c:
    c.execute("create table t (id int, v text)")
    for n in range(20):
        c.execute("insert into t values (%s, %s)", (n, "v%d" % n), prepare=True)
    with c.pipeline():
        rows = [c.execute("select v from t where id = %s", (n,)) for n in range(20)]
    same([r.fetchone()[0] for r in rows], ["v%d" % n for n in range(20)], "pipeline")
    with c.cursor().copy("copy t from stdin (format binary)") as copy:
        copy.set_types(["int4", "text"])
        for n in range(1000):
            copy.write_row((n, "문" * 50))
    with c.cursor().copy("copy t to stdout") as copy:
        same(sum(1 for _ in copy.rows()), 1020, "copy")
    c.commit()
    try:
        with c.pipeline() as p:
            c.execute("select 1")
            c.execute("select 1/0")
            c.execute("select 2")
            p.sync()
        print("no error")
    except psycopg.errors.DivisionByZero:
        pass
    c.rollback()
    with c.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("select id from t")
        same(sum(1 for _ in cursor), 1020, "cursor")
    c.execute("listen here"); c.execute("notify here, 'hello'"); c.commit()
    same(next(c.notifies(timeout=60)).payload, "hello", "notify")
async def asynchronous():
    c = await asyncpg.connect(host=host, port=port, user="x", database="shop")
    statement = await c.prepare("select v from t where id = $1 order by v")
    same([(await statement.fetch(5))[0]["v"] for _ in range(5)], ["v5"] * 5, "asyncpg prepared")
    await c.copy_records_to_table("t", records=[(n, "z") for n in range(500)])
    same(await c.fetchval("select count(*) from t where v = 'z'"), 500, "asyncpg copy")
    async with c.transaction():
        rows = [r async for r in c.cursor("select id from t", prefetch=50)]
    same(len(rows), 1520, "asyncpg cursor")
    try:
        await c.fetch("select $1::int", "no number")
        print("no error")
    except asyncpg.DataError:
        pass
    try:
        await asyncio.wait_for(c.execute("select pg_sleep(600)"), 1)
        print("no timeout")
    except asyncio.TimeoutError:
        pass
    same(await c.fetchval("select 7"), 7, "asyncpg after cancel")
    await c.executemany("insert into t values ($1, $2)", [(n, "m") for n in range(300)])
    await c.close()
asyncio.run(asynchronous())
c = pg8000.native.Connection("x", host=host, port=port, database="shop")
same(c.run("select count(*) from t where v = :v", v="m"), [[300]], "pg8000")
prepared = c.prepare("select :a::int + 1")
same([prepared.run(a=n)[0][0] for n in range(3)], [1, 2, 3], "pg8000 prepared")
c.close()
"#;

#[test]
fn drivers_with_prepared_statements_pipelines_and_copies_run_unchanged() {
    let mut python = Command::new(python_tool("python3"));
    if !output(python.args(["-c", "import psycopg, asyncpg, pg8000"])).status.success() {
        eprintln!("passed over: the drivers are not installed; `scripts/deps test` does");
        return;
    }
    let Some(mut eyes) = Eyes::start("[session]\nstrict_recording = true\n", "", &["--record-parameters"]) else {
        return;
    };
    let mut python = Command::new(python_tool("python3"));
    assert_eq!(success(python.args(["-c", DRIVERS, &eyes.port])), "");
    eyes.close();
    let lines = eyes.recorded("pg_sleep");
    for (parts, times) in [
        (&["insert into t values ($1, $2) -- parameters: ", ", v19"][..], 1),
        (&["select v from t where id = $1 -- parameters: "], 20),
        (&["done: COPY 1000, 1000 rows"], 1),
        (&["done: COPY 1020, 1020 rows"], 1),
        (&["query: select 1/0"], 1),
        (&["failed, error 22012"], 1),
        (&["] skipped"], 1),
        (&["execute [", "select v from t where id = $1 order by v -- parameters: "], 5),
        (&["done: COPY 500, 500 rows"], 1),
        (&["cancel: what connection 2 runs"], 1),
        (&["failed, error 57014"], 1),
        (&["notify here, 'hello'"], 1),
        (&["] lost"], 0),
    ] {
        assert_eq!(count(&lines, parts), times, "{parts:?} in {lines:#?}");
    }
    assert!(count(&lines, &["] suspended, 50 rows"]) > 20);
    eyes.keeps_secrets(&lines);
}

/// Makes an authority and a certificate for `db.internal` in the database's directory; returns the authority's.
fn certificates(directory: &Path) -> PathBuf {
    let script = "umask 077; \
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=test-authority 2>&1 && \
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=db.internal 2>&1 && \
        printf 'subjectAltName=DNS:db.internal' > names && \
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names 2>&1 \
        && chown --reference=. server.key server.crt && chmod 644 ca.crt";
    success(Command::new("sh").args(["-c", script]).current_dir(directory));
    directory.join("ca.crt")
}

#[test]
fn both_sides_are_encrypted_and_verified_and_every_way_of_proof_works() {
    if program("openssl").is_none() {
        return;
    }
    let Some(mut eyes) = Eyes::start("", "", &[]) else { return };
    // Towards the client: whoever checks finds the deployment's authority, and the target's name.
    let ca = eyes.server.data_dir().join("ca.pem");
    let verified = |host: &str| {
        let place = format!(
            "host={host} hostaddr=127.0.0.1 port={} user=x sslmode=verify-full sslrootcert={}",
            eyes.port,
            ca.display()
        );
        output(Command::new(program("psql").unwrap()).args(["-XAtq", &place, "-c", "\\conninfo", "-c", "select 'in'"]))
    };
    for host in ["orders", "localhost"] {
        let said = String::from_utf8(verified(host).stdout).unwrap();
        assert!(said.contains("SSL connection (protocol: TLSv1.3") && said.ends_with("in\n"), "{host}: {said}");
    }
    let said = String::from_utf8(verified("other").stderr).unwrap();
    assert!(said.contains("does not match host name \"other\""), "{said}");

    // Towards the server.
    let must = ["--tls", "verify-full", "--tls-name", "db.internal"];
    eyes.put(PASSWORD, &must);
    eyes.open();
    let said = eyes.refused("select 1");
    assert!(said.contains("does no TLS, and its settings demand it"), "{said}");
    let directory = eyes.database.directory().to_owned();
    let ca = certificates(&directory);
    let hba = "hostssl shop md5er all md5\nhostssl shop clear all password\nhost all all 127.0.0.1/32 scram-sha-256\n\
        local all all trust\n";
    std::fs::write(directory.join("data/pg_hba.conf"), hba).unwrap();
    for file in ["server.crt", "server.key"] {
        let setting = file.replace("server.crt", "ssl_cert_file").replace("server.key", "ssl_key_file");
        eyes.database.psql("postgres", &format!("alter system set {setting} = '{}'", directory.join(file).display()));
    }
    eyes.database.psql("postgres", "alter system set ssl = on");
    eyes.database.psql("postgres", &format!("create role clear login password '{PASSWORD}'"));
    let md5er = format!("set password_encryption = 'md5'; create role md5er login password '{PASSWORD}'");
    eyes.database.psql("postgres", &md5er);
    eyes.database.psql("postgres", "select pg_reload_conf()");
    let ca = ca.to_str().unwrap();
    let ssl = "select current_user || ' ' || version from pg_stat_ssl where pid = pg_backend_pid()";
    for (user, arguments) in [
        ("app", &["--tls", "verify-full", "--tls-name", "db.internal", "--tls-ca", ca][..]),
        ("app", &["--tls", "require", "--tls-ca", ca]),
        ("clear", &["--tls", "require", "--tls-ca", ca, "--user", "clear"]),
        ("md5er", &["--tls", "require", "--tls-ca", ca, "--user", "md5er"]),
    ] {
        let address = format!("localhost:{}", eyes.database.port());
        let put = ["target", "put", "orders", "--address", &address, "--kind", "postgres", "--through", "Role=bastion"];
        let user_given = ["--inspect", "--user", user, "--password-file", "-", "--database", "shop"];
        let arguments: Vec<&str> = arguments.iter().take_while(|argument| **argument != "--user").copied().collect();
        fed(&mut eyes.server.munjigi(&[&put[..], &user_given, &arguments].concat()), &format!("{PASSWORD}\n"));
        eyes.open();
        // It reloads when it gets to it.
        let said = wait_for("an encrypted connection", || {
            let ran = output(&mut eyes.command("psql", &["-XAtq", "-c", ssl]));
            let text = String::from_utf8(ran.stdout).unwrap();
            let error = String::from_utf8(ran.stderr).unwrap();
            assert!(error.is_empty() || error.contains("no TLS") || error.contains("refused"), "{error}");
            (!text.is_empty()).then_some(text)
        });
        assert_eq!(said, format!("{user} TLSv1.3\n"));
    }
    // Nobody is believed who is not known, nor under another name.
    for arguments in
        [&["--tls", "require"][..], &["--tls", "verify-full", "--tls-name", "other.internal", "--tls-ca", ca]]
    {
        eyes.put(PASSWORD, arguments);
        eyes.open();
        let said = eyes.refused("select 1");
        assert!(said.contains("TLS"), "{arguments:?}: {said}");
    }
    // The password is wrong: the server says so, and the recording.
    eyes.put("wrong", &["--tls", "verify-full", "--tls-name", "db.internal", "--tls-ca", ca]);
    eyes.open();
    let said = eyes.refused("select 1");
    assert!(said.contains("password authentication failed for user \"app\""), "{said}");
    let lines = eyes.recorded("failed, error 28P01");
    eyes.keeps_secrets(&lines);
}

#[test]
fn bytes_that_are_no_postgresql_are_answered_and_cost_nothing() {
    let Some(eyes) = Eyes::start("", "", &[]) else { return };
    let port: u16 = eyes.port.parse().unwrap();
    let mut answers = Vec::new();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0, 0, 0, 8, 0, 2, 0, 0],
        &[0xff; 64],
        &[0, 0, 0, 9, 0, 3, 0, 0, b'x'],
        b"\x16\x03\x01\x00\x05hello",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // Broken or ended: it does not stay.
        let _ = stream.read_to_end(&mut answer);
        answers.push(String::from_utf8_lossy(&answer).into_owned());
    }
    for answer in &answers[..4] {
        assert!(answer.starts_with('E') && answer.contains("C08P01"), "{answers:?}");
    }
    // After the login, too.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    stream.write_all(b"\0\0\0\x10\0\x03\0\0user\0x\0\0").unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"Z\0\0\0\x05I") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        heard.push(byte[0]);
    }
    stream.write_all(b"p\0\0\0\x09word\0").unwrap();
    heard.clear();
    let _ = stream.read_to_end(&mut heard);
    let said = String::from_utf8_lossy(&heard).into_owned();
    assert!(said.starts_with('E') && said.contains("which may not come here"), "{said}");
    // Everybody else is served.
    assert_eq!(eyes.psql("select 'still'"), "still\n");
}
