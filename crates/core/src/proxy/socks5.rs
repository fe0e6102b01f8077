//! SOCKS5 as RFC 1928 has it: a greeting with the logins that the program knows, and one request.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Dialect, Outcome, Read, Request, Wrong};

/// First byte of every message.
pub(super) const VERSION: u8 = 5;
/// The method "no authentication required".
const NO_LOGIN: u8 = 0;
/// The answer "no acceptable methods".
const NO_METHOD: u8 = 0xff;
/// The command CONNECT; 2 is BIND and 3 UDP ASSOCIATE.
const CONNECT: u8 = 1;
const ADDRESS_IPV4: u8 = 1;
const ADDRESS_NAME: u8 = 3;
const ADDRESS_IPV6: u8 = 4;
/// The replies of section 6 that have no [`Outcome`].
const COMMAND_NOT_SUPPORTED: u8 = 7;
const ADDRESS_NOT_SUPPORTED: u8 = 8;
const HOST_UNREACHABLE: u8 = 4;
const GENERAL_FAILURE: u8 = 1;

/// Reads version, count and methods.
pub(super) fn greeting(input: &[u8]) -> Read {
    let [_, count, rest @ ..] = input else { return Read::More };
    let Some(methods) = rest.get(..usize::from(*count)) else { return Read::More };
    if methods.contains(&NO_LOGIN) {
        Read::Agreed(2 + methods.len(), vec![VERSION, NO_LOGIN])
    } else {
        Read::Wrong(vec![VERSION, NO_METHOD], Wrong::Login)
    }
}

/// Reads version, command, reserved byte, kind of address, address and port.
pub(super) fn request(input: &[u8]) -> Read {
    let [version, rest @ ..] = input else { return Read::More };
    if *version != VERSION {
        return Read::Wrong(reply(GENERAL_FAILURE), Wrong::Protocol);
    }
    let [command, _, kind, rest @ ..] = rest else { return Read::More };
    if *command != CONNECT {
        return Read::Wrong(reply(COMMAND_NOT_SUPPORTED), Wrong::Command);
    }
    let wrong = || Read::Wrong(reply(HOST_UNREACHABLE), Wrong::Destination);
    let (host, length, rest) = match (*kind, rest) {
        (ADDRESS_IPV4, [a, b, c, d, rest @ ..]) => (Ipv4Addr::new(*a, *b, *c, *d).to_string(), 4, rest),
        (ADDRESS_IPV6, rest) => {
            let Some((address, rest)) = rest.split_first_chunk::<16>() else { return Read::More };
            (Ipv6Addr::from(*address).to_string(), 16, rest)
        }
        (ADDRESS_NAME, [length, rest @ ..]) => {
            let Some((name, rest)) = rest.split_at_checked(usize::from(*length)) else { return Read::More };
            let Ok(name) = std::str::from_utf8(name) else { return wrong() };
            (name.to_owned(), 1 + usize::from(*length), rest)
        }
        (ADDRESS_IPV4 | ADDRESS_NAME, _) => return Read::More,
        _ => return Read::Wrong(reply(ADDRESS_NOT_SUPPORTED), Wrong::Destination),
    };
    let [high, low, ..] = rest else { return Read::More };
    match Request::new(Dialect::Socks5, &host, u16::from_be_bytes([*high, *low])) {
        Some(request) => Read::Request(4 + length + 2, request),
        None => wrong(),
    }
}

pub(super) fn answer(outcome: Outcome) -> Vec<u8> {
    reply(match outcome {
        Outcome::Connected => 0,
        Outcome::Failed => GENERAL_FAILURE,
        Outcome::Denied => 2,
        Outcome::Unreachable => 3,
        Outcome::NotFound => HOST_UNREACHABLE,
        Outcome::Refused => 5,
        // "TTL expired": the nearest word that the protocol has.
        Outcome::TimedOut => 6,
    })
}

/// The address that was bound is on the node and of no use to the program: zeros, as other proxies answer.
fn reply(code: u8) -> Vec<u8> {
    vec![VERSION, code, 0, ADDRESS_IPV4, 0, 0, 0, 0, 0, 0]
}
