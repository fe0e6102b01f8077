//! `munjigi forward`: ports, sockets and proxies of this machine that lead through a node.

pub(crate) mod kept;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select_all};
use munjigi_core::endpoint::Endpoint;

use super::{Finish, print, resolve, wait_for};
use crate::cli::{Output, Where};
use crate::client::children;
use crate::client::forward::background::{Listening, ListeningKind};
use crate::client::forward::spec::{Local, Remote, ReverseSpec, Spec, listen, remote};
use crate::client::forward::{
    ForwardStart, Lead, Listener, Opened, PeerEnd, Reverse, Served, Standing, ended, serve, stdio,
};
use crate::client::signals::Signals;
use crate::client::terminal;
use crate::client::text::escaped;
use crate::client::wish::Outcome;

/// Open ports of this machine that lead through a node
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  munjigi forward web-1 8080:localhost:80\n  \
    munjigi forward web-1 0:db.internal:5432 unix:/tmp/d.sock:unix:/run/docker.sock\n  \
    munjigi forward web-1 -D 1080; curl --proxy socks5h://127.0.0.1:1080 http://intranet/\n  \
    ssh -o ProxyCommand='munjigi forward %h --stdio 22' web-1\n  munjigi forward orders-db --background; munjigi forward --list\n\n\
    [BIND:]PORT:HOST:PORT listens here and connects from the node, which looks HOST up. Port 0 takes a free one and \
    prints it. PORT or PORT:PORT leads to a port of the node itself, or to the target. unix:PATH stands on either side. \
    A proxy (-D) speaks SOCKS5, SOCKS4a and CONNECT of HTTP.\n\
    The forward stays until Ctrl-C, over broken links and restarts of the server.")]
pub(crate) struct Arguments {
    /// The node (a name, an id, the head of an id, or tag:Key=Value) or a target
    #[arg(required_unless_present_any = ["list", "stop"], value_name = "NODE|TARGET")]
    target: Option<String>,
    /// [BIND:]PORT:HOST:PORT, [BIND:]PORT:unix:PATH, unix:PATH:…, PORT or PORT:PORT; without any, a free port to the target
    #[arg(value_name = "FORWARD")]
    forwards: Vec<Spec>,
    /// Listen as a proxy: programs say where to, and the node looks names up
    #[arg(short = 'D', long = "proxy", value_name = "[BIND:]PORT", value_parser = listen)]
    proxies: Vec<SocketAddr>,
    /// The other way: the node listens, and what connects there is connected from here
    #[arg(short = 'R', long = "reverse", value_name = "[BIND:]PORT:HOST:PORT")]
    reverse: Vec<ReverseSpec>,
    /// One connection as standard input and output, to HOST:PORT, unix:PATH or a port of the node; for ssh's ProxyCommand
    #[arg(long, value_name = "HOST:PORT", value_parser = remote, conflicts_with_all = ["forwards", "proxies", "reverse", "background"])]
    stdio: Option<Remote>,
    /// Return when it is ready; it goes on without this terminal
    #[arg(long, overrides_with = "background")]
    background: bool,
    /// List the forwards in the background
    #[arg(long, conflicts_with_all = ["target", "proxies", "reverse", "stdio", "background"])]
    list: bool,
    /// End a forward in the background, or all of them
    #[arg(long, value_name = "ID|all", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["target", "list"])]
    stop: Option<String>,
    /// OS user on the node for its sockets; without it the one that policy gives
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Id of the file that is kept while this runs in the background; given by the one that starts it
    #[arg(long, hide = true)]
    kept: Option<String>,
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    /// Tells whether a session is behind it.
    pub(crate) fn runs_a_session(&self) -> bool {
        !self.list && self.stop.is_none()
    }

    /// Returns what listens here; a free port to the target if nothing was said.
    fn specs(&self) -> Vec<Spec> {
        if self.forwards.is_empty() && self.proxies.is_empty() && self.reverse.is_empty() {
            return vec![Spec { local: Local::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))), remote: Remote(None) }];
        }
        self.forwards.clone()
    }

    /// Returns what the session is asked for.
    fn start(&self, remotes: Vec<Remote>) -> anyhow::Result<ForwardStart> {
        let count = remotes.len();
        let mut endpoints: Vec<Endpoint> = remotes.into_iter().filter_map(|remote| remote.0).collect();
        if endpoints.len() < count && !(endpoints.is_empty() && self.proxies.is_empty() && self.reverse.is_empty()) {
            bail!("port 0 behind a port stands for the only place of a target, and goes with nothing else");
        }
        endpoints.extend(self.reverse.iter().map(|reverse| Endpoint::Listen(reverse.listen)));
        endpoints.sort();
        endpoints.dedup();
        Ok(ForwardStart {
            target: self.target.clone().unwrap_or_default(),
            endpoints,
            dynamic: !self.proxies.is_empty(),
            os_user: self.user.clone().unwrap_or_default(),
            reason: self.reason.clone().unwrap_or_default(),
            purpose: "forward",
        })
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    if arguments.list {
        return kept::list(arguments.output.output);
    }
    if let Some(id) = &arguments.stop {
        return wait_for(kept::stop(id));
    }
    if let Some(id) = arguments.kept.clone() {
        children::leave();
        return wait_for(stay(arguments, Some(id)));
    }
    if arguments.background {
        return wait_for(kept::start(arguments.output.output));
    }
    match arguments.stdio.clone() {
        Some(to) => wait_for(pipe(arguments, to)),
        None => wait_for(stay(arguments, None)),
    }
}

/// One connection as standard input and output.
async fn pipe(arguments: Arguments, to: Remote) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let context = Arc::new(resolve(&arguments.place)?);
    let start = arguments.start(vec![to.clone()])?;
    let standing = tokio::select! {
        opened = Standing::open(context, start, note) => match opened? {
            Opened::Stands(standing) => standing,
            Opened::Not(outcome) => return Ok(Finish::Session(outcome)),
        },
        signal = signals.next_ending() => return Ok(Finish::Session(Outcome::Interrupted(signal))),
    };
    // A person at a terminal waits for the prompt, not for the end of what could still be typed.
    let peer_end = if terminal::stdin_is_terminal() { PeerEnd::EndsAll } else { PeerEnd::EndsOutput };
    let carried = tokio::select! {
        carried = stdio(standing.connector(), to.0.as_ref(), peer_end) => carried,
        signal = signals.next_ending() => {
            standing.end().await;
            return Ok(Finish::Session(Outcome::Interrupted(signal)));
        }
    };
    standing.end().await;
    Ok(Finish::Session(match carried {
        Ok(()) => ended(),
        Err(error) => Outcome::Lost(error.to_string()),
    }))
}

/// Listens until a signal or the session's end; `kept` is the id of the forward's file if it is in the background.
async fn stay(arguments: Arguments, kept: Option<String>) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let context = Arc::new(resolve(&arguments.place)?);
    let specs = arguments.specs();
    let start = arguments.start(specs.iter().map(|spec| spec.remote.clone()).collect())?;
    // A port that is taken is said before a session is started for it.
    let mut listeners = Vec::new();
    for spec in &specs {
        listeners.push((listen_at(&spec.local).await?, Lead::To(spec.remote.0.clone())));
    }
    for address in &arguments.proxies {
        listeners.push((listen_at(&Local::Tcp(*address)).await?, Lead::Proxy));
    }
    let mut standing = tokio::select! {
        opened = Standing::open(context.clone(), start, note) => match opened? {
            Opened::Stands(standing) => standing,
            Opened::Not(outcome) => return Ok(Finish::Session(outcome)),
        },
        signal = signals.next_ending() => return Ok(Finish::Session(Outcome::Interrupted(signal))),
    };
    let connector = standing.connector().clone();
    let mut reverses = Vec::new();
    for spec in &arguments.reverse {
        match Reverse::open(&connector, spec.clone()).await {
            Ok(reverse) => reverses.push((reverse, spec)),
            Err(error) => {
                standing.end().await;
                let at = spec.listen;
                return Err(anyhow!(error).context(format!("the node does not listen on {at}")));
            }
        }
    }
    let up = standing.connector().present().context("the session is over already")?;
    let mut listening: Vec<Listening> = listeners.iter().map(|(listener, lead)| shown(listener, lead)).collect();
    listening.extend(reverses.iter().map(|(reverse, spec)| shown_reverse(reverse, spec)));
    let entry = kept::entry(&arguments, &context, &up, listening, kept.as_deref().unwrap_or_default())?;
    let _listed = match &kept {
        Some(_) => Some(kept::announce(&entry)?),
        None => {
            print(&kept::text(&entry, arguments.output.output)?)?;
            None
        }
    };
    let mut serving: Vec<BoxFuture<'_, anyhow::Error>> = Vec::new();
    for (listener, lead) in &listeners {
        serving.push(Box::pin(serve(listener, &connector, lead, tell).map(anyhow::Error::from)));
    }
    for (reverse, _) in reverses {
        serving.push(Box::pin(reverse.keep(note).map(anyhow::Error::from)));
    }
    tokio::select! {
        outcome = standing.over() => return Ok(Finish::Session(outcome)),
        _ = signals.next_ending() => {}
        (error, ..) = select_all(serving) => {
            standing.end().await;
            return Err(error);
        }
    }
    standing.end().await;
    Ok(Finish::Done)
}

async fn listen_at(local: &Local) -> anyhow::Result<Listener> {
    match local {
        Local::Unix(path) => Listener::unix(path),
        Local::Tcp(address) => Listener::tcp(*address)
            .await
            .with_context(|| format!("cannot listen on {address}; another program may, and port 0 takes a free one")),
    }
}

/// Describes what listens, with the port that was chosen.
fn shown(listener: &Listener, lead: &Lead) -> Listening {
    let address = listener.address();
    let local = match (address, listener.path()) {
        (Some(address), _) => address.to_string(),
        (None, path) => format!("unix:{}", path.map(Path::display).map(|path| path.to_string()).unwrap_or_default()),
    };
    let (kind, remote) = match lead {
        Lead::To(remote) => (ListeningKind::Forward, remote.as_ref().map(ToString::to_string).unwrap_or_default()),
        Lead::Proxy => (ListeningKind::Proxy, String::new()),
    };
    Listening { kind, local, port: address.map(|address| address.port()), remote }
}

fn shown_reverse(reverse: &Reverse, spec: &ReverseSpec) -> Listening {
    let local = reverse.address().to_owned();
    let port = local.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Listening { kind: ListeningKind::Reverse, local, port, remote: spec.to.to_string() }
}

fn tell(served: Served) -> io::Result<()> {
    if let Served::Failed(failed) = served {
        note(&escaped(&failed.to_string()));
    }
    Ok(())
}

/// A line for the person on standard error.
fn note(text: &str) {
    super::note(&format!("munjigi: {text}"));
}
