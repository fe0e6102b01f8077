//! `munjigi explain`: what a policy decision would be, and which statements decide.

use clap::Args;

use super::{Finish, looking, print, print_json};
use crate::cli::{Format, Output, Where};
use crate::client::api::CallContext as _;
use crate::client::api_types::{ContextEntry, Explain, Explanation};
use crate::client::text::escaped;

/// Explain whether somebody may do something, and why
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi explain --principal alice --action ssm:StartSession --resource '*' \\\n  \
    --context aws:SourceIp=10.0.0.1\n\nThe exit status is 0 if it is allowed and 1 if not.")]
pub(crate) struct Arguments {
    /// User name or ARN
    #[arg(long, value_name = "WHO")]
    principal: String,
    /// For example ssm:StartSession
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// ARN of the resource, or *
    #[arg(long, value_name = "ARN")]
    resource: String,
    /// A condition key and its value; may be repeated, also for several values of one key
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    looking(&arguments.place, async |api| {
        let request = Explain {
            principal: arguments.principal.clone(),
            action: arguments.action.clone(),
            resource: arguments.resource.clone(),
            context: grouped(&arguments.context),
        };
        let explanation: Explanation =
            api.munjigi("Explain", &request).await.doing(api.context(), "cannot explain the decision")?;
        match arguments.output.output {
            Format::Json => print_json(&explanation)?,
            Format::Table => print(&text(&explanation))?,
        }
        Ok(if explanation.allowed { Finish::Done } else { Finish::Problems })
    })
    .await
}

fn grouped(pairs: &[(String, String)]) -> Vec<ContextEntry> {
    let mut entries: Vec<ContextEntry> = Vec::new();
    for (key, value) in pairs {
        match entries.iter_mut().find(|entry| entry.key.eq_ignore_ascii_case(key)) {
            Some(entry) => entry.values.push(value.clone()),
            None => entries.push(ContextEntry { key: key.clone(), values: vec![value.clone()] }),
        }
    }
    entries
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::from(if explanation.allowed { "allowed" } else { "denied" });
    if !explanation.code.is_empty() {
        text.push_str(&format!(" ({})", escaped(&explanation.code)));
    }
    if !explanation.reason.is_empty() {
        text.push_str(&format!(": {}", escaped(&explanation.reason)));
    }
    text.push('\n');
    for statement in &explanation.statements {
        let name = statement.sid.clone().unwrap_or_else(|| format!("number {}", statement.index + 1));
        text.push_str(&format!(
            "  decided by {} policy {}, statement {}, line {}\n",
            escaped(&statement.policy_kind),
            escaped(&statement.policy),
            escaped(&name),
            statement.line
        ));
    }
    if !explanation.missing_context_keys.is_empty() {
        let keys = explanation.missing_context_keys.join(", ");
        text.push_str(&format!("  not given, but asked for by statements: {} (add --context)\n", escaped(&keys)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_key_are_gathered() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let entries = grouped(&[pair("aws:TagKeys", "a"), pair("aws:SourceIp", "10.0.0.1"), pair("aws:tagkeys", "b")]);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].values, ["a", "b"]);
    }
}
