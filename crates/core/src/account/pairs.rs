//! Who has which local name and user id, everywhere the same: kept, never computed back from text (R13, R14).
//!
//! A person keeps the pair for as long as a rule gives an account, also under another name: a renamed person keeps
//! account, user id and files. A name or an id that nobody has any more is given to nobody else for 30 days.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// First user id that is given.
pub const FIRST_UID: u32 = 60_000;
/// Last user id that is given (R13).
pub const LAST_UID: u32 = 65_000;
/// How long a released name or id is given to nobody else (R13).
pub const REST: Duration = Duration::from_secs(30 * 86_400);

/// A person's local name and user id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Whose it is: the unchanging id of the principal.
    pub principal: String,
    /// How the name was made, as a rule says it: a person may have a name by each form.
    pub form: String,
    /// The local name; it stands once.
    pub os_user: String,
    /// The user id; it stands once.
    pub uid: u32,
    /// Since when nobody needs it; `None` while somebody does.
    pub released: Option<Timestamp>,
}

/// Why a person gets no pair.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// Somebody else has the name, or had it until a while ago. The later one is refused.
    #[error("the local name `{0}` is somebody else's, or was until less than 30 days ago")]
    Taken(String),
    /// All ids are given.
    #[error(
        "every user id from {FIRST_UID} to {LAST_UID} is given; release some, or wait 30 days after the last release"
    )]
    NoUserIds,
}

/// All pairs of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs(pub Vec<Pair>);

impl Pairs {
    /// Returns a person's pair, making one if there is none. `os_user` is the name that the form gives now.
    pub fn claim(&mut self, principal: &str, form: &str, os_user: &str, now: Timestamp) -> Result<Pair, PairError> {
        if let Some(own) = self.0.iter_mut().find(|pair| pair.principal == principal && pair.form == form) {
            own.released = None;
            return Ok(own.clone());
        }
        // The same person's by another form: one account, not two.
        if let Some(own) = self.0.iter_mut().find(|pair| pair.principal == principal && pair.os_user == os_user) {
            own.released = None;
            return Ok(own.clone());
        }
        let rested = |pair: &Pair| pair.released.is_some_and(|since| now.since(since) >= REST);
        if self.0.iter().any(|pair| pair.os_user == os_user && !rested(pair)) {
            return Err(PairError::Taken(os_user.to_owned()));
        }
        self.0.retain(|pair| pair.os_user != os_user);
        let uid = self.free_uid(now)?;
        self.0.retain(|pair| pair.uid != uid);
        let (principal, form, os_user) = (principal.to_owned(), form.to_owned(), os_user.to_owned());
        let made = Pair { principal, form, os_user, uid, released: None };
        self.0.push(made.clone());
        Ok(made)
    }

    /// The next id behind all that were ever given; once there is none, the one whose rest is longest over.
    fn free_uid(&self, now: Timestamp) -> Result<u32, PairError> {
        let next = self.0.iter().map(|pair| pair.uid + 1).max().unwrap_or(FIRST_UID).max(FIRST_UID);
        if next <= LAST_UID {
            return Ok(next);
        }
        let rested = self.0.iter().filter_map(|pair| Some((pair.released?, pair.uid)));
        let oldest = rested.filter(|(since, _)| now.since(*since) >= REST).min();
        oldest.map(|(_, uid)| uid).ok_or(PairError::NoUserIds)
    }

    /// Notes which pairs somebody needs; the others are released from `now` on.
    pub fn release_unless(&mut self, needed: impl Fn(&Pair) -> bool, now: Timestamp) {
        for pair in &mut self.0 {
            match (needed(pair), pair.released) {
                (true, _) => pair.released = None,
                (false, None) => pair.released = Some(now),
                (false, Some(_)) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);

    #[test]
    fn a_person_keeps_name_and_id_and_the_later_one_of_two_is_refused() {
        let mut pairs = Pairs::default();
        let kim = pairs.claim("AIDA1", "name", "kim", NOW).unwrap();
        assert_eq!((kim.uid, kim.os_user.as_str()), (60_000, "kim"));
        assert_eq!(pairs.claim("AIDA2", "name", "kim", NOW), Err(PairError::Taken("kim".into())));
        // Renamed: account, id and files stay.
        assert_eq!(pairs.claim("AIDA1", "name", "kim.lee", NOW).unwrap(), kim);
        assert_eq!(pairs.claim("AIDA2", "name", "lee", NOW).unwrap().uid, 60_001);
        // The same name by another form is the same account.
        assert_eq!(pairs.claim("AIDA1", "tag:x", "kim", NOW).unwrap(), kim);
    }

    #[test]
    fn a_released_name_and_id_rest_for_thirty_days() {
        let mut pairs = Pairs::default();
        let kim = pairs.claim("AIDA1", "name", "kim", NOW).unwrap();
        pairs.release_unless(|_| false, NOW);
        pairs.release_unless(|_| false, NOW.plus(Duration::from_secs(86_400)));
        let later = |days: u64| NOW.plus(Duration::from_secs(days * 86_400));
        assert_eq!(pairs.claim("AIDA2", "name", "kim", later(29)), Err(PairError::Taken("kim".into())));
        // Who comes back has both again.
        assert_eq!(pairs.clone().claim("AIDA1", "name", "kim", later(29)).unwrap(), kim);
        let new = pairs.claim("AIDA2", "name", "kim", later(30)).unwrap();
        assert_eq!(pairs.0, [new]);
    }

    #[test]
    fn ids_are_given_in_turn_and_when_all_are_given_the_one_that_rested_longest() {
        let mut pairs = Pairs::default();
        for number in FIRST_UID..=LAST_UID {
            let name = format!("u{number}");
            assert_eq!(pairs.claim(&name, "name", &name, NOW).unwrap().uid, number);
        }
        assert_eq!(pairs.claim("x", "name", "x", NOW), Err(PairError::NoUserIds));
        pairs.release_unless(|pair| !["u60007", "u60009"].contains(&pair.os_user.as_str()), NOW);
        assert_eq!(pairs.claim("x", "name", "x", NOW), Err(PairError::NoUserIds));
        let late = NOW.plus(REST);
        assert_eq!(pairs.claim("x", "name", "x", late).unwrap().uid, 60_007);
        assert_eq!(pairs.claim("y", "name", "y", late).unwrap().uid, 60_009);
        assert_eq!(pairs.claim("z", "name", "z", late), Err(PairError::NoUserIds));
    }
}
