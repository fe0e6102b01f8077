//! How people's accounts on this machine are doing, from the agent's own files: asks nobody, so that it answers when
//! nobody else does (R24).

use std::time::UNIX_EPOCH;

use munjigi_core::account::book::{Book, Status as AccountStatus};
use munjigi_core::account::bundle::AccountBundle;
use munjigi_core::time::Timestamp;
use serde::Serialize;

use crate::account_worker::{BOOK_FILE, BUNDLE_FILE};
use crate::identity::DataDir;
use crate::{clock, config, register};

/// How well it is; the number is the exit status that monitoring looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything is as it shall be.
    Healthy = 0,
    /// Something waits or is wrong, and the rest works.
    Degraded = 1,
    /// Accounts or keys cannot be relied on.
    Broken = 2,
}

/// What is wrong with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountProblem {
    /// The account.
    pub os_user: String,
    /// `conflict` or `failed`.
    pub what: String,
    /// For people.
    pub detail: String,
}

/// The whole answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccountHealth {
    /// How well it is.
    pub health: Health,
    /// Why it is not better, for people; empty if it is healthy.
    pub reasons: Vec<String>,
    /// Whether the agent has a link to its server, which is the only source.
    pub online: bool,
    /// Whether this machine lets its accounts be managed.
    pub manages_accounts: bool,
    /// Seconds since the server made the list of accounts and keys that holds; absent if there is none.
    pub cache_age_seconds: Option<u64>,
    /// Until when keys of that list are good for sshd without another word of the server, RFC 3339.
    pub keys_good_until: Option<String>,
    /// When the accounts were looked at last, RFC 3339.
    pub last_sync: Option<String>,
    /// Accounts that the agent made or took over, and are in use.
    pub active: usize,
    /// Those that are locked.
    pub locked: usize,
    /// What is wrong.
    pub problems: Vec<AccountProblem>,
}

/// What the health is judged by.
struct Facts {
    online: bool,
    why_offline: String,
    running: bool,
    manages: bool,
    grace_secs: u64,
    now: Timestamp,
    /// Version and time of the list, or why it is not good; `None`: there is none.
    bundle: Option<Result<(u64, Timestamp), String>>,
    /// What was done, and when; `None`: nothing yet.
    book: Option<Result<(Book, Timestamp), String>>,
}

/// Looks at the files of an agent's data directory.
pub fn account_health(data_dir: &std::path::Path) -> anyhow::Result<AccountHealth> {
    let data = DataDir::new(data_dir);
    let (identity, config, status) = (data.identity()?, config::load(&data)?, register::status(data_dir)?);
    let now = clock::now();
    let bundle = data.path(BUNDLE_FILE).exists().then(|| {
        let read = || {
            let (signed, trust) = (data.read(BUNDLE_FILE)?, identity.trust()?);
            let bundle = AccountBundle::verify(&signed, &trust, &identity.node_id, 0, now)?;
            anyhow::Ok((bundle.version, bundle.issued))
        };
        read().map_err(|error| format!("{error:#}"))
    });
    let book = data.path(BOOK_FILE).exists().then(|| {
        let read = || {
            let book: Book = serde_json::from_slice(&data.read(BOOK_FILE)?)?;
            let changed = std::fs::metadata(data.path(BOOK_FILE))?.modified()?;
            let micros = changed.duration_since(UNIX_EPOCH)?.as_micros();
            anyhow::Ok((book, Timestamp(i64::try_from(micros)?)))
        };
        read().map_err(|error| format!("{error:#}"))
    });
    Ok(judge(Facts {
        online: status.online,
        why_offline: status.why,
        running: status.process_id.is_some(),
        manages: config.manage_accounts,
        grace_secs: u64::from(config.offline_grace_hours) * 3600,
        now,
        bundle,
        book,
    }))
}

fn judge(facts: Facts) -> AccountHealth {
    let mut found: Vec<(Health, String)> = Vec::new();
    if !facts.running {
        found.push((Health::Broken, "the agent does not run; `munjigi agent run` starts it".to_owned()));
    } else if !facts.online {
        found.push((Health::Degraded, format!("the server is away: {}", facts.why_offline)));
    }
    let told = match facts.bundle {
        Some(Ok(told)) => Some(told),
        Some(Err(why)) => {
            found.push((Health::Broken, format!("the stored list of accounts is not good: {why}")));
            None
        }
        None => None,
    };
    let age = told.map(|(_, issued)| facts.now.since(issued).as_secs());
    if age.is_some_and(|age| age > facts.grace_secs) {
        let hours = facts.grace_secs / 3600;
        found.push((Health::Broken, format!("sshd gets no keys any more: the list is older than {hours} h")));
    }
    let (book, last_sync) = match facts.book {
        Some(Ok((book, at))) => (book, Some(at)),
        Some(Err(why)) => {
            found.push((Health::Broken, format!("accounts.json is damaged: {why}")));
            (Book::default(), None)
        }
        None => (Book::default(), None),
    };
    if facts.manages && told.is_some_and(|(version, _)| version != book.version) {
        found.push((Health::Degraded, "the list that holds is not applied yet".to_owned()));
    }
    for word in ["conflict", "failed"] {
        let count = book.problems.iter().filter(|problem| problem.what == word).count();
        if count > 0 {
            found.push((Health::Degraded, format!("{count} accounts: {word}")));
        }
    }
    let count = |status| book.accounts.iter().filter(|account| account.status == status).count();
    let good_until = told.map(|(_, issued)| issued.plus(std::time::Duration::from_secs(facts.grace_secs)));
    AccountHealth {
        health: found.iter().map(|(health, _)| *health).max().unwrap_or(Health::Healthy),
        reasons: found.into_iter().map(|(_, why)| why).collect(),
        online: facts.online,
        manages_accounts: facts.manages,
        cache_age_seconds: age,
        keys_good_until: good_until.map(|at| at.to_iso_seconds()),
        last_sync: last_sync.map(|at| at.to_iso_seconds()),
        active: count(AccountStatus::Active),
        locked: count(AccountStatus::Locked),
        problems: book
            .problems
            .into_iter()
            .map(|problem| AccountProblem { os_user: problem.os_user, what: problem.what, detail: problem.detail })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use munjigi_core::account::book::Problem;

    use super::*;

    fn facts() -> Facts {
        Facts {
            online: true,
            why_offline: String::new(),
            running: true,
            manages: true,
            grace_secs: 24 * 3600,
            now: Timestamp::from_secs(1_000_000),
            bundle: Some(Ok((7, Timestamp::from_secs(999_000)))),
            book: Some(Ok((Book { version: 7, ..Book::default() }, Timestamp::from_secs(999_001)))),
        }
    }

    fn check(change: impl FnOnce(&mut Facts), health: Health, reason: &str) {
        let mut facts = facts();
        change(&mut facts);
        let judged = judge(facts);
        assert_eq!(judged.health, health, "{reason}: {judged:?}");
        assert!(judged.reasons.iter().any(|why| why.contains(reason)) || reason.is_empty(), "{reason}: {judged:?}");
    }

    #[test]
    fn health_is_the_worst_of_what_is_found() {
        check(|_| {}, Health::Healthy, "");
        check(|facts| (facts.bundle, facts.book) = (None, None), Health::Healthy, "");
        check(|facts| facts.online = false, Health::Degraded, "the server is away");
        check(|facts| facts.running = false, Health::Broken, "does not run");
        check(|facts| facts.bundle = Some(Err("forged".to_owned())), Health::Broken, "forged");
        check(|facts| facts.book = Some(Err("half".to_owned())), Health::Broken, "damaged");
        check(|facts| facts.bundle = Some(Ok((8, facts.now))), Health::Degraded, "not applied");
        check(|facts| (facts.manages, facts.bundle) = (false, Some(Ok((8, facts.now)))), Health::Healthy, "");
        check(|facts| facts.grace_secs = 999, Health::Broken, "no keys any more");
        let problems = vec![Problem::conflict("kim", "x"), Problem::failed("lee", "y")];
        let book = Book { version: 7, problems, ..Book::default() };
        check(|facts| facts.book = Some(Ok((book, facts.now))), Health::Degraded, "1 accounts: conflict");
    }
}
