//! Flow control: both directions at once, one stalled stream, keystrokes beside bulk.

use crate::harness::{TestServer, receive, send, within};
use munjigi_link::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Writes `total` numbered bytes and reads as many, both at once, checking each.
async fn push_and_pull(stream: Stream, total: u64) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let block =
        |offset: u64| -> Vec<u8> { (offset / 4096..offset / 4096 + 16).flat_map(|n| [n as u8; 4096]).collect() };
    let push = async {
        for at in (0..total).step_by(65_536) {
            writer.write_all(&block(at)).await.unwrap();
        }
        writer.shutdown().await.unwrap();
    };
    let pull = async {
        let mut buffer = vec![0; 65_536];
        for at in (0..total).step_by(65_536) {
            reader.read_exact(&mut buffer).await.unwrap();
            assert!(buffer == block(at), "bytes at {at} differ");
        }
        assert_eq!(reader.read(&mut buffer).await.unwrap(), 0);
    };
    tokio::join!(push, pull);
}

/// The classic stall: both ends write with all their might and neither reads because it is writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_pushing_64_mib_on_several_streams_complete() {
    const STREAMS: u64 = 4;
    const EACH: u64 = (64 << 20) / STREAMS;
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut tasks = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = here.opener().open().await.unwrap();
        send(&mut stream, b"!").await;
        let mut accepted = within(there.accept()).await.unwrap();
        receive(&mut accepted, 1).await;
        tasks.push(tokio::spawn(push_and_pull(stream, EACH)));
        tasks.push(tokio::spawn(push_and_pull(accepted, EACH)));
    }
    for task in tasks {
        within(task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_nobody_reads_stalls_only_itself_and_stays_bounded() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut stalled = here.opener().open().await.unwrap();
    send(&mut stalled, b"!").await;
    let unread = within(there.accept()).await.unwrap();
    let mut echo = here.opener().open().await.unwrap();
    send(&mut echo, b"!").await;
    let mut echoed = within(there.accept()).await.unwrap();
    receive(&mut echoed, 1).await;

    // Writes until the writer must wait, while the other stream keeps echoing.
    let mut written = 1;
    let block = vec![1; 65_536];
    let mut quiet_rounds = 0;
    while quiet_rounds < 20 {
        let more = tokio::select! {
            biased;
            result = stalled.write(&block) => result.unwrap(),
            () = async {
                send(&mut echo, b"key").await;
                assert_eq!(receive(&mut echoed, 3).await, b"key");
                send(&mut echoed, b"key").await;
                assert_eq!(receive(&mut echo, 3).await, b"key");
            } => 0,
        };
        written += more;
        quiet_rounds = if more == 0 { quiet_rounds + 1 } else { 0 };
        assert!(written <= 1 << 20, "T-95: at most 1 MiB is queued for one direction of a stream");
    }
    // The window, and not a byte more.
    assert_eq!(written, 256 * 1024);
    drop(unread);
}

/// A terminal's stream beside one that takes all it can get: each keystroke comes back while bulk still flows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keystrokes_pass_bulk() {
    let mut server = TestServer::start().await;
    let (here, mut there) = server.connect().await;
    let mut bulk = here.opener().open().await.unwrap();
    send(&mut bulk, b"!").await;
    let mut sink = within(there.accept()).await.unwrap();
    let mut keys = here.opener().open().await.unwrap();
    send(&mut keys, b"!").await;
    let mut terminal = within(there.accept()).await.unwrap();
    receive(&mut terminal, 1).await;

    let writer = tokio::spawn(async move {
        let block = vec![0; 65_536];
        while bulk.write_all(&block).await.is_ok() {}
    });
    let (counter, count) = tokio::sync::watch::channel(0_u64);
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(length @ 1..) = sink.read(&mut buffer).await {
            counter.send_modify(|count| *count += length as u64);
        }
    });
    let mut most_between = 0;
    for _ in 0..50 {
        let before = *count.borrow();
        send(&mut keys, b"k").await;
        receive(&mut terminal, 1).await;
        most_between = most_between.max(*count.borrow() - before);
    }
    // Not a measurement: a generous multiple of what may lie ahead (64 KiB here, windows there, the kernel's
    // receive buffers on loopback), against the endless queue behind.
    assert!(most_between < 16 << 20, "{most_between} bytes of bulk passed one keystroke");
    writer.abort();
    reader.abort();
}
