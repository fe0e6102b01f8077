//! A shell or command on a data channel: the terminal's keys and size there, output, standard error and exit status
//! here.
//!
//! The loop of [`client::session`](crate::client::session) in AWS's words: this protocol knows neither the end of
//! standard input nor signals, only bytes and sizes.

use std::io;

use anyhow::Context as _;
use bytes::Bytes;
use munjigi_core::session::{OutputStream, Signal};
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::{self, Size};

use super::data_channel::{DataChannel, Happened};
use super::handshake::{Handshake, Kind, Step};
use super::{End, Ended};
use crate::client::signals::{Came, Signals};
use crate::client::stdio::{Screen, ScreenError, Source};
use crate::client::terminal::{self, RawMode};

/// Output that waits for standard output; when there is more, nothing is taken from the channel.
const MAX_UNSHOWN: usize = 128 * 1024;
/// Most bytes taken from the keyboard or pipe at once.
const MAX_TYPED: usize = 16 * 1024;
/// Size of a terminal that nobody has, as the original gives it.
const SIZE_WITHOUT_TERMINAL: Size = Size { cols: 300, rows: 100 };
/// The keys of the three signals, as a terminal in raw mode sends them.
const INTERRUPT_KEY: u8 = 0x03;
const QUIT_KEY: u8 = 0x1c;
/// What a terminal reads as the end of its input.
const END_KEY: u8 = 0x04;

/// Everything that can happen to the loop.
enum Event {
    Typed(io::Result<Bytes>),
    Shown(Result<(), ScreenError>),
    Channel(Happened),
    Came(Came),
}

/// Carries the session to its end.
pub(crate) async fn run(
    channel: DataChannel,
    handshake: Handshake,
    begun: Begun,
    signals: &mut Signals,
) -> anyhow::Result<End> {
    let with_terminal = begun.terminal;
    let mut shell = Shell {
        channel,
        handshake,
        source: Some(Source::stdin().context("cannot read standard input")?),
        screen: Screen::new().context("cannot write to standard output")?,
        terminal: with_terminal,
        raw: None,
        size: None,
        exit: None,
    };
    if with_terminal && terminal::stdin_is_terminal() {
        shell.raw = Some(RawMode::enter().context("cannot set up the terminal")?);
    }
    if let Some(first) = begun.first {
        shell.screen.push(OutputStream::Stdout, first);
    }
    shell.tell_size();
    let ended = shell.run(signals).await;
    let Shell { channel, screen, raw, exit, .. } = shell;
    let shown = tokio::select! {
        shown = screen.finish() => shown,
        // A signal while the last output waits for a reader that does not read.
        signal = signals.next_ending() => return Ok(End { how: Ended::Interrupted(signal), exit, channel: None }),
    };
    drop(raw);
    match shown {
        Err(error) if !error.reader_is_gone() => Err(error.into()),
        _ => Ok(End { how: ended, exit, channel: Some(channel) }),
    }
}

/// What is known when the shell begins.
pub(crate) struct Begun {
    /// Whether the program has a terminal.
    pub(crate) terminal: bool,
    /// Output that came with the beginning.
    pub(crate) first: Option<Bytes>,
}

struct Shell {
    channel: DataChannel,
    /// Goes on if the session began before a handshake came.
    handshake: Handshake,
    /// Standard input until its end.
    source: Option<Source>,
    screen: Screen,
    /// Whether the program has a terminal.
    terminal: bool,
    raw: Option<RawMode>,
    /// The size last told.
    size: Option<Size>,
    exit: Option<i32>,
}

impl Shell {
    async fn run(&mut self, signals: &mut Signals) -> Ended {
        loop {
            let event = self.next_event(signals).await;
            let ended = match event {
                Event::Typed(typed) => self.typed(typed),
                Event::Shown(Ok(())) => None,
                Event::Shown(Err(error)) if error.reader_is_gone() && error.stream == OutputStream::Stdout => {
                    Some(Ended::OutputClosed)
                }
                Event::Shown(Err(error)) => Some(Ended::Failed(error.to_string())),
                Event::Channel(happened) => self.happened(happened),
                Event::Came(Came::WindowChanged) => {
                    self.tell_size();
                    None
                }
                Event::Came(Came::Signal(signal)) => self.signalled(signal),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> Event {
        let wanted = self.screen.pending() < MAX_UNSHOWN;
        let room = self.channel.room().min(MAX_TYPED);
        let Self { source, screen, channel, .. } = self;
        tokio::select! {
            biased;
            came = signals.next() => Event::Came(came),
            typed = read(source, room), if source.is_some() && room > 0 => Event::Typed(typed),
            shown = screen.drain(), if screen.pending() > 0 => Event::Shown(shown),
            happened = channel.next(wanted) => Event::Channel(happened),
        }
    }

    fn typed(&mut self, typed: io::Result<Bytes>) -> Option<Ended> {
        let bytes = match typed {
            Ok(bytes) => bytes,
            Err(error) => {
                self.say(&format!("cannot read standard input: {error}; the program sees its end"));
                Bytes::new()
            }
        };
        if bytes.is_empty() {
            self.source = None;
            // The protocol has no word for the end of the input; a terminal has a key. A command without a terminal
            // reads no input at all.
            if self.terminal {
                self.send_key(END_KEY);
            }
            return None;
        }
        if self.raw.is_some() && self.channel.is_lost() && bytes.contains(&INTERRUPT_KEY) {
            return Some(Ended::Left);
        }
        self.send(bytes);
        None
    }

    fn signalled(&mut self, signal: Signal) -> Option<Ended> {
        match signal {
            Signal::Interrupt if !self.channel.is_lost() => self.send_key(INTERRUPT_KEY),
            Signal::Quit if !self.channel.is_lost() => self.send_key(QUIT_KEY),
            // The terminal closes or this program is told to go: the session waits.
            Signal::Interrupt | Signal::Quit => return Some(Ended::Left),
            other => return Some(Ended::Interrupted(other)),
        }
        None
    }

    fn happened(&mut self, happened: Happened) -> Option<Ended> {
        match happened {
            Happened::Delivered(kind, payload) => self.delivered(kind, payload),
            Happened::Room => None,
            Happened::Say(text) => {
                self.say(&text);
                None
            }
            Happened::Closed(why) => Some(Ended::Closed(why)),
            Happened::Gone => Some(Ended::Gone),
            Happened::Failed(why) => Some(Ended::Failed(why)),
        }
    }

    fn delivered(&mut self, kind: PayloadType, payload: Bytes) -> Option<Ended> {
        match kind {
            PayloadType::Output => self.screen.push(OutputStream::Stdout, payload),
            PayloadType::StdErr => self.screen.push(OutputStream::Stderr, payload),
            PayloadType::ExitCode => self.exit = payload::parse_exit_code(&payload).or(self.exit),
            PayloadType::HandshakeRequest => return self.step(|handshake| handshake.requested(&payload)),
            PayloadType::HandshakeComplete => return self.step(|handshake| handshake.completed(&payload)),
            other => tracing::debug!(?other, "a payload that a shell has no use for"),
        }
        None
    }

    /// Goes on with a handshake that came after the session was taken for a shell.
    fn step(&mut self, take: impl FnOnce(&mut Handshake) -> Step) -> Option<Ended> {
        match take(&mut self.handshake) {
            Step::Respond(response) => self.queue(PayloadType::HandshakeResponse, response),
            Step::RespondAndFail(response, why) => {
                self.queue(PayloadType::HandshakeResponse, response);
                return Some(Ended::Failed(why));
            }
            Step::Begin(Kind::Shell { .. }, words) => {
                if let Some(words) = words {
                    self.screen.push(OutputStream::Stdout, (words + "\r\n").into());
                }
                // What was sent before was for nobody.
                self.size = None;
                self.tell_size();
            }
            Step::Begin(Kind::Port(_), _) => {
                return Some(Ended::Failed("the service makes a port session of what was begun as a shell".to_owned()));
            }
            Step::Fail(why) => return Some(Ended::Failed(why)),
        }
        None
    }

    /// Tells the size if it is another one than last told.
    fn tell_size(&mut self) {
        if !self.terminal {
            return;
        }
        let size = terminal::size()
            .map_or(SIZE_WITHOUT_TERMINAL, |size| Size { cols: size.columns.into(), rows: size.rows.into() });
        if self.size.replace(size) != Some(size) {
            self.queue(PayloadType::Size, payload::json(&size));
        }
    }

    fn send_key(&mut self, key: u8) {
        self.send(Bytes::copy_from_slice(&[key]));
    }

    fn send(&mut self, bytes: Bytes) {
        self.queue(PayloadType::Output, bytes);
    }

    fn queue(&mut self, kind: PayloadType, payload: Bytes) {
        if let Err(error) = self.channel.queue(kind, payload) {
            // Keys are read only while there is room; a size or an interrupt may come on top of a full queue.
            tracing::debug!(%error, ?kind, "not sent");
        }
    }

    /// A line of ours: on standard error, without disturbing a raw terminal.
    fn say(&mut self, text: &str) {
        let line = match self.raw {
            Some(_) => format!("\r\nmunjigi: {text}\r\n"),
            None => format!("munjigi: {text}\n"),
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
