//! The server's settings: a strict TOML file (T-87) with a default for everything.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::num::NonZeroU64;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use munjigi_core::id::AccountId;
use serde::{Deserialize, Deserializer};

/// Largest settings file, bytes (T-87).
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most names of the server.
const MAX_NAMES: usize = 64;

/// The settings after defaults and checks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `HOST:PORT` to listen on; port 0 picks one and keeps it for later starts.
    pub listen: Option<String>,
    /// Names and addresses that clients and agents reach the server by, beside the ones it knows itself.
    pub names: Vec<String>,
    /// The region that stands in resource names.
    #[serde(deserialize_with = "region")]
    pub region: String,
    /// The account; `None` takes the one in the database, or a random one for a new database.
    pub account: Option<AccountId>,
    /// Regions accepted in credential scopes beside [`Config::region`]; empty accepts any.
    pub accepted_regions: Vec<String>,
    /// PEM file of root certificates for OpenID Connect providers, beside those that the system trusts.
    pub oidc_ca_file: Option<PathBuf>,
    /// Networks whose `X-Forwarded-For` is believed (T-47).
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Defaults for sessions.
    pub session: SessionDefaults,
    /// Which nodes there may be.
    pub nodes: NodeSettings,
    /// EC2 Instance Connect.
    pub instance_connect: InstanceConnect,
    /// SSH: the door, and certificates.
    pub ssh: SshSettings,
    /// How much the server takes on.
    pub limits: Limits,
}

/// What holds for keys that are pushed to nodes.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceConnect {
    /// How long sshd accepts a pushed key; 5 seconds to 1 hour. As `key_life_seconds`.
    #[serde(rename = "key_life_seconds", deserialize_with = "seconds::<_, 5, 3600>")]
    pub key_life: Duration,
    /// The ports on nodes that tunnels reach; AWS has these two.
    pub tunnel_ports: Vec<u16>,
    /// Whether one login uses the key up. AWS lets a key in as often as one likes within its minute.
    pub single_use: bool,
}

/// What holds for SSH.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SshSettings {
    /// `HOST:PORT` of a listener where SSH is all that is spoken, for example `0.0.0.0:22`; port 0 picks one.
    pub listen: Option<String>,
    /// Whether somebody without a key may come in once it is approved elsewhere, with an access key.
    pub approvals: bool,
    /// Whether ChaCha20 is offered to OpenSSH too, which would choose it; else only to clients that may have nothing else.
    pub chacha20: bool,
    /// How long a certificate is good that was asked for without a time; 1 to 168 hours, at most
    /// [`SshSettings::max_certificate_life`].
    #[serde(rename = "certificate_hours", deserialize_with = "hours::<_, 1, 168>")]
    pub certificate_life: Duration,
    /// The longest that a certificate may be good for; 1 to 168 hours. Policies can allow less.
    #[serde(rename = "max_certificate_hours", deserialize_with = "hours::<_, 1, 168>")]
    pub max_certificate_life: Duration,
}

/// What holds for sessions whose document says nothing else.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionDefaults {
    /// Idle for so long, a session ends; 1 second to 1 day. In seconds as `idle_timeout_seconds`.
    #[serde(rename = "idle_timeout_seconds", deserialize_with = "seconds::<_, 1, 86_400>")]
    pub idle_timeout: Duration,
    /// Whether output keeps a session from being idle, as in AWS Session Manager; otherwise only input does.
    pub idle_counts_output: bool,
    /// A session ends this long after its start; `None` sets no limit. As `maximum_duration_seconds`, 1 second to 30
    /// days.
    #[serde(rename = "maximum_duration_seconds", deserialize_with = "some_seconds::<_, 1, 2_592_000>")]
    pub maximum_duration: Option<Duration>,
    /// How long a shell outlives its client's or server's link; 0 to 10 minutes (T-26), which agents outwait. As `resume_window_seconds`.
    #[serde(rename = "resume_window_seconds", deserialize_with = "seconds::<_, 0, 600>")]
    pub resume_window: Duration,
    /// Whether output is shown only after it is stored.
    pub strict_recording: bool,
    /// Whether typed bytes are recorded beside what is shown; otherwise only when and how many (T-60).
    pub record_input: bool,
    /// The OS user of sessions on nodes that can serve anybody, for principals without the tag `SSMSessionRunAs`.
    pub default_os_user: Option<String>,
}

/// Which nodes there may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSettings {
    /// Whether hosts with AWS's own agent may be nodes. It knows neither grants nor a privileged half of its own, so an
    /// operator may refuse it; nodes that are registered already stay out too.
    pub aws_agents: bool,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { aws_agents: true }
    }
}

/// How much the server takes on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests worked on at once; more are told to come again.
    #[serde(deserialize_with = "number::<_, 1, 65_536>")]
    pub requests: usize,
    /// Connections of one address that have not authenticated (T-91).
    #[serde(deserialize_with = "number::<_, 1, 65_536>")]
    pub unauthenticated_per_address: usize,
    /// Connections of all addresses that have not authenticated (T-91).
    #[serde(deserialize_with = "number::<_, 2, 65_536>")]
    pub unauthenticated: usize,
    /// Sessions that one principal may have at once (T-92).
    #[serde(deserialize_with = "number::<_, 1, 65_536>")]
    pub sessions_per_principal: usize,
    /// Sessions that one principal may start in a minute (T-92).
    #[serde(deserialize_with = "number::<_, 1, 1_000_000>")]
    pub starts_per_minute: usize,
    /// Different nodes on which one principal may start sessions in a minute (T-92).
    #[serde(deserialize_with = "number::<_, 1, 1_000_000>")]
    pub nodes_per_minute: usize,
    /// Bytes that all connections of one forward session carry in a second, both ways, in the long run (T-92); `None`, 0 in
    /// the file: as many as there are.
    #[serde(deserialize_with = "rate")]
    pub forward_bytes_per_second: Option<NonZeroU64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: None,
            names: Vec::new(),
            region: "local-1".to_owned(),
            account: None,
            accepted_regions: Vec::new(),
            oidc_ca_file: None,
            trusted_proxies: Vec::new(),
            session: SessionDefaults::default(),
            nodes: NodeSettings::default(),
            instance_connect: InstanceConnect::default(),
            ssh: SshSettings::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for InstanceConnect {
    fn default() -> Self {
        Self { key_life: Duration::from_secs(60), tunnel_ports: vec![22, 3389], single_use: true }
    }
}

impl Default for SshSettings {
    fn default() -> Self {
        Self {
            listen: None,
            approvals: true,
            chacha20: false,
            certificate_life: Duration::from_secs(8 * 3600),
            max_certificate_life: Duration::from_secs(24 * 3600),
        }
    }
}

impl Default for SessionDefaults {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(20 * 60),
            idle_counts_output: true,
            maximum_duration: None,
            resume_window: Duration::from_secs(600),
            strict_recording: false,
            record_input: false,
            default_os_user: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 1024,
            unauthenticated_per_address: 64,
            unauthenticated: 1024,
            sessions_per_principal: 1000,
            // Wider than T-92's own numbers, which a dozen nodes under Ansible exceed (decision 0027).
            starts_per_minute: 6000,
            nodes_per_minute: 500,
            forward_bytes_per_second: None,
        }
    }
}

/// Why a settings file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("the settings file {path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// It is not safe to believe (T-87).
    #[error("the settings file {path} is not used: {why}")]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What to change.
        why: String,
    },
    /// Its content is wrong; the message names line and column.
    #[error("the settings file {path} is wrong: {cause}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What and where.
        cause: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a settings file. It must be a regular file of at most 1 MiB that belongs to root or to the server's user
    /// and that nobody else may write (T-87).
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |cause| ConfigError::Read { path: path.to_owned(), cause };
        let not_safe = |why: String| Err(ConfigError::Unsafe { path: path.to_owned(), why });
        // Not blocking: a FIFO would be waited for otherwise.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(cause) if cause.raw_os_error() == Some(libc::ELOOP) => {
                return not_safe("it is a symbolic link; name the file itself".to_owned());
            }
            Err(cause) => return Err(failed(cause)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return not_safe("it is not a regular file".to_owned());
        }
        let own = nix::unistd::geteuid().as_raw();
        if metadata.uid() != 0 && metadata.uid() != own {
            return not_safe(format!("it belongs to user {}; it must belong to root or user {own}", metadata.uid()));
        }
        if metadata.mode() & 0o022 != 0 {
            return not_safe("others may write it; run chmod go-w on it".to_owned());
        }
        if metadata.len() > MAX_FILE_BYTES {
            return not_safe("it has more than 1 MiB".to_owned());
        }
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(failed)?;
        Self::parse(&text).map_err(|cause| ConfigError::Content { path: path.to_owned(), cause: Box::new(cause) })
    }

    /// Reads settings from TOML text.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let config: Self = toml::from_str(text)?;
        let wrong = |why: &str| <toml::de::Error as serde::de::Error>::custom(why);
        if config.names.len() > MAX_NAMES {
            return Err(wrong("`names` has more than 64 entries"));
        }
        if let Some(name) = config.names.iter().find(|name| !is_host(name)) {
            let shown: String = name.chars().take(64).flat_map(char::escape_default).collect();
            return Err(wrong(&format!("`names` holds {shown:?}, which is no host name or address")));
        }
        if config.ssh.certificate_life > config.ssh.max_certificate_life {
            return Err(wrong("`certificate_hours` is more than `max_certificate_hours`"));
        }
        Ok(config)
    }
}

/// Tells whether a text may stand in a certificate as a host: a DNS name or an address.
fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
    };
    name.parse::<std::net::IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(label))
}

fn number<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<usize, D::Error> {
    let value = u64::deserialize(deserializer)?;
    let refuse = || serde::de::Error::custom(format_args!("must lie between {LEAST} and {MOST}, not be {value}"));
    if !(LEAST..=MOST).contains(&value) {
        return Err(refuse());
    }
    usize::try_from(value).map_err(|_| refuse())
}

/// Reads bytes a second; 0 is no limit.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZeroU64>, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Ok(None),
        value @ 1_000..=1_000_000_000_000 => Ok(NonZeroU64::new(value)),
        value => Err(serde::de::Error::custom(format_args!(
            "must be 0, for no limit, or lie between 1000 and 1000000000000, not be {value}"
        ))),
    }
}

fn seconds<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Duration, D::Error> {
    number::<D, LEAST, MOST>(deserializer).map(|value| Duration::from_secs(value as u64))
}

fn hours<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<Duration, D::Error> {
    number::<D, LEAST, MOST>(deserializer).map(|value| Duration::from_secs(value as u64 * 3600))
}

fn some_seconds<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    seconds::<D, LEAST, MOST>(deserializer).map(Some)
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let network = |text: &String| {
        text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).map_err(|_| {
            let shown: String = text.chars().take(64).flat_map(char::escape_default).collect();
            serde::de::Error::custom(format_args!("{shown:?} is no address and no network such as 10.0.0.0/8"))
        })
    };
    texts.iter().map(network).collect()
}

fn region<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let region = String::deserialize(deserializer)?;
    let good = (1..=32).contains(&region.len())
        && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(region)
    } else {
        Err(serde::de::Error::custom("`region` has 1 to 32 lower-case letters, digits and hyphens"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn everything_has_a_default_and_can_be_set() {
        assert_eq!(Config::parse("").unwrap().session.resume_window, Duration::from_secs(600));
        let text = "listen = \"0.0.0.0:8443\"\nnames = [\"gate.example.com\", \"10.0.0.1\", \"::1\"]\nregion = \"eu-1\"\n\
            account = \"123456789012\"\naccepted_regions = [\"us-east-1\"]\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
            [session]\nidle_timeout_seconds = 300\nmaximum_duration_seconds = 3600\nresume_window_seconds = 0\n\
            strict_recording = true\nrecord_input = false\n[nodes]\naws_agents = false\n[limits]\nrequests = 16\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.session.maximum_duration, Some(Duration::from_secs(3600)));
        assert_eq!((config.limits.requests, config.limits.unauthenticated), (16, 1024));
        let rate = |text: &str| Config::parse(&format!("[limits]\n{text}")).unwrap().limits.forward_bytes_per_second;
        assert_eq!((rate(""), rate("forward_bytes_per_second = 0")), (None, None));
        assert_eq!(rate("forward_bytes_per_second = 10_000_000").map(NonZeroU64::get), Some(10_000_000));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, line, part) in [
            ("\nlissten = \"x\"", "line 2", "unknown field `lissten`"),
            ("region = \"a\"\nregion = \"b\"", "line 2", "duplicate key"),
            ("region = \"Seoul 1\"", "line 1", "lower-case"),
            ("account = \"12\"", "line 1", "twelve decimal digits"),
            ("[session]\nidle_timeout_seconds = 0", "line 2", "between 1 and 86400"),
            ("[session]\nidle_timeout_seconds = -5", "line 2", "invalid value"),
            ("[limits]\nrequests = \"many\"", "line 2", "invalid type"),
            ("trusted_proxies = [\"10.0.0.0/99\"]", "line 1", "no network"),
            ("names = [\"a b\"]", "", "no host name"),
            ("[ssh]\nmax_certificate_hours = 4", "", "more than `max_certificate_hours`"),
            ("[ssh]\nmax_certificate_hours = 169", "line 2", "between 1 and 168"),
            ("[limits]\nforward_bytes_per_second = 999", "line 2", "must be 0, for no limit, or lie between 1000"),
            ("names = [", "line 1", ""),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn files_that_others_could_have_written_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("munjigi.toml");
        let refused = |path: &Path| Config::read(path).unwrap_err().to_string();
        assert!(refused(&path).contains("cannot be read"));
        std::fs::write(&path, "region = \"eu-1\"").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert_eq!(Config::read(&path).unwrap().region, "eu-1");
        mode(0o664);
        assert!(refused(&path).contains("chmod go-w"));
        mode(0o600);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(refused(&link).contains("symbolic link"));
        assert!(refused(directory.path()).contains("not a regular file"));
        std::fs::write(&path, vec![b'#'; 1024 * 1024 + 1]).unwrap();
        assert!(refused(&path).contains("1 MiB"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(refused(&path).contains("cannot be read"));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let seed = b"region = \"eu-1\"\nnames = [\"a.b\", \"::1\"]\n[session]\nidle_timeout_seconds = 300\n[limits]\n";
        crate::api::mutate::each(seed, 0x746f_6d6c, |text| {
            if let Ok(text) = std::str::from_utf8(text) {
                let _ = Config::parse(text);
            }
        });
    }
}
