//! What the connections of a forward session go to: a TCP destination, a socket, a place for files, a port to listen on.
//!
//! Only the form is judged here. Whether a principal may reach an endpoint is policy's business, what a name or a path
//! stands for is the node's, when a connection is made (T-58).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::destination::{Destination, DestinationError};
use crate::file_command::{FileCommandError, RsyncCall};
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};
use crate::wire::message::{EndpointWish, ListenWish, PortWish, endpoint_wish};

/// Most endpoints of one session document, wish or grant.
pub const MAX_ENDPOINTS: usize = 64;
/// Longest path in bytes: Linux' `PATH_MAX` without the final NUL.
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest text of an endpoint in bytes.
const MAX_TEXT_BYTES: usize = MAX_RSYNC_BYTES + 16;
/// Longest call of rsync in bytes, so that it fits a grant.
const MAX_RSYNC_BYTES: usize = 12 * 1024;
/// How [`Endpoint::Agent`] is written.
const AGENT: &str = "agent";

/// One thing that connections of a session may go to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// A TCP destination, connected to by the node.
    Tcp(Destination),
    /// A stream socket on the node, connected to as the session's OS user.
    Unix(NodePath),
    /// Files to be written on the node at or below this path, as the session's OS user.
    Upload(NodePath),
    /// Files to be read on the node at or below this path, as the session's OS user.
    Download(NodePath),
    /// A TCP port on which the node listens for the client.
    Listen(ListenAddress),
    /// A socket on which the node listens for the client, as the session's OS user.
    ListenUnix(NodePath),
    /// A socket that the node makes for the session's OS user, behind which is the client's SSH agent.
    Agent,
    /// Files of the session's OS user by SFTP, each judged by the gateway, which alone opens this.
    Files(FileAccess),
    /// `rsync` on the node as the session's OS user, followed by the gateway, which alone opens this.
    Rsync(Box<RsyncCall>),
}

/// What a session may do with files at most; each is judged by itself on top of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAccess {
    /// Write, and change what there is.
    Upload,
    /// Read.
    Download,
    /// Both.
    Both,
}

impl FileAccess {
    const ALL: [Self; 3] = [Self::Upload, Self::Download, Self::Both];

    /// Returns its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
            Self::Both => "both",
        }
    }

    /// Reads its word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|access| access.as_str() == text)
    }

    /// Whether files may be written.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Upload | Self::Both)
    }

    /// Whether files may be read.
    pub const fn reads(self) -> bool {
        matches!(self, Self::Download | Self::Both)
    }
}

/// Why something is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The host or port of a destination.
    #[error(transparent)]
    Destination(#[from] DestinationError),
    /// Not a path that is taken.
    #[error(
        "a path on the node begins with / or ~/ and has at most 4095 bytes, no '.' or '..' between slashes and no \
         control characters"
    )]
    Path,
    /// Not an address to listen on.
    #[error("an address to listen on is an IP address and a port from 0 to 65535")]
    Listen,
    /// Not a call of rsync that is taken.
    #[error(transparent)]
    Rsync(#[from] FileCommandError),
    /// None of the forms.
    #[error(
        "an endpoint is HOST:PORT, :PORT, unix:PATH, upload:PATH, download:PATH, listen:ADDRESS:PORT, listen-unix:PATH or \
         agent"
    )]
    Form,
}

impl Endpoint {
    /// Returns the SSH server of the node itself.
    pub fn own_ssh() -> Self {
        Self::Tcp(Destination::own_ssh())
    }

    /// Returns the TCP destination, if it is one.
    pub fn tcp(&self) -> Option<&Destination> {
        match self {
            Self::Tcp(destination) => Some(destination),
            _ => None,
        }
    }

    /// Tells whether the node acts as the session's OS user to reach it.
    pub fn needs_user(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Upload(_) | Self::Download(_) | Self::ListenUnix(_) | Self::Agent => true,
            Self::Files(_) | Self::Rsync(_) => true,
            Self::Tcp(_) | Self::Listen(_) => false,
        }
    }

    /// Tells whether the node listens there, and connections come from it.
    pub fn listens(&self) -> bool {
        matches!(self, Self::Listen(_) | Self::ListenUnix(_) | Self::Agent)
    }

    /// Appends the endpoint to what is signed or sent between the halves of an agent.
    pub fn put<'w>(&self, out: &'w mut FieldWriter) -> &'w mut FieldWriter {
        match self {
            Self::Tcp(to) => to.put(out.u8(1)),
            Self::Unix(path) => out.u8(2).text(path.as_str()),
            Self::Upload(path) => out.u8(3).text(path.as_str()),
            Self::Download(path) => out.u8(4).text(path.as_str()),
            Self::Listen(at) => out.u8(5).text(&at.0.to_string()),
            Self::ListenUnix(path) => out.u8(8).text(path.as_str()),
            Self::Agent => out.u8(9),
            Self::Files(access) => out.u8(6).text(access.as_str()),
            Self::Rsync(call) => out.u8(7).text(&call.to_string()),
        }
    }

    /// Reads what [`Self::put`] wrote, and nothing else: one encoding per value.
    pub fn get(fields: &mut FieldReader<'_>) -> Result<Self, FieldError> {
        let path = |fields: &mut FieldReader<'_>| {
            let text = fields.text(MAX_PATH_BYTES)?;
            NodePath::new(text).ok().filter(|path| path.as_str() == text).ok_or(FieldError::Unknown)
        };
        match fields.u8()? {
            1 => Destination::get(fields).map(Self::Tcp),
            2 => path(fields).map(Self::Unix),
            3 => path(fields).map(Self::Upload),
            4 => path(fields).map(Self::Download),
            5 => {
                let text = fields.text(64)?;
                let at = text.parse::<SocketAddr>().ok().filter(|at| at.to_string() == text);
                at.map(|at| Self::Listen(ListenAddress(at))).ok_or(FieldError::Unknown)
            }
            8 => path(fields).map(Self::ListenUnix),
            9 => Ok(Self::Agent),
            6 => FileAccess::parse(fields.text(16)?).map(Self::Files).ok_or(FieldError::Unknown),
            7 => {
                let text = fields.text(MAX_RSYNC_BYTES)?;
                let call = text.parse::<RsyncCall>().ok().filter(|call| call.to_string() == text);
                call.map(|call| Self::Rsync(Box::new(call))).ok_or(FieldError::Unknown)
            }
            _ => Err(FieldError::Unknown),
        }
    }
}

/// Appends a list of endpoints behind its count.
pub fn put_endpoints<'w>(endpoints: &[Endpoint], out: &'w mut FieldWriter) -> &'w mut FieldWriter {
    out.u64(endpoints.len() as u64);
    for endpoint in endpoints {
        endpoint.put(out);
    }
    out
}

/// Reads at most [`MAX_ENDPOINTS`] that [`put_endpoints`] wrote.
pub fn get_endpoints(fields: &mut FieldReader<'_>) -> Result<Vec<Endpoint>, FieldError> {
    let count = usize::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?;
    if count > MAX_ENDPOINTS {
        return Err(FieldError::Unknown);
    }
    (0..count).map(|_| Endpoint::get(fields)).collect()
}

/// As people write and read it; [`Destination`] shows the node itself as `localhost`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(to) => to.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Upload(path) => write!(f, "upload:{path}"),
            Self::Download(path) => write!(f, "download:{path}"),
            Self::Listen(at) => write!(f, "listen:{at}"),
            Self::ListenUnix(path) => write!(f, "listen-unix:{path}"),
            Self::Agent => f.write_str(AGENT),
            Self::Files(access) => write!(f, "files:{}", access.as_str()),
            Self::Rsync(call) => write!(f, "rsync:{call}"),
        }
    }
}

/// As it is stored and stands in the API: as shown, but `:PORT` is a port of the node itself, which is not the same as
/// asking for its loopback by name.
impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        match &endpoint {
            Endpoint::Tcp(to) if to.is_node() => format!(":{}", to.port()),
            other => other.to_string(),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(EndpointError::Form);
        }
        // A host of these names has a port behind it, and no path begins with a digit.
        let path = |kind: &str| text.strip_prefix(kind).filter(|rest| rest.starts_with(['/', '~']));
        if let Some(rest) = path("unix:") {
            return NodePath::new(rest).map(Self::Unix);
        }
        if let Some(rest) = path("upload:") {
            return NodePath::new(rest).map(Self::Upload);
        }
        if let Some(rest) = path("download:") {
            return NodePath::new(rest).map(Self::Download);
        }
        if let Some(rest) = path("listen-unix:") {
            return NodePath::new(rest).map(Self::ListenUnix);
        }
        if text == AGENT {
            return Ok(Self::Agent);
        }
        if let Some(at) = text.strip_prefix("listen:").and_then(|rest| rest.parse::<SocketAddr>().ok()) {
            return Ok(Self::Listen(ListenAddress(at)));
        }
        if let Some(access) = text.strip_prefix("files:").and_then(FileAccess::parse) {
            return Ok(Self::Files(access));
        }
        if let Some(call) = text.strip_prefix("rsync:--") {
            return Ok(Self::Rsync(Box::new(format!("--{call}").parse()?)));
        }
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Form)?;
        let port = port.parse().map_err(|_| DestinationError::Port)?;
        let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match inside {
            Some(address) if address.contains(':') => Ok(Self::Tcp(Destination::new(address, port)?)),
            Some(_) => Err(DestinationError::Host.into()),
            // Without brackets nobody can tell the address from the port.
            None if host.contains(':') => Err(EndpointError::Form),
            None => Ok(Self::Tcp(Destination::new(host, port)?)),
        }
    }
}

/// A path on a node: absolute, or below the home of the session's OS user (`~`, `~/…`). It has no `.` and `..`, no
/// doubled and no final slash, so that a policy's pattern means what it says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePath(String);

impl NodePath {
    /// Takes a path; doubled and final slashes are left out.
    pub fn new(path: &str) -> Result<Self, EndpointError> {
        if path.len() > MAX_PATH_BYTES || path.chars().any(char::is_control) {
            return Err(EndpointError::Path);
        }
        let (head, rest) = match path.split_at_checked(1) {
            Some(("/", rest)) => ("", rest),
            Some(("~", rest)) if rest.is_empty() || rest.starts_with('/') => ("~", rest),
            _ => return Err(EndpointError::Path),
        };
        let mut clean = head.to_owned();
        for part in rest.split('/').filter(|part| !part.is_empty()) {
            if part == "." || part == ".." {
                return Err(EndpointError::Path);
            }
            clean.push('/');
            clean.push_str(part);
        }
        if clean.is_empty() {
            clean.push('/');
        }
        Ok(Self(clean))
    }

    /// Returns the path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what follows `~`, with its slash or empty, if the path is below the OS user's home.
    pub fn below_home(&self) -> Option<&str> {
        self.0.strip_prefix('~')
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a node listens: an address of its own and a port, 0 for one that the node picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenAddress(SocketAddr);

impl ListenAddress {
    /// Builds it.
    pub const fn new(address: IpAddr, port: u16) -> Self {
        Self(SocketAddr::new(address, port))
    }

    /// Returns address and port.
    pub const fn socket(self) -> SocketAddr {
        self.0
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<&Endpoint> for EndpointWish {
    fn from(endpoint: &Endpoint) -> Self {
        use endpoint_wish::Kind;
        let kind = match endpoint {
            Endpoint::Tcp(to) => Kind::Tcp(PortWish { host: to.host().to_owned(), port: to.port().into() }),
            Endpoint::Unix(path) => Kind::Unix(path.0.clone()),
            Endpoint::Upload(path) => Kind::Upload(path.0.clone()),
            Endpoint::Download(path) => Kind::Download(path.0.clone()),
            Endpoint::Listen(at) => {
                Kind::Listen(ListenWish { address: at.0.ip().to_string(), port: at.0.port().into() })
            }
            Endpoint::ListenUnix(path) => Kind::ListenUnix(path.0.clone()),
            Endpoint::Agent => Kind::Agent(true),
            Endpoint::Files(access) => Kind::Files(access.as_str().to_owned()),
            Endpoint::Rsync(call) => Kind::Rsync(call.to_string()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<&EndpointWish> for Endpoint {
    type Error = EndpointError;

    fn try_from(wish: &EndpointWish) -> Result<Self, EndpointError> {
        use endpoint_wish::Kind;
        match wish.kind.as_ref().ok_or(EndpointError::Form)? {
            Kind::Tcp(to) => {
                let port = u16::try_from(to.port).map_err(|_| DestinationError::Port)?;
                Ok(Self::Tcp(Destination::new(&to.host, port)?))
            }
            Kind::Unix(path) => NodePath::new(path).map(Self::Unix),
            Kind::Upload(path) => NodePath::new(path).map(Self::Upload),
            Kind::Download(path) => NodePath::new(path).map(Self::Download),
            Kind::Listen(at) => {
                let address = at.address.parse().map_err(|_| EndpointError::Listen)?;
                let port = u16::try_from(at.port).map_err(|_| EndpointError::Listen)?;
                Ok(Self::Listen(ListenAddress::new(address, port)))
            }
            Kind::ListenUnix(path) => NodePath::new(path).map(Self::ListenUnix),
            Kind::Agent(true) => Ok(Self::Agent),
            Kind::Agent(false) => Err(EndpointError::Form),
            Kind::Files(access) => FileAccess::parse(access).map(Self::Files).ok_or(EndpointError::Form),
            Kind::Rsync(call) if call.len() > MAX_RSYNC_BYTES => Err(EndpointError::Form),
            Kind::Rsync(call) => Ok(Self::Rsync(Box::new(call.parse()?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 16] = [
        ":5432",
        "localhost:22",
        "db.internal:5432",
        "10.0.0.7:80",
        "[fd00::7]:443",
        "unix:/run/docker.sock",
        "unix:5432",
        "upload:/srv/in",
        "download:~",
        "download:~/logs/한글 1.txt",
        "listen:127.0.0.1:0",
        "listen:[::1]:8080",
        "listen-unix:~/run/app.sock",
        "agent",
        "files:both",
        "rsync:--server --sender '-logDtpre.iLsfxCIvu' . /srv/a\\ b ~/*.log",
    ];

    #[test]
    fn each_form_round_trips_through_text_wire_and_signed_fields() {
        for text in TEXTS {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(String::from(endpoint.clone()), text);
            assert_eq!(Endpoint::try_from(&EndpointWish::from(&endpoint)), Ok(endpoint.clone()));
            let mut out = FieldWriter::default();
            endpoint.put(&mut out);
            let bytes = out.finish();
            let mut fields = FieldReader::new(&bytes, b"").unwrap();
            assert_eq!(Endpoint::get(&mut fields), Ok(endpoint.clone()));
            fields.end().unwrap();
            assert_eq!(serde_json::to_value(&endpoint).unwrap(), text);
        }
        assert_eq!("[FD00::7]:443".parse::<Endpoint>().unwrap().to_string(), "[fd00::7]:443");
        assert_eq!(":22".parse::<Endpoint>().unwrap().to_string(), "localhost:22");
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let long = format!("unix:/{}", "a".repeat(MAX_PATH_BYTES));
        for bad in [
            "",
            "x",
            ":0",
            "db:",
            "db:65536",
            "db:x",
            "::1:22",
            "[db]:22",
            "a b:22",
            "unix:",
            "unix:run/x",
            "unix:~x/y",
            "upload:/a/../b",
            "upload:/./b",
            "download:/a\nb",
            "listen:127.0.0.1",
            "listen:127.0.0.1:65536",
            "files:all",
            "rsync:--server --daemon . /",
            &long,
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
        assert_eq!(Endpoint::try_from(&EndpointWish { kind: None }), Err(EndpointError::Form));
    }

    #[test]
    fn a_path_has_one_form() {
        for (given, clean) in [("/", "/"), ("//", "/"), ("/srv//in/", "/srv/in"), ("~/", "~"), ("~//a", "~/a")] {
            assert_eq!(NodePath::new(given).unwrap().as_str(), clean);
        }
        // What was signed is read only in that form.
        let mut out = FieldWriter::default();
        out.u8(2).text("/srv//in");
        let bytes = out.finish();
        let mut fields = FieldReader::new(&bytes, b"").unwrap();
        assert_eq!(Endpoint::get(&mut fields), Err(FieldError::Unknown));
    }

    #[test]
    fn a_list_is_bounded_before_it_is_read() {
        let one: Endpoint = ":22".parse().unwrap();
        for (count, good) in [(0, true), (MAX_ENDPOINTS, true), (MAX_ENDPOINTS + 1, false)] {
            let mut out = FieldWriter::default();
            put_endpoints(&vec![one.clone(); count], &mut out);
            let bytes = out.finish();
            let mut fields = FieldReader::new(&bytes, b"").unwrap();
            assert_eq!(get_endpoints(&mut fields).is_ok_and(|list| list.len() == count), good, "{count}");
        }
    }
}
