//! `scp -t` and `scp -f`, as the other end of `scp -O` is called.

use super::words::{PathPattern, Word};
use super::{FileCommandError, MAX_PATHS};

/// Which end of the copy the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScpSide {
    /// Files come (`-t`).
    Sink,
    /// Files go (`-f`).
    Source,
}

/// A call of `scp` by another `scp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScpCall {
    /// Which end.
    pub side: ScpSide,
    /// Directories too (`-r`).
    pub recursive: bool,
    /// Modes and times are kept (`-p`).
    pub preserve: bool,
    /// The target must be a directory (`-d`).
    pub into_directory: bool,
    /// Where; one of a sink, at least one of a source.
    pub paths: Vec<PathPattern>,
}

impl ScpCall {
    /// Reads the arguments; `None` if this is a call of a person, which copies between places of its own.
    pub(super) fn parse(arguments: &[Word]) -> Result<Option<Self>, FileCommandError> {
        let (mut sink, mut source) = (false, false);
        let (mut recursive, mut preserve, mut into_directory) = (false, false, false);
        let mut rest = arguments.iter();
        let mut paths = Vec::new();
        let mut unknown = None;
        while let Some(word) = rest.next() {
            match word.text() {
                b"--" => {
                    paths.extend(rest);
                    break;
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b't' => sink = true,
                            b'f' => source = true,
                            b'r' => recursive = true,
                            b'p' => preserve = true,
                            b'd' => into_directory = true,
                            b'v' | b'q' => {}
                            _ => unknown = Some(String::from_utf8_lossy(word.text()).into_owned()),
                        }
                    }
                }
                _ => {
                    paths.push(word);
                    paths.extend(rest);
                    break;
                }
            }
        }
        let side = match (sink, source) {
            (true, false) => ScpSide::Sink,
            (false, true) => ScpSide::Source,
            _ => return Ok(None),
        };
        if let Some(option) = unknown {
            return Err(FileCommandError::Option { program: "scp", option });
        }
        if paths.is_empty() || paths.len() > MAX_PATHS || (side == ScpSide::Sink && paths.len() != 1) {
            return Err(FileCommandError::Paths("scp"));
        }
        let paths = paths.into_iter().map(Word::path).collect::<Result<_, _>>()?;
        Ok(Some(Self { side, recursive, preserve, into_directory, paths }))
    }
}
