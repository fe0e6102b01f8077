//! `munjigi target`: named databases, desktops and other services that are reached through nodes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use munjigi_core::target::{TargetKind, TargetTls, TlsMode};
use serde::Serialize;
use serde_json::Value;

use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{Ignored, Tag};
use crate::client::credentials::read_bounded;
use crate::client::targets::{self, Credential, DeleteTarget, Put, PutTarget, Target};
use crate::client::{table, terminal};

/// Manage targets: named services that are reached through nodes
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi target put orders --address db.internal:5432 --through Role=bastion\n  \
    munjigi target put orders --address db.internal --kind postgres --through Role=bastion --inspect --user app\n  \
    munjigi target list\n  munjigi db orders")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: TargetCommand,
}

#[derive(Debug, Subcommand)]
enum TargetCommand {
    Put(Box<PutArguments>),
    /// Put the targets of a file: one JSON object with the members of PutTarget, or a list of them
    #[command(after_help = "Example: munjigi target apply targets.json")]
    Apply {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        place: Where,
    },
    /// List the targets
    #[command(visible_alias = "ls", after_help = "Example: munjigi target list --output json")]
    List {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Show everything about a target but its password
    #[command(after_help = "Example: munjigi target show orders")]
    Show {
        /// The target's name
        name: String,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a target; what is open to it ends
    #[command(visible_alias = "rm", after_help = "Example: munjigi target delete orders")]
    Delete {
        /// The target's name
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

/// Make a target, or make one what is said here; its tags and credential stay unless they are given
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi target put orders --address db.internal:5432 --through Role=bastion --tag Env=prod\n  \
    munjigi target put orders --address db.internal:5432 --through Role=bastion --inspect --user app --password-file -\n  \
    munjigi target put desk --address 10.0.0.9:3389 --through web-1 --through web-2"
)]
struct PutArguments {
    /// The target's name
    name: String,
    /// Where it is, as the nodes see it; localhost is the node itself; the port may be left out where the kind has one
    #[arg(long, value_name = "HOST[:PORT]")]
    address: String,
    /// What it speaks: tcp, http, ssh, rdp, postgres, mysql, redis or mongodb; guessed from the port if not given
    #[arg(long)]
    kind: Option<TargetKind>,
    /// A node that reaches it: a name, an id, or tags (Key=Value, several with commas); may be repeated
    #[arg(long, value_name = "NODE", required = true)]
    through: Vec<String>,
    /// A tag, instead of those that it has; may be repeated
    #[arg(long = "tag", value_name = "KEY=VALUE")]
    tags: Vec<String>,
    /// The local port of forwards to it, where nobody says otherwise
    #[arg(long, value_name = "PORT")]
    local_port: Option<u16>,
    /// The database that `munjigi db` opens
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Have the gateway log in with the stored credential and record every statement (postgres, mysql)
    #[arg(long)]
    inspect: bool,
    /// Record values bound to prepared statements, too
    #[arg(long, requires = "inspect")]
    record_parameters: bool,
    /// Let the server ask the client for files (LOAD DATA LOCAL)
    #[arg(long, requires = "inspect")]
    allow_load_local: bool,
    /// Encryption to the target: off, require, or verify-full
    #[arg(long, value_name = "MODE", default_value = "off", value_parser = tls_mode)]
    tls: TlsMode,
    /// The name that its certificate is for, if not the address' host
    #[arg(long, value_name = "NAME")]
    tls_name: Option<String>,
    /// Certificates of the authorities that may have signed it, in PEM
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The user that the gateway logs in as; its password is asked for, or read with --password-file
    #[arg(long)]
    user: Option<String>,
    /// Read the user's password from the first line of a file, - for standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Forget the stored credential
    #[arg(long, conflicts_with = "user")]
    remove_credential: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    match arguments.command {
        TargetCommand::Put(arguments) => put(*arguments).await,
        TargetCommand::Apply { file, place } => apply(&file, &place).await,
        TargetCommand::List { place, output } => {
            let targets = looking(&place, async |api| targets::list(api).await).await?;
            show_all(&targets, output.output)
        }
        TargetCommand::Show { name, place, output } => {
            let target = looking(&place, async |api| targets::describe(api, &name).await).await?;
            show(&target, output.output)
        }
        TargetCommand::Delete { name, place } => {
            looking(&place, async |api| {
                let request = DeleteTarget { name: name.clone() };
                let _: Ignored =
                    api.munjigi("DeleteTarget", &request).await.doing(api.context(), "cannot delete the target")?;
                Ok(Finish::Done)
            })
            .await
        }
    }
}

async fn put(arguments: PutArguments) -> anyhow::Result<Finish> {
    let place = arguments.place.clone();
    let request = request(arguments)?;
    let put: Put = looking(&place, async |api| {
        api.munjigi("PutTarget", &request).await.doing(api.context(), "cannot put the target")
    })
    .await?;
    if put.target.nodes == 0 {
        note("no node matches --through yet; `munjigi ls` shows the nodes with their names and tags");
    }
    Ok(Finish::Done)
}

/// Turns what was typed into what is asked for.
fn request(arguments: PutArguments) -> anyhow::Result<PutTarget> {
    let (address, kind) = address_and_kind(&arguments.address, arguments.kind)?;
    let tags: Option<Vec<Tag>> = match arguments.tags.is_empty() {
        true => None,
        false => Some(arguments.tags.iter().map(|text| tag(text)).collect::<anyhow::Result<_>>()?),
    };
    let ca_pem = arguments.tls_ca.as_deref().map(read_bounded).transpose().context("cannot read the authorities")?;
    let credential = match arguments.user {
        Some(user_name) => Some(Credential { user_name, password: password(arguments.password_file.as_deref())? }),
        None => None,
    };
    Ok(PutTarget {
        name: arguments.name,
        address,
        kind,
        through: arguments.through,
        tags,
        local_port: arguments.local_port,
        database: arguments.database,
        inspect: arguments.inspect,
        record_parameters: arguments.record_parameters,
        allow_load_local: arguments.allow_load_local,
        tls: TargetTls { mode: arguments.tls, server_name: arguments.tls_name, ca_pem },
        credential,
        remove_credential: arguments.remove_credential,
    })
}

/// Completes an address by the kind's port, or a kind by the address' port.
fn address_and_kind(address: &str, kind: Option<TargetKind>) -> anyhow::Result<(String, TargetKind)> {
    let behind_host = if address.starts_with('[') { address.rsplit_once("]:") } else { address.split_once(':') };
    let port = behind_host.and_then(|(_, port)| port.parse::<u16>().ok());
    match (port, kind) {
        (Some(_), Some(kind)) => Ok((address.to_owned(), kind)),
        (Some(port), None) => {
            let known = TargetKind::ALL.into_iter().find(|kind| kind.port() == Some(port));
            let web = [80, 443, 8080, 8443].contains(&port).then_some(TargetKind::Http);
            Ok((address.to_owned(), known.or(web).unwrap_or(TargetKind::Tcp)))
        }
        (None, kind) => match kind.and_then(TargetKind::port) {
            Some(port) => Ok((format!("{address}:{port}"), kind.unwrap_or(TargetKind::Tcp))),
            None => bail!("`{address}` has no port: write --address HOST:PORT, with brackets around an IPv6 address"),
        },
    }
}

fn tag(text: &str) -> anyhow::Result<Tag> {
    let (key, value) = text.split_once('=').with_context(|| format!("`{text}` is no tag: write --tag Key=Value"))?;
    Ok(Tag { key: key.to_owned(), value: value.to_owned() })
}

fn tls_mode(text: &str) -> Result<TlsMode, String> {
    [TlsMode::Off, TlsMode::Require, TlsMode::VerifyFull]
        .into_iter()
        .find(|mode| mode.as_str() == text)
        .ok_or_else(|| "choose off, require or verify-full".to_owned())
}

/// Reads a password from a file or standard input, or asks for it. Without a file and a terminal there is none.
fn password(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let text = match file {
        Some(file) if file == Path::new("-") => terminal::read_line().context("cannot read the password")?,
        Some(file) => read_bounded(file).context("cannot read the password")?,
        None if terminal::stdin_is_terminal() => {
            let asked = terminal::ask_hidden("Password (empty for none): ").context("cannot ask for the password")?;
            return Ok(Some(asked).filter(|password| !password.is_empty()));
        }
        None => return Ok(None),
    };
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(line.to_owned())),
        _ => bail!("the first line holds no password; leave --password-file out for a user without one"),
    }
}

async fn apply(file: &Path, place: &Where) -> anyhow::Result<Finish> {
    let text = read_bounded(file)?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    let wanted = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    looking(place, async |api| {
        for one in &wanted {
            let name = one.get("Name").and_then(Value::as_str).unwrap_or("without a name");
            let put = api.munjigi("PutTarget", one).await.doing(api.context(), "cannot put the target");
            let _: Put = put.with_context(|| format!("{name} was not put"))?;
        }
        Ok(Finish::Done)
    })
    .await
}

/// Shows targets as `munjigi target list` and `munjigi ls --targets` do.
pub(super) fn show_all(targets: &[Target], format: Format) -> anyhow::Result<Finish> {
    match format {
        Format::Json => print_json(&targets.iter().map(Line::of).collect::<Vec<_>>())?,
        Format::Table if targets.is_empty() => note("no targets; `munjigi target put` makes one"),
        Format::Table => {
            let rows: Vec<_> = targets.iter().map(row).collect();
            print(&table::render(&["NAME", "KIND", "ADDRESS", "THROUGH", "ONLINE", "RECORDED", "TAGS"], &rows))?;
        }
    }
    Ok(Finish::Done)
}

/// Asks for all targets and shows them.
pub(super) async fn list(api: &mut Api, format: Format) -> anyhow::Result<Finish> {
    show_all(&targets::list(api).await?, format)
}

fn row(target: &Target) -> Vec<String> {
    vec![
        target.name.clone(),
        target.kind.to_string(),
        target.address.clone(),
        target.through.join(" "),
        format!("{}/{}", target.nodes_online, target.nodes),
        if target.inspect { "statements" } else { "connections" }.to_owned(),
        tags(target),
    ]
}

fn tags(target: &Target) -> String {
    target.tags.iter().map(|tag| format!("{}={}", tag.key, tag.value)).collect::<Vec<_>>().join(",")
}

fn show(target: &Target, format: Format) -> anyhow::Result<Finish> {
    if format == Format::Json {
        print_json(&Line::of(target))?;
        return Ok(Finish::Done);
    }
    let line = Line::of(target);
    let credential = match (&target.user_name, target.has_password) {
        (Some(user), true) => format!("{user}, with a password"),
        (Some(user), false) => format!("{user}, without a password"),
        (None, _) => String::new(),
    };
    let mut options = Vec::new();
    options.extend(target.record_parameters.then_some("bound values are recorded"));
    options.extend(target.allow_load_local.then_some("the server may ask for files"));
    let rows: Vec<Vec<String>> = [
        ("name", target.name.clone()),
        ("arn", target.arn.clone()),
        ("kind", target.kind.to_string()),
        ("address", target.address.clone()),
        ("through", target.through.join(" ")),
        ("nodes online", format!("{} of {}", target.nodes_online, target.nodes)),
        ("local port", target.local_port.map(|port| port.to_string()).unwrap_or_default()),
        ("database", target.database.clone().unwrap_or_default()),
        ("recorded", if target.inspect { "statements" } else { "connections" }.to_owned()),
        ("options", options.join(", ")),
        ("tls", [line.tls, line.tls_name.unwrap_or_default()].join(" ").trim().to_owned()),
        ("credential", credential),
        ("tags", tags(target)),
        ("created", line.created.clone()),
        ("changed", line.updated.clone()),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| vec![key.to_owned(), value])
    .collect();
    print(&table::render(&["TARGET", ""], &rows))?;
    Ok(Finish::Done)
}

/// A target as programs read it; the members are part of the command line's contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    name: &'a str,
    arn: &'a str,
    kind: TargetKind,
    address: &'a str,
    through: &'a [String],
    nodes: usize,
    nodes_online: usize,
    local_port: Option<u16>,
    database: Option<&'a str>,
    inspect: bool,
    record_parameters: bool,
    allow_load_local: bool,
    tls: &'static str,
    tls_name: Option<&'a str>,
    user: Option<&'a str>,
    has_password: bool,
    tags: BTreeMap<&'a str, &'a str>,
    created: String,
    updated: String,
}

impl<'a> Line<'a> {
    fn of(target: &'a Target) -> Self {
        Self {
            name: &target.name,
            arn: &target.arn,
            kind: target.kind,
            address: &target.address,
            through: &target.through,
            nodes: target.nodes,
            nodes_online: target.nodes_online,
            local_port: target.local_port,
            database: target.database.as_deref(),
            inspect: target.inspect,
            record_parameters: target.record_parameters,
            allow_load_local: target.allow_load_local,
            tls: target.tls.mode.as_str(),
            tls_name: target.tls.server_name.as_deref(),
            user: target.user_name.as_deref(),
            has_password: target.has_password,
            tags: target.tags.iter().map(|tag| (tag.key.as_str(), tag.value.as_str())).collect(),
            created: target.created_at.timestamp().to_iso_seconds(),
            updated: target.updated_at.timestamp().to_iso_seconds(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_kind_complete_each_other() {
        for (address, kind, expected) in [
            ("db:5432", None, Some(("db:5432", TargetKind::Postgres))),
            ("db:6543", Some(TargetKind::Postgres), Some(("db:6543", TargetKind::Postgres))),
            ("db", Some(TargetKind::Mysql), Some(("db:3306", TargetKind::Mysql))),
            ("[fd00::7]", Some(TargetKind::Rdp), Some(("[fd00::7]:3389", TargetKind::Rdp))),
            ("[fd00::7]:443", None, Some(("[fd00::7]:443", TargetKind::Http))),
            ("db:4711", None, Some(("db:4711", TargetKind::Tcp))),
            ("db", None, None),
            ("db", Some(TargetKind::Tcp), None),
            ("db:x", None, None),
        ] {
            let found = address_and_kind(address, kind).ok();
            let found = found.as_ref().map(|(address, kind)| (address.as_str(), *kind));
            assert_eq!(found, expected, "{address} {kind:?}");
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        for (content, expected) in
            [("s3cret\n", Some("s3cret")), ("a b \r\nmore", Some("a b ")), ("", None), ("\nx", None)]
        {
            std::fs::write(&file, content).unwrap();
            assert_eq!(password(Some(&file)).ok().flatten().as_deref(), expected, "{content:?}");
        }
        let credential = Credential { user_name: "app".into(), password: Some("hunter2".into()) };
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
