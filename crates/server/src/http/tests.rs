//! The front as strangers meet it: over real TLS, byte by byte.

use bytes::Bytes;
use http::StatusCode;
use munjigi_core::sigv4::{Credentials, SecretKey};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::api::operation::Service;
use crate::testing::TestServer;

/// Sends bytes over TLS and returns what comes back until the server closes or the answer is whole.
async fn raw(test: &TestServer, request: &[u8]) -> String {
    let mut stream = test.connect().await;
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read) = stream.read(&mut piece).await {
        answer.extend_from_slice(&piece[..read]);
        if read == 0 || answer.ends_with(b"}") || answer.ends_with(b">\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn malformed_requests_get_an_answer_and_leave_the_server_whole() {
    let test = TestServer::start().await;
    let host = test.authority();
    let with = |head: &str| format!("{head}\r\nhost: {host}\r\n");
    let many: String = (0..70).map(|n| format!("x-h{n}: 1\r\n")).collect();
    for (request, status) in [
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        (format!("{}{many}\r\n", with("GET /healthz HTTP/1.1")), "431"),
        (format!("{}x-long: {}\r\n\r\n", with("GET /healthz HTTP/1.1"), "a".repeat(20_000)), "431"),
        (format!("{}content-length: -1\r\n\r\n", with("POST / HTTP/1.1")), "400"),
        (format!("{}content-length: 5\r\ncontent-length: 6\r\n\r\n", with("POST / HTTP/1.1")), "400"),
        (format!("{}content-length: 2000000\r\n\r\n", with("POST / HTTP/1.1")), "413"),
        ("POST / HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0\r\n\r\n".to_owned(), "421"),
        ("POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n".to_owned(), "421"),
        (format!("{}\r\n", with("GET /nothing HTTP/1.1")), "404"),
        (format!("{}smithy-protocol: rpc-v2-cbor\r\ncontent-length: 0\r\n\r\n", with("POST / HTTP/1.1")), "404"),
        (format!("{}content-length: 0\r\n\r\n", with("POST /service/ssm/operation/X HTTP/1.1")), "404"),
        (format!("{}\r\n", with("GET /link/v1 HTTP/1.1")), "426"),
        (format!("{}\r\n", with("GET /healthz HTTP/1.1")), "200"),
    ] {
        let answer = raw(&test, request.as_bytes()).await;
        let shown: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{shown:?}: {answer}");
    }
    assert_eq!(test.server().panics.load(std::sync::atomic::Ordering::Relaxed), 0);
    test.stop().await;
}

#[tokio::test]
async fn plain_http_is_told_to_use_https() {
    let test = TestServer::start().await;
    let mut socket = TcpStream::connect(test.authority()).await.unwrap();
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    assert!(body.contains("HTTPS only"));
    test.stop().await;
}

#[tokio::test]
async fn a_caller_is_told_who_it_is_and_every_answer_has_an_id_and_a_date() {
    let test = TestServer::start().await;
    let answer = test.call(Some(&test.admin), Service::Sts, "GetCallerIdentity", &json!({})).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text.contains(":user/admin</Arn>") && answer.text.contains(answer.request_id()), "{}", answer.text);
    assert!(answer.headers.contains_key("date"));
    test.stop().await;
}

#[tokio::test]
async fn wrong_keys_wrong_signatures_and_old_requests_are_refused_by_their_codes() {
    let test = TestServer::start().await;
    let with = |id: &str, secret: &str, token: Option<&str>| Credentials {
        access_key_id: id.to_owned(),
        secret: SecretKey::new(secret.to_owned()),
        session_token: token.map(|token| munjigi_core::secret::Secret::new(token.to_owned())),
    };
    let own = test.admin.access_key_id.clone();
    let secret = test.admin.secret.expose().to_owned();
    for (who, code) in [
        (with("AKIAIOSFODNN7EXAMPLE", &secret, None), "InvalidClientTokenId"),
        (with("ASIAIOSFODNN7EXAMPLE", &secret, Some("token")), "InvalidClientTokenId"),
        (with(&own, &secret, Some("token")), "InvalidClientTokenId"),
        (with(&own, "wrong", None), "SignatureDoesNotMatch"),
    ] {
        let answer = test.call(Some(&who), Service::Sts, "GetCallerIdentity", &json!({})).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, code), "{}", answer.text);
        let record = test.trail(answer.request_id()).pop().unwrap();
        assert!(record.contains(&format!("\"accessKeyId\":\"{}\"", who.access_key_id)), "{record}");
    }

    let mut request = test.request(Some(&test.admin), Service::Sts, "GetCallerIdentity", &json!({}));
    *request.body_mut() = Bytes::from_static(b"Action=GetCallerIdentity&Version=2011-06-15&A=1");
    assert_eq!(test.send(request).await.code(), "SignatureDoesNotMatch");

    let mut request = test.request(Some(&test.admin), Service::Sts, "GetCallerIdentity", &json!({}));
    request.headers_mut().insert("x-amz-evil", "unsigned".parse().unwrap());
    assert_eq!(test.send(request).await.code(), "SignatureDoesNotMatch");

    let mut request = test.request(Some(&test.admin), Service::Sts, "GetCallerIdentity", &json!({}));
    request.headers_mut().insert("authorization", "Bearer x".parse().unwrap());
    assert_eq!(test.send(request).await.code(), "IncompleteSignature");
    test.stop().await;
}

#[tokio::test]
async fn a_deactivated_key_stops_working_at_once() {
    let test = TestServer::start().await;
    let user = test.user("carol").await;
    let whoami = async || test.call(Some(&user), Service::Sts, "GetCallerIdentity", &json!({})).await.status;
    assert_eq!(whoami().await, StatusCode::OK);
    let server = test.server();
    let key = user.access_key_id.parse().unwrap();
    server.store.set_access_key_active("carol", &key, false).await.unwrap();
    server.identities.reload(&server.store).await.unwrap();
    assert_eq!(whoami().await, StatusCode::FORBIDDEN);
    test.stop().await;
}

#[tokio::test]
async fn failures_of_one_kind_are_one_record_and_a_count() {
    let test = TestServer::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let answer = test.call(None, Service::Sts, "GetCallerIdentity", &json!({})).await;
        ids.push(answer.request_id().to_owned());
    }
    let recorded: Vec<usize> = ids.iter().map(|id| test.trail(id).len()).collect();
    assert_eq!(recorded, [1, 0, 0, 0, 0]);
    crate::door::failures::flush(test.server(), munjigi_core::time::Timestamp(i64::MAX)).await;
    let folded = test.trail(&ids[4]).pop().unwrap();
    assert!(folded.contains("\"events\":4"), "{folded}");
    test.stop().await;
}

#[tokio::test]
async fn the_same_signature_or_invocation_changes_something_once() {
    let test = TestServer::start().await;
    test.user("dora").await;
    let input = json!({ "UserName": "dora" });
    let mut request = test.request(Some(&test.admin), Service::Iam, "CreateAccessKey", &input);
    request.headers_mut().insert("amz-sdk-invocation-id", "11111111-2222-3333-4444-555555555555".parse().unwrap());
    let (first, second) = tokio::join!(test.send(request.clone()), test.send(request.clone()));
    assert_eq!((first.status, &first.text), (StatusCode::OK, &second.text));

    // Signed anew, as an SDK does when it repeats a call whose answer was lost.
    let mut again = test.request(Some(&test.admin), Service::Iam, "CreateAccessKey", &input);
    again.headers_mut().insert("amz-sdk-invocation-id", request.headers()["amz-sdk-invocation-id"].clone());
    again.headers_mut().insert("user-agent", "retry".parse().unwrap());
    assert_eq!(test.send(again).await.text, first.text);

    let keys = test.server().store.list_access_keys("dora").await.unwrap();
    assert_eq!(keys.len(), 2, "the first key of the user and one more");
    assert_eq!(test.trail(first.request_id()).len(), 1);
    test.stop().await;
}

#[tokio::test]
async fn load_beyond_the_limit_is_shed_with_a_code_that_clients_repeat() {
    let test = TestServer::start().await;
    let directory = test.directory.path().join("small");
    let config = test.directory.path().join("small.toml");
    std::fs::write(&config, "[limits]\nunauthenticated_per_address = 1\n").unwrap();
    let options = crate::ServerOptions { data_dir: directory, listen: None, config: Some(config) };
    let small = crate::Server::start(options).await.unwrap();
    let address = small.endpoint().strip_prefix("https://").unwrap();
    let _first = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    let closed = second.read(&mut [0; 1]).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "the second connection of an address that proved nothing is closed");
    small.shutdown().await;

    let busy = crate::api::error::ApiError::Unavailable("busy");
    for (target, part) in [(true, "ServiceUnavailableException"), (false, "<Code>ServiceUnavailable</Code>")] {
        let mut headers = http::HeaderMap::new();
        if target {
            headers.insert("x-amz-target", "AmazonSSM.X".parse().unwrap());
        }
        let answer = crate::api::serve::shed(&headers, &busy, uuid::Uuid::nil());
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(String::from_utf8_lossy(&answer.body).contains(part));
    }
    test.stop().await;
}
