//! How streams begin and end, and that ends are never mistaken for each other.

use std::io::ErrorKind;

use crate::harness::{TestServer, Verdict, quick_limits, receive, send, within};
use munjigi_link::{EndReason, Limits, LinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_close_ends_one_direction_and_leaves_the_other() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut stream = here.opener().open().await.unwrap();
    send(&mut stream, b"all I have").await;
    within(stream.shutdown()).await.unwrap();
    let mut accepted = within(there.accept()).await.unwrap();
    let mut all = Vec::new();
    within(accepted.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all, b"all I have");
    let error = within(stream.write_all(b"more")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);

    let back = vec![7; 600_000];
    let writer = tokio::spawn(async move {
        accepted.write_all(&back).await.unwrap();
        accepted.shutdown().await.unwrap();
        accepted
    });
    let mut all = Vec::new();
    within(stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 600_000);
    drop(within(writer).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_stream_is_a_reset_and_never_an_orderly_end() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut stream = here.opener().open().await.unwrap();
    send(&mut stream, b"x").await;
    let mut accepted = within(there.accept()).await.unwrap();
    drop(stream);
    assert_eq!(receive(&mut accepted, 1).await, b"x");
    let error = within(accepted.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(LinkError::of(&error), Some(&LinkError::StreamReset));

    // Also after the reader has shut down its own direction, where the multiplexer itself could not tell.
    let mut stream = here.opener().open().await.unwrap();
    send(&mut stream, b"y").await;
    let accepted = within(there.accept()).await.unwrap();
    drop(accepted);
    within(stream.shutdown()).await.unwrap();
    let error = within(stream.read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(LinkError::of(&error), Some(&LinkError::StreamReset));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_link_is_told_to_every_stream_with_its_reason() {
    let mut server = TestServer::start().await;
    let (mut here, mut there) = server.connect().await;
    let mut reading = here.opener().open().await.unwrap();
    send(&mut reading, b"x").await;
    let accepted = within(there.accept()).await.unwrap();
    let mut writing = here.opener().open().await.unwrap();
    let blocked = tokio::spawn(async move { writing.write_all(&vec![0; 4 << 20]).await.unwrap_err() });
    let waiting = tokio::spawn(async move { reading.read(&mut [0; 1]).await.unwrap_err() });
    let opener = here.opener();

    assert_eq!(within(there.close()).await, EndReason::ClosedHere);
    assert_eq!(within(here.closed()).await, EndReason::ClosedByPeer);
    for error in [within(waiting).await.unwrap(), within(blocked).await.unwrap()] {
        assert_eq!(LinkError::of(&error), Some(&LinkError::Ended(EndReason::ClosedByPeer)), "{error:?}");
    }
    assert_eq!(opener.open().await.unwrap_err(), LinkError::Ended(EndReason::ClosedByPeer));
    assert!(within(here.accept()).await.is_none());
    drop(accepted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_an_orderly_close_arrives() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut stream = here.opener().open().await.unwrap();
    send(&mut stream, &vec![9; 100_000]).await;
    within(stream.shutdown()).await.unwrap();
    assert_eq!(within(here.close()).await, EndReason::ClosedHere);
    let mut accepted = within(there.accept()).await.unwrap();
    let mut all = Vec::new();
    within(accepted.read_to_end(&mut all)).await.unwrap();
    assert_eq!(all.len(), 100_000);
    assert_eq!(within(there.closed()).await, EndReason::ClosedByPeer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_connection_closes_the_link() {
    let mut server = TestServer::start().await;
    let (here, there) = server.connect().await;
    let opener = here.opener();
    drop(here);
    assert_eq!(within(there.closed()).await, EndReason::ClosedByPeer);
    assert_eq!(within(opener.closed()).await, EndReason::ClosedHere);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_opens_at_once_are_bounded_and_harm_nothing() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let opener = here.opener();
    let attempts: Vec<_> = (0..10_000)
        .map(|_| {
            let opener = opener.clone();
            tokio::spawn(async move { opener.open().await })
        })
        .collect();
    let mut open = Vec::new();
    for attempt in attempts {
        match within(attempt).await.unwrap() {
            Ok(stream) => open.push(stream),
            Err(error) => assert_eq!(error, LinkError::TooManyStreams { limit: 64 }),
        }
    }
    assert_eq!(open.len(), 64);
    // Places are given back, and what is open works.
    drop(open.split_off(1));
    send(&mut open[0], b"still here").await;
    assert_eq!(receive(&mut within(there.accept()).await.unwrap(), 10).await, b"still here");
    for _ in 0..5_000 {
        drop(within(opener.open()).await.unwrap());
    }
    let mut stream = opener.open().await.unwrap();
    send(&mut stream, b"after").await;
    assert_eq!(receive(&mut within(there.accept()).await.unwrap(), 5).await, b"after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_beyond_the_backlog_are_refused_and_the_accepted_ones_live_on() {
    let limits = Limits { accept_backlog: 4, ..quick_limits() };
    let mut server = TestServer::start_with(Verdict::Accept, limits).await;
    let (here, mut there) = server.connect().await;
    let mut streams = Vec::new();
    for number in 0..10_u8 {
        let mut stream = here.opener().open().await.unwrap();
        send(&mut stream, &[number]).await;
        streams.push(stream);
    }
    // The first of the refused ones notices; all frames before it were handled by then.
    let error = within(streams[9].read(&mut [0; 1])).await.unwrap_err();
    assert_eq!(LinkError::of(&error), Some(&LinkError::StreamReset));
    for number in 0..4_u8 {
        let mut accepted = within(there.accept()).await.unwrap();
        assert_eq!(receive(&mut accepted, 1).await, [number]);
        send(&mut accepted, b"ok").await;
        assert_eq!(receive(&mut streams[usize::from(number)], 2).await, b"ok");
    }
}
