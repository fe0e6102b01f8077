//! Targets: named TCP services that run no agent and are reached through nodes.
//!
//! Only what a target is made of, and which settings fit together. Where targets are kept, which node serves one at the
//! moment and who may reach it is decided elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::destination::{Destination, DestinationError};

/// Longest name in characters.
const MAX_NAME: usize = 128;
/// Most selectors of one target.
pub const MAX_SELECTORS: usize = 16;
/// Most tags that one selector asks for.
const MAX_SELECTOR_TAGS: usize = 8;
/// Longest selector in bytes: eight tags would be longer, but nobody types that.
const MAX_SELECTOR_BYTES: usize = 1024;
/// Longest name of a database, user or service in bytes; PostgreSQL's and MySQL's are at most 64 characters.
pub const MAX_WORD_BYTES: usize = 256;
/// Longest certificates in bytes: a bundle of all authorities of one provider of databases has less than half.
pub const MAX_CA_BYTES: usize = 512 * 1024;

/// Why text is nothing of a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Its name.
    #[error(
        "a target's name has at most 128 letters, digits or _.-, begins and ends with a letter or digit and does not \
         look like a node id"
    )]
    Name,
    /// Its kind.
    #[error("a target's kind is tcp, http, ssh, rdp, postgres, mysql, redis or mongodb")]
    Kind,
    /// Its address.
    #[error("a target's address is HOST:PORT, with brackets around an IPv6 address: {0}")]
    Address(#[from] DestinationError),
    /// A selector of nodes.
    #[error(
        "nodes are named by name, by id or by tags (Key=Value, several with commas between them), at most 8 tags and \
         1024 bytes"
    )]
    Selector,
    /// Settings that do not fit together, or one that is out of its range.
    #[error("{0}")]
    Settings(&'static str),
}

/// The name of a target: what people type, and part of its ARN.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

impl TargetName {
    /// Takes a name. It never reads as a node's id or as a tag.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        let ends = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        let good = text.chars().count() <= MAX_NAME
            && ends(text.chars().next())
            && ends(text.chars().next_back())
            && text.chars().all(|c| c.is_alphanumeric() || "_.-".contains(c))
            && !text.starts_with("mi-")
            && !text.starts_with("i-");
        if good { Ok(Self(text.to_owned())) } else { Err(TargetError::Name) }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TargetName {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for TargetName {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        Self::parse(&text)
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.0
    }
}

/// What a target speaks. It chooses the program that is started for it, and whether statements can be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum TargetKind {
    /// Anything.
    Tcp,
    /// A web page or API, with TLS or without.
    Http,
    /// An SSH server.
    Ssh,
    /// A desktop.
    Rdp,
    /// PostgreSQL and what speaks its protocol.
    Postgres,
    /// MySQL and MariaDB.
    Mysql,
    /// Redis and its kin.
    Redis,
    /// MongoDB.
    Mongodb,
}

impl TargetKind {
    /// All kinds.
    pub const ALL: [Self; 8] =
        [Self::Tcp, Self::Http, Self::Ssh, Self::Rdp, Self::Postgres, Self::Mysql, Self::Redis, Self::Mongodb];

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::Rdp => "rdp",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Redis => "redis",
            Self::Mongodb => "mongodb",
        }
    }

    /// Returns the port it has where none is named, if there is one (the registry of IANA).
    pub const fn port(self) -> Option<u16> {
        match self {
            Self::Tcp | Self::Http => None,
            Self::Ssh => Some(22),
            Self::Rdp => Some(3389),
            Self::Postgres => Some(5432),
            Self::Mysql => Some(3306),
            Self::Redis => Some(6379),
            Self::Mongodb => Some(27017),
        }
    }

    /// Tells whether the gateway can read the protocol in passing.
    pub const fn is_inspectable(self) -> bool {
        matches!(self, Self::Postgres | Self::Mysql)
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for TargetKind {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(TargetError::Kind)
    }
}

impl TryFrom<String> for TargetKind {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<TargetKind> for &'static str {
    fn from(kind: TargetKind) -> Self {
        kind.as_str()
    }
}

/// Where a target is, as its nodes see it. `localhost` is the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetAddress(Destination);

impl TargetAddress {
    /// Returns where connections go.
    pub const fn destination(&self) -> &Destination {
        &self.0
    }
}

impl fmt::Display for TargetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TargetAddress {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (host, port) = text.rsplit_once(':').ok_or(DestinationError::Port)?;
        let port = port.parse().map_err(|_| DestinationError::Port)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(address) if address.contains(':') => address,
            // Without brackets nobody can tell the address from the port, and a target always says where it is.
            Some(_) => return Err(DestinationError::Host.into()),
            None if host.is_empty() || host.contains(':') => return Err(DestinationError::Host.into()),
            None if host.eq_ignore_ascii_case("localhost") => "",
            None => host,
        };
        Ok(Self(Destination::new(host, port)?))
    }
}

impl TryFrom<String> for TargetAddress {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<TargetAddress> for String {
    fn from(address: TargetAddress) -> Self {
        address.to_string()
    }
}

/// Which nodes a target is reached through: one by name or id, or all with certain tags.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// The node with this id, or this name without regard to case.
    Node(String),
    /// All nodes that have every one of these tags.
    Tags(BTreeMap<String, String>),
}

impl Selector {
    /// Tells whether a node is meant.
    pub fn matches<'t>(&self, id: &str, name: &str, tags: impl Iterator<Item = (&'t str, &'t str)> + Clone) -> bool {
        match self {
            Self::Node(wanted) => wanted == id || wanted.to_lowercase() == name.to_lowercase(),
            Self::Tags(wanted) => {
                wanted.iter().all(|(key, value)| tags.clone().any(|(k, v)| k == key.as_str() && v == value.as_str()))
            }
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => f.write_str(name),
            Self::Tags(tags) => {
                for (index, (key, value)) in tags.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Selector {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() || text.len() > MAX_SELECTOR_BYTES || text.chars().any(char::is_control) {
            return Err(TargetError::Selector);
        }
        let text = text.strip_prefix("tag:").unwrap_or(text);
        if !text.contains('=') {
            return if text.contains(',') { Err(TargetError::Selector) } else { Ok(Self::Node(text.to_owned())) };
        }
        let mut tags = BTreeMap::new();
        for tag in text.split(',') {
            let (key, value) = tag.split_once('=').ok_or(TargetError::Selector)?;
            if key.is_empty() || tags.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(TargetError::Selector);
            }
        }
        if tags.len() > MAX_SELECTOR_TAGS { Err(TargetError::Selector) } else { Ok(Self::Tags(tags)) }
    }
}

impl TryFrom<String> for Selector {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.to_string()
    }
}

/// Whether connections to the target are encrypted, in the words of PostgreSQL's `sslmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Never.
    #[default]
    Off,
    /// Always, and the certificate must come from a known authority, or be a stored one; its name does not count.
    Require,
    /// Always, and the certificate must be valid for the server's name.
    VerifyFull,
}

impl TlsMode {
    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Require => "require",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// How the target's TLS is spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TargetTls {
    /// Whether there is any.
    #[serde(default)]
    pub mode: TlsMode,
    /// The name that the certificate must be for; the address' host if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Certificates of authorities in PEM, instead of those that the server's system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

/// What a target is, without its name, tags and credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct TargetSettings {
    /// Where it is.
    pub address: TargetAddress,
    /// What it speaks.
    pub kind: TargetKind,
    /// Which nodes it is reached through; one that any selector means will do.
    pub through: Vec<Selector>,
    /// The port that clients listen on where nobody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// The database that is opened where nobody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether the gateway ends the protocol, logs in with the stored credential, and records every statement.
    #[serde(default)]
    pub inspect: bool,
    /// Whether values bound to prepared statements are recorded too; they are often personal data.
    #[serde(default)]
    pub record_parameters: bool,
    /// Whether the server may ask the client for files (`LOAD DATA LOCAL` of MySQL).
    #[serde(default)]
    pub allow_load_local: bool,
    /// How its TLS is spoken.
    #[serde(default)]
    pub tls: TargetTls,
}

impl TargetSettings {
    /// Checks that the settings are in their ranges and fit together. `has_user`: a credential is stored beside them.
    pub fn check(&self, has_user: bool) -> Result<(), TargetError> {
        let refuse = |why| Err(TargetError::Settings(why));
        if self.through.is_empty() || self.through.len() > MAX_SELECTORS {
            return refuse("a target is reached through 1 to 16 nodes or selectors of nodes");
        }
        if self.local_port == Some(0) {
            return refuse("a local port is a number from 1 to 65535; leave it out to have one picked");
        }
        if self.database.as_deref().is_some_and(|name| !valid_word(name)) {
            return refuse("a database's name has 1 to 256 bytes and no control characters");
        }
        if self.inspect && !self.kind.is_inspectable() {
            return refuse("only targets of the kinds postgres and mysql can be inspected");
        }
        if self.inspect && !has_user {
            return refuse("a target that is inspected needs a credential: the gateway logs in, not the person");
        }
        if self.tls.ca_pem.as_deref().is_some_and(|pem| pem.len() > MAX_CA_BYTES) {
            return refuse("the certificates of authorities have at most 512 KiB");
        }
        if let Some(name) = &self.tls.server_name
            && (name.is_empty() || Destination::new(name, 1).is_err())
        {
            return refuse("the server's name for TLS is a host name or an IP address");
        }
        if self.tls.mode == TlsMode::Off && self.tls != TargetTls::default() {
            return refuse("a server's name or authorities for TLS are of no use with the mode off");
        }
        if self.tls.mode == TlsMode::VerifyFull && self.tls_name().is_none() {
            return refuse("verify-full needs the server's name: the address is the node itself");
        }
        Ok(())
    }

    /// Returns the name that a certificate of the target must be for; `None` if it is the node itself and nobody said.
    pub fn tls_name(&self) -> Option<&str> {
        let host = self.address.destination().host();
        self.tls.server_name.as_deref().or_else(|| (!host.is_empty()).then_some(host))
    }
}

/// Tells whether text can be the name of a database or of a user there.
pub fn valid_word(text: &str) -> bool {
    (1..=MAX_WORD_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TargetSettings {
        TargetSettings {
            address: "db.internal:5432".parse().unwrap(),
            kind: TargetKind::Postgres,
            through: vec!["Role=bastion".parse().unwrap()],
            local_port: None,
            database: None,
            inspect: false,
            record_parameters: false,
            allow_load_local: false,
            tls: TargetTls::default(),
        }
    }

    #[test]
    fn names_are_what_an_arn_can_end_in() {
        for good in ["orders-db", "주문", "a", "A.b_c-9"] {
            assert!(TargetName::parse(good).is_ok(), "{good}");
        }
        let long = "x".repeat(129);
        for bad in ["", "-a", "a-", "a/b", "a:b", "a b", "a*", "k=v", "mi-0123", "i-0123", "a\u{202e}b", &long] {
            assert_eq!(TargetName::parse(bad), Err(TargetError::Name), "{bad}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, shown, host) in [
            ("DB.internal:5432", "db.internal:5432", "db.internal"),
            ("10.0.0.7:80", "10.0.0.7:80", "10.0.0.7"),
            ("[FD00::7]:443", "[fd00::7]:443", "fd00::7"),
            ("localhost:5432", "localhost:5432", ""),
        ] {
            let address: TargetAddress = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.destination().host()), (shown, host));
            assert_eq!(address.to_string().parse::<TargetAddress>().unwrap(), address);
        }
        for bad in ["", "db", ":5432", "db:0", "db:65536", "db:x", "::1:22", "[db]:22", "a b:22", "[]:1"] {
            assert!(bad.parse::<TargetAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn selectors_mean_nodes_by_name_id_or_all_of_their_tags() {
        let tags = [("Role", "bastion"), ("Env", "prod")];
        let matches = |text: &str| {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
            selector.matches("mi-00000000000000001", "Hop-1", tags.into_iter())
        };
        for yes in ["hop-1", "mi-00000000000000001", "Role=bastion", "tag:Env=prod", "Env=prod,Role=bastion"] {
            assert!(matches(yes), "{yes}");
        }
        for no in ["hop-2", "mi-00000000000000002", "Role=web", "role=bastion", "Env=prod,Role=web", "Env="] {
            assert!(!matches(no), "{no}");
        }
        let nine = (0..9).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for bad in ["", "a,b", "=v", "a=b,c", "a=b,a=c", "a\nb", &nine] {
            assert_eq!(bad.parse::<Selector>(), Err(TargetError::Selector), "{bad}");
        }
    }

    #[test]
    fn settings_that_do_not_fit_together_are_refused() {
        type Change = fn(&mut TargetSettings);
        assert_eq!(settings().check(false), Ok(()));
        let good: [(Change, bool); 3] = [
            (|s| s.inspect = true, true),
            (|s| s.tls.mode = TlsMode::VerifyFull, false),
            (|s| s.local_port = Some(15432), false),
        ];
        for (index, (change, has_user)) in good.into_iter().enumerate() {
            let mut settings = settings();
            change(&mut settings);
            assert_eq!(settings.check(has_user), Ok(()), "{index}");
        }
        let bad: [(Change, bool); 11] = [
            (|s| s.through.clear(), true),
            (|s| s.through = vec![Selector::Node("a".into()); 17], true),
            (|s| s.local_port = Some(0), true),
            (|s| s.database = Some("a\0b".into()), true),
            (|s| (s.inspect, s.kind) = (true, TargetKind::Redis), true),
            (|s| s.inspect = true, false),
            (|s| s.tls.server_name = Some("db".into()), true),
            (|s| s.tls = TargetTls { mode: TlsMode::Require, server_name: Some("a b".into()), ca_pem: None }, true),
            (|s| s.tls = TargetTls { mode: TlsMode::Require, server_name: Some(String::new()), ca_pem: None }, true),
            (|s| (s.tls.mode, s.address) = (TlsMode::VerifyFull, "localhost:1".parse().unwrap()), true),
            (
                |s| {
                    s.tls = TargetTls {
                        mode: TlsMode::Require,
                        server_name: None,
                        ca_pem: Some("x".repeat(MAX_CA_BYTES + 1)),
                    }
                },
                true,
            ),
        ];
        for (index, (change, has_user)) in bad.into_iter().enumerate() {
            let mut settings = settings();
            change(&mut settings);
            assert!(settings.check(has_user).is_err(), "{index}");
        }
    }

    #[test]
    fn settings_are_stored_as_text_and_checked_when_they_are_read() {
        let text = serde_json::to_string(&settings()).unwrap();
        assert!(
            text.contains(r#""Address":"db.internal:5432","Kind":"postgres","Through":["Role=bastion"]"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<TargetSettings>(&text).unwrap(), settings());
        for (from, to) in
            [("5432\"", "0\""), ("postgres", "oracle"), ("Role=bastion", "Role=a,"), ("\"Tls\"", "\"Tsl\"")]
        {
            assert!(serde_json::from_str::<TargetSettings>(&text.replace(from, to)).is_err(), "{to}");
        }
    }
}
