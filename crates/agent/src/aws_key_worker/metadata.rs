//! The metadata service of an EC2 instance, version 2: a token first, then plain requests, each short in time and answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use munjigi_core::instance_connect::Distrust;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::clock;

/// For one request, as AWS's own program has it.
const REQUEST: Duration = Duration::from_secs(1);
/// For all of them: sshd's helper waits for no more than five seconds in all.
const ALL: Duration = Duration::from_millis(3500);
/// How long the token lives, in seconds; longer than all requests take.
const TOKEN_LIFE: &str = "5";
/// Longest token in bytes; the known ones have 56.
const MAX_TOKEN: usize = 1024;

/// A metadata service that has given us a token.
pub(super) struct Metadata {
    address: SocketAddr,
    token: HeaderValue,
    until: Instant,
}

impl Metadata {
    /// Fetches a token.
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Distrust> {
        let until = clock::monotonic() + ALL;
        let request = Request::put("/latest/api/token").header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_LIFE);
        let (status, token) = exchange(address, request, MAX_TOKEN, until).await?;
        let mut token = HeaderValue::from_bytes(&token).map_err(|_| Distrust::NoMetadata)?;
        token.set_sensitive(true);
        match status {
            StatusCode::OK => Ok(Self { address, token, until }),
            _ => Err(Distrust::NoMetadata),
        }
    }

    /// Fetches what is at a path; `None` if there is nothing, which is no error.
    pub(super) async fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, Distrust> {
        match self.request(Method::GET, path, limit).await? {
            (StatusCode::OK, body) => Ok(Some(body.to_vec())),
            (StatusCode::NOT_FOUND, _) => Ok(None),
            _ => Err(Distrust::NoMetadata),
        }
    }

    /// Fetches a word, which has to be there.
    pub(super) async fn word(&self, path: &str, limit: usize) -> Result<String, Distrust> {
        let word = self.get(path, limit).await?.ok_or(Distrust::NoMetadata)?;
        String::from_utf8(word).map(|word| word.trim_end().to_owned()).map_err(|_| Distrust::NoMetadata)
    }

    /// Tells whether there is something at a path, without fetching it.
    pub(super) async fn has(&self, path: &str) -> Result<bool, Distrust> {
        match self.request(Method::HEAD, path, 0).await?.0 {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(Distrust::NoMetadata),
        }
    }

    async fn request(&self, method: Method, path: &str, limit: usize) -> Result<(StatusCode, Bytes), Distrust> {
        let request = Request::builder().method(method).uri(format!("/latest/meta-data/{path}"));
        exchange(self.address, request.header("x-aws-ec2-metadata-token", &self.token), limit, self.until).await
    }
}

/// Makes one request over a connection of its own; neither proxies nor redirects are followed.
async fn exchange(
    address: SocketAddr,
    request: http::request::Builder,
    limit: usize,
    until: Instant,
) -> Result<(StatusCode, Bytes), Distrust> {
    let left = until.saturating_duration_since(clock::monotonic());
    let request = request
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(|_| Distrust::NoMetadata)?;
    let exchanged = timeout(REQUEST.min(left), async {
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = Limited::new(response.into_body(), limit).collect().await;
        driver.abort();
        match (status, body) {
            (StatusCode::OK, body) => Some((status, body.ok()?.to_bytes())),
            // What an error page says is of no use, however long it is.
            (status, _) => Some((status, Bytes::new())),
        }
    });
    exchanged.await.map_err(|_| Distrust::TooSlow)?.ok_or(Distrust::NoMetadata)
}
