//! CONNECT of HTTP/1: `CONNECT host:port HTTP/1.1`, fields that are not looked at, an empty line.

use super::{Dialect, Outcome, Read, Request, Wrong};

/// Longest head of a request; programs send a few hundred bytes.
const MAX_HEAD: usize = 8 * 1024;
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// Reads a head to its end.
pub(super) fn request(input: &[u8]) -> Read {
    let head = input.get(..MAX_HEAD).unwrap_or(input);
    let Some(end) = head.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else {
        return if head.len() < input.len() || head.len() == MAX_HEAD {
            Read::Wrong(refusal("431 Request Header Fields Too Large", Wrong::TooLong), Wrong::TooLong)
        } else {
            Read::More
        };
    };
    let line = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let wrong = |status, wrong| Read::Wrong(refusal(status, wrong), wrong);
    let Some(line) = line else { return wrong("400 Bad Request", Wrong::Protocol) };
    let mut words = line.split(' ');
    let (method, target, version, more) = (words.next(), words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) || more.is_some() {
        return wrong("400 Bad Request", Wrong::Protocol);
    }
    if method != Some("CONNECT") {
        return wrong("405 Method Not Allowed\r\nAllow: CONNECT", Wrong::Command);
    }
    match target.and_then(authority) {
        Some(request) => Read::Request(end + END_OF_HEAD.len(), request),
        None => wrong("400 Bad Request", Wrong::Destination),
    }
}

/// Reads `host:port`, with brackets around an IPv6 address.
fn authority(target: &str) -> Option<Request> {
    let (host, port) = target.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(address) => address.strip_suffix(']').filter(|address| address.contains(':'))?,
        None if host.contains(':') => return None,
        None => host,
    };
    // `+80` would be read as a number as well.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    Request::new(Dialect::Http, host, port.parse().ok().filter(|_| digits)?)
}

pub(super) fn answer(outcome: Outcome, sentence: &str) -> Vec<u8> {
    let status = match outcome {
        Outcome::Connected => return b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec(),
        Outcome::Denied => "403 Forbidden",
        Outcome::TimedOut => "504 Gateway Timeout",
        Outcome::Refused | Outcome::NotFound | Outcome::Unreachable | Outcome::Failed => "502 Bad Gateway",
    };
    response(status, sentence)
}

fn refusal(status: &str, wrong: Wrong) -> Vec<u8> {
    response(status, &wrong.to_string())
}

/// The sentence stands in the body alone, where it cannot become a field.
fn response(status: &str, sentence: &str) -> Vec<u8> {
    let fields = "Connection: close\r\nContent-Type: text/plain; charset=utf-8";
    format!("HTTP/1.1 {status}\r\n{fields}\r\nContent-Length: {}\r\n\r\n{sentence}\n", sentence.len() + 1).into_bytes()
}
