//! `munjigi agent`: the node's end. The work is the agent's own; here are its arguments and its words.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use munjigi_agent::{JoinOptions, RunOptions, Status};
use munjigi_core::secret::Secret;

use super::{Finish, print, print_json, wait_for};
use crate::cli::{Format, Output};
use crate::client::children::Upbringing;
use crate::client::text::escaped;

/// Environment variables of an activation; never arguments, which everybody on the machine can read (T-83).
const ACTIVATION_ID: &str = "MUNJIGI_ACTIVATION_ID";
/// See [`ACTIVATION_ID`].
const ACTIVATION_CODE: &str = "MUNJIGI_ACTIVATION_CODE";

/// Join this machine, run its agent, ask how it is, leave
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  MUNJIGI_ACTIVATION_ID=… MUNJIGI_ACTIVATION_CODE=… \\\n    \
    munjigi agent join --server https://gate:8443 --ca ca.pem --data-dir /var/lib/munjigi-agent\n  \
    munjigi agent run --data-dir /var/lib/munjigi-agent")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Enrol this machine with an activation
    #[command(after_help = "The activation comes from `aws ssm create-activation` and is given in the environment:\n\
        MUNJIGI_ACTIVATION_ID and MUNJIGI_ACTIVATION_CODE.\n\n\
        Example: munjigi agent join --server https://gate:8443 --ca ca.pem --data-dir /var/lib/munjigi-agent --tag Role=web")]
    Join {
        /// The server's URL
        #[arg(long, value_name = "URL")]
        server: String,
        /// The server's ca.pem; the only root that will be believed
        #[arg(long, value_name = "FILE")]
        ca: PathBuf,
        /// Where the node's identity goes
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Name to be found by [default: the host's own]
        #[arg(long)]
        name: Option<String>,
        /// A tag; may be repeated
        #[arg(long, value_name = "KEY=VALUE", value_parser = tag)]
        tag: Vec<(String, String)>,
        /// Replace an identity that is there; the old one is kept beside it
        #[arg(long)]
        replace: bool,
        /// Let the server make, lock and remove people's accounts on this node (`manage_accounts` in agent.toml)
        #[arg(long)]
        manage_accounts: bool,
    },
    /// Run the agent until SIGTERM; prints `online mi-…` once connected
    #[command(after_help = "Example: munjigi agent run --data-dir /var/lib/munjigi-agent")]
    Run {
        /// Where the node's identity is
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        #[command(flatten)]
        upbringing: Upbringing,
    },
    /// Say what this machine's agent is and does
    #[command(after_help = "Example: munjigi agent status --data-dir /var/lib/munjigi-agent\n\n\
        The exit status is 0 only if the link to the server stands.")]
    Status {
        /// Where the node's identity is
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Deregister this machine and remove its identity
    #[command(after_help = "Example: munjigi agent leave --data-dir /var/lib/munjigi-agent")]
    Leave {
        /// Where the node's identity is
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// Even if the server cannot be told
        #[arg(long)]
        forget: bool,
    },
    /// The half that talks to the network; started by the agent itself
    #[command(hide = true)]
    LinkHalf,
    /// Reads or writes the files of one copy; started by the agent itself
    #[command(hide = true)]
    CopyWorker,
    /// Listens on the node for a session; started by the agent itself
    #[command(hide = true)]
    Listener,
    /// Makes, changes and removes people's accounts; started by the agent itself
    #[command(hide = true)]
    AccountWorker,
    /// Asks AWS's metadata service for pushed keys; started by the agent itself
    #[command(hide = true)]
    AwsKeyWorker,
}

fn tag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    match arguments.command {
        AgentCommand::Join { server, ca, data_dir, name, tag, replace, manage_accounts } => {
            let (activation_id, activation_code) = activation()?;
            let options = JoinOptions {
                data_dir,
                server,
                ca_file: ca,
                name,
                tags: tag,
                activation_id,
                activation_code,
                replace,
                manage_accounts,
            };
            wait_for(join(options))
        }
        AgentCommand::Run { data_dir, upbringing } => {
            upbringing.apply()?;
            Ok(Finish::Agent(munjigi_agent::run(&RunOptions { data_dir })?))
        }
        AgentCommand::Status { data_dir, output } => status(&munjigi_agent::status(&data_dir)?, output.output),
        AgentCommand::Leave { data_dir, forget } => wait_for(async {
            let node_id = munjigi_agent::leave(&data_dir, forget).await?;
            print(&format!("left {node_id}\n"))?;
            Ok(Finish::Done)
        }),
        AgentCommand::LinkHalf => {
            munjigi_agent::link_half_main()?;
            Ok(Finish::Done)
        }
        AgentCommand::Listener => {
            munjigi_agent::listener_main()?;
            Ok(Finish::Done)
        }
        AgentCommand::AccountWorker => {
            munjigi_agent::account_worker_main()?;
            Ok(Finish::Done)
        }
        AgentCommand::AwsKeyWorker => {
            munjigi_agent::aws_key_worker_main()?;
            Ok(Finish::Done)
        }
        AgentCommand::CopyWorker => {
            munjigi_agent::copy_worker_main()?;
            Ok(Finish::Done)
        }
    }
}

fn activation() -> anyhow::Result<(String, Secret<String>)> {
    let variable = |name: &str| {
        std::env::var(name).ok().filter(|value| !value.is_empty()).with_context(|| {
            format!("{name} is not set; `aws ssm create-activation` gives an activation's id and code")
        })
    };
    Ok((variable(ACTIVATION_ID)?, Secret::new(variable(ACTIVATION_CODE)?)))
}

async fn join(options: JoinOptions) -> anyhow::Result<Finish> {
    let joined = munjigi_agent::join(&options).await?;
    print(&format!("joined {} as {}\n", joined.node_id, escaped(&joined.name)))?;
    for fingerprint in &joined.ca_fingerprints {
        super::note(&format!("server root certificate SHA-256 {fingerprint}: compare it with the server's"));
    }
    super::note(&format!("grant root key {}; it is pinned now", joined.root_fingerprint));
    Ok(Finish::Done)
}

fn status(status: &Status, format: Format) -> anyhow::Result<Finish> {
    match format {
        Format::Json => print_json(status)?,
        Format::Table => print(&text(status))?,
    }
    Ok(if status.online { Finish::Done } else { Finish::Problems })
}

fn text(status: &Status) -> String {
    let state = if status.online { "online" } else { "not connected" };
    let mut text = format!("{} {state}", status.node_id);
    if !status.since.is_empty() {
        text.push_str(&format!(" since {}", escaped(&status.since)));
    }
    if !status.why.is_empty() {
        text.push_str(&format!(": {}", escaped(&status.why)));
    }
    text.push_str(&format!("\n  name    {}\n  server  {}\n", escaped(&status.name), escaped(&status.server)));
    if let Some(process) = status.process_id {
        text.push_str(&format!("  process {process}\n"));
    }
    if !status.only_user.is_empty() {
        text.push_str(&format!("  not root: serves only the user {}\n", escaped(&status.only_user)));
    }
    text
}
