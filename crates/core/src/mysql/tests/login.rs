//! Greetings, logins and proofs of passwords.

use super::super::ServerError;
use super::super::auth::{Auth, AuthError, AuthStep, Channel};
use super::super::capability::{self, DEPRECATE_EOF, LOCAL_FILES, MYSQL, PLUGIN_AUTH_LENENC, PROGRESS};
use super::super::field;
use super::super::greeting::Greeting;
use super::super::login::{ClientLogin, LoginError, ServerLogin};

const SALT: [u8; 20] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20];

fn greeting(capabilities: u64, plugin: &str) -> Greeting {
    Greeting {
        version: b"8.4.2".to_vec(),
        connection: 77,
        capabilities,
        charset: 255,
        status: 2,
        salt: SALT,
        plugin: plugin.to_owned(),
    }
}

/// Everything that MySQL 8.4 offers, with what is not let through.
const MYSQL_8: u64 = 0xdfff_ffff;

#[test]
fn greetings_come_back_as_they_were_and_lose_what_is_not_let_through() {
    let of_mysql = greeting(MYSQL_8, "caching_sha2_password");
    assert_eq!(Greeting::read(&of_mysql.write()), Ok(of_mysql.clone()));
    let of_mariadb = greeting((MYSQL_8 & !MYSQL) | (0x1d << 32), "mysql_native_password");
    assert_eq!(Greeting::read(&of_mariadb.write()), Ok(of_mariadb.clone()));

    let ours = of_mariadb.for_client([0; 20], false, true);
    assert_eq!(ours.capabilities & (LOCAL_FILES | 1 << 5 | 1 << 22 | 1 << 25 | 1 << 26 | 1 << 27 | 1 << 36), 0);
    assert_ne!(ours.capabilities & capability::SSL, 0);
    assert_eq!(ours.capabilities >> 32, 0xd);
    assert!(ours.salt.iter().all(|byte| *byte != 0), "zero ends texts");
    assert_eq!((ours.connection, &ours.version), (77, &b"8.4.2".to_vec()));
    assert_ne!(of_mysql.for_client(SALT, true, false).capabilities & LOCAL_FILES, 0);

    let refusal = b"\xff\x69\x04Host '10.0.0.1' is blocked";
    let error = ServerError { code: 1129, state: String::new(), message: "Host '10.0.0.1' is blocked".to_owned() };
    assert_eq!(Greeting::read(refusal), Err(LoginError::Refused(error)));
    assert_eq!(Greeting::read(&greeting(1 << 9, "").write()), Err(LoginError::TooOld));
    assert_eq!(Greeting::read(b"\x09"), Err(LoginError::Malformed("greeting")));
}

/// A login as MySQL's own client writes it.
fn client_login(capabilities: u64, plugin: &str, attributes: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = u32::try_from(capabilities & 0xffff_ffff).unwrap().to_le_bytes().to_vec();
    out.extend_from_slice(&[0, 0, 0, 1, 45]);
    out.extend_from_slice(&[0; 19]);
    out.extend_from_slice(&u32::try_from(capabilities >> 32).unwrap().to_le_bytes());
    out.extend_from_slice(b"bob\0\x03abcshop\0");
    out.extend_from_slice(plugin.as_bytes());
    out.push(0);
    let mut block = Vec::new();
    for (name, value) in attributes {
        field::put_bytes(&mut block, name);
        field::put_bytes(&mut block, value);
    }
    field::put_bytes(&mut out, &block);
    out
}

#[test]
fn a_client_says_who_and_what_it_is_and_proves_nothing() {
    let greeted = greeting(MYSQL_8, "x").for_client(SALT, false, true);
    let attributes: [(&[u8], &[u8]); 2] = [(b"_client_name", b"libmysql"), (b"munjigi_principal", b"somebody else")];
    let packet = client_login(MYSQL_8, "mysql_native_password", &attributes);
    let login = ClientLogin::read(&packet, &greeted).unwrap();
    assert_eq!((login.user.as_str(), login.database.as_deref()), ("bob", Some(&b"shop"[..])));
    assert_eq!((login.max_packet, login.charset), (1 << 24, 45));
    assert_eq!(login.capabilities & LOCAL_FILES, 0, "what was not offered is not agreed on");
    assert_eq!(login.attributes, [(b"_client_name".to_vec(), b"libmysql".to_vec())]);
    assert_eq!(login.switch(&SALT), None);

    let login = ClientLogin::read(&client_login(MYSQL_8, "caching_sha2_password", &[]), &greeted).unwrap();
    let switch = login.switch(&SALT).unwrap();
    assert!(switch.starts_with(b"\xfecaching_sha2_password\0\x01\x02") && switch.ends_with(&[20, 0]));
    assert_eq!(login.fast_path(&[7; 32]), Some(&[1, 3][..]));
    assert_eq!(login.fast_path(&[0]), None);
    let login = ClientLogin::read(&client_login(MYSQL_8, "dialog", &[]), &greeted).unwrap();
    assert!(login.switch(&SALT).unwrap().starts_with(b"\xfemysql_native_password\0"));

    assert!(ClientLogin::wants_tls(&packet[..32]) && !ClientLogin::wants_tls(&packet));
    assert_eq!(ClientLogin::read(&[0x85, 0xa6, 3, 0, 0], &greeted), Err(LoginError::Malformed("login")));
    assert_eq!(ClientLogin::read(&[5, 0, 0, 0], &greeted), Err(LoginError::ClientTooOld));
    // MariaDB's own bits count only from a client that says it is MariaDB's.
    let bits = (MYSQL_8 & !MYSQL) | PROGRESS;
    let greeted = greeting(bits, "x").for_client(SALT, false, true);
    let agreed = |bits| ClientLogin::read(&client_login(bits, "", &[]), &greeted).unwrap().capabilities;
    assert_ne!(agreed(bits) & PROGRESS, 0);
    assert_eq!(agreed(bits | MYSQL) & PROGRESS, 0);
}

#[test]
fn the_login_to_the_server_is_one_that_a_server_reads() {
    let greeting = greeting(MYSQL_8, "x");
    let attributes = [(b"munjigi_principal".to_vec(), b"arn:aws:iam::1:user/bob".to_vec())];
    let login = ServerLogin {
        greeting: &greeting,
        agreed: DEPRECATE_EOF,
        max_packet: 1 << 24,
        charset: 45,
        user: "app",
        database: Some(b"shop"),
        attributes: &attributes,
    };
    for proof in [&[][..], &[9; 32]] {
        let packet = login.write(true, "caching_sha2_password", proof);
        // Read with our own reader, which drops attributes of our own.
        let read = ClientLogin::read(&packet, &greeting).unwrap();
        assert_eq!((read.user.as_str(), read.database.as_deref()), ("app", Some(&b"shop"[..])));
        assert_ne!(read.capabilities & DEPRECATE_EOF, 0);
        assert_eq!(read.capabilities & LOCAL_FILES, 0);
        assert!(packet.windows(23).any(|part| part == b"arn:aws:iam::1:user/bob"));
        assert_eq!(read.switch(&SALT).unwrap()[..5], *b"\xfecach");
    }
    assert!(ClientLogin::wants_tls(&login.tls_request()));
    assert_eq!(login.capabilities_agreed_on() & PLUGIN_AUTH_LENENC, PLUGIN_AUTH_LENENC);
}

impl ServerLogin<'_> {
    fn capabilities_agreed_on(&self) -> u64 {
        u64::from(u32::from_le_bytes(self.tls_request()[..4].try_into().unwrap()))
    }
}

// Computed by Python's hashlib from the definitions in MySQL's documentation.
const NATIVE: &str = "f66fdd3ff855d9349a0ddb50c4a1a535fb412465";
const SHA2: &str = "3f3a9a7786fd9be9a006eed686b4e6b76484fdc06dc15685df5f8793574b84fc";

fn sent(step: Result<AuthStep, AuthError>) -> Vec<u8> {
    match step {
        Ok(AuthStep::Send(packet)) => packet.to_vec(),
        Ok(_) => panic!("something else than a packet"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_password_is_proved_in_the_way_that_the_server_asks_for() {
    let native = greeting(MYSQL_8, "mysql_native_password");
    let mut auth = Auth::begin(&native, b"s3cret", Channel::Plain);
    assert_eq!((auth.first().0, hex::encode(&*auth.first().1)), ("mysql_native_password", NATIVE.to_owned()));
    let switch = [b"\xfecaching_sha2_password\0".as_slice(), &SALT, &[0]].concat();
    assert_eq!(hex::encode(sent(auth.heard(&switch))), SHA2);
    assert!(matches!(auth.heard(&[1, 3]), Ok(AuthStep::Wait)));
    assert!(matches!(auth.heard(&[0, 0, 0, 2, 0, 0, 0]), Ok(AuthStep::Accepted(ok)) if ok.len() == 7));

    // The whole password: inside TLS as it is, else encrypted to the server's key.
    let sha2 = greeting(MYSQL_8, "caching_sha2_password");
    let mut auth = Auth::begin(&sha2, b"s3cret", Channel::Encrypted);
    assert_eq!((auth.first().0, hex::encode(&*auth.first().1)), ("caching_sha2_password", SHA2.to_owned()));
    assert_eq!(sent(auth.heard(&[1, 4])), b"s3cret\0");
    let mut auth = Auth::begin(&sha2, b"s3cret", Channel::Plain);
    assert_eq!(sent(auth.heard(&[1, 4])), [2]);
    let Ok(AuthStep::Encrypt { key_pem, password }) = auth.heard(b"\x01-----BEGIN PUBLIC KEY-----") else { panic!() };
    assert_eq!(key_pem, b"-----BEGIN PUBLIC KEY-----");
    assert_eq!(*password, [b's' ^ 1, b'3' ^ 2, b'c' ^ 3, b'r' ^ 4, b'e' ^ 5, b't' ^ 6, 7]);

    // In no way that others could read.
    let clear = b"\xfemysql_clear_password\0";
    assert_eq!(sent(Auth::begin(&sha2, b"s3cret", Channel::Encrypted).heard(clear)), b"s3cret\0");
    let refused = Auth::begin(&sha2, b"s3cret", Channel::Plain).heard(clear).err();
    assert_eq!(refused, Some(AuthError::NeedsTls("mysql_clear_password")));
    let unknown = Auth::begin(&sha2, b"s3cret", Channel::Encrypted).heard(b"\xfeclient_ed25519\0xyz").err();
    assert_eq!(unknown, Some(AuthError::UnknownPlugin("client_ed25519".to_owned())));
    // A key that nobody asked for would be a trick.
    assert!(Auth::begin(&native, b"s3cret", Channel::Plain).heard(b"\x01-----BEGIN").is_err());
    assert!(Auth::begin(&sha2, b"s3cret", Channel::Encrypted).heard(b"\x01-----BEGIN").is_err());

    let mut auth = Auth::begin(&sha2, b"s3cret", Channel::Encrypted);
    for _ in 0..8 {
        assert!(auth.heard(&[1, 3]).is_ok());
    }
    assert_eq!(auth.heard(&[1, 3]).err(), Some(AuthError::Endless));
    assert!(Auth::begin(&native, b"", Channel::Plain).first().1.is_empty());
    assert_eq!(*Auth::begin(&sha2, b"", Channel::Plain).first().1, [0]);
    let denied = b"\xff\x15\x04#28000Access denied";
    assert!(matches!(auth_after(denied), Ok(AuthStep::Refused(error)) if error.code() == "1045 (28000)"));
}

fn auth_after(packet: &[u8]) -> Result<AuthStep, AuthError> {
    Auth::begin(&greeting(MYSQL_8, "mysql_native_password"), b"s3cret", Channel::Plain).heard(packet)
}

#[test]
fn a_quarter_million_mutated_logins_of_either_side_are_refused_or_bounded() {
    let native = greeting(MYSQL_8, "mysql_native_password");
    crate::mutate::each(&native.write(), 0x6772_6565, |bytes| {
        if let Ok(greeting) = Greeting::read(bytes) {
            assert!(greeting.version.len() <= 255);
            drop(greeting.for_client(SALT, true, true).write());
        }
    });
    let attributes: [(&[u8], &[u8]); 2] = [(b"_os", b"Linux"), (b"_pid", b"17")];
    let login = client_login(MYSQL_8, "caching_sha2_password", &attributes);
    crate::mutate::each(&login, 0x6c6f_6769, |bytes| {
        ClientLogin::wants_tls(bytes);
        if let Ok(login) = ClientLogin::read(bytes, &native) {
            assert!(login.user.len() <= 3 * bytes.len() && login.attributes.len() <= bytes.len());
        }
    });
    let switch = [b"\xfecaching_sha2_password\0".as_slice(), &SALT, &[0]].concat();
    crate::mutate::each(&switch, 0x7377_6974, |bytes| {
        let mut auth = Auth::begin(&native, b"s3cret", Channel::Plain);
        for part in bytes.chunks(1 + bytes.len() / 2) {
            if let Ok(AuthStep::Send(packet)) = auth.heard(part) {
                // On a channel that others read nothing but hashes and questions is ever sent.
                assert!(!packet.windows(6).any(|part| part == b"s3cret"));
            }
        }
    });
}
