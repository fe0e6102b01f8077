//! `munjigi completion`: the shell's completion script.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Finish, print};
use crate::cli::Cli;

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi completion bash > ~/.local/share/bash-completion/completions/munjigi")]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Finish> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "munjigi", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Finish::Done)
}
