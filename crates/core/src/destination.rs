//! Where the connections of a port session go: a host as it was asked for and a TCP port.
//!
//! Only the form is judged here. What the name stands for, and whether its addresses may be reached, is decided on the
//! node when a connection is made (T-58).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Longest host in bytes: the longest name that DNS has (RFC 1035 section 2.3.4).
pub const MAX_HOST_BYTES: usize = 253;

/// Where SSH servers listen.
const SSH_PORT: u16 = 22;

/// A host and a TCP port. Without a host it is the node itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Destination {
    host: String,
    port: u16,
}

/// Why text is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DestinationError {
    /// Neither an address nor a name.
    #[error("a host is an IP address or a name of letters, digits, '-', '_' and '.', of at most 253 characters")]
    Host,
    /// Port 0 cannot be connected to.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

impl Destination {
    /// Builds a destination; an empty host is the node itself.
    pub fn new(host: &str, port: u16) -> Result<Self, DestinationError> {
        if port == 0 {
            return Err(DestinationError::Port);
        }
        if !host.is_empty() && !valid_host(host) {
            return Err(DestinationError::Host);
        }
        Ok(Self { host: host.to_ascii_lowercase(), port })
    }

    /// Returns the SSH server of the node itself.
    pub fn own_ssh() -> Self {
        Self { host: String::new(), port: SSH_PORT }
    }

    /// Appends the destination to what is signed or sent between the halves of an agent.
    pub fn put<'w>(&self, out: &'w mut FieldWriter) -> &'w mut FieldWriter {
        out.text(&self.host).u64(u64::from(self.port))
    }

    /// Reads what [`Self::put`] wrote, and nothing else: one encoding per value.
    pub fn get(fields: &mut FieldReader<'_>) -> Result<Self, FieldError> {
        let host = fields.text(MAX_HOST_BYTES)?;
        let port = u16::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?;
        let destination = Self::new(host, port).map_err(|_| FieldError::Unknown)?;
        if destination.host == host { Ok(destination) } else { Err(FieldError::Unknown) }
    }

    /// Returns the host in lower case; empty for the node itself.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Tells whether it is a port of the node itself.
    pub fn is_node(&self) -> bool {
        self.host.is_empty()
    }
}

/// `host:port`, with brackets around an IPv6 address and `localhost` for the node itself.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_str() {
            "" => write!(f, "localhost:{}", self.port),
            host if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            host => write!(f, "{host}:{}", self.port),
        }
    }
}

/// A name is one that resolvers take; anything with a zone, a path or a space is none.
fn valid_host(host: &str) -> bool {
    if host.len() > MAX_HOST_BYTES {
        return false;
    }
    if host.contains(':') {
        return host.parse::<IpAddr>().is_ok();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A final dot makes a name absolute (RFC 1034 section 3.1).
    host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// As it is stored, before it is checked.
#[derive(Deserialize)]
struct Unchecked {
    host: String,
    port: u16,
}

impl TryFrom<Unchecked> for Destination {
    type Error = DestinationError;

    fn try_from(unchecked: Unchecked) -> Result<Self, Self::Error> {
        Self::new(&unchecked.host, unchecked.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_everything_else() {
        let long = format!("{}.example", "a".repeat(63));
        for good in ["", "db", "DB.internal", "db.internal.", "10.0.0.7", "fd00::7", "_sip.example", &long] {
            assert!(Destination::new(good, 5432).is_ok(), "{good}");
        }
        let many = "a.".repeat(127);
        let label = "a".repeat(64);
        for bad in
            [" ", "a b", "a/b", "a@b", "-x", "a..b", ".", "fe80::1%eth0", "[::1]", "a:22", "\u{ad6d}", &many, &label]
        {
            assert_eq!(Destination::new(bad, 22), Err(DestinationError::Host), "{bad}");
        }
        assert_eq!(Destination::new("db", 0), Err(DestinationError::Port));
    }

    #[test]
    fn it_is_shown_as_people_write_it() {
        for (host, shown) in [("", "localhost:22"), ("DB.Internal", "db.internal:22"), ("fd00::7", "[fd00::7]:22")] {
            assert_eq!(Destination::new(host, 22).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_was_stored_is_checked_when_it_is_read() {
        let stored = serde_json::to_string(&Destination::new("db", 5432).unwrap()).unwrap();
        assert_eq!(stored, r#"{"host":"db","port":5432}"#);
        assert_eq!(serde_json::from_str::<Destination>(&stored).unwrap(), Destination::new("db", 5432).unwrap());
        assert!(serde_json::from_str::<Destination>(r#"{"host":"a b","port":5432}"#).is_err());
        assert!(serde_json::from_str::<Destination>(r#"{"host":"a","port":0}"#).is_err());
    }
}
