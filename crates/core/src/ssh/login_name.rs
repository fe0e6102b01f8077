//! What a person may put before the `@`: the name that `ssh` logs in as carries OS user and node.
//!
//! `web-1` means the node, as the OS user that the server chooses; `ec2-user%web-1` names both. Where the node is known
//! from elsewhere (`munjigi ssh`, a jump), the name is the OS user alone. What a node's name stands for is looked up
//! elsewhere.

use crate::grant::valid_os_user;

/// Stands for the OS user that the server chooses, where a name is an OS user: `ssh` always sends one.
pub const ANY_USER: &str = "default";
/// Stands behind a node's name where it is the name of a host, so that one block of `ssh_config` is for all nodes.
pub const HOST_SUFFIX: &str = ".munjigi";
/// Stands behind a node's name, before [`HOST_SUFFIX`], where the node's own sshd is meant.
pub const PASSTHROUGH_SUFFIX: &str = ".passthrough";
/// Longest login name, bytes: an OS user, the separator, and a target of 400 characters in UTF-8.
const MAX_NAME: usize = 32 + 1 + 4 * 400;
/// Stands between OS user and node.
const SEPARATOR: char = '%';

/// A login name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginName {
    /// The OS user that was named; `None` for the one that the server chooses.
    pub os_user: Option<String>,
    /// The node that was named, as the person wrote it; `None` where it is known from elsewhere.
    pub node: Option<String>,
}

/// Why a login name is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginNameError {
    /// Empty, too long, or with control characters.
    #[error("a login name is a node's name, or OSUSER%NODE, without control characters")]
    Malformed,
    /// The OS user is none (T-22).
    #[error("the OS user's name has 1 to 32 characters of a-z, 0-9, _ . - and begins with a letter or _")]
    BadUser,
}

impl LoginName {
    /// Reads `[OSUSER%]NODE`.
    pub fn parse(name: &str) -> Result<Self, LoginNameError> {
        plain(name)?;
        let (os_user, node) = match name.split_once(SEPARATOR) {
            Some((os_user, node)) => (Some(user(os_user)?).flatten(), node),
            None => (None, name),
        };
        if node.is_empty() {
            return Err(LoginNameError::Malformed);
        }
        Ok(Self { os_user, node: Some(node.to_owned()) })
    }

    /// Reads a name that is an OS user alone, [`ANY_USER`] among them.
    pub fn os_user(name: &str) -> Result<Self, LoginNameError> {
        plain(name)?;
        Ok(Self { os_user: user(name)?, node: None })
    }
}

fn plain(name: &str) -> Result<(), LoginNameError> {
    match name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        true => Err(LoginNameError::Malformed),
        false => Ok(()),
    }
}

fn user(name: &str) -> Result<Option<String>, LoginNameError> {
    match name {
        ANY_USER => Ok(None),
        name if valid_os_user(name) => Ok(Some(name.to_owned())),
        _ => Err(LoginNameError::BadUser),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(os_user: Option<&str>, node: Option<&str>) -> LoginName {
        LoginName { os_user: os_user.map(str::to_owned), node: node.map(str::to_owned) }
    }

    #[test]
    fn nodes_and_users_are_told_apart() {
        for (text, read) in [
            ("web-1", name(None, Some("web-1"))),
            ("웹-1", name(None, Some("웹-1"))),
            ("ec2-user%web-1", name(Some("ec2-user"), Some("web-1"))),
            ("default%web-1", name(None, Some("web-1"))),
            ("app%tag:Name=a%b", name(Some("app"), Some("tag:Name=a%b"))),
            ("mi-0123456789abcdef0", name(None, Some("mi-0123456789abcdef0"))),
        ] {
            assert_eq!(LoginName::parse(text), Ok(read), "{text}");
        }
        assert_eq!(LoginName::os_user("app"), Ok(name(Some("app"), None)));
        assert_eq!(LoginName::os_user("default"), Ok(name(None, None)));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "a".repeat(MAX_NAME + 1);
        for bad in ["", "app%", "a\nb", "a\0b", &long] {
            assert_eq!(LoginName::parse(bad), Err(LoginNameError::Malformed), "{bad:?}");
        }
        for bad in ["%web", "Root%web", "a b%web", "-x%web"] {
            assert_eq!(LoginName::parse(bad), Err(LoginNameError::BadUser), "{bad:?}");
        }
        for bad in ["Root", "a b", "a%b", "-x"] {
            assert_eq!(LoginName::os_user(bad), Err(LoginNameError::BadUser), "{bad:?}");
        }
    }
}
