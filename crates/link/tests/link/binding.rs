//! The signature is good on one TLS session only.

use std::sync::{Arc, Mutex};

use crate::harness::{TestServer, client_hello, dial_client, within};
use munjigi_link::dial::{self, UpgradeToSign};
use munjigi_link::{BINDING_HEADER, HELLO_HEADER, LINK_PATH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binding_is_equal_on_both_ends_and_differs_per_connection() {
    let server = TestServer::start().await;
    let signed: Arc<Mutex<Vec<UpgradeToSign>>> = Arc::default();
    for _ in 0..3 {
        let signed = signed.clone();
        let sign = move |to_sign| async move {
            signed.lock().unwrap().push(to_sign);
            Ok(vec![("authorization".to_owned(), "test".to_owned())])
        };
        let mut dialed = within(dial::dial(&server.options(), &client_hello(), sign)).await.unwrap();
        within(dialed.established()).await.unwrap();
    }
    let (seen, signed) = (server.seen.lock().unwrap().clone(), signed.lock().unwrap().clone());
    for (seen, signed) in seen.iter().zip(&signed) {
        assert!(seen.bound && seen.binding == signed.binding);
        assert_eq!(seen.authorization, "test");
        assert_eq!((signed.method, signed.path), ("GET", LINK_PATH));
        assert_eq!(signed.host, format!("localhost:{}", server.address.port()));
    }
    assert!(seen[0].binding != seen[1].binding && seen[1].binding != seen[2].binding);
}

/// A man in the middle who even has a certificate forwards the signed headers on a TLS session of his own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_headers_forwarded_on_another_tls_session_are_refused() {
    let server = TestServer::start().await;
    let stolen: Arc<Mutex<Option<UpgradeToSign>>> = Arc::default();
    let sign = {
        let stolen = stolen.clone();
        move |to_sign| async move {
            *stolen.lock().unwrap() = Some(to_sign);
            Ok(vec![("authorization".to_owned(), "signature".to_owned())])
        }
    };
    let mut honest = within(dial::dial(&server.options(), &client_hello(), sign)).await.unwrap();
    within(honest.established()).await.unwrap();

    let stolen = stolen.lock().unwrap().take().unwrap();
    let mut other = within(dial::tls_connect(&server.options())).await.unwrap();
    let request = format!(
        "GET {LINK_PATH} HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{HELLO_HEADER}: {}\r\n\
         {BINDING_HEADER}: {}\r\nauthorization: signature\r\n\r\n",
        stolen.host, stolen.hello, stolen.binding_header
    );
    other.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server closes behind a refusal; how politely does not matter here.
    let _end = within(other.read_to_end(&mut answer)).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("made for another connection"), "{answer}");
    assert_eq!(server.seen.lock().unwrap().iter().map(|seen| seen.bound).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_https_calls_use_the_same_dialler() {
    let server = TestServer::start().await;
    let mut tls = within(dial::tls_connect(&server.options())).await.unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    within(tls.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 426");
    drop(dial_client(&server.options()).await.unwrap());
}
