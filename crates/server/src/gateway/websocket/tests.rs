//! The server's end against a client's end of the library, over a stream in memory.

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;

type Client = WebSocketStream<DuplexStream>;

fn terms() -> Terms {
    Terms { max_message: 10_000, ..Terms::default() }
}

async fn pair(terms: Terms) -> (WebSocket<DuplexStream>, Client) {
    let (ours, theirs) = tokio::io::duplex(4096);
    let client = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (WebSocket::new(ours, Bytes::new(), terms).await, client)
}

#[tokio::test]
async fn fragments_arrive_as_one_message_with_pings_in_between_answered() {
    let (mut server, mut client) = pair(terms()).await;
    let part = |data: &'static [u8], code, last| WsMessage::Frame(Frame::message(data, code, last));
    let sending = async {
        client.send(part(b"one ", OpCode::Data(Data::Binary), false)).await.unwrap();
        client.send(WsMessage::Ping(Bytes::from_static(b"keepalive"))).await.unwrap();
        client.send(part(b"message", OpCode::Data(Data::Continue), true)).await.unwrap();
        client.send(WsMessage::Text("text".into())).await.unwrap();
        client.next().await.unwrap().unwrap()
    };
    let receiving = async {
        assert_eq!(server.receive().await.unwrap(), Message::Binary(Bytes::from_static(b"one message")));
        assert_eq!(server.receive().await.unwrap(), Message::Text("text".to_owned()));
        server.receive().await
    };
    tokio::select! {
        pong = sending => assert_eq!(pong, WsMessage::Pong(Bytes::from_static(b"keepalive"))),
        ended = receiving => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn what_came_behind_the_request_is_read_first() {
    let (ours, mut theirs) = tokio::io::duplex(4096);
    // A masked text frame of one byte, with a mask of zeros.
    let frame = [0x81, 0x81, 0, 0, 0, 0, b'a'];
    let mut server = WebSocket::new(ours, Bytes::copy_from_slice(&frame[..3]), terms()).await;
    theirs.write_all(&frame[3..]).await.unwrap();
    assert_eq!(server.receive().await.unwrap(), Message::Text("a".to_owned()));
}

#[tokio::test]
async fn a_message_over_the_limit_ends_the_connection_in_one_piece_or_in_many() {
    let (mut server, mut client) = pair(terms()).await;
    // Nobody reads what follows the head, so that sending does not end.
    let received = tokio::select! {
        received = server.receive() => received,
        _ = async { client.send(WsMessage::Binary(vec![0; 10_001].into())).await } => panic!("it was taken"),
    };
    assert_eq!(received, Err(WebSocketError::TooLarge(10_000)));

    let (mut server, mut client) = pair(terms()).await;
    let sending = async {
        for n in 0.. {
            let code = OpCode::Data(if n == 0 { Data::Binary } else { Data::Continue });
            client.send(WsMessage::Frame(Frame::message(vec![0; 1000], code, false))).await.unwrap();
        }
    };
    let received = tokio::select! {
        received = server.receive() => received,
        () = sending => panic!("it was taken"),
    };
    assert_eq!(received, Err(WebSocketError::TooLarge(10_000)));
}

#[tokio::test]
async fn unmasked_and_otherwise_wrong_frames_end_the_connection() {
    for wrong in
        [&[0x82, 1, 0][..], &[0x83, 0x80, 0, 0, 0, 0], &[0xc2, 0x80, 0, 0, 0, 0], &[0x81, 0x81, 0, 0, 0, 0, 0xff]]
    {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let mut server = WebSocket::new(ours, Bytes::new(), terms()).await;
        theirs.write_all(wrong).await.unwrap();
        assert!(matches!(server.receive().await, Err(WebSocketError::Protocol(_))), "{wrong:?}");
    }
}

#[tokio::test]
async fn a_silent_peer_is_noticed_and_one_that_answers_pings_is_not() {
    let brief = Duration::from_millis(20);
    let quick = Terms { ping_interval: brief, ping_answer: brief, ..terms() };
    let (mut server, _silent) = pair(quick).await;
    assert!(matches!(server.receive().await, Err(WebSocketError::Silent(_))));

    // Answers are limited by the machine's speed here, so the limit is a long one and only pings are counted.
    let patient = Terms { ping_interval: brief, ping_answer: Duration::from_secs(60), ..terms() };
    let (mut server, mut client) = pair(patient).await;
    let answering = async {
        for _ in 0..5 {
            // Reading answers.
            assert!(matches!(client.next().await, Some(Ok(WsMessage::Ping(_)))));
            client.flush().await.unwrap();
        }
    };
    tokio::select! {
        () = answering => {}
        ended = server.receive() => panic!("{ended:?}"),
    }
}

#[tokio::test]
async fn a_peer_that_reads_nothing_leaves_no_room_and_is_still_heard() {
    let (mut server, mut client) = pair(terms()).await;
    let mut put = 0;
    let blocked = loop {
        let next = tokio::time::timeout(Duration::from_millis(200), server.event(true)).await;
        match next {
            Ok(Ok(Event::Writable)) => {
                server.put(Message::Binary(vec![7; 5000].into())).unwrap();
                put += 1;
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => break put,
        }
        assert!(put < 100, "the buffer grows");
    };
    client.send(WsMessage::Text("still here".into())).await.unwrap();
    assert_eq!(server.event(true).await, Ok(Event::Received(Message::Text("still here".to_owned()))));
    let reading = async {
        for _ in 0..blocked {
            assert_eq!(client.next().await.unwrap().unwrap().len(), 5000);
        }
    };
    let (flushed, ()) = tokio::join!(server.flush(), reading);
    flushed.unwrap();
}

#[tokio::test]
async fn a_busy_writer_and_a_busy_reader_take_turns() {
    let (mut server, client) = pair(terms()).await;
    let (mut sink, mut stream) = client.split();
    let sending = tokio::spawn(async move {
        for _ in 0..200 {
            sink.send(WsMessage::Binary(vec![1; 500].into())).await.unwrap();
        }
        sink
    });
    let reading = tokio::spawn(async move {
        for _ in 0..200 {
            stream.next().await.unwrap().unwrap();
        }
        stream
    });
    let (mut read, mut written) = (0, 0);
    while read < 200 || written < 200 {
        match server.event(written < 200).await.unwrap() {
            Event::Received(_) => read += 1,
            Event::Writable => {
                server.put(Message::Binary(vec![2; 500].into())).unwrap();
                written += 1;
            }
        }
    }
    server.flush().await.unwrap();
    drop(sending.await.unwrap());
    drop(reading.await.unwrap());
}

#[tokio::test]
async fn last_words_reach_the_peer_before_the_goodbye() {
    let (mut server, mut client) = pair(terms()).await;
    server.put(Message::Text("last".to_owned())).unwrap();
    let reading = async {
        assert_eq!(client.next().await.unwrap().unwrap(), WsMessage::Text("last".into()));
        let Some(Ok(WsMessage::Close(Some(frame)))) = client.next().await else { panic!("no goodbye") };
        assert_eq!((frame.code, frame.reason.len()), (CloseCode::Policy, 122));
        // The answer to the goodbye.
        let _ = client.flush().await;
        let mut rest = Vec::new();
        client.get_mut().read_to_end(&mut rest).await.unwrap();
    };
    // 41 letters of three bytes: a cut in the middle of one is not made.
    let reason = format!("ab{}", "문".repeat(41));
    tokio::join!(server.close(CloseCode::Policy, &reason), reading);
}
