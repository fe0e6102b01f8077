//! The way through an HTTP proxy: which one, and the CONNECT that opens it.
//!
//! Only proxies that are themselves reached by plain HTTP; what travels through is TLS to the server's pinned roots,
//! so the proxy learns the server's name and nothing else.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use url::Url;
use zeroize::Zeroizing;

use crate::error::DialError;
use crate::{MAX_HEAD_BYTES, MAX_HEADERS};

/// Which proxy to dial through.
#[derive(Debug, Clone, Default)]
pub enum ProxyChoice {
    /// None: dial the server itself.
    None,
    /// This one, `http://[user:password@]host:port`.
    Explicit(Url),
    /// What `HTTPS_PROXY` or `https_proxy` says, unless `NO_PROXY` or `no_proxy` excepts the server. This machine
    /// itself is never reached through a proxy.
    #[default]
    FromEnvironment,
}

/// A proxy to dial.
pub(crate) struct Proxy {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Value of `Proxy-Authorization`.
    authorization: Option<Zeroizing<String>>,
}

impl Proxy {
    /// Returns the proxy for a server, if any. `variable` reads the environment.
    pub(crate) fn choose(
        choice: &ProxyChoice,
        host: &str,
        port: u16,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, DialError> {
        let either = |upper: &str, lower: &str| {
            variable(upper).or_else(|| variable(lower)).filter(|value| !value.trim().is_empty())
        };
        match choice {
            ProxyChoice::None => Ok(None),
            ProxyChoice::Explicit(url) => Self::parse(url).map(Some),
            ProxyChoice::FromEnvironment => {
                let Some(value) = either("HTTPS_PROXY", "https_proxy") else { return Ok(None) };
                if either("NO_PROXY", "no_proxy").is_some_and(|list| is_excepted(&list, host, port)) || is_local(host) {
                    return Ok(None);
                }
                let value = value.trim();
                let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
                let url = Url::parse(&text).map_err(|_| DialError::BadProxy {
                    // Not shown: whatever it is, it may hold a password.
                    proxy: "HTTPS_PROXY".to_owned(),
                    why: "it is not an address",
                })?;
                Self::parse(&url).map(Some)
            }
        }
    }

    fn parse(url: &Url) -> Result<Self, DialError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let bad = |why| DialError::BadProxy { proxy: host.clone(), why };
        if url.scheme() != "http" {
            return Err(bad("only proxies spoken to by http:// are supported"));
        }
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = url.port_or_known_default().ok_or_else(|| bad("it names no port"))?;
        let authorization = if url.username().is_empty() {
            None
        } else {
            let mut plain: Zeroizing<Vec<u8>> = Zeroizing::new(percent_decode_str(url.username()).collect());
            plain.push(b':');
            plain.extend(percent_decode_str(url.password().unwrap_or_default()));
            Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(&*plain))))
        };
        Ok(Self { host, port, authorization })
    }

    /// Names the proxy, without credentials.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Asks the proxy on `io` for a connection to `server` (`host:port`).
    pub(crate) async fn connect<S>(&self, io: &mut S, server: &str) -> Result<(), DialError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let broken = |error: std::io::Error| DialError::Unreachable { peer: self.name(), why: error.to_string() };
        let mut request = Zeroizing::new(format!("CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n"));
        if let Some(authorization) = &self.authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        io.write_all(request.as_bytes()).await.map_err(broken)?;
        io.flush().await.map_err(broken)?;
        match self.read_status(io).await? {
            200..=299 => Ok(()),
            407 => Err(DialError::ProxyNeedsCredentials { proxy: self.name() }),
            status => Err(DialError::ProxyRefused { proxy: self.name(), server: server.to_owned(), status }),
        }
    }

    /// Reads the answer's head and returns its status. A refusal's body is left; the connection is of no more use.
    async fn read_status<S: AsyncRead + Unpin>(&self, io: &mut S) -> Result<u16, DialError> {
        let not_http = |why: &str| DialError::ProxyNotHttp { proxy: self.name(), why: why.to_owned() };
        let mut head = Vec::new();
        let mut space = [0; 1024];
        loop {
            let read = io.read(&mut space).await.map_err(|error| not_http(&error.to_string()))?;
            if read == 0 {
                return Err(not_http("it closed the connection"));
            }
            head.extend_from_slice(space.get(..read).unwrap_or_default());
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&head) {
                Ok(httparse::Status::Complete(length)) => {
                    let status = response.code.unwrap_or(0);
                    // The server speaks only after our first TLS bytes: nothing may be here yet.
                    if (200..=299).contains(&status) && length != head.len() {
                        return Err(not_http("it sent bytes behind its answer"));
                    }
                    return Ok(status);
                }
                Ok(httparse::Status::Partial) if head.len() < MAX_HEAD_BYTES => {}
                Ok(httparse::Status::Partial) => return Err(not_http("its answer is longer than 16 KiB")),
                Err(error) => return Err(not_http(&error.to_string())),
            }
        }
    }
}

/// Says whether `NO_PROXY` excepts a server: `*`, a name (its subdomains too), an address, a network in CIDR form,
/// each but the first and the last with an optional port.
fn is_excepted(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some(address), Ok(net)) = (address, entry.parse::<IpNet>()) {
            return net.contains(&address);
        }
        if let (Some(address), Ok(entry)) = (address, entry.parse::<IpAddr>()) {
            return address == entry;
        }
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') => (name, digits.parse::<u16>().ok()),
            _ => (entry, None),
        };
        let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let matches = host == name || (address.is_none() && host.ends_with(&format!(".{name}")));
        matches && wanted.is_none_or(|wanted| wanted == port)
    })
}

fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(variables: &[(&str, &str)], host: &str) -> Option<String> {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Proxy::choose(&ProxyChoice::FromEnvironment, host, 8443, variable).unwrap().map(|proxy| proxy.name())
    }

    #[test]
    fn the_environment_chooses_the_proxy() {
        let proxy = ("HTTPS_PROXY", "http://proxy.corp:3128");
        for (variables, host, expected) in [
            (vec![], "gate.example", None),
            (vec![proxy], "gate.example", Some("proxy.corp:3128")),
            (vec![("https_proxy", "proxy.corp:3128")], "gate.example", Some("proxy.corp:3128")),
            (vec![("HTTPS_PROXY", " ")], "gate.example", None),
            (vec![proxy], "localhost", None),
            (vec![proxy], "127.0.0.9", None),
            (vec![proxy], "[::1]", None),
            (vec![proxy, ("NO_PROXY", "*")], "gate.example", None),
            (vec![proxy, ("no_proxy", "a.b, example")], "gate.example", None),
            (vec![proxy, ("NO_PROXY", ".example")], "gate.EXAMPLE", None),
            (vec![proxy, ("NO_PROXY", "*.example")], "gate.example", None),
            (vec![proxy, ("NO_PROXY", "ample")], "gate.example", Some("proxy.corp:3128")),
            (vec![proxy, ("NO_PROXY", "gate.example:8443")], "gate.example", None),
            (vec![proxy, ("NO_PROXY", "gate.example:443")], "gate.example", Some("proxy.corp:3128")),
            (vec![proxy, ("NO_PROXY", "10.0.0.0/8")], "10.2.3.4", None),
            (vec![proxy, ("NO_PROXY", "10.0.0.0/8")], "11.2.3.4", Some("proxy.corp:3128")),
            (vec![proxy, ("NO_PROXY", "fd00::1")], "[fd00::1]", None),
        ] {
            assert_eq!(chosen(&variables, host).as_deref(), expected, "{variables:?} {host}");
        }
    }

    #[test]
    fn unusable_proxies_are_refused_without_showing_their_password() {
        for text in ["https://u:secret@proxy:1", "socks5://u:secret@proxy:1"] {
            let choice = ProxyChoice::Explicit(Url::parse(text).unwrap());
            let error = Proxy::choose(&choice, "h", 1, |_| None).err().unwrap().to_string();
            assert!(error.contains("http://") && !error.contains("secret"), "{error}");
        }
        let variable = |name: &str| (name == "HTTPS_PROXY").then(|| "http://u:secret@:x".to_owned());
        let error = Proxy::choose(&ProxyChoice::FromEnvironment, "h", 1, variable).err().unwrap().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn hostile_proxy_answers_end_in_an_error() {
        let proxy = Proxy { host: "p".into(), port: 1, authorization: None };
        for (answer, word) in [
            (b"".to_vec(), "closed"),
            (b"SSH-2.0-x\r\n\r\n".to_vec(), "did not answer like"),
            (b"HTTP/1.1 200 OK\r\n\r\nextra".to_vec(), "behind its answer"),
            (b"HTTP/1.1 403 No\r\n\r\n".to_vec(), "status 403"),
            (b"HTTP/1.1 407 Who\r\n\r\n".to_vec(), "credentials"),
            ([b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 64 * 1024]].concat(), "16 KiB"),
        ] {
            let (mut here, there) = tokio::io::duplex(128 * 1024);
            let (mut reader, mut writer) = tokio::io::split(there);
            writer.write_all(&answer).await.unwrap();
            writer.shutdown().await.unwrap();
            let error = proxy.connect(&mut here, "s:2").await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            drop(here);
            let mut request = String::new();
            reader.read_to_string(&mut request).await.unwrap();
            assert_eq!(request, "CONNECT s:2 HTTP/1.1\r\nHost: s:2\r\n\r\n");
        }
    }
}
