//! Where programs of this machine connect to: a TCP port or a socket in the file system.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::net::{TcpListener, UnixListener};

use super::Near;

/// Listens on this machine.
#[derive(Debug)]
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
    /// Listens on a port; 0 takes a free one.
    pub(crate) async fn tcp(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::Tcp(TcpListener::bind(address).await?))
    }

    /// Listens on a new socket that only its owner can connect to.
    pub(crate) fn unix(path: &Path) -> anyhow::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            bail!("{} is there already: remove it, or choose another path", path.display());
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let file = SocketFile(path.to_owned());
        // Whoever connects has what the session's owner was allowed.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("cannot keep {} to its owner", path.display()))?;
        Ok(Self::Unix(listener, file))
    }

    /// Returns the address of a port.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Returns the path of a socket.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, file) => Some(&file.0),
        }
    }

    /// Waits for the next connection. Safe to drop and call again.
    pub(crate) async fn accept(&self) -> io::Result<Near> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Near::Tcp(stream))
            }
            Self::Unix(listener, _) => Ok(Near::Unix(listener.accept().await?.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_owner_and_goes_with_the_listener() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db.sock");
        let listener = Listener::unix(&path).unwrap();
        assert_eq!(listener.path(), Some(path.as_path()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::unix(&path).unwrap_err().to_string().contains("already"));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_port_that_is_0_is_chosen_and_a_taken_one_is_an_error() {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.address().unwrap();
        assert_ne!(address.port(), 0);
        assert_eq!(Listener::tcp(address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
