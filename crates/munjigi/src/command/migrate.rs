//! `munjigi migrate`: takes over from the older systems that put people's keys and accounts on hosts.
//!
//! Their configuration is read as data, never evaluated (R22). What was found becomes account rules and key files; what
//! cannot be taken over is said. Old pieces are put aside only once a lookup through the new way has given a key.

mod key_manager;
mod legacy;
mod pieces;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use munjigi_core::account::rule::Place;
use serde::Serialize;

use super::account::{PutKeyFile, PutRule};
use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::CallContext as _;
use crate::client::api_types::Ignored;
use crate::client::text::escaped;

/// Take over from an older system that put keys and accounts on this host
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi migrate --from widdix --dry-run\n  \
        munjigi migrate --from widdix --nodes Role=web --agent-dir /var/lib/munjigi/agent\n  \
        munjigi migrate --from key-manager --keys-dir keys --map ops=deploy,ec2-user\n  \
        munjigi migrate --from eic --remove --proof-user ec2-user")]
pub(crate) struct Arguments {
    /// The system that is replaced
    #[arg(long, value_enum)]
    from: System,
    /// Where the host's files are
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// The nodes that the rules are for: *, a name, an id, or tags; may be repeated
    #[arg(long, default_value = "*", value_name = "NODE")]
    nodes: Vec<Place>,
    /// Data directory of this host's agent: members of the old marker group become managed accounts
    #[arg(long, value_name = "DIR")]
    agent_dir: Option<PathBuf>,
    /// key-manager: a copy of its bucket, with GROUP/authorized_keys in it
    #[arg(long, value_name = "DIR")]
    keys_dir: Option<PathBuf>,
    /// key-manager: the accounts that a group's keys open, as GROUP=NAME[,NAME…]; may be repeated
    #[arg(long, value_name = "GROUP=NAMES", value_parser = mapping)]
    map: Vec<(String, Vec<String>)>,
    /// Put the old pieces aside, after a lookup through the new way has given a key
    #[arg(long, requires = "proof_user")]
    remove: bool,
    /// The account whose keys that lookup asks for
    #[arg(long, value_name = "NAME")]
    proof_user: Option<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

/// The older systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// aws-ec2-ssh of widdix
    Widdix,
    /// aws-ec2-ssh for CoreOS of andromedarabbit
    Andromedarabbit,
    /// key-manager of AlexRudd
    KeyManager,
    /// aws-ec2-instance-connect-config
    Eic,
}

/// What was found, and what becomes of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Findings {
    /// Rules that give the same accounts.
    pub(super) rules: Vec<PutRule>,
    /// Keys of groups.
    pub(super) key_files: Vec<PutKeyFile>,
    /// The group whose members are taken over.
    pub(super) adopt_group: Option<String>,
    /// What people have to know or do.
    pub(super) notes: Vec<String>,
    /// Old pieces on the host.
    pub(super) pieces: Vec<PathBuf>,
}

fn mapping(text: &str) -> Result<(String, Vec<String>), String> {
    let (group, names) = text.split_once('=').ok_or("write GROUP=NAME[,NAME…]")?;
    let names: Vec<String> = names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if group.is_empty() || names.is_empty() {
        Err("write GROUP=NAME[,NAME…]".to_owned())
    } else {
        Ok((group.to_owned(), names))
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let root = &arguments.root;
    let mut findings = match arguments.from {
        System::Widdix | System::Andromedarabbit => legacy::read(root, &arguments.nodes)?,
        System::KeyManager => key_manager::read(root, arguments.keys_dir.as_deref(), &arguments.map, &arguments.nodes)?,
        System::Eic => Findings {
            notes: vec![
                "keys pushed by SendSSHPublicKey are served by Munjigi itself; there is nothing to import".to_owned(),
            ],
            ..Findings::default()
        },
    };
    findings.pieces = pieces::find(root, arguments.from);
    if arguments.dry_run || arguments.output.output == Format::Json {
        show(&findings, arguments.output.output)?;
    }
    if arguments.dry_run {
        return Ok(Finish::Done);
    }
    if !findings.rules.is_empty() || !findings.key_files.is_empty() {
        put(&findings, &arguments.place).await?;
    }
    if let (Some(directory), Some(group)) = (&arguments.agent_dir, &findings.adopt_group) {
        adopt(directory, group)?;
        note("agent.toml was changed; restart the agent so that it manages accounts");
    }
    if arguments.remove {
        let user = arguments.proof_user.as_deref().context("--remove needs --proof-user")?;
        prove(user)?;
        for piece in pieces::put_aside(root, &findings.pieces)? {
            note(&format!("put aside: {}", piece.display()));
        }
    } else if !findings.pieces.is_empty() {
        note(&format!("{} old pieces stay in place; --remove puts them aside", findings.pieces.len()));
    }
    findings.notes.iter().for_each(|text| note(text));
    Ok(Finish::Done)
}

fn show(findings: &Findings, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return print_json(findings);
    }
    let mut text = String::new();
    for rule in &findings.rules {
        text.push_str(&format!("account rule {}: {}\n", escaped(&rule.name), serde_json::to_string(&rule.rule)?));
    }
    for file in &findings.key_files {
        let keys = &file.key_file;
        text.push_str(&format!(
            "key file {}: {} keys for {}\n",
            escaped(&file.name),
            keys.keys.len(),
            keys.os_users.join(" ")
        ));
    }
    if let Some(group) = &findings.adopt_group {
        text.push_str(&format!("members of group {} become managed accounts with their user ids\n", escaped(group)));
    }
    for piece in &findings.pieces {
        text.push_str(&format!("old piece: {}\n", escaped(&piece.display().to_string())));
    }
    for line in &findings.notes {
        text.push_str(&format!("note: {}\n", escaped(line)));
    }
    print(&text)
}

async fn put(findings: &Findings, place: &Where) -> anyhow::Result<()> {
    looking(place, async |api| {
        for rule in &findings.rules {
            let put = api.munjigi("PutAccountRule", rule).await.doing(api.context(), "cannot put the rule");
            let _: Ignored = put.with_context(|| format!("{} was not put", rule.name))?;
            note(&format!("put the account rule {}", rule.name));
        }
        for file in &findings.key_files {
            let put = api.munjigi("PutAccountKeyFile", file).await.doing(api.context(), "cannot put the keys");
            let _: Ignored = put.with_context(|| format!("the keys of {} were not put", file.name))?;
            note(&format!("put the keys of group {}", file.name));
        }
        Ok(())
    })
    .await
}

/// Writes into `agent.toml` that accounts are managed and whose are taken over; what stands there stays.
fn adopt(directory: &Path, group: &str) -> anyhow::Result<()> {
    let path = directory.join("agent.toml");
    let present = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
    };
    let table: toml::Table = present.parse().with_context(|| format!("{} is no TOML", path.display()))?;
    let mut lines = String::new();
    if !table.contains_key("manage_accounts") {
        lines.push_str("manage_accounts = true\n");
    }
    if !table.contains_key("adopt_group") {
        lines.push_str(&format!("adopt_group = '{group}'\n"));
    }
    std::fs::write(&path, lines + &present).with_context(|| format!("failed to write {}", path.display()))
}

/// Asks sshd's helper for an account's keys: without one the old way stays.
fn prove(user: &str) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("this program's own file is not known")?;
    let asked = Command::new(own).args(["authorized-keys", user]).output().context("failed to run the lookup")?;
    let keys = String::from_utf8_lossy(&asked.stdout).lines().filter(|line| !line.trim().is_empty()).count();
    if !asked.status.success() || keys == 0 {
        bail!(
            "the lookup through the new way gave no key for {user}, so the old pieces stay; run `munjigi authorized-keys \
             {user}` to see why"
        );
    }
    Ok(())
}
