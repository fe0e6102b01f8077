//! `munjigi account`: people's accounts on nodes, the rules that give them, and the keys of groups.

mod status;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use munjigi_core::account::rule::{KeyFileSettings, Mode, NameForm, Place, RuleSettings, Who};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::{Epoch, Ignored};
use crate::client::credentials::read_bounded;
use crate::client::table;

/// Manage people's accounts on nodes, and the rules that give them
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi account rule put dev --who group:dev --nodes Role=web --groups docker\n  \
        munjigi account rule put ops --who group:ops --nodes '*' --mode synchronised --sudo ALL\n  \
        munjigi account list\n  munjigi account confirm web-1"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AccountCommand,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// List accounts of nodes: as they shall be, and what the nodes say of them
    #[command(visible_alias = "ls", after_help = "Example: munjigi account list web-1 --output json")]
    List {
        /// Only of this node
        node: Option<String>,
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Say how this machine's accounts are doing, from its agent's own files
    #[command(
        after_help = "The exit status is 0 if all is well, 1 if something waits or is wrong (the server is away, a conflict), 2 if\n\
        accounts or keys cannot be relied on.\n\nExample: munjigi account status --agent-dir /var/lib/munjigi-agent"
    )]
    Status {
        /// Data directory of this machine's agent
        #[arg(long, value_name = "DIR")]
        agent_dir: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Let accounts go whose removal waits for a person, because they were too many at once
    #[command(after_help = "Example: munjigi account confirm web-1 kim lee")]
    Confirm {
        /// The node
        node: String,
        /// Only these accounts
        os_users: Vec<String>,
        #[command(flatten)]
        place: Where,
    },
    /// Rules: who gets an account where, and with what
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Keys of groups, for the accounts and nodes that each names
    #[command(subcommand)]
    KeyFile(KeyFileCommand),
}

#[derive(Debug, Subcommand)]
enum RuleCommand {
    Put(Box<PutArguments>),
    /// List the rules in the order in which they count
    #[command(visible_alias = "ls", after_help = "Example: munjigi account rule list --output json")]
    List {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a rule; accounts that no other rule gives leave
    #[command(visible_alias = "rm", after_help = "Example: munjigi account rule delete dev")]
    Delete {
        /// The rule's name
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

/// Make a rule, or make one what is said here
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi account rule put dev --who group:dev --nodes '*'\n  \
        munjigi account rule put web --who group:ops --nodes Role=web --mode synchronised \\\n    \
        --sudo '/usr/bin/systemctl restart nginx'")]
struct PutArguments {
    /// The rule's name
    name: String,
    /// Whom it is about: *, group:NAME or user:NAME; may be repeated
    #[arg(long, required = true, value_name = "WHO")]
    who: Vec<Who>,
    /// Only those who are also one of these; may be repeated
    #[arg(long, value_name = "WHO")]
    among: Vec<Who>,
    /// Where: *, a name, an id, or tags (Key=Value, several with commas); may be repeated
    #[arg(long, required = true, value_name = "NODE")]
    nodes: Vec<Place>,
    /// just-in-time: made for a session and removed after it; synchronised: there as long as the rule gives it
    #[arg(long, default_value = "just-in-time", value_parser = mode)]
    mode: Mode,
    /// From what the local name is made: name, local-part (before an @) or tag:KEY
    #[arg(long, default_value = "name", value_name = "FORM")]
    os_user: NameForm,
    /// Keep upper case in names, so that names with it get no account
    #[arg(long)]
    keep_case: bool,
    /// Shorten names of more than 32 characters by a hash
    #[arg(long)]
    shorten: bool,
    /// A local group beside the account's own; may be repeated
    #[arg(long, value_name = "GROUP")]
    groups: Vec<String>,
    /// ALL, or a command that may be run as root without a password; may be repeated
    #[arg(long, value_name = "COMMAND")]
    sudo: Vec<String>,
    /// Login shell
    #[arg(long, default_value = "/bin/bash")]
    shell: String,
    /// Days for which the account of somebody who left is kept, locked
    #[arg(long, default_value_t = 7, value_name = "DAYS")]
    grace: u32,
    /// Delete homes instead of archiving them
    #[arg(long)]
    remove_home: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Subcommand)]
enum KeyFileCommand {
    /// Put a group's keys in place of those it has
    #[command(
        after_help = "Example: munjigi account key-file put ops keys/ops/authorized_keys --os-user deploy --nodes '*'"
    )]
    Put {
        /// The group's name
        name: String,
        /// A file with one public key a line
        file: PathBuf,
        /// An account that the keys open; may be repeated
        #[arg(long, required = true, value_name = "NAME")]
        os_user: Vec<String>,
        /// Where: *, a name, an id, or tags; may be repeated
        #[arg(long, required = true, value_name = "NODE")]
        nodes: Vec<Place>,
        #[command(flatten)]
        place: Where,
    },
    /// List the key files
    #[command(visible_alias = "ls", after_help = "Example: munjigi account key-file list")]
    List {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a group's keys
    #[command(visible_alias = "rm", after_help = "Example: munjigi account key-file delete ops")]
    Delete {
        /// The group's name
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "just-in-time" => Ok(Mode::JustInTime),
        "synchronised" => Ok(Mode::Synchronised),
        _ => Err("choose just-in-time or synchronised".to_owned()),
    }
}

/// `PutAccountRule`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutRule {
    pub(crate) name: String,
    pub(crate) rule: RuleSettings,
}

/// `PutAccountKeyFile`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PutKeyFile {
    pub(crate) name: String,
    pub(crate) key_file: KeyFileSettings,
}

/// A rule as answers show it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rule {
    name: String,
    arn: String,
    rule: RuleSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Rules {
    account_rules: Vec<Rule>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyFile {
    name: String,
    key_file: KeyFileSettings,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyFiles {
    key_files: Vec<KeyFile>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Accounts {
    nodes: Vec<Node>,
}

/// A node's accounts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node_id: String,
    node_name: String,
    #[serde(default)]
    managed: Option<bool>,
    held: usize,
    accounts: Vec<Account>,
    problems: Vec<Problem>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Account {
    os_user: String,
    uid: u32,
    principal_arn: String,
    mode: String,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Epoch>,
    groups: Vec<String>,
    sudo: Vec<String>,
    shell: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Problem {
    os_user: String,
    what: String,
    detail: String,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    match arguments.command {
        AccountCommand::List { node, place, output } => list(node, &place, output.output).await,
        AccountCommand::Status { agent_dir, output } => status::run(&agent_dir, output.output),
        AccountCommand::Confirm { node, os_users, place } => confirm(&node, &os_users, &place).await,
        AccountCommand::Rule(RuleCommand::Put(arguments)) => put(*arguments).await,
        AccountCommand::Rule(RuleCommand::List { place, output }) => rules(&place, output.output).await,
        AccountCommand::Rule(RuleCommand::Delete { name, place }) => {
            looking(&place, async |api| {
                call::<Ignored>(api, "DeleteAccountRule", &json!({ "Name": name }), "cannot delete the rule").await
            })
            .await?;
            Ok(Finish::Done)
        }
        AccountCommand::KeyFile(command) => key_file(command).await,
    }
}

async fn call<O: serde::de::DeserializeOwned>(
    api: &mut Api,
    operation: &str,
    request: &(impl Serialize + Sync),
    doing: &'static str,
) -> anyhow::Result<O> {
    api.munjigi(operation, request).await.doing(api.context(), doing)
}

async fn put(arguments: PutArguments) -> anyhow::Result<Finish> {
    let place = arguments.place.clone();
    let rule = RuleSettings {
        who: arguments.who,
        among: arguments.among,
        nodes: arguments.nodes,
        mode: arguments.mode,
        os_user: arguments.os_user,
        lowercase: !arguments.keep_case,
        shorten: arguments.shorten,
        groups: arguments.groups,
        sudo: arguments.sudo,
        shell: arguments.shell,
        grace_days: arguments.grace,
        remove_home: arguments.remove_home,
    };
    let request = PutRule { name: arguments.name, rule };
    looking(&place, async |api| call::<Ignored>(api, "PutAccountRule", &request, "cannot put the rule").await).await?;
    Ok(Finish::Done)
}

async fn rules(place: &Where, format: Format) -> anyhow::Result<Finish> {
    let found: Rules =
        looking(place, async |api| call(api, "DescribeAccountRules", &json!({}), "cannot list the rules").await)
            .await?;
    match format {
        Format::Json => print_json(&found.account_rules)?,
        Format::Table if found.account_rules.is_empty() => {
            note("no account rules; `munjigi account rule put` makes one")
        }
        Format::Table => {
            let row = |rule: &Rule| {
                let RuleSettings { who, among, nodes, mode, groups, sudo, grace_days, .. } = &rule.rule;
                let mut people = words(who);
                if !among.is_empty() {
                    people.push_str(&format!(" among {}", words(among)));
                }
                let mode = if *mode == Mode::Synchronised { "synchronised" } else { "just-in-time" };
                let (places, grace) = (words(nodes), format!("{grace_days} d"));
                vec![rule.name.clone(), people, places, mode.to_owned(), groups.join(","), sudo.join("; "), grace]
            };
            let rows: Vec<_> = found.account_rules.iter().map(row).collect();
            print(&table::render(&["NAME", "WHO", "NODES", "MODE", "GROUPS", "SUDO", "GRACE"], &rows))?;
        }
    }
    Ok(Finish::Done)
}

fn words(list: &[impl ToString]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

async fn list(node: Option<String>, place: &Where, format: Format) -> anyhow::Result<Finish> {
    let request = match &node {
        Some(node) => json!({ "Target": node }),
        None => json!({}),
    };
    let found: Accounts =
        looking(place, async |api| call(api, "DescribeAccounts", &request, "cannot list accounts").await).await?;
    if format == Format::Json {
        print_json(&found.nodes)?;
        return Ok(Finish::Done);
    }
    let mut rows = Vec::new();
    for node in &found.nodes {
        for account in &node.accounts {
            let owner = account.principal_arn.rsplit('/').next().unwrap_or_default().to_owned();
            let problem = node.problems.iter().find(|problem| problem.os_user == account.os_user);
            let state = problem.map_or_else(|| account.state.clone(), |problem| problem.what.clone());
            let (groups, sudo) = (account.groups.join(","), account.sudo.join("; "));
            let uid = account.uid.to_string();
            let since = account.since.map_or_else(String::new, |since| since.timestamp().to_iso_seconds());
            let (name, os_user, mode) = (node.node_name.clone(), account.os_user.clone(), account.mode.clone());
            rows.push(vec![name, os_user, uid, owner, mode, state, since, groups, sudo]);
        }
    }
    match rows.is_empty() {
        true => note("no accounts; those made just in time come and go with sessions"),
        false => {
            let heads = ["NODE", "OS USER", "UID", "OWNER", "MODE", "STATE", "SINCE", "GROUPS", "SUDO"];
            print(&table::render(&heads, &rows))?;
        }
    }
    for node in &found.nodes {
        for problem in &node.problems {
            note(&format!("{}: {} {}: {}", node.node_name, problem.os_user, problem.what, problem.detail));
        }
        if node.held > 0 {
            let name = &node.node_name;
            note(&format!(
                "{name}: {} accounts wait to leave; `munjigi account confirm {name}` lets them go",
                node.held
            ));
        }
        if node.managed == Some(false) && !node.accounts.is_empty() {
            let name = &node.node_name;
            note(&format!("{name} does not let its accounts be managed; set manage_accounts = true in its agent.toml"));
        }
    }
    Ok(Finish::Done)
}

async fn confirm(node: &str, os_users: &[String], place: &Where) -> anyhow::Result<Finish> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Confirmed {
        os_users: Vec<String>,
    }
    let mut request = json!({ "Target": node });
    if let (false, Some(members)) = (os_users.is_empty(), request.as_object_mut()) {
        members.insert("OsUsers".to_owned(), Value::from(os_users.to_vec()));
    }
    let confirmed: Confirmed =
        looking(place, async |api| call(api, "ConfirmAccountRemoval", &request, "cannot confirm").await).await?;
    print(&format!("{}\n", confirmed.os_users.join("\n")))?;
    Ok(Finish::Done)
}

async fn key_file(command: KeyFileCommand) -> anyhow::Result<Finish> {
    match command {
        KeyFileCommand::Put { name, file, os_user, nodes, place } => {
            let keys = key_lines(&read_bounded(&file)?);
            let request = PutKeyFile { name, key_file: KeyFileSettings { os_users: os_user, nodes, keys } };
            looking(&place, async |api| {
                call::<Ignored>(api, "PutAccountKeyFile", &request, "cannot put the keys").await
            })
            .await?;
        }
        KeyFileCommand::List { place, output } => {
            let found: KeyFiles = looking(&place, async |api| {
                call(api, "DescribeAccountKeyFiles", &json!({}), "cannot list the key files").await
            })
            .await?;
            match output.output {
                Format::Json => print_json(&found.key_files)?,
                Format::Table if found.key_files.is_empty() => {
                    note("no key files; `munjigi account key-file put` makes one")
                }
                Format::Table => {
                    let row = |file: &KeyFile| {
                        let KeyFileSettings { os_users, nodes, keys } = &file.key_file;
                        vec![file.name.clone(), os_users.join(" "), words(nodes), keys.len().to_string()]
                    };
                    let rows: Vec<_> = found.key_files.iter().map(row).collect();
                    print(&table::render(&["NAME", "OS USERS", "NODES", "KEYS"], &rows))?;
                }
            }
        }
        KeyFileCommand::Delete { name, place } => {
            looking(&place, async |api| {
                call::<Ignored>(api, "DeleteAccountKeyFile", &json!({ "Name": name }), "cannot delete the keys").await
            })
            .await?;
        }
    }
    Ok(Finish::Done)
}

/// Returns the lines of a key file that are keys.
pub(crate) fn key_lines(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}
