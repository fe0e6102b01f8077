//! `munjigi run`: a recorded command on a node, with pipes, standard error apart and its own exit status.

use clap::Args;

use super::shell::{DocumentOptions, SessionOptions, start};
use super::{Finish, resolve};
use crate::cli::Where;

/// Run a recorded command on a node
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi run web-1 -- systemctl is-active nginx\n  \
    tar c dir | munjigi run web-1 -- tar x -C /tmp\n  munjigi run web-1 --document Restart --parameter unit=nginx\n\n\
    The command is started as it is, without a shell: use `sh -c '…'` for pipes and variables on the node.\n\
    The exit status is the command's; 255 if there was none.")]
pub(crate) struct Arguments {
    /// The node: a name, an id, the head of an id, or tag:Key=Value
    node: String,
    #[command(flatten)]
    options: SessionOptions,
    #[command(flatten)]
    document: DocumentOptions,
    /// The command and its arguments
    #[arg(last = true, required_unless_present = "document", value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    start(resolve(&arguments.place)?, arguments.node, arguments.command, &arguments.options, arguments.document).await
}
