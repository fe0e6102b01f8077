//! The words of a command line in the language of POSIX shells, as far as `scp` and `rsync` write it: quoting,
//! wildcards and `~`. Everything else that means something to a shell ends the reading.

use std::fmt;

use super::FileCommandError;
use crate::sftp::MAX_PATH;

/// Why a command line is not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// It has something that only a shell understands.
    #[error("the command has something that only a shell understands")]
    Shell,
    /// A quotation that nothing ends.
    #[error("a quotation has no end")]
    Quotation,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    text: Vec<u8>,
    pattern: Vec<u8>,
}

impl Word {
    /// Returns the word without its quotation.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the word as a path in which wildcards and a `~` at the beginning mean something.
    pub fn path(&self) -> Result<PathPattern, FileCommandError> {
        PathPattern::new(&self.pattern)
    }

    fn plain(&mut self, byte: u8) {
        self.text.push(byte);
        self.pattern.push(byte);
    }

    fn quoted(&mut self, byte: u8) {
        self.text.push(byte);
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\' | b'~') {
            self.pattern.push(b'\\');
        }
        self.pattern.push(byte);
    }
}

/// Takes a command line apart.
pub fn words(line: &[u8]) -> Result<Vec<Word>, WordError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' => words.extend(word.take()),
            b'\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match bytes.next() {
                        Some(b'\'') => break,
                        Some(byte) => word.quoted(byte),
                        None => return Err(WordError::Quotation),
                    }
                }
            }
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            b'\\' => word.get_or_insert_default().quoted(bytes.next().ok_or(WordError::Quotation)?),
            b'#' if word.is_none() => return Err(WordError::Shell),
            b';' | b'|' | b'&' | b'<' | b'>' | b'(' | b')' | b'$' | b'`' | b'\n' | b'\r' | 0 => {
                return Err(WordError::Shell);
            }
            byte => word.get_or_insert_default().plain(byte),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Word) -> Result<(), WordError> {
    loop {
        match bytes.next().ok_or(WordError::Quotation)? {
            b'"' => return Ok(()),
            b'$' | b'`' => return Err(WordError::Shell),
            b'\\' => match bytes.next().ok_or(WordError::Quotation)? {
                byte @ (b'$' | b'`' | b'"' | b'\\') => word.quoted(byte),
                byte => {
                    word.quoted(b'\\');
                    word.quoted(byte);
                }
            },
            byte => word.quoted(byte),
        }
    }
}

/// A path on a node as somebody wrote it: `~` at its beginning is the home directory, `*`, `?` and `[a-z]` are
/// wildcards, and a backslash takes a character's meaning away. A relative one is below the home directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Takes a pattern; longest in bytes is [`MAX_PATH`].
    pub fn new(pattern: &[u8]) -> Result<Self, FileCommandError> {
        let text = std::str::from_utf8(pattern).map_err(|_| FileCommandError::Path)?;
        if text.len() > MAX_PATH || text.chars().any(char::is_control) {
            return Err(FileCommandError::Path);
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the word of a command line that stands for it.
    pub(super) fn word(&self) -> String {
        let mut word = String::new();
        let mut quoted = false;
        for c in self.0.chars() {
            let plain = c.is_alphanumeric() || "/._-+:,@%=*?[]~^!".contains(c);
            match c {
                '\\' if !quoted => {
                    quoted = true;
                    word.push('\\');
                    continue;
                }
                c if quoted || plain => word.push(c),
                c => word.extend(['\\', c]),
            }
            quoted = false;
        }
        if quoted {
            word.push('\\');
        }
        if word.is_empty() { "''".to_owned() } else { word }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
