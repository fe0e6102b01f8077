//! Makes the node's accounts what its bundle says: a process of its own, started by the privileged half, without a network.
//!
//! It verifies the stored bundle itself, decides by [`reconcile`] what is to be done, does it step by step, and writes down
//! after each step what it did: killed at any moment, the next one goes on from there. It never touches an account that is
//! not in the book of those it made or took over.

mod change;
mod database;
mod home;
mod sudo;
mod system;
mod text;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::Context as _;
use munjigi_core::account::book::{Book, Managed, Problem, Status};
use munjigi_core::account::bundle::{AccountBundle, AccountMode, AccountState, Sudo};
use munjigi_core::account::reconcile::{Step, System, reconcile};

use crate::clock;
use crate::config;
use crate::identity::DataDir;

/// Name of the signed bundle in the data directory.
pub(crate) const BUNDLE_FILE: &str = "accounts.bundle";
/// Name of the book in the data directory.
pub(crate) const BOOK_FILE: &str = "accounts.json";
/// Names the data directory.
pub(crate) const DATA_VARIABLE: &str = "MUNJIGI_ACCOUNTS_DATA";
/// Holds the number of the newest change that the server has.
pub(crate) const RECORDED_VARIABLE: &str = "MUNJIGI_ACCOUNTS_RECORDED";
/// Holds the accounts made just in time whose last session is over, separated by commas.
pub(crate) const DISMISSED_VARIABLE: &str = "MUNJIGI_ACCOUNTS_DISMISSED";
/// Every account that is managed is in this group: for `AllowGroups` of sshd, and for people who look.
const MARKER_GROUP: &str = "munjigi-users";

/// What is wrong where the account files cannot be written at all (R16); fits a problem's detail.
const READ_ONLY: &str = "/etc is read-only here, so no account can be made or changed: leave this node out of the rule and \
                         have its sessions run as one account";

/// What the worker works on.
struct Worker {
    data: DataDir,
    bundle: AccountBundle,
    book: Book,
    problems: Vec<Problem>,
}

/// Does the work once.
pub(crate) fn run() -> anyhow::Result<()> {
    let data = std::env::var_os(DATA_VARIABLE).context("the account worker is started by `munjigi agent run` only")?;
    let data = DataDir::new(&PathBuf::from(data));
    let (identity, config) = (data.identity()?, config::load(&data)?);
    let signed = data.read(BUNDLE_FILE)?;
    let mut bundle = AccountBundle::verify(&signed, &identity.trust()?, &identity.node_id, 0, clock::now())
        .context("the stored account bundle is not good")?;
    for account in bundle.accounts.iter_mut().filter(|account| account.state == AccountState::Active) {
        account.groups.push(MARKER_GROUP.to_owned());
        account.groups.sort();
        account.groups.dedup();
    }
    let mut book: Book = match data.path(BOOK_FILE).exists() {
        true => serde_json::from_slice(&data.read(BOOK_FILE)?).context("accounts.json is damaged")?,
        false => Book::default(),
    };
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    book.recorded(variable(RECORDED_VARIABLE).parse().unwrap_or(0));
    book.dismissed.retain(|(_, version)| *version >= bundle.version);
    for name in variable(DISMISSED_VARIABLE).split(',').filter(|name| !name.is_empty()) {
        if !book.dismissed.iter().any(|(known, _)| known == name) {
            book.dismissed.push((name.to_owned(), bundle.version));
        }
    }
    let mut worker = Worker { data, bundle, book, problems: Vec::new() };
    worker.work(config.adopt_group.as_deref())
}

impl Worker {
    fn work(&mut self, adopt_group: Option<&str>) -> anyhow::Result<()> {
        let system = system::read(&self.bundle, adopt_group).context("failed to read the system's accounts")?;
        // First what takes rights away: who leaves has no sudo from here on.
        self.rights(&system);
        let dismissed: BTreeSet<String> = self.book.dismissed.iter().map(|(name, _)| name.clone()).collect();
        let work = reconcile(&self.bundle, &self.book, &system, &dismissed);
        self.problems.extend(work.problems);
        let mut failed: BTreeSet<String> = BTreeSet::new();
        // Said once for each account and in words that help, instead of what each tool says.
        let is_read_only = !work.steps.is_empty() && system::is_etc_read_only();
        if is_read_only {
            failed.extend(work.steps.iter().map(|step| step.os_user().to_owned()));
            self.problems.extend(failed.iter().map(|os_user| Problem::failed(os_user, READ_ONLY)));
        }
        for step in &work.steps {
            if failed.contains(step.os_user()) {
                continue;
            }
            if let Err(why) = self.step(step) {
                failed.insert(step.os_user().to_owned());
                self.problems.push(Problem::failed(step.os_user(), &why));
            }
            self.keep()?;
        }
        self.note_owners();
        let system = system::read(&self.bundle, None).context("failed to read the system's accounts")?;
        self.rights(&system);
        self.problems.dedup();
        self.book.set_problems(clock::now(), std::mem::take(&mut self.problems));
        self.book.version = self.bundle.version;
        self.keep()
    }

    fn keep(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec(&self.book).context("failed to encode the book of accounts")?;
        self.data.write(BOOK_FILE, &text)
    }

    /// What the bundle says of accounts that are there and is no change of the system.
    fn note_owners(&mut self) {
        for account in &self.bundle.accounts {
            if let Some(known) = self.book.accounts.iter_mut().find(|known| known.os_user == account.os_user) {
                known.owner.clone_from(&account.owner);
                known.just_in_time = account.mode == AccountMode::JustInTime;
            }
        }
    }

    /// Writes the drop-in of sudoers: rights only for accounts that are ours, in use, and there.
    fn rights(&mut self, system: &System) {
        let entitled = |name: &str| {
            let known = self.book.account(name).filter(|known| known.status == Status::Active);
            known.is_some_and(|known| system.users.get(name).is_some_and(|user| user.uid == known.uid))
                && !self.book.dismissed.iter().any(|(over, _)| over == name)
        };
        let text = munjigi_core::account::sudoers::write(&self.bundle, entitled);
        if let Err(why) = sudo::put(text.as_deref()) {
            let with_rights =
                self.bundle.accounts.iter().filter(|account| account.sudo != Sudo::None && entitled(&account.os_user));
            let problems: Vec<Problem> = with_rights.map(|account| Problem::failed(&account.os_user, &why)).collect();
            self.problems
                .extend(problems.into_iter().filter(|problem| !self.problems.contains(problem)).collect::<Vec<_>>());
            tracing::warn!(why, "the rights by sudo could not be written");
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let now = clock::now();
        let uid = self.book.account(step.os_user()).map_or(0, |known| known.uid);
        let mut note = |what: &str, detail: String| self.book.note(now, step.os_user(), what, detail);
        match step {
            Step::Create { os_user, uid, shell, owner, just_in_time } => {
                // Written down before it is made: an account that was made and not noted would be a stranger's for ever. One
                // that is noted and not there was begun by a worker that was killed, or deleted by hand.
                let resumed = self.book.account(os_user).is_some();
                let known = Managed {
                    os_user: os_user.clone(),
                    uid: *uid,
                    owner: owner.clone(),
                    just_in_time: *just_in_time,
                    status: Status::Active,
                    groups: Vec::new(),
                };
                self.book.put(known);
                self.keep().map_err(|error| format!("{error:#}"))?;
                match change::create(os_user, *uid, shell, owner, resumed) {
                    Ok(how) => self.book.note(now, os_user, "created", format!("user id {uid}, for {owner}{how}")),
                    Err(why) => {
                        self.book.forget(os_user);
                        return Err(why);
                    }
                }
            }
            Step::Adopt { os_user, uid, owner } => {
                note("adopted", format!("user id {uid}, for {owner}"));
                let (os_user, owner, groups) = (os_user.clone(), owner.clone(), Vec::new());
                let status = Status::Active;
                self.book.put(Managed { os_user, uid: *uid, owner, just_in_time: false, status, groups });
            }
            Step::Unlock(name) => {
                change::unlock(name)?;
                note("unlocked", String::new());
                self.change(name, |known| known.status = Status::Active);
            }
            Step::Shell(name, shell) => {
                change::set_shell(name, shell)?;
                note("changed", format!("its shell is {shell}"));
            }
            Step::Join(name, group) => {
                change::join(name, group)?;
                note("changed", format!("it is in group {group}"));
                self.change(name, |known| known.groups.push(group.clone()));
            }
            Step::Leave(name, group) => {
                change::leave(name, group)?;
                note("changed", format!("it is no longer in group {group}"));
                self.change(name, |known| known.groups.retain(|given| given != group));
            }
            Step::Lock(name) => {
                change::lock(name)?;
                let killed = system::kill_all(uid);
                note("locked", format!("{killed} of its processes were ended"));
                self.change(name, |known| known.status = Status::Locked);
            }
            Step::Delete { os_user, remove_home } => {
                let home = change::delete(os_user, uid, *remove_home)?;
                note("removed", home);
                self.book.forget(os_user);
            }
        }
        Ok(())
    }

    fn change(&mut self, name: &str, change: impl FnOnce(&mut Managed)) {
        if let Some(known) = self.book.accounts.iter_mut().find(|known| known.os_user == name) {
            change(known);
        }
    }
}
