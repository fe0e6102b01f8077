//! The few messages of a server that are made or read here.

use super::Violation;

/// The body of the message `R` that says that the login is done.
pub const AUTHENTICATION_OK: [u8; 4] = [0; 4];
/// PostgreSQL's code for somebody who does not speak the protocol.
pub const FATAL_PROTOCOL: &str = "08P01";
/// Longest text of an error that is made here, bytes.
const MAX_TEXT: usize = 1024;

/// Appends a message.
fn put(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
}

/// Appends the word that the login is done.
pub fn authentication_ok(out: &mut Vec<u8>) {
    put(out, b'R', &AUTHENTICATION_OK);
}

/// Appends the key with which the connection's statements can be cancelled.
pub fn backend_key(process_id: u32, secret: u32, out: &mut Vec<u8>) {
    let mut body = process_id.to_be_bytes().to_vec();
    body.extend_from_slice(&secret.to_be_bytes());
    put(out, b'K', &body);
}

/// Appends the word that version 3.0 is spoken and that these extensions are not known.
pub fn negotiate(unknown: &[&str], out: &mut Vec<u8>) {
    let mut body = vec![0, 0, 0, 0];
    body.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(u32::MAX).to_be_bytes());
    for name in unknown {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
    }
    put(out, b'v', &body);
}

/// Appends an error that ends the connection. `code` is one of PostgreSQL's, `message` for people.
pub fn fatal(code: &str, message: &str, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    let message = message.replace('\0', "").chars().take(MAX_TEXT).collect::<String>();
    for (field, value) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code), (b'M', message.as_str())] {
        body.push(field);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    put(out, b'E', &body);
}

/// Reads the code out of an error's body, of which the beginning is enough.
pub fn error_code(body: &[u8]) -> String {
    field(body, b'C').filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric())).unwrap_or_default()
}

fn field(mut body: &[u8], wanted: u8) -> Option<String> {
    loop {
        let (field, rest) = body.split_first().filter(|(field, _)| **field != 0)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        if *field == wanted {
            let text = String::from_utf8_lossy(rest.get(..end)?);
            return Some(text.chars().take(MAX_TEXT).collect());
        }
        body = rest.get(end + 1..)?;
    }
}

/// What a message means that a server sends between its word that the login is done and its readiness.
pub fn ready_or_error(kind: u8, body: &[u8]) -> Result<Readiness, Violation> {
    match kind {
        b'Z' => Ok(Readiness::Ready),
        b'K' => match body {
            [a, b, c, d, e, f, g, h] => Ok(Readiness::Key {
                process_id: u32::from_be_bytes([*a, *b, *c, *d]),
                secret: u32::from_be_bytes([*e, *f, *g, *h]),
            }),
            _ => Err(Violation::Malformed { from: "server", what: "key" }),
        },
        b'E' => Ok(Readiness::Error { code: error_code(body), message: field(body, b'M').unwrap_or_default() }),
        b'S' | b'N' | b'A' => Ok(Readiness::Passing),
        kind => Err(Violation::Kind { from: "server", kind: char::from(kind) }),
    }
}

/// See [`ready_or_error`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Statements may come.
    Ready,
    /// The key of the connection at the server.
    Key {
        /// The connection.
        process_id: u32,
        /// Its key.
        secret: u32,
    },
    /// The server ends the connection.
    Error {
        /// Its code.
        code: String,
        /// For people.
        message: String,
    },
    /// Something for the client.
    Passing,
}
