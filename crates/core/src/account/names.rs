//! Local names for people: the mapping that aws-ec2-ssh made usual, made safe (R14).
//!
//! The way back is never computed from text: `a.at.b` may be a person's own name. The server keeps the pairs (see
//! [`super::pairs`]).

use aws_lc_rs::digest::{SHA256, digest};

use crate::grant::valid_os_user;

/// Longest local name (useradd(8)).
pub const MAX_NAME: usize = 32;
/// Characters of the hash at the end of a shortened name.
const HASH: usize = 6;
/// What useradd refuses in names that identity systems allow.
const REPLACED: [(char, &str); 4] = [('+', ".plus."), ('=', ".equal."), (',', ".comma."), ('@', ".at.")];

/// How names are made local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Whether upper case becomes lower case; without it a name with upper case is refused.
    pub lowercase: bool,
    /// Whether a name that is too long is cut and gets a hash of the whole; without it it is refused.
    pub shorten: bool,
}

/// Why a name has no local form. One such name never stops the others (L12).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Longer than 32 characters.
    #[error("`{0}` has more than {MAX_NAME} characters as a local name; let the rule shorten names")]
    TooLong(String),
    /// Upper case, and the rule keeps it.
    #[error("`{0}` has upper case letters, which Linux's tools refuse; let the rule lower them")]
    UpperCase(String),
    /// Characters that no local name may have, or a first one that it may not begin with.
    #[error(
        "`{0}` can be no local name: those are lower case letters, digits, `_`, `.` and `-`, and begin with a letter or `_`"
    )]
    Characters(String),
    /// A name that every system has for itself.
    #[error("`{0}` is the system's own")]
    Reserved(String),
}

/// Returns a person's local name.
pub fn local_name(name: &str, mapping: Mapping) -> Result<String, NameError> {
    let shown = || name.escape_default().take(96).collect::<String>();
    let mut local = String::with_capacity(name.len());
    for c in name.chars() {
        match REPLACED.iter().find(|(from, _)| *from == c) {
            Some((_, to)) => local.push_str(to),
            None if mapping.lowercase => local.extend(c.to_lowercase()),
            None => local.push(c),
        }
    }
    if local.chars().any(char::is_uppercase) {
        return Err(NameError::UpperCase(shown()));
    }
    if local.len() > MAX_NAME {
        if !mapping.shorten {
            return Err(NameError::TooLong(shown()));
        }
        // Of the whole name as it was: two that begin alike, or differ in case, are two.
        let hash = hex::encode(digest(&SHA256, name.as_bytes()));
        local.truncate((0..=MAX_NAME - HASH - 1).rev().find(|end| local.is_char_boundary(*end)).unwrap_or(0));
        local.push('-');
        local.push_str(hash.get(..HASH).unwrap_or_default());
    }
    if local == "root" {
        return Err(NameError::Reserved(shown()));
    }
    if valid_os_user(&local) { Ok(local) } else { Err(NameError::Characters(shown())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Mapping = Mapping { lowercase: true, shorten: true };

    fn check(name: &str, expected: &str) {
        assert_eq!(local_name(name, USUAL).as_deref(), Ok(expected), "{name}");
    }

    #[test]
    fn names_are_mapped_as_both_older_systems_mapped_them() {
        check("kim", "kim");
        check("Kim", "kim");
        check("KIM.Lee", "kim.lee");
        check("kim@example.com", "kim.at.example.com");
        check("kim+ops@example.com", "kim.plus.ops.at.example.com");
        check("a=b,c", "a.equal.b.comma.c");
        // Its own name, which the way back by text would have taken for `a@b`.
        check("a.at.b", "a.at.b");
        check("_x-1", "_x-1");
    }

    #[test]
    fn two_names_may_become_one_so_somebody_has_to_keep_the_pairs() {
        assert_eq!(local_name("a@b", USUAL), local_name("a.at.b", USUAL));
        assert_eq!(local_name("Kim", USUAL), local_name("kim", USUAL));
    }

    #[test]
    fn long_names_are_shortened_by_a_hash_of_the_whole_or_refused() {
        let (fits, long) = ("a".repeat(32), "a".repeat(33));
        check(&fits, &fits);
        let short = local_name(&long, USUAL).unwrap();
        assert_eq!((short.len(), short.starts_with(&"a".repeat(25))), (32, true));
        assert_ne!(local_name(&"a".repeat(34), USUAL).unwrap(), short);
        assert_ne!(local_name(&"A".repeat(33), USUAL).unwrap(), short);
        // The mapping makes a short name long.
        assert_eq!(
            local_name(&"@".repeat(9), USUAL).map(|name| name.len()),
            Err(NameError::Characters("@@@@@@@@@".into()))
        );
        assert_eq!(local_name(&format!("k{}", "@".repeat(9)), USUAL).unwrap().len(), 32);
        assert_eq!(local_name(&long, Mapping { shorten: false, ..USUAL }), Err(NameError::TooLong(long)));
    }

    #[test]
    fn what_can_be_no_local_name_says_why() {
        let keep = Mapping { lowercase: false, shorten: false };
        assert_eq!(local_name("Kim", keep), Err(NameError::UpperCase("Kim".into())));
        assert_eq!(local_name("ROOT", USUAL), Err(NameError::Reserved("ROOT".into())));
        for bad in ["", "1kim", "-kim", ".kim", "kim lee", "kim:x", "kim\n", "한글", "kim/..", "ÄB"] {
            assert!(matches!(local_name(bad, USUAL), Err(NameError::Characters(_))), "{bad:?}");
        }
    }

    #[test]
    fn whatever_comes_is_a_good_name_or_an_error() {
        crate::mutate::each("Kim+ops@example.com,x=1".as_bytes(), 0x1a3e, |bytes| {
            if let Ok(local) = local_name(&String::from_utf8_lossy(bytes), USUAL) {
                assert!(valid_os_user(&local));
            }
        });
    }
}
