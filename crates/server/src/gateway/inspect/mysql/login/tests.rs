use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use base64::Engine as _;
use munjigi_core::id::SessionId;
use munjigi_core::recording::EventKind;
use munjigi_core::secret::Secret;
use munjigi_core::target::{TargetKind, TargetName, TargetSettings, TargetTls};
use rustls::ServerConfig;
use tokio::io::duplex;
use tokio::task::JoinHandle;

use super::*;
use crate::gateway::ports::{Granted, Journal, Ledger};

const SALT: [u8; 20] = [7; 20];
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
/// What MySQL 8.4 offers.
const MYSQL_8: u64 = 0xdfff_ffff;

fn key_pem(key: &PrivateDecryptingKey) -> String {
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

fn decrypted(key: PrivateDecryptingKey, sealed: &[u8]) -> Vec<u8> {
    let key = OaepPrivateDecryptingKey::new(key).unwrap();
    let mut opened = vec![0; key.min_output_size()];
    key.decrypt(&OAEP_SHA1_MGF1SHA1, sealed, &mut opened, None).unwrap().to_vec()
}

#[test]
fn the_password_is_encrypted_to_the_key_that_the_server_names() {
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let pem = key_pem(&key);
    let sealed = encrypted(pem.as_bytes(), b"s3cret\0").unwrap();
    assert_eq!(decrypted(key, &sealed), b"s3cret\0");
    assert!(encrypted(b"-----BEGIN PUBLIC KEY-----", b"x").is_err());
    assert!(encrypted(pem.replace("MIIB", "MIIC").as_bytes(), b"x").is_err());
}

fn context(ledger: &Arc<Ledger>) -> Context {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let certificate = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    Context {
        session: SessionId::parse("alice-0123456789abcdef0").unwrap(),
        journal: Journal::new(ledger.clone(), 3, false),
        target: TargetName::parse("shop-db").unwrap(),
        settings: TargetSettings {
            address: "db.internal:3306".parse().unwrap(),
            kind: TargetKind::Mysql,
            through: Vec::new(),
            local_port: None,
            database: Some("shop".to_owned()),
            inspect: true,
            record_parameters: false,
            allow_load_local: false,
            tls: TargetTls::default(),
        },
        user_name: "app".to_owned(),
        password: Some(Secret::new(b"s3cret".to_vec())),
        principal: "arn:aws:iam::111122223333:user/alice".to_owned(),
        certificate: Arc::new(certificate),
    }
}

/// Both ends of a login, as a client and a server of the test have them.
struct Ends {
    client: End,
    server: End,
    ledger: Arc<Ledger>,
    login: JoinHandle<Result<LoggedIn, Failure>>,
}

fn ends() -> Ends {
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())));
    let context = context(&ledger);
    let (client, far_client) = duplex(4096);
    let (server, far_server) = duplex(4096);
    let login = tokio::spawn(async move { both(Box::new(far_client), Box::new(far_server), &context).await });
    Ends { client: End::new(Box::new(client)), server: End::new(Box::new(server)), ledger, login }
}

fn greeting(plugin: &str) -> Vec<u8> {
    let version = b"8.4.2".to_vec();
    let plugin = plugin.to_owned();
    Greeting { version, connection: 77, capabilities: MYSQL_8, charset: 255, status: 2, salt: SALT, plugin }.write()
}

/// A login of MySQL 9's client, which has forgotten the oldest way to prove a password and proves nothing yet.
fn client_login() -> Vec<u8> {
    let capabilities = u32::try_from(MYSQL_8 & !(capability::SSL | capability::CONNECT_WITH_DB)).unwrap();
    let fixed = [&capabilities.to_le_bytes()[..], &[0, 0, 0, 1, 45], &[0; 23]].concat();
    [&fixed[..], b"bob\0\0caching_sha2_password\0\x00"].concat()
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn mysqls_own_way_is_gone_to_its_end_on_both_sides() {
    let Ends { mut client, mut server, ledger, login } = ends();
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    server.send(&greeting("caching_sha2_password")).await.unwrap();

    let greeted = Greeting::read(&client.receive().await.unwrap()).unwrap();
    assert_eq!((greeted.connection, greeted.plugin.as_str()), (77, "mysql_native_password"));
    client.send(&client_login()).await.unwrap();
    assert!(client.receive().await.unwrap().starts_with(b"\xfecaching_sha2_password\0"));
    client.send(&[9; 32]).await.unwrap();
    assert_eq!(**client.receive().await.unwrap(), [1, 3]);

    let said = server.receive().await.unwrap();
    assert!(holds(&said, b"app\0") && holds(&said, b"shop\0") && !holds(&said, b"bob"));
    assert!(holds(&said, b"munjigi_principal\x24arn:aws:iam::111122223333:user/alice"));
    server.send(&[1, 4]).await.unwrap();
    assert_eq!(**server.receive().await.unwrap(), [2]);
    server.send(&[b"\x01", key_pem(&key).as_bytes()].concat()).await.unwrap();
    let password = decrypted(key, &server.receive().await.unwrap());
    assert_eq!(password, b"s3cret\0".map(|byte| byte ^ 7));
    server.send(OK).await.unwrap();

    assert_eq!(**client.receive().await.unwrap(), *OK);
    assert!(login.await.unwrap().is_ok());
    let events = ledger.take().events;
    let [(_, EventKind::Statement(begun)), (_, EventKind::StatementEnd(end))] = events.as_slice() else { panic!() };
    assert_eq!((begun.text.as_str(), begun.number), ("user=app database=shop", 1));
    assert_eq!(end.outcome, StatementOutcome::Done);
}

#[tokio::test]
async fn the_client_hears_why_it_is_not_let_in() {
    // The server does not even greet.
    let Ends { mut client, mut server, login, .. } = ends();
    let blocked = b"\xff\x69\x04Host '10.0.0.1' is blocked";
    server.send(blocked).await.unwrap();
    assert_eq!(**client.receive().await.unwrap(), *blocked);
    assert!(login.await.unwrap().is_err());

    // It asks for something that is not spoken.
    let Ends { mut client, mut server, ledger, login } = ends();
    server.send(&greeting("client_ed25519")).await.unwrap();
    client.receive().await.unwrap();
    client.send(&client_login()).await.unwrap();
    client.receive().await.unwrap();
    client.send(&[]).await.unwrap();
    server.receive().await.unwrap();
    server.send(b"\xfeclient_ed25519\0nonce").await.unwrap();
    let said = client.receive().await.unwrap();
    assert!(said.starts_with(b"\xff\x15\x04#28000") && holds(&said, b"\"client_ed25519\", which is not spoken here"));
    assert!(login.await.unwrap().is_err());
    let events = ledger.take().events;
    assert!(matches!(&events[1].1, EventKind::StatementEnd(end) if end.outcome == StatementOutcome::Failed));

    // A packet is longer than any login's.
    let Ends { mut client, mut server, login, .. } = ends();
    server.stream.write_all(&[0xff, 0xff, 0xff, 0]).await.unwrap();
    assert!(holds(&client.receive().await.unwrap(), b"too long"));
    assert!(matches!(login.await.unwrap(), Err(Failure::TooLong)));
}
