//! `rsync --server`: which options a node may be asked for. The list is that of `server_options()` in rsync 3.2 to 3.5
//! without what leads elsewhere, runs something, writes where nobody judges, or takes files away.
//!
//! The call is built anew from what was understood, so that nothing else can travel with it.

use std::fmt;
use std::str::FromStr;

use super::words::{PathPattern, Word, words};
use super::{FileCommandError, MAX_COMMAND, MAX_PATHS};

/// Letters that stand together in the first option.
const LETTERS: &str = "vbunldKmOJLkWHogDtUNpEAXrcCIRxSyz";
/// What follows `e`: which parts of the protocol the client knows.
const CAPABILITIES: &str = ".0123456789iLsfxCIvuV";
/// Options without a value.
const FLAGS: [&str; 34] = [
    "--append",
    "--append-verify",
    "--copy-unsafe-links",
    "--delay-updates",
    "--delete",
    "--delete-after",
    "--delete-before",
    "--delete-delay",
    "--delete-during",
    "--delete-excluded",
    "--delete-missing-args",
    "--dirs",
    "--existing",
    "--force",
    "--fsync",
    "--ignore-errors",
    "--ignore-existing",
    "--ignore-missing-args",
    "--inplace",
    "--list-only",
    "--mkpath",
    "--msgs2stderr",
    "--munge-links",
    "--new-compress",
    "--no-implied-dirs",
    "--no-msgs2stderr",
    "--no-specials",
    "--numeric-ids",
    "--old-compress",
    "--open-noatime",
    "--partial",
    "--preallocate",
    "--safe-links",
    "--size-only",
];
/// Options with a number.
const NUMBERS: [&str; 10] = [
    "--block-size=",
    "--bwlimit=",
    "--checksum-seed=",
    "--compress-level=",
    "--max-alloc=",
    "--max-delete=",
    "--max-size=",
    "--min-size=",
    "--modify-window=",
    "--timeout=",
];
/// Options with a word.
const WORDS: [&str; 7] =
    ["--checksum-choice=", "--compress-choice=", "--debug=", "--info=", "--log-format=", "--out-format=", "--suffix="];
/// Options with a directory, which must stand below the target.
const DIRECTORIES: [&str; 6] =
    ["--backup-dir", "--compare-dest", "--copy-dest", "--link-dest", "--partial-dir", "--temp-dir"];

/// A call of `rsync` by another `rsync`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RsyncCall {
    sends: bool,
    /// Without `--server` and `--sender`.
    options: Vec<String>,
    /// The target, or the sources.
    paths: Vec<PathPattern>,
}

impl RsyncCall {
    /// Reads the arguments, the first of which is `--server`.
    pub(super) fn parse(arguments: &[Word]) -> Result<Self, FileCommandError> {
        let mut call = Self { sends: false, options: Vec::new(), paths: Vec::new() };
        let mut rest = arguments.iter().skip(1);
        while let Some(word) = rest.next() {
            let text = String::from_utf8_lossy(word.text()).into_owned();
            match text.as_str() {
                "--sender" => call.sends = true,
                // Where the options end; the client always writes it.
                "." => {
                    call.paths = rest.map(Word::path).collect::<Result<_, _>>()?;
                    break;
                }
                "-s" | "--secluded-args" | "--protect-args" => return Err(FileCommandError::Secluded),
                name if DIRECTORIES.contains(&name) => {
                    let value = rest.next().map(|word| String::from_utf8_lossy(word.text()).into_owned());
                    let value = value.filter(|value| is_below(value)).ok_or_else(|| refused(name))?;
                    call.options.extend([text, value]);
                }
                option if is_taken(option) => call.options.push(text),
                option => return Err(refused(option)),
            }
        }
        if call.letters().contains('s') {
            return Err(FileCommandError::Secluded);
        }
        if call.sends && call.letters().contains('R') {
            return Err(FileCommandError::Relative);
        }
        let most = if call.sends { MAX_PATHS } else { 1 };
        if call.paths.is_empty() || call.paths.len() > most {
            return Err(FileCommandError::Paths("rsync"));
        }
        Ok(call)
    }

    /// Tells whether the node sends; it receives otherwise.
    pub fn sends(&self) -> bool {
        self.sends
    }

    /// Returns the options, without `--server` and `--sender`.
    pub fn options(&self) -> &[String] {
        &self.options
    }

    /// Returns the target, or the sources.
    pub fn paths(&self) -> &[PathPattern] {
        &self.paths
    }

    /// Tells whether what is read or written may lie anywhere, because symbolic links are followed.
    pub fn follows_links(&self) -> bool {
        let letters = self.letters();
        let has = |name: &str| self.options.iter().any(|option| option == name);
        (self.sends && letters.contains(['L', 'k']))
            || (!self.sends && letters.contains('K'))
            || has("--copy-unsafe-links")
            // Links in the target that stand for implied directories are kept, and gone through (rsync(1)).
            || (!self.sends && has("--no-implied-dirs"))
    }

    /// Returns the directories that options name beside the target, relative to where rsync works: the target, or where
    /// that stands if it is no directory.
    pub fn directories(&self) -> impl Iterator<Item = &str> {
        let named = |option: &str| DIRECTORIES.contains(&option);
        let apart = self.options.iter().zip(self.options.iter().skip(1));
        let apart = apart.filter(move |(option, _)| named(option)).map(|(_, value)| value.as_str());
        let joined = self.options.iter().filter_map(|option| option.split_once('='));
        apart.chain(joined.filter(move |(option, _)| named(option)).map(|(_, value)| value))
    }

    /// Returns the letters before the capabilities.
    fn letters(&self) -> &str {
        let letters = self.options.iter().filter_map(|option| option.strip_prefix('-'));
        let mut letters = letters.filter(|rest| !rest.starts_with('-') && !rest.starts_with('B'));
        letters.next().map_or("", |letters| letters.split('e').next().unwrap_or_default())
    }
}

fn refused(option: &str) -> FileCommandError {
    FileCommandError::Option { program: "rsync", option: option.chars().take(200).collect() }
}

fn is_taken(option: &str) -> bool {
    if FLAGS.contains(&option) {
        return true;
    }
    let value = |names: &[&str]| names.iter().find_map(|name| option.strip_prefix(name)).map(str::to_owned);
    let made_of = |value: &str, more: &str| value.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c));
    if let Some(value) = value(&NUMBERS) {
        return !value.is_empty() && made_of(&value, ".-+");
    }
    if let Some(value) = value(&WORDS) {
        return made_of(&value, ",%._~:+- ");
    }
    if let Some(value) = DIRECTORIES.iter().find_map(|name| option.strip_prefix(name)?.strip_prefix('=')) {
        return is_below(value);
    }
    if let Some(size) = option.strip_prefix("-B") {
        return !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
    }
    let Some(letters) = option.strip_prefix('-').filter(|letters| !letters.starts_with('-')) else { return false };
    let (letters, capabilities) = letters.split_once('e').unwrap_or((letters, ""));
    letters.chars().all(|c| LETTERS.contains(c) || c == 's') && capabilities.chars().all(|c| CAPABILITIES.contains(c))
}

/// Tells whether a path stays below the directory that it begins in.
fn is_below(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= 1024
        && !path.starts_with('/')
        && !path.chars().any(char::is_control)
        && path.split('/').all(|name| name != "..")
}

/// As a command line; [`FromStr`] reads it.
impl fmt::Display for RsyncCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("--server")?;
        if self.sends {
            f.write_str(" --sender")?;
        }
        for option in &self.options {
            write!(f, " '{}'", option.replace('\'', "'\\''"))?;
        }
        f.write_str(" .")?;
        self.paths.iter().try_for_each(|path| write!(f, " {}", path.word()))
    }
}

impl FromStr for RsyncCall {
    type Err = FileCommandError;

    fn from_str(text: &str) -> Result<Self, FileCommandError> {
        let not_one = || refused(text);
        if text.len() > MAX_COMMAND {
            return Err(not_one());
        }
        let words = words(text.as_bytes()).map_err(|_| not_one())?;
        match words.first() {
            Some(word) if word.text() == b"--server" => Self::parse(&words),
            _ => Err(not_one()),
        }
    }
}
