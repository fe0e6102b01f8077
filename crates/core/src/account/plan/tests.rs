use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_795_262_400);
const DAY: u64 = 86_400;

fn rights(groups: &[&str], sudo: &[&str]) -> Rights {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Rights {
        groups: texts(groups),
        sudo: texts(sudo),
        shell: "/bin/sh".into(),
        grace_secs: 7 * DAY,
        remove_home: false,
    }
}

fn desired(names: &[String]) -> Vec<Desired> {
    let one = |name: &String| Desired {
        os_user: name.clone(),
        uid: 60_000,
        principal: format!("AIDA-{name}"),
        owner: name.clone(),
        rights: rights(&["adm"], &[]),
    };
    names.iter().map(one).collect()
}

fn people(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("p{number:02}")).collect()
}

/// A node whose time the test owns.
struct Node {
    rows: Vec<Row>,
    now: Timestamp,
}

impl Node {
    fn with(count: usize) -> Self {
        let mut node = Self { rows: Vec::new(), now: NOW };
        node.round(true, &people(count), &[]);
        node
    }

    fn round(&mut self, complete: bool, names: &[String], explicit: &[&str]) -> Vec<(String, What)> {
        let explicit = explicit.iter().map(|name| format!("AIDA-{name}")).collect();
        let desired = desired(names);
        let done = plan(&self.rows, Round { now: self.now, complete, desired: &desired, explicit: &explicit });
        self.rows = done.rows;
        done.events
    }

    fn active(&self) -> usize {
        self.rows.iter().filter(|row| row.state == State::Active).count()
    }
}

#[test]
fn who_leaves_does_so_after_two_complete_rounds_and_returns_with_everything() {
    let mut node = Node::with(10);
    let without = people(9);
    assert_eq!(node.round(true, &without, &[]), []);
    assert_eq!(node.active(), 10);
    assert_eq!(node.round(true, &without, &[]), [("p09".to_owned(), What::Left)]);
    assert_eq!(node.round(true, &without, &[]), []);
    node.now = NOW.plus(Duration::from_secs(7 * DAY - 1));
    assert_eq!(node.round(true, &without, &[]), []);
    assert_eq!(node.round(true, &people(10), &[]), [("p09".to_owned(), What::Returned)]);
    node.round(true, &without, &[]);
    node.round(true, &without, &[]);
    node.now = node.now.plus(Duration::from_secs(7 * DAY));
    assert_eq!(node.round(true, &without, &[]), [("p09".to_owned(), What::Removed)]);
    node.now = node.now.plus(REMEMBERED);
    node.round(true, &without, &[]);
    assert_eq!(node.rows.len(), 9);
}

#[test]
fn a_round_that_is_not_complete_removes_nobody_and_takes_no_right_away() {
    let mut node = Node::with(10);
    for _ in 0..20 {
        assert_eq!(node.round(false, &[], &["p01"]), []);
        assert_eq!(node.round(false, &people(3), &[]), []);
    }
    assert_eq!(node.active(), 10);
    // One complete round between failed ones is not two complete rounds of the same.
    node.round(true, &people(9), &[]);
    node.round(false, &people(10), &[]);
    assert_eq!(node.round(true, &people(9), &[]), []);
    assert_eq!(node.active(), 10);
    let mut less = desired(&people(10));
    less[0].rights = rights(&["docker"], &["/bin/id"]);
    let nobody = BTreeSet::new();
    let round = |complete| Round { now: NOW, complete, desired: &less, explicit: &nobody };
    let failed = plan(&node.rows, round(false));
    assert_eq!(failed.rows[0].rights, rights(&["adm", "docker"], &["/bin/id"]));
    assert_eq!(plan(&failed.rows, round(true)).rows[0].rights, rights(&["docker"], &["/bin/id"]));
}

#[test]
fn too_many_at_once_wait_for_a_person() {
    // Of so many, so many leave: are they held?
    for (count, leaving, held) in [
        (10, 1, false),
        (10, 2, false),
        (10, 3, true),
        (10, 10, true),
        (1, 1, true),
        (100, 5, false),
        (100, 6, true),
        (4, 1, true),
        (5, 1, false),
    ] {
        let mut node = Node::with(count);
        let rest = people(count - leaving);
        node.round(true, &rest, &[]);
        let events = node.round(true, &rest, &[]);
        let expected = if held { What::Held } else { What::Left };
        assert_eq!(events.len(), leaving);
        assert!(events.iter().all(|(_, what)| *what == expected), "{leaving} of {count}");
        assert_eq!(node.active(), if held { count } else { count - leaving });
        // It stays so, and is said once.
        assert_eq!(node.round(true, &rest, &[]), []);
        assert_eq!(node.active(), if held { count } else { count - leaving });
        if held {
            node.rows.iter_mut().filter(|row| row.held).for_each(|row| row.confirmed = true);
            assert_eq!(node.round(false, &rest, &[]), []);
            assert_eq!(node.round(true, &rest, &[]).len(), leaving);
            assert_eq!(node.active(), count - leaving);
        }
    }
}

#[test]
fn whom_somebody_removes_leaves_at_once_and_does_not_count() {
    let mut node = Node::with(4);
    assert_eq!(node.round(true, &people(1), &["p01", "p02", "p03"]).len(), 3);
    assert_eq!(node.active(), 1);
    // Who still has an account by another rule stays.
    assert_eq!(node.round(true, &people(1), &["p00"]), []);
    assert_eq!(node.active(), 1);
}

#[test]
fn who_comes_back_before_the_confirmation_is_no_longer_held() {
    let mut node = Node::with(4);
    node.round(true, &people(1), &[]);
    node.round(true, &people(1), &[]);
    assert_eq!(node.rows.iter().filter(|row| row.held).count(), 3);
    assert_eq!(node.round(true, &people(4), &[]), []);
    assert!(node.rows.iter().all(|row| !row.held && row.missing == 0));
}

#[test]
fn a_name_passes_to_somebody_else_only_when_the_old_account_is_gone() {
    let mut node = Node::with(10);
    let mut others = desired(&people(10));
    others[9].principal = "AIDA-other".into();
    let give = |node: &mut Node| {
        let round = Round { now: node.now, complete: true, desired: &others, explicit: &BTreeSet::new() };
        let done = plan(&node.rows, round);
        node.rows = done.rows;
        node.rows[9].principal.clone()
    };
    assert_eq!(give(&mut node), "AIDA-p09");
    give(&mut node);
    assert!(matches!(node.rows[9].state, State::Locked(_)));
    node.now = node.now.plus(Duration::from_secs(7 * DAY));
    assert_eq!(give(&mut node), "AIDA-p09");
    assert_eq!(give(&mut node), "AIDA-other");
}

/// Whatever comes: nobody leaves without two complete rounds in a row without him, or an explicit removal, and no round
/// that was not confirmed locks more than five or more than a fifth.
#[test]
fn no_sequence_of_answers_removes_more_than_the_rule_allows() {
    let mut state = 0x5eed_1e55_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 20) % below
    };
    for _ in 0..400 {
        let count = 1 + next(30) as usize;
        let mut node = Node::with(count);
        let mut complete_without = vec![0_u32; count];
        for _ in 0..25 {
            let complete = next(3) != 0;
            let sparse = next(6);
            let names: Vec<String> =
                people(count).into_iter().filter(|_| sparse < 2 || next(6) >= sparse - 1).collect();
            let explicit = people(count).into_iter().find(|_| next(40) == 0);
            let before = node.rows.clone();
            let active = before.iter().filter(|row| row.state == State::Active).count();
            let explicit: Vec<&str> = explicit.iter().map(String::as_str).collect();
            node.round(complete, &names, &explicit);
            node.now = node.now.plus(Duration::from_secs(next(3 * DAY)));
            let mut left = 0;
            for (at, name) in people(count).iter().enumerate() {
                let named = names.contains(name);
                complete_without[at] = match (named, complete) {
                    (true, _) => 0,
                    (false, true) => complete_without[at] + 1,
                    (false, false) => complete_without[at],
                };
                let find = |rows: &[Row]| rows.iter().find(|row| row.os_user == *name).map(|row| row.state);
                if find(&before) == Some(State::Active) && find(&node.rows) != Some(State::Active) {
                    assert!(complete && !named);
                    if !explicit.contains(&name.as_str()) {
                        assert!(complete_without[at] >= 2);
                        left += 1;
                    }
                }
                if named {
                    assert_eq!(find(&node.rows), Some(State::Active));
                }
            }
            assert!(left <= MOST && left * SHARE <= active, "{left} of {active}");
        }
    }
}
