//! The keys of the account bundle, as answers to sshd: those that people registered and those of groups, from memory, also
//! while the server is away, but not for ever.
//!
//! The bundle was verified when it came. Which of its keys are good is decided at each question, so that what the bundle
//! or the node's owner no longer allows is gone at once.

use std::time::Duration;

use munjigi_core::account::book::{Book, Status};
use munjigi_core::account::bundle::{AccountBundle, AccountState, BundleKey};
use munjigi_core::ssh::lookup::Question;
use munjigi_core::time::Timestamp;

use super::account;
use crate::config::Config;

/// The bundle's keys at one moment.
pub(crate) struct Registered<'a> {
    /// What the server said last.
    pub(crate) bundle: &'a AccountBundle,
    /// The accounts that the node manages; `None` on a node that manages none.
    pub(crate) book: Option<&'a Book>,
    /// What the node's owner says.
    pub(crate) config: &'a Config,
    /// Now.
    pub(crate) now: Timestamp,
}

impl<'a> Registered<'a> {
    /// Returns the keys that sshd may take: tied to the account, of an age that is still believed, and of a privileged
    /// account only those that may have one (T-54). A key that is bound to addresses cannot be told to sshd by its line
    /// alone, and is left out.
    pub(crate) fn answer(&self, question: &'a Question) -> Vec<&'a BundleKey> {
        let os_user = question.os_user.as_str();
        if self.is_too_old() || self.config.local_users.iter().any(|user| user == os_user) {
            return Vec::new();
        }
        let offered = |key: &&BundleKey| match &question.offered {
            Some((kind, blob)) => key.key.kind().as_str() == kind && key.key.blob() == blob,
            None => true,
        };
        let unbound = |key: &&BundleKey| key.sources.is_empty();
        let mut keys: Vec<&BundleKey> =
            self.bundle.keys_of(os_user, self.now).filter(offered).filter(unbound).collect();
        // The account is looked up only when there is a key for it: anybody may ask, and a look may be slow.
        let allowed = self.config.allowed_users.as_deref();
        let mut may = [None, None];
        keys.retain(|key| {
            let [plain, privileged] = &mut may;
            let known = if key.privileged { privileged } else { plain };
            *known.get_or_insert_with(|| {
                account::look_up(os_user, key.privileged, allowed)
                    .is_ok_and(|found| self.is_whose_it_shall_be(os_user, found.uid.as_raw()))
            })
        });
        keys
    }

    /// Tells whether the account is the one that a rule means: where this node manages accounts, an account of that name
    /// that it did not make is a stranger's, to whom these keys would open it.
    fn is_whose_it_shall_be(&self, os_user: &str, uid: u32) -> bool {
        let by_rule = |state| matches!(state, AccountState::Active | AccountState::Awaited);
        match (self.book, self.bundle.account(os_user)) {
            (Some(book), Some(account)) if by_rule(account.state) => {
                book.account(os_user).is_some_and(|known| known.uid == uid && known.status == Status::Active)
            }
            _ => true,
        }
    }

    fn is_too_old(&self) -> bool {
        let age = self.now.since(self.bundle.issued);
        age > Duration::from_secs(u64::from(self.config.offline_grace_hours) * 3600)
    }
}

#[cfg(test)]
mod tests {
    use munjigi_core::account::book::Managed;
    use munjigi_core::account::bundle::{AccountMode, BundleAccount, Sudo};
    use munjigi_core::id::NodeId;
    use munjigi_core::ssh::PublicKey;
    use munjigi_core::ssh::key_options::KeyOptions;
    use nix::unistd::{Uid, User};

    use super::*;

    fn key(number: u8, privileged: bool) -> BundleKey {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0 ".to_vec();
        blob.extend([number; 32]);
        BundleKey {
            key: PublicKey::from_parts("ssh-ed25519", &blob).unwrap(),
            principal: "arn:aws:iam::123456789012:user/kim".to_owned(),
            key_id: "APKAAAAAAAAAAAAAAAAA".to_owned(),
            sources: Vec::new(),
            expires: None,
            privileged,
            options: KeyOptions::default(),
        }
    }

    fn bundle(os_user: &str, state: AccountState, keys: Vec<BundleKey>) -> AccountBundle {
        let account = BundleAccount {
            os_user: os_user.to_owned(),
            uid: 0,
            state,
            mode: AccountMode::Synchronised,
            owner: String::new(),
            groups: Vec::new(),
            sudo: Sudo::None,
            shell: String::new(),
            remove_home: false,
            keys,
        };
        AccountBundle {
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            version: 1,
            issued: Timestamp::from_secs(1_000_000),
            accounts: vec![account],
            key_files: Vec::new(),
        }
    }

    fn question(os_user: &str, key: Option<&BundleKey>) -> Question {
        let offered = key.map(|key| (key.key.kind().as_str().to_owned(), key.key.blob().to_vec()));
        Question { os_user: os_user.to_owned(), offered }
    }

    fn given(bundle: &AccountBundle, config: &Config, hour: i64, question: &Question) -> usize {
        let now = Timestamp::from_secs(1_000_000 + hour * 3600);
        Registered { bundle, book: None, config, now }.answer(question).len()
    }

    #[test]
    fn keys_are_good_for_their_account_and_for_a_day_without_the_server() {
        let own = User::from_uid(Uid::effective()).unwrap().unwrap().name;
        let config = Config::default();
        let keys = vec![key(1, true), key(2, true)];
        let active = bundle(&own, AccountState::Foreign, keys.clone());
        assert_eq!(given(&active, &config, 0, &question(&own, None)), 2);
        assert_eq!(given(&active, &config, 24, &question(&own, Some(&keys[0]))), 1);
        assert_eq!(given(&active, &config, 0, &question(&own, Some(&key(3, true)))), 0);
        assert_eq!(given(&active, &config, 0, &question("somebody-else", None)), 0);
        assert_eq!(given(&active, &config, 25, &question(&own, None)), 0, "too old");
        let patient = Config { offline_grace_hours: 48, ..Config::default() };
        assert_eq!(given(&active, &patient, 25, &question(&own, None)), 2);
        for state in [AccountState::Locked, AccountState::Removed] {
            assert_eq!(given(&bundle(&own, state, keys.clone()), &config, 0, &question(&own, None)), 0, "{state:?}");
        }
        let local = Config { local_users: vec![own.clone()], ..Config::default() };
        assert_eq!(given(&active, &local, 0, &question(&own, None)), 0, "the owner keeps it out");
        let others = Config { allowed_users: Some(vec!["ec2-user".to_owned()]), ..Config::default() };
        assert_eq!(given(&active, &others, 0, &question(&own, None)), 0, "the owner vetoes it");
        let near = BundleKey { sources: vec!["192.0.2.0/24".parse().unwrap()], ..key(1, true) };
        assert_eq!(given(&bundle(&own, AccountState::Foreign, vec![near]), &config, 0, &question(&own, None)), 0);
    }

    #[test]
    fn an_account_that_the_node_did_not_make_gets_no_keys_by_a_rule() {
        let own = User::from_uid(Uid::effective()).unwrap().unwrap();
        let (config, now) = (Config::default(), Timestamp::from_secs(1_000_000));
        let mut book = Book::default();
        let told = |book: Option<&Book>, state| {
            let bundle = bundle(&own.name, state, vec![key(1, true)]);
            Registered { bundle: &bundle, book, config: &config, now }.answer(&question(&own.name, None)).len()
        };
        for state in [AccountState::Active, AccountState::Awaited] {
            assert_eq!((told(Some(&book), state), told(None, state)), (0, 1), "{state:?}");
        }
        assert_eq!(told(Some(&book), AccountState::Foreign), 1, "meant by name");
        let mut managed = Managed {
            os_user: own.name.clone(),
            uid: own.uid.as_raw() + 1,
            owner: String::new(),
            just_in_time: false,
            status: Status::Active,
            groups: Vec::new(),
        };
        book.put(managed.clone());
        assert_eq!(told(Some(&book), AccountState::Active), 0, "another account of that name now");
        managed.uid = own.uid.as_raw();
        book.put(managed.clone());
        assert_eq!(told(Some(&book), AccountState::Active), 1);
        assert_eq!(told(Some(&book), AccountState::Awaited), 1, "one that is used for the last time");
        managed.status = Status::Locked;
        book.put(managed);
        assert_eq!(told(Some(&book), AccountState::Active), 0, "not unlocked yet");
    }

    #[test]
    fn a_privileged_account_takes_only_keys_that_may_have_it() {
        // Only root can be asked about others.
        if !Uid::effective().is_root() {
            return;
        }
        let keys = vec![key(1, false), key(2, true)];
        let root = bundle("root", AccountState::Foreign, keys.clone());
        let config = Config::default();
        assert_eq!(given(&root, &config, 0, &question("root", None)), 1);
        assert_eq!(given(&root, &config, 0, &question("root", Some(&keys[0]))), 0);
    }
}
