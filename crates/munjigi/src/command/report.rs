//! `munjigi report`: what a host holds that nobody looks at. At present the sprawl of authorized_keys.
//!
//! Read-only and local: it needs no server. Keys are read as data; what stands before one (options) is shown and not judged.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use munjigi_core::ssh::PublicKey;
use serde::Serialize;

use super::{Finish, note, print, print_json};
use crate::cli::{Format, Output};
use crate::client::{clock, table};

/// Most bytes of a file that are read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most lines of a file that are reported.
const MAX_LINES: usize = 10_000;
/// Where sshd looks by default (sshd_config(5), AuthorizedKeysFile).
const FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
const DAY: u64 = 86_400;

/// Report what this host holds that nobody looks at
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi report authorized-keys --output json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    report: ReportCommand,
}

#[derive(Debug, Subcommand)]
enum ReportCommand {
    /// Every line of every authorized_keys file: whose, how old, and which keys open more than one account
    #[command(
        after_help = "Examples:\n  munjigi report authorized-keys\n  munjigi report authorized-keys --known keys.pub --output json"
    )]
    AuthorizedKeys {
        /// Where the host's files are
        #[arg(long, default_value = "/", value_name = "DIR")]
        root: PathBuf,
        /// A file with public keys that are known, one a line; may be repeated
        #[arg(long, value_name = "FILE")]
        known: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

/// One line.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    /// The account that it opens.
    os_user: String,
    /// The file.
    file: PathBuf,
    /// Its number in the file.
    line: usize,
    /// The key's type; absent if the line is no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_type: Option<String>,
    /// `SHA256:…`; absent if the line is no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// What stands behind the key.
    comment: String,
    /// What stands before the key.
    options: String,
    /// Days since the file was changed: the line is at least that old, unless the clock was set.
    days: u64,
    /// How many accounts of this host the key opens.
    accounts: usize,
    /// Whether it is one of the known keys.
    known: bool,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    let ReportCommand::AuthorizedKeys { root, known, output } = &arguments.report;
    let mut prints = Vec::new();
    for file in known {
        let text = read(file)?.with_context(|| format!("{} is not there", file.display()))?.0;
        prints.extend(text.lines().filter_map(|line| split(line).1).map(|key| key.fingerprint().to_string()));
    }
    let (lines, unread) = collect(root, &prints, clock::now().as_secs().unsigned_abs())?;
    match output.output {
        Format::Json => print_json(&lines)?,
        Format::Table if lines.is_empty() => note("no authorized_keys files with lines in them"),
        Format::Table => {
            let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
            print(&table::render(
                &["OS USER", "TYPE", "FINGERPRINT", "COMMENT", "OPTIONS", "DAYS", "ACCOUNTS", "KNOWN"],
                &rows,
            ))?;
        }
    }
    unread.iter().for_each(|why| note(why));
    Ok(if unread.is_empty() { Finish::Done } else { Finish::Problems })
}

fn row(line: &Line) -> Vec<String> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "no key".to_owned());
    vec![
        line.os_user.clone(),
        text(&line.key_type),
        text(&line.fingerprint),
        line.comment.clone(),
        line.options.clone(),
        line.days.to_string(),
        line.accounts.to_string(),
        if line.known { "yes" } else { "no" }.to_owned(),
    ]
}

/// Reads every account's files; returns the lines, and what could not be read.
fn collect(root: &Path, known: &[String], now: u64) -> anyhow::Result<(Vec<Line>, Vec<String>)> {
    let passwd = root.join("etc/passwd");
    let passwd = fs::read_to_string(&passwd).with_context(|| format!("failed to read {}", passwd.display()))?;
    let (mut lines, mut unread) = (Vec::new(), Vec::new());
    for entry in passwd.lines() {
        let fields: Vec<&str> = entry.split(':').collect();
        let (Some(name), Some(home)) = (fields.first(), fields.get(5)) else { continue };
        for file in FILES {
            let below = Path::new(home.trim_start_matches('/')).join(file);
            match read(&root.join(&below)) {
                Ok(Some((text, changed))) => {
                    let days = now.saturating_sub(changed) / DAY;
                    lines.extend(of_file(name, &Path::new("/").join(below), &text, days, known));
                }
                Ok(None) => {}
                Err(error) => unread.push(format!("{error:#}")),
            }
        }
    }
    let mut opens: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in &lines {
        if let Some(print) = &line.fingerprint {
            opens.entry(print.clone()).or_default().push(line.os_user.clone());
        }
    }
    for line in &mut lines {
        if let Some(names) = line.fingerprint.as_ref().and_then(|print| opens.get_mut(print)) {
            names.sort();
            names.dedup();
            line.accounts = names.len();
        }
    }
    Ok((lines, unread))
}

/// Reads a regular file and when it was changed, in seconds since 1970; `None`: it is not there.
fn read(path: &Path) -> anyhow::Result<Option<(String, u64)>> {
    let shown = path.display();
    // A pipe that an account's owner put there must not hold the report up.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Err(error) if [std::io::ErrorKind::NotFound, std::io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        other => other.with_context(|| format!("failed to open {shown}"))?,
    };
    let meta = file.metadata().with_context(|| format!("failed to look at {shown}"))?;
    anyhow::ensure!(meta.is_file() && meta.len() <= MAX_FILE, "{shown} is no regular file of at most 1 MiB");
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).with_context(|| format!("failed to read {shown}"))?;
    Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), meta.mtime().unsigned_abs())))
}

fn of_file(name: &str, file: &Path, text: &str, days: u64, known: &[String]) -> Vec<Line> {
    let line = |(at, text): (usize, &str)| {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (options, key) = split(text);
        let print = key.as_ref().map(|key| key.fingerprint().to_string());
        Some(Line {
            os_user: name.to_owned(),
            file: file.to_owned(),
            line: at + 1,
            key_type: key.as_ref().map(|key| key.kind().as_str().to_owned()),
            known: print.as_ref().is_some_and(|print| known.contains(print)),
            comment: key.as_ref().map(|key| key.comment().to_owned()).unwrap_or_default(),
            fingerprint: print,
            options,
            days,
            accounts: 0,
        })
    };
    text.lines().enumerate().filter_map(line).take(MAX_LINES).collect()
}

/// Splits a line into what stands before the key and the key. Options hold blanks only inside quotes (sshd(8)).
fn split(line: &str) -> (String, Option<PublicKey>) {
    let line = line.trim();
    if let Ok(key) = PublicKey::parse(line) {
        return (String::new(), Some(key));
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, rest) = line.split_at(at);
                return (options.to_owned(), PublicKey::parse(rest.trim()).ok());
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    (line.chars().take(64).collect(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

    #[test]
    fn lines_are_told_with_owner_options_and_how_many_accounts_they_open() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nkim:x:1000:1000::/home/kim:/bin/sh\nbroken\nlee:x:1:1::/home/none:/bin/sh\n",
        );
        write("root/.ssh/authorized_keys", &format!("# comment\n{ONE} kim@laptop\n\nnot a key\n"));
        write("home/kim/.ssh/authorized_keys", &format!("from=\"10.0.0.0/8\",command=\"echo \\\" x\" {ONE}\n"));
        write("home/kim/.ssh/authorized_keys2", &format!("{OTHER} old\n"));
        let known = [PublicKey::parse(OTHER).unwrap().fingerprint().to_string()];
        let (lines, unread) = collect(root.path(), &known, u64::MAX / 2).unwrap();
        assert!(unread.is_empty());
        let told: Vec<_> =
            lines.iter().map(|line| (line.os_user.as_str(), line.line, line.accounts, line.known)).collect();
        assert_eq!(told, [("root", 2, 2, false), ("root", 4, 0, false), ("kim", 1, 2, false), ("kim", 1, 1, true)]);
        assert_eq!(lines[0].comment, "kim@laptop");
        assert_eq!(lines[1].fingerprint, None);
        assert_eq!(lines[2].options, "from=\"10.0.0.0/8\",command=\"echo \\\" x\"");
        assert!(lines.iter().all(|line| line.days > 1000));
    }

    #[test]
    fn a_pipe_or_a_directory_in_the_place_of_a_file_is_a_problem_and_no_wait() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc")).unwrap();
        fs::write(root.path().join("etc/passwd"), "kim:x:1000:1000::/kim:/bin/sh\n").unwrap();
        fs::create_dir_all(root.path().join("kim/.ssh/authorized_keys")).unwrap();
        nix::unistd::mkfifo(&root.path().join("kim/.ssh/authorized_keys2"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (lines, unread) = collect(root.path(), &[], 0).unwrap();
        assert_eq!((lines.len(), unread.len()), (0, 2), "{unread:?}");
    }
}
