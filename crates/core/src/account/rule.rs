//! Account rules: who gets an account where, and with what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bundle::{
    AccountMode, MAX_GROUPS, MAX_KEYS, MAX_SUDO_COMMANDS, Sudo, valid_group, valid_shell, valid_sudo_command,
};
use super::names::Mapping;
use crate::grant::valid_os_user;
use crate::ssh::key_options::{KeyLine, KeyLineError};
use crate::target::Selector;

/// Most entries of a list of people or nodes.
const MAX_ENTRIES: usize = 64;
/// Longest name of a person, group or tag in bytes, as in IAM.
const MAX_WORD: usize = 128;
/// Longest grace in days.
const MAX_GRACE_DAYS: u32 = 365;

/// Why a rule is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not a word for people.
    #[error("people are `*`, `group:NAME` or `user:NAME`")]
    Who,
    /// Not a word for nodes.
    #[error("nodes are `*`, a name, an id, or tags as Key=Value with commas where all must be there")]
    Place,
    /// Not a form of names.
    #[error("an OS user's name is made from `name`, `local-part` (before an @) or `tag:KEY`")]
    Form,
    /// Settings out of their range.
    #[error("{0}")]
    Settings(&'static str),
}

macro_rules! as_text {
    ($type:ty) => {
        impl TryFrom<String> for $type {
            type Error = RuleError;
            fn try_from(text: String) -> Result<Self, RuleError> {
                text.parse()
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    };
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// Every user.
    All,
    /// The members of a group.
    Group(String),
    /// One user.
    User(String),
}

as_text!(Who);

impl FromStr for Who {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let good = |name: &str| (1..=MAX_WORD).contains(&name.len()) && !name.chars().any(char::is_control);
        match text.split_once(':') {
            None if text == "*" => Ok(Self::All),
            Some(("group", name)) if good(name) => Ok(Self::Group(name.to_owned())),
            Some(("user", name)) if good(name) => Ok(Self::User(name.to_owned())),
            _ => Err(RuleError::Who),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::User(name) => write!(f, "user:{name}"),
        }
    }
}

/// Where a rule holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// On every node.
    All,
    /// On these.
    Nodes(Selector),
}

as_text!(Place);

impl FromStr for Place {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text == "*" { Ok(Self::All) } else { text.parse().map(Self::Nodes).map_err(|_| RuleError::Place) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Nodes(selector) => selector.fmt(f),
        }
    }
}

/// From what a person's local name is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NameForm {
    /// The user's name.
    #[default]
    Name,
    /// What stands before the `@` of the user's name.
    LocalPart,
    /// The value of a tag of the user; who has none gets no account.
    Tag(String),
}

as_text!(NameForm);

impl FromStr for NameForm {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        match text.split_once(':') {
            None if text == "name" => Ok(Self::Name),
            None if text == "local-part" => Ok(Self::LocalPart),
            Some(("tag", key)) if (1..=MAX_WORD).contains(&key.len()) => Ok(Self::Tag(key.to_owned())),
            _ => Err(RuleError::Form),
        }
    }
}

impl fmt::Display for NameForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("name"),
            Self::LocalPart => f.write_str("local-part"),
            Self::Tag(key) => write!(f, "tag:{key}"),
        }
    }
}

/// How accounts of a rule come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// With sessions.
    #[default]
    JustInTime,
    /// With the rule.
    Synchronised,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct RuleSettings {
    /// Whom it is about: any of these …
    pub who: Vec<Who>,
    /// … who is also any of these, if there are some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub among: Vec<Who>,
    /// Where.
    pub nodes: Vec<Place>,
    /// How the accounts come and go.
    #[serde(default)]
    pub mode: Mode,
    /// From what the local names are made.
    #[serde(default)]
    pub os_user: NameForm,
    /// Whether upper case in names becomes lower case.
    #[serde(default = "yes")]
    pub lowercase: bool,
    /// Whether names that are too long are shortened.
    #[serde(default)]
    pub shorten: bool,
    /// Local groups beside the account's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Rights by sudo: none, `ALL` alone, or commands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sudo: Vec<String>,
    /// Login shell.
    #[serde(default = "shell")]
    pub shell: String,
    /// Days for which an account that leaves is kept, locked; 0 to 365.
    #[serde(default = "grace")]
    pub grace_days: u32,
    /// Whether homes are deleted instead of archived.
    #[serde(default)]
    pub remove_home: bool,
}

fn yes() -> bool {
    true
}

fn shell() -> String {
    "/bin/bash".to_owned()
}

/// R12.
fn grace() -> u32 {
    7
}

/// Keys of a group and where they are good: what key-manager kept as `GROUP/authorized_keys`, tied to login names (R23).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct KeyFileSettings {
    /// The accounts that the keys open.
    pub os_users: Vec<String>,
    /// On which nodes.
    pub nodes: Vec<Place>,
    /// The keys, each as in an `.pub` file, or with options before it that narrow it.
    pub keys: Vec<String>,
}

impl KeyFileSettings {
    /// Checks the settings and returns the keys.
    pub fn check(&self) -> Result<Vec<KeyLine>, RuleError> {
        let wrong = |why| Err(RuleError::Settings(why));
        if self.os_users.is_empty() || self.os_users.len() > MAX_ENTRIES {
            return wrong("OsUsers must name the 1 to 64 accounts that the keys open");
        }
        if self.os_users.iter().any(|name| !valid_os_user(name)) {
            return wrong("OsUsers must be names of OS users");
        }
        if self.nodes.is_empty() || self.nodes.len() > MAX_ENTRIES {
            return wrong("Nodes must name 1 to 64");
        }
        if self.keys.len() > MAX_KEYS {
            return wrong("Keys must be at most 256");
        }
        let parsed: Result<Vec<KeyLine>, _> = self.keys.iter().map(|line| KeyLine::parse(line)).collect();
        parsed.map_err(|error| match error {
            KeyLineError::Key(_) => RuleError::Settings("Keys must be SSH public keys as in .pub files"),
            _ => RuleError::Settings(
                "before a key may stand only from, command, restrict, no-… and expiry-time, each once and as sshd takes it",
            ),
        })
    }

    /// Tells whether the keys are good on a node.
    pub fn holds_on<'t>(&self, id: &str, name: &str, tags: impl Iterator<Item = (&'t str, &'t str)> + Clone) -> bool {
        holds(&self.nodes, id, name, tags)
    }
}

fn holds<'t>(places: &[Place], id: &str, name: &str, tags: impl Iterator<Item = (&'t str, &'t str)> + Clone) -> bool {
    places.iter().any(|place| match place {
        Place::All => true,
        Place::Nodes(selector) => selector.matches(id, name, tags.clone()),
    })
}

/// A person as rules see one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The unchanging id.
    pub principal: String,
    /// The ARN.
    pub arn: String,
    /// The user's name.
    pub name: String,
    /// The names of the groups.
    pub groups: BTreeSet<String>,
    /// The tags.
    pub tags: BTreeMap<String, String>,
}

/// What the rules together give a person on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entitlement {
    /// From what the local name is made.
    pub form: NameForm,
    /// How.
    pub mapping: Mapping,
    /// How the account comes and goes: with the rule if any rule says so.
    pub mode: AccountMode,
    /// Groups, sorted.
    pub groups: Vec<String>,
    /// Rights.
    pub sudo: Sudo,
    /// Shell, of the first rule.
    pub shell: String,
    /// Grace, the longest.
    pub grace: Duration,
    /// Whether the home is deleted: only if every rule says so.
    pub remove_home: bool,
}

impl Entitlement {
    /// Returns the text that the local name is made from; `None`: the person has no such tag.
    pub fn name_of<'p>(&self, person: &'p Person) -> Option<&'p str> {
        match &self.form {
            NameForm::Name => Some(person.name.as_str()),
            NameForm::LocalPart => person.name.split('@').next(),
            NameForm::Tag(key) => person.tags.get(key).map(String::as_str),
        }
    }
}

impl RuleSettings {
    /// Checks the settings.
    pub fn check(&self) -> Result<(), RuleError> {
        let wrong = |why| Err(RuleError::Settings(why));
        if self.who.is_empty() || self.who.len() > MAX_ENTRIES || self.among.len() > MAX_ENTRIES {
            return wrong("Who must name 1 to 64, and Among at most 64");
        }
        if self.nodes.is_empty() || self.nodes.len() > MAX_ENTRIES {
            return wrong("Nodes must name 1 to 64");
        }
        if self.groups.len() > MAX_GROUPS || self.groups.iter().any(|group| !valid_group(group)) {
            return wrong("Groups must be at most 64 names of local groups");
        }
        if self.sudo.len() > MAX_SUDO_COMMANDS
            || self.sudo.iter().any(|word| word != "ALL" && !valid_sudo_command(word))
        {
            return wrong(
                "Sudo must be ALL, or at most 64 commands: an absolute path and arguments, without wildcards or quotes",
            );
        }
        if self.sudo.len() > 1 && self.sudo.iter().any(|word| word == "ALL") {
            return wrong("Sudo is ALL or commands, not both");
        }
        if !valid_shell(&self.shell) {
            return wrong("Shell must be an absolute path");
        }
        if self.grace_days > MAX_GRACE_DAYS {
            return wrong("GraceDays must be at most 365");
        }
        Ok(())
    }

    fn is_about(&self, person: &Person) -> bool {
        let any = |list: &[Who]| {
            list.iter().any(|who| match who {
                Who::All => true,
                Who::Group(name) => person.groups.iter().any(|group| group.eq_ignore_ascii_case(name)),
                Who::User(name) => person.name.eq_ignore_ascii_case(name),
            })
        };
        any(&self.who) && (self.among.is_empty() || any(&self.among))
    }

    fn holds_on<'t>(&self, id: &str, name: &str, tags: impl Iterator<Item = (&'t str, &'t str)> + Clone) -> bool {
        holds(&self.nodes, id, name, tags)
    }

    fn rights(&self) -> Sudo {
        match self.sudo.as_slice() {
            [] => Sudo::None,
            [all] if all == "ALL" => Sudo::All,
            commands => Sudo::Commands(commands.to_vec()),
        }
    }
}

/// Returns the rules that hold on a node.
pub fn holding<'r, 't>(
    rules: &'r [RuleSettings],
    id: &str,
    name: &str,
    tags: impl Iterator<Item = (&'t str, &'t str)> + Clone,
) -> Vec<&'r RuleSettings> {
    rules.iter().filter(|rule| rule.holds_on(id, name, tags.clone())).collect()
}

/// Puts together what rules that hold on a node give a person; `None`: no account.
pub fn entitle(rules: &[&RuleSettings], person: &Person) -> Option<Entitlement> {
    let mut about = rules.iter().filter(|rule| rule.is_about(person));
    let first = about.next()?;
    let mode = |rule: &RuleSettings| match rule.mode {
        Mode::JustInTime => AccountMode::JustInTime,
        Mode::Synchronised => AccountMode::Synchronised,
    };
    let mut given = Entitlement {
        form: first.os_user.clone(),
        mapping: Mapping { lowercase: first.lowercase, shorten: first.shorten },
        mode: mode(first),
        groups: first.groups.clone(),
        sudo: first.rights(),
        shell: first.shell.clone(),
        grace: days(first.grace_days),
        remove_home: first.remove_home,
    };
    for rule in about {
        if mode(rule) == AccountMode::Synchronised {
            given.mode = AccountMode::Synchronised;
        }
        given.groups.extend(rule.groups.iter().cloned());
        given.sudo = widest(given.sudo, rule.rights());
        given.grace = given.grace.max(days(rule.grace_days));
        given.remove_home &= rule.remove_home;
    }
    given.groups.sort();
    given.groups.dedup();
    given.groups.truncate(MAX_GROUPS);
    Some(given)
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86_400)
}

/// Returns the rights of both.
pub fn widest(one: Sudo, other: Sudo) -> Sudo {
    match (one, other) {
        (Sudo::All, _) | (_, Sudo::All) => Sudo::All,
        (Sudo::None, rights) | (rights, Sudo::None) => rights,
        (Sudo::Commands(mut list), Sudo::Commands(more)) => {
            list.extend(more);
            list.sort();
            list.dedup();
            list.truncate(MAX_SUDO_COMMANDS);
            Sudo::Commands(list)
        }
    }
}

#[cfg(test)]
mod tests;
