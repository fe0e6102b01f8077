//! Where the server is and as whom to speak to it: links of a client, and signed calls on kept-alive connections.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use munjigi_core::sigv4::{self, Credentials, SecretKey};
use munjigi_core::time::Timestamp;
use munjigi_core::wire::hello::{Hello, Role, VERSION_MAX, VERSION_MIN};
use munjigi_link::dial::{DialOptions, Dialed, SignError, SignedHeaders, UpgradeToSign, dial, tls_connect};
use munjigi_link::tls::PinnedRoots;
use munjigi_link::{BINDING_HEADER, HELLO_HEADER};
use serde_json::Value;
use url::{Position, Url};

use super::Result;

/// What the probe calls itself.
pub(super) const SOFTWARE: &str = "munjigi-probe/1";
/// The region that a server without settings has.
const REGION: &str = "local-1";
/// Largest answer of a call, bytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// A server's data directory, read.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) endpoint: Url,
    pub(super) roots: PinnedRoots,
    credentials: Credentials,
}

impl Place {
    pub(super) fn read(data_dir: &Path) -> Result<Self> {
        let endpoint = std::fs::read_to_string(data_dir.join("endpoint"))?;
        let roots = PinnedRoots::from_pem(&std::fs::read(data_dir.join("ca.pem"))?)?;
        let file = std::fs::read_to_string(data_dir.join("admin.credentials"))?;
        let value = |wanted: &str| {
            let mut pairs = file.lines().filter_map(|line| line.split_once('='));
            let found = pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim().to_owned());
            found.ok_or_else(|| format!("admin.credentials has no {wanted}"))
        };
        let credentials = Credentials {
            access_key_id: value("aws_access_key_id")?,
            secret: SecretKey::new(value("aws_secret_access_key")?),
            session_token: None,
        };
        Ok(Self { endpoint: endpoint.trim().parse()?, roots, credentials })
    }

    /// Dials a link as the administrator and waits until it stands.
    pub(super) async fn link(&self) -> Result<Dialed> {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            software: SOFTWARE.to_owned(),
            role: Role::Client.into(),
            node: None,
        };
        let options = DialOptions::new(self.endpoint.clone(), self.roots.clone());
        let mut dialed = dial(&options, &hello, |request| std::future::ready(self.sign_link(&request))).await?;
        dialed.established().await?;
        Ok(dialed)
    }

    fn sign_link(&self, request: &UpgradeToSign) -> std::result::Result<SignedHeaders, SignError> {
        let headers: [(&str, &[u8]); 3] = [
            ("host", request.host.as_bytes()),
            (BINDING_HEADER, request.binding_header.as_bytes()),
            (HELLO_HEADER, request.hello.as_bytes()),
        ];
        let to_sign = sigv4::Request { method: request.method, target: request.path, headers: &headers, body: &[] };
        let signed = sigv4::sign(&to_sign, &self.credentials, REGION, "munjigi", now())?;
        Ok(signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// One kept-alive HTTPS connection to the API.
pub(super) struct Api {
    place: Place,
    sender: SendRequest<Full<Bytes>>,
}

impl Api {
    pub(super) async fn connect(place: &Place) -> Result<Self> {
        let stream = tls_connect(&DialOptions::new(place.endpoint.clone(), place.roots.clone())).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Ends with the sender; its error reaches the caller of the next request.
        tokio::spawn(connection);
        Ok(Self { place: place.clone(), sender })
    }

    /// Calls an operation such as `AmazonSSM.GetConnectionStatus`; `signed` says whether as the administrator.
    pub(super) async fn call(&mut self, operation: &str, input: &Value, signed: bool) -> Result<Value> {
        let body = Bytes::from(serde_json::to_vec(input)?);
        let host = &self.place.endpoint[Position::BeforeHost..Position::AfterPort];
        let headers: [(&str, &[u8]); 3] = [
            ("host", host.as_bytes()),
            ("content-type", b"application/x-amz-json-1.1"),
            ("x-amz-target", operation.as_bytes()),
        ];
        let mut request = http::Request::post("/").header("user-agent", SOFTWARE);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if signed {
            let service = if operation.starts_with("AmazonSSM.") { "ssm" } else { "munjigi" };
            let to_sign = sigv4::Request { method: "POST", target: "/", headers: &headers, body: &body };
            for (name, value) in sigv4::sign(&to_sign, &self.place.credentials, REGION, service, now())? {
                request = request.header(name, value);
            }
        }
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::new(body))?).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER).collect().await?.to_bytes();
        if !status.is_success() {
            return Err(format!("{operation}: {status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        Ok(if answer.is_empty() { Value::Null } else { serde_json::from_slice(&answer)? })
    }
}

/// Reads the wall clock; signatures carry it.
fn now() -> Timestamp {
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_micros()).unwrap_or_default();
    Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
}
