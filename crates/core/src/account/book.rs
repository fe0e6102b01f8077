//! What a node remembers of the accounts that it manages: which it made, with what, and what it did since the server last
//! took note.

use serde::{Deserialize, Serialize};

use super::bundle::AccountMode;
use crate::time::Timestamp;
use crate::wire::message::{AccountLine, AccountReport, MAX_ACCOUNT_LINES};

/// Most changes that are kept for the server; older ones are dropped, and the first that is kept says so.
const MAX_CHANGES: usize = 1024;
/// Most bytes of a detail.
const MAX_DETAIL: usize = 150;
/// Most problems in one report: with the changes, it fits a message between the agent's halves (48 KiB).
const MAX_PROBLEMS: usize = 64;

/// The word for what was tried and failed.
const FAILED: &str = "failed";

/// Why a node's accounts are not yet what they shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfinished {
    /// Something failed that may succeed later.
    Failed,
    /// Nothing failed, but something that is not ours is in the way.
    Conflict,
}

/// What a managed account is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// In use.
    Active,
    /// Locked.
    Locked,
}

/// An account that the node manages: one that it made, or took over from another system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Managed {
    /// Its name.
    pub os_user: String,
    /// The user id that it has here.
    pub uid: u32,
    /// Whose it is.
    pub owner: String,
    /// Whether it was made just in time.
    pub just_in_time: bool,
    /// What it is.
    pub status: Status,
    /// Groups that this node put it in; those that it had already are not among them.
    pub groups: Vec<String>,
}

impl Managed {
    /// Returns how it comes and goes.
    pub fn mode(&self) -> AccountMode {
        if self.just_in_time { AccountMode::JustInTime } else { AccountMode::Synchronised }
    }
}

/// What happened to an account, as a word: `created`, `adopted`, `unlocked`, `changed`, `locked`, `removed`, and `settled` if
/// what was wrong with it is no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Its number; they rise.
    pub number: u64,
    /// When, microseconds since 1970.
    pub at: i64,
    /// The account.
    pub os_user: String,
    /// The word.
    pub what: String,
    /// For people.
    pub detail: String,
}

/// An account that is not as it should be: `conflict`, `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The account.
    pub os_user: String,
    /// The word.
    pub what: String,
    /// For people.
    pub detail: String,
}

impl Problem {
    /// There is something on the node that is not ours to change.
    pub fn conflict(os_user: &str, detail: &str) -> Self {
        Self { os_user: os_user.to_owned(), what: "conflict".to_owned(), detail: detail.to_owned() }
    }

    /// It was tried and failed.
    pub fn failed(os_user: &str, detail: &str) -> Self {
        Self { os_user: os_user.to_owned(), what: FAILED.to_owned(), detail: detail.to_owned() }
    }
}

/// The whole memory; a file on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Book {
    /// Version of the bundle that was applied last.
    pub version: u64,
    /// Number of the newest change.
    pub last_change: u64,
    /// Changes that the server has not yet taken note of.
    pub changes: Vec<Change>,
    /// What is wrong now.
    pub problems: Vec<Problem>,
    /// The accounts that are managed, in the order of their names.
    pub accounts: Vec<Managed>,
    /// Accounts made just in time whose last session is over, and the bundle's version then: they are made again only for
    /// a newer one.
    pub dismissed: Vec<(String, u64)>,
}

impl Book {
    /// Returns a managed account.
    pub fn account(&self, os_user: &str) -> Option<&Managed> {
        self.accounts.iter().find(|account| account.os_user == os_user)
    }

    /// Takes an account in, or what became of it.
    pub fn put(&mut self, account: Managed) {
        self.accounts.retain(|known| known.os_user != account.os_user);
        self.accounts.push(account);
        self.accounts.sort_by(|one, next| one.os_user.cmp(&next.os_user));
    }

    /// Forgets an account.
    pub fn forget(&mut self, os_user: &str) {
        self.accounts.retain(|known| known.os_user != os_user);
    }

    /// Writes a change down.
    pub fn note(&mut self, at: Timestamp, os_user: &str, what: &str, detail: String) {
        self.last_change += 1;
        let (number, os_user, what) = (self.last_change, os_user.to_owned(), what.to_owned());
        self.changes.push(Change { number, at: at.0, os_user, what, detail: cut(&detail) });
        if self.changes.len() > MAX_CHANGES {
            self.changes.remove(0);
        }
    }

    /// Puts what is wrong now in place of what was, and writes down which accounts are as they should be again.
    pub fn set_problems(&mut self, at: Timestamp, problems: Vec<Problem>) {
        for before in std::mem::replace(&mut self.problems, problems) {
            let still = self.problems.iter().any(|problem| problem.os_user == before.os_user);
            let said = self.changes.last().is_some_and(|last| last.os_user == before.os_user && last.what == "settled");
            if !still && !said {
                self.note(at, &before.os_user, "settled", format!("it is no longer so: {}", before.detail));
            }
        }
    }

    /// Returns what is tried again without being asked: whether something failed, or is only in somebody's way.
    pub fn unfinished(&self) -> Option<Unfinished> {
        let failed = self.problems.iter().any(|problem| problem.what == FAILED);
        match self.problems.is_empty() {
            true => None,
            false => Some(if failed { Unfinished::Failed } else { Unfinished::Conflict }),
        }
    }

    /// Forgets the changes that the server has in its trail.
    pub fn recorded(&mut self, number: u64) {
        self.changes.retain(|change| change.number > number);
    }

    /// Tells the server.
    pub fn report(&self, managed: bool) -> AccountReport {
        let changes = self.changes.iter().take(MAX_ACCOUNT_LINES).map(|change| AccountLine {
            number: change.number,
            at_micros: change.at,
            os_user: change.os_user.clone(),
            what: change.what.clone(),
            detail: cut(&change.detail),
        });
        let problems = self.problems.iter().take(MAX_PROBLEMS).map(|problem| AccountLine {
            number: 0,
            at_micros: 0,
            os_user: problem.os_user.clone(),
            what: problem.what.clone(),
            detail: cut(&problem.detail),
        });
        AccountReport { version: self.version, managed, changes: changes.collect(), problems: problems.collect() }
    }
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_DETAIL.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    #[test]
    fn changes_stay_until_the_server_has_them_and_are_bounded() {
        let mut book = Book::default();
        for at in 0..5000 {
            book.note(Timestamp(at), "kim", "created", "한".repeat(500));
        }
        assert_eq!((book.changes.len(), book.last_change), (MAX_CHANGES, 5000));
        let report = book.report(true);
        assert_eq!(report.changes.len(), MAX_ACCOUNT_LINES);
        book.problems = vec![Problem::failed(&"k".repeat(32), &"x".repeat(500)); 500];
        assert!(book.report(true).encoded_len() < 48 * 1024, "{}", book.report(true).encoded_len());
        book.recorded(report.changes.last().unwrap().number);
        assert_eq!(book.report(true).changes[0].number, report.changes.last().unwrap().number + 1);
        book.recorded(u64::MAX);
        assert!(book.changes.is_empty());
    }

    #[test]
    fn what_is_wrong_no_longer_is_said_once_for_each_account() {
        let (mut book, at) = (Book::default(), Timestamp(1));
        let (failed, conflict) = (Problem::failed("kim", "usermod said no"), Problem::conflict("lee", "not ours"));
        assert_eq!(book.unfinished(), None);
        book.set_problems(at, vec![failed.clone(), conflict.clone()]);
        assert_eq!((book.unfinished(), book.changes.len()), (Some(Unfinished::Failed), 0));
        // Another thing fails: it is not settled.
        book.set_problems(at, vec![Problem::failed("kim", "visudo said no"), failed.clone(), conflict.clone()]);
        assert!(book.changes.is_empty());
        book.set_problems(at, vec![conflict]);
        assert_eq!((book.unfinished(), book.changes.len()), (Some(Unfinished::Conflict), 1));
        assert_eq!((book.changes[0].os_user.as_str(), book.changes[0].what.as_str()), ("kim", "settled"));
        book.set_problems(at, Vec::new());
        assert_eq!((book.unfinished(), book.changes.len()), (None, 2));
    }

    #[test]
    fn it_survives_the_disk() {
        let mut book = Book { version: 3, dismissed: vec![("zoe".into(), 3)], ..Book::default() };
        let (os_user, owner, groups) = ("kim".to_owned(), "arn".to_owned(), vec!["docker".to_owned()]);
        book.put(Managed { os_user, uid: 60_000, owner, just_in_time: true, status: Status::Locked, groups });
        let text = serde_json::to_string(&book).unwrap();
        assert_eq!(serde_json::from_str::<Book>(&text).unwrap(), book);
    }
}
