//! What stands on the command line of a copy: places on this machine and on a node.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use munjigi_copy::{CopyFailure, Place};
use munjigi_core::copy::{EntryPath, Pattern, Ready, RootKind};
use munjigi_core::endpoint::NodePath;

/// A place, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Location {
    /// On this machine.
    Local(Local),
    /// On a node.
    Node {
        /// The node as it was named.
        node: String,
        /// The path on it.
        path: NodePath,
        /// Whether a directory must be there, because a slash is at the end.
        is_directory: bool,
    },
}

/// A place on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Local {
    /// `-`: standard input or output.
    Stream,
    /// A path.
    Path(PathBuf),
}

impl Location {
    /// Reads a place: `NODE:PATH`, `-`, or a path here. As for `scp`, a colon behind a slash belongs to a path here.
    pub(crate) fn parse(text: &OsStr) -> anyhow::Result<Self> {
        if text == "-" {
            return Ok(Self::Local(Local::Stream));
        }
        let typed = text.to_str().filter(|text| !text.starts_with(['/', '.', '~']));
        let split = typed.and_then(|text| match text.strip_prefix("tag:") {
            Some(rest) => rest.split_once(':').map(|(tag, path)| (format!("tag:{tag}"), path)),
            None => text.split_once(':').map(|(node, path)| (node.to_owned(), path)),
        });
        let Some((node, path)) = split.filter(|(node, _)| !node.is_empty() && !node.contains('/')) else {
            return Ok(Self::Local(Local::Path(PathBuf::from(text))));
        };
        let is_directory = path.ends_with('/');
        let path = node_path(path).with_context(|| format!("`{path}` on {node}"))?;
        Ok(Self::Node { node, path, is_directory })
    }
}

/// Takes a path on a node: absolute, or below the home of the OS user.
fn node_path(typed: &str) -> anyhow::Result<NodePath> {
    let typed = typed.strip_prefix("./").unwrap_or(typed);
    let full = match typed {
        "" | "." => "~".to_owned(),
        path if path.starts_with('/') || path == "~" || path.starts_with("~/") => path.to_owned(),
        path if path.starts_with('~') => bail!("name the OS user with --user; ~ is that user's home"),
        path => format!("~/{path}"),
    };
    Ok(NodePath::new(&full)?)
}

/// Returns the last name of a path on a node; for one without a name, that of the real path, which the node says.
fn remote_name(path: &NodePath, ready: &Ready) -> Result<EntryPath, CopyFailure> {
    let name = |bytes: &[u8]| {
        let last = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        EntryPath::root().join(last).ok()
    };
    let asked = name(path.as_str().as_bytes()).filter(|name| name.as_bytes() != b"~");
    asked.or_else(|| name(&ready.real_path)).ok_or_else(|| {
        CopyFailure::here("NotFound", format!("{path} has no name of its own: say under which one it is copied"))
    })
}

impl Local {
    /// Returns the name that a source has at the other end.
    pub(crate) fn name(path: &Path) -> Result<EntryPath, CopyFailure> {
        let failed = |why: String| CopyFailure::here("NotFound", format!("{}: {why}", path.display()));
        let real;
        let name = match path.file_name() {
            Some(name) => name,
            // `.` and `..` have a name elsewhere.
            None => {
                real = path.canonicalize().map_err(|error| failed(error.to_string()))?;
                real.file_name().ok_or_else(|| failed("it has no name of its own".to_owned()))?
            }
        };
        EntryPath::root().join(name.as_bytes()).map_err(|error| failed(error.to_string()))
    }

    /// Decides where what the node has goes here. `several` may come, each under its own name.
    pub(crate) fn place(
        &self,
        from: &NodePath,
        several: bool,
        ready: &Ready,
    ) -> Result<(Place, Option<Pattern>), CopyFailure> {
        let several = several || ready.kind == RootKind::Matches;
        let path = match self {
            Self::Stream if several || ready.kind == RootKind::Directory => {
                return Err(CopyFailure::here("NotOneFile", "only one file can go to standard output"));
            }
            Self::Stream => {
                let out = own_stdout()?;
                return Ok((Place::Stream(out), None));
            }
            Self::Path(path) => path,
        };
        if path.is_dir() {
            if ready.kind == RootKind::Matches {
                let last = from.as_str().rsplit('/').next().unwrap_or_default();
                return Ok((Place::Into(path.clone()), Some(Pattern::new(last.as_bytes()))));
            }
            let name = remote_name(from, ready)?;
            return Ok((Place::As(path.join(OsStr::from_bytes(name.as_bytes()))), None));
        }
        let slash = path.as_os_str().as_bytes().ends_with(b"/");
        if several || slash {
            return Err(CopyFailure::here("NotFound", format!("{} is no directory", path.display())));
        }
        // Through a link that was named here, as `cp` writes.
        Ok((Place::As(path.canonicalize().unwrap_or_else(|_| path.clone())), None))
    }
}

/// Returns standard output as a descriptor of its own.
fn own_stdout() -> Result<std::os::fd::OwnedFd, CopyFailure> {
    use std::os::fd::AsFd as _;
    let out = std::io::stdout();
    let copy = out.as_fd().try_clone_to_owned();
    copy.map_err(|error| CopyFailure::here("OutputClosed", format!("cannot write to standard output: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node: &str, path: &str, is_directory: bool) -> Location {
        Location::Node { node: node.to_owned(), path: NodePath::new(path).unwrap(), is_directory }
    }

    #[test]
    fn places_are_told_apart_as_scp_does() {
        for (text, expected) in [
            ("web-1:/etc/hosts", node("web-1", "/etc/hosts", false)),
            ("web-1:", node("web-1", "~", false)),
            ("web-1:logs/", node("web-1", "~/logs", true)),
            ("web-1:~/a", node("web-1", "~/a", false)),
            ("web-1:/a:b", node("web-1", "/a:b", false)),
            ("tag:Role=web:/srv", node("tag:Role=web", "/srv", false)),
            ("web-1:문서/*.txt", node("web-1", "~/문서/*.txt", false)),
        ] {
            assert_eq!(Location::parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        for text in ["a", "./a:b", "/a:b", "dir/a:b", "~x:y"] {
            assert_eq!(Location::parse(OsStr::new(text)).unwrap(), Location::Local(Local::Path(text.into())), "{text}");
        }
        assert_eq!(Location::parse(OsStr::new("-")).unwrap(), Location::Local(Local::Stream));
        for text in ["web-1:../x", "web-1:/a/../b", "web-1:~bob/x"] {
            assert!(Location::parse(OsStr::new(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn what_comes_is_named_after_what_was_asked_for_and_not_after_what_the_node_says() {
        let ready = |real: &[u8]| Ready { version: 1, kind: RootKind::File, real_path: real.to_vec() };
        let name = |asked: &str, real: &[u8]| {
            remote_name(&NodePath::new(asked).unwrap(), &ready(real)).map(|name| name.to_string()).ok()
        };
        assert_eq!(name("/etc/hosts", b"/etc/passwd").as_deref(), Some("hosts"));
        assert_eq!(name("~", b"/home/kim").as_deref(), Some("kim"));
        assert_eq!(name("~", b"/home/.."), None);
        assert_eq!(name("/", b"/"), None);
    }
}
