//! key-manager's bucket: `GROUP/authorized_keys`, whose keys opened every account. Here each group names the accounts that
//! its keys open (L18, R23).

use std::path::Path;

use anyhow::{Context as _, bail};
use munjigi_core::account::rule::{KeyFileSettings, Place};
use munjigi_core::ssh::key_options::KeyLine;

use super::{Findings, PutKeyFile};
use crate::client::credentials::read_bounded;
use crate::command::account::key_lines;

/// The wrapper that sshd called; its flags say where the keys were.
const WRAPPER: &str = "root/bin/authorizedkeys-command";
const FLAGS: [&str; 3] = ["s3_bucket", "s3_region", "group_tag"];

/// Reads the copy of the bucket.
pub(super) fn read(
    root: &Path,
    keys: Option<&Path>,
    map: &[(String, Vec<String>)],
    nodes: &[Place],
) -> anyhow::Result<Findings> {
    let mut findings = Findings::default();
    let flags = std::fs::read_to_string(root.join(WRAPPER)).map(|text| flags(&text)).unwrap_or_default();
    for (name, value) in &flags {
        findings.notes.push(format!("the old wrapper had -{name}={value}"));
    }
    let Some(keys) = keys else {
        let bucket = flags.iter().find(|(name, _)| name == "s3_bucket").map_or("BUCKET", |(_, value)| value.as_str());
        bail!("give a copy of the bucket with --keys-dir; `aws s3 sync s3://{bucket} DIR` makes one");
    };
    let mut groups: Vec<String> = std::fs::read_dir(keys)
        .with_context(|| format!("failed to look into {}", keys.display()))?
        .flatten()
        .filter(|entry| entry.path().join("authorized_keys").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    groups.sort();
    let unmapped: Vec<&str> =
        groups.iter().map(String::as_str).filter(|group| !map.iter().any(|(name, _)| name == group)).collect();
    if !unmapped.is_empty() {
        bail!("say which accounts the keys of these groups open, with --map GROUP=NAME: {}", unmapped.join(", "));
    }
    for group in groups {
        let text = read_bounded(&keys.join(&group).join("authorized_keys"))?;
        let (good, bad): (Vec<String>, Vec<String>) =
            key_lines(&text).into_iter().partition(|line| KeyLine::parse(line).is_ok());
        if !bad.is_empty() {
            findings.notes.push(format!(
                "{} lines of group {group} are no keys that are taken (other options, or other kinds) and were left out",
                bad.len()
            ));
        }
        let os_users: Vec<String> =
            map.iter().filter(|(name, _)| *name == group).flat_map(|(_, names)| names.clone()).collect();
        let key_file = KeyFileSettings { os_users, nodes: nodes.to_vec(), keys: good };
        key_file.check().with_context(|| format!("the keys of group {group} cannot be taken over"))?;
        findings.key_files.push(PutKeyFile { name: group, key_file });
    }
    Ok(findings)
}

/// Finds `-flag=value` in the wrapper's text.
fn flags(text: &str) -> Vec<(String, String)> {
    let words = text.split_whitespace().filter_map(|word| word.trim_start_matches('-').split_once('='));
    let known = words.filter(|(name, _)| FLAGS.contains(name));
    known.map(|(name, value)| (name.to_owned(), value.trim_matches(['"', '\'']).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f kim";

    #[test]
    fn a_group_without_accounts_is_refused_and_options_are_kept_if_they_narrow() {
        let directory = tempfile::tempdir().unwrap();
        let wrapper = directory.path().join("root/bin");
        std::fs::create_dir_all(&wrapper).unwrap();
        let line = "docker run --rm alexrudd/key-manager:latest -u $1 -s3_bucket=keys -group_tag=\"access-groups\"";
        std::fs::write(wrapper.join("authorizedkeys-command"), line).unwrap();
        let missing = read(directory.path(), None, &[], &[Place::All]).unwrap_err().to_string();
        assert!(missing.contains("s3://keys"), "{missing}");
        let keys = directory.path().join("keys/ops");
        std::fs::create_dir_all(&keys).unwrap();
        std::fs::write(
            keys.join("authorized_keys"),
            format!("# Group\n{KEY}\ncommand=\"x\" {KEY}\nenvironment=\"A=b\" {KEY}\n"),
        )
        .unwrap();
        let keys = directory.path().join("keys");
        let refused = read(directory.path(), Some(&keys), &[], &[Place::All]).unwrap_err().to_string();
        assert!(refused.contains("ops"), "{refused}");
        let map = [("ops".to_owned(), vec!["deploy".to_owned()])];
        let found = read(directory.path(), Some(&keys), &map, &[Place::All]).unwrap();
        assert_eq!(found.key_files[0].key_file.keys, [KEY.to_owned(), format!("command=\"x\" {KEY}")]);
        assert!(found.notes.iter().any(|note| note.contains("1 lines")), "{:?}", found.notes);
        assert!(found.notes.iter().any(|note| note.contains("access-groups")), "{:?}", found.notes);
    }
}
