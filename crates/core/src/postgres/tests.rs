//! Conversations by tables: what client and server say, and what is recorded of it.

use super::*;
use crate::recording::EventKind;

/// A message.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

fn query(text: &str) -> Vec<u8> {
    message(b'Q', format!("{text}\0").as_bytes())
}

fn parse(name: &str, text: &str) -> Vec<u8> {
    message(b'P', format!("{name}\0{text}\0\0\0").as_bytes())
}

/// Binds with values as text, `None` for NULL.
fn bind(portal: &str, statement: &str, values: &[Option<&str>]) -> Vec<u8> {
    let mut body = format!("{portal}\0{statement}\0\0\0").into_bytes();
    body.extend_from_slice(&u16::try_from(values.len()).unwrap().to_be_bytes());
    for value in values {
        match value {
            None => body.extend_from_slice(&(-1_i32).to_be_bytes()),
            Some(value) => {
                body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
                body.extend_from_slice(value.as_bytes());
            }
        }
    }
    body.extend_from_slice(&[0, 0]);
    message(b'B', &body)
}

fn execute(portal: &str) -> Vec<u8> {
    message(b'E', format!("{portal}\0\0\0\0\0").as_bytes())
}

fn named(kind: u8, what: char, name: &str) -> Vec<u8> {
    message(kind, format!("{what}{name}\0").as_bytes())
}

fn bare(kind: u8) -> Vec<u8> {
    message(kind, b"")
}

fn complete(tag: &str) -> Vec<u8> {
    message(b'C', format!("{tag}\0").as_bytes())
}

fn row() -> Vec<u8> {
    message(b'D', &[0, 1, 0, 0, 0, 1, b'x'])
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0VERROR\0C{code}\0Mno\0\0").as_bytes())
}

/// One side of a talk.
enum Says {
    Client(Vec<Vec<u8>>),
    Server(Vec<Vec<u8>>),
}
use Says::{Client, Server};

/// Plays a talk in pieces of `step` bytes and returns the lines of the recording, without times.
fn play(talk: &[Says], step: usize, with_values: bool) -> Vec<String> {
    let mut conversation = Conversation::new(1, 0, with_values);
    let mut events = Vec::new();
    for says in talk {
        let (Client(messages) | Server(messages)) = says;
        for piece in messages.concat().chunks(step) {
            match says {
                Client(_) => conversation.from_client(piece, 0, &mut events).unwrap(),
                Server(_) => conversation.from_server(piece, 0, &mut events).unwrap(),
            }
        }
    }
    conversation.lost(0, &mut events);
    let line = |event| match event {
        EventKind::Statement(statement) => statement.to_string(),
        EventKind::StatementEnd(end) => end.to_string().replace(", 0.000 ms", ""),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(line).collect()
}

/// Checks a talk, however its bytes are cut.
fn check(talk: &[Says], recorded: &[&str]) {
    for step in [usize::MAX, 7, 1] {
        assert_eq!(play(talk, step, false), recorded, "in pieces of {step}");
    }
}

#[test]
fn simple_queries_have_rows_and_outcomes() {
    check(
        &[
            Client(vec![query("select 1")]),
            Server(vec![bare(b'T'), row(), complete("SELECT 1"), ready()]),
            Client(vec![query("insert 1; insert 2; begin")]),
            Server(vec![complete("INSERT 0 2"), complete("INSERT 0 3"), complete("BEGIN"), ready()]),
            Client(vec![query("show x")]),
            Server(vec![bare(b'T'), row(), message(b'N', b""), message(b'S', b"a\0b\0"), complete("SHOW"), ready()]),
            Client(vec![query("")]),
            Server(vec![bare(b'I'), ready()]),
            Client(vec![query("select 1; sel")]),
            Server(vec![complete("SELECT 1"), error("42601"), ready()]),
            Client(vec![query("select pg_sleep(9)")]),
            Server(vec![error("57014"), ready()]),
            Client(vec![query("alter role a password 'x'")]),
            Server(vec![message(b'A', b"")]),
        ],
        &[
            "[1.1] query: select 1",
            "[1.1] done: SELECT 1, 1 row",
            "[1.2] query: insert 1; insert 2; begin",
            "[1.2] done: INSERT 0 2; INSERT 0 3; BEGIN, 5 rows",
            "[1.3] query: show x",
            "[1.3] done: SHOW, 1 row",
            "[1.4] query: ",
            "[1.4] done",
            "[1.5] query: select 1; sel",
            "[1.5] failed: SELECT 1, 1 row, error 42601",
            "[1.6] query: select pg_sleep(9)",
            "[1.6] failed, error 57014",
            "[1.7] query: alter role a password '***'",
            "[1.7] lost",
        ],
    );
}

#[test]
fn a_nameless_statement_that_is_run_at_once_is_one_statement() {
    let run = |text: &str| vec![parse("", text), bind("", "", &[]), named(b'D', 'P', ""), execute(""), bare(b'S')];
    let answers = |tag: &str| vec![bare(b'1'), bare(b'2'), bare(b'n'), complete(tag), ready()];
    check(
        &[
            Client(run("select 1")),
            Server(answers("SELECT 1")),
            // Two batches at once.
            Client([run("update a"), run("update b")].concat()),
            Server([answers("UPDATE 3"), answers("UPDATE 0")].concat()),
            // Only described first.
            Client(vec![parse("", "select $1"), named(b'D', 'S', ""), bare(b'S')]),
            Server(vec![bare(b'1'), bare(b't'), bare(b'T'), ready()]),
            Client(vec![bind("", "", &[Some("5")]), execute(""), bare(b'S')]),
            Server(vec![bare(b'2'), row(), complete("SELECT 1"), ready()]),
            Client(vec![bare(b'X')]),
        ],
        &[
            "[1.1] query: select 1",
            "[1.1] done: SELECT 1, 1 row",
            "[1.2] query: update a",
            "[1.3] query: update b",
            "[1.2] done: UPDATE 3, 3 rows",
            "[1.3] done: UPDATE 0, 0 rows",
            "[1.4] prepare: select $1",
            "[1.4] done",
            "[1.5] execute [1.4]: select $1",
            "[1.5] done: SELECT 1, 1 row",
        ],
    );
}

#[test]
fn executions_of_named_statements_tell_what_they_run() {
    check(
        &[
            Client(vec![parse("a", "select 'a'"), parse("b", "select 'b'"), bare(b'S')]),
            Server(vec![bare(b'1'), bare(b'1'), ready()]),
            Client(vec![bind("", "a", &[]), execute(""), bind("p", "b", &[]), execute("p"), execute("p"), bare(b'S')]),
            Server(vec![bare(b'2'), complete("SELECT 1"), bare(b'2'), row(), row(), bare(b's')]),
            Server(vec![row(), complete("SELECT 1"), ready()]),
            Client(vec![named(b'C', 'S', "a"), bind("", "a", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'3'), error("26000"), ready()]),
            // SQL may have given the name another meaning.
            Client(vec![query("deallocate b; PREPARE b as delete from x")]),
            Server(vec![complete("DEALLOCATE"), complete("PREPARE"), ready()]),
            Client(vec![bind("", "b", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'2'), complete("DELETE 9"), ready()]),
        ],
        &[
            "[1.1] prepare: select 'a'",
            "[1.2] prepare: select 'b'",
            "[1.1] done",
            "[1.2] done",
            "[1.3] execute [1.1]: select 'a'",
            "[1.4] execute [1.2]: select 'b'",
            "[1.5] execute [1.2]: select 'b'",
            "[1.3] done: SELECT 1, 1 row",
            "[1.4] suspended, 2 rows",
            "[1.5] done: SELECT 1, 1 row",
            "[1.6] execute: a",
            "[1.6] failed, error 26000",
            "[1.7] query: deallocate b; PREPARE b as delete from x",
            "[1.7] done: DEALLOCATE; PREPARE",
            "[1.8] execute: b",
            "[1.8] done: DELETE 9, 9 rows",
        ],
    );
}

#[test]
fn an_error_fails_one_execution_and_passes_over_the_rest_up_to_the_sync() {
    check(
        &[
            // The text cannot be parsed.
            Client(vec![parse("", "sel"), bind("", "", &[]), execute(""), bare(b'S'), query("select 1")]),
            Server(vec![error("42601"), ready(), complete("SELECT 1"), ready()]),
            // A value does not fit: the execution fails, the next is passed over.
            Client(vec![parse("", "select $1"), bind("", "", &[]), execute("")]),
            Client(vec![parse("n", "select 2"), bind("", "n", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'1'), error("22P02"), ready()]),
            // What comes only after the error.
            Client(vec![parse("", "select 3"), bind("", "", &[])]),
            Server(vec![bare(b'1'), error("22P02")]),
            Client(vec![execute(""), query("select 4"), execute(""), bare(b'S')]),
            Server(vec![ready()]),
            Client(vec![query("select 5")]),
            Server(vec![complete("SELECT 1"), ready()]),
            // The end of a transaction fails, not the statement.
            Client(vec![parse("", "insert"), bind("", "", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'1'), bare(b'2'), complete("INSERT 0 1"), error("23503"), ready()]),
        ],
        &[
            "[1.1] query: sel",
            "[1.2] query: select 1",
            "[1.1] failed, error 42601",
            "[1.2] done: SELECT 1, 1 row",
            "[1.3] query: select $1",
            "[1.4] prepare: select 2",
            "[1.5] execute [1.4]: select 2",
            "[1.3] failed, error 22P02",
            "[1.4] skipped",
            "[1.5] skipped",
            "[1.6] prepare: select 3",
            "[1.6] done",
            "[1.7] execute [1.6]: select 3",
            "[1.7] failed, error 22P02",
            "[1.8] query: select 4",
            "[1.8] skipped",
            "[1.9] execute: ",
            "[1.9] skipped",
            "[1.10] query: select 5",
            "[1.10] done: SELECT 1, 1 row",
            "[1.11] query: insert",
            "[1.11] done: INSERT 0 1, 1 row",
        ],
    );
}

#[test]
fn a_name_that_could_not_be_given_again_does_not_hide_what_runs() {
    check(
        &[
            Client(vec![parse("a", "delete from x"), bare(b'S')]),
            Server(vec![bare(b'1'), ready()]),
            // The name is taken, which is known only after its execution was asked for.
            Client(vec![parse("a", "select 1"), bare(b'S'), bind("", "a", &[]), execute(""), bare(b'S')]),
            Server(vec![error("42P05"), ready(), bare(b'2'), complete("DELETE 9"), ready()]),
            Client(vec![bind("", "a", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'2'), complete("DELETE 0"), ready()]),
            // The same with portals inside a transaction.
            Client(vec![parse("b", "select 2"), bind("p", "a", &[]), bare(b'S')]),
            Server(vec![bare(b'1'), bare(b'2'), ready()]),
            Client(vec![bind("p", "b", &[]), bare(b'S'), execute("p"), bare(b'S')]),
            Server(vec![error("42P03"), ready(), complete("DELETE 0"), ready()]),
        ],
        &[
            "[1.1] prepare: delete from x",
            "[1.1] done",
            "[1.2] prepare: select 1",
            "[1.3] execute [1.2]: select 1",
            "[1.2] failed, error 42P05",
            // The same number again: this is what ran.
            "[1.3] execute [1.1]: delete from x",
            "[1.3] done: DELETE 9, 9 rows",
            "[1.4] execute [1.1]: delete from x",
            "[1.4] done: DELETE 0, 0 rows",
            "[1.5] prepare: select 2",
            "[1.5] done",
            "[1.6] execute [1.5]: select 2",
            "[1.6] execute [1.1]: delete from x",
            "[1.6] done: DELETE 0, 0 rows",
        ],
    );
}

#[test]
fn copies_are_counted_and_swallow_the_sync_that_came_too_early() {
    let data = || message(b'd', b"1\n");
    check(
        &[
            Client(vec![query("copy t from stdin")]),
            Server(vec![message(b'G', &[0, 0, 0])]),
            Client(vec![data(), data(), bare(b'c')]),
            Server(vec![complete("COPY 2"), ready()]),
            Client(vec![query("copy t to stdout")]),
            Server(vec![message(b'H', &[0, 0, 0]), data(), data(), bare(b'c'), complete("COPY 2"), ready()]),
            Client(vec![query("copy t from stdin")]),
            Server(vec![message(b'G', &[0, 0, 0])]),
            Client(vec![data(), message(b'f', b"stop\0")]),
            Server(vec![error("57014"), ready()]),
            // As libpq does it in the extended protocol.
            Client(vec![parse("", "copy u from stdin"), bind("", "", &[]), execute(""), bare(b'S')]),
            Server(vec![bare(b'1'), bare(b'2'), message(b'G', &[0, 0, 0])]),
            Client(vec![data(), bare(b'c'), bare(b'S')]),
            Server(vec![complete("COPY 1"), ready()]),
            Client(vec![query("select 1")]),
            Server(vec![complete("SELECT 1"), ready()]),
        ],
        &[
            "[1.1] query: copy t from stdin",
            "[1.1] done: COPY 2, 2 rows",
            "[1.2] query: copy t to stdout",
            "[1.2] done: COPY 2, 2 rows",
            "[1.3] query: copy t from stdin",
            "[1.3] failed, error 57014",
            "[1.4] query: copy u from stdin",
            "[1.4] done: COPY 1, 1 row",
            "[1.5] query: select 1",
            "[1.5] done: SELECT 1, 1 row",
        ],
    );
}

#[test]
fn functions_long_texts_and_lost_connections_are_recorded() {
    let long = format!("select '{}'", "x".repeat(100_000));
    let talk = [
        Client(vec![message(b'F', &[0, 0, 4, 210, 0, 0, 0, 0, 0, 0])]),
        Server(vec![message(b'V', b""), ready()]),
        Client(vec![query(&long), parse("", &long), bind("", "", &[]), execute(""), bare(b'S')]),
    ];
    for step in [usize::MAX, 1000] {
        let lines = play(&talk, step, false);
        let heads: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(heads, ["[1.1] call", "[1.1] done", "[1.2] query", "[1.3] query", "[1.2] lost", "[1.3] lost"]);
        assert_eq!(lines[0], "[1.1] call: function 1234");
        for line in &lines[2..4] {
            assert!(line.ends_with(" … (100009 bytes in all)") && line.len() < 50_000, "{}", line.len());
        }
    }
}

#[test]
fn values_are_kept_only_where_they_are_asked_for() {
    let values = [Some("가"), None, Some("")];
    let talk = [
        Client(vec![parse("", "select $1, $2"), bind("", "", &values), execute(""), bare(b'S')]),
        Server(vec![bare(b'1'), bare(b'2'), complete("SELECT 1"), ready()]),
    ];
    assert_eq!(play(&talk, 1000, false)[0], "[1.1] query: select $1, $2");
    assert_eq!(play(&talk, 1000, true)[0], "[1.1] query: select $1, $2 -- parameters: 가, NULL, ");
    // Binary values, and more than are kept.
    let mut body = b"\0\0\0\x01\0\x01\x00\x03".to_vec();
    for value in [&b"\x00\xff"[..], &[7; 9000], &[8; 3]] {
        body.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend_from_slice(value);
    }
    let talk = [Client(vec![parse("", "select $1"), message(b'B', &body), execute("")])];
    assert_eq!(play(&talk, 1000, true)[0], "[1.1] query: select $1 -- parameters: \\x00ff");
}

#[test]
fn what_may_not_come_is_refused() {
    let outcome = |bytes: &[u8], from_client: bool| {
        let mut conversation = Conversation::new(1, 0, false);
        let mut events = Vec::new();
        let read = match from_client {
            true => conversation.from_client(bytes, 0, &mut events),
            false => conversation.from_server(bytes, 0, &mut events),
        };
        read.unwrap_err()
    };
    for bytes in [&message(b'p', b"password\0")[..], b"p", b"GET / HTTP/1.1", &[0]] {
        let refused = outcome(bytes, true);
        assert!(matches!(refused, Violation::Kind { from: "client", .. }), "{bytes:?}: {refused}");
    }
    for bytes in [&b"Q\0\0\0\x03"[..], b"Q\xff\xff\xff\xff", b"Q\x40\x00\x00\x00", b"S\0\0\x30\0", b"D\x80\0\0\0"] {
        assert!(matches!(outcome(bytes, true), Violation::Length { .. }), "{bytes:?}");
    }
    for bytes in [message(b'P', b"name"), message(b'P', b"n\0text"), message(b'B', b"p\0s"), message(b'E', b"p")] {
        assert!(matches!(outcome(&bytes, true), Violation::Malformed { .. }), "{bytes:?}");
    }
    for bytes in [b"R\0\0\0\x08", b"K\0\0\0\x0c", b"?\0\0\0\x04"] {
        assert!(matches!(outcome(bytes, false), Violation::Kind { from: "server", .. }), "{bytes:?}");
    }
}

#[test]
fn a_client_that_asks_on_and_on_is_held_back() {
    let mut conversation = Conversation::new(1, 0, false);
    let mut events = Vec::new();
    let mut asked = 0;
    while conversation.takes_more() {
        conversation.from_client(&named(b'D', 'S', "x"), 0, &mut events).unwrap();
        asked += 1;
        assert!(asked < 10_000);
    }
    // More than a server holds back before it sends what it has: five bytes each, 8 KiB.
    assert!(asked > 8192 / 5);
    conversation.from_server(&bare(b'n'), 0, &mut events).unwrap();
    assert!(conversation.takes_more());
    // An error answers everything that the server passes over.
    conversation.from_server(&error("26000"), 0, &mut events).unwrap();
    conversation.from_client(&bare(b'S'), 0, &mut events).unwrap();
    conversation.from_server(&ready(), 0, &mut events).unwrap();
    assert!(conversation.takes_more() && events.is_empty());
}

/// The talk that hostile ones are made of.
fn seeds() -> (Vec<u8>, Vec<u8>) {
    let client = [
        parse("a", "select password 'x'"),
        bind("", "a", &[Some("1"), None]),
        named(b'D', 'P', ""),
        execute(""),
        named(b'C', 'S', "a"),
        bare(b'S'),
        query("copy t from stdin; prepare"),
        message(b'd', b"1\n"),
        bare(b'c'),
        message(b'F', &[0, 0, 0, 1]),
        parse("", "x"),
        bind("", "", &[]),
        execute(""),
        bare(b'H'),
    ];
    let server = [
        bare(b'1'),
        bare(b'2'),
        bare(b'T'),
        row(),
        complete("SELECT 1"),
        bare(b'3'),
        ready(),
        message(b'G', &[0]),
        complete("COPY 1"),
        error("22P02"),
        ready(),
        message(b'V', b""),
        ready(),
        bare(b's'),
    ];
    (client.concat(), server.concat())
}

#[test]
fn a_quarter_million_hostile_talks_neither_panic_nor_grow() {
    let (client, server) = seeds();
    let mut turn = 0_u32;
    let mut ok = 0;
    let mut both = |from_client: &[u8], from_server: &[u8]| {
        let mut conversation = Conversation::new(1, 0, true);
        let mut events = Vec::new();
        turn = turn.wrapping_add(1);
        let step = 1 + (turn % 97) as usize;
        let mut pieces = from_server.chunks(step);
        let mut good = true;
        for piece in from_client.chunks(step) {
            good &= conversation.from_client(piece, 1, &mut events).is_ok();
            if let Some(answer) = pieces.next().filter(|_| good) {
                good &= conversation.from_server(answer, 2, &mut events).is_ok();
            }
            if !good {
                break;
            }
        }
        conversation.lost(3, &mut events);
        ok += u32::from(good);
        // A message has five bytes at least, and is begun, corrected and ended at most.
        assert!(events.len() <= from_client.len() + from_server.len());
    };
    crate::mutate::each(&client, 0x70_67_63, |bytes| both(bytes, &server));
    crate::mutate::each(&server, 0x70_67_73, |bytes| both(&client, bytes));
    assert!(ok > 10_000, "only {ok} were readable");
}

#[test]
fn a_quarter_million_first_packets_neither_panic_nor_grow() {
    let login = b"\0\x03\0\0user\0alice\0database\0shop\0_pq_.x\0\0\0";
    let Ok(First::Login(read)) = First::parse(login) else { panic!("no login") };
    assert_eq!((read.get("user"), read.get("database"), read.get("x")), (Some("alice"), Some("shop"), None));
    assert_eq!(read.extensions(), ["_pq_.x"]);
    let cancel = [&80_877_102_u32.to_be_bytes()[..], &[0, 0, 0, 7, 0, 0, 0, 9]].concat();
    assert_eq!(First::parse(&cancel), Ok(First::Cancel { process_id: 7, secret: 9 }));
    assert_eq!(First::parse(&80_877_103_u32.to_be_bytes()), Ok(First::Ssl));
    assert_eq!(First::parse(&80_877_104_u32.to_be_bytes()), Ok(First::Gss));
    assert_eq!(First::parse(b"\0\x02\0\x01"), Err(Violation::Version { major: 2, minor: 1 }));
    for bad in [&b""[..], b"\0\x03\0\0", b"\0\x03\0\0user\0", b"\0\x03\0\0user\0a\0", b"\0\x03\0\0\0x", &cancel[..11]] {
        assert!(matches!(First::parse(bad), Err(Violation::Malformed { .. })), "{bad:?}");
    }
    crate::mutate::each(login, 0x70_67_66, |bytes| {
        if let Ok(First::Login(login)) = First::parse(bytes) {
            let held: usize = login.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
            assert!(held <= bytes.len());
        }
    });
}

#[test]
fn errors_are_written_as_they_are_read() {
    let mut bytes = Vec::new();
    fatal("28P01", "no\0pe", &mut bytes);
    assert_eq!(bytes[0], b'E');
    assert_eq!(usize::try_from(u32::from_be_bytes(bytes[1..5].try_into().unwrap())).unwrap(), bytes.len() - 1);
    assert_eq!(error_code(&bytes[5..]), "28P01");
    let Ok(Readiness::Error { message, .. }) = ready_or_error(b'E', &bytes[5..]) else { panic!("no error") };
    assert_eq!(message, "nope");
    for cut in 0..bytes.len() - 5 {
        let _ = error_code(&bytes[5..5 + cut]);
    }
    assert_eq!(ready_or_error(b'K', b"\0\0\0\x07\0\0\0\x09"), Ok(Readiness::Key { process_id: 7, secret: 9 }));
    assert!(ready_or_error(b'K', b"\0").is_err() && ready_or_error(b'D', b"").is_err());
}
