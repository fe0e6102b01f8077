//! The one drop-in of sudoers with the rights of all managed accounts, and the check that it has our form (R15).

use super::bundle::{AccountBundle, AccountState, Sudo, valid_sudo_command};
use crate::grant::valid_os_user;

/// First line of the file; a file without it is somebody else's.
pub const HEADER: &str = "# Written by Munjigi: rights of people's accounts. Changes here are overwritten.\n";

/// Writes the rights of the accounts for which `entitled` holds; `None` when nobody has any.
pub fn write(bundle: &AccountBundle, entitled: impl Fn(&str) -> bool) -> Option<String> {
    let mut text = String::from(HEADER);
    let active = bundle.accounts.iter().filter(|account| account.state == AccountState::Active);
    for account in active.filter(|account| entitled(&account.os_user)) {
        let name = &account.os_user;
        match &account.sudo {
            Sudo::None => {}
            Sudo::All => text.push_str(&format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n")),
            Sudo::Commands(commands) => {
                for command in commands {
                    text.push_str(&format!("{name} ALL=(root) NOPASSWD: {}\n", escaped(command)));
                }
            }
        }
    }
    (text != HEADER).then_some(text)
}

/// Escapes what separates in sudoers (sudoers(5), "Other special characters and reserved words"). A command without
/// arguments gets `""`: it is allowed without any, and with no others.
fn escaped(command: &str) -> String {
    let mut text: String =
        command.chars().flat_map(|c| [(",:=".contains(c)).then_some('\\'), Some(c)].into_iter().flatten()).collect();
    if !command.contains(' ') {
        text.push_str(" \"\"");
    }
    text
}

/// Tells whether a text is a drop-in as [`write`] makes them: the check where the system has no `visudo`.
pub fn check(text: &str) -> bool {
    let Some(rules) = text.strip_prefix(HEADER).filter(|rules| rules.ends_with('\n')) else { return false };
    rules.lines().all(|line| {
        let Some((name, rule)) = line.split_once(' ') else { return false };
        let command = |rule: &str| {
            let plain =
                rule.strip_suffix(" \"\"").unwrap_or(rule).replace("\\,", ",").replace("\\:", ":").replace("\\=", "=");
            valid_sudo_command(&plain) && escaped(&plain) == rule
        };
        valid_os_user(name)
            && (rule == "ALL=(ALL:ALL) NOPASSWD: ALL"
                || rule.strip_prefix("ALL=(root) NOPASSWD: ").is_some_and(command))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::bundle::{AccountMode, BundleAccount};
    use crate::id::NodeId;
    use crate::time::Timestamp;

    fn bundle(accounts: &[(&str, AccountState, Sudo)]) -> AccountBundle {
        let account = |(at, (name, state, sudo)): (usize, &(&str, AccountState, Sudo))| BundleAccount {
            os_user: (*name).into(),
            uid: 60_000 + u32::try_from(at).unwrap(),
            state: *state,
            mode: AccountMode::Synchronised,
            owner: String::new(),
            groups: vec![],
            sudo: sudo.clone(),
            shell: "/bin/sh".into(),
            remove_home: false,
            keys: vec![],
        };
        AccountBundle {
            node: NodeId::parse("mi-0123456789abcdef0").unwrap(),
            version: 1,
            issued: Timestamp(0),
            accounts: accounts.iter().enumerate().map(account).collect(),
            key_files: vec![],
        }
    }

    #[test]
    fn only_active_and_entitled_accounts_have_rights() {
        let commands = Sudo::Commands(vec!["/bin/x a=b,c:d".into(), "/bin/y".into()]);
        let bundle = bundle(&[
            ("a", AccountState::Active, Sudo::All),
            ("b", AccountState::Locked, Sudo::All),
            ("c", AccountState::Active, commands),
            ("d", AccountState::Active, Sudo::None),
            ("e", AccountState::Foreign, Sudo::All),
            ("f", AccountState::Active, Sudo::All),
        ]);
        let text = write(&bundle, |name| name != "f").unwrap();
        let expected = format!(
            "{HEADER}a ALL=(ALL:ALL) NOPASSWD: ALL\nc ALL=(root) NOPASSWD: /bin/x a\\=b\\,c\\:d\n\
             c ALL=(root) NOPASSWD: /bin/y \"\"\n"
        );
        assert_eq!(text, expected);
        assert!(check(&text));
        assert_eq!(write(&bundle, |_| false), None);
    }

    #[test]
    fn what_is_not_ours_is_not_taken_for_a_good_file() {
        for rule in [
            "",
            "a ALL=(ALL:ALL) NOPASSWD: ALL",
            "A ALL=(ALL:ALL) NOPASSWD: ALL\n",
            "%wheel ALL=(ALL:ALL) NOPASSWD: ALL\n",
            "a ALL=(root) NOPASSWD: /bin/*\n",
            "a ALL=(root) NOPASSWD: ALL\n",
            "a ALL=(root) NOPASSWD: /bin/x a=b\n",
            "Defaults !authenticate\n",
            "#include /tmp/x\n",
        ] {
            assert!(!check(&format!("{HEADER}{rule}")) || rule.is_empty(), "{rule}");
        }
        assert!(!check("a ALL=(ALL:ALL) NOPASSWD: ALL\n"));
        crate::mutate::each(format!("{HEADER}a ALL=(ALL:ALL) NOPASSWD: ALL\n").as_bytes(), 0x50d0, |bytes| {
            let _ = check(&String::from_utf8_lossy(bytes));
        });
    }
}
