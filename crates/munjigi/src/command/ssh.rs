//! `munjigi ssh`: the system's ssh over our own link, so that whoever may use the server needs neither key nor password.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use munjigi_core::ssh::login_name::{HOST_SUFFIX, PASSTHROUGH_SUFFIX};

use super::{Finish, note, resolve, wait_for};
use crate::cli::Where;
use crate::client::context::{Context, Surroundings};
use crate::client::forward::{PeerEnd, carry};
use crate::client::signals::Signals;
use crate::client::ssh;
use crate::client::ssh_config::{self, FarEnd, Files};
use crate::client::stdio::Source;
use crate::client::wish::Outcome;

/// Run the system's ssh to a node, over the link that every command here uses
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi ssh web-1\n  munjigi ssh app@web-1 'tail -f /var/log/app.log'\n  \
    munjigi ssh -N -L 5432:db.internal:5432 web-1\n  \
    munjigi ssh --passthrough root@web-1\n  \
    ssh -o ProxyCommand='munjigi ssh --stdio %n' app@web-1\n\n\
    Everything behind these options is ssh's own; put its -v behind `--`. The name before the @ is the OS user; without one, or \
    with `default`, it is the one that policy gives. The server is the other end of the connection: no sshd runs on the \
    node, and the shell is recorded as any.\n\n\
    With --passthrough the node's own sshd is the other end: users, keys and everything else are its own, and nothing can be \
    recorded but that you were there. It needs the right to munjigi:OpenSshPassthrough. Without a name before the @ you are \
    who you are here. The node's host key is known from its agent, or by the certificate that `munjigi sshd install` gives it.\n\n\
    `munjigi ssh-config` makes `ssh NODE.munjigi`, scp, rsync, git and editors work \
    the same way.")]
pub(crate) struct Arguments {
    /// Carry one connection to this node as standard input and output, as ssh's ProxyCommand; a .munjigi at its end is left out
    #[arg(long, value_name = "NODE")]
    stdio: Option<String>,
    /// Lead through to the node's own sshd: encrypted to there, audited, but not recorded
    #[arg(long)]
    passthrough: bool,
    /// Keep this file of ssh's as it should be: the keys that vouch for hosts
    #[arg(long, value_name = "FILE", requires = "stdio")]
    known_hosts: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    /// What ssh gets: options, [OSUSER@]NODE, and a command
    #[arg(
        value_name = "SSH-ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required_unless_present = "stdio",
        conflicts_with = "stdio"
    )]
    arguments: Vec<OsString>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let far_end = if arguments.passthrough { FarEnd::OwnSshd } else { FarEnd::Server };
    match &arguments.stdio {
        Some(host) => wait_for(bring(&arguments.place, host, far_end, arguments.known_hosts.as_deref())),
        None => become_ssh(&arguments.place, far_end, &arguments.arguments),
    }
}

/// Is ssh from now on.
fn become_ssh(place: &Where, far_end: FarEnd, arguments: &[OsString]) -> anyhow::Result<Finish> {
    let files = Files::find(&Surroundings::of_process())?;
    let config = ssh_config::for_a_run(&ssh_config::settings(place, &files, far_end)?, far_end);
    let path = files.config_of(&config);
    ssh_config::write(&path, &config)?;
    let error = Command::new("ssh").arg("-F").arg(&path).args(arguments).exec();
    Err(error).context("cannot run ssh; install OpenSSH's client, or use `munjigi shell`")
}

/// Carries one connection.
async fn bring(place: &Where, host: &str, far_end: FarEnd, known_hosts: Option<&Path>) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let context = Arc::new(resolve(place)?);
    let node = host.strip_suffix(HOST_SUFFIX).unwrap_or(host);
    let node = match far_end {
        FarEnd::Server => node.to_owned(),
        FarEnd::OwnSshd => {
            // The name is part of that of ssh's file.
            anyhow::ensure!(!node.contains('/'), "name the node by name or id: {node} cannot be a host of ssh's");
            format!("{}{PASSTHROUGH_SUFFIX}", node.strip_suffix(PASSTHROUGH_SUFFIX).unwrap_or(node))
        }
    };
    let source = Source::stdin().context("cannot read standard input")?;
    let carried = carried(context, node, far_end, source, known_hosts);
    tokio::select! {
        carried = carried => carried.map(|()| Finish::Done),
        signal = signals.next_ending() => Ok(Finish::Session(Outcome::Interrupted(signal))),
    }
}

async fn carried(
    context: Arc<Context>,
    node: String,
    far_end: FarEnd,
    source: Source,
    known: Option<&Path>,
) -> anyhow::Result<()> {
    let mut way = ssh::open(context, node).await?;
    if let Some(known) = known {
        let keys = match far_end {
            FarEnd::Server => way.known_hosts(),
            FarEnd::OwnSshd => way.known_host(),
        };
        // Before ssh hears the first byte: it reads the file when it has the host's key.
        if let Err(error) = ssh_config::write(known, &keys) {
            note(&format!("{error:#}"));
        }
    }
    // ssh is there as long as its connection is, and nobody types.
    let carried = carry(source, &mut way.far, PeerEnd::EndsAll).await;
    way.link.close().await;
    Ok(carried?)
}
