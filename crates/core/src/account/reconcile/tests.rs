use super::*;
use crate::account::bundle::Sudo;
use crate::id::NodeId;
use crate::time::Timestamp;

const SHELL: &str = "/bin/bash";

fn account(os_user: &str, uid: u32, state: AccountState, groups: &[&str]) -> BundleAccount {
    BundleAccount {
        os_user: os_user.into(),
        uid,
        state,
        mode: AccountMode::Synchronised,
        owner: format!("arn:aws:iam::123456789012:user/{os_user}"),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        sudo: Sudo::None,
        shell: SHELL.into(),
        remove_home: false,
        keys: vec![],
    }
}

fn bundle(mut accounts: Vec<BundleAccount>) -> AccountBundle {
    accounts.sort_by(|one, next| one.os_user.cmp(&next.os_user));
    let node = NodeId::parse("mi-0123456789abcdef0").unwrap();
    AccountBundle { node, version: 1, issued: Timestamp(0), accounts, key_files: vec![] }
}

/// Does what the steps say to a system in memory, as the node does it to the real one.
fn act(steps: &[Step], book: &mut Book, system: &mut System) {
    for step in steps {
        match step.clone() {
            Step::Create { os_user, uid, shell, owner, just_in_time } => {
                assert!(system.users.values().all(|user| user.uid != uid), "{uid} twice");
                assert!(system.users.insert(os_user.clone(), SystemUser { uid, shell }).is_none());
                book.put(Managed { os_user, uid, owner, just_in_time, status: Status::Active, groups: vec![] });
            }
            Step::Adopt { os_user, uid, owner } => {
                book.put(Managed { os_user, uid, owner, just_in_time: false, status: Status::Active, groups: vec![] });
            }
            Step::Unlock(name) => set(book, &name, |known| known.status = Status::Active),
            Step::Lock(name) => set(book, &name, |known| known.status = Status::Locked),
            Step::Shell(name, shell) => system.users.get_mut(&name).unwrap().shell = shell,
            Step::Join(name, group) => {
                system.groups.entry(group.clone()).or_default().insert(name.clone());
                set(book, &name, |known| known.groups.push(group));
            }
            Step::Leave(name, group) => {
                assert!(system.groups.get_mut(&group).unwrap().remove(&name));
                set(book, &name, |known| known.groups.retain(|given| *given != group));
            }
            Step::Delete { os_user, .. } => {
                let ours = book.account(&os_user).unwrap().uid;
                if system.users.get(&os_user).is_some_and(|user| user.uid == ours) {
                    system.users.remove(&os_user);
                    system.groups.values_mut().for_each(|members| {
                        members.remove(&os_user);
                    });
                }
                book.forget(&os_user);
            }
        }
    }
}

fn set(book: &mut Book, name: &str, change: impl FnOnce(&mut Managed)) {
    let mut known = book.account(name).unwrap().clone();
    change(&mut known);
    book.put(known);
}

fn user(uid: u32) -> SystemUser {
    SystemUser { uid, shell: SHELL.into() }
}

#[test]
fn an_account_is_made_changed_locked_unlocked_and_removed() {
    let (mut book, mut system) = (Book::default(), System::default());
    let mut round = |state, groups: &[&str]| {
        let work = reconcile(&bundle(vec![account("kim", 60_000, state, groups)]), &book, &system, &BTreeSet::new());
        assert_eq!(work.problems, []);
        act(&work.steps, &mut book, &mut system);
        work.steps
    };
    let step = |name: &str, what: fn(String, String) -> Step| what("kim".into(), name.into());
    assert_eq!(round(AccountState::Active, &["adm", "docker"]).len(), 3);
    assert_eq!(round(AccountState::Active, &["adm", "docker"]), []);
    assert_eq!(round(AccountState::Active, &["adm", "lxd"]), [step("docker", Step::Leave), step("lxd", Step::Join)]);
    let locked = round(AccountState::Locked, &[]);
    assert_eq!(locked, [Step::Lock("kim".into()), step("adm", Step::Leave), step("lxd", Step::Leave)]);
    assert_eq!(round(AccountState::Locked, &[]), []);
    assert_eq!(round(AccountState::Active, &["adm"]), [Step::Unlock("kim".into()), step("adm", Step::Join)]);
    let gone = round(AccountState::Removed, &[]);
    assert_eq!(gone.last(), Some(&Step::Delete { os_user: "kim".into(), remove_home: false }));
    assert_eq!(round(AccountState::Removed, &[]), []);
}

#[test]
fn accounts_of_others_are_left_alone() {
    let mut system = System::default();
    system.users.insert("postgres".into(), user(111));
    system.users.insert("kim".into(), user(1001));
    system.users.insert("old".into(), user(1002));
    system.users.insert("lee".into(), user(60_003));
    let mut book = Book::default();
    // Somebody has made another account where ours was.
    book.put(Managed {
        os_user: "old".into(),
        uid: 60_009,
        owner: String::new(),
        just_in_time: false,
        status: Status::Active,
        groups: vec!["adm".into()],
    });
    for state in [AccountState::Active, AccountState::Locked, AccountState::Removed] {
        let wanted = bundle(vec![
            account("postgres", 60_001, state, &["adm"]),
            account("kim", 60_002, state, &[]),
            account("park", 60_003, state, &[]),
            account("old", 60_009, state, &[]),
        ]);
        let work = reconcile(&wanted, &book, &system, &BTreeSet::new());
        let conflicts = if state == AccountState::Active { 4 } else { 0 };
        assert_eq!(work.problems.len(), conflicts, "{:?}", work.problems);
        // To forget our own entry is all that may happen.
        assert!(work.steps.iter().all(|step| matches!(step, Step::Delete { os_user, .. } if os_user == "old")));
    }
}

#[test]
fn members_of_a_marker_group_are_taken_over_with_their_user_id_and_root_never() {
    let mut system = System::default();
    system.users.insert("kim".into(), user(1001));
    system.users.insert("daemon".into(), user(2));
    system.adoptable.extend(["kim".into(), "daemon".into()]);
    let wanted = bundle(vec![
        account("kim", 60_001, AccountState::Active, &[]),
        account("daemon", 60_002, AccountState::Active, &[]),
    ]);
    let work = reconcile(&wanted, &Book::default(), &system, &BTreeSet::new());
    assert!(matches!(&work.steps[..], [Step::Adopt { uid: 1001, .. }]), "{:?}", work.steps);
    assert_eq!(work.problems.len(), 1);
}

#[test]
fn an_account_that_no_bundle_names_stays_unless_it_was_made_just_in_time() {
    let (mut book, mut system) = (Book::default(), System::default());
    let mut zoe = account("zoe", 60_001, AccountState::Active, &[]);
    zoe.mode = AccountMode::JustInTime;
    let full = bundle(vec![account("kim", 60_000, AccountState::Active, &["adm"]), zoe]);
    let work = reconcile(&full, &book, &system, &BTreeSet::new());
    act(&work.steps, &mut book, &mut system);
    // Its last session is over.
    let work = reconcile(&full, &book, &system, &["zoe".to_owned()].into());
    assert!(matches!(&work.steps[..], [Step::Lock(_), Step::Delete { .. }]));
    let work = reconcile(&bundle(vec![]), &book, &system, &BTreeSet::new());
    assert!(work.steps.iter().all(|step| step.os_user() == "zoe"));
    act(&work.steps, &mut book, &mut system);
    assert!(system.users.contains_key("kim") && !system.users.contains_key("zoe"));
}

/// Whatever bundles come, in whatever order: a second round has nothing to do, foreign accounts stay as they are, and what
/// is active afterwards is exactly what may be.
#[test]
fn any_sequence_of_bundles_ends_in_what_the_last_one_says_and_spares_everybody_else() {
    let mut state = 0x0dd0_ba11_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    for _ in 0..300 {
        let (mut book, mut system) = (Book::default(), System::default());
        system.users.insert("u3".into(), user(1003));
        system.users.insert("other".into(), user(60_004));
        let foreign = system.users.clone();
        for _ in 0..12 {
            let mut accounts = Vec::new();
            for number in 0..6_u32 {
                let states = [AccountState::Active, AccountState::Locked, AccountState::Removed];
                let Some(state) = states.get(next(4) as usize) else { continue };
                let groups: Vec<&str> = ["adm", "docker", "lxd"].into_iter().filter(|_| next(2) == 0).collect();
                let mut made = account(&format!("u{number}"), 60_000 + number, *state, &groups);
                if next(3) == 0 {
                    made.mode = AccountMode::JustInTime;
                }
                accounts.push(made);
            }
            let wanted = bundle(accounts);
            let work = reconcile(&wanted, &book, &system, &BTreeSet::new());
            act(&work.steps, &mut book, &mut system);
            let again = reconcile(&wanted, &book, &system, &BTreeSet::new());
            assert_eq!(again.steps, [], "after {:?}", work.steps);
            for (name, user) in &foreign {
                assert_eq!(system.users.get(name), Some(user));
            }
            for account in wanted.accounts.iter().filter(|account| !["u3", "u4"].contains(&account.os_user.as_str())) {
                let known = book.account(&account.os_user);
                match account.state {
                    AccountState::Active => {
                        let known = known.unwrap();
                        assert_eq!(known.status, Status::Active);
                        let mut groups = known.groups.clone();
                        groups.sort();
                        assert_eq!(groups, account.groups);
                        assert_eq!(system.users[&account.os_user].uid, account.uid);
                    }
                    AccountState::Locked => assert!(known.is_none_or(|known| known.status == Status::Locked)),
                    _ => assert!(known.is_none() && !system.users.contains_key(&account.os_user)),
                }
            }
        }
    }
}
