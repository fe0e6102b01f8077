//! Dialling the door with the real dialler: who is let in, and who is not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use munjigi_core::wire::hello::{Hello, NodeHello, Role, VERSION_MAX, VERSION_MIN, node_link_message};
use munjigi_link::dial::{DialOptions, SignedHeaders, UpgradeToSign, dial};
use munjigi_link::tls::PinnedRoots;
use munjigi_link::{BINDING_HEADER, HELLO_HEADER};

use super::STANDARD;
use crate::clock;
use crate::testing::TestServer;

fn hello(role: Role, node: Option<NodeHello>) -> Hello {
    Hello { version_min: VERSION_MIN, version_max: VERSION_MAX, software: "test/1".to_owned(), role: role as i32, node }
}

/// Dials and returns the server's refusal; empty if it let us in.
async fn dialled(test: &TestServer, hello: Hello, sign: impl FnOnce(UpgradeToSign) -> SignedHeaders) -> String {
    let pem = std::fs::read(test.directory.path().join("data/ca.pem")).unwrap();
    let url = test.running.endpoint().parse().unwrap();
    let options = DialOptions::new(url, PinnedRoots::from_pem(&pem).unwrap());
    let mut dialled = dial(&options, &hello, async |to_sign| Ok(sign(to_sign))).await.unwrap();
    match dialled.established().await {
        Ok(_) => {
            dialled.connection.close().await;
            String::new()
        }
        Err(error) => error.to_string(),
    }
}

/// Signs as a client does.
fn signed(who: &Credentials, service: &str, to_sign: &UpgradeToSign) -> SignedHeaders {
    let headers: Vec<(&str, &[u8])> = vec![
        ("host", to_sign.host.as_bytes()),
        (BINDING_HEADER, to_sign.binding_header.as_bytes()),
        (HELLO_HEADER, to_sign.hello.as_bytes()),
    ];
    let request = sigv4::Request { method: to_sign.method, target: to_sign.path, headers: &headers, body: b"" };
    let added = sigv4::sign(&request, who, "local-1", service, clock::now()).unwrap();
    added.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[tokio::test]
async fn a_client_with_a_signature_for_this_session_is_let_in_and_others_are_not() {
    let test = TestServer::start().await;
    let client = || hello(Role::Client, None);
    assert_eq!(dialled(&test, client(), |to_sign| signed(&test.admin, "munjigi", &to_sign)).await, "");

    let refusal = dialled(&test, client(), |to_sign| signed(&test.admin, "ssm", &to_sign)).await;
    assert!(refusal.contains("scoped to correct service"), "{refusal}");
    let wrong = Credentials { secret: SecretKey::new("wrong".to_owned()), ..test.admin.clone() };
    let refusal = dialled(&test, client(), |to_sign| signed(&wrong, "munjigi", &to_sign)).await;
    assert!(refusal.contains("InvalidSignatureException"), "{refusal}");
    let refusal = dialled(&test, client(), |_| Vec::new()).await;
    assert!(refusal.contains("must be present and signed"), "{refusal}");

    // A signature that was made for another TLS session, such as one a man in the middle got.
    let refusal = dialled(&test, client(), |mut to_sign| {
        to_sign.binding_header = URL_SAFE_NO_PAD.encode([9; 32]);
        signed(&test.admin, "munjigi", &to_sign)
    })
    .await;
    assert!(refusal.contains("InvalidSignatureException"), "{refusal}");

    // A client's signature does not make a node.
    let node = NodeHello { node_id: "mi-0123456789abcdef0".to_owned(), epoch: vec![1; 32], ..NodeHello::default() };
    let refusal =
        dialled(&test, hello(Role::Agent, Some(node)), |to_sign| signed(&test.admin, "munjigi", &to_sign)).await;
    assert!(refusal.contains("a node signs with Munjigi-Node"), "{refusal}");
    test.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_registered_is_refused() {
    let test = TestServer::start().await;
    let key = aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let id = "mi-0123456789abcdef0";
    let node = NodeHello { node_id: id.to_owned(), epoch: vec![1; 32], ..NodeHello::default() };
    let refusal = dialled(&test, hello(Role::Agent, Some(node)), |to_sign| {
        let signature = key.sign(&node_link_message(&to_sign.binding, &to_sign.hello));
        let text = format!("Munjigi-Node Credential={id}, Signature={}", STANDARD.encode(signature.as_ref()));
        vec![("authorization".to_owned(), text)]
    })
    .await;
    assert!(refusal.contains("UnrecognizedClientException"), "{refusal}");
    test.stop().await;
}
