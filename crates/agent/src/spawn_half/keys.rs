//! The keys that sshd may accept now: in memory only, each for one OS user and a bounded time.
//!
//! sshd asks at least twice in one login: when the client offers the key and when it has signed. So a key for single
//! use is not used up by an answer, but belongs to the connection that asked first: the sshd process that stands above
//! the asking helper. That process gets it again, every other one never.

use std::time::{Duration, Instant};

use munjigi_core::grant::AuthorizedKey;
use munjigi_core::ssh::PublicKey;
use munjigi_core::ssh::lookup::Question;

/// Most keys held for one account, so that one person cannot push out another's.
const MAX_PER_USER: usize = 32;
/// Most keys held.
const MAX_KEYS: usize = 1024;

/// A process that serves one SSH connection: pid and start time, so that a reused pid is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SshConnection {
    /// Process id of sshd's process for the connection.
    pub(crate) pid: i32,
    /// When it started, in ticks since the system did.
    pub(crate) started: u64,
}

/// A key that is held.
#[derive(Debug)]
struct Held {
    os_user: String,
    pushed: AuthorizedKey,
    subject: String,
    until: Instant,
    /// The connection that a key for single use belongs to.
    owner: Option<SshConnection>,
}

/// The keys.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Held>);

/// There is no room for another key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node already holds as many pushed keys as it can; try again in a minute")]
pub(crate) struct TooMany;

impl Keys {
    /// Takes a key for an account.
    pub(crate) fn take(
        &mut self,
        os_user: String,
        pushed: AuthorizedKey,
        subject: String,
        now: Instant,
    ) -> Result<(), TooMany> {
        self.0.retain(|held| held.until > now);
        let of_user = self.0.iter().filter(|held| held.os_user == os_user).count();
        if self.0.len() >= MAX_KEYS || of_user >= MAX_PER_USER {
            return Err(TooMany);
        }
        let until = now + Duration::from_secs(u64::from(pushed.life_secs));
        self.0.push(Held { os_user, pushed, subject, until, owner: None });
        Ok(())
    }

    /// Answers sshd. `connection` is the sshd process that asks, if one stands above the asking process; without it no
    /// key for single use is given out.
    pub(crate) fn answer(
        &mut self,
        question: &Question,
        connection: Option<SshConnection>,
        now: Instant,
    ) -> Vec<PublicKey> {
        self.0.retain(|held| held.until > now);
        let fits = |held: &&mut Held| {
            let key = &held.pushed.key;
            let offered = question.offered.as_ref();
            held.os_user == question.os_user
                && match offered {
                    Some((kind, blob)) => key.kind().as_str() == kind && key.blob() == blob,
                    // Nobody has shown that he has the key, so asking must not use it up.
                    None => !held.pushed.single_use,
                }
        };
        let mut given: Vec<PublicKey> = Vec::new();
        for held in self.0.iter_mut().filter(fits) {
            if given.contains(&held.pushed.key) {
                // The same key pushed twice is good for two logins: one answer uses up one of them.
                continue;
            }
            if held.pushed.single_use {
                match (connection, held.owner) {
                    (Some(asking), None) => held.owner = Some(asking),
                    (Some(asking), Some(owner)) if asking == owner => {}
                    _ => continue,
                }
                let (user, id) = (&held.os_user, &held.pushed.request_id);
                let print = held.pushed.key.fingerprint();
                tracing::info!(user, %print, request = id, by = held.subject, "a pushed key was given to sshd");
            }
            given.push(held.pushed.key.clone());
        }
        given
    }

    /// Returns when the next key ends.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.0.iter().map(|held| held.until).min()
    }

    /// Forgets the keys whose time is over.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        self.0.retain(|held| held.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

    fn pushed(line: &str, single_use: bool) -> AuthorizedKey {
        AuthorizedKey { key: PublicKey::parse(line).unwrap(), life_secs: 60, single_use, request_id: "r".into() }
    }

    fn question(user: &str, line: Option<&str>) -> Question {
        let offered = line.map(|line| {
            let key = PublicKey::parse(line).unwrap();
            (key.kind().as_str().to_owned(), key.blob().to_vec())
        });
        Question { os_user: user.into(), offered }
    }

    fn connection(pid: i32) -> Option<SshConnection> {
        Some(SshConnection { pid, started: 7 })
    }

    #[test]
    fn a_key_for_single_use_belongs_to_the_connection_that_asks_first() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        keys.take("alice".into(), pushed(ONE, true), "kim".into(), now).unwrap();
        let mut ask = |user: &str, line, from| keys.answer(&question(user, line), from, now).len();
        // Neither another key, nor another account, nor whoever is not sshd, nor a question without a key uses it up.
        assert_eq!(ask("alice", Some(OTHER), connection(1)), 0);
        assert_eq!(ask("bob", Some(ONE), connection(1)), 0);
        assert_eq!(ask("alice", Some(ONE), None), 0);
        assert_eq!(ask("alice", None, connection(1)), 0);
        // A login asks twice.
        assert_eq!(ask("alice", Some(ONE), connection(2)), 1);
        assert_eq!(ask("alice", Some(ONE), connection(2)), 1);
        assert_eq!(ask("alice", Some(ONE), connection(3)), 0);
        assert_eq!(ask("alice", Some(ONE), Some(SshConnection { pid: 2, started: 8 })), 0);
        assert_eq!(ask("alice", Some(ONE), connection(2)), 1);
    }

    #[test]
    fn a_key_pushed_twice_is_good_for_two_logins() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        for _ in 0..2 {
            keys.take("alice".into(), pushed(ONE, true), "kim".into(), now).unwrap();
        }
        for (pid, expected) in [(1, 1), (1, 1), (2, 1), (3, 0)] {
            assert_eq!(keys.answer(&question("alice", Some(ONE)), connection(pid), now).len(), expected, "{pid}");
        }
    }

    #[test]
    fn other_keys_are_good_until_their_end() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        keys.take("alice".into(), pushed(ONE, false), "kim".into(), now).unwrap();
        for from in [connection(1), connection(2), None] {
            assert_eq!(keys.answer(&question("alice", None), from, now).len(), 1);
        }
        assert_eq!(keys.next_end(), Some(now + Duration::from_secs(60)));
        let almost = now + Duration::from_millis(59_999);
        assert_eq!(keys.answer(&question("alice", Some(ONE)), None, almost).len(), 1);
        assert_eq!(keys.answer(&question("alice", Some(ONE)), None, now + Duration::from_secs(60)).len(), 0);
        assert_eq!(keys.next_end(), None);
    }

    #[test]
    fn nobody_pushes_without_bound_and_nobody_pushes_others_out() {
        let (mut keys, now) = (Keys::default(), Instant::now());
        for _ in 0..MAX_PER_USER {
            keys.take("alice".into(), pushed(ONE, true), "kim".into(), now).unwrap();
        }
        assert_eq!(keys.take("alice".into(), pushed(ONE, true), "kim".into(), now), Err(TooMany));
        keys.take("bob".into(), pushed(ONE, true), "kim".into(), now).unwrap();
        for user in 0..MAX_KEYS - MAX_PER_USER - 1 {
            keys.take(format!("u{user}"), pushed(ONE, true), "kim".into(), now).unwrap();
        }
        assert_eq!(keys.take("zoe".into(), pushed(ONE, true), "kim".into(), now), Err(TooMany));
        keys.take("zoe".into(), pushed(ONE, true), "kim".into(), now + Duration::from_secs(61)).unwrap();
    }
}
