//! The session behind connections: kept over as many links as it takes, and ended when its owner is done.
//!
//! Its own stream carries no bytes; connections are streams of their own on the same link (`connect`).

use std::time::Duration;

use munjigi_core::session::EndReason;
use munjigi_core::wire::message::{Accepted, End, Open};
use munjigi_core::wire::{Frame, FrameSet};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Connector;
use super::connect::{State, Up};
use crate::client::road::{Dialer, Road, RoadEvent, Way, why};
use crate::client::text::{duration, escaped};
use crate::client::wish::{self, Outcome};

/// How long the server may take to hear that the session shall end.
const GOODBYE: Duration = Duration::from_secs(2);
/// A loss that is over within this time is not worth a message.
const SILENT_LOSS: Duration = Duration::from_secs(1);

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
    /// Goes on with a session on the stream that was just granted to it. Messages for people go to `note`.
    pub(crate) fn carry(dialer: Dialer, way: Way, granted: &Accepted, note: fn(&str)) -> Self {
        let up = Up { opener: way.connection.opener(), session_id: granted.session_id.clone() };
        let (state_tx, state) = watch::channel(State::Up(up));
        let (end, end_rx) = oneshot::channel();
        let keeper = Keeper {
            id: granted.session_id.clone(),
            resume_window: Duration::from_secs(granted.resume_window_secs.into()),
            dialer,
            road: Road::Open(Box::new(way)),
            accepted: true,
            lost: None,
            state: state_tx,
            note,
        };
        Self { connector: Connector::new(state), end: Some(end), task: tokio::spawn(keeper.run(end_rx)) }
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

/// Looks after the session's own stream.
struct Keeper {
    id: String,
    resume_window: Duration,
    dialer: Dialer,
    road: Road,
    /// Whether the server has accepted us on the stream that is open.
    accepted: bool,
    /// Since when there is no link, and whether that was said.
    lost: Option<(Instant, bool)>,
    /// To whoever makes connections.
    state: watch::Sender<State>,
    note: fn(&str),
}

impl Keeper {
    async fn run(mut self, mut end: oneshot::Receiver<()>) -> Outcome {
        let outcome = loop {
            let due = self.due();
            let frames = if self.accepted { FrameSet::TO_CLIENT } else { FrameSet::ANSWER };
            let stop = tokio::select! {
                // Whoever has dropped the sender has dropped this task, too.
                _ = &mut end => {
                    self.end().await;
                    Some(ended())
                }
                event = self.road.next(Some(frames)) => self.happened(event),
                () = tokio::time::sleep_until(due) => self.overdue(),
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
            RoadEvent::Dialed(Ok(mut way)) => {
                let wish = wish::resume(&self.id, 0, None);
                if way.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).is_err() {
                    return Some(Outcome::Lost("the request is too large".to_owned()));
                }
                self.road = Road::Open(Box::new(way));
            }
            RoadEvent::Dialed(Err(error)) => self.broke(&error.to_string()),
            RoadEvent::Frame(Ok(Some(frame))) => return self.heard(frame),
            RoadEvent::Frame(Ok(None)) => self.broke("the server closed the session's stream"),
            RoadEvent::Frame(Err(error)) | RoadEvent::Sent(Err(error)) => self.broke(&why(&error)),
            RoadEvent::Sent(Ok(())) => {}
            RoadEvent::PauseOver => self.road = self.dialer.dial(self.lost.map(|(since, _)| since.elapsed())),
        }
        None
    }

    fn heard(&mut self, frame: Frame) -> Option<Outcome> {
        match frame {
            Frame::Accepted(_) => {
                self.accepted = true;
                if let Some(way) = self.road.open() {
                    let up = Up { opener: way.connection.opener(), session_id: self.id.clone() };
                    self.state.send_replace(State::Up(up));
                }
                if let Some((since, true)) = self.lost.take() {
                    (self.note)(&format!("reconnected after {}", duration(since.elapsed())));
                }
                None
            }
            Frame::Refused(refused) => Some(Outcome::Refused { code: refused.code, message: refused.message }),
            Frame::End(end) => Some(Outcome::of(end)),
            Frame::Notice(notice) => {
                (self.note)(&escaped(&notice.text));
                None
            }
            // The stream carries no bytes.
            _ => None,
        }
    }

    /// The link is gone, and with it the connections; the session waits for us.
    fn broke(&mut self, why: &str) {
        tracing::debug!(why, "the link of a session with connections broke");
        self.accepted = false;
        self.state.send_replace(State::Down);
        self.lost.get_or_insert((Instant::now(), false));
        let lasted = self.road.lasted();
        self.road = self.dialer.pause(lasted);
    }

    /// When something is to be said or given up.
    fn due(&self) -> Instant {
        match self.lost {
            Some((since, false)) => since + SILENT_LOSS,
            Some((since, true)) => since + self.resume_window,
            // Nothing: a day is as good as never, and the loop asks again.
            None => Instant::now() + Duration::from_secs(86_400),
        }
    }

    fn overdue(&mut self) -> Option<Outcome> {
        let (since, told) = self.lost.as_mut()?;
        if since.elapsed() >= self.resume_window {
            return Some(Outcome::Lost(format!(
                "the server could not be reached for {}; the session is given up",
                duration(self.resume_window)
            )));
        }
        *told = true;
        (self.note)("reconnecting; new connections wait, Ctrl-C leaves");
        None
    }

    /// Ends the session at the server.
    async fn end(&mut self) {
        let reason = EndReason::Terminated.as_str().to_owned();
        let end = Frame::End(End { reason, message: String::new(), exit: None });
        let Some(way) = self.road.open() else { return };
        if way.feed(&end).is_err() || !matches!(timeout(GOODBYE, way.flush()).await, Ok(Ok(()))) {
            return;
        }
        if let Road::Open(way) = std::mem::replace(&mut self.road, self.dialer.pause(None)) {
            way.connection.close().await;
        }
    }
}

/// This side has ended the session, as it was asked to.
pub(crate) fn ended() -> Outcome {
    Outcome::Ended {
        reason: Some(EndReason::Exited),
        message: String::new(),
        exit: Some(munjigi_core::session::ExitStatus::Code(0)),
    }
}
