//! The lines by which an older system had sshd ask it for keys: found and commented out, wherever in sshd's settings they
//! stand, also behind `Match` where old installers put them (L14). Other people's lines stay as they are.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::System;

/// What a line is made of that sshd is not to read any more.
const MARK: &str = "# munjigi migrate: ";
/// Most bytes of a settings file.
const MAX_BYTES: u64 = 1024 * 1024;

/// A settings file and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// The file, with links resolved.
    pub(super) path: PathBuf,
    /// Its text without the lines.
    pub(super) text: String,
    /// The lines.
    pub(super) lines: Vec<String>,
}

impl System {
    /// Returns the file name of the command that sshd ran for this system.
    fn command(self) -> &'static str {
        match self {
            Self::Widdix | Self::Andromedarabbit => "authorized_keys_command.sh",
            Self::KeyManager => "authorizedkeys-command",
            Self::Eic => "eic_run_authorized_keys",
        }
    }
}

/// Returns the files below a root that have such lines.
pub(super) fn find(root: &Path, system: System) -> Vec<Edit> {
    let directory = root.join("etc/ssh");
    let below = fs::read_dir(directory.join("sshd_config.d")).into_iter().flatten();
    let mut below: Vec<PathBuf> = below
        .flatten()
        .map(|entry| entry.path())
        // Ours is written anew, without the old command behind it.
        .filter(|path| path.extension().is_some_and(|end| end == "conf") && !path.ends_with("00-munjigi.conf"))
        .collect();
    below.sort();
    let files = std::iter::once(directory.join("sshd_config")).chain(below);
    let edit = |file: PathBuf| {
        // On CoreOS it is a link to a copy below /opt.
        let path = fs::canonicalize(file).ok()?;
        let meta = fs::metadata(&path).ok().filter(|meta| meta.is_file() && meta.len() <= MAX_BYTES);
        let text = fs::read_to_string(meta.map(|_| &path)?).ok()?;
        let (text, lines) = without(&text, system.command());
        (!lines.is_empty()).then_some(Edit { path, text, lines })
    };
    files.filter_map(edit).collect()
}

/// Comments out the lines that have sshd run a command of that file name, and as whom. Returns the lines.
fn without(text: &str, command: &str) -> (String, Vec<String>) {
    let mut block = 0;
    let numbered = text.split_inclusive('\n').map(|line| {
        let setting = setting(line);
        block += usize::from(setting.as_ref().is_some_and(|(keyword, _)| keyword == "match"));
        (block, line, setting)
    });
    let lines: Vec<_> = numbered.collect();
    let is_old = |value: &str| {
        let program = value.trim_start_matches('"').split([' ', '\t', '"']).next().unwrap_or_default();
        program.rsplit('/').next() == Some(command)
    };
    let with_command = |wanted: bool| -> BTreeSet<usize> {
        let commands = lines.iter().filter_map(|(block, _, setting)| Some((*block, setting.as_ref()?)));
        let commands = commands.filter(|(_, (keyword, _))| keyword == "authorizedkeyscommand");
        commands.filter(|(_, (_, value))| is_old(value) == wanted).map(|(block, _)| block).collect()
    };
    let (old, others) = (with_command(true), with_command(false));
    let (mut kept, mut taken) = (String::new(), Vec::new());
    for (block, line, setting) in &lines {
        let goes = setting.as_ref().is_some_and(|(keyword, value)| match keyword.as_str() {
            "authorizedkeyscommand" => is_old(value),
            // It belongs to the command, unless another one of the same block needs it.
            "authorizedkeyscommanduser" => old.contains(block) && !others.contains(block),
            _ => false,
        });
        if goes {
            kept.push_str(MARK);
            taken.push(line.trim().to_owned());
        }
        kept.push_str(line);
    }
    (kept, taken)
}

/// Reads a line as sshd does: keyword, then blanks or `=`, then the value (sshd_config(5)).
fn setting(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find([' ', '\t', '=']).unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let value = rest.trim_start_matches([' ', '\t']);
    let value = value.strip_prefix('=').unwrap_or(value).trim_start_matches([' ', '\t']);
    Some((keyword.to_ascii_lowercase(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_wherever_they_stand_and_those_of_others_stay() {
        let text = "Port 22\n#AuthorizedKeysCommand none\nAuthorizedKeysCommand /usr/bin/sss_ssh_authorizedkeys\n\
                    AuthorizedKeysCommandUser sssd\nMatch User git\n  authorizedkeyscommand=\"/srv/git keys\"\n\
                    Match Group x\nX11Forwarding no\n\tAuthorizedKeysCommand /opt/authorized_keys_command.sh\n\
                    AuthorizedKeysCommandUser nobody";
        let (kept, lines) = without(text, System::Widdix.command());
        assert_eq!(
            lines,
            ["AuthorizedKeysCommand /opt/authorized_keys_command.sh", "AuthorizedKeysCommandUser nobody"]
        );
        assert_eq!(kept.replace(MARK, ""), text, "nothing but the mark is new");
        assert!(kept.contains("\nAuthorizedKeysCommandUser sssd\n"));
        assert!(kept.ends_with("# munjigi migrate: AuthorizedKeysCommandUser nobody"));
        // Once is enough.
        assert_eq!(without(&kept, System::Widdix.command()), (kept.clone(), Vec::new()));
    }

    #[test]
    fn the_user_stays_if_another_command_of_its_block_needs_it() {
        let text = "AuthorizedKeysCommand /usr/bin/other %u\nAuthorizedKeysCommand /root/bin/authorizedkeys-command %u %k\n\
                    AuthorizedKeysCommandUser root\n";
        let (kept, lines) = without(text, System::KeyManager.command());
        assert_eq!(lines, ["AuthorizedKeysCommand /root/bin/authorizedkeys-command %u %k"]);
        assert!(kept.contains("\nAuthorizedKeysCommandUser root\n"));
        let quoted = "AuthorizedKeysCommand \"/opt/authorized_keys_command.sh\" %u\n";
        assert_eq!(without(quoted, System::Andromedarabbit.command()).1.len(), 1);
        assert!(without(quoted, System::Eic.command()).1.is_empty());
        assert!(without("", "x").1.is_empty());
    }
}
