//! The node's own configuration, `agent.toml` in the data directory; optional, strict (T-87).

mod instance_connect;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use munjigi_core::grant::valid_os_user;
use munjigi_core::id::NodeId;
use munjigi_core::session::environment_allowed;
use nix::unistd::Uid;
use serde::Deserialize;

use crate::destinations::Rule;
use crate::identity::DataDir;

use instance_connect::InstanceConnect;

/// Largest file in bytes (T-87).
const MAX_FILE: u64 = 1024 * 1024;
/// Longest path of a socket in bytes; the system takes 107.
const MAX_SOCKET_PATH: usize = 100;

/// Most entries of `denied_destinations`; they travel to the link half in one message.
pub(crate) const MAX_DENIED: usize = 128;

/// What the node's administrator may set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// User that the link half runs as when the agent is root; default `munjigi`, `_munjigi` or `nobody`.
    pub(crate) link_user: Option<String>,
    /// The only OS users that sessions may run as, whatever the server says; absent: no veto.
    pub(crate) allowed_users: Option<Vec<String>>,
    /// Whether `ssm-user`, the OS user of sessions for which nobody names another, is made (by `useradd`, without rights)
    /// when it is missing and the agent is root; default true.
    pub(crate) create_default_user: bool,
    /// Environment of every session, by the same allow-list as the client's (`LANG`, `LC_*`, `TZ`).
    pub(crate) environment: std::collections::BTreeMap<String, String>,
    /// Whether sessions on a terminal stand in the system's utmp, wtmp and lastlog, where it has them; default true.
    pub(crate) login_records: bool,
    /// Where sshd's helper asks for pushed keys; default `/run/munjigi/NODE.sock` for root, else `keys.sock` in the
    /// data directory. An absolute path of at most 100 bytes.
    pub(crate) keys_socket: Option<PathBuf>,
    /// How long sshd is told the keys that the server named last while the server is away, in hours; 1 to 720, default 24.
    pub(crate) offline_grace_hours: u32,
    /// Accounts that no key of the server's is good for; for `ec2-user`, `ansible` and whoever else must not wait for or
    /// depend on it.
    pub(crate) local_users: Vec<String>,
    /// Where the node's sshd writes its logins: `auto` (the journal, else the auth log), `off`, or the path of a log;
    /// default `auto`. Only root reads the journal and the system's log.
    pub(crate) sshd_log: SshdLog,
    /// The public host key of the node's sshd, which the server certifies; default
    /// `/etc/ssh/ssh_host_ed25519_key.pub`. An absolute path.
    pub(crate) ssh_host_key: PathBuf,
    /// Whether port sessions may be served at all; default true.
    pub(crate) forwarding: bool,
    /// Whether the server may make, change, lock and remove people's accounts on this node (`docs/accounts.md`); only
    /// for an agent that is root; default false.
    pub(crate) manage_accounts: bool,
    /// Group that marks the accounts of another system, whose members may be taken over: `iam-synced-users` of
    /// aws-ec2-ssh; default none.
    pub(crate) adopt_group: Option<String>,
    /// How long after a failure the work on accounts is tried again, in seconds; the time doubles up to an hour. 1 to 3600,
    /// default 60.
    pub(crate) account_retry_seconds: u32,
    /// Addresses that port sessions may not reach, beside those that no node reaches (T-58): `10.0.0.0/8`,
    /// `10.1.2.3:5432`, `[fd00::/8]:22`, `*:25`; at most 128.
    pub(crate) denied_destinations: Vec<String>,
    /// Keys that AWS itself pushes.
    pub(crate) instance_connect: InstanceConnect,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            link_user: None,
            allowed_users: None,
            create_default_user: true,
            environment: Default::default(),
            login_records: true,
            keys_socket: None,
            offline_grace_hours: 24,
            local_users: Vec::new(),
            sshd_log: SshdLog::Auto,
            ssh_host_key: PathBuf::from("/etc/ssh/ssh_host_ed25519_key.pub"),
            forwarding: true,
            manage_accounts: false,
            adopt_group: None,
            account_retry_seconds: 60,
            denied_destinations: Vec::new(),
            instance_connect: InstanceConnect::default(),
        }
    }
}

/// Lets the server manage this node's accounts: writes it into `agent.toml`, before what stands there. A file that says
/// otherwise is its owner's word and stays.
pub(crate) fn allow_accounts(data: &DataDir) -> anyhow::Result<()> {
    const NAME: &str = "agent.toml";
    let config = load(data)?;
    if config.manage_accounts {
        return Ok(());
    }
    let present = match std::fs::read_to_string(data.path(NAME)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context("failed to read agent.toml"),
    };
    let table: toml::Table = present.parse().context("agent.toml is no TOML")?;
    if table.contains_key("manage_accounts") {
        bail!("agent.toml says `manage_accounts = false`; change it there");
    }
    data.write(NAME, format!("manage_accounts = true\n{present}").as_bytes())
}

impl Config {
    /// Returns where sshd's helper asks for keys.
    pub(crate) fn keys_socket_path(&self, data: &DataDir, node: &NodeId) -> PathBuf {
        match &self.keys_socket {
            Some(path) => path.clone(),
            // Others than root must reach it, and the data directory is closed to them.
            None if Uid::effective().is_root() => PathBuf::from(format!("/run/munjigi/{node}.sock")),
            None => data.path("keys.sock"),
        }
    }
}

/// Where sshd's logins are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum SshdLog {
    /// The journal if there is one, else the auth log if there is one.
    Auto,
    /// Nowhere.
    Off,
    /// In this file.
    File(PathBuf),
}

impl TryFrom<String> for SshdLog {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            path if path.starts_with('/') => Ok(Self::File(PathBuf::from(path))),
            _ => Err("`sshd_log` is auto, off or the absolute path of a log"),
        }
    }
}

/// Reads the configuration; an absent file is the default.
pub(crate) fn load(data: &DataDir) -> anyhow::Result<Config> {
    let path = data.path("agent.toml");
    let shown = path.display();
    let meta = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        other => other.with_context(|| format!("failed to look at {shown}"))?,
    };
    if !meta.is_file() || meta.len() > MAX_FILE {
        bail!("{shown} is no regular file of at most 1 MiB");
    }
    let owner_good = meta.uid() == 0 || meta.uid() == Uid::effective().as_raw();
    if !owner_good || meta.mode() & 0o022 != 0 {
        bail!("{shown} must belong to root or the agent's user and be writable for nobody else");
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read {shown}"))?;
    parse(&text).with_context(|| format!("{shown} is not a good configuration"))
}

fn parse(text: &str) -> anyhow::Result<Config> {
    let config: Config = toml::from_str(text)?;
    for user in config.allowed_users.iter().flatten().chain(&config.link_user).chain(&config.adopt_group) {
        if !valid_os_user(user) {
            bail!("`{}` is not the name of an OS user", user.escape_default());
        }
    }
    config.instance_connect.check()?;
    if !(1..=3600).contains(&config.account_retry_seconds) {
        bail!("`account_retry_seconds` is 1 to 3600");
    }
    if !(1..=720).contains(&config.offline_grace_hours) {
        bail!("`offline_grace_hours` is 1 to 720");
    }
    let usable = |path: &PathBuf| path.is_absolute() && path.as_os_str().len() <= MAX_SOCKET_PATH;
    if !config.ssh_host_key.is_absolute() {
        bail!("`ssh_host_key` must be an absolute path");
    }
    if config.keys_socket.as_ref().is_some_and(|path| !usable(path)) {
        bail!("`keys_socket` must be an absolute path of at most {MAX_SOCKET_PATH} bytes");
    }
    for (name, value) in &config.environment {
        if name == "TERM" || !environment_allowed(name, value) {
            bail!("environment variable `{}` may not be set here; LANG, LC_* and TZ may", name.escape_default());
        }
    }
    if config.denied_destinations.len() > MAX_DENIED {
        bail!("denied_destinations has more than {MAX_DENIED} entries");
    }
    for rule in &config.denied_destinations {
        if Rule::parse(rule).is_none() {
            bail!(
                "`{}` is no destination; write 10.0.0.0/8, 10.1.2.3:5432, [fd00::/8]:22 or *:25",
                rule.escape_default()
            );
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_configuration_is_read() {
        let config =
            parse("link_user = 'nobody'\nallowed_users = ['alice', 'deploy']\n[environment]\nLANG = 'ko_KR.UTF-8'\n")
                .unwrap();
        assert_eq!(config.link_user.as_deref(), Some("nobody"));
        assert_eq!(config.allowed_users.unwrap().len(), 2);
        assert_eq!(parse("").unwrap(), Config::default());
        assert!(parse("forwarding = false\ndenied_destinations = ['10.0.0.0/8', '*:25']").is_ok());
        let aws = parse("[instance_connect]\naws = true").unwrap().instance_connect;
        assert_eq!((aws.aws, aws.metadata_url.0.to_string().as_str()), (true, "169.254.169.254:80"));
        let aws = parse("[instance_connect]\nmetadata_url = 'http://[fd00:ec2::254]:81/'").unwrap().instance_connect;
        assert_eq!((aws.aws, aws.metadata_url.0.to_string().as_str()), (false, "[fd00:ec2::254]:81"));
    }

    #[test]
    fn accounts_are_managed_only_where_the_owner_says_so() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::new(&temporary.path().join("agent"));
        data.create().unwrap();
        assert!(!load(&data).unwrap().manage_accounts);
        data.write("agent.toml", b"forwarding = false\n[environment]\nLANG = 'C'\n").unwrap();
        allow_accounts(&data).unwrap();
        allow_accounts(&data).unwrap();
        let config = load(&data).unwrap();
        assert!(config.manage_accounts && !config.forwarding);
        data.write("agent.toml", b"manage_accounts = false\n").unwrap();
        assert!(allow_accounts(&data).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("allowed_user = ['alice']", "allowed_user"),
            ("allowed_users = ['Alice']", "Alice"),
            ("link_user = 3", "link_user"),
            ("keys_socket = 'keys.sock'", "keys_socket"),
            ("ssh_host_key = 'key.pub'", "ssh_host_key"),
            ("offline_grace_hours = 0", "offline_grace_hours"),
            ("account_retry_seconds = 0", "account_retry_seconds"),
            ("account_retry_seconds = 3601", "account_retry_seconds"),
            ("offline_grace_hours = 721", "offline_grace_hours"),
            ("sshd_log = 'log'", "sshd_log"),
            ("link_user = 'a'\nlink_user = 'b'", "duplicate"),
            ("[environment]\nLD_PRELOAD = 'x'", "LD_PRELOAD"),
            ("[environment", "environment"),
            ("denied_destinations = ['db.internal']", "db.internal"),
            ("[instance_connect]\nasw = true", "asw"),
            ("[instance_connect]\nmetadata_url = 'http://metadata/'", "metadata_url"),
            ("[instance_connect]\nmetadata_url = 'https://169.254.169.254'", "metadata_url"),
            ("[instance_connect]\nmetadata_url = 'http://169.254.169.254/latest'", "metadata_url"),
            ("[instance_connect]\nmetadata_url = 'http://a:b@169.254.169.254'", "metadata_url"),
            ("[instance_connect]\ntrust_file = 'roots.pem'", "trust_file"),
            ("[instance_connect]\nhardware = 'sys'", "hardware"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
