//! The session behind connections: kept over as many links as it takes, followed by another one where that is allowed,
//! and ended when its owner is done.
//!
//! Its own stream carries no bytes; connections are streams of their own on the same link (`connect`). A session that was
//! begun by somebody else (`StartSession` of AWS's command line) is the only one; for a forward of ours the server is
//! asked for another one when its node is gone or nothing went through it for too long, and decides afresh.

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::session::{EndReason, ExitStatus};
use munjigi_core::wire::message::{Accepted, End, Open, Refused};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::DialError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::connect::{State, Up, Wanted};
use super::reverse::{self, Reverses};
use super::{Connector, ForwardStart};
use crate::client::context::Context;
use crate::client::road::{Dialer, Road, RoadEvent, Way, refusal_in, why};
use crate::client::text::{duration, escaped};
use crate::client::wish::{self, Outcome};

/// How long the server may take to begin the first session, from the first packet on.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long the server may take to hear that the session shall end.
const GOODBYE: Duration = Duration::from_secs(2);
/// A loss that is over within this time is not worth a message.
const SILENT_LOSS: Duration = Duration::from_secs(1);
/// Wishes for another session that wait; one is enough, and the others ask again.
const WANTED: usize = 1;
/// Another session instead of one that stands is asked for at most this often.
const RENEWAL_PAUSE: Duration = Duration::from_secs(2);
/// Refusals of another session that may be over soon.
const PASSING: [&str; 3] = ["TargetNotConnected", "ServiceUnavailableException", "InternalServerError"];
/// Refusals that say that the session is over.
const GONE: [&str; 2] = ["DoesNotExistException", "SessionEnded"];

/// A session that stands. Dropped, it is left to the server, which ends it after the resume window.
#[derive(Debug)]
pub(crate) struct Standing {
    connector: Connector,
    /// Tells the session's task to end it.
    end: Option<oneshot::Sender<()>>,
    task: JoinHandle<Outcome>,
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Standing {
    /// Starts a session, and waits until it stands. Messages for people go to `note`.
    pub(crate) async fn open(context: Arc<Context>, start: ForwardStart, note: fn(&str)) -> anyhow::Result<Opened> {
        let dialer = Dialer::new(context)?;
        let road = dialer.dial(None);
        let mut standing = Self::begin(Keeper::new(dialer, road, Some(start), None, note));
        let mut state = standing.connector.watch();
        tokio::select! {
            up = state.wait_for(|state| matches!(state, State::Up(_))) => if up.is_ok() {
                return Ok(Opened::Stands(standing));
            },
            () = tokio::time::sleep(START_LIMIT) => {
                let limit = duration(START_LIMIT);
                return Ok(Opened::Not(Outcome::Lost(format!("no session was started within {limit}"))));
            }
        }
        Ok(Opened::Not(standing.over().await))
    }

    /// Goes on with a session on the stream that was just granted to it. It is the only one.
    pub(crate) fn carry(dialer: Dialer, way: Way, granted: Accepted, note: fn(&str)) -> Self {
        Self::begin(Keeper::new(dialer, Road::Open(Box::new(way)), None, Some(granted), note))
    }

    fn begin(mut keeper: Keeper) -> Self {
        let (wanted_tx, wanted) = mpsc::channel(WANTED);
        let (end, end_rx) = oneshot::channel();
        let wanted_tx = keeper.start.is_some().then_some(wanted_tx);
        let connector = Connector::new(keeper.state.subscribe(), wanted_tx, keeper.reverses.clone());
        if keeper.session.is_some() {
            keeper.stands();
        }
        Self { connector, end: Some(end), task: tokio::spawn(keeper.run(end_rx, wanted)) }
    }

    /// Returns what makes connections of the session.
    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Waits until the session is over or given up. Safe to drop and call again, until it has answered.
    pub(crate) async fn over(&mut self) -> Outcome {
        match (&mut self.task).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Lost(format!("the session is not looked after any more: {error}")),
        }
    }

    /// Ends the session at the server, and waits for a moment until it has heard of it.
    pub(crate) async fn end(mut self) {
        if let Some(end) = self.end.take()
            && end.send(()).is_ok()
        {
            self.over().await;
        }
    }
}

/// What came of the wish for a session.
#[derive(Debug)]
pub(crate) enum Opened {
    /// It stands.
    Stands(Standing),
    /// It does not, and why.
    Not(Outcome),
}

/// Looks after the session's own stream.
struct Keeper {
    dialer: Dialer,
    road: Road,
    /// How sessions are started; `None` if there is never another one.
    start: Option<ForwardStart>,
    /// Makes a repeated wish for a session the same one for the server.
    token: Uuid,
    /// The session, if there is one to come back to.
    session: Option<Session>,
    /// Whether the server has accepted us on the stream that is open.
    accepted: bool,
    /// The session that stays if no other is to be had, with its stream.
    instead_of: Option<(Session, Road)>,
    /// When another one was last asked for.
    renewed: Option<Instant>,
    /// No session and no road until one is wanted.
    resting: bool,
    lost: Option<Loss>,
    /// To whoever makes connections.
    state: watch::Sender<State>,
    /// What the listeners on the node lead to, and the connections that came from there.
    reverses: Arc<Reverses>,
    incoming: JoinSet<()>,
    note: fn(&str),
}

#[derive(Debug, Clone)]
struct Session {
    id: String,
    node: String,
    resume_window: Duration,
}

impl From<Accepted> for Session {
    fn from(granted: Accepted) -> Self {
        let resume_window = Duration::from_secs(granted.resume_window_secs.into());
        Self { id: granted.session_id, node: granted.node_name, resume_window }
    }
}

/// There is no session to be had.
struct Loss {
    since: Instant,
    /// When the person is told, or the session given up; never again if `None`.
    due: Option<Instant>,
    told: bool,
    /// Why the last attempt failed.
    why: String,
}

impl Keeper {
    fn new(dialer: Dialer, road: Road, start: Option<ForwardStart>, granted: Option<Accepted>, note: fn(&str)) -> Self {
        let session = granted.map(Session::from);
        Self {
            dialer,
            road,
            start,
            token: Uuid::new_v4(),
            accepted: session.is_some(),
            session,
            instead_of: None,
            renewed: None,
            resting: false,
            lost: None,
            state: watch::Sender::new(State::Down),
            reverses: Arc::default(),
            incoming: JoinSet::new(),
            note,
        }
    }

    async fn run(mut self, mut end: oneshot::Receiver<()>, mut wanted: mpsc::Receiver<Wanted>) -> Outcome {
        let outcome = loop {
            let due = self.lost.as_ref().and_then(|loss| loss.due);
            let frames = if self.accepted { FrameSet::TO_CLIENT } else { FrameSet::ANSWER };
            let stop = tokio::select! {
                // Whoever has dropped the sender has dropped this task, too.
                _ = &mut end => {
                    self.end().await;
                    Some(ended())
                }
                Some(wanted) = wanted.recv() => self.wanted(&wanted),
                event = self.road.next(Some(frames)), if !self.resting => self.happened(event),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.overdue(),
            };
            if let Some(outcome) = stop {
                break outcome;
            }
        };
        self.state.send_replace(State::Over);
        outcome
    }

    /// Takes what happened on the way to the server; `None`: it goes on.
    fn happened(&mut self, event: RoadEvent) -> Option<Outcome> {
        match event {
            RoadEvent::Dialed(Ok(way)) => return self.dialed(way),
            RoadEvent::Dialed(Err(DialError::Refused(refusal))) if refusal.status < 500 => {
                return Some(Outcome::Refused { code: refusal.code, message: refusal.message });
            }
            RoadEvent::Dialed(Err(error)) => return self.broke(error.to_string()),
            RoadEvent::Frame(Ok(Some(frame))) => return self.heard(frame),
            RoadEvent::Frame(Ok(None)) => return self.broke("the server closed the session's stream".to_owned()),
            RoadEvent::Frame(Err(error)) | RoadEvent::Sent(Err(error)) => {
                if let Some(refusal) = refusal_in(&error).filter(|refusal| refusal.status < 500) {
                    return Some(Outcome::Refused { code: refusal.code, message: refusal.message });
                }
                return self.broke(why(&error));
            }
            RoadEvent::Sent(Ok(())) => {}
            RoadEvent::Opened(stream) => {
                self.incoming.spawn(reverse::incoming(self.reverses.clone(), stream));
                while self.incoming.try_join_next().is_some() {}
            }
            RoadEvent::PauseOver => {
                self.road = self.dialer.dial(self.lost.as_ref().map(|loss| loss.since.elapsed()));
            }
        }
        None
    }

    fn dialed(&mut self, mut way: Way) -> Option<Outcome> {
        let wish = match (&self.session, &self.start) {
            (Some(session), _) => wish::resume(&session.id, 0, None),
            (None, Some(start)) => start.wish(self.token),
            (None, None) => return Some(Outcome::Lost("there is no session to come back to".to_owned())),
        };
        if let Err(error) = way.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))) {
            return Some(Outcome::Lost(format!("the request is too large: {error}; forward fewer things at once")));
        }
        self.road = Road::Open(Box::new(way));
        None
    }

    fn heard(&mut self, frame: Frame) -> Option<Outcome> {
        match frame {
            Frame::Accepted(accepted) => self.granted(*accepted),
            Frame::Refused(refused) => return self.refused(refused),
            Frame::End(end) => return self.ended(end),
            Frame::Notice(notice) => (self.note)(&escaped(&notice.text)),
            // The stream carries no bytes.
            _ => {}
        }
        None
    }

    fn granted(&mut self, accepted: Accepted) {
        self.accepted = true;
        if self.session.is_none() {
            let session = Session::from(accepted);
            self.token = Uuid::new_v4();
            if let Some((old, road)) = self.instead_of.take() {
                (self.note)(&format!(
                    "{} is not connected; a new session was started on {}",
                    escaped(&old.node),
                    escaped(&session.node)
                ));
                tokio::spawn(say_end(road));
            }
            self.session = Some(session);
        }
        if let Some(loss) = self.lost.take()
            && loss.told
        {
            (self.note)(&format!("reconnected after {}", duration(loss.since.elapsed())));
        }
        self.stands();
    }

    /// Tells whoever makes connections where the session is.
    fn stands(&mut self) {
        if let (Some(way), Some(session)) = (self.road.open(), &self.session) {
            let opener = way.connection.opener();
            let up = Up { opener, session_id: session.id.clone(), node: session.node.clone() };
            self.state.send_replace(State::Up(up));
        }
    }

    fn refused(&mut self, refused: Refused) -> Option<Outcome> {
        let Refused { code, message, .. } = refused;
        if self.instead_of.is_some() {
            tracing::debug!(code, message, "no other session was granted");
            self.stay();
            return None;
        }
        let first = self.session.is_none() && self.lost.is_none();
        let gone = self.session.is_some() && GONE.contains(&code.as_str());
        let passing = self.session.is_none() && PASSING.contains(&code.as_str());
        if self.start.is_none() || first || !(gone || passing) {
            return Some(Outcome::Refused { code, message });
        }
        self.session = None;
        self.lose(escaped(&message));
        let lasted = self.road.lasted();
        self.road = self.dialer.pause(lasted);
        None
    }

    /// The session has ended at the server.
    fn ended(&mut self, end: End) -> Option<Outcome> {
        let reason = EndReason::parse(&end.reason);
        let again = match reason {
            Some(EndReason::IdleTimeout) => Again::WhenWanted,
            // There is no program that could exit: the agent was stopped in good order.
            Some(
                EndReason::Exited
                | EndReason::ClientLost
                | EndReason::NodeLost
                | EndReason::AgentDied
                | EndReason::ServerRestarted,
            ) => Again::Now,
            // Somebody ended it, or took the right to it away.
            _ => Again::Never,
        };
        if self.start.is_none() {
            return Some(Outcome::of(end));
        }
        if matches!(again, Again::Never) {
            // Whatever the node says of its end: it was not what was asked for.
            return Some(Outcome::Ended { reason, message: end.message, exit: None });
        }
        let why = match reason {
            Some(EndReason::Exited) | None => "the node has ended the session",
            Some(reason) => reason.sentence(),
        };
        self.session = None;
        self.accepted = false;
        match again {
            Again::WhenWanted => {
                (self.note)(&format!("{why}; the next connection starts a new one"));
                self.resting = true;
                self.road = self.dialer.pause(None);
                self.state.send_replace(State::Resting);
            }
            Again::Now | Again::Never => {
                (self.note)(&format!("{why}; starting a new one"));
                self.lose(why.to_owned());
                let lasted = self.road.lasted();
                self.road = self.dialer.pause(lasted);
            }
        }
        None
    }

    /// A connection could not be made for want of a session or its node.
    fn wanted(&mut self, wanted: &Wanted) -> Option<Outcome> {
        if self.resting {
            self.resting = false;
            self.lose("the server does not answer".to_owned());
            self.road = self.dialer.dial(None);
            return None;
        }
        let soon = self.renewed.is_some_and(|renewed| renewed.elapsed() < RENEWAL_PAUSE);
        if !self.accepted || soon || self.session.as_ref().is_none_or(|session| session.id != wanted.instead_of) {
            return None;
        }
        self.renewed = Some(Instant::now());
        let road = std::mem::replace(&mut self.road, self.dialer.dial(None));
        self.instead_of = self.session.take().map(|session| (session, road));
        self.accepted = false;
        self.state.send_replace(State::Down);
        None
    }

    /// No other session is to be had: the one that there was stays.
    fn stay(&mut self) {
        if let Some((session, road)) = self.instead_of.take() {
            self.session = Some(session);
            self.road = road;
            self.accepted = true;
            self.stands();
        }
    }

    /// The link is gone, and with it connections; the session waits for us.
    fn broke(&mut self, why: String) -> Option<Outcome> {
        tracing::debug!(why, "the link of a session with connections broke");
        if self.instead_of.is_some() {
            self.stay();
            return None;
        }
        if self.session.is_none() && self.lost.is_none() {
            // Nothing was started: whoever asked for it knows soonest what is wrong.
            return Some(Outcome::Lost(why));
        }
        self.lose(why);
        let lasted = self.road.lasted();
        self.road = self.dialer.pause(lasted);
        None
    }

    /// No connections can be made until there is a session again.
    fn lose(&mut self, why: String) {
        self.accepted = false;
        self.state.send_replace(State::Down);
        let since = Instant::now();
        let begun = Loss { since, due: Some(since + SILENT_LOSS), told: false, why: String::new() };
        self.lost.get_or_insert(begun).why = why;
    }

    fn overdue(&mut self) -> Option<Outcome> {
        let resume_window = self.session.as_ref().map(|session| session.resume_window);
        let loss = self.lost.as_mut()?;
        if !loss.told {
            loss.told = true;
            loss.due = resume_window.map(|window| loss.since + window);
            (self.note)(&format!("reconnecting: {}; new connections wait, Ctrl-C leaves", loss.why));
            return None;
        }
        loss.due = None;
        let gone = format!("the server could not be reached for {} ({})", duration(loss.since.elapsed()), loss.why);
        if self.start.is_none() {
            return Some(Outcome::Lost(format!("{gone}; the session is given up")));
        }
        // By now the server has ended it.
        (self.note)(&format!("{gone}; a new session is started when it is back"));
        self.session = None;
        None
    }

    /// Ends the session at the server.
    async fn end(&mut self) {
        if let Some((_, road)) = self.instead_of.take() {
            say_end(road).await;
        }
        if self.accepted {
            let road = std::mem::replace(&mut self.road, self.dialer.pause(None));
            say_end(road).await;
        }
    }
}

/// When there is another session after one that has ended.
enum Again {
    Now,
    WhenWanted,
    Never,
}

/// Ends the session of this stream, and its link.
async fn say_end(mut road: Road) {
    let reason = EndReason::Terminated.as_str().to_owned();
    let end = Frame::End(End { reason, message: String::new(), exit: None });
    let Some(way) = road.open() else { return };
    if way.feed(&end).is_ok()
        && matches!(timeout(GOODBYE, way.flush()).await, Ok(Ok(())))
        && let Road::Open(way) = road
    {
        // Orderly, so that the frame is on its way before the process ends; bounded by the link itself.
        way.connection.close().await;
    }
}

/// This side has ended the session, as it was asked to.
pub(crate) fn ended() -> Outcome {
    Outcome::Ended { reason: Some(EndReason::Exited), message: String::new(), exit: Some(ExitStatus::Code(0)) }
}
