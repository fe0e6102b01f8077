//! Which certificates the plugin's connections must lead to: as the original has it, those that this machine trusts,
//! or the ones that variables name.

use std::path::Path;

use anyhow::Context as _;
use munjigi_link::dial::DialOptions;
use munjigi_link::tls::{OldestTls, PinnedRoots};
use url::Url;

use crate::client::context::Surroundings;
use crate::client::credentials::read_bounded;

/// The roots for a data channel: the machine's, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
pub(crate) fn of_machine() -> anyhow::Result<PinnedRoots> {
    let loaded = rustls_native_certs::load_native_certs();
    PinnedRoots::from_certificates(loaded.certs).with_context(|| {
        let why = loaded.errors.first().map(ToString::to_string).unwrap_or_default();
        format!("no root certificate is known for the server; SSL_CERT_FILE names a file with some {why}")
            .trim_end()
            .to_owned()
    })
}

/// The roots for calls of the API: those of `AWS_CA_BUNDLE`, which the AWS tools heed, or the machine's.
pub(crate) fn of_calls(around: &Surroundings) -> anyhow::Result<PinnedRoots> {
    let Some(file) = around.variable("AWS_CA_BUNDLE") else { return of_machine() };
    let pem = read_bounded(Path::new(file)).context("cannot read the certificates of AWS_CA_BUNDLE")?;
    PinnedRoots::from_pem(pem.as_bytes()).with_context(|| format!("cannot use {file}"))
}

/// Makes the options for dialling a URL's host. AWS's service, and proxies that end the TLS, may be at 1.2.
pub(crate) fn dial_options(url: &Url, roots: PinnedRoots) -> anyhow::Result<DialOptions> {
    let mut options = DialOptions::new(server_of(url)?, roots);
    options.oldest_tls = OldestTls::Tls12;
    Ok(options)
}

/// Returns the URL of a URL's host and port alone; `wss` means `https` there.
pub(crate) fn server_of(url: &Url) -> anyhow::Result<Url> {
    let host = url.host_str().context("the server's URL names no host")?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Url::parse(&format!("https://{host}{port}")).context("the server's URL is not usable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_are_dialled() {
        for (url, server) in [
            ("wss://gate:8443/v1/data-channel/x?role=publish_subscribe", "https://gate:8443/"),
            ("wss://ssmmessages.eu-west-1.amazonaws.com/v1/x", "https://ssmmessages.eu-west-1.amazonaws.com/"),
            ("wss://gate:443/x", "https://gate/"),
            ("wss://[::1]:1/x", "https://[::1]:1/"),
            ("https://gate:8443/x#y", "https://gate:8443/"),
        ] {
            assert_eq!(server_of(&Url::parse(url).unwrap()).unwrap().as_str(), server);
        }
    }
}
