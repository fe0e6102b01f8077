//! The plugin in AWS's protocol: a data channel to whichever service StartSession named, AWS's or ours.

mod calls;
mod connecting;
mod data_channel;
mod handshake;
mod port_mux;
mod port_single;
mod ports;
mod shell;

use std::io;
use std::rc::Rc;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use munjigi_core::session::Signal;
use munjigi_core::wire::aws::{ChannelLimits, PayloadType};
use uuid::Uuid;

use self::calls::Calls;
use self::connecting::Dialer;
use self::data_channel::{DataChannel, Happened};
use self::handshake::{Handshake, Kind, PortKind, PortMode, Step};
use self::shell::Begun;
use super::arguments::Handover;
use super::note;
use super::words::Words;
use crate::client::context::Surroundings;
use crate::client::signals::{Came, Signals};
use crate::client::text::escaped;
use crate::command::Finish;

/// The document of AWS that runs one command on a terminal.
const INTERACTIVE_DOCUMENT: &str = "AWS-StartInteractiveCommand";
/// Our own failures, as `ssh` has it.
const FAILED: u8 = 255;

/// How a session ended.
pub(crate) struct End {
    how: Ended,
    /// The remote program's exit status, where the service told it.
    exit: Option<i32>,
    /// The channel, for last words.
    channel: Option<DataChannel>,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The service ended it, with its reason if it gave one.
    Closed(String),
    /// It was over when this side came back to it.
    Gone,
    /// It could not be carried on, and why.
    Failed(String),
    /// The person left it running.
    Left,
    /// A signal ended this program.
    Interrupted(Signal),
    /// Nobody reads standard output any more.
    OutputClosed,
    /// Standard input, one end of a port session's connection, has ended.
    NoInput,
}

/// Carries a session over a data channel.
pub(crate) async fn run(handover: &Handover, around: Surroundings) -> anyhow::Result<Finish> {
    let words = Words::of(&handover.session_id);
    let calls = Rc::new(Calls::new(handover, around)?);
    let dialer = Dialer::new(handover, calls.clone())?;
    let limits =
        if super::is_aws(&handover.stream_url) { ChannelLimits::towards_aws() } else { ChannelLimits::towards_agent() };
    let mut channel = DataChannel::open(dialer, limits, Uuid::new_v4().into_bytes());
    let mut signals = Signals::of_plugin().context("cannot wait for signals")?;
    let mut handshake = Handshake::default();
    let opened = match &handover.document {
        // These are shells for certain: no key is lost while the service makes its mind up, and a program that waits
        // for a key before it says anything gets it.
        None => Opened::Shell(Begun { terminal: true, first: None }),
        Some(name) if name == INTERACTIVE_DOCUMENT => Opened::Shell(Begun { terminal: true, first: None }),
        Some(_) => opening(&mut channel, &mut handshake, &mut signals).await,
    };
    let end = match opened {
        Opened::Shell(begun) => {
            words.starting()?;
            shell::run(channel, handshake, begun, &mut signals).await?
        }
        Opened::Port(port) => {
            let end = ports::run(channel, &port, &words, &calls, &mut signals).await?;
            return finish_port(end, &port, &words);
        }
        Opened::Not(how) => End { how, exit: None, channel: Some(channel) },
    };
    finish(end, &words, &calls, &handover.session_id).await
}

/// How a session begins.
enum Opened {
    Shell(Begun),
    Port(Box<PortKind>),
    Not(Ended),
}

/// Waits until it is known what kind of session it is.
async fn opening(channel: &mut DataChannel, handshake: &mut Handshake, signals: &mut Signals) -> Opened {
    loop {
        let happened = tokio::select! {
            came = signals.next() => match came {
                Came::Signal(signal) => return Opened::Not(Ended::Interrupted(signal)),
                Came::WindowChanged => continue,
            },
            happened = channel.next(true) => happened,
        };
        let (kind, payload) = match happened {
            Happened::Delivered(kind, payload) => (kind, payload),
            Happened::Room => continue,
            Happened::Say(text) => {
                note(&text);
                continue;
            }
            Happened::Closed(why) => return Opened::Not(Ended::Closed(why)),
            Happened::Gone => return Opened::Not(Ended::Gone),
            Happened::Failed(why) => return Opened::Not(Ended::Failed(why)),
        };
        let step = match kind {
            PayloadType::HandshakeRequest => handshake.requested(&payload),
            PayloadType::HandshakeComplete => handshake.completed(&payload),
            // Output without a handshake: a shell.
            PayloadType::Output => return Opened::Shell(Begun { terminal: true, first: Some(payload) }),
            other => {
                tracing::debug!(?other, "a payload before the session has begun");
                continue;
            }
        };
        match step {
            Step::Respond(response) => respond(channel, response),
            Step::RespondAndFail(response, why) => {
                respond(channel, response);
                return Opened::Not(Ended::Failed(why));
            }
            Step::Begin(kind, words) => return begun(kind, words),
            Step::Fail(why) => return Opened::Not(Ended::Failed(why)),
        }
    }
}

fn respond(channel: &mut DataChannel, response: Bytes) {
    if let Err(error) = channel.queue(PayloadType::HandshakeResponse, response) {
        // The first thing in an empty queue.
        tracing::error!(%error, "the handshake could not be answered");
    }
}

fn begun(kind: Kind, words: Option<String>) -> Opened {
    match kind {
        Kind::Shell { terminal } => {
            Opened::Shell(Begun { terminal, first: words.map(|words| Bytes::from(words + "\n")) })
        }
        Kind::Port(port) => {
            // Not on standard output, which may be the connection itself.
            words.iter().for_each(|words| note(&escaped(words)));
            Opened::Port(Box::new(port))
        }
    }
}

/// Says how a port session ended, and makes an exit status of it.
fn finish_port(end: End, port: &PortKind, words: &Words) -> anyhow::Result<Finish> {
    let on_stdio = port.mode == PortMode::Stdio;
    match end.how {
        Ended::Interrupted(signal) => {
            if on_stdio {
                return Ok(Finish::Status(128 + signal.to_byte()));
            }
            words.terminating()?;
            words.exiting()?;
            Ok(Finish::Done)
        }
        Ended::Closed(why) if why.is_empty() => {
            if !on_stdio {
                words.exiting()?;
            }
            Ok(Finish::Done)
        }
        Ended::Closed(why) if on_stdio => bail!("the session has ended: {}", escaped(&why)),
        Ended::Closed(why) => {
            words.ended(&why)?;
            Ok(Finish::Status(FAILED))
        }
        Ended::Gone => bail!("the session was over when the connection was back"),
        Ended::Failed(why) => bail!(why),
        Ended::Left => Ok(Finish::Status(FAILED)),
        Ended::NoInput | Ended::OutputClosed => Ok(Finish::Done),
    }
}

/// Says how the session ended, and makes an exit status of it.
async fn finish(end: End, words: &Words, calls: &Calls, session_id: &str) -> anyhow::Result<Finish> {
    let End { how, exit, channel } = end;
    match how {
        Ended::Closed(why) => {
            if why.is_empty() { words.exiting() } else { words.ended(&why) }?;
            let unknown = if why.is_empty() { 0 } else { FAILED };
            // What a shell would show: the low eight bits.
            Ok(Finish::Status(exit.map_or(unknown, |code| (code & 0xff) as u8)))
        }
        Ended::Gone => {
            words.timed_out()?;
            Ok(Finish::Status(FAILED))
        }
        Ended::Failed(why) => {
            if let Some(channel) = channel {
                // A response of the handshake may still be on its way: it ends the session at the other end.
                channel.finish().await;
            }
            bail!(why)
        }
        Ended::Left => {
            note(&format!("left the session {session_id} running; it ends after its idle time"));
            Ok(Finish::Status(FAILED))
        }
        Ended::Interrupted(signal) => {
            note(&format!("left the session {session_id} running; it ends after its idle time"));
            Ok(Finish::Status(128 + signal.to_byte()))
        }
        Ended::OutputClosed | Ended::NoInput => {
            if let Err(error) = calls.terminate().await {
                note(&format!("the session {session_id} could not be ended: {error}"));
            }
            Err(io::Error::from(io::ErrorKind::BrokenPipe).into())
        }
    }
}
