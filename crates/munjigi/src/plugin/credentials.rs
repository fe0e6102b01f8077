//! Credentials for the plugin's own calls: those of the profile with which `aws ssm start-session` was called, found
//! by the rules of the AWS tools.
//!
//! Keys in variables and files, and programs named by `credential_process`. What needs calls of its own (roles by
//! `role_arn`, single sign-on) is named as such: a `credential_process` serves it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use munjigi_core::secret::Secret;
use munjigi_core::sigv4::{Credentials, SecretKey};

use super::credential_process;
use crate::client::context::Surroundings;
use crate::client::credentials::{read_bounded, settings};

/// Settings by which a profile's credentials come from calls that this program does not make.
const ELSEWHERE: [&str; 6] =
    ["role_arn", "sso_session", "sso_start_url", "web_identity_token_file", "login_session", "source_profile"];

/// Finds the credentials of a profile; `None` is the one of the environment.
pub(crate) async fn find(profile: Option<&str>, around: &Surroundings) -> anyhow::Result<Credentials> {
    // As in the AWS tools: a profile asked for by flag wins over keys in variables, which win over files.
    let in_variables = around.variable("AWS_ACCESS_KEY_ID").zip(around.variable("AWS_SECRET_ACCESS_KEY"));
    if let (None, Some((key_id, secret))) = (profile, in_variables) {
        return Ok(Credentials {
            access_key_id: key_id.to_owned(),
            secret: SecretKey::new(secret.to_owned()),
            session_token: around.variable("AWS_SESSION_TOKEN").map(|token| Secret::new(token.to_owned())),
        });
    }
    let of_environment = || around.variable("AWS_PROFILE").or_else(|| around.variable("AWS_DEFAULT_PROFILE"));
    let profile = profile.or_else(of_environment).unwrap_or("default");
    let mut found = false;
    let mut elsewhere = None;
    for file in files(around) {
        if !file.exists() {
            continue;
        }
        let text = Secret::new(read_bounded(&file)?);
        let settings = settings(text.expose(), profile)
            .with_context(|| format!("cannot take credentials from {}", file.display()))?;
        let Some(settings) = settings else { continue };
        found = true;
        if let Some(credentials) = keys(&settings) {
            return Ok(credentials);
        }
        if let Some(command) = settings.get("credential_process") {
            return credential_process::run(command.expose(), profile).await;
        }
        elsewhere = elsewhere.or_else(|| ELSEWHERE.into_iter().find(|name| settings.contains_key(*name)));
    }
    match (elsewhere, found) {
        (Some(setting), _) => bail!(
            "profile `{profile}` has its credentials by `{setting}`, which this program does not resolve; a profile \
             with a credential_process serves it"
        ),
        (None, true) => bail!("profile `{profile}` has neither an access key nor a credential_process"),
        (None, false) => bail!("no credentials are known: there is no profile `{profile}`"),
    }
}

/// The credentials file first, then the configuration file.
fn files(around: &Surroundings) -> Vec<PathBuf> {
    let in_home = |name: &str| around.variable("HOME").map(|home| Path::new(home).join(".aws").join(name));
    let file = |variable: &str, name: &str| around.variable(variable).map(PathBuf::from).or_else(|| in_home(name));
    [file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), file("AWS_CONFIG_FILE", "config")]
        .into_iter()
        .flatten()
        .collect()
}

fn keys(settings: &HashMap<String, Secret<String>>) -> Option<Credentials> {
    let text = |name: &str| settings.get(name).map(|value| value.expose().clone()).filter(|value| !value.is_empty());
    Some(Credentials {
        access_key_id: text("aws_access_key_id")?,
        secret: SecretKey::new(text("aws_secret_access_key")?),
        session_token: text("aws_session_token").map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PROCESS: &str = r#"sh -c 'printf "{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"s\",\"SessionToken\":\"t\"}" "made-by-$0"' "a b""#;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(".aws")).unwrap();
        let credentials = "[default]\naws_access_key_id=D\naws_secret_access_key=s\n[both]\naws_access_key_id=B\n\
            aws_secret_access_key=s\naws_session_token=tok\n";
        let config = format!(
            "[profile both]\naws_access_key_id=C\naws_secret_access_key=s\nregion=x\n[profile made]\n\
             credential_process = {PROCESS}\n[profile role]\nrole_arn=arn:aws:iam::1:role/r\nsource_profile=both\n\
             [profile empty]\nregion=x\n"
        );
        fs::write(home.path().join(".aws/credentials"), credentials).unwrap();
        fs::write(home.path().join(".aws/config"), config).unwrap();
        home
    }

    async fn found(home: &Path, profile: Option<&str>, more: &[(&str, &str)]) -> Result<String, String> {
        let mut variables: HashMap<String, String> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        variables.insert("HOME".to_owned(), home.to_string_lossy().into_owned());
        let credentials = find(profile, &Surroundings { variables }).await.map_err(|error| format!("{error:#}"))?;
        let token = credentials.session_token.map(|token| format!("+{}", token.expose())).unwrap_or_default();
        Ok(credentials.access_key_id + &token)
    }

    #[tokio::test]
    async fn the_order_is_that_of_the_aws_tools() {
        let home = home();
        let home = home.path();
        let keys = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "s")];
        assert_eq!(found(home, None, &[]).await.unwrap(), "D");
        assert_eq!(found(home, None, &keys).await.unwrap(), "E");
        assert_eq!(found(home, Some("both"), &keys).await.unwrap(), "B+tok");
        assert_eq!(found(home, None, &[("AWS_PROFILE", "both")]).await.unwrap(), "B+tok");
        assert_eq!(found(home, None, &[("AWS_DEFAULT_PROFILE", "both")]).await.unwrap(), "B+tok");
        assert_eq!(found(home, Some("made"), &[]).await.unwrap(), "made-by-a b+t");
        let elsewhere = home.join("elsewhere");
        fs::write(&elsewhere, "[default]\naws_access_key_id=X\naws_secret_access_key=s\n").unwrap();
        let variable = [("AWS_SHARED_CREDENTIALS_FILE", elsewhere.to_str().unwrap())];
        assert_eq!(found(home, None, &variable).await.unwrap(), "X");
        assert_eq!(found(home, Some("both"), &variable).await.unwrap(), "C");
    }

    #[tokio::test]
    async fn what_gives_no_credentials_is_named() {
        let home = home();
        let home = home.path();
        for (profile, words) in [
            ("role", "by `role_arn`"),
            ("empty", "neither an access key nor a credential_process"),
            ("nobody", "there is no profile `nobody`"),
        ] {
            let said = found(home, Some(profile), &[]).await.unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
