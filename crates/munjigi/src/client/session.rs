//! The client's end of a session: keys and pipes in, output out, over as many links as it takes.
//!
//! One loop, one [`Event`]. What must survive a broken link is in `flow`; what is on the screen and on the keyboard is in
//! `stdio` and `terminal`. Nothing of ours goes to standard output.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use munjigi_core::session::{EndReason, OutputStream, Signal};
use munjigi_core::wire::message::{Accepted, End, Open, Refused};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use munjigi_link::{DialError, Refusal};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::context::Context;
use super::escape::{self, EscapeDetector, Typed};
use super::flow::{FlowError, InputBuffer, OutputCursor};
use super::road::{Dialer, Road, RoadEvent, Way, refusal_in, why};
use super::signals::{Came, Signals};
use super::stdio::{Screen, ScreenError, Source};
use super::terminal::{self, RawMode};
use super::text::{duration, escaped};
use super::wish::{self, Face, Outcome, Start};

/// Output that waits for standard output; when there is more, nothing is read from the link.
const MAX_UNSHOWN: usize = 128 * 1024;
/// Most bytes taken from the keyboard or pipe at once.
const MAX_TYPED: usize = 32 * 1024;
/// A loss that is over within this time is not worth a message.
const SILENT_LOSS: Duration = Duration::from_secs(1);
/// How long the start of a session may take in all, with repeated attempts if the link breaks in between.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a goodbye (`~.`, `~d`, a signal) waits for the server.
const GOODBYE: Duration = Duration::from_secs(2);
/// Ctrl-C as a terminal in raw mode sends it.
const INTERRUPT_KEY: u8 = 0x03;
/// How long a session lives without us when the server did not say.
const USUAL_RESUME_WINDOW: Duration = Duration::from_secs(600);

/// Everything that can happen to the loop.
enum Event {
    /// Standard input gave bytes, or its end.
    Typed(io::Result<Bytes>),
    /// Output was shown.
    Shown(Result<(), ScreenError>),
    /// Something on the way to the server.
    Road(RoadEvent),
    /// The window changed its size.
    WindowChanged,
    /// This process got a signal.
    Signalled(Signal),
    /// The moment that was waited for has come.
    Due,
}

/// Runs a session until it ends or is left.
pub(crate) async fn run(context: Arc<Context>, start: Start, face: Face) -> anyhow::Result<Outcome> {
    let signals = Signals::new().context("cannot wait for signals")?;
    let dialer = Dialer::new(context)?;
    // Standard input is read from the start: the first keys travel with the request.
    let mut client = Client::new(dialer.dial(None), dialer, start, face)?;
    client.escape = (face == Face::Terminal).then(EscapeDetector::default);
    client.run_with(signals).await
}

/// Goes on with a session on the stream that was just granted to it; nothing was sent on it yet. There are no escape
/// keys: whoever calls has a face of his own.
pub(crate) async fn carry(
    dialer: Dialer,
    way: Way,
    granted: Accepted,
    face: Face,
    signals: Signals,
) -> anyhow::Result<Outcome> {
    let start = Start::Attach { session_id: granted.session_id.clone(), from_start: true };
    let mut client = Client::new(Road::Open(Box::new(way)), dialer, start, face)?;
    match client.accepted(granted) {
        Next::Continue => client.run_with(signals).await,
        Next::Stop(outcome) => Ok(outcome),
    }
}

impl Client {
    fn new(road: Road, dialer: Dialer, start: Start, face: Face) -> anyhow::Result<Self> {
        Ok(Self {
            road,
            dialer,
            source: Some(Source::stdin().context("cannot read standard input")?),
            screen: Screen::new().context("cannot write to standard output")?,
            escape: None,
            token: Uuid::new_v4().to_string(),
            start,
            face,
            input: InputBuffer::default(),
            output: OutputCursor::default(),
            session: None,
            accepted: false,
            trouble: None,
            begun: Instant::now(),
        })
    }

    async fn run_with(mut self, mut signals: Signals) -> anyhow::Result<Outcome> {
        let raw =
            (self.face == Face::Terminal).then(RawMode::enter).transpose().context("cannot set up the terminal")?;
        let outcome = self.run(&mut signals).await;
        let Client { screen, road, .. } = self;
        let shown = tokio::select! {
            shown = screen.finish() => shown,
            // A signal while the last output waits for a reader that does not read.
            signal = signals.next_ending() => return Ok(Outcome::Interrupted(signal)),
        };
        drop(raw);
        drop(road);
        match shown {
            Err(error) if error.reader_is_gone() => Ok(outcome),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(outcome),
        }
    }
}

struct Client {
    dialer: Dialer,
    road: Road,
    /// Standard input until its end.
    source: Option<Source>,
    screen: Screen,
    escape: Option<EscapeDetector>,
    start: Start,
    /// Makes a repeated request the same one for the server.
    token: String,
    face: Face,
    input: InputBuffer,
    output: OutputCursor,
    /// The session, once it was accepted for the first time.
    session: Option<Session>,
    /// Whether the stream that is open was accepted.
    accepted: bool,
    /// Present while there is no working link to a session.
    trouble: Option<Trouble>,
    begun: Instant,
}

/// What is known of the session.
struct Session {
    id: String,
    resume_window: Duration,
}

/// A lost link.
struct Trouble {
    since: Instant,
    told: bool,
    /// Why the last attempt failed.
    last: String,
}

/// What the loop does next.
enum Next {
    Continue,
    Stop(Outcome),
}

impl Client {
    async fn run(&mut self, signals: &mut Signals) -> Outcome {
        loop {
            if let Err(error) = self.feed_input() {
                return Outcome::Lost(error.to_string());
            }
            let next = match self.next_event(signals).await {
                Event::Typed(typed) => self.typed(typed).await,
                Event::Shown(shown) => self.shown(shown).await,
                Event::Road(RoadEvent::Dialed(dialed)) => self.dialed(dialed),
                Event::Road(RoadEvent::Frame(frame)) => self.frame_came(frame),
                Event::Road(RoadEvent::Sent(sent)) => self.sent(sent),
                // The server opens streams for sessions with connections only.
                Event::Road(RoadEvent::Opened(_)) => Next::Continue,
                Event::Road(RoadEvent::PauseOver) => self.dial_again(),
                Event::WindowChanged => self.window_changed(),
                Event::Signalled(signal) => self.signalled(signal).await,
                Event::Due => self.due(),
            };
            if let Next::Stop(outcome) = next {
                return outcome;
            }
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Event {
        let wanted = (self.screen.pending() < MAX_UNSHOWN).then_some(if self.accepted {
            FrameSet::TO_CLIENT
        } else {
            FrameSet::ANSWER
        });
        // One byte less with escape keys: a tilde that was held back may come on top of what is read.
        let room = self.input.room().saturating_sub(usize::from(self.escape.is_some())).min(MAX_TYPED);
        let due = self.next_due();
        let Self { source, screen, road, .. } = self;
        tokio::select! {
            biased;
            came = signals.next() => match came {
                Came::WindowChanged => Event::WindowChanged,
                Came::Signal(signal) => Event::Signalled(signal),
            },
            typed = read(source, room), if source.is_some() && room > 0 => Event::Typed(typed),
            shown = screen.drain(), if screen.pending() > 0 => Event::Shown(shown),
            event = road.next(wanted) => Event::Road(event),
            () = sleep_until(due) => Event::Due,
        }
    }

    /// Hands input to the open stream as far as it takes it. Before the first answer this rides with the request;
    /// after a broken link it waits for the server to say from where.
    fn feed_input(&mut self) -> Result<(), munjigi_core::wire::FrameError> {
        let first_flight = self.session.is_none() && matches!(self.start, Start::New { .. });
        if !self.accepted && !first_flight {
            return Ok(());
        }
        let Some(way) = self.road.open() else { return Ok(()) };
        while way.has_room() {
            let Some(frame) = self.input.next_frame() else { break };
            way.feed(&frame)?;
        }
        Ok(())
    }

    async fn typed(&mut self, typed: io::Result<Bytes>) -> Next {
        let bytes = match typed {
            Ok(bytes) => bytes,
            Err(error) => {
                self.say(&format!("cannot read standard input: {error}; the program sees its end"));
                Bytes::new()
            }
        };
        if bytes.is_empty() {
            self.source = None;
            self.input.end();
            return Next::Continue;
        }
        let Some(escape) = &mut self.escape else {
            if self.face == Face::Terminal
                && self.trouble.as_ref().is_some_and(|trouble| trouble.told)
                && bytes.contains(&INTERRUPT_KEY)
            {
                return Next::Stop(Outcome::Left { running: self.session.as_ref().map(|session| session.id.clone()) });
            }
            self.input.push(&bytes);
            return Next::Continue;
        };
        for typed in escape.read(&bytes) {
            match typed {
                // While nothing has started, an interrupt is for us: raw mode took it from the terminal.
                Typed::Send(bytes) if self.session.is_none() && bytes.contains(&INTERRUPT_KEY) => {
                    return Next::Stop(Outcome::Interrupted(Signal::Interrupt));
                }
                Typed::Send(bytes) => {
                    self.input.push(&bytes);
                }
                Typed::Leave => return Next::Stop(self.leave().await),
                Typed::Detach => {
                    let left = self.detach().await;
                    return Next::Stop(
                        left.map_or(Outcome::Left { running: None }, |id| Outcome::Detached { session_id: id }),
                    );
                }
                Typed::Help => self.screen.push(OutputStream::Stderr, Bytes::from_static(escape::HELP.as_bytes())),
            }
        }
        Next::Continue
    }

    async fn shown(&mut self, shown: Result<(), ScreenError>) -> Next {
        match shown {
            Ok(()) => Next::Continue,
            Err(error) if error.reader_is_gone() && error.stream == OutputStream::Stdout => {
                self.say_goodbye(&terminated()).await;
                Next::Stop(Outcome::OutputClosed)
            }
            Err(error) => {
                self.say_goodbye(&terminated()).await;
                Next::Stop(Outcome::Lost(error.to_string()))
            }
        }
    }

    fn dialed(&mut self, dialed: Result<Way, DialError>) -> Next {
        let mut way = match dialed {
            Ok(way) => way,
            Err(DialError::Refused(refusal)) => return self.link_refused(&refusal),
            Err(error) => return self.attempt_failed(error.to_string()),
        };
        let pty = (self.face != Face::Pipes).then(terminal::pty);
        let wish = match &self.session {
            Some(session) => wish::resume(&session.id, self.output.received(), pty),
            None => self.start.wish(&self.token, pty),
        };
        if let Err(error) = way.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))) {
            return Next::Stop(Outcome::Lost(format!("the request is too large: {error}; shorten the command")));
        }
        self.input.rewind();
        self.accepted = false;
        self.road = Road::Open(Box::new(way));
        Next::Continue
    }

    fn frame_came(&mut self, frame: Result<Option<Frame>, FramedError>) -> Next {
        let frame = match frame {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.link_broke("the server closed the session's stream".to_owned()),
            Err(error) => {
                if let Some(refusal) = refusal_in(&error) {
                    return self.link_refused(&refusal);
                }
                return self.link_broke(why(&error));
            }
        };
        match frame {
            Frame::Accepted(accepted) => self.accepted(*accepted),
            Frame::Refused(refused) => self.refused(refused),
            Frame::Output { offset, stream, data } => self.output(offset, stream, data),
            Frame::InputAck(offset) => {
                let confirmed = self.input.confirm(offset);
                self.counted(confirmed)
            }
            Frame::InputWanted(offset) => {
                let wanted = self.input.send_again_from(offset);
                self.counted(wanted)
            }
            Frame::Notice(notice) => {
                self.say(&escaped(&notice.text));
                Next::Continue
            }
            Frame::End(end) => Next::Stop(Outcome::of(end)),
            // Only for watchers.
            _ => Next::Continue,
        }
    }

    fn accepted(&mut self, accepted: Accepted) -> Next {
        let resume_window = match accepted.resume_window_secs {
            0 => USUAL_RESUME_WINDOW,
            seconds => Duration::from_secs(seconds.into()),
        };
        let first = self.session.is_none();
        if first && matches!(self.start, Start::Attach { .. }) {
            // Others typed and read before us: our bytes count from where the session stands.
            self.input.start_at(accepted.input_from);
            self.output = OutputCursor::starting_at(accepted.output_from);
        } else if let Err(error) = if first {
            self.input.confirm(accepted.input_from)
        } else {
            self.input.send_again_from(accepted.input_from)
        } {
            return Next::Stop(Outcome::Lost(error.to_string()));
        }
        self.accepted = true;
        self.session = Some(Session { id: accepted.session_id, resume_window });
        if let Some(trouble) = self.trouble.take()
            && trouble.told
        {
            self.say(&format!("reconnected after {}", duration(trouble.since.elapsed())));
        }
        Next::Continue
    }

    fn refused(&mut self, refused: Refused) -> Next {
        let Refused { code, message, .. } = refused;
        Next::Stop(Outcome::Refused { code, message })
    }

    fn output(&mut self, offset: u64, stream: OutputStream, data: Bytes) -> Next {
        match self.output.take(offset, data) {
            Ok(new) if new.is_empty() => Next::Continue,
            Ok(new) => {
                self.screen.push(stream, new);
                Next::Continue
            }
            Err(error) => self.link_broke(error.to_string()),
        }
    }

    fn counted(&mut self, counted: Result<(), FlowError>) -> Next {
        match counted {
            Ok(()) => Next::Continue,
            Err(error) => Next::Stop(Outcome::Lost(error.to_string())),
        }
    }

    fn sent(&mut self, sent: Result<(), FramedError>) -> Next {
        match sent {
            Ok(()) => Next::Continue,
            // The reading side knows the reason better, and learns of it now.
            Err(error) if refusal_in(&error).is_some() => self.frame_came(Err(error)),
            Err(error) => self.link_broke(why(&error)),
        }
    }

    /// The link is gone: the session lives on at the server, and we come back to it.
    fn link_broke(&mut self, why: String) -> Next {
        let lasted = self.road.lasted();
        self.accepted = false;
        self.input.rewind();
        self.note_trouble(why);
        self.road = self.dialer.pause(lasted);
        Next::Continue
    }

    fn attempt_failed(&mut self, why: String) -> Next {
        if self.session.is_none() && self.trouble.is_none() {
            // Nothing was started: whoever typed the command knows soonest what is wrong.
            return Next::Stop(Outcome::Lost(why));
        }
        self.note_trouble(why);
        self.road = self.dialer.pause(None);
        Next::Continue
    }

    fn note_trouble(&mut self, why: String) {
        match &mut self.trouble {
            Some(trouble) => trouble.last = why,
            None => self.trouble = Some(Trouble { since: Instant::now(), told: false, last: why }),
        }
    }

    fn link_refused(&mut self, refusal: &Refusal) -> Next {
        // A server that is starting or shedding load says so with 5xx; everything else is an answer.
        if refusal.status >= 500 && self.session.is_some() {
            return self.attempt_failed(refusal.to_string());
        }
        Next::Stop(Outcome::Refused { code: refusal.code.clone(), message: refusal.message.clone() })
    }

    fn dial_again(&mut self) -> Next {
        self.road = self.dialer.dial(self.trouble.as_ref().map(|trouble| trouble.since.elapsed()));
        Next::Continue
    }

    fn window_changed(&mut self) -> Next {
        if self.face != Face::Terminal || !self.accepted {
            // The next request carries the size.
            return Next::Continue;
        }
        if let Some(size) = terminal::size() {
            self.feed_control(&Frame::Resize(size));
        }
        Next::Continue
    }

    /// Feeds a frame of a few bytes, also beyond the bound for input. Tells whether there was a stream for it.
    fn feed_control(&mut self, frame: &Frame) -> bool {
        self.road.open().is_some_and(|way| way.feed(frame).is_ok())
    }

    async fn signalled(&mut self, signal: Signal) -> Next {
        if self.session.is_none() {
            return Next::Stop(Outcome::Interrupted(signal));
        }
        if self.face == Face::Terminal && signal != Signal::Interrupt {
            // The terminal closes or this client is told to go: the session waits for us.
            return Next::Stop(Outcome::Left { running: self.detach().await });
        }
        if !self.accepted || !self.feed_control(&Frame::Signal(signal)) {
            return Next::Stop(Outcome::Left { running: self.detach().await });
        }
        Next::Continue
    }

    /// The moment at which something is to be said or given up.
    fn next_due(&self) -> Instant {
        match (&self.trouble, &self.session) {
            (Some(trouble), Some(_)) if !trouble.told => trouble.since + SILENT_LOSS,
            (Some(trouble), Some(session)) => trouble.since + session.resume_window,
            (_, None) => self.begun + START_LIMIT,
            // Nothing: a day is as good as never, and the loop asks again.
            (None, Some(_)) => Instant::now() + Duration::from_secs(86_400),
        }
    }

    fn due(&mut self) -> Next {
        let Some(session) = &self.session else {
            let why = match &self.trouble {
                Some(trouble) => trouble.last.clone(),
                None => "the server did not answer the request".to_owned(),
            };
            return Next::Stop(Outcome::Lost(format!(
                "{why}; no session was started within {}",
                duration(START_LIMIT)
            )));
        };
        let (id, window) = (session.id.clone(), session.resume_window);
        let Some(trouble) = &mut self.trouble else { return Next::Continue };
        if trouble.since.elapsed() >= window {
            let last = trouble.last.clone();
            return Next::Stop(Outcome::Lost(format!(
                "the server could not be reached for {} ({last}); the session {id} is given up",
                duration(window)
            )));
        }
        trouble.told = true;
        let last = trouble.last.clone();
        let leave = match self.face {
            Face::Terminal if self.escape.is_some() => "; ~. leaves",
            Face::Terminal => "; Ctrl-C leaves",
            Face::RemoteTerminal | Face::Pipes => "",
        };
        self.say(&format!(
            "reconnecting: {last}; what you type is kept and the session waits {}{leave}",
            duration(window)
        ));
        Next::Continue
    }

    /// `~.`: ends the session if the server hears it, leaves it otherwise.
    async fn leave(&mut self) -> Outcome {
        let heard = self.say_goodbye(&terminated()).await;
        let running = self.session.as_ref().filter(|_| !heard).map(|session| session.id.clone());
        Outcome::Left { running }
    }

    /// Leaves the session running and tells the server so, if it can be told.
    async fn detach(&mut self) -> Option<String> {
        self.say_goodbye(&Frame::Detach).await;
        self.session.as_ref().map(|session| session.id.clone())
    }

    /// Sends a last frame and waits, for a moment, until it is gone. Tells whether it was sent.
    async fn say_goodbye(&mut self, frame: &Frame) -> bool {
        if !self.accepted {
            return false;
        }
        let Some(way) = self.road.open() else { return false };
        if way.feed(frame).is_err() {
            return false;
        }
        let sent = tokio::time::timeout(GOODBYE, way.flush()).await;
        let Road::Open(way) = std::mem::replace(&mut self.road, self.dialer.pause(None)) else { return false };
        // Orderly, so that the frame is on its way before the process ends; bounded by the link itself.
        way.connection.close().await;
        matches!(sent, Ok(Ok(())))
    }

    /// A line of ours: on standard error, without disturbing a raw terminal.
    fn say(&mut self, text: &str) {
        let line = match self.face {
            Face::Terminal => format!("\r\nmunjigi: {text}\r\n"),
            Face::RemoteTerminal | Face::Pipes => format!("munjigi: {text}\n"),
        };
        self.screen.push(OutputStream::Stderr, line.into());
    }
}

async fn read(source: &mut Option<Source>, room: usize) -> io::Result<Bytes> {
    match source {
        Some(source) => source.read(room).await,
        None => std::future::pending().await,
    }
}

fn terminated() -> Frame {
    Frame::End(End { reason: EndReason::Terminated.as_str().to_owned(), message: String::new(), exit: None })
}
