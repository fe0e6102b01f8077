//! `munjigi report`: what a host holds that nobody looks at. At present the sprawl of authorized_keys.
//!
//! It changes nothing. Without `--registered` it is local and needs no server; with it, the server is asked for what the
//! caller may list, and whatever the caller may not is said.

mod lines;
mod registered;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use self::lines::{Line, collect, found_in, read};
use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::{clock, table};

/// Report what this host holds that nobody looks at
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi report authorized-keys --registered --output json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    report: ReportCommand,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// Every line of every authorized_keys file: whose key it is, how old, how weak, and how many accounts it opens
    #[command(
        after_help = "STANDING is registered or inactive (somebody's key at the server, with --registered), known (in a \
        file of --known), unknown, or no key.\nREMARKS: weak, several times in one file, opens several accounts.\n\n\
        Examples:\n  sudo munjigi report authorized-keys --registered\n  \
        sudo munjigi report authorized-keys --known keys.pub --output json"
    )]
    AuthorizedKeys(Box<KeysArguments>),
}

#[derive(Debug, Args)]
struct KeysArguments {
    /// Where the host's files are
    #[arg(long, default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// Ask the server whose keys they are: of the users whose keys you may list
    #[arg(long)]
    registered: bool,
    /// A file with public keys that are known, one a line; may be repeated
    #[arg(long, value_name = "FILE")]
    known: Vec<PathBuf>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

/// What is known of a key, wherever it may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    /// In a file of `--known`.
    ByFile,
    /// Registered by a user.
    Registered {
        /// The user's name.
        user: String,
        /// The key's id.
        key_id: String,
        /// Whether it is good.
        active: bool,
    },
}

/// What is known, by fingerprint.
type Keys = BTreeMap<String, Known>;

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let ReportCommand::AuthorizedKeys(arguments) = arguments.report;
    let mut keys = Keys::new();
    for file in &arguments.known {
        let text = read(file)?.with_context(|| format!("{} is not there", file.display()))?.0;
        let prints = text.lines().filter_map(|line| found_in(line).1);
        keys.extend(prints.map(|found| (found.fingerprint, Known::ByFile)));
    }
    let mut remarks = Vec::new();
    if arguments.registered {
        let (registered, said) = looking(&arguments.place, async |api| registered::keys(api).await).await?;
        keys.extend(registered);
        remarks = said;
    }
    let (lines, unread) = collect(&arguments.root, &keys, clock::now().as_secs().unsigned_abs())?;
    match arguments.output.output {
        Format::Json => print_json(&lines)?,
        Format::Table if lines.is_empty() => note("no authorized_keys files with lines in them"),
        Format::Table => {
            let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
            let heads =
                ["OS USER", "TYPE", "FINGERPRINT", "COMMENT", "OPTIONS", "DAYS", "STANDING", "WHOSE", "REMARKS"];
            print(&table::render(&heads, &rows))?;
        }
    }
    remarks.iter().chain(&unread).for_each(|why| note(why));
    Ok(if unread.is_empty() && remarks.is_empty() { Finish::Done } else { Finish::Problems })
}

fn row(line: &Line) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut remarks: Vec<String> = line.weak.iter().cloned().collect();
    if line.times > 1 {
        remarks.push(format!("{} times in this account", line.times));
    }
    if line.accounts > 1 {
        remarks.push(format!("opens {} accounts", line.accounts));
    }
    vec![
        line.os_user.clone(),
        text(&line.key_type),
        text(&line.fingerprint),
        line.comment.clone(),
        line.options.clone(),
        line.days.to_string(),
        line.standing.to_owned(),
        text(&line.registered_by),
        remarks.join(", "),
    ]
}
