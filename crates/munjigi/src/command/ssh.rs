//! `munjigi ssh`: SSH over our own link, so that whoever may use the server needs neither key nor password for it.

use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::{Finish, resolve};
use crate::cli::Where;
use crate::client::forward::{PeerEnd, carry};
use crate::client::signals::Signals;
use crate::client::ssh;
use crate::client::stdio::Source;
use crate::client::wish::Outcome;

/// What stands behind a node's name in `ssh_config`.
const HOST_SUFFIX: &str = ".munjigi";

/// Bring an SSH connection to a node, as ssh's ProxyCommand
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  ssh -o ProxyCommand='munjigi ssh --stdio %n' app@web-1\n\n\
    The connection travels over the link that every command of munjigi uses, and the server is its other end: no sshd \
    runs on the node, and the shell is recorded as any. The name before the @ is the OS user; `default` is the one that \
    policy gives.")]
pub(crate) struct Arguments {
    /// Carry one connection to this node as standard input and output; a .munjigi at its end is left out
    #[arg(long, value_name = "NODE", required = true)]
    stdio: String,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let context = Arc::new(resolve(&arguments.place)?);
    let node = arguments.stdio.strip_suffix(HOST_SUFFIX).unwrap_or(&arguments.stdio).to_owned();
    let source = Source::stdin().context("cannot read standard input")?;
    tokio::select! {
        carried = bring(context, node, source) => carried.map(|()| Finish::Done),
        signal = signals.next_ending() => Ok(Finish::Session(Outcome::Interrupted(signal))),
    }
}

async fn bring(context: Arc<crate::client::context::Context>, node: String, source: Source) -> anyhow::Result<()> {
    let mut way = ssh::open(context, node).await?;
    // ssh is there as long as its connection is, and nobody types.
    let carried = carry(source, &mut way.far, PeerEnd::EndsAll).await;
    way.link.close().await;
    Ok(carried?)
}
