//! Roles for whom an OpenID Connect provider vouches, with a stand-in for the provider that speaks TLS on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Request;
use munjigi_core::sigv4::Credentials;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::tests::credentials;
use crate::api::operation::Service::{Iam, Ssm};
use crate::clock;
use crate::testing::{Answer, TestServer};

/// A provider on loopback: what it answers can be changed, and how often it was asked is counted.
struct Provider {
    issuer: String,
    authority_pem: String,
    keys: Arc<Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Provider {
    async fn start() -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&authority_key).unwrap();
        let issuer = rcgen::Issuer::from_params(&parameters, &authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("https://localhost:{}/realm", listener.local_addr().unwrap().port());
        let keys = Arc::new(Mutex::new(json!({ "keys": [] })));
        let asked = Arc::new(AtomicUsize::new(0));
        let (own_issuer, own_keys, own_asked) = (issuer.clone(), keys.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(mut stream) = tls.accept(socket).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let body = match head.split(' ').nth(1) {
                    Some("/realm/.well-known/openid-configuration") => {
                        own_asked.fetch_add(1, Ordering::SeqCst);
                        json!({ "issuer": own_issuer, "jwks_uri": format!("{own_issuer}/keys") }).to_string()
                    }
                    Some("/realm/keys") => own_keys.lock().unwrap().to_string(),
                    _ => String::new(),
                };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { issuer, authority_pem: authority.pem(), keys, asked, task }
    }

    fn publish(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = json!({ "keys": keys });
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
    format!("{message}.{}", base64(&sign(message.as_bytes())))
}

struct Signer {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
}

impl Signer {
    fn new() -> Self {
        Self {
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            rsa: RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap(),
        }
    }

    fn published(&self) -> [Value; 2] {
        let point = self.ec.public_key().as_ref();
        let rsa = self.rsa.public_key();
        [
            json!({ "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": base64(&point[1..33]), "y": base64(&point[33..]) }),
            json!({ "kty": "RSA", "kid": "rsa", "n": base64(rsa.modulus().big_endian_without_leading_zero()),
                "e": base64(rsa.exponent().big_endian_without_leading_zero()) }),
        ]
    }

    fn es256(&self, claims: &Value) -> String {
        token(&json!({ "alg": "ES256", "kid": "ec" }), claims, |message| {
            self.ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
        })
    }

    fn rs256(&self, claims: &Value) -> String {
        token(&json!({ "alg": "RS256", "kid": "rsa", "typ": "JWT" }), claims, |message| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        })
    }
}

/// Calls without a signature, as CI systems do.
async fn exchange(test: &TestServer, role: &str, token: &str) -> Answer {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("Action", "AssumeRoleWithWebIdentity").append_pair("Version", "2011-06-15");
    form.append_pair("RoleArn", role).append_pair("RoleSessionName", "build-7").append_pair("WebIdentityToken", token);
    let request = Request::post("/")
        .header("host", test.authority())
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Bytes::from(form.finish()))
        .unwrap();
    test.send(request).await
}

#[tokio::test]
async fn a_providers_token_becomes_a_session_of_the_role_that_trusts_it() {
    let provider = Provider::start().await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), &provider.authority_pem).unwrap();
    let test = TestServer::with_settings(&format!("oidc_ca_file = {:?}\n", roots.path())).await;
    let admin = async |operation: &str, input: Value| {
        let answer = test.call(Some(&test.admin), Iam, operation, &input).await;
        assert!(answer.status.is_success(), "{operation}: {}", answer.text);
        answer
    };
    let host = provider.issuer.strip_prefix("https://").unwrap();
    let arn = test.server().deployment.oidc_provider(host).to_string();
    admin("CreateOpenIDConnectProvider", json!({ "Url": provider.issuer, "ClientIDList": ["munjigi"] })).await;
    let again =
        test.call(Some(&test.admin), Iam, "CreateOpenIDConnectProvider", &json!({ "Url": provider.issuer })).await;
    assert_eq!(again.code(), "EntityAlreadyExists");
    let trust = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow",
        "Principal": { "Federated": arn }, "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": { "StringEquals": { format!("{host}:aud"): "munjigi" },
            "StringLike": { format!("{host}:sub"): "repo:acme/*" } } } });
    admin("CreateRole", json!({ "RoleName": "deploy", "AssumeRolePolicyDocument": trust.to_string() })).await;
    let look = json!({ "Version": "2012-10-17", "Statement": { "Effect": "Allow", "Action": "ssm:DescribeSessions",
        "Resource": "*", "Condition": { "ArnEquals": { "aws:FederatedProvider": arn } } } });
    let put = json!({ "RoleName": "deploy", "PolicyName": "look", "PolicyDocument": look.to_string() });
    admin("PutRolePolicy", put).await;
    let role = test.server().deployment.role("/", "deploy").to_string();

    let signer = Signer::new();
    provider.publish(&signer.published());
    let now = clock::now().as_secs();
    let claims = |more: Value| {
        let mut claims =
            json!({ "iss": provider.issuer, "sub": "repo:acme/site", "aud": "munjigi", "exp": now + 600, "iat": now });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    for good in [signer.es256(&claims(json!({}))), signer.rs256(&claims(json!({ "aud": ["munjigi"] })))] {
        let answer = exchange(&test, &role, &good).await;
        assert!(answer.status.is_success(), "{}", answer.text);
        assert!(answer.text.contains("<SubjectFromWebIdentityToken>repo:acme/site<"), "{}", answer.text);
        let record = test.trail(answer.request_id()).pop().unwrap();
        assert!(record.contains("\"type\":\"WebIdentityUser\"") && record.contains("repo:acme/site"), "{record}");
        assert!(!record.contains(&good), "the token is not in the trail");
        let session: Credentials = credentials(&answer.text);
        let looked = test.call(Some(&session), Ssm, "DescribeSessions", &json!({ "State": "Active" })).await;
        assert!(looked.status.is_success(), "{}", looked.text);
        let record = test.trail(looked.request_id()).pop().unwrap();
        assert!(record.contains("webIdFederationData") && record.contains("\"type\":\"AssumedRole\""), "{record}");
    }
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "keys are kept");

    let other = Signer::new();
    for (what, token, code) in [
        ("another's signature", other.es256(&claims(json!({}))), "InvalidIdentityToken"),
        ("no signature", token(&json!({ "alg": "none" }), &claims(json!({})), |_| Vec::new()), "InvalidIdentityToken"),
        ("another audience", signer.es256(&claims(json!({ "aud": "other" }))), "InvalidIdentityToken"),
        ("another issuer", signer.es256(&claims(json!({ "iss": "https://other.example" }))), "InvalidIdentityToken"),
        ("it is over", signer.es256(&claims(json!({ "exp": now - 3600 }))), "ExpiredTokenException"),
        ("it is not yet good", signer.es256(&claims(json!({ "nbf": now + 3600 }))), "InvalidIdentityToken"),
        ("a subject that is not trusted", signer.es256(&claims(json!({ "sub": "repo:evil/site" }))), "AccessDenied"),
        ("no subject", signer.es256(&claims(json!({ "sub": "" }))), "IDPRejectedClaim"),
        ("no token", "nonsense".to_owned(), "InvalidIdentityToken"),
    ] {
        let answer = exchange(&test, &role, &token).await;
        assert_eq!(answer.code(), code, "{what}: {}", answer.text);
    }
    let nowhere = exchange(&test, &role.replace("deploy", "nothing"), &signer.es256(&claims(json!({})))).await;
    assert_eq!(nowhere.code(), "AccessDenied");
    assert_eq!(provider.asked.load(Ordering::SeqCst), 1, "bad tokens do not drive the provider");

    admin("RemoveClientIDFromOpenIDConnectProvider", json!({ "OpenIDConnectProviderArn": arn, "ClientID": "munjigi" }))
        .await;
    assert_eq!(exchange(&test, &role, &signer.es256(&claims(json!({})))).await.code(), "InvalidIdentityToken");
    admin("AddClientIDToOpenIDConnectProvider", json!({ "OpenIDConnectProviderArn": arn, "ClientID": "munjigi" }))
        .await;
    assert!(exchange(&test, &role, &signer.es256(&claims(json!({})))).await.status.is_success());
    admin("DeleteOpenIDConnectProvider", json!({ "OpenIDConnectProviderArn": arn })).await;
    assert_eq!(exchange(&test, &role, &signer.es256(&claims(json!({})))).await.code(), "InvalidIdentityToken");
    test.stop().await;
}

#[tokio::test]
async fn a_provider_that_cannot_be_trusted_or_reached_vouches_for_nobody() {
    let provider = Provider::start().await;
    // Its root certificate is not configured.
    let test = TestServer::start().await;
    let input = json!({ "Url": provider.issuer, "ClientIDList": ["munjigi"] });
    assert!(test.call(Some(&test.admin), Iam, "CreateOpenIDConnectProvider", &input).await.status.is_success());
    let signer = Signer::new();
    provider.publish(&signer.published());
    let claims = json!({ "iss": provider.issuer, "sub": "s", "aud": "munjigi", "exp": clock::now().as_secs() + 600 });
    let role = test.server().deployment.role("/", "deploy").to_string();
    let answer = exchange(&test, &role, &signer.es256(&claims)).await;
    assert_eq!(answer.code(), "IDPCommunicationError", "{}", answer.text);
    assert_eq!(provider.asked.load(Ordering::SeqCst), 0);
    test.stop().await;
}
