//! The system's accounts as they are now, and the processes that run as one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::account::bundle::AccountBundle;
use munjigi_core::account::reconcile::{System, SystemUser};
use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Pid, Uid, User};

use super::database::{GROUP, PASSWD};

/// Between SIGTERM and SIGKILL for the processes of somebody who leaves.
const GRACE: Duration = Duration::from_secs(2);
/// Most rounds of SIGKILL: processes that fork against it lose, as they are found again.
const ROUNDS: u32 = 100;

/// Reads users and groups; of other name services only the names and ids that matter are asked for.
pub(super) fn read(bundle: &AccountBundle, adopt_group: Option<&str>) -> anyhow::Result<System> {
    let passwd = fs::read_to_string(PASSWD).context("failed to read the system's users")?;
    let group = fs::read_to_string(GROUP).context("failed to read the system's groups")?;
    let mut system = System { users: users(&passwd), groups: groups(&group), adoptable: BTreeSet::new() };
    for account in &bundle.accounts {
        // A name service that does not answer is an account that cannot be judged: treated as there, of somebody else.
        let by_name = User::from_name(&account.os_user).context("failed to look a user up")?;
        let by_id = User::from_uid(Uid::from_raw(account.uid)).context("failed to look a user id up")?;
        for found in by_name.into_iter().chain(by_id) {
            let user = SystemUser { uid: found.uid.as_raw(), shell: found.shell.display().to_string() };
            system.users.entry(found.name).or_insert(user);
        }
    }
    if let Some(members) = adopt_group.and_then(|name| system.groups.get(name)) {
        system.adoptable.clone_from(members);
    }
    Ok(system)
}

/// Tells whether the account files stand on something that is mounted read-only.
pub(super) fn is_etc_read_only() -> bool {
    // What cannot be asked is tried.
    statvfs("/etc").is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY))
}

fn users(passwd: &str) -> BTreeMap<String, SystemUser> {
    let user = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid = fields.get(2)?.parse().ok()?;
        let shell = (*fields.get(6)?).to_owned();
        Some(((*fields.first()?).to_owned(), SystemUser { uid, shell }))
    };
    passwd.lines().filter_map(user).collect()
}

fn groups(group: &str) -> BTreeMap<String, BTreeSet<String>> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields.get(3)?.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some(((*fields.first()?).to_owned(), members))
    };
    group.lines().filter_map(one).collect()
}

/// Ends everything that runs as a user: SIGTERM, a grace, then SIGKILL until nothing is left. Returns how many there were.
pub(super) fn kill_all(uid: u32) -> usize {
    if uid < munjigi_core::account::bundle::FIRST_UID {
        return 0;
    }
    let found = of_user(uid);
    let signal_all = |list: &[Pid], signal| {
        for pid in list {
            // It may have ended by itself.
            let _ = kill(*pid, signal);
        }
    };
    signal_all(&found, Signal::SIGTERM);
    let pause = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while waited < GRACE && !of_user(uid).is_empty() {
        thread::sleep(pause);
        waited += pause;
    }
    for _ in 0..ROUNDS {
        let left = of_user(uid);
        if left.is_empty() {
            break;
        }
        signal_all(&left, Signal::SIGKILL);
        thread::sleep(pause / 5);
    }
    found.len()
}

/// Processes with this user id, zombies not counted.
fn of_user(uid: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pid = |entry: fs::DirEntry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let ids = field("Uid:")?.split_whitespace().take(3).any(|id| id.parse() == Ok(uid));
        (ids && !field("State:")?.starts_with('Z')).then(|| Pid::from_raw(pid))
    };
    entries.flatten().filter_map(pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_members_are_read_and_lines_that_are_none_left_out() {
        let users = users("root:x:0:0:root:/root:/bin/bash\nkim:x:60000:60000:Kim, K:/home/kim:/bin/sh\n+nis\n\nx:y\n");
        assert_eq!(users.len(), 2);
        assert_eq!(users["kim"], SystemUser { uid: 60_000, shell: "/bin/sh".into() });
        let groups = groups("adm:x:4:kim,lee\nempty:x:5:\nbroken\n");
        assert_eq!(groups["adm"], ["kim".to_owned(), "lee".to_owned()].into());
        assert!(groups["empty"].is_empty() && groups.len() == 2);
    }

    #[test]
    fn processes_of_the_system_are_never_ended() {
        assert_eq!(kill_all(0), 0);
        assert_eq!(kill_all(999), 0);
    }
}
