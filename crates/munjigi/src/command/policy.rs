//! `munjigi policy test`: runs decision cases against the policy engine, without a server.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use munjigi_core::policy::cases::{self, CaseOutcome};

use super::{Finish, print, print_json};
use crate::cli::{Format, Output};
use crate::client::text::escaped;

/// Test policies before they are attached
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi policy test cases.json")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Run decision cases: policies, a request, and the answer that is expected
    #[command(after_help = "Example: munjigi policy test cases.json --output json\n\n\
        The file is {\"format\": {\"version\": 1}, \"cases\": [{\"name\", \"policies\", \"request\", \"expect\"}]}.\n\
        The exit status is 0 only if every case gets its expected answer.")]
    Test {
        /// The file with cases
        file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    let PolicyCommand::Test { file, output } = &arguments.command;
    let length = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
    if length > cases::LONGEST_FILE as u64 {
        bail!("{} has {length} bytes, more than {}", file.display(), cases::LONGEST_FILE);
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let outcomes = cases::run(&text).with_context(|| format!("cannot run the cases in {}", file.display()))?;
    match output.output {
        Format::Json => print_json(&outcomes)?,
        Format::Table => print(&report(&outcomes))?,
    }
    Ok(if outcomes.iter().all(CaseOutcome::passed) { Finish::Done } else { Finish::Problems })
}

fn report(outcomes: &[CaseOutcome]) -> String {
    let mut text = String::new();
    let failed: Vec<_> = outcomes.iter().filter(|outcome| !outcome.passed()).collect();
    for outcome in &failed {
        text.push_str(&format!(
            "FAILED  {}: expected {}, decided {}: {}\n",
            escaped(&outcome.name),
            outcome.expected.as_str(),
            outcome.decision.effect.as_str(),
            escaped(&outcome.reason)
        ));
        for statement in &outcome.decision.statements {
            text.push_str(&format!(
                "        decided by {} statement {} (line {})\n",
                escaped(&statement.policy_id),
                statement.sid.as_deref().map_or_else(|| statement.index.to_string(), escaped),
                statement.start.line
            ));
        }
        if let Some(why) = &outcome.why {
            text.push_str(&format!("        the case says: {}\n", escaped(why)));
        }
    }
    let (all, failed) = (outcomes.len(), failed.len());
    text.push_str(&format!("{all} cases, {} passed, {failed} failed\n", all - failed));
    text
}
