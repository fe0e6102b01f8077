use std::sync::Arc;
use std::time::Duration;

use munjigi_core::mysql::write_packet;
use munjigi_core::recording::{EventKind, StatementEnd, StatementOutcome};
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::login::End;
use super::*;
use crate::gateway::ports::{Granted, Ledger};

const LONG: Duration = Duration::from_secs(120);
const OK: &[u8] = &[0, 1, 0, 2, 0, 0, 0];

/// A connection behind its logins, between a client and a server of the test.
struct Between {
    client: DuplexStream,
    server: DuplexStream,
    ledger: Arc<Ledger>,
    relay: JoinHandle<Result<(), Failure>>,
}

fn between() -> Between {
    let (client, client_end) = duplex(10_000);
    let (server, target_end) = duplex(10_000);
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())));
    let journal = Journal::new(ledger.clone(), 3, false);
    let (client_end, target_end) = (End::new(Box::new(client_end)), End::new(Box::new(target_end)));
    let logged_in = LoggedIn { client: client_end, target: target_end, conversation: Conversation::new(0, 3, 1) };
    let relay = tokio::spawn(async move { run(logged_in, &journal).await });
    Between { client, server, ledger, relay }
}

fn packets(sequence: u8, payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, payload) in payloads.iter().enumerate() {
        write_packet(&mut out, sequence.wrapping_add(number as u8), payload);
    }
    out
}

async fn expect(stream: &mut DuplexStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    timeout(LONG, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert!(heard == bytes, "other bytes than those that were sent");
}

fn noted(ledger: &Ledger) -> (Vec<String>, Vec<StatementEnd>) {
    let (mut texts, mut ends) = (Vec::new(), Vec::new());
    for (_, event) in ledger.take().events {
        match event {
            EventKind::Statement(statement) => texts.push(statement.text),
            EventKind::StatementEnd(end) => ends.push(*end),
            other => panic!("{other:?}"),
        }
    }
    (texts, ends)
}

#[tokio::test]
async fn a_long_result_passes_unchanged_to_a_client_that_reads_slowly() {
    let Between { mut client, mut server, ledger, relay } = between();
    let query = packets(0, &[b"\x03SELECT a FROM t"]);
    client.write_all(&query).await.unwrap();
    expect(&mut server, &query).await;
    let row = [b"\xfc\xe8\x03".as_slice(), &[b'x'; 1000]].concat();
    let eof: &[u8] = &[0xfe, 0, 0, 2, 0];
    let mut rows = vec![&[1][..], b"\x03def", eof];
    rows.extend(std::iter::repeat_n(row.as_slice(), 4000));
    rows.push(eof);
    let result = packets(1, &rows);
    let sent = result.clone();
    let sending = tokio::spawn(async move {
        server.write_all(&sent).await.unwrap();
        server
    });
    for piece in result.chunks(70_001) {
        expect(&mut client, piece).await;
    }
    let mut server = sending.await.unwrap();
    // The client says goodbye, and the server hangs up.
    let quit = packets(0, &[b"\x01"]);
    client.write_all(&quit).await.unwrap();
    expect(&mut server, &quit).await;
    drop(server);
    assert_eq!(timeout(LONG, client.read_u8()).await.unwrap().unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    relay.await.unwrap().unwrap();
    let (texts, ends) = noted(&ledger);
    assert_eq!(texts, ["SELECT a FROM t"]);
    assert_eq!((ends[0].number, ends[0].connection, ends[0].rows), (2, 3, Some(4000)));
    assert_eq!(ends[0].outcome, StatementOutcome::Done);
}

#[tokio::test]
async fn a_command_that_is_not_let_through_is_answered_in_its_turn() {
    let Between { mut client, mut server, ledger, relay } = between();
    let [first, refused, last] = [&b"\x03DO 1"[..], b"\x11root", b"\x03DO 2"].map(|payload| packets(0, &[payload]));
    client.write_all(&[first.clone(), refused, last.clone()].concat()).await.unwrap();
    expect(&mut server, &[first, last].concat()).await;
    server.write_all(&packets(1, &[OK, OK])).await.unwrap();
    expect(&mut client, &packets(1, &[OK])).await;
    let mut head = [0; 7];
    timeout(LONG, client.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head[3..], [1, 0xff, 0x17, 0x04]);
    let mut message = vec![0; usize::from(head[0]) - 3];
    client.read_exact(&mut message).await.unwrap();
    assert!(String::from_utf8_lossy(&message).contains("a plain forward carries it"));
    expect(&mut client, &packets(2, &[OK])).await;
    drop(client);
    // The end of the client reaches the server, which hangs up then.
    assert!(timeout(LONG, server.read_u8()).await.unwrap().is_err());
    drop(server);
    relay.await.unwrap().unwrap();
    let outcomes: Vec<_> = noted(&ledger).1.iter().map(|end| (end.number, end.outcome)).collect();
    use StatementOutcome::{Done, Failed};
    assert_eq!(outcomes, [(2, Done), (3, Failed), (4, Done)]);
}

#[tokio::test]
async fn what_has_no_answer_when_the_connection_ends_is_lost_and_nonsense_cuts_it() {
    let Between { mut client, mut server, ledger, relay } = between();
    client.write_all(&packets(0, &[b"\x03SELECT SLEEP(100)"])).await.unwrap();
    server.read_u8().await.unwrap();
    server.write_all(&packets(1, &[b"\xfb/etc/passwd"])).await.unwrap();
    let cut = timeout(LONG, relay).await.unwrap().unwrap().unwrap_err();
    assert!(cut.to_string().contains("which is not allowed here"), "{cut}");
    assert!(client.read_u8().await.is_err(), "the client was not asked for the file");
    assert_eq!(noted(&ledger).1[0].outcome, StatementOutcome::Lost);
}
