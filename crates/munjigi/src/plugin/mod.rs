//! This program as AWS's `session-manager-plugin`: called by that name, with what `aws ssm start-session` hands over.
//!
//! A server of ours is reached over its link (`link_mode`), everything else in AWS's own protocol (`aws`). Nothing of
//! ours goes to standard output but the lines that the original writes there.

mod arguments;
mod aws;
mod credential_process;
mod credentials;
mod link_mode;
mod link_port;
mod local;
mod trust;
mod words;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use url::Url;

pub(crate) use self::arguments::VERSION;
use self::arguments::{Asked, Handover};
use self::link_mode::{Carried, NotPossible};
use crate::client::context::Surroundings;
use crate::command::{Finish, wait_for};

/// The file name by which the AWS command line runs its plugin.
pub(crate) const NAME: &str = "session-manager-plugin";
/// Chooses the protocol.
const MODE_VARIABLE: &str = "MUNJIGI_PLUGIN_MODE";
/// Names below which AWS's own service is; it has no links, and is not asked for one.
const AWS_DOMAINS: [&str; 4] = [".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws"];
/// As the original answers somebody who tries it out.
const PRESENCE: &str =
    "\nThe Session Manager plugin was installed successfully. Use the AWS CLI to start a session.\n\n";
const HELP: &str = "\
This is munjigi under the name session-manager-plugin, which the AWS command line runs:

    aws ssm start-session --target NODE

A server of ours is reached over its link, with the exit status of the remote program; everything else in AWS's own
protocol. MUNJIGI_PLUGIN_MODE=aws keeps to AWS's protocol, MUNJIGI_PLUGIN_MODE=link to the link.

    session-manager-plugin --version    the version it gives to the AWS command line
    munjigi plugin status|remove        whether it is found, and how to get rid of it
";

/// Tells whether the program was called by the plugin's name.
pub(crate) fn is_called(program: Option<&OsStr>) -> bool {
    program.map(Path::new).and_then(Path::file_name) == Some(OsStr::new(NAME))
}

/// Tells whether a URL leads to AWS's own service.
fn is_aws(url: &Url) -> bool {
    AWS_DOMAINS.iter().any(|domain| url.host_str().is_some_and(|host| host.ends_with(domain)))
}

/// Runs as the plugin, with the arguments behind the program's name.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> anyhow::Result<Finish> {
    let arguments = arguments
        .map(|argument| argument.into_string().map_err(|_| anyhow::anyhow!("an argument is no UTF-8")))
        .collect::<Result<Vec<_>, _>>()?;
    let text = match arguments::parse(&arguments, |name| std::env::var(name).ok())? {
        Asked::Session(handover) => return wait_for(session(&handover)),
        Asked::Presence => PRESENCE.to_owned(),
        Asked::Version => format!("{VERSION}\n"),
        Asked::Help => HELP.to_owned(),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")?;
    Ok(Finish::Done)
}

/// Which protocol is wished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The link where it is possible.
    Either,
    Link,
    Aws,
}

impl Mode {
    fn wished(around: &Surroundings) -> anyhow::Result<Self> {
        Ok(match around.variable(MODE_VARIABLE) {
            None => Self::Either,
            Some("link") => Self::Link,
            Some("aws") => Self::Aws,
            Some(other) => bail!("{MODE_VARIABLE} is `{}`, where `link` and `aws` are known", other.escape_debug()),
        })
    }
}

async fn session(handover: &Handover) -> anyhow::Result<Finish> {
    let around = Surroundings::of_process();
    let mode = Mode::wished(&around)?;
    if mode != Mode::Aws {
        match link_mode::run(handover, &around).await? {
            Carried::Over(outcome) => return Ok(Finish::Session(outcome)),
            Carried::Not(NotPossible(why)) if mode == Mode::Link => bail!("there is no link to the server: {why}"),
            Carried::Not(NotPossible(why)) => tracing::info!(%why, "no link; AWS's protocol is used"),
        }
    }
    aws::run(handover, around).await
}

/// A line for the person on standard error; if it cannot be written there is nobody to tell.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "munjigi: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_name_makes_a_plugin_of_the_program() {
        for (program, is) in [
            (Some("session-manager-plugin"), true),
            (Some("/usr/local/bin/session-manager-plugin"), true),
            (Some("munjigi"), false),
            (Some("/session-manager-plugin/munjigi"), false),
            (Some("session-manager-plugin-2"), false),
            (None, false),
        ] {
            assert_eq!(is_called(program.map(OsStr::new)), is, "{program:?}");
        }
    }

    #[test]
    fn awss_service_is_told_by_its_name() {
        for (url, is) in [
            ("https://ssm.ap-northeast-2.amazonaws.com", true),
            ("wss://ssmmessages.cn-north-1.amazonaws.com.cn/v1/x", true),
            ("https://amazonaws.com.example.org", false),
            ("https://gate.example.org:8443", false),
            ("https://127.0.0.1:1", false),
        ] {
            assert_eq!(is_aws(&Url::parse(url).unwrap()), is, "{url}");
        }
    }
}
