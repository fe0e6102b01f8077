//! The plugin over a link: for servers of ours, which can do more than AWS's protocol has words for. A shell or command
//! has its own exit status and standard error, and comes back after a broken link byte for byte.
//!
//! Whether a server is ours is found out by dialling its link. Everything that stands in the way before the session
//! was granted (no credentials here, something in between that ends the TLS, another server) is [`NotPossible`], and
//! AWS's protocol goes on from there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use munjigi_core::session::SessionKind;
use munjigi_core::wire::message::{Accepted, Open, OpenPrepared, open};
use munjigi_core::wire::{Frame, FrameSet};
use url::Url;

use super::arguments::Handover;
use super::words::Words;
use super::{credentials, link_port, trust};
use crate::client::context::{Context, Source, Surroundings};
use crate::client::link::options_for;
use crate::client::road::{Dialer, Road, RoadEvent, Way, why};
use crate::client::session;
use crate::client::signals::Signals;
use crate::client::terminal;
use crate::client::wish::{Face, Outcome};

/// How long the server may take to begin the session, from the first packet on.
const GRANT_LIMIT: Duration = Duration::from_secs(30);
/// The answer of a server that has links and is older than this way to use them.
const UNSUPPORTED: &str = "UnsupportedWish";
/// Why there is no link, before anything of the session was used up.
#[derive(Debug)]
pub(crate) struct NotPossible(pub(crate) String);

/// How it went.
pub(crate) enum Carried {
    /// The session was carried to its end.
    Over(Outcome),
    /// It has to be carried by AWS's protocol.
    Not(NotPossible),
}

/// Carries a session over a link to the server, if that is possible.
pub(crate) async fn run(handover: &Handover, around: &Surroundings) -> anyhow::Result<Carried> {
    let context = match context(handover, around).await {
        Ok(context) => context,
        Err(reason) => return Ok(Carried::Not(reason)),
    };
    let roots = match trust::of_calls(around) {
        Ok(roots) => roots,
        Err(error) => return Ok(Carried::Not(NotPossible(format!("{error:#}")))),
    };
    let options = options_for(&context.endpoint, roots);
    let dialer = Dialer::with_options(Arc::new(context), options);
    let granted = tokio::time::timeout(GRANT_LIMIT, ask(&dialer, handover)).await;
    let late = || Asked::Not(NotPossible(format!("no answer within {} s", GRANT_LIMIT.as_secs())));
    let (way, granted) = match granted.unwrap_or_else(|_| late()) {
        Asked::Granted(way, granted) => (way, granted),
        Asked::Refused(outcome) => return Ok(Carried::Over(outcome)),
        Asked::Not(reason) => return Ok(Carried::Not(reason)),
    };
    carry(handover, dialer, *way, *granted).await.map(Carried::Over)
}

/// The server's answer to the wish.
enum Asked {
    Granted(Box<Way>, Box<Accepted>),
    /// It is ours and says no; another protocol would change nothing.
    Refused(Outcome),
    Not(NotPossible),
}

async fn ask(dialer: &Dialer, handover: &Handover) -> Asked {
    let not = |why: String| Asked::Not(NotPossible(why));
    let mut road = dialer.dial(None);
    let mut way = match road.next(None).await {
        RoadEvent::Dialed(Ok(way)) => way,
        RoadEvent::Dialed(Err(error)) => return not(error.to_string()),
        // A road that is dialled has no other event.
        _ => return not(String::new()),
    };
    let wish = open::Wish::Prepared(OpenPrepared {
        session_id: handover.session_id.clone(),
        token: handover.token.expose().clone(),
        pty: Some(terminal::pty()),
        environment: terminal::environment(),
    });
    if let Err(error) = way.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))) {
        return not(error.to_string());
    }
    let mut road = Road::Open(Box::new(way));
    let answer = loop {
        match road.next(Some(FrameSet::ANSWER)).await {
            RoadEvent::Sent(Ok(())) | RoadEvent::Opened(_) => {}
            RoadEvent::Sent(Err(error)) => return not(why(&error)),
            RoadEvent::Frame(frame) => break frame,
            RoadEvent::Dialed(_) | RoadEvent::PauseOver => return not(String::new()),
        }
    };
    match (answer, road) {
        (Ok(Some(Frame::Accepted(granted))), Road::Open(way)) => Asked::Granted(way, granted),
        (Ok(Some(Frame::Refused(refused))), _) if refused.code == UNSUPPORTED => not(refused.message),
        (Ok(Some(Frame::Refused(refused))), _) => {
            Asked::Refused(Outcome::Refused { code: refused.code, message: refused.message })
        }
        (Ok(_), _) => not("the server closed the stream".to_owned()),
        (Err(error), _) => not(why(&error)),
    }
}

/// Serves the granted session by its kind.
async fn carry(handover: &Handover, dialer: Dialer, way: Way, granted: Accepted) -> anyhow::Result<Outcome> {
    let words = Words::of(&handover.session_id);
    let signals = Signals::of_plugin().context("cannot wait for signals")?;
    if granted.kind == SessionKind::Port.as_str() {
        return link_port::run(dialer, way, granted, &words, signals).await;
    }
    let face = match (granted.has_pty, terminal::stdin_is_terminal()) {
        (true, true) => Face::Terminal,
        (true, false) => Face::RemoteTerminal,
        (false, _) => Face::Pipes,
    };
    words.starting()?;
    let outcome = session::carry(dialer, way, granted, face, signals).await?;
    if matches!(outcome, Outcome::Ended { .. } | Outcome::Left { running: None }) {
        words.exiting()?;
    }
    Ok(outcome)
}

/// Makes a context of what was handed over, or says why there can be no link.
async fn context(handover: &Handover, around: &Surroundings) -> Result<Context, NotPossible> {
    let not = |why: &str| Err(NotPossible(why.to_owned()));
    let Some(endpoint) = &handover.endpoint else { return not("no endpoint was handed over") };
    if super::is_aws(endpoint) {
        return not("AWS's service has no links");
    }
    if !same_place(endpoint, &handover.stream_url) {
        return not("the data channel is on another server than the API");
    }
    let credentials = credentials::find(handover.profile.as_deref(), around)
        .await
        .map_err(|error| NotPossible(format!("{error:#}")))?;
    let endpoint = trust::server_of(endpoint).map_err(|error| NotPossible(error.to_string()))?;
    Ok(Context {
        endpoint,
        region: handover.region.clone(),
        ca_file: None,
        credentials,
        credentials_file: None,
        profile: handover.profile.clone().unwrap_or_default(),
        data_dir: None,
        source: Source::Environment,
    })
}

/// Tells whether both URLs lead to the same host and port: with a server of ours they do.
fn same_place(endpoint: &Url, stream: &Url) -> bool {
    endpoint.host_str() == stream.host_str() && endpoint.port_or_known_default() == stream.port_or_known_default()
}
