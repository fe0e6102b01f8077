//! `munjigi ssh-config`: makes ssh, and whatever uses it, find our nodes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use munjigi_core::ssh::login_name::PASSTHROUGH_SUFFIX;

use super::{Finish, looking, ls, note, print, resolve};
use crate::cli::Where;
use crate::client::context::Surroundings;
use crate::client::ssh;
use crate::client::ssh_config::{FarEnd, Files, block, include, is_pattern, settings, write};

/// Most nodes that are named one by one; more are called by patterns.
const MAX_NAMED: usize = 1000;

/// Print what ssh_config needs for NODE.munjigi, or write it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi ssh-config >> ~/.ssh/config\n  munjigi ssh-config --write && ssh web-1.munjigi\n  \
    munjigi ssh-config --write --behind 'web-*' --behind 'db-*'\n\n\
    With it ssh, scp, sftp, rsync, git, Ansible and editors reach nodes as NODE.munjigi over the link of this program, and \
    ask nothing about host keys: the server's authority vouches for them. The server itself gets a block too, for people \
    who come with a key or a certificate, and so do the nodes that there are now by their plain names, for `ssh -J SERVER \
    OSUSER@NODE`. Run it again for new ones, or say by --behind how they are called. The server's word holds for those names \
    on every way, so a pattern should fit nodes and nothing else."
)]
pub(crate) struct Arguments {
    /// Write it to ~/.config/munjigi/ssh/config, and include that in ~/.ssh/config
    #[arg(long)]
    write: bool,
    /// Names of nodes behind `ssh -J`, instead of those that there are now; * and ? stand for what they do in ssh_config
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    behind: Vec<String>,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = Arc::new(resolve(&arguments.place)?);
    let around = Surroundings::of_process();
    let files = Files::find(&around)?;
    let known_hosts = files.known_hosts();
    let to = |far_end| settings(&arguments.place, &files, far_end);
    let behind = match arguments.behind.is_empty() {
        true => nodes(&arguments.place).await,
        false => arguments.behind.clone(),
    };
    let text = block(&context.endpoint, &to(FarEnd::Server)?, &to(FarEnd::OwnSshd)?, &behind);
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

fn pattern(text: &str) -> Result<String, String> {
    match is_pattern(text) {
        true => Ok(text.to_owned()),
        false => Err("a pattern is one word of letters, digits and . _ - : * ? !".to_owned()),
    }
}

/// Returns the names under which the nodes that one may see are reached behind a jump. Whoever may list none, or too many,
/// gets none: the rest is of use without them.
async fn nodes(place: &Where) -> Vec<String> {
    let nodes = match looking(place, async |api| ls::list(api, None).await).await {
        Ok(nodes) if nodes.len() <= MAX_NAMED => nodes,
        Ok(nodes) => {
            note(&format!("{} nodes are too many to name for ssh -J; use --behind PATTERN", nodes.len()));
            return Vec::new();
        }
        Err(error) => {
            note(&format!("no node is named for ssh -J; use --behind PATTERN: {error:#}"));
            return Vec::new();
        }
    };
    let names = nodes.into_iter().flat_map(|node| [node.name, node.node_id]).filter(|name| is_pattern(name));
    // A name is no pattern, and one with a dot is somebody's in DNS: no node shall be believed under that because it chose
    // it. Whoever wants it says it by --behind.
    let names = names.filter(|name| !name.contains(['*', '?', '!', '.']));
    names.flat_map(|name| [format!("{name}{PASSTHROUGH_SUFFIX}"), name]).collect()
}
