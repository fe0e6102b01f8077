//! `munjigi watch`: follows a running session live, without typing into it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use munjigi_core::session::{EndReason, OutputStream};
use munjigi_core::wire::message::{AttachSession, Open, open::Wish};
use munjigi_core::wire::{Frame, FrameSet};
use tokio::time::Instant;

use super::{Finish, note, resolve, sessions};
use crate::cli::Where;
use crate::client::api::{Api, refusal_text};
use crate::client::context::Context;
use crate::client::flow::OutputCursor;
use crate::client::road::{Dialer, Road, RoadEvent, refusal_in, why};
use crate::client::sanitize::Sanitizer;
use crate::client::signals::Signals;
use crate::client::stdio::Screen;
use crate::client::text::escaped;

/// Output that waits for our standard output; when there is more, nothing is read from the link.
const MAX_UNSHOWN: usize = 128 * 1024;
/// How long to try to come back after the link broke.
const PATIENCE: Duration = Duration::from_secs(600);

/// Follow a running session live
#[derive(Debug, Args)]
#[command(after_help = "Example: munjigi watch alice-0123456789abcdef0\n\n\
    Ctrl-C leaves; the session goes on. The session's people see that somebody watches.\n\
    Escape sequences that could act on your terminal are not shown.")]
pub(crate) struct Arguments {
    /// The session's id, or its head
    session: String,
    /// Show only what comes from now on
    #[arg(long)]
    from_now: bool,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<Finish> {
    let context = resolve(&arguments.place)?;
    let session_id = sessions::find(&mut Api::new(context.clone())?, &arguments.session).await?.session_id;
    Watcher::new(context, session_id, arguments.from_now)?.run().await?;
    Ok(Finish::Done)
}

struct Watcher {
    dialer: Dialer,
    road: Road,
    screen: Screen,
    sanitizer: Sanitizer,
    session_id: String,
    from_now: bool,
    output: OutputCursor,
    accepted: bool,
    seen: bool,
    lost_since: Option<Instant>,
}

impl Watcher {
    fn new(context: Context, session_id: String, from_now: bool) -> anyhow::Result<Self> {
        let dialer = Dialer::new(Arc::new(context))?;
        Ok(Self {
            road: dialer.dial(None),
            dialer,
            screen: Screen::new().context("cannot write to standard output")?,
            sanitizer: Sanitizer::default(),
            session_id,
            from_now,
            output: OutputCursor::default(),
            accepted: false,
            seen: false,
            lost_since: None,
        })
    }

    async fn run(mut self) -> anyhow::Result<()> {
        let mut signals = Signals::new().context("cannot wait for signals")?;
        let mut over = false;
        while !over {
            let wanted = (self.screen.pending() < MAX_UNSHOWN).then_some(if self.accepted {
                FrameSet::TO_CLIENT
            } else {
                FrameSet::ANSWER
            });
            let Self { screen, road, .. } = &mut self;
            tokio::select! {
                biased;
                _ = signals.next_ending() => over = true,
                drained = screen.drain(), if screen.pending() > 0 => drained?,
                event = road.next(wanted) => over = self.handle(event)?,
            }
        }
        let mut rest = Vec::new();
        self.sanitizer.finish(&mut rest);
        self.screen.push(OutputStream::Stdout, rest.into());
        tokio::select! {
            finished = self.screen.finish() => finished?,
            _ = signals.next_ending() => {}
        }
        Ok(())
    }

    /// Acts on what happened; tells whether the session is over.
    fn handle(&mut self, event: RoadEvent) -> anyhow::Result<bool> {
        match event {
            RoadEvent::Dialed(Ok(mut way)) => {
                let wish = Wish::Attach(AttachSession {
                    session_id: self.session_id.clone(),
                    watch: true,
                    output_from: self.output.received(),
                    from_end: self.from_now && !self.seen,
                    pty: None,
                });
                way.feed(&Frame::Open(Box::new(Open { wish: Some(wish) })))?;
                self.road = Road::Open(Box::new(way));
            }
            RoadEvent::Dialed(Err(error)) if self.seen => self.lost(&error.to_string())?,
            RoadEvent::Dialed(Err(error)) => return Err(error.into()),
            RoadEvent::Frame(Ok(Some(frame))) => return self.frame(frame),
            RoadEvent::Frame(Ok(None)) => self.lost("the server closed the stream")?,
            RoadEvent::Frame(Err(error)) | RoadEvent::Sent(Err(error)) => match refusal_in(&error) {
                Some(refusal) => bail!("{}", refusal_text(&refusal.code, &refusal.message)),
                None => self.lost(&why(&error))?,
            },
            RoadEvent::Sent(Ok(())) => {}
            // The server opens streams for sessions with connections only.
            RoadEvent::Opened(_) => {}
            RoadEvent::PauseOver => self.road = self.dialer.dial(self.lost_since.map(|since| since.elapsed())),
        }
        Ok(false)
    }

    fn frame(&mut self, frame: Frame) -> anyhow::Result<bool> {
        match frame {
            Frame::Accepted(accepted) => {
                if !self.seen {
                    self.output = OutputCursor::starting_at(accepted.output_from);
                }
                (self.accepted, self.seen, self.lost_since) = (true, true, None);
            }
            Frame::Refused(refused) => bail!("{}", refusal_text(&refused.code, &refused.message)),
            Frame::Output { offset, stream: _, data } => {
                let new = self.output.take(offset, data)?;
                let mut safe = Vec::new();
                self.sanitizer.filter(&new, &mut safe);
                self.screen.push(OutputStream::Stdout, Bytes::from(safe));
            }
            Frame::End(end) => {
                let why = EndReason::parse(&end.reason).map_or("the session ended", EndReason::sentence);
                note(&format!("munjigi: {why}"));
                return Ok(true);
            }
            Frame::Notice(notice) => note(&format!("munjigi: {}", escaped(&notice.text))),
            // The size of the session's terminal, and what is for whoever types.
            _ => {}
        }
        Ok(false)
    }

    fn lost(&mut self, why: &str) -> anyhow::Result<()> {
        let since = *self.lost_since.get_or_insert_with(|| {
            note(&format!("munjigi: reconnecting: {why}"));
            Instant::now()
        });
        if since.elapsed() > PATIENCE {
            bail!("the server could not be reached for {} s: {why}", PATIENCE.as_secs());
        }
        let lasted = self.road.lasted();
        self.accepted = false;
        self.road = self.dialer.pause(lasted);
        Ok(())
    }
}
