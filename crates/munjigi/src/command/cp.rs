//! `munjigi cp`: files and directories to a node and from it.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use munjigi_copy::client::{Options, download, upload};
use munjigi_copy::{CopyFailure, Progress, Source};
use munjigi_core::copy::{EntryPath, RootKind};
use munjigi_core::endpoint::{Endpoint, MAX_ENDPOINTS, NodePath};
use tokio::time::{MissedTickBehavior, interval};

use super::{Finish, note, resolve};
use crate::cli::Where;
use crate::client::copy::{Carried, Display, Local, Location, copy};
use crate::client::forward::{ForwardStart, Opened, Standing};
use crate::client::signals::Signals;
use crate::client::text::{bytes, escaped};
use crate::client::wish::Outcome;

/// Between two looks at the counters.
const SHOW_EVERY: Duration = Duration::from_millis(250);
/// Attempts that bring nothing new before a copy that breaks is given up.
const IDLE_ATTEMPTS: u32 = 5;
/// How long the threads may take to tidy up after a signal.
const TIDYING: Duration = Duration::from_secs(2);

/// Copy files and directories to a node and from it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  munjigi cp app.conf web-1:/etc/app/\n  munjigi cp -r --resume web-1:/var/log ./logs\n  \
    munjigi cp 'web-1:/var/log/*.log' .\n  pg_dump shop | munjigi cp - web-1:/backup/shop.sql\n\n\
    A path on a node is absolute, or below the home of the OS user there. The last part of one may have the wildcards \
    *, ? and [a-z]; quote them. - is standard input or output. Every file is checked by SHA-256 and takes its place \
    when it is complete; one that exists keeps its mode. Symbolic links in a directory are copied as links.\n\n\
    The exit status is 0 if everything was copied, 1 if something was not."
)]
pub(crate) struct Arguments {
    /// Sources and, last, where they go: NODE:PATH on one of both sides, PATH or - on the other
    #[arg(required = true, num_args = 2.., value_name = "SOURCE… DESTINATION")]
    places: Vec<OsString>,
    /// Copy directories with all that is in them
    #[arg(short, long, visible_short_alias = 'R')]
    recursive: bool,
    /// Keep modes and times of change
    #[arg(short, long)]
    preserve: bool,
    /// Go on with what is there: complete files stay, partial ones are continued, and a broken link is waited for
    #[arg(long)]
    resume: bool,
    /// Show progress even if standard error is no terminal
    #[arg(long, overrides_with = "quiet")]
    progress: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// OS user on the node; without it the one that policy gives
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Why, for the audit trail
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    place: Where,
}

/// What is to be done, read from the command line.
struct Plan {
    node: String,
    work: Vec<Work>,
}

/// One connection's worth.
enum Work {
    Upload { from: Vec<Local>, to: NodePath, is_directory: bool },
    Download { from: NodePath, to: Local, several: bool },
}

impl Work {
    fn endpoint(&self) -> Endpoint {
        match self {
            Self::Upload { to, .. } => Endpoint::Upload(to.clone()),
            Self::Download { from, .. } => Endpoint::Download(from.clone()),
        }
    }

    /// Tells whether it can be tried again after a part of it.
    fn may_be_repeated(&self) -> bool {
        match self {
            Self::Upload { from, .. } => !from.contains(&Local::Stream),
            Self::Download { to, .. } => *to != Local::Stream,
        }
    }
}

fn plan(places: &[OsString]) -> anyhow::Result<Plan> {
    let (to, from) = places.split_last().context("say what is copied, and where to")?;
    let from: Vec<Location> = from.iter().map(|text| Location::parse(text)).collect::<anyhow::Result<_>>()?;
    let several = from.len() > 1;
    match Location::parse(to)? {
        Location::Node { node, path, is_directory } => {
            let mut sources = Vec::new();
            for source in from {
                match source {
                    Location::Local(local) => sources.push(local),
                    Location::Node { .. } => {
                        bail!("files go from this machine to a node or back; copy from node to node by way of here")
                    }
                }
            }
            if several && sources.contains(&Local::Stream) {
                bail!("standard input is one file, and goes alone");
            }
            let is_directory = is_directory || several;
            Ok(Plan { node, work: vec![Work::Upload { from: sources, to: path, is_directory }] })
        }
        Location::Local(to) => {
            let (mut from_node, mut work) = (None::<String>, Vec::new());
            for source in from {
                let Location::Node { node, path, .. } = source else {
                    bail!("neither side names a node: write NODE:PATH");
                };
                if from_node.as_ref().is_some_and(|other| *other != node) {
                    bail!("the sources are on several nodes; copy from one at a time");
                }
                from_node = Some(node);
                work.push(Work::Download { from: path, to: to.clone(), several });
            }
            if work.len() > MAX_ENDPOINTS {
                bail!("at most {MAX_ENDPOINTS} sources at once; a directory or a pattern counts as one");
            }
            Ok(Plan { node: from_node.context("say what is copied")?, work })
        }
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let Plan { node, work } = plan(&arguments.places)?;
    let context = Arc::new(resolve(&arguments.place)?);
    let mut endpoints: Vec<Endpoint> = work.iter().map(Work::endpoint).collect();
    endpoints.sort();
    endpoints.dedup();
    let start = ForwardStart {
        target: node,
        endpoints,
        dynamic: false,
        os_user: arguments.user.clone().unwrap_or_default(),
        reason: arguments.reason.clone().unwrap_or_default(),
        purpose: "copy",
    };
    let mut standing = tokio::select! {
        opened = Standing::open(context, start, note) => match opened? {
            Opened::Stands(standing) => standing,
            Opened::Not(outcome) => return Ok(Finish::Session(outcome)),
        },
        signal = signals.next_ending() => return Ok(Finish::Session(Outcome::Interrupted(signal))),
    };
    let progress = Arc::new(Progress::default());
    let shows = arguments.progress || !arguments.quiet && std::io::stderr().is_terminal();
    let options = Options {
        recursive: arguments.recursive,
        preserve: arguments.preserve,
        resume: arguments.resume,
        totals: shows,
    };
    let begun = Instant::now();
    let connector = standing.connector().clone();
    let copying = async {
        for work in &work {
            carry(&connector, work, options, &progress).await?;
        }
        Ok(())
    };
    tokio::pin!(copying);
    let mut display = Display::new();
    let mut tick = interval(SHOW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let result: Result<(), String> = loop {
        tokio::select! {
            result = &mut copying => break result,
            outcome = standing.over() => {
                tell_problems(&progress, &mut display);
                return Ok(Finish::Session(outcome));
            }
            signal = signals.next_ending() => {
                drop(display);
                // The threads see their channels end and leave nothing half-written.
                standing.end().await;
                let _ = tokio::time::timeout(TIDYING, copying).await;
                return Ok(Finish::Session(Outcome::Interrupted(signal)));
            }
            _ = tick.tick() => {
                tell_problems(&progress, &mut display);
                if shows {
                    display.show(Instant::now(), progress.snapshot());
                }
            }
        }
    };
    tell_problems(&progress, &mut display);
    display.clear();
    standing.end().await;
    let seen = progress.snapshot();
    if shows {
        let rate = seen.bytes as f64 / begun.elapsed().as_secs_f64().max(0.001);
        note(&format!("{} files, {} copied, {}/s", seen.files, bytes(seen.bytes), bytes(rate as u64)));
    }
    match result {
        Err(why) => bail!("{}", escaped(&why)),
        Ok(()) if seen.problems > 0 => {
            note(&format!("{} of the entries were not copied", seen.problems));
            Ok(Finish::Problems)
        }
        Ok(()) => Ok(Finish::Done),
    }
}

fn tell_problems(progress: &Progress, display: &mut Display) {
    for (path, why) in progress.take_problems() {
        display.clear();
        // Names come from the other side (T-69).
        match path.is_root() {
            true => note(&format!("munjigi: {}", escaped(&why))),
            false => note(&format!("munjigi: {}: {}", escaped(&path.to_string()), escaped(&why))),
        }
    }
}

/// Does one part of the plan; with `--resume` over as many connections as it takes.
async fn carry(
    connector: &crate::client::forward::Connector,
    work: &Work,
    options: Options,
    progress: &Arc<Progress>,
) -> Result<(), String> {
    let mut idle = 0;
    loop {
        let before = progress.snapshot().bytes;
        let why = match attempt(connector, work, options, progress).await {
            Carried::Done => return Ok(()),
            Carried::Failed(why) => return Err(why),
            Carried::Broke(why) => why,
        };
        if !options.resume || !work.may_be_repeated() {
            return Err(format!("{why}; with --resume a copy goes on where it broke"));
        }
        idle = if progress.snapshot().bytes > before { 0 } else { idle + 1 };
        if idle >= IDLE_ATTEMPTS {
            return Err(format!("{why}; {IDLE_ATTEMPTS} attempts brought nothing"));
        }
        note("the copy broke and goes on");
    }
}

async fn attempt(
    connector: &crate::client::forward::Connector,
    work: &Work,
    options: Options,
    progress: &Arc<Progress>,
) -> Carried {
    match work {
        Work::Upload { from, to, is_directory } => {
            let (from, is_directory, shown) = (from.clone(), *is_directory, to.clone());
            let endpoint = Endpoint::Upload(to.clone());
            let sources = move |ready: &munjigi_core::copy::Ready| {
                let into = ready.kind == RootKind::Directory;
                if is_directory && !into {
                    return Err(CopyFailure::here("NotFound", format!("{shown} on the node is no directory")));
                }
                from.iter().map(|source| self::source(source, into)).collect::<Result<Vec<_>, _>>()
            };
            copy(connector, &endpoint, progress, move |out, input, progress| {
                upload(out, input, options, progress, sources)
            })
            .await
        }
        Work::Download { from, to, several } => {
            let (endpoint, from, to, several) = (Endpoint::Download(from.clone()), from.clone(), to.clone(), *several);
            let place = move |ready: &munjigi_core::copy::Ready| {
                if ready.kind == RootKind::Directory && !options.recursive {
                    let why = format!("{from} is a directory; -r copies directories");
                    return Err(CopyFailure::here("NotRecursive", why));
                }
                to.place(&from, several, ready)
            };
            copy(connector, &endpoint, progress, move |out, input, progress| {
                download(out, input, options, progress, place)
            })
            .await
        }
    }
}

/// Makes a source of a local place: under its own name in a directory, or as the root itself.
fn source(place: &Local, into: bool) -> Result<Source, CopyFailure> {
    match place {
        Local::Stream if into => {
            Err(CopyFailure::here("NotFound", "standard input has no name: say the file's name on the node"))
        }
        Local::Stream => {
            use std::os::fd::AsFd as _;
            let fd = std::io::stdin().as_fd().try_clone_to_owned();
            let fd =
                fd.map_err(|error| CopyFailure::here("NotFound", format!("cannot read standard input: {error}")))?;
            Ok(Source::Stream { fd, entry: EntryPath::root() })
        }
        Local::Path(path) => {
            // What is missing is said before anything travels.
            let exists = Path::metadata(path);
            exists.map_err(|error| CopyFailure::here("NotFound", format!("{}: {error}", path.display())))?;
            let entry = if into { Local::name(path)? } else { EntryPath::root() };
            Ok(Source::Path { path: path.clone(), entry })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(places: &[&str]) -> Result<Plan, String> {
        plan(&places.iter().map(OsString::from).collect::<Vec<_>>()).map_err(|error| error.to_string())
    }

    #[test]
    fn one_side_is_a_node_and_the_other_is_here() {
        let up = planned(&["a", "b", "web-1:/srv"]).unwrap();
        assert_eq!((up.node.as_str(), up.work.len()), ("web-1", 1));
        assert!(matches!(&up.work[0], Work::Upload { from, is_directory: true, .. } if from.len() == 2));
        let down = planned(&["web-1:/a", "web-1:/b", "."]).unwrap();
        assert_eq!(down.work.len(), 2);
        assert!(down.work.iter().all(|work| matches!(work, Work::Download { several: true, .. })));
        for wrong in
            [&["a", "b"][..], &["x:/a", "y:/b"], &["x:/a", "y:/b", "."], &["-", "a", "x:/b"], &["a", "x:/b", "y:/c"]]
        {
            assert!(planned(wrong).is_err(), "{wrong:?}");
        }
    }
}
