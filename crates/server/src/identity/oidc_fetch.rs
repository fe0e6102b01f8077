//! Fetches an OpenID Connect provider's keys: over TLS, from the provider's own host, within limits, and kept for a while.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use munjigi_core::jwt::Jwks;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;

/// Longest wait for both documents of a provider.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest document, bytes.
const MAX_DOCUMENT: usize = 256 * 1024;
/// How long keys are kept.
const KEEP: Duration = Duration::from_secs(3600);
/// A provider is asked at most this often, whatever tokens come: unknown key ids and failures do not drive it (T-15).
const NOT_BEFORE: Duration = Duration::from_secs(10);
/// Most bytes of root certificates.
const MAX_ROOTS: u64 = 4 * 1024 * 1024;
/// Where systems keep the roots they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The keys of providers.
pub(crate) struct Providers {
    tls: Arc<rustls::ClientConfig>,
    /// One entry a provider, which is registered; whoever fetches holds its lock, others wait for the result.
    known: Mutex<HashMap<Box<str>, Arc<tokio::sync::Mutex<Entry>>>>,
}

#[derive(Default)]
struct Entry {
    keys: Option<Arc<Jwks>>,
    fetched: Option<Instant>,
    asked: Option<Instant>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Providers {
    /// Trusts the system's roots and those of the operator's file.
    pub(crate) fn new(extra_roots: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        if let Some(system) = SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()) {
            // A broken root of the system's is passed over, as everywhere.
            let _ = add_roots(&mut roots, system);
        }
        if let Some(path) = extra_roots {
            let added = add_roots(&mut roots, path).with_context(|| {
                format!("the root certificates of oidc_ca_file ({}) cannot be read", path.display())
            })?;
            if added == 0 {
                bail!("oidc_ca_file ({}) holds no certificate", path.display());
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("TLS cannot be set up")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), known: Mutex::default() })
    }

    /// Returns the keys of a registered provider. `anew` asks it again, if that is not too soon.
    pub(crate) async fn keys(&self, issuer: &str, anew: bool) -> anyhow::Result<Arc<Jwks>> {
        let entry = crate::lock(&self.known).entry(issuer.into()).or_default().clone();
        let mut entry = entry.lock().await;
        let fresh = entry.fetched.is_some_and(|at| at.elapsed() < KEEP);
        let may_ask = entry.asked.is_none_or(|at| at.elapsed() >= NOT_BEFORE);
        match &entry.keys {
            Some(keys) if (fresh && !anew) || !may_ask => return Ok(keys.clone()),
            None if !may_ask => bail!("the provider did not answer a moment ago"),
            _ => {}
        }
        entry.asked = Some(Instant::now());
        let fetched = tokio::time::timeout(FETCH_TIMEOUT, self.fetch(issuer)).await;
        let keys = Arc::new(fetched.context("the provider did not answer in time")??);
        entry.keys = Some(keys.clone());
        entry.fetched = Some(Instant::now());
        Ok(keys)
    }

    async fn fetch(&self, issuer: &str) -> anyhow::Result<Jwks> {
        let discovery = self.get(&format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).await?;
        let discovery: Discovery = serde_json::from_slice(&discovery).context("the provider's metadata is no JSON")?;
        if discovery.issuer != issuer {
            bail!("the provider's metadata names another issuer");
        }
        // T-43: whoever controls the metadata does not send us anywhere else.
        if authority(&discovery.jwks_uri) != authority(issuer) {
            bail!("the provider's keys are not on the provider's host");
        }
        let keys = self.get(&discovery.jwks_uri).await?;
        Jwks::parse(&keys).context("the provider's keys are no key set")
    }

    async fn get(&self, url: &str) -> anyhow::Result<Bytes> {
        let authority = authority(url).context("the URL is not https")?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
                (host, port.parse().context("the URL has no such port")?)
            }
            _ => (authority, 443_u16),
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let path = url.get("https://".len() + authority.len()..).filter(|path| path.starts_with('/')).unwrap_or("/");
        let name = ServerName::try_from(bare.to_owned()).context("the URL's host is no name")?;
        let socket = TcpStream::connect((bare, port)).await.context("the provider cannot be reached")?;
        let stream = tokio_rustls::TlsConnector::from(self.tls.clone())
            .connect(name, socket)
            .await
            .context("the provider's certificate is not trusted, or it speaks no TLS")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(http::header::HOST, authority)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::USER_AGENT, concat!("munjigi/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await;
        let body = match answer {
            // Redirections are not followed.
            Ok(answer) if answer.status().is_success() => {
                Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await.map(|body| body.to_bytes())
            }
            Ok(answer) => Err(format!("the provider answered {}", answer.status()).into()),
            Err(cause) => Err(cause.into()),
        };
        connection.abort();
        body.map_err(|cause| anyhow::anyhow!("{cause}"))
    }
}

/// Returns host and port of an https URL.
fn authority(url: &str) -> Option<&str> {
    url.strip_prefix("https://")?.split(['/', '?', '#']).next().filter(|part| !part.is_empty() && !part.contains('@'))
}

fn add_roots(roots: &mut rustls::RootCertStore, path: &Path) -> anyhow::Result<usize> {
    if std::fs::metadata(path)?.len() > MAX_ROOTS {
        bail!("it has more than {MAX_ROOTS} bytes");
    }
    let pem = std::fs::read(path)?;
    let mut added = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        if roots.add(certificate.context("it holds something that is no certificate")?).is_ok() {
            added += 1;
        }
    }
    Ok(added)
}
