//! `munjigi env`: the variables with which `aws`, boto3 and this program find the server.

use clap::Args;

use super::{Finish, print, resolve};
use crate::cli::Where;
use crate::client::context::Context;
use crate::client::text::shell_quoted;

/// Print `export` lines for aws, boto3 and other AWS programs
#[derive(Debug, Args)]
#[command(after_help = "Example: eval \"$(munjigi env)\"; aws sts get-caller-identity")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    print(&lines(&resolve(&arguments.place)?)?)?;
    Ok(Finish::Done)
}

fn lines(context: &Context) -> anyhow::Result<String> {
    let file = context.to_file()?;
    let (ca_file, credentials_file) = (file.ca_file.to_string_lossy(), file.credentials_file.to_string_lossy());
    let variables = [
        ("AWS_ENDPOINT_URL", context.endpoint_text()),
        ("AWS_CA_BUNDLE", &ca_file),
        ("SSL_CERT_FILE", &ca_file),
        ("AWS_SHARED_CREDENTIALS_FILE", &credentials_file),
        ("AWS_PROFILE", &context.profile),
        ("AWS_REGION", &context.region),
        // Version 1 of `aws` and older boto3 look for it here when the profile is not used.
        ("AWS_DEFAULT_REGION", &context.region),
    ];
    Ok(variables.map(|(name, value)| format!("export {name}={}\n", shell_quoted(value))).concat())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::client::context::{Surroundings, Wishes, resolve};

    #[test]
    fn every_variable_of_the_contract_is_exported_and_quoted() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("it's here");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("endpoint"), "https://127.0.0.1:4443\n").unwrap();
        fs::write(dir.join("admin.credentials"), "[munjigi]\naws_access_key_id=K\naws_secret_access_key=secret\n")
            .unwrap();
        let wishes = Wishes { data_dir: Some(dir), profile: None };
        let text = lines(&resolve(&wishes, &Surroundings::default()).unwrap()).unwrap();
        let names: Vec<&str> =
            text.lines().map(|line| line.strip_prefix("export ").unwrap().split('=').next().unwrap()).collect();
        assert_eq!(
            names,
            [
                "AWS_ENDPOINT_URL",
                "AWS_CA_BUNDLE",
                "SSL_CERT_FILE",
                "AWS_SHARED_CREDENTIALS_FILE",
                "AWS_PROFILE",
                "AWS_REGION",
                "AWS_DEFAULT_REGION"
            ]
        );
        assert!(text.contains("it'\\''s here/ca.pem'") && text.contains("AWS_PROFILE=munjigi\n"), "{text}");
        assert!(!text.contains("secret\n"), "{text}");
    }
}
