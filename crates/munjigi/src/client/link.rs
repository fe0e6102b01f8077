//! The client's link to the server: dialled with a signature that is good on this TLS session only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::sigv4;
use munjigi_core::wire::hello::{Hello, Role, VERSION_MAX, VERSION_MIN};
use munjigi_link::dial::{DialOptions, Dialed, SignError, SignedHeaders, UpgradeToSign, dial};
use munjigi_link::lane::LANE_HEADER;
use munjigi_link::lane_upgrade::dial_lane;
use munjigi_link::moving::in_turn;
use munjigi_link::tls::PinnedRoots;
use munjigi_link::{BINDING_HEADER, DialError, HELLO_HEADER, LaneDialer, LaneToken};
use url::Url;

use super::api::USER_AGENT;
use super::clock;
use super::context::Context;
use super::credentials::read_bounded;

/// Name of our service in the signature's scope.
const SIGNING_NAME: &str = "munjigi";
/// A ping is sent after this much silence, and each of two may stay unanswered for [`PING_ANSWER`]: a dead link is
/// noticed after 7 s, and the person told within 10 s.
const PING_INTERVAL: Duration = Duration::from_secs(3);
/// See [`PING_INTERVAL`].
const PING_ANSWER: Duration = Duration::from_secs(2);
/// Where systems keep the roots they trust; used when no root is pinned.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Makes the options with which this context's server is dialled.
pub(crate) fn dial_options(context: &Context) -> anyhow::Result<DialOptions> {
    let file = match &context.ca_file {
        Some(file) => file.as_path(),
        None => SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()).context(
            "no root certificate is known for the server: set AWS_CA_BUNDLE to its ca.pem, or use --data-dir",
        )?,
    };
    let pem = read_bounded(file).context("cannot read the server's root certificate")?;
    let roots = PinnedRoots::from_pem(pem.as_bytes()).with_context(|| format!("cannot use {}", file.display()))?;
    Ok(options_for(&context.endpoint, roots))
}

/// Makes the options for a server whose certificate leads to one of these roots.
pub(crate) fn options_for(endpoint: &Url, roots: PinnedRoots) -> DialOptions {
    let mut options = DialOptions::new(endpoint.clone(), roots);
    options.limits.ping_interval = PING_INTERVAL;
    options.limits.ping_answer = PING_ANSWER;
    options
}

/// Dials the server as the context's principal. Returns before the server has answered.
pub(crate) async fn connect(context: &Context, options: &DialOptions) -> Result<Dialed, DialError> {
    dial(options, &hello(), |request| std::future::ready(sign(context, &request))).await
}

fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        software: USER_AGENT.to_owned(),
        role: Role::Client.into(),
        node: None,
    }
}

/// Makes what dials lanes for streams of this context's links.
pub(crate) fn lanes(context: Arc<Context>, options: DialOptions) -> LaneDialer {
    in_turn(Arc::new(move |token: LaneToken| {
        let (context, options) = (Arc::clone(&context), options.clone());
        Box::pin(async move {
            dial_lane(&options, &hello(), &token, |request| std::future::ready(sign(&context, &request))).await
        })
    }))
}

fn sign(context: &Context, request: &UpgradeToSign) -> Result<SignedHeaders, SignError> {
    let mut headers: Vec<(&str, &[u8])> = vec![
        ("host", request.host.as_bytes()),
        (BINDING_HEADER, request.binding_header.as_bytes()),
        (HELLO_HEADER, request.hello.as_bytes()),
    ];
    if let Some(lane) = &request.lane {
        headers.push((LANE_HEADER, lane.as_bytes()));
    }
    let to_sign = sigv4::Request { method: request.method, target: request.path, headers: &headers, body: &[] };
    let signed = sigv4::sign(&to_sign, &context.credentials, &context.region, SIGNING_NAME, clock::now())?;
    Ok(signed.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Returns the `Host` header for a URL: with the port unless it is the scheme's own.
pub(crate) fn host_header(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_header_carries_an_unusual_port() {
        for (url, host) in [
            ("https://gate.example.com", "gate.example.com"),
            ("https://gate.example.com:443/", "gate.example.com"),
            ("https://127.0.0.1:8443", "127.0.0.1:8443"),
            ("https://[::1]:8443", "[::1]:8443"),
        ] {
            assert_eq!(host_header(&Url::parse(url).unwrap()), host);
        }
    }
}
