//! Where an entry stands below the root of a copy: names only, so that no path can lead out of the tree.

use std::fmt;

/// Longest name of an entry in bytes (NAME_MAX of Linux).
pub const MAX_COMPONENT: usize = 255;
/// Longest path of an entry in bytes (PATH_MAX of Linux, without its end mark).
pub const MAX_ENTRY_PATH: usize = 4095;

/// A path below the root; empty for the root itself. Bytes as the file system has them, not necessarily text.
///
/// INVARIANT: components are neither empty nor `.` nor `..` and hold no NUL, so the path stays below its root as long as
/// no symbolic link is followed.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct EntryPath(Vec<u8>);

/// Why bytes are no path of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A name that leads elsewhere: empty, `.`, `..`, or with a NUL.
    #[error("a name in the path is empty, `.`, `..` or holds a NUL byte")]
    Name,
    /// Longer than file systems allow.
    #[error("the path is longer than {MAX_ENTRY_PATH} bytes, or a name in it longer than {MAX_COMPONENT}")]
    TooLong,
}

impl EntryPath {
    /// Checks a path.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > MAX_ENTRY_PATH {
            return Err(PathError::TooLong);
        }
        if !bytes.is_empty() {
            for name in bytes.split(|byte| *byte == b'/') {
                check_name(name)?;
            }
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Returns the root itself.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// Returns the path of an entry below this one.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        check_name(name)?;
        let mut path = self.0.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if path.len() > MAX_ENTRY_PATH { Err(PathError::TooLong) } else { Ok(Self(path)) }
    }

    /// Tells whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the names, outermost first; none for the root.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// Splits into the path of the directory and the name in it; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => {
                let (parent, name) = self.0.split_at_checked(slash)?;
                Some((Self(parent.to_vec()), name.get(1..)?))
            }
            None => Some((Self::root(), &self.0)),
        }
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn check_name(name: &[u8]) -> Result<(), PathError> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&0) || name.contains(&b'/') {
        Err(PathError::Name)
    } else if name.len() > MAX_COMPONENT {
        Err(PathError::TooLong)
    } else {
        Ok(())
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.0).fmt(f)
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryPath({self:?})", self = String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_below_their_root_are_taken() {
        for good in ["", "a", "a/b", "문서/보고서.txt", "...", "a..b", "-rf", "a b\n"] {
            assert_eq!(EntryPath::new(good.as_bytes()).unwrap().as_bytes(), good.as_bytes());
        }
        for bad in ["/", "/etc/passwd", "..", "a/../b", "a/..", "./a", "a//b", "a/", "a\0b"] {
            assert_eq!(EntryPath::new(bad.as_bytes()), Err(PathError::Name), "{bad:?}");
        }
        assert_eq!(EntryPath::new(&[b'a'; 256]), Err(PathError::TooLong));
        assert_eq!(EntryPath::new("a/".repeat(2048).as_bytes()), Err(PathError::TooLong));
    }

    #[test]
    fn joining_and_splitting_are_each_others_reverse() {
        let path = EntryPath::root().join(b"a").unwrap().join(b"b").unwrap();
        assert_eq!(path.as_bytes(), b"a/b");
        assert_eq!(path.split(), Some((EntryPath::new(b"a").unwrap(), b"b".as_slice())));
        assert_eq!(EntryPath::root().split(), None);
        assert_eq!(path.names().collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(EntryPath::root().join(b"..").is_err());
        assert!(EntryPath::root().join(b"a/b").is_err());
    }
}
