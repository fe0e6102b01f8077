//! `munjigi shell`: a recorded login shell on a node, or a command with a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use munjigi_core::wire::message::Parameter;

use super::{Finish, ls, resolve};
use crate::cli::Where;
use crate::client::api::Api;
use crate::client::context::Context;
use crate::client::session;
use crate::client::terminal;
use crate::client::text::escaped;
use crate::client::wish::{Face, Start};

/// Open a recorded shell on a node
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi shell web-1\n  munjigi shell tag:Role=db --reason 'ticket 4711'\n  \
    echo uptime | munjigi shell web-1\n  munjigi shell web-1 --document Tail --parameter unit=nginx\n\nAt the beginning of a line ~. ends the session, ~d leaves it running, ~? helps.\n\
    The exit status is the shell's; 255 if there was none.")]
pub(crate) struct Arguments {
    /// The node: a name, an id, the head of an id, or tag:Key=Value; without it a list to choose from
    node: Option<String>,
    #[command(flatten)]
    options: SessionOptions,
    #[command(flatten)]
    document: DocumentOptions,
    /// A command instead of the login shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    place: Where,
}

/// What every way of starting a session may say.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SessionOptions {
    /// OS user on the node; without it the one that policy gives
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Give the program a terminal even if this is none
    #[arg(short = 't', long = "tty", overrides_with = "no_tty")]
    tty: bool,
    /// Give the program no terminal
    #[arg(short = 'T', long = "no-tty")]
    no_tty: bool,
}

/// Which session document is started.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DocumentOptions {
    /// Session document to start, by name or ARN; it brings its own command
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub(crate) document: Option<String>,
    /// Parameter of the document; may stand several times
    #[arg(long = "parameter", value_name = "NAME=VALUE", requires = "document", value_parser = parameter)]
    parameters: Vec<Parameter>,
}

fn parameter(text: &str) -> Result<Parameter, String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=VALUE")?;
    Ok(Parameter { name: name.to_owned(), value: value.to_owned() })
}

impl SessionOptions {
    /// Decides what the program is connected to. A shell has a terminal if our input is one, as with `ssh`; a command
    /// only if nothing of ours goes to a pipe or file, where standard error must stay apart.
    pub(crate) fn face(&self, for_a_command: bool) -> Face {
        let input_is_terminal = io::stdin().is_terminal();
        let usual = if for_a_command { terminal::everything_is_a_terminal() } else { input_is_terminal };
        match (self.tty, self.no_tty) {
            (_, true) => Face::Pipes,
            (true, _) if input_is_terminal => Face::Terminal,
            (true, _) => Face::RemoteTerminal,
            _ if usual => Face::Terminal,
            _ => Face::Pipes,
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = resolve(&arguments.place)?;
    let target = match arguments.node {
        Some(node) => node,
        None => choose(&context).await?,
    };
    start(context, target, arguments.command, &arguments.options, arguments.document).await
}

/// Starts a session and stays with it until it ends.
pub(super) async fn start(
    context: Context,
    target: String,
    command: Vec<String>,
    options: &SessionOptions,
    document: DocumentOptions,
) -> anyhow::Result<Finish> {
    let face = options.face(!command.is_empty() || document.document.is_some());
    let start = Start::New {
        target,
        command,
        os_user: options.user.clone().unwrap_or_default(),
        reason: options.reason.clone().unwrap_or_default(),
        document: document.document.unwrap_or_default(),
        parameters: document.parameters,
    };
    Ok(Finish::Session(session::run(Arc::new(context), start, face).await?))
}

/// Shows the connected nodes and lets the person choose one.
async fn choose(context: &Context) -> anyhow::Result<String> {
    if !terminal::everything_is_a_terminal() {
        bail!("say on which node; `munjigi ls` lists them");
    }
    let mut nodes = ls::list(&mut Api::new(context.clone())?, None).await?;
    nodes.retain(|node| node.state == "Online");
    if let [only] = nodes.as_slice() {
        return Ok(only.node_id.clone());
    }
    if nodes.is_empty() {
        bail!("no node is connected; `munjigi ls` shows all, `munjigi doctor` on the node says what is wrong");
    }
    let mut out = io::stderr().lock();
    for (index, node) in nodes.iter().enumerate() {
        writeln!(out, "{:>4}  {}  {}", index + 1, escaped(&node.name), escaped(&node.node_id))?;
    }
    write!(out, "node (1 to {}): ", nodes.len())?;
    out.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read the choice")?;
    let chosen = line.trim().parse::<usize>().ok().and_then(|number| nodes.get(number.checked_sub(1)?));
    Ok(chosen.context("that is none of the numbers shown")?.node_id.clone())
}
