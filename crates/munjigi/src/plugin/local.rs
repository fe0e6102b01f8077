//! The near end of a port session: a TCP port of this machine or a socket in the file system, and the connections that
//! programs here make to it.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use munjigi_core::wire::aws::payload::PortProperties;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

/// Address on which port sessions listen: programs of this machine alone.
const ADDRESS: &str = "127.0.0.1";

/// The writing half of a connection.
pub(crate) type Writer = Box<dyn AsyncWrite + Send + Unpin>;
/// The reading half of a connection.
pub(crate) type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Where a port session listens.
pub(crate) enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket in the file system, removed at the end.
    Unix(UnixListener, SocketFile),
}

/// Removes the socket when it is dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; then it is gone as well.
        let _ = fs::remove_file(&self.0);
    }
}

impl Listener {
    /// Listens where the properties of the session say.
    pub(crate) async fn open(properties: &PortProperties) -> anyhow::Result<Self> {
        match properties.local_unix_socket.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => Self::unix(Path::new(path)),
            None => Self::tcp(properties.local_port_number.as_deref().unwrap_or_default()).await,
        }
    }

    async fn tcp(port: &str) -> anyhow::Result<Self> {
        let number: u16 = match port {
            "" => 0,
            text => text.parse().ok().with_context(|| format!("the local port {text:?} is none from 0 to 65535"))?,
        };
        let listener = TcpListener::bind((ADDRESS, number)).await.with_context(|| {
            format!("cannot listen on {ADDRESS}:{number}; another program may, and localPortNumber=0 takes a free port")
        })?;
        Ok(Self::Tcp(listener))
    }

    fn unix(path: &Path) -> anyhow::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            bail!("{} is there already: remove it, or choose another localUnixSocket", path.display());
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let file = SocketFile(path.to_owned());
        // Whoever connects has what the session's owner was allowed.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot keep {} to its owner", path.display()))?;
        Ok(Self::Unix(listener, file))
    }

    /// Says where it listens, in the original's words.
    pub(crate) fn place(&self) -> io::Result<String> {
        Ok(match self {
            Self::Tcp(listener) => format!("Port {}", listener.local_addr()?.port()),
            Self::Unix(_, file) => format!("Unix socket {}", file.0.display()),
        })
    }

    /// Waits for the next connection. Safe to drop and call again.
    pub(crate) async fn accept(&self) -> io::Result<(Reader, Writer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let (reader, writer) = stream.into_split();
                Ok((Box::new(reader), Box::new(writer)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(port: Option<&str>, socket: Option<&str>) -> PortProperties {
        let text = |value: Option<&str>| value.map(str::to_owned);
        PortProperties { local_port_number: text(port), local_unix_socket: text(socket), ..PortProperties::default() }
    }

    #[tokio::test]
    async fn a_port_is_taken_as_it_is_given_and_a_taken_one_is_explained() {
        for port in [None, Some(""), Some("0")] {
            let listener = Listener::open(&properties(port, None)).await.unwrap();
            let place = listener.place().unwrap();
            assert!(place.starts_with("Port ") && place != "Port 0", "{place}");
            let taken = place.trim_start_matches("Port ").to_owned();
            let error = Listener::open(&properties(Some(&taken), None)).await.err().unwrap();
            assert!(error.to_string().contains("localPortNumber=0"), "{error}");
        }
        for port in ["65536", "-1", "http"] {
            assert!(Listener::open(&properties(Some(port), None)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_the_session() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db.sock");
        let text = path.to_str().unwrap();
        let listener = Listener::open(&properties(None, Some(text))).await.unwrap();
        assert_eq!(listener.place().unwrap(), format!("Unix socket {text}"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::open(&properties(None, Some(text))).await.err().unwrap().to_string().contains("already"));
        drop(listener);
        assert!(!path.exists());
    }
}
