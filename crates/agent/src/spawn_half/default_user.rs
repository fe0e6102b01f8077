//! The OS user of sessions for which nobody names another: `ssm-user`, made when it is first needed, as AWS's agent does,
//! but without any right by sudo (T-54).
//!
//! What sessions may be for it is decided like for every user; this only sees to it that it is there.

use nix::unistd::{Uid, User};

use super::account::AccountError;
use crate::tool;

/// Its name, as in AWS Session Manager.
const NAME: &str = "ssm-user";
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
    let program = tool::find("useradd").ok_or("there is no useradd")?;
    tool::run(&program, &["--create-home", "--user-group", "--shell", "/bin/sh", NAME])
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
