//! `munjigi approve`: lets an SSH login in that waits for somebody, as the person who runs this.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::{Finish, note, resolve};
use crate::cli::Where;
use crate::client::api::{Api, CallContext as _};
use crate::client::api_types::Ignored;
use crate::client::terminal;

/// Let an SSH login in that waits for you
#[derive(Debug, Args)]
#[command(
    after_help = "`ssh` shows the code when it has no key that is known. The login becomes yours: let it in only if\n\
    it was you who started it, just now.\n\n\
    Example: munjigi approve ABCD-EFGH"
)]
pub(crate) struct Arguments {
    /// The code that `ssh` shows
    code: String,
    /// Send the login away instead
    #[arg(long)]
    deny: bool,
    /// Do not ask whether the login is yours
    #[arg(long, short)]
    yes: bool,
    /// Ask for a code of your MFA device, or read it from standard input
    #[arg(long, conflicts_with = "deny")]
    mfa: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described<'a> {
    code: &'a str,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    login: Login,
    principal: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    node: Option<String>,
    os_user: Option<String>,
    source_address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    code: &'a str,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_code: Option<String>,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let Arguments { code, deny, yes, mfa, place } = arguments;
    let mut api = Api::new(resolve(&place)?)?;
    let found: Description = api
        .munjigi("DescribeSshLogin", &Described { code: &code })
        .await
        .doing(api.context(), "cannot look at the login")?;
    let shown = shown(&found);
    note(&shown);
    if !deny && !yes && !confirmed()? {
        bail!("the login was neither let in nor sent away; `munjigi approve --deny {code}` sends it away");
    }
    let token_code = match mfa {
        true if terminal::stdin_is_terminal() => Some(terminal::ask_hidden("MFA code: ")),
        true => Some(terminal::read_line()),
        false => None,
    };
    let token_code = token_code.transpose().context("cannot read the MFA code")?;
    let decision = if deny { "Deny" } else { "Approve" };
    let _: Ignored = api
        .munjigi("ApproveSshLogin", &Answer { code: &code, decision, token_code })
        .await
        .doing(api.context(), "cannot answer the login")?;
    note(if deny { "sent away" } else { "let in" });
    Ok(Finish::Done)
}

/// Says what there is to approve. What a stranger wrote into a login name is shown without what moves a terminal.
fn shown(found: &Description) -> String {
    let Description { login, principal } = found;
    let plain = |text: &Option<String>, absent: &str| match text {
        Some(text) => text.escape_debug().to_string(),
        None => absent.to_owned(),
    };
    format!(
        "an SSH login from {} to {} as {}; it becomes {principal}",
        login.source_address,
        plain(&login.node, "no node (a jump)"),
        plain(&login.os_user, "your usual OS user"),
    )
}

fn confirmed() -> anyhow::Result<bool> {
    if !terminal::stdin_is_terminal() {
        bail!("there is no terminal to ask on; say --yes if it was you who started the login");
    }
    let mut err = std::io::stderr().lock();
    err.write_all(b"Did you start it, just now? [y/N] ").and_then(|()| err.flush()).context("cannot ask")?;
    drop(err);
    let answer = terminal::read_line().context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_wrote_moves_no_terminal() {
        let text =
            r#"{"Login":{"Node":"web\u001b[2J-1","SourceAddress":"192.0.2.7"},"Principal":"arn:aws:iam::1:user/a"}"#;
        let shown = shown(&serde_json::from_str(text).unwrap());
        assert!(!shown.contains('\u{1b}') && shown.contains("your usual OS user"), "{shown}");
    }
}
