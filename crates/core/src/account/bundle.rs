//! The account bundle: everything that one node is to know of people's accounts and of the keys that sshd may take for
//! them, signed by the server's grant key (T-20, T-21).
//!
//! Written as grants are: fixed order, every field with its length, one encoding per value. The version only rises, and
//! a node refuses an older one. The bundle is a statement about each account that it names and about no other: that an
//! account is missing in it removes nothing (T-27), but for an account that was made just in time.

use std::collections::BTreeSet;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use ipnet::IpNet;

use crate::grant::valid_os_user;
use crate::id::NodeId;
use crate::ssh::PublicKey;
use crate::ssh::key_options::{KeyOptions, MAX_OPTIONS};
use crate::time::Timestamp;
use crate::trust::{KeyId, TrustBundle};
use crate::wire::bytes::{FieldError, FieldReader, FieldWriter};

/// Keeps a bundle's signature from passing for one of another purpose (T-21).
const CONTEXT: &[u8] = b"munjigi account bundle v1\0";
/// The same with options before keys. It is written only where there are some: a node that does not know them must not
/// believe that a key is good without.
const CONTEXT_WITH_OPTIONS: &[u8] = b"munjigi account bundle v2\0";
/// Most bytes of a signed bundle; fits the node's files, which are at most 1 MiB.
pub const MAX_BUNDLE_BYTES: usize = 768 * 1024;
/// Most accounts of one node.
pub const MAX_ACCOUNTS: usize = 2048;
/// Most groups of an account beside its own.
pub const MAX_GROUPS: usize = 64;
/// Most commands that an account may run with sudo.
pub const MAX_SUDO_COMMANDS: usize = 64;
/// Most keys of an account or a key file.
pub const MAX_KEYS: usize = 256;
/// Most key files.
pub const MAX_KEY_FILES: usize = 256;
/// Most address ranges that a key is bound to.
pub const MAX_SOURCES: usize = 32;
/// Most bytes of a path, a command or a comment.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Most bytes of a key as sshd takes it; the largest, RSA with 16384 bits, has about 2100.
const MAX_KEY_BYTES: usize = 4096;
/// User ids below belong to the system and are never made (login.defs `UID_MIN`).
pub const FIRST_UID: u32 = 1000;

/// What is to become of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountState {
    /// There, and its owner may use it.
    Active,
    /// There, locked and expired, without rights; what it runs is killed. Its files stay.
    Locked,
    /// Gone; its home is archived.
    Removed,
    /// Somebody else's: made by hand or by another system. Only its keys count here, and the node never changes it.
    Foreign,
    /// A rule gives it just in time and nobody asks for it now: not there, where the node manages accounts, and its keys
    /// are for nobody's account of that name; elsewhere as [`AccountState::Foreign`].
    Awaited,
}

impl AccountState {
    /// Tells whether the node has to see to it that the account is as it is said to be.
    pub fn is_managed(self) -> bool {
        matches!(self, Self::Active | Self::Locked | Self::Removed)
    }
}

/// How an account comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountMode {
    /// Made when its owner's first session is about to start, removed after the last one.
    JustInTime,
    /// There for as long as a rule gives it.
    Synchronised,
}

/// What an account may do with sudo, always without a password: these accounts have none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sudo {
    /// Nothing.
    None,
    /// Everything, as everybody.
    All,
    /// These commands as root; see [`valid_sudo_command`].
    Commands(Vec<String>),
}

/// A key that sshd may take for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleKey {
    /// The key.
    pub key: PublicKey,
    /// Whose it is: the principal's ARN.
    pub principal: String,
    /// Id of the registered key, for the log: `APKA…`.
    pub key_id: String,
    /// From where it may be used; empty for anywhere.
    pub sources: Vec<IpNet>,
    /// Until when, if it ends.
    pub expires: Option<Timestamp>,
    /// Whether it is good for an account that is privileged on the node, too (T-54).
    pub privileged: bool,
    /// What sshd is told of it beside: what narrows it.
    pub options: KeyOptions,
}

/// One account on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleAccount {
    /// Its name; each stands once, in order.
    pub os_user: String,
    /// Its user id if it has to be made, 0 if it is not managed; the same on every node.
    pub uid: u32,
    /// What is to become of it.
    pub state: AccountState,
    /// How it comes and goes.
    pub mode: AccountMode,
    /// Its owner: the principal's ARN, for the comment field and the log. Empty if it is not managed.
    pub owner: String,
    /// Groups that it is in beside its own, sorted; those of its groups that the node gave it and are not here any more
    /// are withdrawn.
    pub groups: Vec<String>,
    /// What it may do with sudo.
    pub sudo: Sudo,
    /// Login shell; an absolute path.
    pub shell: String,
    /// Whether its home is deleted instead of archived when the account is removed.
    pub remove_home: bool,
    /// Keys that sshd may take for it.
    pub keys: Vec<BundleKey>,
}

/// Keys of a group that are good for the accounts that the file names, whoever they belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile {
    /// The group's name.
    pub group: String,
    /// The accounts; at least one, sorted.
    pub os_users: Vec<String>,
    /// The keys.
    pub keys: Vec<BundleKey>,
}

/// The whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountBundle {
    /// The only node that it is for.
    pub node: NodeId,
    /// Rises with every change.
    pub version: u64,
    /// When the server made it; keys in it are believed for a bounded time from here.
    pub issued: Timestamp,
    /// The accounts, in the order of their names.
    pub accounts: Vec<BundleAccount>,
    /// Keys of groups, in the order of their names.
    pub key_files: Vec<KeyFile>,
}

/// Why a bundle is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The bytes are no bundle of this version.
    #[error("the account bundle is malformed: {0}")]
    Malformed(#[from] FieldError),
    /// No current grant key has this id.
    #[error("the account bundle is signed by a key that this node does not trust")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the account bundle's signature is wrong")]
    BadSignature,
    /// For another node.
    #[error("the account bundle names another node")]
    OtherNode,
    /// Older than what the node has.
    #[error("the account bundle has version {offered}, older than version {held} that this node holds")]
    Older {
        /// Version offered.
        offered: u64,
        /// Version held.
        held: u64,
    },
    /// It holds something that no account may have.
    #[error("the account bundle is wrong about `{0}`: {1}")]
    Unsound(String, &'static str),
}

/// Tells whether the name may be a local group's: as an account's.
pub fn valid_group(name: &str) -> bool {
    valid_os_user(name)
}

/// Tells whether the text may be an account's login shell: an absolute path of plain characters.
pub fn valid_shell(path: &str) -> bool {
    plain_path(path) && path.len() <= 256
}

fn plain_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= MAX_TEXT_BYTES
        && !path.ends_with('/')
        && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-".contains(&b))
        && !path.split('/').any(|part| part == ".." || part == ".")
}

/// Tells whether the text may be a command of sudoers: the absolute path of a program, and arguments. What has a meaning
/// in sudoers and is not escaped there (wildcards, `!`, quotes, line ends) is refused, so that a command is exactly what it says.
pub fn valid_sudo_command(command: &str) -> bool {
    let mut words = command.split(' ');
    command.len() <= MAX_TEXT_BYTES
        && words.next().is_some_and(plain_path)
        && words.all(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._+-@%=:,~".contains(&b))
        })
}

impl AccountBundle {
    /// Checks what no bundle may break, whoever wrote it: names, order, bounds, user ids.
    pub fn check(&self) -> Result<(), BundleError> {
        let unsound = |what: &str, why| Err(BundleError::Unsound(what.escape_default().take(64).collect(), why));
        if self.accounts.len() > MAX_ACCOUNTS || self.key_files.len() > MAX_KEY_FILES {
            return unsound("its lists", "there are too many accounts or key files");
        }
        let mut uids = BTreeSet::new();
        for account in &self.accounts {
            let managed = account.state.is_managed();
            let name = account.os_user.as_str();
            let problem = if !valid_os_user(name) || (managed && name == "root") {
                Some("it is no name of an account that may be managed")
            } else if managed && (account.uid < FIRST_UID || !uids.insert(account.uid)) {
                Some("its user id is the system's or another account's")
            } else if !managed && account.uid != 0 {
                Some("somebody else's account has no user id here")
            } else if account.groups.len() > MAX_GROUPS || account.groups.iter().any(|group| !valid_group(group)) {
                Some("its groups are too many or none")
            } else if !account.groups.is_sorted_by(|one, next| one < next) {
                Some("its groups are not in order")
            } else if !valid_shell(&account.shell) && managed {
                Some("its shell is no absolute path")
            } else if matches!(&account.sudo, Sudo::Commands(list)
                if list.is_empty() || list.len() > MAX_SUDO_COMMANDS || list.iter().any(|command| !valid_sudo_command(command)))
            {
                Some("its sudo commands are too many or none")
            } else if account.keys.len() > MAX_KEYS {
                Some("it has too many keys")
            } else {
                None
            };
            if let Some(problem) = problem {
                return unsound(name, problem);
            }
        }
        if !self.accounts.is_sorted_by(|one, next| one.os_user < next.os_user) {
            return unsound("its accounts", "they are not in order");
        }
        for file in &self.key_files {
            if file.os_users.is_empty()
                || file.os_users.len() > MAX_ACCOUNTS
                || file.os_users.iter().any(|name| !valid_os_user(name))
                || !file.os_users.is_sorted_by(|one, next| one < next)
                || file.keys.len() > MAX_KEYS
            {
                return unsound(&file.group, "its key file names no account, or too many accounts or keys");
            }
        }
        if !self.key_files.is_sorted_by(|one, next| one.group < next.group) {
            return unsound("its key files", "they are not in order");
        }
        Ok(())
    }

    /// Signs the bundle: its canonical bytes behind the key's id and the signature.
    pub fn sign(&self, key_id: KeyId, key: &Ed25519KeyPair) -> Vec<u8> {
        let body = self.body();
        let mut signed = FieldWriter::default();
        signed.bytes(&key_id.0).bytes(key.sign(&body).as_ref()).bytes(&body);
        signed.finish()
    }

    /// Returns the canonical bytes of what it says, without version and time: the same for bundles that say the same.
    pub fn content(&self) -> Vec<u8> {
        Self { version: 0, issued: Timestamp(0), ..self.clone() }.body()
    }

    fn body(&self) -> Vec<u8> {
        let own = self.accounts.iter().flat_map(|account| &account.keys);
        let mut keys = own.chain(self.key_files.iter().flat_map(|file| &file.keys));
        let options = keys.any(|key| !key.options.is_empty());
        let mut body = FieldWriter::new(if options { CONTEXT_WITH_OPTIONS } else { CONTEXT });
        body.text(self.node.as_str()).u64(self.version).i64(self.issued.0).u64(self.accounts.len() as u64);
        for account in &self.accounts {
            put_account(&mut body, account, options);
        }
        body.u64(self.key_files.len() as u64);
        for file in &self.key_files {
            body.text(&file.group).texts(&file.os_users);
            put_keys(&mut body, &file.keys, options);
        }
        body.finish()
    }

    /// Verifies a signed bundle: by a grant key that is trusted now, for this node, not older than `held_version`.
    pub fn verify(
        signed: &[u8],
        trust: &TrustBundle,
        node: &NodeId,
        held_version: u64,
        now: Timestamp,
    ) -> Result<Self, BundleError> {
        let mut fields = FieldReader::new(signed, b"")?;
        let key_id = KeyId(fields.fixed()?);
        let signature: [u8; 64] = fields.fixed()?;
        let body = fields.bytes(MAX_BUNDLE_BYTES)?;
        fields.end()?;
        let key = trust.grant_key(key_id, now).ok_or(BundleError::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key).verify(body, &signature).map_err(|_| BundleError::BadSignature)?;
        let bundle = Self::read(body)?;
        bundle.check()?;
        if bundle.node != *node {
            return Err(BundleError::OtherNode);
        }
        if bundle.version < held_version {
            return Err(BundleError::Older { offered: bundle.version, held: held_version });
        }
        Ok(bundle)
    }

    fn read(body: &[u8]) -> Result<Self, FieldError> {
        let options = body.starts_with(CONTEXT_WITH_OPTIONS);
        let mut fields = FieldReader::new(body, if options { CONTEXT_WITH_OPTIONS } else { CONTEXT })?;
        let node = NodeId::parse(fields.text(32)?).map_err(|_| FieldError::Unknown)?;
        let (version, issued) = (fields.u64()?, Timestamp(fields.i64()?));
        let mut accounts = Vec::new();
        for _ in 0..count(&mut fields, MAX_ACCOUNTS)? {
            accounts.push(get_account(&mut fields, options)?);
        }
        let mut key_files = Vec::new();
        for _ in 0..count(&mut fields, MAX_KEY_FILES)? {
            key_files.push(KeyFile {
                group: fields.text(MAX_TEXT_BYTES)?.to_owned(),
                os_users: fields.texts(MAX_ACCOUNTS, MAX_ACCOUNTS * 32)?,
                keys: get_keys(&mut fields, options)?,
            });
        }
        fields.end()?;
        Ok(Self { node, version, issued, accounts, key_files })
    }

    /// Returns an account by its name.
    pub fn account(&self, os_user: &str) -> Option<&BundleAccount> {
        let at = self.accounts.binary_search_by(|account| account.os_user.as_str().cmp(os_user)).ok()?;
        self.accounts.get(at)
    }

    /// Returns the keys that sshd may take for an account now: its own, unless it is locked or gone, and those of the key
    /// files that name it.
    pub fn keys_of<'a>(&'a self, os_user: &'a str, now: Timestamp) -> impl Iterator<Item = &'a BundleKey> {
        let account = self.account(os_user);
        let closed = account.is_some_and(|found| matches!(found.state, AccountState::Locked | AccountState::Removed));
        let own = account.into_iter().flat_map(|account| &account.keys);
        let named = move |file: &&KeyFile| file.os_users.iter().any(|name| name == os_user);
        let shared = self.key_files.iter().filter(named).flat_map(|file| &file.keys);
        own.chain(shared).filter(move |key| !closed && key.expires.is_none_or(|expires| now < expires))
    }
}

fn count(fields: &mut FieldReader<'_>, most: usize) -> Result<usize, FieldError> {
    usize::try_from(fields.u64()?).ok().filter(|count| *count <= most).ok_or(FieldError::TooLong(most))
}

fn put_account(body: &mut FieldWriter, account: &BundleAccount, options: bool) {
    let state = match account.state {
        AccountState::Active => 1,
        AccountState::Locked => 2,
        AccountState::Removed => 3,
        AccountState::Foreign => 4,
        AccountState::Awaited => 5,
    };
    let mode = match account.mode {
        AccountMode::JustInTime => 1,
        AccountMode::Synchronised => 2,
    };
    body.text(&account.os_user).u64(u64::from(account.uid)).u8(state).u8(mode).text(&account.owner);
    body.texts(&account.groups);
    match &account.sudo {
        Sudo::None => body.u8(0),
        Sudo::All => body.u8(1),
        Sudo::Commands(commands) => body.u8(2).texts(commands),
    };
    body.text(&account.shell).u8(u8::from(account.remove_home));
    put_keys(body, &account.keys, options);
}

fn get_account(fields: &mut FieldReader<'_>, options: bool) -> Result<BundleAccount, FieldError> {
    Ok(BundleAccount {
        os_user: fields.text(32)?.to_owned(),
        uid: u32::try_from(fields.u64()?).map_err(|_| FieldError::Unknown)?,
        state: match fields.u8()? {
            1 => AccountState::Active,
            2 => AccountState::Locked,
            3 => AccountState::Removed,
            4 => AccountState::Foreign,
            5 => AccountState::Awaited,
            _ => return Err(FieldError::Unknown),
        },
        mode: match fields.u8()? {
            1 => AccountMode::JustInTime,
            2 => AccountMode::Synchronised,
            _ => return Err(FieldError::Unknown),
        },
        owner: fields.text(2048)?.to_owned(),
        groups: fields.texts(MAX_GROUPS, MAX_GROUPS * 32)?,
        sudo: match fields.u8()? {
            0 => Sudo::None,
            1 => Sudo::All,
            2 => Sudo::Commands(fields.texts(MAX_SUDO_COMMANDS, MAX_SUDO_COMMANDS * MAX_TEXT_BYTES)?),
            _ => return Err(FieldError::Unknown),
        },
        shell: fields.text(MAX_TEXT_BYTES)?.to_owned(),
        remove_home: flag(fields)?,
        keys: get_keys(fields, options)?,
    })
}

fn put_keys(body: &mut FieldWriter, keys: &[BundleKey], options: bool) {
    body.u64(keys.len() as u64);
    for key in keys {
        let sources: Vec<String> = key.sources.iter().map(ToString::to_string).collect();
        body.text(key.key.kind().as_str()).bytes(key.key.blob()).text(&key.principal).text(&key.key_id).texts(&sources);
        match key.expires {
            Some(expires) => body.u8(1).i64(expires.0),
            None => body.u8(0),
        };
        body.u8(u8::from(key.privileged));
        if options {
            body.text(&key.options.to_string());
        }
    }
}

fn get_keys(fields: &mut FieldReader<'_>, with_options: bool) -> Result<Vec<BundleKey>, FieldError> {
    let mut keys = Vec::new();
    for _ in 0..count(fields, MAX_KEYS)? {
        let (kind, blob) = (fields.text(64)?, fields.bytes(MAX_KEY_BYTES)?);
        let key = PublicKey::from_parts(kind, blob).map_err(|_| FieldError::Unknown)?;
        let (principal, key_id) = (fields.text(2048)?.to_owned(), fields.text(128)?.to_owned());
        let mut sources = Vec::new();
        for text in fields.texts(MAX_SOURCES, MAX_SOURCES * 64)? {
            // One encoding per value: a range is written in one way only.
            let range: IpNet = text.parse().map_err(|_| FieldError::Unknown)?;
            if range.to_string() != text {
                return Err(FieldError::Unknown);
            }
            sources.push(range);
        }
        let expires = if flag(fields)? { Some(Timestamp(fields.i64()?)) } else { None };
        let privileged = flag(fields)?;
        let mut options = KeyOptions::default();
        if with_options {
            let text = fields.text(MAX_OPTIONS)?;
            options = KeyOptions::parse(text).map_err(|_| FieldError::Unknown)?;
            // One encoding per value.
            if options.to_string() != text {
                return Err(FieldError::Unknown);
            }
        }
        keys.push(BundleKey { key, principal, key_id, sources, expires, privileged, options });
    }
    Ok(keys)
}

fn flag(fields: &mut FieldReader<'_>) -> Result<bool, FieldError> {
    match fields.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(FieldError::Unknown),
    }
}

#[cfg(test)]
mod tests;
