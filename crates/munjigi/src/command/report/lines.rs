//! The lines of authorized_keys files, and what is to be said of each: read as data; what stands before a key (options)
//! is shown and not judged.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use munjigi_core::ssh::{Fingerprint, PublicKey, PublicKeyError};
use serde::Serialize;

use super::{Keys, Known};

/// Most bytes of a file that are read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most lines of a file that are reported.
const MAX_LINES: usize = 10_000;
/// Where sshd looks by default (sshd_config(5), AuthorizedKeysFile).
const FILES: [&str; 2] = [".ssh/authorized_keys", ".ssh/authorized_keys2"];
const DAY: u64 = 86_400;

/// One line.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Line {
    /// The account that it opens.
    pub(super) os_user: String,
    /// The file.
    pub(super) file: PathBuf,
    /// Its number in the file.
    pub(super) line: usize,
    /// The key's type; absent if the line is no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_type: Option<String>,
    /// `SHA256:…`; absent if the line is no key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    /// What stands behind the key.
    pub(super) comment: String,
    /// What stands before the key.
    pub(super) options: String,
    /// Days since the file was changed: the line is at least that old, unless the clock was set.
    pub(super) days: u64,
    /// How many accounts of this host the key opens.
    pub(super) accounts: usize,
    /// How often the key stands in the files of this account.
    pub(super) times: usize,
    /// `registered`, `inactive`, `known`, `unknown` or `no key`.
    pub(super) standing: &'static str,
    /// The user who registered the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registered_by: Option<String>,
    /// The registered key's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_id: Option<String>,
    /// Why the key is too weak to be taken by Munjigi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weak: Option<String>,
}

/// A key that stands in a line, also one that is too weak to be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    kind: String,
    /// `SHA256:…`.
    pub(super) fingerprint: String,
    comment: String,
    weak: Option<String>,
}

impl Found {
    fn parse(text: &str) -> Option<Self> {
        match PublicKey::parse(text) {
            Ok(key) => Some(Self {
                kind: key.kind().as_str().to_owned(),
                fingerprint: key.fingerprint().to_string(),
                comment: key.comment().to_owned(),
                weak: None,
            }),
            Err(error @ (PublicKeyError::Dsa | PublicKeyError::RsaSize(_))) => {
                let mut words = text.splitn(3, [' ', '\t']);
                let (kind, blob) = (words.next()?, STANDARD.decode(words.next()?).ok()?);
                let weak = match error {
                    PublicKeyError::RsaSize(bits) => format!("weak: RSA with {bits} bits"),
                    _ => "weak: DSA".to_owned(),
                };
                Some(Self {
                    kind: kind.to_owned(),
                    fingerprint: Fingerprint::of(&blob).to_string(),
                    comment: words.next().unwrap_or_default().trim().to_owned(),
                    weak: Some(weak),
                })
            }
            Err(_) => None,
        }
    }
}

/// Reads every account's files; returns the lines, and what could not be read.
pub(super) fn collect(root: &Path, keys: &Keys, now: u64) -> anyhow::Result<(Vec<Line>, Vec<String>)> {
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
                    lines.extend(of_file(name, &Path::new("/").join(below), &text, days, keys));
                }
                Ok(None) => {}
                Err(error) => unread.push(format!("{error:#}")),
            }
        }
    }
    // How often each key stands in each account's files.
    let mut opens: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for line in &lines {
        if let Some(print) = &line.fingerprint {
            *opens.entry(print.clone()).or_default().entry(line.os_user.clone()).or_default() += 1;
        }
    }
    for line in &mut lines {
        if let Some(accounts) = line.fingerprint.as_ref().and_then(|print| opens.get(print)) {
            line.accounts = accounts.len();
            line.times = accounts.get(&line.os_user).copied().unwrap_or_default();
        }
    }
    Ok((lines, unread))
}

/// Reads a regular file and when it was changed, in seconds since 1970; `None`: it is not there.
pub(super) fn read(path: &Path) -> anyhow::Result<Option<(String, u64)>> {
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

fn of_file(name: &str, file: &Path, text: &str, days: u64, keys: &Keys) -> Vec<Line> {
    let line = |(at, text): (usize, &str)| {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return None;
        }
        let (options, found) = found_in(text);
        let known = found.as_ref().map(|found| keys.get(&found.fingerprint));
        let (standing, registered_by, key_id) = match known {
            None => ("no key", None, None),
            Some(None) => ("unknown", None, None),
            Some(Some(Known::ByFile)) => ("known", None, None),
            Some(Some(Known::Registered { user, key_id, active })) => {
                (if *active { "registered" } else { "inactive" }, Some(user.clone()), Some(key_id.clone()))
            }
        };
        let (os_user, file, line) = (name.to_owned(), file.to_owned(), at + 1);
        let (key_type, fingerprint, comment, weak) = match found {
            Some(found) => (Some(found.kind), Some(found.fingerprint), found.comment, found.weak),
            None => (None, None, String::new(), None),
        };
        let (accounts, times) = (0, 0);
        Some(Line {
            os_user,
            file,
            line,
            key_type,
            fingerprint,
            comment,
            options,
            days,
            accounts,
            times,
            standing,
            registered_by,
            key_id,
            weak,
        })
    };
    text.lines().enumerate().filter_map(line).take(MAX_LINES).collect()
}

/// Splits a line into what stands before the key and the key. Options hold blanks only inside quotes (sshd(8)).
pub(super) fn found_in(line: &str) -> (String, Option<Found>) {
    let line = line.trim();
    if let Some(found) = Found::parse(line) {
        return (String::new(), Some(found));
    }
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => {
                let (options, rest) = line.split_at(at);
                return (options.to_owned(), Found::parse(rest.trim()));
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

    /// The line of an RSA key of 1024 bits.
    fn small_rsa() -> String {
        let mut blob = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01\0\0\0\x81\0".to_vec();
        blob.extend([0xff; 128]);
        format!("ssh-rsa {} tiny", STANDARD.encode(blob))
    }

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
        write("home/kim/.ssh/authorized_keys2", &format!("{OTHER} old\n{OTHER} again\n{}\n", small_rsa()));
        let print = |line: &str| PublicKey::parse(line).unwrap().fingerprint().to_string();
        let registered = Known::Registered { user: "lee".to_owned(), key_id: "APKA1".to_owned(), active: true };
        let keys = Keys::from([(print(OTHER), registered), (print(ONE), Known::ByFile)]);
        let (lines, unread) = collect(root.path(), &keys, u64::MAX / 2).unwrap();
        assert!(unread.is_empty());
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line.os_user.as_str(), line.line, line.accounts, line.times, line.standing))
            .collect();
        let expected = [
            ("root", 2, 2, 1, "known"),
            ("root", 4, 0, 0, "no key"),
            ("kim", 1, 2, 1, "known"),
            ("kim", 1, 1, 2, "registered"),
            ("kim", 2, 1, 2, "registered"),
            ("kim", 3, 1, 1, "unknown"),
        ];
        assert_eq!(told, expected);
        assert_eq!((lines[3].registered_by.as_deref(), lines[3].key_id.as_deref()), (Some("lee"), Some("APKA1")));
        assert_eq!(lines[5].weak.as_deref(), Some("weak: RSA with 1024 bits"));
        assert!(lines[5].fingerprint.as_ref().is_some_and(|print| print.starts_with("SHA256:")));
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
        let (lines, unread) = collect(root.path(), &Keys::new(), 0).unwrap();
        assert_eq!((lines.len(), unread.len()), (0, 2), "{unread:?}");
    }
}
