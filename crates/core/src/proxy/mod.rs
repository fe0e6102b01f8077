//! What a program says to a proxy before its bytes: SOCKS5 (RFC 1928), SOCKS4 and 4a, and CONNECT of HTTP (RFC 9110
//! section 9.3.6). The proxy's end, one connection at a time.
//!
//! Names are handed on as they were asked for: whoever connects resolves them. There is no login, and nothing but
//! CONNECT: UDP, BIND and everything else is answered "not supported". Knows no sockets; every phase is bounded (T-95).

mod http;
mod socks4;
mod socks5;
#[cfg(test)]
mod tests;

use bytes::{Buf as _, BytesMut};

use crate::destination::Destination;

/// A program's connection to the proxy until it is asked for a destination.
#[derive(Debug, Default)]
pub struct Negotiation {
    phase: Phase,
}

#[derive(Debug, Default, Clone, Copy)]
enum Phase {
    /// Nothing is known of the program.
    #[default]
    Beginning,
    /// SOCKS5 without a login is agreed on.
    Socks5Request,
    /// It is over: a destination was asked for, or nothing that can be understood.
    Done,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Read more.
    More,
    /// Send this, then go on.
    Send(Vec<u8>),
    /// Connect, and send what [`Request::answer`] makes of the outcome. What is left of the input belongs to the
    /// connection.
    Connect(Request),
    /// Send this (it may be empty) and close: the program asked for something that there is not.
    Close(Vec<u8>, Wrong),
}

/// Why a program was sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Neither SOCKS nor HTTP.
    #[error("it speaks neither SOCKS nor HTTP")]
    Protocol,
    /// It wants to log in and cannot do without.
    #[error("it offers no way without a login; there is none to check here")]
    Login,
    /// It wants something else than a connection.
    #[error("only connections (CONNECT) are made; UDP, BIND and plain HTTP requests are not supported")]
    Command,
    /// The destination is neither an address nor a name.
    #[error("it names a destination that is neither an address nor a name")]
    Destination,
    /// It goes on for longer than any request.
    #[error("its request is longer than any can be")]
    TooLong,
}

/// A destination that a program asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where to; never the node itself without a name.
    pub destination: Destination,
    dialect: Dialect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Socks5,
    Socks4,
    Http,
}

/// How an attempt to connect went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The connection stands.
    Connected,
    /// The destination's machine refused it.
    Refused,
    /// Rules forbid it.
    Denied,
    /// The name stands for nothing.
    NotFound,
    /// There is no way to the destination.
    Unreachable,
    /// Nobody answered in time.
    TimedOut,
    /// Anything else.
    Failed,
}

impl Negotiation {
    /// Takes what came from the program so far and says what to do. Call it again after [`Step::Send`], and after
    /// [`Step::More`] with more input.
    pub fn step(&mut self, input: &mut BytesMut) -> Step {
        let read = match (self.phase, input.first()) {
            (Phase::Done, _) => return Step::Close(Vec::new(), Wrong::Protocol),
            (_, None) => return Step::More,
            (Phase::Beginning, Some(&socks5::VERSION)) => socks5::greeting(input),
            (Phase::Beginning, Some(&socks4::VERSION)) => socks4::request(input),
            (Phase::Beginning, Some(b'A'..=b'Z')) => http::request(input),
            (Phase::Beginning, Some(_)) => Read::Wrong(Vec::new(), Wrong::Protocol),
            (Phase::Socks5Request, Some(_)) => socks5::request(input),
        };
        match read {
            Read::More => Step::More,
            Read::Agreed(length, reply) => {
                input.advance(length.min(input.len()));
                self.phase = Phase::Socks5Request;
                Step::Send(reply)
            }
            Read::Request(length, request) => {
                input.advance(length.min(input.len()));
                self.phase = Phase::Done;
                Step::Connect(request)
            }
            Read::Wrong(reply, wrong) => {
                self.phase = Phase::Done;
                Step::Close(reply, wrong)
            }
        }
    }
}

/// What one message was.
enum Read {
    /// It is not complete.
    More,
    /// So many bytes of greeting, to be answered so.
    Agreed(usize, Vec<u8>),
    /// So many bytes of request.
    Request(usize, Request),
    /// Nothing that can be granted.
    Wrong(Vec<u8>, Wrong),
}

impl Request {
    /// Makes a request of a host that was written down and a port.
    fn new(dialect: Dialect, host: &str, port: u16) -> Option<Self> {
        // Without a host a destination is the node itself; nobody asks a proxy for that by leaving the name out.
        let destination = Some(host).filter(|host| !host.is_empty()).and_then(|host| Destination::new(host, port).ok());
        destination.map(|destination| Self { destination, dialect })
    }

    /// Returns the answer for the program; after anything but [`Outcome::Connected`] the connection is closed. The
    /// sentence is for people and shown where the dialect has room for one.
    pub fn answer(&self, outcome: Outcome, sentence: &str) -> Vec<u8> {
        match self.dialect {
            Dialect::Socks5 => socks5::answer(outcome),
            Dialect::Socks4 => socks4::answer(outcome),
            Dialect::Http => http::answer(outcome, sentence),
        }
    }
}
