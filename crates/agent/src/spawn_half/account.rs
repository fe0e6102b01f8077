//! Which OS user a program may run as: looked up before anything is started, exact names only (T-22, T-77).

use std::ffi::CString;
use std::path::{Path, PathBuf};

use munjigi_core::grant::valid_os_user;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::clock;
use crate::sys;

/// Most supplementary groups (the kernel's own bound is 65,536).
const MAX_GROUPS: usize = 65_536;
/// User ids below belong to the system (login.defs `UID_MIN`).
const FIRST_ORDINARY_UID: u32 = 1000;
/// Groups whose members administer the system, or can become root through what the group may use.
const ADMINISTRATORS: [&str; 6] = ["root", "sudo", "wheel", "admin", "docker", "lxd"];

/// An account that may be used, with everything that the child needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// Its exact name.
    pub(crate) name: String,
    /// User id.
    pub(crate) uid: Uid,
    /// Primary group.
    pub(crate) gid: Gid,
    /// All groups, sorted, each once; the primary one included.
    pub(crate) groups: Vec<Gid>,
    /// Home directory; opened only after privileges are dropped.
    pub(crate) home: PathBuf,
    /// Login shell.
    pub(crate) shell: PathBuf,
}

/// Why an account is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    /// Not a name.
    #[error("`{0}` is not the name of an OS user")]
    BadName(String),
    /// No such user.
    #[error("this node has no OS user `{0}`; create it, or ask for another one")]
    Unknown(String),
    /// It is the default one, which the agent makes, and could not be made.
    #[error("the agent could not make OS user `{0}` ({1}); make it yourself, or name another user")]
    NotMade(String, String),
    /// The name service failed.
    #[error("the node could not look up OS user `{0}`: {1}; try again, then check its name service")]
    LookupFailed(String, nix::Error),
    /// The agent has no privileges.
    #[error("the agent on this node runs as `{own}`, not as root, so it serves only that user and not `{wanted}`")]
    OnlyOwnUser {
        /// Whom it runs as.
        own: String,
        /// Who was wanted.
        wanted: String,
    },
    /// Vetoed by the node's own configuration.
    #[error("this node's agent.toml does not list OS user `{0}` in `allowed_users`")]
    NotAllowedHere(String),
    /// Password locked.
    #[error("OS user `{0}` is locked on this node; `passwd -u` unlocks it")]
    Locked(String),
    /// Expired.
    #[error("OS user `{0}` has expired on this node; `chage -E` changes the date")]
    Expired(String),
    /// No login shell.
    #[error("OS user `{0}` may not log in on this node: its shell is {1}")]
    NoLogin(String, String),
    /// An administrator's account, which the decision did not cover.
    #[error("OS user `{0}` is privileged on this node ({1}), and the policies do not allow privileged users here")]
    Privileged(String, String),
    /// `/etc/nologin` exists.
    #[error("this node lets nobody but root in at present: /etc/nologin exists")]
    NodeClosed,
    /// More groups than a process can have.
    #[error("OS user `{0}` is in more groups than a process can have")]
    TooManyGroups(String),
}

impl AccountError {
    /// Returns the machine-readable reason.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::BadName(_) => "OsUserInvalid",
            Self::Unknown(_) | Self::NotMade(..) => "OsUserUnknown",
            Self::LookupFailed(..) => "OsUserLookupFailed",
            Self::OnlyOwnUser { .. } => "AgentNotPrivileged",
            Self::NotAllowedHere(_) => "OsUserNotAllowedOnNode",
            Self::Locked(_) => "OsUserLocked",
            Self::Expired(_) => "OsUserExpired",
            Self::NoLogin(..) => "OsUserNoLogin",
            Self::Privileged(..) => "OsUserPrivileged",
            Self::NodeClosed => "NodeClosedForLogin",
            Self::TooManyGroups(_) => "OsUserTooManyGroups",
        }
    }
}

/// Finds the account and checks that it may be used now. `privileged` is the grant's word on administrators; `allowed`
/// is the node's own list, if it has one.
pub(crate) fn look_up(name: &str, privileged: bool, allowed: Option<&[String]>) -> Result<Account, AccountError> {
    if !valid_os_user(name) {
        return Err(AccountError::BadName(name.escape_default().take(64).collect()));
    }
    if allowed.is_some_and(|list| !list.iter().any(|entry| entry == name)) {
        return Err(AccountError::NotAllowedHere(name.to_owned()));
    }
    let found = User::from_name(name).map_err(|errno| AccountError::LookupFailed(name.to_owned(), errno))?;
    // A name service may answer for a name that it considers equal (T-77).
    let user = found.filter(|user| user.name == name).ok_or_else(|| AccountError::Unknown(name.to_owned()))?;
    let own = Uid::effective();
    if !own.is_root() && user.uid != own {
        return Err(AccountError::OnlyOwnUser { own: name_of(own), wanted: name.to_owned() });
    }
    let c_name = CString::new(name).map_err(|_| AccountError::BadName(name.to_owned()))?;
    let today = clock::now().as_secs().div_euclid(86_400);
    check_shadow(name, sys::shadow(&c_name), today)?;
    let shell = if user.shell.as_os_str().is_empty() { PathBuf::from("/bin/sh") } else { user.shell };
    check_shell(name, &shell)?;
    if !user.uid.is_root() && Path::new("/etc/nologin").exists() {
        return Err(AccountError::NodeClosed);
    }
    let mut groups =
        getgrouplist(&c_name, user.gid).map_err(|errno| AccountError::LookupFailed(name.to_owned(), errno))?;
    groups.push(user.gid);
    groups.sort_by_key(|group| group.as_raw());
    groups.dedup();
    if groups.len() > MAX_GROUPS {
        return Err(AccountError::TooManyGroups(name.to_owned()));
    }
    // An agent that is not root cannot give anybody more than it has itself.
    if !privileged && own.is_root() {
        check_privileged(name, user.uid, &groups)?;
    }
    Ok(Account { name: user.name, uid: user.uid, gid: user.gid, groups, home: user.dir, shell })
}

/// Refuses who is an administrator of this node, or could become one without asking (T-54).
fn check_privileged(name: &str, uid: Uid, groups: &[Gid]) -> Result<(), AccountError> {
    if uid.as_raw() < FIRST_ORDINARY_UID {
        return Err(AccountError::Privileged(name.to_owned(), format!("its user id is {uid}")));
    }
    for group in ADMINISTRATORS {
        let found = Group::from_name(group)
            .map_err(|errno| AccountError::LookupFailed(name.to_owned(), errno))?
            .filter(|found| groups.contains(&found.gid));
        if found.is_some() {
            return Err(AccountError::Privileged(name.to_owned(), format!("it is in group {group}")));
        }
    }
    Ok(())
}

/// Returns the only user that this agent can serve; empty when it is root.
pub(crate) fn only_user() -> String {
    let own = Uid::effective();
    if own.is_root() { String::new() } else { name_of(own) }
}

/// Returns the name of a user id, or its number.
pub(crate) fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

fn check_shadow(name: &str, shadow: Option<sys::Shadow>, today: i64) -> Result<(), AccountError> {
    let Some(shadow) = shadow else { return Ok(()) };
    if shadow.locked {
        return Err(AccountError::Locked(name.to_owned()));
    }
    if shadow.expires.is_some_and(|day| today >= day) {
        return Err(AccountError::Expired(name.to_owned()));
    }
    Ok(())
}

fn check_shell(name: &str, shell: &Path) -> Result<(), AccountError> {
    let closed = shell.file_name().is_none_or(|file| file == "nologin" || file == "false");
    if closed { Err(AccountError::NoLogin(name.to_owned(), shell.display().to_string())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_user_is_found_with_all_its_groups() {
        let own = User::from_uid(Uid::effective()).unwrap().unwrap();
        let account = look_up(&own.name, true, None).unwrap();
        assert_eq!((account.uid, account.gid), (own.uid, own.gid));
        assert!(account.groups.contains(&own.gid));
        assert!(account.groups.is_sorted_by_key(|group| group.as_raw()));
    }

    #[test]
    fn refusals_say_why() {
        let reason = |name: &str, allowed: Option<&[String]>| look_up(name, true, allowed).unwrap_err().reason();
        assert_eq!(reason("0", None), "OsUserInvalid");
        assert_eq!(reason("Root", None), "OsUserInvalid");
        assert_eq!(reason("no-such-user-here", None), "OsUserUnknown");
        assert_eq!(reason("root", Some(&["alice".to_owned()])), "OsUserNotAllowedOnNode");
        let daemon = if Uid::effective().is_root() { "OsUserNoLogin" } else { "AgentNotPrivileged" };
        assert_eq!(reason("daemon", None), daemon);
    }

    #[test]
    fn administrators_need_a_grant_that_says_so() {
        let check = |uid: u32, groups: &[Gid]| check_privileged("a", Uid::from_raw(uid), groups);
        assert!(matches!(check(0, &[]), Err(AccountError::Privileged(..))));
        assert!(matches!(check(999, &[]), Err(AccountError::Privileged(..))));
        assert!(check(1000, &[Gid::from_raw(1000)]).is_ok());
        assert!(matches!(check(1000, &[Gid::from_raw(0)]), Err(AccountError::Privileged(..))));
    }

    #[test]
    fn locked_and_expired_accounts_are_refused_and_those_without_password_are_not() {
        let shadow = |locked, expires| Some(sys::Shadow { locked, expires });
        assert!(check_shadow("a", None, 20_000).is_ok());
        assert!(check_shadow("a", shadow(false, None), 20_000).is_ok());
        assert!(check_shadow("a", shadow(false, Some(20_001)), 20_000).is_ok());
        assert!(matches!(check_shadow("a", shadow(false, Some(20_000)), 20_000), Err(AccountError::Expired(_))));
        assert!(matches!(check_shadow("a", shadow(true, None), 20_000), Err(AccountError::Locked(_))));
        for closed in ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/"] {
            assert!(matches!(check_shell("a", Path::new(closed)), Err(AccountError::NoLogin(..))), "{closed}");
        }
        assert!(check_shell("a", Path::new("/bin/bash")).is_ok());
    }
}
