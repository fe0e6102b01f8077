//! What may stand before a key in a file of an administrator's: the options of `authorized_keys` that narrow what the key
//! is good for, by an allow-list. They are read strictly and written anew, so that sshd gets what was understood here and
//! nothing else.

use super::{PublicKey, PublicKeyError};
use crate::time::Timestamp;

/// Longest options of a key, in bytes.
pub const MAX_OPTIONS: usize = 4096;
/// Longest command in bytes.
const MAX_COMMAND: usize = 1024;
/// Most patterns of addresses.
const MAX_PATTERNS: usize = 64;
/// Options without a value, as sshd writes them (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
const FLAGS: [&str; 6] =
    ["restrict", "no-agent-forwarding", "no-port-forwarding", "no-pty", "no-user-rc", "no-X11-forwarding"];

/// Why what stands before a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyLineError {
    /// The key.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// An option that is not on the list.
    #[error("the option `{0}` is not taken; these are: from, command, restrict, no-…, expiry-time")]
    Unknown(String),
    /// An option stands there twice.
    #[error("the option `{0}` stands there twice")]
    Twice(&'static str),
    /// A value is none.
    #[error("the value of `{0}` is not one that sshd takes")]
    Value(&'static str),
    /// It is too long, or a quotation does not end.
    #[error("the options before the key are too long, or a quotation does not end")]
    Malformed,
}

/// Options of a key; none is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyOptions {
    /// Which of [`FLAGS`] stand there.
    flags: [bool; FLAGS.len()],
    /// Patterns of addresses and names, separated by commas.
    from: Option<String>,
    /// The only command.
    command: Option<String>,
    /// The end, as sshd reads it.
    expiry: Option<String>,
}

/// A key with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    /// What narrows it.
    pub options: KeyOptions,
    /// The key.
    pub key: PublicKey,
}

impl From<PublicKey> for KeyLine {
    fn from(key: PublicKey) -> Self {
        Self { options: KeyOptions::default(), key }
    }
}

impl KeyLine {
    /// Reads a line of an `authorized_keys` file, or a key in any form that [`PublicKey::parse`] reads.
    pub fn parse(line: &str) -> Result<Self, KeyLineError> {
        let line = line.trim_matches([' ', '\t', '\r', '\n']);
        let bare = PublicKey::parse(line);
        let Some(end) = end_of_options(line) else { return Ok(bare?.into()) };
        let (options, key) = line.split_at_checked(end).ok_or(KeyLineError::Malformed)?;
        match (bare, PublicKey::parse(key.trim_start_matches([' ', '\t']))) {
            (Ok(key), _) => Ok(key.into()),
            (Err(_), Ok(key)) => Ok(Self { options: KeyOptions::parse(options)?, key }),
            // What stands first is no option: the first error is the one that helps.
            (Err(error), Err(_)) => Err(error.into()),
        }
    }

    /// Writes the line as sshd takes it, without a comment.
    pub fn line(&self) -> String {
        let options = self.options.to_string();
        if options.is_empty() { self.key.line() } else { format!("{options} {}", self.key.line()) }
    }
}

/// Finds the first blank that is not inside quotes.
fn end_of_options(line: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    line.bytes().position(|byte| {
        let end = !quoted && matches!(byte, b' ' | b'\t');
        (quoted, escaped) = match byte {
            b'"' if !escaped => (!quoted, false),
            b'\\' => (quoted, true),
            _ => (quoted, false),
        };
        end
    })
}

impl KeyOptions {
    /// Reads options as they stand before a key; nothing is no option.
    pub fn parse(text: &str) -> Result<Self, KeyLineError> {
        let mut options = Self::default();
        if text.len() > MAX_OPTIONS {
            return Err(KeyLineError::Malformed);
        }
        let mut rest = text;
        while !rest.is_empty() {
            let name_end = rest.find([',', '=']).unwrap_or(rest.len());
            let (name, behind) = rest.split_at_checked(name_end).ok_or(KeyLineError::Malformed)?;
            let (value, behind) = match behind.strip_prefix('=') {
                Some(quoted) => {
                    let (value, behind) = unquoted(quoted).ok_or(KeyLineError::Malformed)?;
                    (Some(value), behind)
                }
                None => (None, behind),
            };
            options.take(name, value)?;
            rest = match behind.strip_prefix(',') {
                // One behind which nothing comes is none of sshd's.
                Some("") => return Err(KeyLineError::Malformed),
                Some(next) => next,
                None if behind.is_empty() => behind,
                None => return Err(KeyLineError::Malformed),
            };
        }
        Ok(options)
    }

    fn take(&mut self, name: &str, value: Option<String>) -> Result<(), KeyLineError> {
        let shown = || KeyLineError::Unknown(name.chars().take(64).flat_map(char::escape_default).collect());
        let flag = FLAGS.iter().zip(&mut self.flags).find(|(flag, _)| flag.eq_ignore_ascii_case(name));
        if let Some((flag, set)) = flag {
            return match value {
                Some(_) => Err(KeyLineError::Value(flag)),
                None if std::mem::replace(set, true) => Err(KeyLineError::Twice(flag)),
                None => Ok(()),
            };
        }
        type Judge = fn(&str) -> bool;
        let known: [(&'static str, &mut Option<String>, Judge); 3] = [
            ("from", &mut self.from, valid_from),
            ("command", &mut self.command, valid_command),
            ("expiry-time", &mut self.expiry, |text| expiry(text).is_some()),
        ];
        for (known, place, valid) in known {
            if known.eq_ignore_ascii_case(name) {
                let value = value.filter(|value| valid(value)).ok_or(KeyLineError::Value(known))?;
                return match place.replace(value) {
                    Some(_) => Err(KeyLineError::Twice(known)),
                    None => Ok(()),
                };
            }
        }
        Err(shown())
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Writes them in one order, as sshd takes them.
impl std::fmt::Display for KeyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let flags = FLAGS.iter().zip(self.flags).filter(|(_, set)| *set).map(|(flag, _)| (*flag).to_owned());
        let values = [("from", &self.from), ("command", &self.command), ("expiry-time", &self.expiry)];
        let values = values.into_iter().filter_map(|(name, value)| {
            let value = value.as_ref()?.replace('"', "\\\"");
            Some(format!("{name}=\"{value}\""))
        });
        f.write_str(&flags.chain(values).collect::<Vec<_>>().join(","))
    }
}

/// Reads a quoted value; returns it and what stands behind. Inside, `\"` is a quote, as sshd has it, and every other
/// backslash is one.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut value = String::new();
    loop {
        let at = rest.find(['"', '\\'])?;
        let (before, from) = rest.split_at_checked(at)?;
        value.push_str(before);
        if let Some(behind) = from.strip_prefix('"') {
            return Some((value, behind));
        }
        let quote = from.strip_prefix("\\\"");
        value.push(if quote.is_some() { '"' } else { '\\' });
        rest = quote.or_else(|| from.strip_prefix('\\'))?;
    }
}

/// Patterns of host names and addresses; sshd refuses the whole key for one that it cannot read.
fn valid_from(text: &str) -> bool {
    let pattern = |one: &str| {
        let plain = one.strip_prefix('!').unwrap_or(one);
        (1..=128).contains(&plain.len())
            && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b".:*?_-/".contains(&b))
            // With a length of a network it has to be an address.
            && (!plain.contains('/') || plain.parse::<ipnet::IpNet>().is_ok_and(|net| net.trunc() == net))
    };
    text.split(',').count() <= MAX_PATTERNS && text.split(',').all(pattern)
}

/// A backslash before a quote, or at the end, could not be written so that sshd reads it back.
fn valid_command(text: &str) -> bool {
    !text.trim().is_empty()
        && text.len() <= MAX_COMMAND
        && !text.chars().any(char::is_control)
        && !text.contains("\\\"")
        && !text.ends_with('\\')
}

/// Reads `YYYYMMDD`, with `HHMM` or `HHMMSS` and `Z` behind it or not; the instant counts as UTC for judging the form.
fn expiry(text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z').unwrap_or(text);
    if ![8, 12, 14].contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |from: usize, to: usize| digits.get(from..to).filter(|part| !part.is_empty()).unwrap_or("00");
    let iso =
        format!("{}-{}-{}T{}:{}:{}Z", part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 12), part(12, 14));
    Timestamp::parse_iso(&iso)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn options_on_the_list_are_written_in_one_form_and_each_other_is_refused() {
        for (given, wanted) in [
            ("", ""),
            ("restrict", "restrict"),
            ("NO-PTY,restrict", "restrict,no-pty"),
            (r#"command="echo \"a b\"; true",no-x11-forwarding"#, r#"no-X11-forwarding,command="echo \"a b\"; true""#),
            (r#"from="10.0.0.0/8,!10.1.0.1,*.example.com""#, r#"from="10.0.0.0/8,!10.1.0.1,*.example.com""#),
            (r#"expiry-time="20300101",from="::1""#, r#"from="::1",expiry-time="20300101""#),
            (r#"expiry-time="203001012359Z""#, r#"expiry-time="203001012359Z""#),
        ] {
            let line = KeyLine::parse(&format!("{given} {KEY} a comment")).unwrap();
            assert_eq!(line.options.to_string(), wanted, "{given}");
            assert_eq!(line.options.is_empty(), wanted.is_empty());
            let written = line.line();
            assert_eq!(written.trim_start(), format!("{wanted} {KEY}").trim_start());
            assert_eq!(KeyLine::parse(&written).unwrap().options, line.options);
        }
        for (given, wanted) in [
            ("cert-authority", KeyLineError::Unknown("cert-authority".into())),
            (r#"environment="A=b""#, KeyLineError::Unknown("environment".into())),
            (r#"permitopen="a:1""#, KeyLineError::Unknown("permitopen".into())),
            ("pty", KeyLineError::Unknown("pty".into())),
            ("restrict,restrict", KeyLineError::Twice("restrict")),
            (r#"from="a",FROM="b""#, KeyLineError::Twice("from")),
            (r#"restrict="a""#, KeyLineError::Value("restrict")),
            ("command", KeyLineError::Value("command")),
            (r#"command=" ""#, KeyLineError::Value("command")),
            (r#"from="""#, KeyLineError::Value("from")),
            (r#"from="10.0.0.1/8""#, KeyLineError::Value("from")),
            (r#"from="a b""#, KeyLineError::Value("from")),
            (r#"expiry-time="2030""#, KeyLineError::Value("expiry-time")),
            (r#"expiry-time="20301301""#, KeyLineError::Value("expiry-time")),
            ("restrict,", KeyLineError::Malformed),
            (r#"command="a"b"#, KeyLineError::Malformed),
        ] {
            assert_eq!(KeyLine::parse(&format!("{given} {KEY}")).unwrap_err(), wanted, "{given}");
        }
        for bad in ["restrict", r#"command="a"#, "ssh-ed25519 AAAA", "hello world"] {
            assert!(matches!(KeyLine::parse(bad), Err(KeyLineError::Key(_))), "{bad}");
        }
    }

    #[test]
    fn no_line_makes_it_panic_and_what_is_taken_comes_back() {
        let seed = format!(r#"restrict,from="10.0.0.0/8",command="a \"b\"",expiry-time="20300101" {KEY}"#);
        crate::mutate::each(seed.as_bytes(), 0x6f70_7473, |bytes| {
            if let Ok(line) = KeyLine::parse(&String::from_utf8_lossy(bytes)) {
                let again = KeyLine::parse(&line.line()).unwrap();
                assert_eq!((again.options, again.key.blob()), (line.options, line.key.blob()));
            }
        });
    }
}
