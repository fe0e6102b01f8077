//! `munjigi env`: the variables with which `aws`, boto3 and this program find the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::bail;
use clap::Args;
use munjigi_core::target::TargetKind;
use url::Url;

use super::forward::kept;
use super::{Finish, looking, print, resolve};
use crate::cli::Where;
use crate::client::context::Context;
use crate::client::forward::background::{Entry, Listening, ListeningKind};
use crate::client::targets::{self, Target};
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

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    if arguments.forward {
        let entries = kept::directory()?.list()?;
        let mut text = forward_lines(&entries);
        for (entry, address) in entries.iter().filter_map(|entry| Some((entry, of_target(entry)?))) {
            // What is no target, or may not be looked at, has no URL.
            match looking(&arguments.place, async |api| targets::describe(api, &entry.target).await).await {
                Ok(target) => text.push_str(&database_line(&target, address)),
                Err(error) => tracing::debug!(target = entry.target, %error, "no target"),
            }
        }
        if text.is_empty() {
            bail!(
                "no proxy and no database runs in the background; `munjigi forward NODE -D 0 --background` starts one"
            );
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

/// Returns where a forward listens that may lead to a target rather than to a place behind a node.
fn of_target(entry: &Entry) -> Option<SocketAddr> {
    let own = |forward: &&Listening| {
        // A target's only place, or a port of what was named.
        forward.kind == ListeningKind::Forward
            && (forward.remote.is_empty() || forward.remote.starts_with("localhost:"))
    };
    entry.forwards.iter().find(own)?.local.parse().ok().map(reachable)
}

/// Returns the variable by which programs find a database; nothing for other kinds of targets.
fn database_line(target: &Target, address: SocketAddr) -> String {
    let (variable, scheme) = match target.kind {
        TargetKind::Postgres => ("DATABASE_URL", "postgresql"),
        TargetKind::Mysql => ("DATABASE_URL", "mysql"),
        TargetKind::Redis if target.client_tls() => ("REDIS_URL", "rediss"),
        TargetKind::Redis => ("REDIS_URL", "redis"),
        TargetKind::Mongodb => ("MONGODB_URI", "mongodb"),
        TargetKind::Tcp | TargetKind::Http | TargetKind::Ssh | TargetKind::Rdp => return String::new(),
    };
    let Ok(mut url) = Url::parse(&format!("{scheme}://{address}/")) else { return String::new() };
    url.set_path(target.database.as_deref().unwrap_or_default());
    // Only a URL without a host takes no user.
    let _ = url.set_username(target.user_name.as_deref().unwrap_or_default());
    format!("export {variable}={}\n", shell_quoted(url.as_str()))
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
    fn a_database_is_found_by_the_url_that_programs_of_its_kind_take() {
        let target = |kind: &str, database: Option<&str>, user: Option<&str>| -> Target {
            serde_json::from_value(serde_json::json!({
                "Name": "orders", "Arn": "arn:aws:munjigi:local-1:1:target/orders", "Address": "db.internal:1",
                "Kind": kind, "Database": database, "UserName": user, "CreatedAt": 1.0, "UpdatedAt": 1.0,
            }))
            .unwrap()
        };
        let address: SocketAddr = "127.0.0.1:5433".parse().unwrap();
        for (kind, database, user, line) in [
            ("postgres", Some("orders"), Some("app"), "export DATABASE_URL=postgresql://app@127.0.0.1:5433/orders\n"),
            ("postgres", None, None, "export DATABASE_URL=postgresql://127.0.0.1:5433\n"),
            ("mysql", Some("a b"), Some("a@b"), "export DATABASE_URL=mysql://a%40b@127.0.0.1:5433/a%20b\n"),
            ("redis", None, None, "export REDIS_URL=redis://127.0.0.1:5433\n"),
            ("mongodb", Some("x"), None, "export MONGODB_URI=mongodb://127.0.0.1:5433/x\n"),
            ("rdp", None, None, ""),
        ] {
            assert_eq!(database_line(&target(kind, database, user), address), line);
        }
    }

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
