//! SOCKS4, and 4a with a name instead of an address: one request without a greeting.

use std::net::Ipv4Addr;

use super::{Dialect, Outcome, Read, Request, Wrong};

/// First byte of a request.
pub(super) const VERSION: u8 = 4;
/// The command CONNECT; 2 is BIND.
const CONNECT: u8 = 1;
/// Longest user id, which is not looked at, and longest name: what SOCKS5 allows.
const MAX_TEXT: usize = 255;
const GRANTED: u8 = 90;
const REJECTED: u8 = 91;

/// Reads version, command, port, address and user id, and for 4a the name.
pub(super) fn request(input: &[u8]) -> Read {
    let [_, command, high, low, a, b, c, d, rest @ ..] = input else { return Read::More };
    let wrong = |wrong| Read::Wrong(reply(REJECTED), wrong);
    if *command != CONNECT {
        return wrong(Wrong::Command);
    }
    let port = u16::from_be_bytes([*high, *low]);
    let (user, rest) = match text(rest) {
        Ok(found) => found,
        Err(read) => return read,
    };
    let mut length = 8 + user.len() + 1;
    // 0.0.0.x with x other than 0 says that a name follows.
    let host = match ([*a, *b, *c], *d) {
        ([0, 0, 0], 1..) => {
            let name = match text(rest) {
                Ok((name, _)) => name,
                Err(read) => return read,
            };
            length += name.len() + 1;
            let Ok(name) = std::str::from_utf8(name) else { return wrong(Wrong::Destination) };
            name.to_owned()
        }
        _ => Ipv4Addr::new(*a, *b, *c, *d).to_string(),
    };
    match Request::new(Dialect::Socks4, &host, port) {
        Some(request) => Read::Request(length, request),
        None => wrong(Wrong::Destination),
    }
}

/// Splits off what comes before the next zero.
fn text(input: &[u8]) -> Result<(&[u8], &[u8]), Read> {
    match input.iter().take(MAX_TEXT + 1).position(|byte| *byte == 0) {
        Some(at) => match (input.get(..at), input.get(at + 1..)) {
            (Some(text), Some(rest)) => Ok((text, rest)),
            _ => Err(Read::More),
        },
        None if input.len() > MAX_TEXT => Err(Read::Wrong(reply(REJECTED), Wrong::TooLong)),
        None => Err(Read::More),
    }
}

/// There is one word for every failure.
pub(super) fn answer(outcome: Outcome) -> Vec<u8> {
    reply(if outcome == Outcome::Connected { GRANTED } else { REJECTED })
}

fn reply(code: u8) -> Vec<u8> {
    vec![0, code, 0, 0, 0, 0, 0, 0]
}
