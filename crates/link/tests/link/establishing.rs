//! A link comes about: dial, accept, echo, hellos, refusals.

use crate::harness::{TestServer, Verdict, client_hello, dial_client, quick_limits, receive, send, sign, within};
use munjigi_core::wire::hello::{Hello, NodeHello, Role};
use munjigi_link::{DialError, EndReason, LinkError, dial};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_open_streams_and_bytes_come_back() {
    let mut server = TestServer::start().await;
    let (mut here, mut there) = server.connect().await;

    let mut stream = here.opener().open().await.unwrap();
    send(&mut stream, b"ping").await;
    let mut accepted = within(there.accept()).await.unwrap();
    assert_eq!(receive(&mut accepted, 4).await, b"ping");
    send(&mut accepted, "문지기".as_bytes()).await;
    assert_eq!(receive(&mut stream, 9).await, "문지기".as_bytes());

    let mut stream = there.opener().open().await.unwrap();
    send(&mut stream, b"from the server").await;
    let mut accepted = within(here.accept()).await.unwrap();
    assert_eq!(receive(&mut accepted, 15).await, b"from the server");
}

#[tokio::test]
async fn the_hellos_arrive_on_both_ends() {
    let server = TestServer::start().await;
    let hello = Hello {
        role: Role::Agent.into(),
        node: Some(NodeHello {
            node_id: "mi-0123456789abcdef0".into(),
            epoch: vec![5; 32],
            hostname: "호스트".into(),
            platform: None,
            agent_version: "1".into(),
            sessions: vec![],
            names: vec![],
            only_user: String::new(),
            ssh_host_key: String::new(),
        }),
        ..client_hello()
    };
    let mut dialed = within(dial::dial(&server.options(), &hello, sign)).await.unwrap();
    let answer = within(dialed.established()).await.unwrap();
    assert_eq!((answer.version, &answer.trust_bundle), (1, &vec![1, 2, 3]));
    assert_eq!(within(dialed.established()).await.unwrap(), answer, "asked again, told again");
    assert_eq!(server.seen.lock().unwrap()[0].hello, hello);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_reaches_every_operation_with_its_code_and_words() {
    let body = r#"{"__type":"AccessDenied","message":"the node is not enrolled"}"#;
    let server = TestServer::start_with(Verdict::Refuse(403, body), quick_limits()).await;
    let mut dialed = dial_client(&server.options()).await.unwrap();
    // The refusal may be faster than the first stream, or slower than its first bytes.
    let opened = dialed.connection.opener().open().await;

    let error = within(dialed.established()).await.unwrap_err();
    let DialError::Refused(refusal) = &error else { panic!("{error:?}") };
    assert_eq!((refusal.status, refusal.code.as_str()), (403, "AccessDenied"));
    assert_eq!(
        error.to_string(),
        "the server refused the link with status 403: the node is not enrolled (AccessDenied)"
    );
    if let Ok(mut early) = opened {
        let read = within(early.read(&mut [0; 8])).await.unwrap_err();
        assert!(matches!(LinkError::of(&read), Some(LinkError::Ended(EndReason::Refused(_)))), "{read:?}");
        let write = within(early.write_all(b"first flight")).await.unwrap_err();
        assert!(write.to_string().contains("not enrolled"), "{write}");
    }
    assert!(matches!(within(dialed.established()).await, Err(DialError::Refused(_))), "asked again, told again");
    let open = dialed.connection.opener().open().await.unwrap_err();
    assert!(open.to_string().contains("not enrolled"), "{open}");
    assert!(within(dialed.connection.accept()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_without_overlap_is_refused_with_426_and_says_so() {
    let server = TestServer::start().await;
    let hello = Hello { version_min: 8, version_max: 9, ..client_hello() };
    let mut dialed = within(dial::dial(&server.options(), &hello, sign)).await.unwrap();
    let DialError::Refused(refusal) = within(dialed.established()).await.unwrap_err() else { panic!() };
    assert_eq!((refusal.status, refusal.code.as_str()), (426, "LinkVersionNotSupported"));
    assert!(refusal.message.contains("link versions 8 to 9, this server 1 to 1"), "{}", refusal.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_signature_and_impossible_headers_end_the_dial() {
    let server = TestServer::start().await;
    let options = server.options();
    let error = within(dial::dial(&options, &client_hello(), |_| async { Err("the key is gone".into()) })).await;
    assert!(error.unwrap_err().to_string().contains("the key is gone"));
    for (name, value) in [("a b", "c"), ("a", "b\r\nevil: 1"), ("", "b")] {
        let headers = vec![(name.to_owned(), value.to_owned())];
        let error = within(dial::dial(&options, &client_hello(), |_| async { Ok(headers) })).await;
        assert!(matches!(error.unwrap_err(), DialError::BadRequest(_)), "{name} {value}");
    }
    let long = vec![("a".to_owned(), "b".repeat(20_000))];
    let error = within(dial::dial(&options, &client_hello(), |_| async { Ok(long) })).await;
    assert!(matches!(error.unwrap_err(), DialError::BadRequest(_)));
}
