//! AWS's agent before it has a channel: registration, credentials by its RSA key, and what it may call with them.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use munjigi_core::id::NodeId;
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use munjigi_core::time::Timestamp;
use serde_json::{Value, json};

use crate::api::operation::Service;
use crate::clock;
use crate::testing::{Answer, TestServer};

static KEYS: LazyLock<[RsaKeyPair; 2]> =
    LazyLock::new(|| [0, 1].map(|_| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));

fn public(key: &RsaKeyPair) -> String {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    STANDARD.encode(der.as_ref())
}

fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref())
}

async fn activation(test: &TestServer) -> (String, String) {
    let input = json!({ "IamRole": "nodes", "RegistrationLimit": 5 });
    let made = test.call(Some(&test.admin), Service::Ssm, "CreateActivation", &input).await;
    let made: Value = serde_json::from_str(&made.text).unwrap();
    (made["ActivationId"].as_str().unwrap().to_owned(), made["ActivationCode"].as_str().unwrap().to_owned())
}

async fn register(test: &TestServer, key: &RsaKeyPair) -> String {
    let (id, code) = activation(test).await;
    let input = json!({ "ActivationId": id, "ActivationCode": code, "Fingerprint": "f1", "PublicKey": public(key),
                        "PublicKeyType": "Rsa" });
    let answer = test.call(None, Service::Ssm, "RegisterManagedInstance", &input).await;
    let answer: Value = serde_json::from_str(&answer.text).unwrap();
    answer["InstanceId"].as_str().unwrap().to_owned()
}

/// Signs a call as AWS's agent does before it has credentials.
fn signed(
    test: &TestServer,
    key: &RsaKeyPair,
    node: &str,
    operation: &str,
    input: &Value,
    at: Timestamp,
) -> Request<Bytes> {
    let (body, date) = (input.to_string(), at.to_basic());
    let target = format!("AmazonSSM.{operation}");
    let content_type = "application/x-amz-json-1.1";
    let names = "content-type;host;x-amz-date;x-amz-target";
    let canonical = format!(
        "POST\n/\n\ncontent-type:{content_type}\nhost:{}\nx-amz-date:{date}\nx-amz-target:{target}\n\n{names}\n{}",
        test.authority(),
        sha256_hex(body.as_bytes())
    );
    let scope = format!("{}/local-1/ssm/aws4_request", &date[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256_hex(canonical.as_bytes()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    let signature = STANDARD.encode(signature);
    Request::builder()
        .method(Method::POST)
        .uri("/")
        .header("host", test.authority())
        .header("content-type", content_type)
        .header("x-amz-date", date)
        .header("x-amz-target", target)
        .header("x-amz-content-sha256", sha256_hex(body.as_bytes()))
        .header(
            "authorization",
            format!("AWS4-HMAC-SHA256 Credential={node}/{scope}, SignedHeaders={names}, Signature={signature}"),
        )
        .body(Bytes::from(body))
        .unwrap()
}

async fn role_token(test: &TestServer, key: &RsaKeyPair, node: &str) -> Answer {
    let input = json!({ "Fingerprint": "f1" });
    test.send(signed(test, key, node, "RequestManagedInstanceRoleToken", &input, clock::now())).await
}

fn credentials(answer: &Answer) -> Credentials {
    let token: Value = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(token["UpdateKeyPair"], false);
    assert!(token["TokenExpirationDate"].as_f64().unwrap() > clock::now().as_epoch_seconds());
    Credentials {
        access_key_id: token["AccessKeyId"].as_str().unwrap().to_owned(),
        secret: SecretKey::new(token["SecretAccessKey"].as_str().unwrap().to_owned()),
        session_token: Some(Secret::new(token["SessionToken"].as_str().unwrap().to_owned())),
    }
}

/// Asks for a channel, or to open one.
async fn channel(test: &TestServer, who: Option<&Credentials>, method: &str, path: &str, service: &str) -> Answer {
    let body = match method {
        "POST" => Bytes::from_static(b"{\"MessageSchemaVersion\":\"1.0\",\"RequestId\":\"x\"}"),
        _ => Bytes::new(),
    };
    let mut headers = vec![("host", test.authority().to_owned()), ("content-type", "application/json".to_owned())];
    if let Some(who) = who {
        let given: Vec<(&str, &[u8])> = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let request = sigv4::Request { method, target: path, headers: &given, body: &body };
        let added = sigv4::sign(&request, who, "local-1", service, clock::now()).unwrap();
        headers.extend(added);
    }
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    test.send(request.body(body).unwrap()).await
}

#[tokio::test]
async fn an_agent_registers_gets_credentials_and_tells_of_its_host() {
    let test = TestServer::start().await;
    let node = register(&test, &KEYS[0]).await;
    let answer = role_token(&test, &KEYS[0], &node).await;
    let records = test.trail(answer.request_id());
    assert!(records[0].contains(&node) && records[0].contains("HIDDEN_DUE_TO_SECURITY_REASONS"), "{records:?}");
    let who = credentials(&answer);
    assert!(!records[0].contains(who.secret.expose()));

    let long = json!({ "InstanceId": node, "AgentName": "amazon-ssm-agent", "AgentVersion": "3.3.0.0",
        "AgentStatus": "Active", "ComputerName": "ip-10-0-0-7", "IPAddress": "10.0.0.7", "PlatformName": "Amazon Linux",
        "PlatformVersion": "2023", "PlatformType": "Linux", "SSMConnectionChannel": "", "Unheard": [1] });
    let short = json!({ "InstanceId": node, "AgentVersion": "3.3.0.1", "PlatformType": "Linux" });
    for input in [&long, &short] {
        let answer = test.call(Some(&who), Service::Ssm, "UpdateInstanceInformation", input).await;
        assert_eq!(answer.text, "{}");
    }
    let row = test.server().store.node(&NodeId::parse(&node).unwrap()).await.unwrap();
    assert_eq!((row.name.as_str(), row.ip_address.as_deref()), ("ip-10-0-0-7", Some("10.0.0.7")));
    assert_eq!((row.facts.agent_version.as_str(), row.facts.platform_name.as_str()), ("3.3.0.1", "Amazon Linux"));
    let renamed = json!({ "InstanceId": node, "ComputerName": "db-1" });
    test.call(Some(&who), Service::Ssm, "UpdateInstanceInformation", &renamed).await;
    let row = test.server().store.node(&row.id).await.unwrap();
    assert_eq!((row.name.as_str(), row.facts.hostname.as_str()), ("ip-10-0-0-7", "db-1"), "a name is given once");

    for (operation, input) in
        [("ListInstanceAssociations", json!({ "InstanceId": node, "MaxResults": 20 })), ("ListAssociations", json!({}))]
    {
        let answer = test.call(Some(&who), Service::Ssm, operation, &input).await;
        assert_eq!(answer.text, r#"{"Associations":[]}"#);
    }
    let unknown = test.call(Some(&who), Service::Ssm, "PutInventory", &json!({})).await;
    assert_eq!((unknown.code(), unknown.status), ("UnknownOperationException", StatusCode::BAD_REQUEST));
    test.stop().await;
}

#[tokio::test]
async fn a_signature_counts_only_for_its_own_node_key_time_and_fingerprint() {
    let test = TestServer::start().await;
    let (node, other) = (register(&test, &KEYS[0]).await, register(&test, &KEYS[1]).await);
    assert_eq!(role_token(&test, &KEYS[1], &node).await.code(), "InvalidSignatureException", "another key");
    let unknown = role_token(&test, &KEYS[0], "mi-00000000000000000").await;
    assert_eq!(unknown.code(), "UnrecognizedClientException");
    assert!(test.trail(unknown.request_id())[0].contains("mi-00000000000000000"));
    let operation = "RequestManagedInstanceRoleToken";
    let late = Timestamp(clock::now().0 - 400_000_000);
    let late = signed(&test, &KEYS[0], &node, operation, &json!({ "Fingerprint": "f1" }), late);
    assert_eq!(test.send(late).await.code(), "InvalidSignatureException");
    let copied = signed(&test, &KEYS[0], &node, operation, &json!({ "Fingerprint": "f2" }), clock::now());
    assert_eq!(test.send(copied).await.code(), "MachineFingerprintDoesNotMatch");
    // Sent again it is not carried out again: the answer is the first one.
    let request = || signed(&test, &KEYS[0], &node, operation, &json!({ "Fingerprint": "f1" }), clock::now());
    let (once, again) = (request(), request());
    let mut repeated = Request::builder().method(Method::POST).uri("/");
    repeated.headers_mut().unwrap().clone_from(once.headers());
    let repeated = repeated.body(once.body().clone()).unwrap();
    let first = test.send(once).await;
    assert_eq!(test.send(repeated).await.text, first.text);
    assert_ne!(test.send(again).await.text, first.text);

    // The key of a node's own agent of ours is none of these.
    let input = json!({ "NewPublicKey": public(&KEYS[1]), "NewPublicKeyType": "Rsa" });
    let replace = signed(&test, &KEYS[0], &node, "UpdateManagedInstancePublicKey", &input, clock::now());
    assert_eq!(test.send(replace).await.text, "{}");
    assert_eq!(role_token(&test, &KEYS[0], &node).await.code(), "InvalidSignatureException", "the former key");
    assert_eq!(role_token(&test, &KEYS[1], &node).await.status, StatusCode::OK);
    let bad = json!({ "NewPublicKey": "AAAA" });
    let bad = test.send(signed(&test, &KEYS[1], &other, "UpdateManagedInstancePublicKey", &bad, clock::now())).await;
    assert_eq!(bad.code(), "InvalidPublicKey");
    test.stop().await;
}

#[tokio::test]
async fn a_nodes_credentials_reach_that_node_alone_and_end_with_it() {
    let test = TestServer::start().await;
    let (node, other) = (register(&test, &KEYS[0]).await, register(&test, &KEYS[1]).await);
    let who = credentials(&role_token(&test, &KEYS[0], &node).await);
    let named = |node: &str| json!({ "InstanceId": node, "Destination": node });
    for (service, operation) in [
        (Service::Ssm, "UpdateInstanceInformation"),
        (Service::Ssm, "ListInstanceAssociations"),
        (Service::Ec2Messages, "GetMessages"),
    ] {
        for wrong in [other.as_str(), "mi-00000000000000000", "", "*"] {
            let answer = test.call(Some(&who), service, operation, &named(wrong)).await;
            assert_eq!(answer.code(), "AccessDeniedException", "{operation} {wrong}: {}", answer.text);
        }
        let admin = test.call(Some(&test.admin), service, operation, &named(&node)).await;
        assert_eq!(admin.code(), "AccessDeniedException", "{operation}");
    }
    let start = test.call(Some(&who), Service::Ssm, "StartSession", &json!({ "Target": other })).await;
    assert_eq!(start.code(), "AccessDeniedException");
    // Unsigned, with a session token alone, or with the RSA scheme: none of it is the node's credentials.
    let unsigned = test.call(None, Service::Ssm, "UpdateInstanceInformation", &named(&node)).await;
    assert_eq!(unsigned.code(), "MissingAuthenticationTokenException");
    let by_key = signed(&test, &KEYS[0], &node, "UpdateInstanceInformation", &named(&node), clock::now());
    assert_eq!(test.send(by_key).await.code(), "IncompleteSignatureException");

    let own = format!("/v1/control-channel/{node}");
    let given = channel(&test, Some(&who), "POST", &own, "ssmmessages").await;
    assert_eq!(given.status, StatusCode::CREATED, "{}", given.text);
    assert!(given.text.contains("<TokenValue>") && given.headers["content-type"] == "text/xml", "{}", given.text);
    let others = format!("/v1/control-channel/{other}");
    for (who, method, path, service, code) in [
        (Some(&who), "POST", &others, "ssmmessages", "AccessDeniedException"),
        (Some(&who), "GET", &others, "ssmmessages", "AccessDeniedException"),
        (Some(&test.admin), "POST", &own, "ssmmessages", "AccessDeniedException"),
        (Some(&test.admin), "GET", &own, "ssmmessages", "AccessDeniedException"),
        (Some(&who), "POST", &own, "ssm", "InvalidSignatureException"),
        (None, "POST", &own, "", "MissingAuthenticationTokenException"),
        (None, "GET", &own, "", "MissingAuthenticationTokenException"),
    ] {
        let answer = channel(&test, who, method, path, service).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method} {path}: {}", answer.text);
        assert!(answer.text.starts_with(&format!("<{code}>")), "{method} {path}: {}", answer.text);
        assert!(!test.trail(answer.request_id()).is_empty() || code.starts_with("Missing"), "{method} {path}");
    }
    let over = channel(&test, Some(&who), "POST", "/v1/data-channel/alice-0123456789abcdef0", "ssmmessages").await;
    assert!(over.text.contains("Session is already terminated") && over.status == StatusCode::BAD_REQUEST);
    let no_socket = channel(&test, Some(&who), "GET", &own, "ssmmessages").await;
    assert_eq!(no_socket.code(), "InvalidWebSocketRequest", "{}", no_socket.text);

    let gone = test.call(Some(&test.admin), Service::Ssm, "DeregisterManagedInstance", &named(&node)).await;
    assert_eq!(gone.code(), "ValidationException", "unknown members are named");
    let gone = json!({ "InstanceId": node });
    let gone = test.call(Some(&test.admin), Service::Ssm, "DeregisterManagedInstance", &gone).await;
    assert_eq!(gone.status, StatusCode::OK, "{}", gone.text);
    let after = test.call(Some(&who), Service::Ssm, "UpdateInstanceInformation", &named(&node)).await;
    assert_eq!(after.code(), "UnrecognizedClientException");
    assert_eq!(role_token(&test, &KEYS[0], &node).await.code(), "UnrecognizedClientException");
    test.stop().await;
}

#[tokio::test]
async fn registering_needs_an_activation_and_an_rsa_key_like_any_other() {
    let test = TestServer::start().await;
    let (id, code) = activation(&test).await;
    let good = json!({ "ActivationId": id, "ActivationCode": code, "Fingerprint": "f1", "PublicKey": public(&KEYS[0]),
                       "PublicKeyType": "Rsa" });
    for (member, value, expected) in [
        ("ActivationCode", "0123456789012345678901234567890123456789012", "InvalidActivation"),
        ("ActivationId", "00000000-0000-0000-0000-000000000000", "InvalidActivation"),
        ("ActivationId", "x", "InvalidActivation"),
        ("PublicKey", "", "InvalidPublicKey"),
        ("PublicKey", "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=", "InvalidPublicKey"),
        ("PublicKeyType", "Ed25519", "InvalidPublicKey"),
        ("Fingerprint", "", "ValidationException"),
    ] {
        let mut input = good.clone();
        input[member] = value.into();
        let answer = test.call(None, Service::Ssm, "RegisterManagedInstance", &input).await;
        assert_eq!(answer.code(), expected, "{member} {value}");
        assert!(!test.trail(answer.request_id())[0].contains(&code), "a code is a secret");
    }
    // A lost answer is asked for again and given again; another code of the same node is not.
    let first = test.call(None, Service::Ssm, "RegisterManagedInstance", &good).await;
    let again = test.call(None, Service::Ssm, "RegisterManagedInstance", &good).await;
    assert_eq!((first.text.as_str(), first.status), (again.text.as_str(), StatusCode::OK));
    test.stop().await;
}

#[tokio::test]
async fn waiting_polls_end_when_the_server_stops() {
    let test = TestServer::start().await;
    let node = register(&test, &KEYS[0]).await;
    let who = credentials(&role_token(&test, &KEYS[0], &node).await);
    let input = json!({ "Destination": node, "MessagesRequestId": "r1", "VisibilityTimeoutInSeconds": 10 });
    let request = test.request(Some(&who), Service::Ec2Messages, "GetMessages", &input);
    let polling = test.send(request);
    let stopping = async {
        // Long enough for the call to be on its way; if it is not, it is answered at once all the same.
        tokio::time::sleep(Duration::from_millis(500)).await;
        test.server().stop.cancel();
    };
    let (answer, ()) = tokio::join!(polling, stopping);
    assert_eq!(answer.text, format!(r#"{{"Destination":"{node}","Messages":[],"MessagesRequestId":"r1"}}"#));
    test.stop().await;
}
