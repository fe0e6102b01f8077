//! One change of one account: by the tools of shadow-utils where the system has them, else in the account files.

use std::ffi::CString;
use std::path::Path;

use munjigi_core::account::bundle::FIRST_UID;
use nix::unistd::{Gid, Group, Uid, User};

use super::database::{Database, GROUP, GSHADOW, PASSWD, SHADOW};
use super::home::{self, Place};
use super::text;
use crate::clock;
use crate::{sys, tool};

/// Day on which a locked account expired: in the past, and not 0, which some read as never (shadow(5)).
const EXPIRED: &str = "1";

/// Makes an account with a group of its own and a home. Returns what is to be said about it. The account itself comes last:
/// killed before that, it is made again, and one that is there has everything. `resumed` says that it was begun before.
pub(super) fn create(name: &str, uid: u32, shell: &str, owner: &str, resumed: bool) -> Result<&'static str, String> {
    if uid < FIRST_UID {
        return Err(format!("user id {uid} is the system's"));
    }
    if !Path::new(shell).exists() {
        return Err(format!("this node has no {shell}"));
    }
    let group = Group::from_name(name).map_err(|errno| format!("groups cannot be looked up: {errno}"))?;
    let begun = |group: &Group| resumed && group.mem.is_empty() && may_be_ours(group.gid.as_raw(), uid);
    if group.as_ref().is_some_and(|group| !begun(group)) {
        return Err("this node has a group of that name that Munjigi did not make".to_owned());
    }
    let place = home::prepare(name, uid)?;
    let gid = match &group {
        Some(group) => group.gid.as_raw(),
        None => free_group_id(uid)?,
    };
    let made = make_all(name, (uid, gid), group.is_some(), place == Place::Free, shell, &comment(owner));
    if let Err(why) = made {
        // Nothing stays of an account that could not be made.
        if place == Place::Free {
            home::unmake(name, uid);
        }
        let _ = remove_group(name);
        return Err(why);
    }
    Ok(if place == Place::Own { ", with the home that it had" } else { "" })
}

fn make_all(
    name: &str,
    (uid, gid): (u32, u32),
    has_group: bool,
    wants_home: bool,
    shell: &str,
    comment: &str,
) -> Result<(), String> {
    let tools = tool::find("useradd").zip(tool::find("groupadd"));
    let (user_id, group_id) = (uid.to_string(), gid.to_string());
    match &tools {
        Some((_, groupadd)) if !has_group => tool::run(groupadd, &["--gid", &group_id, name])?,
        _ => {}
    }
    if wants_home {
        // The same for every system, and its owner's alone.
        home::make(name, uid, gid)?;
    }
    let Some((useradd, _)) = tools else { return add_lines(name, uid, gid, shell, comment) };
    let path = home::path(name).display().to_string();
    let arguments = [
        "--uid",
        &user_id,
        "--gid",
        name,
        "--no-create-home",
        "--home-dir",
        &path,
        "--shell",
        shell,
        "--comment",
        comment,
        name,
    ];
    tool::run(&useradd, &arguments)
}

/// Ids of groups where a user's own number is taken.
const FURTHER_GROUPS: std::ops::Range<u32> = 65_100..65_500;

/// Tells whether a group can be one that [`free_group_id`] gave.
fn may_be_ours(gid: u32, uid: u32) -> bool {
    gid == uid || FURTHER_GROUPS.contains(&gid)
}

/// The id of the account's group: that of the user if it is free.
fn free_group_id(uid: u32) -> Result<u32, String> {
    let taken = |gid: u32| {
        Group::from_gid(Gid::from_raw(gid))
            .map(|group| group.is_some())
            .map_err(|errno| format!("groups cannot be looked up: {errno}"))
    };
    for gid in std::iter::once(uid).chain(FURTHER_GROUPS) {
        if !taken(gid)? {
            return Ok(gid);
        }
    }
    Err(format!("group id {uid} and those from 65100 to 65499 are taken"))
}

/// What stands in the comment field: whose account it is, without what separates there.
fn comment(owner: &str) -> String {
    let name = owner.rsplit('/').next().unwrap_or(owner);
    let plain: String = name.chars().filter(|c| c.is_ascii_graphic() && !":,\\".contains(*c)).take(64).collect();
    format!("{plain} (Munjigi)")
}

fn add_lines(name: &str, uid: u32, gid: u32, shell: &str, comment: &str) -> Result<(), String> {
    let (database, today) = (Database::lock()?, clock::now().as_secs().div_euclid(86_400));
    let path = home::path(name).display().to_string();
    add_group(&database, name, gid)?;
    // The password's line first: an account without one might be open.
    database.edit_if_there(SHADOW, |file| {
        Some(text::with_line(&text::without(file, name), &format!("{name}:!:{today}:0:99999:7:::")))
    })?;
    let password = if Path::new(SHADOW).exists() { "x" } else { "!" };
    let line = format!("{name}:{password}:{uid}:{gid}:{comment}:{path}:{shell}");
    database.edit(PASSWD, |file| Some(text::with_line(file, &line)))
}

fn add_group(database: &Database, name: &str, gid: u32) -> Result<(), String> {
    database.edit_if_there(GSHADOW, |file| {
        (!text::has(file, name)).then(|| text::with_line(file, &format!("{name}:!::")))
    })?;
    database.edit(GROUP, |file| (!text::has(file, name)).then(|| text::with_line(file, &format!("{name}:x:{gid}:"))))
}

fn remove_group(name: &str) -> Result<(), String> {
    match tool::find("groupdel") {
        Some(groupdel) => tool::run(&groupdel, &[name]),
        None => {
            let database = Database::lock()?;
            database.edit(GROUP, |file| Some(text::without(file, name)))?;
            database.edit_if_there(GSHADOW, |file| Some(text::without(file, name)))
        }
    }
}

/// Locks and expires an account. One that has a password keeps it, locked, for the day it is unlocked.
pub(super) fn lock(name: &str) -> Result<(), String> {
    if let Some(usermod) = tool::find("usermod") {
        return tool::run(&usermod, &["--lock", "--expiredate", EXPIRED, name]);
    }
    let database = Database::lock()?;
    let closed = |password: &str| if password.starts_with('!') { password.to_owned() } else { format!("!{password}") };
    if database.read(SHADOW)?.is_none() {
        return database.edit(PASSWD, |file| text::with_field(file, name, 6, |_| "/sbin/nologin".to_owned()));
    }
    database.edit(SHADOW, |file| {
        let expired = text::with_field(file, name, 7, |_| EXPIRED.to_owned())?;
        text::with_field(&expired, name, 1, closed)
    })
}

/// Unlocks an account; a password that it had before is open again.
pub(super) fn unlock(name: &str) -> Result<(), String> {
    if let Some(usermod) = tool::find("usermod") {
        tool::run(&usermod, &["--expiredate", "", name])?;
        let entry = CString::new(name).ok().and_then(|name| sys::shadow(&name));
        // Without a password there is nothing to unlock: `usermod` would refuse.
        return match entry {
            Some(entry) if entry.locked => tool::run(&usermod, &["--unlock", name]),
            _ => Ok(()),
        };
    }
    let database = Database::lock()?;
    let open = |password: &str| match password.strip_prefix('!') {
        Some(rest) if rest.contains('$') => rest.to_owned(),
        _ => password.to_owned(),
    };
    database.edit_if_there(SHADOW, |file| {
        let open_again = text::with_field(file, name, 7, |_| String::new())?;
        text::with_field(&open_again, name, 1, open)
    })
}

/// Gives an account a login shell.
pub(super) fn set_shell(name: &str, shell: &str) -> Result<(), String> {
    if !Path::new(shell).exists() {
        return Err(format!("this node has no {shell}"));
    }
    match tool::find("usermod") {
        Some(usermod) => tool::run(&usermod, &["--shell", shell, name]),
        None => Database::lock()?.edit(PASSWD, |file| text::with_field(file, name, 6, |_| shell.to_owned())),
    }
}

/// Puts an account in a group, which is made if the system has none of that name.
pub(super) fn join(name: &str, group: &str) -> Result<(), String> {
    let found = Group::from_name(group).map_err(|errno| format!("groups cannot be looked up: {errno}"))?;
    if found.is_none() {
        match tool::find("groupadd") {
            Some(groupadd) => tool::run(&groupadd, &["--system", group])?,
            None => {
                let database = Database::lock()?;
                let gid = (100..1000).rev().find(|gid| matches!(Group::from_gid(Gid::from_raw(*gid)), Ok(None)));
                add_group(&database, group, gid.ok_or("there is no free group id below 1000")?)?;
            }
        }
    }
    match tool::find("usermod") {
        Some(usermod) => tool::run(&usermod, &["--append", "--groups", group, name]),
        None => edit_members(group, |list| text::with_member(list, name)),
    }
}

/// Takes an account out of a group.
pub(super) fn leave(name: &str, group: &str) -> Result<(), String> {
    match tool::find("gpasswd") {
        Some(gpasswd)
            if Group::from_name(group).is_ok_and(|found| found.is_some_and(|it| it.mem.iter().any(|m| m == name))) =>
        {
            tool::run(&gpasswd, &["--delete", name, group])
        }
        Some(_) => Ok(()),
        None => edit_members(group, |list| text::without_member(list, name)),
    }
}

fn edit_members(group: &str, change: impl Fn(&str) -> String) -> Result<(), String> {
    let database = Database::lock()?;
    database.edit(GROUP, |file| text::with_field(file, group, 3, &change))?;
    database.edit_if_there(GSHADOW, |file| text::with_field(file, group, 3, &change))
}

/// Deletes a locked account and archives its home. Says what became of the home.
pub(super) fn delete(name: &str, uid: u32, remove_home: bool) -> Result<String, String> {
    let user = User::from_name(name).map_err(|errno| format!("users cannot be looked up: {errno}"))?;
    // Somebody was faster, or made another account of that name: nothing is ours any more.
    let Some(user) = user.filter(|user| user.uid == Uid::from_raw(uid) && uid >= FIRST_UID) else {
        return Ok("somebody else had removed it".to_owned());
    };
    super::system::kill_all(uid);
    let said = home::archive(&user.dir, name, uid, remove_home)?;
    remove(name)?;
    Ok(said)
}

fn remove(name: &str) -> Result<(), String> {
    if let Some(userdel) = tool::find("userdel") {
        tool::run(&userdel, &[name])?;
    } else {
        let database = Database::lock()?;
        database.edit(PASSWD, |file| Some(text::without(file, name)))?;
        database.edit_if_there(SHADOW, |file| Some(text::without(file, name)))?;
        for path in [GROUP, GSHADOW] {
            database.edit_if_there(path, |file| {
                let groups: Vec<&str> = file.lines().filter_map(|line| line.split(':').next()).collect();
                Some(groups.iter().fold(file.to_owned(), |file, group| {
                    text::with_field(&file, group, 3, |list| text::without_member(list, name)).unwrap_or(file)
                }))
            })?;
        }
    }
    // `userdel` takes it along where the system is set so; an empty group of that name is ours.
    match Group::from_name(name) {
        Ok(Some(group)) if group.mem.is_empty() => remove_group(name),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_hold_nothing_that_separates_fields() {
        assert_eq!(comment("arn:aws:iam::1:user/kim"), "kim (Munjigi)");
        assert_eq!(comment("arn:aws:iam::1:user/a,b:c\n한"), "abc (Munjigi)");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        assert!(create("munjigi-no", 999, "/bin/sh", "x", false).is_err());
        assert!(create("munjigi-no", 60_000, "/no/shell", "x", false).is_err());
        for resumed in [false, true] {
            let error = create("root", 64_999, "/bin/sh", "x", resumed).unwrap_err();
            assert!(error.contains("group of that name"), "{resumed}: {error}");
        }
    }
}
