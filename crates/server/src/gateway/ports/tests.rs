use std::future::Future;
use std::num::NonZeroU64;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use munjigi_core::recording::{Connection, EventKind, StatementEnd, StatementKind, StatementOutcome};

use super::*;

const DESTINATION: &str = "db.internal:5432";

/// Takes what happened to connections.
fn taken(ledger: &Ledger) -> Vec<Connection> {
    let connection = |event| match event {
        EventKind::Connection(connection) => *connection,
        other => panic!("{other:?}"),
    };
    ledger.take().events.into_iter().map(|(_, event)| connection(event)).collect()
}

fn numbers(events: &[Connection]) -> Vec<(char, u64)> {
    events
        .iter()
        .map(|event| match event {
            Connection::Opened { number, .. } => ('o', *number),
            Connection::Refused { number, .. } => ('r', *number),
            Connection::Closed { number, .. } => ('c', *number),
            Connection::Lost { number, .. } => ('l', *number),
        })
        .collect()
}

fn stream(ledger: &Arc<Ledger>) -> (PortStream, tokio::io::DuplexStream) {
    let (near, far) = tokio::io::duplex(1024);
    let attempt = ledger.attempt().unwrap();
    let live = ledger.opened(attempt, &DESTINATION.parse().unwrap(), "10.0.0.7:5432").unwrap();
    let early = BytesMut::from(&b"hello"[..]);
    (PortStream::new(Box::new(near), early, "10.0.0.7:5432".to_owned(), live, ledger.clone()), far)
}

#[tokio::test]
async fn what_passes_is_counted_hashed_and_reported_once() {
    use aws_lc_rs::digest::{SHA256, digest};
    use tokio::io::AsyncReadExt as _;

    let ledger = Arc::new(Ledger::new(6, false, Granted::new(Vec::new())));
    assert_eq!(ledger.active(), None);
    let (mut stream, mut far) = stream(&ledger);
    far.write_all(b" world").await.unwrap();
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"question");
    drop(far);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello world");
    assert!(ledger.active().is_some());
    drop(stream);
    let events = taken(&ledger);
    assert_eq!(numbers(&events), [('o', 7), ('c', 7)]);
    let hash = |bytes: &[u8]| <[u8; 32]>::try_from(digest(&SHA256, bytes).as_ref()).unwrap();
    let why = "both sides ended it".to_owned();
    let (hash_in, hash_out) = (hash(b"question"), hash(b"hello world"));
    assert_eq!(events[1], Connection::Closed { number: 7, bytes_in: 8, bytes_out: 11, hash_in, hash_out, why });
    let mut summary = ConnectionSummary::default();
    events.iter().for_each(|event| summary.add(event));
    let json = serde_json::to_value(&summary).unwrap();
    assert_eq!(json["addresses"]["10.0.0.7:5432"]["bytesOut"], 11);
    assert_eq!(json["listed"][0]["sha256Out"], hex::encode(hash_out));
}

#[tokio::test]
async fn the_end_of_the_session_cuts_what_is_open_and_makes_nothing_new() {
    use tokio::io::AsyncReadExt as _;

    let ledger = Arc::new(Ledger::new(0, true, Granted::new(Vec::new())));
    let (mut stream, _far) = stream(&ledger);
    let reading = tokio::spawn(async move {
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all).await;
        (all, read.unwrap_err().kind(), stream)
    });
    // The reader has what came early and waits for more.
    while ledger.active().is_none() {
        tokio::task::yield_now().await;
    }
    ledger.end("the session was terminated");
    let (all, kind, mut stream) = reading.await.unwrap();
    assert_eq!(kind, std::io::ErrorKind::ConnectionAborted);
    assert!(all.is_empty() || all == b"hello");
    assert!(stream.write_all(b"x").await.is_err());
    drop(stream);
    assert_eq!(numbers(&taken(&ledger)), [('o', 1), ('c', 1)]);
    assert_eq!(ledger.attempt().err(), Some(PortError::Ended));
}

#[tokio::test]
async fn the_connections_of_a_limited_session_carry_its_bucket_and_then_its_rate() {
    use tokio::io::AsyncReadExt as _;

    const PIECE: usize = 500;
    let rate = NonZeroU64::new(1000).unwrap();
    let begun = tokio::time::Instant::now();
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())).with_rate(Some(rate)));
    let ((mut one, mut one_far), (mut two, mut two_far)) = (stream(&ledger), stream(&ledger));
    // One carries as much as it may to the node and the other one from it.
    let inward = async {
        loop {
            one.write_all(&[1; PIECE]).await.unwrap();
        }
    };
    let outward = async {
        let mut space = [0; PIECE];
        loop {
            two.read_exact(&mut space).await.unwrap();
        }
    };
    let taking = async {
        let mut space = [0; PIECE];
        loop {
            one_far.read_exact(&mut space).await.unwrap();
        }
    };
    let giving = async {
        loop {
            two_far.write_all(&[2; PIECE]).await.unwrap();
        }
    };
    let size = rate.get() * rate::BURST.as_secs();
    let judging = async {
        // Beyond what passes at once, it goes on.
        while ledger.carried() < size + 2 * PIECE as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        _ = async { tokio::join!(inward, outward, taking, giving) } => unreachable!(),
        () = judging => {}
    }
    let (carried, time) = (ledger.carried(), begun.elapsed());
    // However long it took: a piece of each connection may be ahead.
    let most = size + time.as_millis() as u64 * rate.get() / 1000 + 1;
    assert!(carried <= most + 2 * PIECE as u64, "{carried} of {most}");
    assert_eq!(ledger.take().held_up_at, Some(rate));
    assert_eq!(ledger.take().held_up_at, None, "that is said once");
}

#[test]
fn files_and_sessions_without_a_rate_are_not_held_up() {
    let ledger = || Ledger::new(0, false, Granted::new(Vec::new()));
    let limited = ledger().with_rate(NonZeroU64::new(1000));
    let forward: Endpoint = DESTINATION.parse().unwrap();
    let files = Endpoint::Files(munjigi_core::endpoint::FileAccess::Both);
    assert!(limited.paced(&forward).is_some() && limited.paced(&files).is_none());
    assert!(ledger().with_rate(None).paced(&forward).is_none());
}

#[tokio::test]
async fn places_are_free_when_the_hub_has_taken_their_ends() {
    let ledger = Ledger::new(0, false, Granted::new(Vec::new()));
    let mut attempts: Vec<_> = (0..Ledger::MAX_CONNECTIONS).map(|_| ledger.attempt().unwrap()).collect();
    assert_eq!(ledger.attempt().err(), Some(PortError::TooMany));
    ledger.refused(attempts.pop().unwrap(), DESTINATION, "nobody listens");
    // Until then what waits for the hub is bounded.
    assert_eq!(ledger.attempt().err(), Some(PortError::TooMany));
    assert_eq!(taken(&ledger).len(), 1);
    drop(ledger.attempt().unwrap());
    drop(attempts.pop());
    assert!(ledger.attempt().is_ok());
}

#[test]
fn a_summary_stays_small() {
    let mut summary = ConnectionSummary::default();
    for number in 0..1000 {
        let address = format!("10.0.{}.7:22", number % 200);
        summary.add(&Connection::Opened { number, destination: DESTINATION.into(), address });
        let (hash_in, hash_out, why) = ([0; 32], [0; 32], "both sides ended it".to_owned());
        summary.add(&Connection::Closed { number, bytes_in: 1, bytes_out: 2, hash_in, hash_out, why });
    }
    assert_eq!((summary.opened, summary.bytes_in, summary.bytes_out), (1000, 1000, 2000));
    assert!(serde_json::to_vec(&summary).unwrap().len() < 32 * 1024);
}

#[test]
fn what_a_node_says_is_cut_to_words() {
    let refused =
        Refused { code: "Conn\u{1b}[2JRefused".into(), message: "no\r\n\u{1b}[2J".into(), ..Refused::default() };
    let expected = PortError::Refused { code: "Conn2JRefused".into(), message: "no[2J".into() };
    assert_eq!(from_node(refused), expected);
    assert_eq!(cut_address("[::1]:22\u{7}"), "[::1]:22");
}

/// Polls once.
fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn done(journal: &Journal, number: u64) -> StatementEnd {
    let (connection, tag, code) = (journal.connection(), String::new(), String::new());
    StatementEnd { connection, number, outcome: StatementOutcome::Done, rows: None, tag, code, micros: 1 }
}

#[tokio::test]
async fn statements_come_in_order_with_their_connections_and_wait_for_room() {
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())));
    let (stream, _far) = stream(&ledger);
    let journal = Journal::new(ledger.clone(), stream.number(), false);
    let text = "x".repeat(40_000);
    let mut begun = 0;
    let waits = loop {
        let mut begins = Box::pin(journal.begin(journal.statement(StatementKind::Query, &text)));
        match poll(begins.as_mut()) {
            Poll::Ready(begins) => begins.unwrap(),
            Poll::Pending => break begins,
        }
        begun += 1;
        assert!(begun < 100, "not bounded");
    };
    assert!(begun >= 10);
    // What is short finds room no more easily than what is long: it would overtake.
    assert!(poll(pin!(journal.end(done(&journal, 1)))).is_pending());
    let taken = ledger.take();
    assert_eq!((taken.events.len(), taken.statements), (1 + begun, begun as u64));
    assert!(matches!(&taken.events[0].1, EventKind::Connection(_)));
    assert!(matches!(&taken.events[begun].1, EventKind::Statement(last) if last.number == begun as u64));
    drop(waits);
    journal.end(done(&journal, 1)).await.unwrap();
    journal.settled().await.unwrap();
    drop(stream);
    let kinds = ledger.take().events;
    assert!(matches!(kinds.as_slice(), [(_, EventKind::StatementEnd(_)), (_, EventKind::Connection(_))]));
    ledger.end("over");
    assert_eq!(journal.begin(journal.statement(StatementKind::Query, "x")).await, Err(PortError::Ended));
}

#[tokio::test]
async fn under_strict_recording_a_statement_settles_when_it_is_stored() {
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())));
    let journal = Journal::new(ledger.clone(), 1, true);
    journal.settled().await.unwrap();
    journal.begin(journal.statement(StatementKind::Query, "select 1")).await.unwrap();
    journal.begin(journal.statement(StatementKind::Query, "select 2")).await.unwrap();
    let mut settled = pin!(journal.settled());
    assert!(poll(settled.as_mut()).is_pending());
    let statements = ledger.take().statements;
    ledger.statements_stored(statements - 1);
    assert!(poll(settled.as_mut()).is_pending());
    ledger.statements_stored(statements);
    settled.await.unwrap();
    journal.begin(journal.statement(StatementKind::Query, "select 3")).await.unwrap();
    let mut settled = pin!(journal.settled());
    assert!(poll(settled.as_mut()).is_pending());
    ledger.end("over");
    assert_eq!(settled.await, Err(PortError::Ended));
}
