//! What `munjigi forward` is told to forward: text as people know it from `ssh -L`, and what it means.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use munjigi_core::destination::Destination;
use munjigi_core::endpoint::{Endpoint, EndpointError, ListenAddress, NodePath};

/// What stands before a path.
const UNIX: &str = "unix:";
/// Where forwards listen unless told otherwise: programs of this machine alone.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One thing to forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    /// Where programs of this machine connect to.
    pub(crate) local: Local,
    /// Where that leads to.
    pub(crate) remote: Remote,
}

/// A place behind the node; `None` is the only one that the named target has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remote(pub(crate) Option<Endpoint>);

/// A place on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// A TCP address; port 0 is any free one when listened on.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A port of the node and where it leads to on this side, as `-R` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReverseSpec {
    /// Where the node listens.
    pub(crate) listen: ListenAddress,
    /// What is connected to from this machine.
    pub(crate) to: ReverseTo,
}

/// Where a reverse forward leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReverseTo {
    /// Host and port, looked up on this machine.
    Tcp(Destination),
    /// A socket of this machine.
    Unix(PathBuf),
}

/// Why text is no forward.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// None of the forms.
    #[error(
        "write [BIND:]PORT:HOST:PORT, [BIND:]PORT:unix:PATH or unix:PATH:HOST:PORT; PORT alone is a port of the node itself; an IPv6 address stands in brackets"
    )]
    Form,
    /// None of the forms of `-R`.
    #[error(
        "write [BIND:]PORT:HOST:PORT or [BIND:]PORT:unix:PATH: where the node listens, and what that leads to from here"
    )]
    ReverseForm,
    /// Not a port.
    #[error("`{0}` is no port: a port is a number from 0 to 65535")]
    Port(String),
    /// Not an address to listen on.
    #[error("`{0}` is no address to listen on: write an IP address, localhost, or * for all")]
    Bind(String),
    /// Not a place to go to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (local, leads_to) = if let Some(rest) = text.strip_prefix(UNIX) {
            let (path, remote) = rest.split_once(':').filter(|(path, _)| !path.is_empty()).ok_or(SpecError::Form)?;
            (Local::Unix(path.into()), remote.to_owned())
        } else {
            let (listen, remote) = listen_and_rest(text, SpecError::Form)?;
            // A port alone leads to the same port.
            let remote = remote.map_or_else(|| listen.port().to_string(), str::to_owned);
            (Local::Tcp(listen), remote)
        };
        Ok(Self { local, remote: remote(&leads_to)? })
    }
}

/// Reads where a forward leads to: `HOST:PORT`, `unix:PATH`, or a port of the node itself; 0 names none.
pub(crate) fn remote(text: &str) -> Result<Remote, SpecError> {
    if let Some(path) = text.strip_prefix(UNIX) {
        return Ok(Remote(Some(Endpoint::Unix(NodePath::new(path)?))));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Remote(match port(text)? {
            0 => None,
            port => Some(Endpoint::Tcp(Destination::new("", port).map_err(EndpointError::from)?)),
        }));
    }
    if text.starts_with(':') {
        return Err(SpecError::Form);
    }
    match text.parse()? {
        Endpoint::Tcp(to) => Ok(Remote(Some(Endpoint::Tcp(to)))),
        _ => Err(SpecError::Form),
    }
}

impl FromStr for ReverseSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (listen, rest) = listen_and_rest(text, SpecError::ReverseForm)?;
        let listen = ListenAddress::new(listen.ip(), listen.port());
        let rest = rest.ok_or(SpecError::ReverseForm)?;
        let to = match rest.strip_prefix(UNIX) {
            Some("") => return Err(SpecError::ReverseForm),
            Some(path) => ReverseTo::Unix(path.into()),
            None if rest.bytes().all(|byte| byte.is_ascii_digit()) => {
                ReverseTo::Tcp(Destination::new("localhost", port(rest)?).map_err(EndpointError::from)?)
            }
            None => match rest.parse()? {
                Endpoint::Tcp(to) if !to.is_node() => ReverseTo::Tcp(to),
                _ => return Err(SpecError::ReverseForm),
            },
        };
        Ok(Self { listen, to })
    }
}

/// Reads `[BIND:]PORT`, as `-D` has it.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, SpecError> {
    match listen_and_rest(text, SpecError::Form)? {
        (listen, None) => Ok(listen),
        (_, Some(_)) => Err(SpecError::Port(text.to_owned())),
    }
}

/// Splits `[BIND:]PORT` from what follows it.
fn listen_and_rest(text: &str, form: SpecError) -> Result<(SocketAddr, Option<&str>), SpecError> {
    let (bind, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (address, rest) = bracketed.split_once("]:").ok_or(form)?;
            (Some(address), rest)
        }
        None => match text.split_once(':') {
            Some((first, rest)) if !first.bytes().all(|byte| byte.is_ascii_digit()) => (Some(first), rest),
            // An empty address is every one, as `ssh` has it.
            Some(("", rest)) => (Some("*"), rest),
            _ => (None, text),
        },
    };
    let (number, rest) = match rest.split_once(':') {
        Some((number, rest)) => (number, Some(rest)),
        None => (rest, None),
    };
    Ok((SocketAddr::new(bind.map_or(Ok(ADDRESS), address)?, port(number)?), rest))
}

fn address(text: &str) -> Result<IpAddr, SpecError> {
    match text {
        "localhost" => Ok(ADDRESS),
        "*" => Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        _ => text.parse().map_err(|_| SpecError::Bind(text.to_owned())),
    }
}

fn port(text: &str) -> Result<u16, SpecError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| SpecError::Port(text.to_owned()))
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl fmt::Display for ReverseTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(to) => to.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match text.parse::<Spec>() {
            Ok(Spec { local, remote: Remote(Some(remote)) }) => format!("{local} {}", String::from(remote)),
            Ok(Spec { local, remote: Remote(None) }) => format!("{local} -"),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn forwards_are_read_as_people_write_them() {
        for (text, meaning) in [
            ("8080:web.internal:80", "127.0.0.1:8080 web.internal:80"),
            ("0:DB:5432", "127.0.0.1:0 db:5432"),
            ("localhost:8080:web:80", "127.0.0.1:8080 web:80"),
            ("0.0.0.0:8080:web:80", "0.0.0.0:8080 web:80"),
            ("*:8080:web:80", "0.0.0.0:8080 web:80"),
            (":8080:web:80", "0.0.0.0:8080 web:80"),
            ("[::1]:8080:[fd00::7]:80", "[::1]:8080 [fd00::7]:80"),
            ("5432", "127.0.0.1:5432 :5432"),
            ("0", "127.0.0.1:0 -"),
            ("5433:5432", "127.0.0.1:5433 :5432"),
            ("0:5432", "127.0.0.1:0 :5432"),
            ("5433:0", "127.0.0.1:5433 -"),
            ("127.0.0.2:5432", "127.0.0.2:5432 :5432"),
            ("2375:unix:/run/docker.sock", "127.0.0.1:2375 unix:/run/docker.sock"),
            ("unix:/tmp/pg/.s.PGSQL.5432:db:5432", "unix:/tmp/pg/.s.PGSQL.5432 db:5432"),
            ("unix:d.sock:unix:~/d.sock", "unix:d.sock unix:~/d.sock"),
            ("unix:d.sock:22", "unix:d.sock :22"),
            ("[::]:1:unix:/a:b", "[::]:1 unix:/a:b"),
        ] {
            assert_eq!(shown(text), meaning, "{text}");
        }
        for bad in [
            "",
            ":",
            "x",
            "db:5432",
            "8080:",
            "8080:db",
            "8080:db:",
            "8080:db:x",
            "8080::80",
            "65536:db:80",
            "+1:db:80",
            "8080:db:0",
            "8080:a b:80",
            "[::1:80:db:80",
            "[::1]80:db:80",
            "fd00::7:80:db:80",
            "unix:",
            "unix:/a",
            "unix::db:80",
            "1:unix:",
            "1:unix:a",
            "1:unix:/a/../b",
            "1:upload:/a",
            "1:listen:1.1.1.1:1",
            "-1",
            "1:2:3:4:5",
        ] {
            assert!(bad.parse::<Spec>().is_err(), "{bad}: {}", shown(bad));
        }
    }

    #[test]
    fn proxies_listen_on_this_machine_unless_told_otherwise() {
        for (text, address) in
            [("1080", "127.0.0.1:1080"), ("0", "127.0.0.1:0"), ("[::1]:1080", "[::1]:1080"), ("*:1", "0.0.0.0:1")]
        {
            assert_eq!(listen(text).unwrap().to_string(), address);
        }
        for bad in ["", "x", "db:80", "1:2:3", "127.0.0.1"] {
            assert!(listen(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reverse_forwards_lead_from_the_node_to_here() {
        for (text, listen, to) in [
            ("8080:localhost:3000", "127.0.0.1:8080", "localhost:3000"),
            ("8080:3000", "127.0.0.1:8080", "localhost:3000"),
            ("0.0.0.0:0:[::1]:80", "0.0.0.0:0", "[::1]:80"),
            ("0:unix:/tmp/x.sock", "127.0.0.1:0", "unix:/tmp/x.sock"),
        ] {
            let spec: ReverseSpec = text.parse().unwrap();
            assert_eq!((spec.listen.to_string().as_str(), spec.to.to_string().as_str()), (listen, to));
        }
        for bad in ["", "8080", "8080:0", "8080::80", "x:8080:a:80", "8080:unix:", "8080:a"] {
            assert!(bad.parse::<ReverseSpec>().is_err(), "{bad}");
        }
    }
}
