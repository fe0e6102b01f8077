//! The OS user of sessions for which nobody names another: `ssm-user`, made when it is first needed, as AWS's agent does,
//! but without any right by sudo (T-54).
//!
//! What sessions may be for it is decided like for every user; this only sees to it that it is there.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, User};

use super::account::AccountError;

/// Its name, as in AWS Session Manager.
const NAME: &str = "ssm-user";
/// How long making it may take; the system's tools wait for each other's lock on the account files.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the tool is asked whether it is done.
const PAUSE: Duration = Duration::from_millis(10);
/// Where the tool is; no search path that somebody else might have set.
const USERADD: [&str; 2] = ["/usr/sbin/useradd", "/sbin/useradd"];

/// Makes the user if it is the one that is wanted, is missing, and the agent can: it is root, and neither `agent.toml`
/// leaves the user out nor says that none is to be made. Who cannot be made is found missing by the look-up that follows.
pub(super) fn make_if_missing(wanted: &str, allowed: Option<&[String]>, may_make: bool) -> Result<(), AccountError> {
    let vetoed = allowed.is_some_and(|list| !list.iter().any(|entry| entry == NAME));
    if wanted != NAME || vetoed || !may_make || !Uid::effective().is_root() {
        return Ok(());
    }
    if !matches!(User::from_name(NAME), Ok(None)) {
        return Ok(());
    }
    match make() {
        Ok(()) => {
            tracing::info!(user = NAME, "made the OS user of sessions for which none is named");
            Ok(())
        }
        Err(why) => Err(AccountError::NotMade(NAME.to_owned(), why)),
    }
}

fn make() -> Result<(), String> {
    let program = USERADD.into_iter().find(|path| std::path::Path::new(path).exists()).ok_or("there is no useradd")?;
    let mut useradd = Command::new(program);
    useradd.args(["--create-home", "--user-group", "--shell", "/bin/sh", NAME]);
    useradd.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = useradd.spawn().map_err(|error| format!("{program} cannot be run: {error}"))?;
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("{program} ended with {status}")),
            Ok(None) if begun.elapsed() < LIMIT => thread::sleep(PAUSE),
            Ok(None) => {
                // Killed and reaped: nothing of it stays. Errors mean that it ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{program} did not end within {} s", LIMIT.as_secs()));
            }
            Err(error) => return Err(format!("{program} cannot be waited for: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_for_others_nor_against_the_nodes_will() {
        let before = User::from_name(NAME).unwrap().map(|user| user.uid);
        let others = ["root".to_owned()];
        for (wanted, allowed, may_make) in
            [("root", None, true), ("ssm-user2", None, true), (NAME, Some(&others[..]), true), (NAME, None, false)]
        {
            make_if_missing(wanted, allowed, may_make).unwrap();
        }
        assert_eq!(User::from_name(NAME).unwrap().map(|user| user.uid), before);
    }
}
