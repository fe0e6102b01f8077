//! `munjigi migrate`: takes over from the older systems that put people's keys and accounts on hosts.
//!
//! Their configuration is read as data, never evaluated (R22). What was found becomes account rules and key files; what
//! cannot be taken over is said. Without `--apply` nothing is done. Old pieces are put aside only once lookups through the new
//! way have given a key, and a step that fails leaves the host as it was.

mod journal;
mod key_manager;
mod legacy;
mod pieces;
mod removal;
mod sshd_lines;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use munjigi_core::account::rule::Place;
use serde::Serialize;

use self::removal::{Old, Removal};
use super::account::{PutKeyFile, PutRule};
use super::{Finish, looking, note, print, print_json, wait_for};
use crate::cli::{Format, Output, Where};
use crate::client::api::CallContext as _;
use crate::client::api_types::Ignored;
use crate::client::text::escaped;

/// Take over from an older system that put keys and accounts on this host
#[derive(Debug, Args)]
#[command(after_help = "Without --apply it only says what it would do. In steps:\n  \
        munjigi migrate --from widdix --nodes Role=web\n  \
        munjigi migrate --from widdix --nodes Role=web --agent-dir /var/lib/munjigi/agent --apply\n  \
        (restart the agent)\n  \
        munjigi migrate --from widdix --agent-dir /var/lib/munjigi/agent --remove --proof-user kim --apply\n\n\
        Examples:\n  munjigi migrate --from key-manager --keys-dir keys --map ops=deploy,ec2-user --apply\n  \
        munjigi migrate --from eic --agent-dir /var/lib/munjigi/agent --remove --proof-user ec2-user --apply")]
pub(crate) struct Arguments {
    /// The system that is replaced
    #[arg(long, value_enum)]
    from: System,
    /// Where the host's files are
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Do it; without this it is only said
    #[arg(long)]
    apply: bool,
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
    /// Do away with the old system, instead of importing: sshd asks the agent, its old lines are commented out, the old
    /// pieces are put aside; if lookups through the new way give a key, else everything stays
    #[arg(long, requires = "proof_user", requires = "agent_dir")]
    remove: bool,
    /// The account whose keys those lookups ask for
    #[arg(long, value_name = "NAME", requires = "remove")]
    proof_user: Option<String>,
    /// The daemon, which checks its own settings
    #[arg(long, value_name = "PATH", default_value = "/usr/sbin/sshd")]
    sshd: PathBuf,
    /// Path of munjigi as sshd shall run it [default: this program]
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
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
    /// What the old system has on the host.
    old: Old,
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

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    let root = &arguments.root;
    let mut findings = if arguments.remove { Findings::default() } else { import(arguments)? };
    findings.old = Old::find(root, arguments.from);
    if !arguments.apply || arguments.output.output == Format::Json {
        show(&findings, arguments.output.output)?;
    }
    if !arguments.apply {
        note("nothing was done; --apply does it");
        return Ok(Finish::Done);
    }
    if let (true, Some(agent_dir), Some(proof_user)) = (arguments.remove, &arguments.agent_dir, &arguments.proof_user) {
        let (sshd, program) = (arguments.sshd.as_path(), arguments.program.as_deref());
        Removal { root, agent_dir, proof_user, sshd, program }.run(&findings.old)?;
        return Ok(Finish::Done);
    }
    if !findings.rules.is_empty() || !findings.key_files.is_empty() {
        wait_for(async { put(&findings, &arguments.place).await.map(|()| Finish::Done) })?;
    }
    if let (Some(directory), Some(group)) = (&arguments.agent_dir, &findings.adopt_group) {
        adopt(directory, group)?;
        note("agent.toml was changed; restart the agent so that it manages accounts");
    }
    if !findings.old.is_empty() {
        note("the old system is still there; --remove does away with it");
    }
    findings.notes.iter().for_each(|text| note(text));
    Ok(Finish::Done)
}

/// Reads what the old system was told, and says what it means here.
fn import(arguments: &Arguments) -> anyhow::Result<Findings> {
    let (root, nodes) = (&arguments.root, &arguments.nodes);
    match arguments.from {
        System::Widdix | System::Andromedarabbit => legacy::read(root, nodes),
        System::KeyManager => key_manager::read(root, arguments.keys_dir.as_deref(), &arguments.map, nodes),
        System::Eic => Ok(Findings {
            notes: vec![
                "keys pushed by SendSSHPublicKey are served by Munjigi itself; there is nothing to import".to_owned(),
            ],
            ..Findings::default()
        }),
    }
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
    let Old { sshd_lines, pieces, .. } = &findings.old;
    for line in sshd_lines {
        text.push_str(&format!("old line of sshd: {}\n", escaped(line)));
    }
    let paths = [("old piece", &pieces.moved), ("to be masked", &pieces.masked), ("a package's, stays", &pieces.left)];
    for (word, list) in paths {
        for path in list {
            text.push_str(&format!("{word}: {}\n", escaped(&path.display().to_string())));
        }
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
    // As a whole: an agent that starts meanwhile reads the old or the new one.
    journal::replace(&path, (lines + &present).as_bytes())
}
