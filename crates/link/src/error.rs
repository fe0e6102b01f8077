//! What can go wrong with a link, named by situation, with words that tell people what to do next.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    /// This side closed it.
    #[error("this side closed the link")]
    ClosedHere,
    /// The other side closed it in good order.
    #[error("the other side closed the link")]
    ClosedByPeer,
    /// The connection broke without a goodbye.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Nothing was heard and pings stayed unanswered.
    #[error("the other side has been silent for {} s although it was asked twice", .0.as_secs_f32())]
    PeerSilent(Duration),
    /// The other side broke the rules of WebSocket or of the multiplexer.
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
    /// The server answered the upgrade with something other than 101.
    #[error("{0}")]
    Refused(Refusal),
    /// The server did not answer the upgrade in time.
    #[error("the server did not answer the link request within {} s", .0.as_secs_f32())]
    NoAnswer(Duration),
    /// A defect in this program ended the connection's task.
    #[error("an internal error ended the link; this is a defect, please report it")]
    Internal,
}

/// The server's answer when it does not accept a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server refused the link with status {status}: {}", describe(.code, .message))]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// `__type` of the answer's JSON body; empty if there was none.
    pub code: String,
    /// `message` of the answer's JSON body, or the beginning of another body.
    pub message: String,
}

fn describe(code: &str, message: &str) -> String {
    match (code.is_empty(), message.is_empty()) {
        (true, true) => "it gave no reason".to_owned(),
        (true, false) => message.to_owned(),
        (false, true) => code.to_owned(),
        (false, false) => format!("{message} ({code})"),
    }
}

/// Why an operation on a link or one of its streams failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link has ended, and why.
    #[error("the link has ended: {0}")]
    Ended(EndReason),
    /// This side has as many streams open as its limit allows; close one first.
    #[error("{limit} streams are open on this link, which is its limit; close one first")]
    TooManyStreams {
        /// The limit.
        limit: usize,
    },
    /// The other side dropped the stream without closing it, or refused it.
    #[error("the other side reset the stream")]
    StreamReset,
}

impl From<LinkError> for io::Error {
    fn from(error: LinkError) -> Self {
        let kind = match &error {
            LinkError::Ended(EndReason::ClosedHere) => io::ErrorKind::NotConnected,
            LinkError::Ended(EndReason::PeerSilent(_) | EndReason::NoAnswer(_)) => io::ErrorKind::TimedOut,
            LinkError::Ended(EndReason::Refused(_)) => io::ErrorKind::PermissionDenied,
            LinkError::Ended(_) => io::ErrorKind::ConnectionAborted,
            LinkError::TooManyStreams { .. } => io::ErrorKind::QuotaExceeded,
            LinkError::StreamReset => io::ErrorKind::ConnectionReset,
        };
        io::Error::new(kind, error)
    }
}

impl LinkError {
    /// Finds the link's error behind an error of a stream operation.
    pub fn of(error: &io::Error) -> Option<&LinkError> {
        error.get_ref()?.downcast_ref()
    }
}

/// Why dialling failed. Each message says what happened and what to try.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// The URL cannot be dialled.
    #[error("`{url}` cannot be dialled: {why}; the server's address looks like https://gate.example.com:8443")]
    BadUrl {
        /// The URL as given, without credentials.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The pinned roots are unusable.
    #[error("the pinned root certificates are unusable: {why}; give the server's ca.pem")]
    BadRoots {
        /// What is wrong with them.
        why: String,
    },
    /// The name has no address.
    #[error("the name `{host}` could not be resolved: {why}; check the spelling and this machine's DNS")]
    NameNotResolved {
        /// The host name.
        host: String,
        /// The resolver's words.
        why: String,
    },
    /// Nothing listens there.
    #[error("{peer} refused the connection; is the server running and is this its port?")]
    ConnectionRefused {
        /// Host and port of the server or proxy.
        peer: String,
    },
    /// A step took too long.
    #[error("{step} {peer} took longer than {} s; a firewall may drop the packets", .limit.as_secs_f32())]
    TimedOut {
        /// What was being done, e.g. "connecting to".
        step: &'static str,
        /// Host and port.
        peer: String,
        /// The limit that was exceeded.
        limit: Duration,
    },
    /// Another network error.
    #[error("no connection to {peer}: {why}")]
    Unreachable {
        /// Host and port.
        peer: String,
        /// The system's words.
        why: String,
    },
    /// The proxy's address is unusable.
    #[error(
        "the proxy `{proxy}` cannot be used: {why}; a proxy looks like http://user:password@proxy.example.com:3128"
    )]
    BadProxy {
        /// The proxy's address without credentials.
        proxy: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The proxy wants credentials, or others.
    #[error(
        "the proxy {proxy} wants credentials (status 407): put them into its address, http://user:password@{proxy}"
    )]
    ProxyNeedsCredentials {
        /// Host and port of the proxy.
        proxy: String,
    },
    /// The proxy will not connect to the server.
    #[error("the proxy {proxy} refused to connect to {server} with status {status}; ask who runs it to allow that")]
    ProxyRefused {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        server: String,
        /// The proxy's HTTP status.
        status: u16,
    },
    /// What the proxy said is not an answer to CONNECT.
    #[error("the proxy {proxy} did not answer like an HTTP proxy: {why}")]
    ProxyNotHttp {
        /// Host and port of the proxy.
        proxy: String,
        /// What was wrong.
        why: String,
    },
    /// The other side does not speak TLS.
    #[error("{peer} does not speak TLS; is this the server's port, and is nothing in between?")]
    NotTls {
        /// Host and port.
        peer: String,
    },
    /// The other side speaks no TLS 1.3.
    #[error("{peer} does not offer TLS 1.3, which the link requires; something in between may end the TLS")]
    TlsVersion {
        /// Host and port.
        peer: String,
    },
    /// The certificate's chain does not lead to a pinned root.
    #[error(
        "the certificate of {peer} is not signed by the pinned root; use the ca.pem of this server, and ask whether \
         something in between opens TLS"
    )]
    CertificateNotTrusted {
        /// Host and port.
        peer: String,
    },
    /// The certificate's time is over, or this machine's clock is wrong.
    #[error("the certificate of {peer} has expired, or this machine's clock is wrong; check the date first")]
    CertificateExpired {
        /// Host and port.
        peer: String,
    },
    /// The certificate's time has not begun, or this machine's clock is wrong.
    #[error("the certificate of {peer} is not valid yet: this machine's clock is probably wrong; check the date")]
    CertificateNotYetValid {
        /// Host and port.
        peer: String,
    },
    /// The certificate is for other names.
    #[error("the certificate of {peer} is for another name; dial the server by a name in its certificate")]
    CertificateWrongName {
        /// Host and port.
        peer: String,
    },
    /// Another failure of the TLS handshake.
    #[error("the TLS handshake with {peer} failed: {why}")]
    Tls {
        /// Host and port.
        peer: String,
        /// The library's words.
        why: String,
    },
    /// The request could not be signed.
    #[error("the link request could not be signed: {0}")]
    Sign(Arc<dyn std::error::Error + Send + Sync>),
    /// The caller's headers or hello do not fit the request.
    #[error("the link request cannot be made: {0}")]
    BadRequest(String),
    /// The server refused; `code` and `message` are its own.
    #[error("{0}")]
    Refused(Refusal),
    /// The connection ended before the server's answer.
    #[error("the link ended before the server answered: {0}")]
    Ended(EndReason),
}

impl From<EndReason> for DialError {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::Refused(refusal) => Self::Refused(refusal),
            other => Self::Ended(other),
        }
    }
}
