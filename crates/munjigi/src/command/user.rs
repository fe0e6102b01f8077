//! `munjigi user`: users, their policies and access keys; a friendly face of the IAM operations.

use std::path::Path;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Finish, looking, note, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::{Api, CallContext as _, CallError, QueryService};
use crate::client::credentials::read_bounded;
use crate::client::table;
use crate::client::xml::Element;

/// Name of the inline policy that `--policy FILE` makes.
const INLINE_POLICY: &str = "munjigi-user";

/// Manage users and their access keys
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi user add alice --policy developers.json --key >> ~/.aws/credentials\n  \
    munjigi user list\n  munjigi user key alice\n  munjigi user rm alice")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user
    #[command(after_help = "Example: munjigi user add alice --policy arn:aws:iam::aws:policy/ReadOnlyAccess --key")]
    Add {
        /// The user's name
        name: String,
        /// A policy: a JSON file, or the ARN of a managed policy; may be repeated for ARNs
        #[arg(long, value_name = "FILE|ARN")]
        policy: Vec<String>,
        /// Make an access key and print it as a profile for ~/.aws/credentials
        #[arg(long)]
        key: bool,
        #[command(flatten)]
        place: Where,
    },
    /// List the users
    #[command(after_help = "Example: munjigi user list --output json")]
    List {
        #[command(flatten)]
        place: Where,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a user with its keys, policies and memberships
    #[command(after_help = "Example: munjigi user rm alice")]
    Rm {
        /// The user's name
        name: String,
        #[command(flatten)]
        place: Where,
    },
    /// Make an access key and print it as a profile for ~/.aws/credentials
    #[command(after_help = "Example: munjigi user key alice >> ~/.aws/credentials")]
    Key {
        /// The user's name
        name: String,
        #[command(flatten)]
        place: Where,
    },
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    match arguments.command {
        UserCommand::Add { name, policy, key, place } => {
            looking(&place, async |api| add(api, &name, &policy, key).await).await
        }
        UserCommand::List { place, output } => looking(&place, async |api| list(api, output.output).await).await,
        UserCommand::Rm { name, place } => looking(&place, async |api| remove(api, &name).await).await,
        UserCommand::Key { name, place } => {
            looking(&place, async |api| {
                print(&new_key(api, &name).await?)?;
                Ok(Finish::Done)
            })
            .await
        }
    }
}

/// Calls an IAM operation about one user.
pub(super) async fn iam(api: &mut Api, operation: &str, parameters: &[(&str, &str)]) -> Result<Element, CallError> {
    api.query(QueryService::Iam, operation, parameters).await
}

async fn add(api: &mut Api, name: &str, policies: &[String], key: bool) -> anyhow::Result<Finish> {
    // Read before anything is made, so that a wrong file leaves nothing behind.
    let mut documents = Vec::new();
    for policy in policies.iter().filter(|policy| !policy.starts_with("arn:")) {
        documents.push(read_bounded(Path::new(policy)).context("cannot read the policy")?);
    }
    iam(api, "CreateUser", &[("UserName", name)]).await.doing(api.context(), "cannot add the user")?;
    for (index, document) in documents.iter().enumerate() {
        let policy_name = if index == 0 { INLINE_POLICY.to_owned() } else { format!("{INLINE_POLICY}-{}", index + 1) };
        let parameters = [("UserName", name), ("PolicyName", &policy_name), ("PolicyDocument", document)];
        iam(api, "PutUserPolicy", &parameters)
            .await
            .doing(api.context(), "the user was added, but the policy was not accepted")?;
    }
    for arn in policies.iter().filter(|policy| policy.starts_with("arn:")) {
        iam(api, "AttachUserPolicy", &[("UserName", name), ("PolicyArn", arn)])
            .await
            .doing(api.context(), "the user was added, but the policy was not attached")?;
    }
    if policies.is_empty() {
        note("the user may do nothing yet; --policy gives a policy, `munjigi policy test` tries one");
    }
    if key {
        print(&new_key(api, name).await?)?;
    }
    Ok(Finish::Done)
}

/// Makes an access key and returns it as a profile of a credentials file.
async fn new_key(api: &mut Api, name: &str) -> anyhow::Result<String> {
    let made =
        iam(api, "CreateAccessKey", &[("UserName", name)]).await.doing(api.context(), "cannot make an access key")?;
    let member = |member| made.text_at(&["AccessKey", member]).context("the server's answer holds no access key");
    Ok(format!(
        "[{name}]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {}\n",
        member("AccessKeyId")?,
        member("SecretAccessKey")?,
        api.context().region
    ))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct User {
    name: String,
    arn: String,
    created: String,
}

async fn list(api: &mut Api, format: Format) -> anyhow::Result<Finish> {
    let text = |user: &Element, member| user.text_at(&[member]).unwrap_or_default().to_owned();
    let users: Vec<User> = listed(api, "ListUsers", &[], "Users")
        .await?
        .iter()
        .map(|user| User { name: text(user, "UserName"), arn: text(user, "Arn"), created: text(user, "CreateDate") })
        .collect();
    match format {
        Format::Json => print_json(&users)?,
        Format::Table => {
            let rows: Vec<_> = users.into_iter().map(|user| vec![user.name, user.arn, user.created]).collect();
            print(&table::render(&["NAME", "ARN", "CREATED"], &rows))?;
        }
    }
    Ok(Finish::Done)
}

/// Collects the members of a list operation over its pages.
async fn listed(
    api: &mut Api,
    operation: &str,
    parameters: &[(&str, &str)],
    list: &str,
) -> anyhow::Result<Vec<Element>> {
    pages(api, operation, parameters, list).await.doing(api.context(), "cannot list")
}

/// As [`listed`], with the server's refusal as such.
pub(super) async fn pages(
    api: &mut Api,
    operation: &str,
    parameters: &[(&str, &str)],
    list: &str,
) -> Result<Vec<Element>, CallError> {
    let mut members = Vec::new();
    let mut marker: Option<String> = None;
    loop {
        let mut all = parameters.to_vec();
        if let Some(marker) = &marker {
            all.push(("Marker", marker));
        }
        let page = iam(api, operation, &all).await?;
        members.extend(page.members(&[list]).cloned());
        let next = page.text_at(&["Marker"]).filter(|next| !next.is_empty()).map(str::to_owned);
        // A marker that does not change would go on for ever.
        if page.text_at(&["IsTruncated"]) != Some("true") || next.is_none() || next == marker {
            return Ok(members);
        }
        marker = next;
    }
}

async fn remove(api: &mut Api, name: &str) -> anyhow::Result<Finish> {
    const DOING: &str = "cannot remove the user";
    let user = ("UserName", name);
    for key in listed(api, "ListAccessKeys", &[user], "AccessKeyMetadata").await? {
        let id = key.text_at(&["AccessKeyId"]).unwrap_or_default();
        iam(api, "DeleteAccessKey", &[user, ("AccessKeyId", id)]).await.doing(api.context(), DOING)?;
    }
    for key in listed(api, "ListSSHPublicKeys", &[user], "SSHPublicKeys").await? {
        let id = key.text_at(&["SSHPublicKeyId"]).unwrap_or_default();
        iam(api, "DeleteSSHPublicKey", &[user, ("SSHPublicKeyId", id)]).await.doing(api.context(), DOING)?;
    }
    for policy in listed(api, "ListUserPolicies", &[user], "PolicyNames").await? {
        iam(api, "DeleteUserPolicy", &[user, ("PolicyName", policy.text())]).await.doing(api.context(), DOING)?;
    }
    for policy in listed(api, "ListAttachedUserPolicies", &[user], "AttachedPolicies").await? {
        let arn = policy.text_at(&["PolicyArn"]).unwrap_or_default();
        iam(api, "DetachUserPolicy", &[user, ("PolicyArn", arn)]).await.doing(api.context(), DOING)?;
    }
    for group in listed(api, "ListGroupsForUser", &[user], "Groups").await? {
        let group = group.text_at(&["GroupName"]).unwrap_or_default();
        iam(api, "RemoveUserFromGroup", &[user, ("GroupName", group)]).await.doing(api.context(), DOING)?;
    }
    iam(api, "DeleteUser", &[user]).await.doing(api.context(), DOING)?;
    Ok(Finish::Done)
}
