//! What a node has to do so that its accounts become what the bundle says: decided from bundle, memory and system, done
//! elsewhere.
//!
//! INVARIANT: an account that the node neither made nor took over is never changed, and nothing is done about an account
//! that the bundle does not name, unless it was made just in time (T-27).

use std::collections::{BTreeMap, BTreeSet};

use super::book::{Book, Managed, Problem, Status};
use super::bundle::{AccountBundle, AccountMode, AccountState, BundleAccount};

/// A user as the system has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemUser {
    /// User id.
    pub uid: u32,
    /// Login shell.
    pub shell: String,
}

/// The part of the system that matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct System {
    /// Users by name.
    pub users: BTreeMap<String, SystemUser>,
    /// Members of each group that is there.
    pub groups: BTreeMap<String, BTreeSet<String>>,
    /// Users of another system that may be taken over: members of its marker group, as the node's owner said.
    pub adoptable: BTreeSet<String>,
}

/// One thing to do. They are done in order; one that fails stops those of the same account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the account, with the group of its own name and a home.
    Create {
        /// The account.
        os_user: String,
        /// Its user id.
        uid: u32,
        /// Its shell.
        shell: String,
        /// Whose it is.
        owner: String,
        /// Whether it is made just in time.
        just_in_time: bool,
    },
    /// Take over an account that another system made; it keeps its user id.
    Adopt {
        /// The account.
        os_user: String,
        /// The user id that it has.
        uid: u32,
        /// Whose it is.
        owner: String,
    },
    /// Unlock it.
    Unlock(String),
    /// Give it this shell.
    Shell(String, String),
    /// Put it in a group, which is made if it is not there.
    Join(String, String),
    /// Take it out of a group that this node put it in.
    Leave(String, String),
    /// Lock and expire it and kill what it runs.
    Lock(String),
    /// Delete the account; its home is archived, or deleted if `remove_home`.
    Delete {
        /// The account.
        os_user: String,
        /// Whether the home goes too.
        remove_home: bool,
    },
}

impl Step {
    /// Returns the account that it is about.
    pub fn os_user(&self) -> &str {
        match self {
            Self::Create { os_user, .. } | Self::Adopt { os_user, .. } | Self::Delete { os_user, .. } => os_user,
            Self::Unlock(name)
            | Self::Lock(name)
            | Self::Shell(name, _)
            | Self::Join(name, _)
            | Self::Leave(name, _) => name,
        }
    }
}

/// What is to be done, and what cannot be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// In order: those who leave first.
    pub steps: Vec<Step>,
    /// Accounts that are left alone, and why.
    pub problems: Vec<Problem>,
}

/// Decides what is to be done. `dismissed` are the accounts made just in time whose last session is over.
pub fn reconcile(bundle: &AccountBundle, book: &Book, system: &System, dismissed: &BTreeSet<String>) -> Work {
    let (mut leaving, mut staying, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut uids: BTreeMap<u32, &str> = system.users.iter().map(|(name, user)| (user.uid, name.as_str())).collect();
    for known in &book.accounts {
        let listed = bundle.account(&known.os_user).filter(|account| account.state.is_managed());
        if listed.is_none() && known.just_in_time {
            leave(known, system, true, false, &mut leaving);
        }
    }
    for account in bundle.accounts.iter().filter(|account| account.state.is_managed()) {
        let known = book.account(&account.os_user);
        let over = account.mode == AccountMode::JustInTime && dismissed.contains(&account.os_user);
        match (account.state, known) {
            (AccountState::Active, _) if !over => match stay(account, known, system, &mut uids) {
                Ok(steps) => staying.extend(steps),
                Err(problem) => problems.push(problem),
            },
            (_, None) => {}
            (AccountState::Locked, Some(known)) => leave(known, system, false, false, &mut leaving),
            (_, Some(known)) => leave(known, system, true, account.remove_home, &mut leaving),
        }
    }
    leaving.extend(staying);
    Work { steps: leaving, problems }
}

/// Locks a managed account, and deletes it if it is to go.
fn leave(known: &Managed, system: &System, delete: bool, remove_home: bool, steps: &mut Vec<Step>) {
    let name = &known.os_user;
    // Somebody deleted it, or made another one of that name: it is not ours any more.
    let ours = system.users.get(name).is_some_and(|user| user.uid == known.uid);
    if ours {
        steps.extend((known.status != Status::Locked).then(|| Step::Lock(name.clone())));
        steps.extend(known.groups.iter().map(|group| Step::Leave(name.clone(), group.clone())));
    }
    if delete {
        steps.push(Step::Delete { os_user: name.clone(), remove_home });
    }
}

/// Makes an account what it shall be.
fn stay<'a>(
    account: &'a BundleAccount,
    known: Option<&Managed>,
    system: &System,
    uids: &mut BTreeMap<u32, &'a str>,
) -> Result<Vec<Step>, Problem> {
    let name = &account.os_user;
    let mut steps = Vec::new();
    match (system.users.get(name), known) {
        (Some(user), Some(known)) if user.uid == known.uid => {
            steps.extend((known.status == Status::Locked).then(|| Step::Unlock(name.clone())));
            let closed = ["/nologin", "/false"].iter().any(|end| user.shell.ends_with(end));
            steps.extend(
                (closed || user.shell != account.shell).then(|| Step::Shell(name.clone(), account.shell.clone())),
            );
        }
        (Some(_), Some(_)) => {
            return Err(Problem::conflict(name, "somebody gave the name another user id; the account is left alone"));
        }
        (Some(user), None) if system.adoptable.contains(name) && user.uid >= super::bundle::FIRST_UID => {
            steps.push(Step::Adopt { os_user: name.clone(), uid: user.uid, owner: account.owner.clone() });
            steps.extend((user.shell != account.shell).then(|| Step::Shell(name.clone(), account.shell.clone())));
        }
        (Some(_), None) => {
            let text = "this node has an account of that name that Munjigi did not make; it is left alone";
            return Err(Problem::conflict(name, text));
        }
        (None, _) => {
            // Who was made here before keeps the user id of then: files may still have it.
            let uid = known.map_or(account.uid, |known| known.uid);
            if let Some(other) = uids.get(&uid) {
                return Err(Problem::conflict(name, &format!("its user id {uid} is that of {other} on this node")));
            }
            uids.insert(uid, name);
            steps.push(Step::Create {
                os_user: name.clone(),
                uid,
                shell: account.shell.clone(),
                owner: account.owner.clone(),
                just_in_time: account.mode == AccountMode::JustInTime,
            });
        }
    }
    let given = known.filter(|known| system.users.get(name).is_some_and(|user| user.uid == known.uid));
    let given: &[String] = given.map_or(&[], |known| &known.groups);
    let wanted = &account.groups;
    steps.extend(
        given.iter().filter(|group| !wanted.contains(group)).map(|group| Step::Leave(name.clone(), group.clone())),
    );
    let inside = |group: &String| system.groups.get(group).is_some_and(|members| members.contains(name));
    steps.extend(wanted.iter().filter(|group| !inside(group)).map(|group| Step::Join(name.clone(), group.clone())));
    Ok(steps)
}

#[cfg(test)]
mod tests;
