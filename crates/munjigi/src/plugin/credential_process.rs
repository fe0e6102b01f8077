//! `credential_process` of a profile: a program that prints credentials as JSON, run without a shell.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{Credentials, SecretKey};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

/// How long the program may take; it may ask a server.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest answer, bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// What the program prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    version: u32,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Runs a profile's program and reads what it prints. Its words on standard error are for the person, and go there.
pub(crate) async fn run(command: &str, profile: &str) -> anyhow::Result<Credentials> {
    let words =
        split(command).with_context(|| format!("the credential_process of profile `{profile}` is not usable"))?;
    let Some((program, arguments)) = words.split_first() else {
        bail!("the credential_process of profile `{profile}` is empty");
    };
    let mut started = Command::new(program);
    started.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    // The answer to StartSession holds a token, which is none of its business.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_SSM_START_SESSION_RESPONSE"))
    {
        started.env_remove(name);
    }
    let work = async {
        let mut child = started.spawn().with_context(|| format!("cannot run `{program}`"))?;
        let mut printed = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER_BYTES + 1).read_to_end(&mut printed).await.context("cannot read its answer")?;
        }
        if printed.len() as u64 > MAX_ANSWER_BYTES {
            bail!("its answer has more than {MAX_ANSWER_BYTES} bytes");
        }
        let printed = Secret::new(printed);
        let status = child.wait().await.context("cannot wait for its end")?;
        if !status.success() {
            bail!("`{program}` ended with {status}");
        }
        read(printed.expose())
    };
    tokio::time::timeout(LIMIT, work)
        .await
        .unwrap_or_else(|_| bail!("`{program}` did not end within {} s", LIMIT.as_secs()))
        .with_context(|| format!("the credential_process of profile `{profile}` gave no credentials"))
}

fn read(printed: &[u8]) -> anyhow::Result<Credentials> {
    // Not serde's words: they may quote a secret.
    let Ok(answer) = serde_json::from_slice::<Answer>(printed) else {
        bail!("what it printed is not the JSON with Version, AccessKeyId and SecretAccessKey");
    };
    if answer.version != 1 {
        bail!("its answer has version {}, where 1 is known", answer.version);
    }
    Ok(Credentials {
        access_key_id: answer.access_key_id,
        secret: SecretKey::new(answer.secret_access_key),
        session_token: answer.session_token.filter(|token| !token.is_empty()).map(Secret::new),
    })
}

/// Splits a command line into words as the AWS tools do on Unix: blanks part, quotes and backslashes keep together.
fn split(text: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(characters.next().context("it ends in a backslash")?),
            quote @ ('\'' | '"') => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().context("a quote is not closed")? {
                        end if end == quote => break,
                        '\\' if quote == '"' => match characters.next().context("a quote is not closed")? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        inside => word.push(inside),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_split_as_a_shell_would() {
        for (text, words) in [
            ("a b  c", vec!["a", "b", "c"]),
            (r#"'/my tools/x' "a \" b" c\ d"#, vec!["/my tools/x", "a \" b", "c d"]),
            (r#"a'b'"c" '' "#, vec!["abc", ""]),
            (r#""a\n""#, vec!["a\\n"]),
            ("", vec![]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text}");
        }
        for text in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn bad_programs_end_in_an_error_that_shows_no_secret() {
        for (command, words) in [
            ("", "is empty"),
            ("/nonexistent/program", "cannot run"),
            ("false", "ended with exit status: 1"),
            ("echo topsecret", "is not the JSON"),
            (r#"echo '{"Version":2,"AccessKeyId":"topsecret","SecretAccessKey":"topsecret"}'"#, "version 2"),
            (r#"echo '{"Version":1,"AccessKeyId":"topsecret"}'"#, "is not the JSON"),
            ("head -c 100000 /dev/zero", "more than"),
        ] {
            let said = format!("{:#}", run(command, "p").await.unwrap_err());
            assert!(said.contains(words) && !said.replace(command, "").contains("topsecret"), "{command}: {said}");
        }
    }
}
