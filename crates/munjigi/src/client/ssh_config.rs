//! What ssh has to be told of our nodes: a block of `ssh_config`, and the keys that vouch for hosts.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use munjigi_core::command_line::quoted;
use munjigi_core::ssh::login_name::{ANY_USER, HOST_SUFFIX, PASSTHROUGH_SUFFIX};
use url::Url;

use super::context::Surroundings;
use crate::cli::Where;

/// The host's name as it was typed, in a command of ssh's.
const NAME: &str = "'%n'";

/// Where ssh's files are.
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    /// Finds their place.
    pub(crate) fn find(around: &Surroundings) -> anyhow::Result<Self> {
        let directory = around.ssh_dir().context("there is no place for ssh's files: HOME is not set")?;
        Ok(Self { directory })
    }

    /// Returns the file with the keys that vouch for hosts.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// Returns the configuration that a person's own includes.
    pub(crate) fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// Returns a configuration for one run of ssh, named by its content.
    pub(crate) fn config_of(&self, content: &str) -> PathBuf {
        // FNV-1a: runs with other settings must not change each other's file, and nothing secret is in it.
        let hash = content
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.directory.join(format!("run-{hash:016x}"))
    }
}

/// The other end of a connection to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FarEnd {
    /// The server, which records.
    Server,
    /// The node's own sshd.
    OwnSshd,
}

/// How a connection to the host comes about that ssh was asked for.
pub(crate) struct HostSettings {
    /// ssh's `ProxyCommand`.
    pub(crate) proxy_command: String,
    /// What `UserKnownHostsFile` has to name; the command keeps it.
    known_hosts: String,
}

/// Returns what ssh needs to come to one far end.
pub(crate) fn settings(place: &Where, files: &Files, far_end: FarEnd) -> anyhow::Result<HostSettings> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let word = |path: &Path| -> anyhow::Result<String> {
        let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(quoted(text).replace('%', "%%"))
    };
    let mut words = vec![word(&program)?, "ssh".to_owned()];
    if let Some(data_dir) = &place.data_dir {
        let whole = fs::canonicalize(data_dir).with_context(|| format!("cannot find {}", data_dir.display()))?;
        words.extend(["--data-dir".to_owned(), word(&whole)?]);
    }
    if let Some(profile) = &place.profile {
        words.extend(["--profile".to_owned(), quoted(profile).replace('%', "%%")]);
    }
    let (known, named) = match far_end {
        FarEnd::Server => (files.known_hosts(), ""),
        // A file for each host, as the key in it is the host's own.
        FarEnd::OwnSshd => (files.directory.join("own-sshd-"), "%n"),
    };
    // ssh hands the line to a shell. Its newer versions refuse names that mean something there; for older ones they are
    // quoted, as a name may come from a link or a repository.
    let quoted_name = if named.is_empty() { "" } else { NAME };
    words.extend(["--known-hosts".to_owned(), word(&known)? + quoted_name]);
    if far_end == FarEnd::OwnSshd {
        words.push("--passthrough".to_owned());
    }
    words.extend(["--stdio".to_owned(), NAME.to_owned()]);
    Ok(HostSettings { proxy_command: words.join(" "), known_hosts: config_word(&known, named) })
}

/// Writes the configuration for nodes (`NODE.munjigi`), for the server itself, and for nodes behind a jump through it,
/// which are `behind`: names or patterns that [`is_pattern`] takes.
pub(crate) fn block(endpoint: &Url, recorded: &HostSettings, own_sshd: &HostSettings, behind: &[String]) -> String {
    let known = &recorded.known_hosts;
    let mut text = format!(
        "# Munjigi's nodes, as NODE{HOST_SUFFIX}. `User {ANY_USER}` is the OS user that policy gives you; ssh OSUSER@NODE{HOST_SUFFIX}\n\
         # names another one. For connections without a handshake each, add:\n\
         #     ControlMaster auto\n\
         #     ControlPath ~/.ssh/%C\n\
         #     ControlPersist 10m\n\
         Host *{HOST_SUFFIX} !*{PASSTHROUGH_SUFFIX}{HOST_SUFFIX}\n\
         \x20   ProxyCommand {recorded_command}\n\
         \x20   UserKnownHostsFile {known}\n\
         \x20   StrictHostKeyChecking yes\n\
         \x20   User {ANY_USER}\n\
         # A node's own sshd, as NODE{PASSTHROUGH_SUFFIX}{HOST_SUFFIX}: audited, not recorded, and users and keys are its own.\n\
         Host *{PASSTHROUGH_SUFFIX}{HOST_SUFFIX}\n\
         \x20   ProxyCommand {own_command}\n\
         \x20   UserKnownHostsFile ~/.ssh/known_hosts {own_known}\n",
        recorded_command = recorded.proxy_command,
        own_command = own_sshd.proxy_command,
        own_known = own_sshd.known_hosts,
    );
    if let Some(host) = endpoint.host_str() {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = endpoint.port_or_known_default().unwrap_or(443);
        text.push_str(&format!(
            "# The server itself, for keys and certificates: ssh NODE@{host}, ssh -J {host} OSUSER@NODE\n\
             Host {host}\n\
             \x20   Port {port}\n\
             \x20   UserKnownHostsFile ~/.ssh/known_hosts {known}\n"
        ));
        if !behind.is_empty() {
            text.push_str(&format!(
                "# Nodes by their plain names, behind ssh -J {host}: who vouches for the server's nodes does so for these hosts only.\n\
                 Host {}\n\
                 \x20   UserKnownHostsFile ~/.ssh/known_hosts {known}\n",
                behind.join(" ")
            ));
        }
    }
    text
}

/// Tells whether a text can be a word of a `Host` line. Nothing else may stand there: it would be another line, or have a
/// server vouch for hosts that nobody named.
pub(crate) fn is_pattern(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-:*?!".contains(c);
    (1..=253).contains(&text.len()) && text.chars().all(plain)
}

/// Writes the configuration for one run of ssh, in which every host is a node.
pub(crate) fn for_a_run(settings: &HostSettings, far_end: FarEnd) -> String {
    let (known, before, after) = match far_end {
        FarEnd::Server => (
            settings.known_hosts.clone(),
            "    GlobalKnownHostsFile /dev/null\n    StrictHostKeyChecking yes\n",
            format!("Host *\n    User {ANY_USER}\n"),
        ),
        // Its host key may be unknown to the server; then ssh asks as ever, and remembers in the person's own file.
        FarEnd::OwnSshd => (format!("~/.ssh/known_hosts {}", settings.known_hosts), "", String::new()),
    };
    // The first value wins, so that the person's own settings come between what must hold and what is a default.
    format!(
        "Host *\n\
         \x20   ProxyCommand {}\n\
         \x20   HostName %h\n\
         \x20   UserKnownHostsFile {known}\n\
         {before}\
         \x20   Include ~/.ssh/config\n\
         \x20   Include /etc/ssh/ssh_config\n\
         {after}",
        settings.proxy_command
    )
}

/// Writes a file name, and what ssh shall put behind it, as ssh_config(5) reads it.
fn config_word(path: &Path, token: &str) -> String {
    let text = path.display().to_string().replace('%', "%%") + token;
    if text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// Writes a file that only its owner reads, unless it has that content already. It is whole at every moment.
pub(crate) fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|there| there == content.as_bytes()) {
        return Ok(());
    }
    let write = || {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let draft = path.with_extension(format!("{}.new", std::process::id()));
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a person's configuration include ours, in its first line: what stands before a `Host` holds for all.
pub(crate) fn include(person: &Path, ours: &Path) -> anyhow::Result<bool> {
    let line = format!("Include {}\n", config_word(ours, ""));
    let text = match fs::read_to_string(person) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", person.display())),
    };
    if text.lines().any(|there| there.trim() == line.trim()) {
        return Ok(false);
    }
    write(person, &format!("{line}{text}"))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_names_the_server_and_its_port() {
        let made = |command: &str, known: &str, token: &str| HostSettings {
            proxy_command: command.to_owned(),
            known_hosts: config_word(Path::new(known), token),
        };
        let (recorded, own) = (made("munjigi ssh --stdio %n", "/k h", ""), made("munjigi x", "/o 1%", "%n"));
        let of = |endpoint: &str| block(&Url::parse(endpoint).unwrap(), &recorded, &own, &["web-1".to_owned()]);
        let text = of("https://gate.example:8443");
        assert!(text.contains(
            "Host *.munjigi !*.passthrough.munjigi\n    ProxyCommand munjigi ssh --stdio %n\n    UserKnownHostsFile \"/k h\"\n"
        ));
        assert!(text.contains(
            "Host *.passthrough.munjigi\n    ProxyCommand munjigi x\n    UserKnownHostsFile ~/.ssh/known_hosts \"/o 1%%%n\"\n"
        ));
        assert!(text.contains("Host gate.example\n    Port 8443\n"));
        assert!(text.ends_with("Host web-1\n    UserKnownHostsFile ~/.ssh/known_hosts \"/k h\"\n"), "{text}");
        assert!(!block(&Url::parse("https://g").unwrap(), &recorded, &own, &[]).contains("plain names"));
        assert!(of("https://[::1]").contains("Host ::1\n    Port 443\n"));
    }

    #[test]
    fn a_name_adds_no_line() {
        for good in ["web-1", "mi-0123456789abcdef0", "db-*", "!web-9", "a.b", "fd00::1"] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "a b", "a\nHost *", "a\"b", "한", "a#b", &"a".repeat(254)] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }

    #[test]
    fn a_persons_configuration_includes_ours_once_and_keeps_the_rest() {
        let directory = tempfile::tempdir().unwrap();
        let person = directory.path().join(".ssh/config");
        assert!(include(&person, Path::new("/ours")).unwrap());
        assert!(!include(&person, Path::new("/ours")).unwrap());
        assert_eq!(fs::read_to_string(&person).unwrap(), "Include /ours\n");
        fs::write(&person, "Host a\n  User b\n").unwrap();
        assert!(include(&person, Path::new("/my ours")).unwrap());
        assert_eq!(fs::read_to_string(&person).unwrap(), "Include \"/my ours\"\nHost a\n  User b\n");
    }
}
