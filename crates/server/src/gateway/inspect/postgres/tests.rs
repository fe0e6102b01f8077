//! Logins at servers that are not what they should be, without a network.

use std::sync::Arc;

use munjigi_core::id::SessionId;
use munjigi_core::postgres::Login;
use munjigi_core::recording::{EventKind, StatementOutcome};
use munjigi_core::secret::Secret;
use munjigi_core::target::{TargetKind, TargetName, TargetSettings, TargetTls, TlsMode};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::gateway::ports::{Granted, Journal, Ledger};

const PASSWORD: &str = "geheim";

/// A context of its own; the ledger tells what was recorded.
fn context(mode: TlsMode) -> (Context, Arc<Ledger>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let certificate = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let ledger = Arc::new(Ledger::new(0, false, Granted::new(Vec::new())));
    let settings = TargetSettings {
        address: "db.internal:5432".parse().unwrap(),
        kind: TargetKind::Postgres,
        through: Vec::new(),
        local_port: None,
        database: Some("shop".to_owned()),
        inspect: true,
        record_parameters: false,
        allow_load_local: false,
        tls: TargetTls { mode, server_name: None, ca_pem: None },
    };
    let context = Context {
        session: SessionId::parse("alice-0123456789abcdef0").unwrap(),
        journal: Journal::new(ledger.clone(), 1, false),
        target: TargetName::parse("orders").unwrap(),
        settings,
        user_name: "app".to_owned(),
        password: Some(Secret::new(PASSWORD.as_bytes().to_vec())),
        principal: "arn:aws:iam::123456789012:user/alice".to_owned(),
        certificate: Arc::new(certificate),
    };
    (context, ledger)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// Lets a client log in at a server that says `script` and nothing else. Returns what the client was told, what the server
/// was told, and what was recorded.
async fn log_in(mode: TlsMode, script: &[u8]) -> (Vec<u8>, Vec<u8>, Vec<EventKind>) {
    let (context, ledger) = context(mode);
    let (client, mut person) = tokio::io::duplex(1024 * 1024);
    let (target, server) = tokio::io::duplex(1024 * 1024);
    let (mut hears, mut says) = tokio::io::split(server);
    let login = Login { minor: 2, parameters: vec![("user".to_owned(), "x".to_owned())] };
    let script = script.to_vec();
    let saying = async {
        // A login that fails stops listening.
        let _ = says.write_all(&script).await;
        let _ = says.shutdown().await;
        let mut heard = Vec::new();
        let _ = hears.read_to_end(&mut heard).await;
        heard
    };
    let listening = async {
        let mut told = Vec::new();
        let _ = person.shutdown().await;
        let _ = person.read_to_end(&mut told).await;
        told
    };
    let keys = CancelKeys::default();
    let serving = login::serve(&keys, context, Box::new(client), Box::new(target), login);
    let ((), heard, told) = tokio::join!(serving, saying, listening);
    assert_eq!(keys.len(), 0, "a key outlives its connection");
    (told, heard, ledger.take().events.into_iter().map(|(_, event)| event).collect())
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[tokio::test]
async fn a_server_gets_no_password_and_is_not_believed_without_a_proof() {
    let ask = |code: u8, rest: &[u8]| message(b'R', &[&[0, 0, 0, code], rest].concat());
    let ok = || [ask(0, b""), message(b'Z', b"I")].concat();
    let sasl = || ask(10, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
    for (mode, script, code) in [
        // The password in the clear without encryption.
        (TlsMode::Off, ask(3, b""), "28000"),
        // No encryption where it is demanded, or something in the clear behind the word that there is.
        (TlsMode::VerifyFull, b"N".to_vec(), "08001"),
        (TlsMode::VerifyFull, [b"S".to_vec(), ok()].concat(), "08001"),
        // A login that is done before the server has proved that it knows the password.
        (TlsMode::Off, [sasl(), ok()].concat(), "08P01"),
        (TlsMode::Off, [sasl(), ask(12, b"v=AAAA")].concat(), "08P01"),
        (TlsMode::Off, [sasl(), ask(11, b"r=x,s=AAAA,i=4096")].concat(), "08P01"),
        (TlsMode::Off, [sasl(), ask(11, b"r=x,s=AAAA,i=4000000000")].concat(), "08P01"),
        (TlsMode::Off, ask(11, b"r=x"), "08P01"),
        (TlsMode::Off, ask(10, b"OTHER\0\0"), "28000"),
        (TlsMode::Off, ask(7, b""), "28000"),
        (TlsMode::Off, ask(5, b"abc"), "08P01"),
        (TlsMode::Off, message(b'R', b"\0"), "08P01"),
        // What does not belong into a login, or never ends.
        (TlsMode::Off, message(b'D', b"\0\0"), "08P01"),
        (TlsMode::Off, b"R\x7f\xff\xff\xff".to_vec(), "08P01"),
        (TlsMode::Off, b"R\0\0\0\x03".to_vec(), "08P01"),
        (TlsMode::Off, message(b'N', b"").repeat(100), "08P01"),
        (TlsMode::Off, [ask(0, b""), message(b'S', b"a\0b\0").repeat(2000)].concat(), "08P01"),
        (TlsMode::Off, [ask(0, b""), message(b'K', b"short")].concat(), "08P01"),
        // Its own words against it.
        (TlsMode::Off, message(b'E', b"SFATAL\0C28P01\0Mno\0\0"), "28P01"),
        (TlsMode::Off, [ask(0, b""), message(b'E', b"SFATAL\0C3D000\0Mno\0\0")].concat(), "3D000"),
        // It goes away.
        (TlsMode::Off, Vec::new(), "08006"),
    ] {
        let (told, heard, events) = log_in(mode, &script).await;
        assert!(holds(&told, format!("C{code}\0").as_bytes()), "{script:?}: {}", String::from_utf8_lossy(&told));
        assert!(!holds(&told, b"\0\0\0\x05I"), "the client was told that the server is ready: {script:?}");
        assert!(!holds(&heard, PASSWORD.as_bytes()) && !holds(&told, PASSWORD.as_bytes()), "{script:?}");
        let [EventKind::Statement(login), EventKind::StatementEnd(end)] = events.as_slice() else {
            panic!("{script:?}: {events:?}")
        };
        assert_eq!(login.text, "user=app database=shop");
        assert_eq!((end.outcome, end.code.as_str()), (StatementOutcome::Failed, code), "{script:?}");
    }
}

#[tokio::test]
async fn a_server_that_believes_us_is_passed_on_with_a_key_of_our_own() {
    let script = [
        message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]),
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0015\0"),
        message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
        message(b'Z', b"I"),
        message(b'A', b"later"),
    ];
    let (told, heard, events) = log_in(TlsMode::Off, &script.concat()).await;
    // The client asked for version 3.2 and is told that it is 3.0.
    assert!(told.starts_with(&[message(b'v', &[0; 8]), message(b'R', &[0; 4])].concat()), "{told:?}");
    assert!(holds(&told, b"server_version\x0015\0") && told.ends_with(&script[5]));
    assert!(holds(&told, b"K\0\0\0\x0c") && !holds(&told, &script[3]), "the server's own key is not told");
    assert!(holds(&heard, b"user\0app\0database\0shop\0") && holds(&heard, b"md5"), "{heard:?}");
    assert!(matches!(events.as_slice(), [_, EventKind::StatementEnd(end)] if end.outcome == StatementOutcome::Done));
}
