//! `munjigi env`: the variables with which `aws`, boto3 and this program find the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::bail;
use clap::Args;
use url::Url;

use super::forward::kept;
use super::{Finish, print, resolve};
use crate::cli::Where;
use crate::client::context::Context;
use crate::client::forward::background::{Entry, ListeningKind};
use crate::client::text::shell_quoted;

/// Print `export` lines for aws, boto3 and other AWS programs
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  eval \"$(munjigi env)\"; aws sts get-caller-identity\n  \
    munjigi forward web-1 -D 0 --background; eval \"$(munjigi env --forward)\"; curl https://intranet/")]
pub(crate) struct Arguments {
    /// Print instead how programs use the forwards that run in the background
    #[arg(long)]
    forward: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    if arguments.forward {
        let entries = kept::directory()?.list()?;
        let text = forward_lines(&entries);
        if text.is_empty() {
            bail!("no proxy runs in the background; `munjigi forward NODE -D 0 --background` starts one");
        }
        print(&text)?;
    } else {
        print(&lines(&resolve(&arguments.place)?)?)?;
    }
    Ok(Finish::Done)
}

/// Returns the variables for proxies in the background; of several the youngest counts. The server itself is reached
/// without them.
fn forward_lines(entries: &[Entry]) -> String {
    let proxy = |entry: &Entry| {
        let proxy = entry.forwards.iter().find(|forward| forward.kind == ListeningKind::Proxy)?;
        Some((proxy.local.parse().ok()?, entry.server.clone()))
    };
    let Some((address, server)) = entries.iter().rev().find_map(proxy) else { return String::new() };
    let address = reachable(address);
    let host = Url::parse(&server).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let (socks, http) = (format!("socks5h://{address}"), format!("http://{address}"));
    // Some programs know only the one or the other spelling.
    let variables = [
        ("ALL_PROXY", &socks),
        ("all_proxy", &socks),
        ("HTTPS_PROXY", &http),
        ("https_proxy", &http),
        ("NO_PROXY", &host),
        ("no_proxy", &host),
    ];
    variables.map(|(name, value)| format!("export {name}={}\n", shell_quoted(value))).concat()
}

/// Returns an address to connect to for one that is listened on: all addresses are none.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn lines(context: &Context) -> anyhow::Result<String> {
    let file = context.to_file()?;
    let (ca_file, credentials_file) = (file.ca_file.to_string_lossy(), file.credentials_file.to_string_lossy());
    let variables = [
        ("AWS_ENDPOINT_URL", context.endpoint_text()),
        ("AWS_CA_BUNDLE", &ca_file),
        ("SSL_CERT_FILE", &ca_file),
        ("AWS_SHARED_CREDENTIALS_FILE", &credentials_file),
        ("AWS_PROFILE", &context.profile),
        ("AWS_REGION", &context.region),
        // Version 1 of `aws` and older boto3 look for it here when the profile is not used.
        ("AWS_DEFAULT_REGION", &context.region),
    ];
    Ok(variables.map(|(name, value)| format!("export {name}={}\n", shell_quoted(value))).concat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::client::context::{Surroundings, Wishes, resolve};

    #[test]
    fn the_youngest_proxy_in_the_background_is_the_one_that_is_used() {
        let entry = |local: &str, kind: &str| -> Entry {
            serde_json::from_value(serde_json::json!({
                "Id": "a", "Target": "web-1", "Node": "web-1", "Server": "https://gate.example.com:8443",
                "SessionId": "s", "Since": "2026-01-01T00:00:00Z",
                "Forwards": [{ "Kind": "forward", "Local": "127.0.0.1:1" }, { "Kind": kind, "Local": local }],
                "Process": { "Id": 2, "Started": 3, "Boot": "b" },
            }))
            .unwrap()
        };
        let text =
            forward_lines(&[entry("127.0.0.1:1080", "proxy"), entry("0.0.0.0:1081", "proxy"), entry("x", "reverse")]);
        for line in [
            "export ALL_PROXY=socks5h://127.0.0.1:1081\n",
            "export https_proxy=http://127.0.0.1:1081\n",
            "export NO_PROXY=gate.example.com\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert_eq!(forward_lines(&[entry("127.0.0.1:1", "forward")]), "");
    }

    #[test]
    fn every_variable_of_the_contract_is_exported_and_quoted() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("it's here");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("endpoint"), "https://127.0.0.1:4443\n").unwrap();
        fs::write(dir.join("admin.credentials"), "[munjigi]\naws_access_key_id=K\naws_secret_access_key=secret\n")
            .unwrap();
        let wishes = Wishes { data_dir: Some(dir), profile: None };
        let text = lines(&resolve(&wishes, &Surroundings::default()).unwrap()).unwrap();
        let names: Vec<&str> =
            text.lines().map(|line| line.strip_prefix("export ").unwrap().split('=').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "AWS_ENDPOINT_URL",
                "AWS_CA_BUNDLE",
                "SSL_CERT_FILE",
                "AWS_SHARED_CREDENTIALS_FILE",
                "AWS_PROFILE",
                "AWS_REGION",
                "AWS_DEFAULT_REGION"
            ]
        );
        assert!(text.contains("it'\\''s here/ca.pem'") && text.contains("AWS_PROFILE=munjigi\n"), "{text}");
        assert!(!text.contains("secret\n"), "{text}");
    }
}
