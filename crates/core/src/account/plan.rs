//! Which synchronised accounts a node shall have next: who is new, who stays, who leaves, and when nobody is believed.
//!
//! INVARIANT (T-27, R11, L1): an answer that is empty because something failed removes nobody and takes no right away.
//! Somebody leaves only after two complete rounds without a rule for him, or by an explicit removal; a round in which more
//! than 20 % or more than 5 would leave, or all, waits for a person.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bundle::Sudo;
use super::rule::widest;
use crate::time::Timestamp;

/// Complete rounds without a rule for an account before it leaves.
const ROUNDS: u32 = 2;
/// Most accounts that leave in one round without a person's confirmation.
const MOST: usize = 5;
/// One in so many may leave: 20 %.
const SHARE: usize = 5;
/// How long a removed account is remembered, so that nodes which were away still learn of it.
pub const REMEMBERED: Duration = Duration::from_secs(30 * 86_400);

/// What an account has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// Groups, sorted.
    pub groups: Vec<String>,
    /// Commands of sudo; `ALL` alone for everything.
    pub sudo: Vec<String>,
    /// Shell.
    pub shell: String,
    /// Seconds for which it is kept, locked, when its owner leaves.
    pub grace_secs: u64,
    /// Whether its home is deleted then.
    pub remove_home: bool,
}

impl Rights {
    /// Returns the rights by sudo as the bundle has them.
    pub fn sudo(&self) -> Sudo {
        match self.sudo.as_slice() {
            [] => Sudo::None,
            [all] if all == "ALL" => Sudo::All,
            commands => Sudo::Commands(commands.to_vec()),
        }
    }

    /// Writes rights by sudo as they are stored.
    pub fn of_sudo(sudo: Sudo) -> Vec<String> {
        match sudo {
            Sudo::None => Vec::new(),
            Sudo::All => vec!["ALL".to_owned()],
            Sudo::Commands(commands) => commands,
        }
    }
}

/// What an account is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// In use.
    Active,
    /// Locked since.
    Locked(Timestamp),
    /// Gone since.
    Removed(Timestamp),
}

/// A synchronised account of a node as the server keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Its name; it stands once on a node.
    pub os_user: String,
    /// Its user id.
    pub uid: u32,
    /// The unchanging id of its owner.
    pub principal: String,
    /// The owner's ARN when it was seen last.
    pub owner: String,
    /// What it is.
    pub state: State,
    /// In how many complete rounds no rule gave it.
    pub missing: u32,
    /// Whether a person has to confirm that it leaves.
    pub held: bool,
    /// Whether a person has.
    pub confirmed: bool,
    /// What it has.
    pub rights: Rights,
}

/// A synchronised account that rules give now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Its name.
    pub os_user: String,
    /// Its user id.
    pub uid: u32,
    /// The unchanging id of its owner.
    pub principal: String,
    /// The owner's ARN.
    pub owner: String,
    /// What it has.
    pub rights: Rights,
}

/// What one look at rules, people and nodes has brought.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// When.
    pub now: Timestamp,
    /// Whether every source answered, and wholly.
    pub complete: bool,
    /// What rules give; each name once.
    pub desired: &'a [Desired],
    /// Principals whom somebody has just removed from a group, or deleted: an explicit removal needs no second round and
    /// no confirmation.
    pub explicit: &'a BTreeSet<String>,
}

/// What a round did to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// Its owner is back.
    Returned,
    /// Its rights changed.
    Changed,
    /// Its owner left.
    Left,
    /// Its grace is over.
    Removed,
    /// It would leave, with too many others: a person decides.
    Held,
}

/// The next state of a node's accounts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The accounts.
    pub rows: Vec<Row>,
    /// What happened, in the order of names.
    pub events: Vec<(String, What)>,
}

/// Decides what a node's accounts shall be after a round.
pub fn plan(rows: &[Row], round: Round<'_>) -> Plan {
    let wanted: BTreeMap<&str, &Desired> = round.desired.iter().map(|one| (one.os_user.as_str(), one)).collect();
    let mut next: BTreeMap<String, Row> = BTreeMap::new();
    let mut events = Vec::new();
    let mut event = |name: &str, what| events.push((name.to_owned(), what));
    let active = rows.iter().filter(|row| row.state == State::Active).count();
    let mut leaving: Vec<Row> = Vec::new();
    for row in rows {
        let mut row = row.clone();
        match wanted.get(row.os_user.as_str()) {
            Some(desired) if desired.principal == row.principal => {
                let rights = if round.complete { desired.rights.clone() } else { wider(&row.rights, &desired.rights) };
                match row.state {
                    State::Active if rights != row.rights => event(&row.os_user, What::Changed),
                    State::Active => {}
                    State::Locked(_) | State::Removed(_) => event(&row.os_user, What::Returned),
                }
                row = Row {
                    state: State::Active,
                    missing: 0,
                    held: false,
                    confirmed: false,
                    rights,
                    owner: desired.owner.clone(),
                    uid: desired.uid,
                    ..row
                };
            }
            // Somebody else's name now: that is decided by who has the pair, and the old account is long gone.
            Some(_) if matches!(row.state, State::Removed(_)) => continue,
            _ => match row.state {
                State::Active => {
                    let explicit = round.explicit.contains(&row.principal);
                    row.missing = if round.complete { row.missing.saturating_add(1) } else { row.missing };
                    if round.complete && (explicit || row.confirmed) {
                        event(&row.os_user, What::Left);
                        row = locked(row, round.now);
                    } else if round.complete && row.missing >= ROUNDS {
                        leaving.push(row);
                        continue;
                    }
                }
                State::Locked(since) => {
                    let over = round.now.since(since) >= Duration::from_secs(row.rights.grace_secs);
                    if round.complete && over {
                        event(&row.os_user, What::Removed);
                        row.state = State::Removed(round.now);
                    }
                }
                State::Removed(since) if round.now.since(since) >= REMEMBERED => continue,
                State::Removed(_) => {}
            },
        }
        next.insert(row.os_user.clone(), row);
    }
    let hold = leaving.len() > MOST || leaving.len() * SHARE > active;
    for row in leaving {
        let (name, already) = (row.os_user.clone(), row.held);
        let row = if hold { Row { held: true, ..row } } else { locked(row, round.now) };
        match (hold, already) {
            (false, _) => event(&name, What::Left),
            // Said once.
            (true, false) => event(&name, What::Held),
            (true, true) => {}
        }
        next.insert(name, row);
    }
    for desired in round.desired {
        if !next.contains_key(&desired.os_user) {
            event(&desired.os_user, What::Added);
            next.insert(desired.os_user.clone(), added(desired));
        }
    }
    events.sort_by(|one, other| one.0.cmp(&other.0));
    Plan { rows: next.into_values().collect(), events }
}

fn locked(row: Row, now: Timestamp) -> Row {
    Row { state: State::Locked(now), held: false, confirmed: false, ..row }
}

fn added(desired: &Desired) -> Row {
    Row {
        os_user: desired.os_user.clone(),
        uid: desired.uid,
        principal: desired.principal.clone(),
        owner: desired.owner.clone(),
        state: State::Active,
        missing: 0,
        held: false,
        confirmed: false,
        rights: desired.rights.clone(),
    }
}

/// What an account had and what it gets: in a round that is not complete nothing is withdrawn.
fn wider(had: &Rights, gets: &Rights) -> Rights {
    let mut groups: Vec<String> = had.groups.iter().chain(&gets.groups).cloned().collect();
    groups.sort();
    groups.dedup();
    groups.truncate(super::bundle::MAX_GROUPS);
    Rights { groups, sudo: Rights::of_sudo(widest(had.sudo(), gets.sudo())), ..gets.clone() }
}

#[cfg(test)]
mod tests;
