//! What became of keys that AWS pushed, on its way to the server; and which logins they explain.

use std::collections::VecDeque;

use munjigi_core::time::Timestamp;
use munjigi_core::wire::message::{AwsKeyReport, MAX_AWS_KEYS, SshLogin};
use prost::Message as _;

/// Most reports that wait for the server. Of keys that were not good only so many are kept that there is room for the others.
const MAX_WAITING: usize = 256;
const MAX_WAITING_REFUSED: usize = 64;
/// Most keys that explain logins.
const MAX_GIVEN: usize = 256;
/// How long behind a key's end its login may be read: sshd lets somebody in a moment later, and a log is read every half
/// second.
const BEHIND: std::time::Duration = std::time::Duration::from_secs(30);

/// Reports and keys.
#[derive(Default)]
pub(super) struct AwsKeys {
    waiting: VecDeque<AwsKeyReport>,
    given: VecDeque<AwsKeyReport>,
}

impl AwsKeys {
    /// Takes a report of the privileged half.
    pub(super) fn keep(&mut self, report: AwsKeyReport) {
        let refused = !report.reason.is_empty();
        if refused && self.waiting.len() >= MAX_WAITING_REFUSED {
            // Anybody can be refused as often as they like.
            return;
        }
        if !refused {
            if self.given.len() >= MAX_GIVEN {
                self.given.pop_front();
            }
            self.given.push_back(report.clone());
        }
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(report);
    }

    /// Returns the oldest reports that fit into so many bytes, and how many are left.
    pub(super) fn batch(&self, bytes: &mut usize) -> Vec<AwsKeyReport> {
        let fits = |report: &&AwsKeyReport| take(bytes, report.encoded_len());
        self.waiting.iter().take(MAX_AWS_KEYS).take_while(fits).cloned().collect()
    }

    /// Forgets what the server has.
    pub(super) fn done(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }

    /// Says in a login which key of AWS's let it in, if one did.
    pub(super) fn explain(&self, login: &mut SshLogin) {
        let until = |key: &AwsKeyReport| Timestamp(key.expires_micros).plus(BEHIND).0;
        let fits = |key: &&AwsKeyReport| {
            key.os_user == login.os_user
                && key.fingerprint == login.fingerprint
                && (key.read_micros..until(key)).contains(&login.read_micros)
        };
        if let Some(key) = self.given.iter().rev().find(fits).filter(|_| !login.refused && login.authority.is_empty()) {
            login.aws_caller.clone_from(&key.caller);
            login.aws_request_id.clone_from(&key.request_id);
        }
    }
}

/// Takes so many bytes of those that are left, if there are as many.
pub(super) fn take(left: &mut usize, count: usize) -> bool {
    let rest = left.checked_sub(count);
    *left = rest.unwrap_or(*left);
    rest.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reason: &str) -> AwsKeyReport {
        AwsKeyReport {
            read_micros: 1_000_000,
            os_user: "alice".into(),
            fingerprint: "SHA256:x".into(),
            caller: "arn:aws:iam::123456789012:user/kim".into(),
            request_id: "r-1".into(),
            expires_micros: 61_000_000,
            reason: reason.into(),
        }
    }

    fn login(os_user: &str, micros: i64) -> SshLogin {
        let (os_user, fingerprint) = (os_user.into(), "SHA256:x".into());
        SshLogin { os_user, fingerprint, read_micros: micros, ..SshLogin::default() }
    }

    #[test]
    fn a_login_is_explained_by_a_key_that_was_given_and_by_no_other() {
        let mut keys = AwsKeys::default();
        keys.keep(report("PushedKeyExpired"));
        let explained = |keys: &AwsKeys, mut login: SshLogin| {
            keys.explain(&mut login);
            login.aws_request_id
        };
        assert_eq!(explained(&keys, login("alice", 2_000_000)), "");
        keys.keep(report(""));
        assert_eq!(explained(&keys, login("alice", 2_000_000)), "r-1");
        assert_eq!(explained(&keys, login("alice", 90_999_999)), "r-1");
        for other in [
            login("alice", 91_000_000),
            login("alice", 999_999),
            login("bob", 2_000_000),
            SshLogin { fingerprint: "SHA256:y".into(), ..login("alice", 2_000_000) },
            SshLogin { refused: true, ..login("alice", 2_000_000) },
            SshLogin { authority: "SHA256:z".into(), ..login("alice", 2_000_000) },
        ] {
            assert_eq!(explained(&keys, other), "");
        }
    }

    #[test]
    fn reports_are_bounded_and_refused_ones_push_nothing_out() {
        let mut keys = AwsKeys::default();
        for _ in 0..1000 {
            keys.keep(report("PushedKeyExpired"));
        }
        assert_eq!(keys.waiting.len(), MAX_WAITING_REFUSED);
        for _ in 0..1000 {
            keys.keep(report(""));
        }
        assert_eq!((keys.waiting.len(), keys.given.len()), (MAX_WAITING, MAX_GIVEN));
        let mut bytes = 64 * 1024;
        assert_eq!(keys.batch(&mut bytes).len(), MAX_AWS_KEYS);
        let mut few = 300;
        let sent = keys.batch(&mut few).len();
        assert_eq!(sent, 300 / report("").encoded_len());
        keys.done(sent);
        assert_eq!(keys.waiting.len(), MAX_WAITING - sent);
        keys.done(1000);
        assert!(keys.waiting.is_empty());
    }
}
