//! `munjigi doctor`: says what is wrong and what to do about it.

use std::path::PathBuf;

use clap::Args;

use super::{Finish, print, print_json, resolve};
use crate::cli::{Format, Output, Where};
use crate::client::doctor;
use crate::client::findings::{Finding, Health};

/// Say what is wrong, and what to do
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi doctor\n  munjigi doctor --agent /var/lib/munjigi-agent\n  \
    munjigi doctor --output json\n\nLooks at the way from here to the server; at the server's data directory if it is on \
    this machine;\nand with --agent at a node's agent. The exit status is 1 when something does not work.")]
pub(crate) struct Arguments {
    /// Also look at the agent with this data directory
    #[arg(long, value_name = "DIR")]
    agent: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = resolve(&arguments.place);
    // On a node there need not be a server that this user knows: then only the agent is looked at.
    let only_agent = arguments.agent.is_some() && context.is_err();
    let data_dir = doctor::local_server(&context);
    let mut findings = Vec::new();
    if !only_agent {
        findings.extend(doctor::client(context).await.list);
    }
    if let Some(dir) = data_dir {
        findings.extend(doctor::server(&dir).list);
    }
    if let Some(dir) = &arguments.agent {
        findings.extend(doctor::agent(dir).list);
    }
    match arguments.output.output {
        Format::Json => print_json(&findings)?,
        Format::Table => print(&findings.iter().map(text).collect::<String>())?,
    }
    let wrong = findings.iter().any(|finding| finding.health == Health::Problem);
    Ok(if wrong { Finish::Problems } else { Finish::Done })
}

fn text(finding: &Finding) -> String {
    let mark = match finding.health {
        Health::Ok => "ok      ",
        Health::Warning => "look    ",
        Health::Problem => "PROBLEM ",
    };
    let mut text = format!("{mark} {} {}: {}\n", finding.role, finding.check, finding.found);
    if !finding.next_step.is_empty() {
        text.push_str(&format!("         -> {}\n", finding.next_step));
    }
    text
}
