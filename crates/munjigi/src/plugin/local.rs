//! Where a port session listens on this machine, as its properties say, in the original's words.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use munjigi_core::wire::aws::payload::PortProperties;

use crate::client::forward::Listener;

/// Address on which port sessions listen: programs of this machine alone.
const ADDRESS: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Listens where the properties of the session say.
pub(crate) async fn listen(properties: &PortProperties) -> anyhow::Result<Listener> {
    match properties.local_unix_socket.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => Listener::unix(Path::new(path)),
        None => tcp(properties.local_port_number.as_deref().unwrap_or_default()).await,
    }
}

async fn tcp(port: &str) -> anyhow::Result<Listener> {
    let number: u16 = match port {
        "" => 0,
        text => text.parse().ok().with_context(|| format!("the local port {text:?} is none from 0 to 65535"))?,
    };
    Listener::tcp(SocketAddr::from((ADDRESS, number))).await.with_context(|| {
        format!("cannot listen on {ADDRESS}:{number}; another program may, and localPortNumber=0 takes a free port")
    })
}

/// Says where it listens, in the original's words.
pub(crate) fn place(listener: &Listener) -> String {
    match listener.path() {
        Some(path) => format!("Unix socket {}", path.display()),
        None => format!("Port {}", listener.address().map_or(0, |address| address.port())),
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
            let listener = listen(&properties(port, None)).await.unwrap();
            let place = place(&listener);
            assert!(place.starts_with("Port ") && place != "Port 0", "{place}");
            let taken = place.trim_start_matches("Port ").to_owned();
            let error = listen(&properties(Some(&taken), None)).await.unwrap_err();
            assert!(error.to_string().contains("localPortNumber=0"), "{error}");
        }
        for port in ["65536", "-1", "http"] {
            assert!(listen(&properties(Some(port), None)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_socket_is_named_in_the_originals_words() {
        let root = tempfile::tempdir().unwrap();
        let text = root.path().join("db.sock").to_str().unwrap().to_owned();
        let listener = listen(&properties(None, Some(&text))).await.unwrap();
        assert_eq!(place(&listener), format!("Unix socket {text}"));
    }
}
