//! `munjigi credential-process`: temporary credentials for profiles of AWS programs, from a profile with a long-term key.

use clap::Args;
use serde::Serialize;

use super::{Finish, print, resolve};
use crate::cli::Where;
use crate::client::api::{Api, CallContext as _, QueryService};
use crate::client::context::Surroundings;

/// Print temporary credentials for a profile of aws, boto3 and other AWS programs
#[derive(Debug, Args)]
#[command(
    after_help = "AWS programs run it by themselves when a profile names it, and again before the credentials end:\n\n  \
        [profile ops]\n  \
        credential_process = munjigi credential-process --profile alice --role-arn arn:aws:iam::123456789012:role/ops\n\n\
        It never asks anything: what is missing is an error. Without --role-arn the credentials are the profile's own\n\
        user's, for a while.\n\n\
        Example: munjigi credential-process --profile alice --duration 3600"
)]
pub(crate) struct Arguments {
    /// The role to assume; without one the credentials are of the profile's own user
    #[arg(long, value_name = "ARN")]
    role_arn: Option<String>,
    /// Name of the role session; your user name if not given
    #[arg(long, value_name = "NAME", requires = "role_arn")]
    role_session_name: Option<String>,
    /// External id that the role's trust policy asks for
    #[arg(long, value_name = "ID", requires = "role_arn")]
    external_id: Option<String>,
    /// Source identity that every session made from this one carries on
    #[arg(long, value_name = "NAME", requires = "role_arn")]
    source_identity: Option<String>,
    /// How long the credentials last, in seconds; an hour for roles and 12 hours otherwise
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(900..=129_600))]
    duration: Option<u32>,
    #[command(flatten)]
    place: Where,
}

/// What AWS programs read from a credential process.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Printed<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: &'a str,
    expiration: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let mut api = Api::new(resolve(&arguments.place)?)?;
    let duration = arguments.duration.map(|seconds| seconds.to_string());
    let name = match arguments.role_session_name {
        Some(name) => name,
        None => session_name(Surroundings::of_process().variable("USER").unwrap_or_default()),
    };
    let mut parameters: Vec<(&str, &str)> = Vec::new();
    let operation = match &arguments.role_arn {
        Some(role) => {
            parameters.extend([("RoleArn", role.as_str()), ("RoleSessionName", name.as_str())]);
            parameters.extend(arguments.external_id.as_deref().map(|id| ("ExternalId", id)));
            parameters.extend(arguments.source_identity.as_deref().map(|name| ("SourceIdentity", name)));
            "AssumeRole"
        }
        None => "GetSessionToken",
    };
    parameters.extend(duration.as_deref().map(|seconds| ("DurationSeconds", seconds)));
    let answer = api.query(QueryService::Sts, operation, &parameters).await;
    let answer = answer.doing(api.context(), "cannot get temporary credentials")?;
    let text = |member: &str| answer.text_at(&["Credentials", member]).unwrap_or_default();
    let printed = Printed {
        version: 1,
        access_key_id: text("AccessKeyId"),
        secret_access_key: text("SecretAccessKey"),
        session_token: text("SessionToken"),
        expiration: text("Expiration"),
        account_id: answer.text_at(&["AssumedRoleUser", "Arn"]).and_then(|arn| arn.split(':').nth(4)),
    };
    print(&(serde_json::to_string(&printed)? + "\n"))?;
    Ok(Finish::Done)
}

/// Returns a name for a role session: the person's, as far as its characters may stand there.
fn session_name(user: &str) -> String {
    let name: String = user.chars().filter(|c| c.is_ascii_alphanumeric() || "_+=,.@-".contains(*c)).take(64).collect();
    if name.len() >= 2 { name } else { "munjigi".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_after_the_person_as_far_as_that_is_a_name() {
        for (user, name) in
            [("alice", "alice"), ("", "munjigi"), ("x", "munjigi"), ("김철수", "munjigi"), ("a b/c", "abc")]
        {
            assert_eq!(session_name(user), name);
        }
        assert_eq!(session_name(&"x".repeat(80)).len(), 64);
    }
}
