//! AWS shared-credentials files: INI with a section per profile. Read by the rules of the AWS tools, within bounds;
//! nothing of their content ever stands in an error (T-83).

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{Credentials, SecretKey};

/// Largest credentials or context file read, bytes.
pub(crate) const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// One profile of a credentials file.
#[derive(Debug)]
pub(crate) struct Profile {
    /// What to sign with.
    pub(crate) credentials: Credentials,
    /// The profile's `region`, if it names one.
    pub(crate) region: Option<String>,
}

/// Why a credentials file gives no credentials. Lines are named, their content is not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CredentialsError {
    /// A line is neither a section, a setting nor a comment.
    #[error("line {line} is neither `[profile]`, `key = value` nor a comment")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A setting stands before the first section.
    #[error("line {line} stands before the first `[profile]`")]
    NoSection {
        /// Counted from 1.
        line: usize,
    },
    /// The profile does not exist.
    #[error("it has no profile `{wanted}` (it has: {known})")]
    NoProfile {
        /// The profile looked for.
        wanted: String,
        /// The profiles there are.
        known: String,
    },
    /// The profile lacks a setting.
    #[error("profile `{profile}` has no `{key}`")]
    Missing {
        /// The profile.
        profile: String,
        /// The key.
        key: &'static str,
    },
}

/// Reads a profile from a file; the error names the file.
pub(crate) fn read(path: &Path, profile: &str) -> anyhow::Result<Profile> {
    let text = Secret::new(read_bounded(path)?);
    parse(text.expose(), profile).with_context(|| format!("cannot take credentials from {}", path.display()))
}

/// Reads a small text file; refuses a large one before reading it.
pub(crate) fn read_bounded(path: &Path) -> anyhow::Result<String> {
    let length = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    if length > MAX_FILE_BYTES {
        bail!("{} has {length} bytes, more than the {MAX_FILE_BYTES} that such a file may have", path.display());
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Finds a profile in the text of a credentials file.
pub(crate) fn parse(text: &str, wanted: &str) -> Result<Profile, CredentialsError> {
    let Sections { settings, known } = sections(text, wanted)?;
    let Some(settings) = settings else {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(CredentialsError::NoProfile { wanted: wanted.to_owned(), known });
    };
    let value = |key: &str| settings.get(key).map(|value| value.expose().clone());
    let needed = |key: &'static str| {
        value(key)
            .filter(|value| !value.is_empty())
            .ok_or(CredentialsError::Missing { profile: wanted.to_owned(), key })
    };
    Ok(Profile {
        credentials: Credentials {
            access_key_id: needed("aws_access_key_id")?,
            secret: SecretKey::new(needed("aws_secret_access_key")?),
            session_token: value("aws_session_token").map(Secret::new),
        },
        region: value("region"),
    })
}

/// Returns all settings of a profile, by their names in lower case; `None` if the text has no such profile.
pub(crate) fn settings(text: &str, wanted: &str) -> Result<Option<Settings>, CredentialsError> {
    sections(text, wanted).map(|sections| sections.settings)
}

/// The settings of a profile.
pub(crate) type Settings = HashMap<String, Secret<String>>;

struct Sections {
    settings: Option<Settings>,
    /// Every profile's name.
    known: Vec<String>,
}

fn sections(text: &str, wanted: &str) -> Result<Sections, CredentialsError> {
    let mut known = Vec::new();
    let mut ours = None;
    let mut settings: Option<Settings> = None;
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let indented = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            let name = name.split(']').next().filter(|_| line.contains(']'));
            let name = name.ok_or(CredentialsError::Line { line: number })?.trim();
            // In a config file the section is called `profile NAME`.
            let name = name.strip_prefix("profile ").unwrap_or(name).trim();
            known.push(name.to_owned());
            ours = Some(name == wanted);
            if name == wanted {
                settings.get_or_insert_default();
            }
            continue;
        }
        let Some(ours) = ours else { return Err(CredentialsError::NoSection { line: number }) };
        let Some((key, value)) = line.split_once('=') else { return Err(CredentialsError::Line { line: number }) };
        // Indented lines belong to a nested setting (`s3 =`), which is none of ours.
        if ours
            && !indented
            && let Some(settings) = &mut settings
        {
            settings.insert(key.trim().to_ascii_lowercase(), Secret::new(value.trim().to_owned()));
        }
    }
    Ok(Sections { settings, known })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# comment\n[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key=s1\n\n\
        [ munjigi ]\r\naws_access_key_id=AKIAMUNJIGI\r\naws_secret_access_key = a=b/c+d\r\nregion = local-1\r\n\
        s3 =\n  region = other\n; more\n[profile third]\naws_access_key_id=\naws_secret_access_key=x\n";

    #[test]
    fn profiles_are_found_with_their_region() {
        let found = parse(FILE, "munjigi").unwrap();
        assert_eq!(found.credentials.access_key_id, "AKIAMUNJIGI");
        assert_eq!(found.credentials.secret.expose(), "a=b/c+d");
        assert_eq!(found.region.as_deref(), Some("local-1"));
        assert_eq!(parse(FILE, "default").unwrap().credentials.secret.expose(), "s1");
    }

    #[test]
    fn malformed_files_are_refused_with_the_place_and_without_the_content() {
        for (text, profile, expected) in [
            ("", "munjigi", "it has no profile `munjigi` (it has: none)"),
            (FILE, "fourth", "it has no profile `fourth` (it has: default, munjigi, third)"),
            (FILE, "third", "profile `third` has no `aws_access_key_id`"),
            ("[a]\naws_access_key_id=X", "a", "profile `a` has no `aws_secret_access_key`"),
            ("aws_access_key_id=TOPSECRET\n", "a", "line 1 stands before the first `[profile]`"),
            ("[a]\nTOPSECRET\n", "a", "line 2 is neither `[profile]`, `key = value` nor a comment"),
            ("[a\nx=y\n", "a", "line 1 is neither `[profile]`, `key = value` nor a comment"),
        ] {
            let error = parse(text, profile).unwrap_err().to_string();
            assert_eq!(error, expected);
            assert!(!error.contains("TOPSECRET"));
        }
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", parse(FILE, "munjigi").unwrap()).contains("a=b/c+d"));
    }

    #[test]
    fn a_quarter_million_mutated_files_do_not_panic() {
        let mut state = 99_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..1 << 18 {
            let mut bytes = FILE.as_bytes()[..(next() % 120) as usize].to_vec();
            for _ in 0..next() % 4 {
                if !bytes.is_empty() {
                    let at = (next() % bytes.len() as u64) as usize;
                    bytes[at] = b"[]=\n #;a\xff"[(next() % 9) as usize];
                }
            }
            let _ = parse(&String::from_utf8_lossy(&bytes), "munjigi");
        }
    }
}
