//! `munjigi ssh-config`: makes ssh, and whatever uses it, find our nodes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::{Finish, note, print, resolve};
use crate::cli::Where;
use crate::client::context::Surroundings;
use crate::client::ssh;
use crate::client::ssh_config::{FarEnd, Files, block, include, settings, write};

/// Print what ssh_config needs for NODE.munjigi, or write it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi ssh-config >> ~/.ssh/config\n  munjigi ssh-config --write && ssh web-1.munjigi\n\n\
    With it ssh, scp, sftp, rsync, git, Ansible and editors reach nodes as NODE.munjigi over the link of this program, and \
    ask nothing about host keys: the server's authority vouches for them. The server itself gets a block too, for people \
    who come with a key or a certificate."
)]
pub(crate) struct Arguments {
    /// Write it to ~/.config/munjigi/ssh/config, and include that in ~/.ssh/config
    #[arg(long)]
    write: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = Arc::new(resolve(&arguments.place)?);
    let around = Surroundings::of_process();
    let files = Files::find(&around)?;
    let known_hosts = files.known_hosts();
    let to = |far_end| settings(&arguments.place, &files, far_end);
    let text = block(&context.endpoint, &to(FarEnd::Server)?, &to(FarEnd::OwnSshd)?);
    // The keys come with every connection; one that nobody uses brings them too.
    let unused = ssh::open(context, "ssh-config".to_owned()).await?;
    write(&known_hosts, &unused.known_hosts())?;
    unused.link.close().await;
    if !arguments.write {
        print(&text)?;
        return Ok(Finish::Done);
    }
    write(&files.config(), &text)?;
    let home = around.variable("HOME").map(PathBuf::from).context("HOME is not set")?;
    let person = home.join(".ssh/config");
    let config = files.config();
    match include(&person, &config)? {
        true => note(&format!("wrote {}, which {} now includes", config.display(), person.display())),
        false => note(&format!("wrote {}", config.display())),
    }
    Ok(Finish::Done)
}
