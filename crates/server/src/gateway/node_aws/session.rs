//! One session on AWS's agent: our agent's side of the protocol towards the hub, a client's side of the data channel
//! towards the agent.
//!
//! The data channel's numbers outlive its connections, so a connection that breaks costs nothing if the agent comes
//! back; meanwhile the hub sees a node that says nothing. What the hub does not take is not taken from the channel
//! either, and the agent is asked to pause.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use munjigi_core::grant::Grant;
use munjigi_core::session::Signal;
use munjigi_core::wire::aws::payload::{AgentSessionState, AgentTaskComplete, json, parse};
use munjigi_core::wire::aws::{AgentMessage, Channel, ChannelLimits, MessageType, Millis, PayloadType, Reader, Role};
use munjigi_core::wire::message::{Pty, Refused, StartOnNode, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::order::{self, Kind};
use super::{ARRIVALS, Arrival, AwsLink, Live, channel_closed};
use crate::gateway::close_in_background;
use crate::gateway::peer::FrameStream;
use crate::gateway::websocket::{Event, Message, WebSocket};
use crate::{Server, lock, random};

mod to_agent;
mod to_hub;

/// How long the hub may take to say what the stream is for; it does so at once.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// How long AWS's agent may take to open the data channel of a session that it was told to start.
const DATA_CHANNEL_LIMIT: Duration = Duration::from_secs(11);
/// How long a session counts as starting once its data channel stands, unless its program says something earlier: what
/// the agent cannot start (an OS user that does not exist) it reports within this time, and the person gets the reason.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a session outlives its data channel's connection. The agent tries six times, for about ten seconds.
const AWAY_LIMIT: Duration = Duration::from_secs(60);
/// How long the agent may take to say on its control channel that a session is over, after it said so on the data
/// channel or was told to end it.
const COMPLETE_LIMIT: Duration = Duration::from_secs(10);
/// How long the hub may take to write down the end.
const FAREWELL_LIMIT: Duration = Duration::from_secs(60);
/// Output that may wait for the hub before the agent is asked to pause, bytes.
const OUTPUT_AHEAD: usize = 64 * 1024;
/// Output that may still wait when the agent is asked to go on, bytes.
const OUTPUT_RESUMED: usize = 16 * 1024;
/// Output taken from the channel, and thereby acknowledged, though it has to wait, bytes: what was on its way when the
/// agent was asked to pause. An agent that ends waits for acknowledgements for two seconds and then throws away the rest.
const OUTPUT_MOST: usize = 512 * 1024;
/// How long the data channel is read on after the agent said on the other channel that the session is over, and after
/// each message that still comes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long it is read on in all.
const LAST_WORDS_MOST: Duration = Duration::from_secs(30);
/// Input and the like that may wait for the channel, bytes. A client sends at most 256 KiB unacknowledged.
const INPUT_FULL: usize = 512 * 1024;
/// Pieces of it.
const MAX_OUTGOING: usize = 16 * 1024;
/// Messages that cannot be read before the connection is dropped.
const MAX_BROKEN: u32 = 16;
/// End of file, interrupt and quit as keys on a terminal.
const END_OF_FILE: &[u8] = b"\x04";
const INTERRUPT: &[u8] = b"\x03";
const QUIT: &[u8] = b"\x1c";

/// Serves the hub's stream until the session is over for both sides.
pub(super) async fn serve(server: &Arc<Server>, link: &AwsLink, mut stream: FrameStream) {
    let opened = tokio::time::timeout(OPEN_LIMIT, stream.reader.read(FrameSet::OPENING)).await;
    let Ok(Ok(Some(Frame::Open(open)))) = opened else { return };
    let Some(open::Wish::Start(start)) = open.wish else {
        let message = "AWS's agent on this node can do no more than shells and commands; install Munjigi's own agent";
        return refuse(stream, "UnsupportedWish", message);
    };
    let grant = match link.admit(&start.grant) {
        Ok(grant) => grant,
        Err(error) => return refuse(stream, "GrantRefused", &error.to_string()),
    };
    let (kind, order) = match order::order(&grant) {
        Ok(order) => order,
        Err(why) => return refuse(stream, "AccessDeniedException", why),
    };
    let (arrivals_tx, arrivals) = mpsc::channel(ARRIVALS);
    let live = Live { node: link.node.clone(), arrivals: arrivals_tx };
    lock(&server.gateway.aws.sessions).insert(grant.session.clone(), live);
    if link.send(MessageType::InteractiveShell, json(&order)).await {
        let mut session = Session::new(link, grant.clone(), kind, &start, stream, arrivals);
        // A server that stops leaves the program to its agent, which ends it when it cannot come back.
        server.stop.run_until_cancelled(session.run()).await;
        if session.complete.is_none() {
            link.send(MessageType::ChannelClosed, channel_closed(&grant.session, &link.node, "")).await;
        }
        close_in_background(session.stream);
    } else {
        refuse(stream, "TargetNotConnected", "the control channel of AWS's agent on the node takes no message");
    }
    lock(&server.gateway.aws.sessions).remove(&grant.session);
}

fn refuse(mut stream: FrameStream, code: &str, message: &str) {
    let (code, message) = (code.to_owned(), message.to_owned());
    stream.feed(&Frame::Refused(Refused { code, message, ..Refused::default() }));
    close_in_background(stream);
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The agent has not opened the data channel.
    Ordered,
    /// It has; whether the program runs will show.
    Settling,
    /// The program runs.
    Running,
    /// The end was told to the hub.
    Told,
}

/// Everything that can happen to a session.
enum Happened {
    Frame(Result<Option<Frame>, FramedError>),
    Flushed(Result<(), FramedError>),
    Socket(Result<Event, crate::gateway::websocket::WebSocketError>),
    Arrived(Option<Arrival>),
    TimePassed,
}

/// Whether the session goes on.
type Goes = std::ops::ControlFlow<()>;

struct Session<'l> {
    link: &'l AwsLink,
    grant: Grant,
    kind: Kind,
    stream: FrameStream,
    /// From the node's control channel and the door of data channels.
    arrivals: mpsc::Receiver<Arrival>,
    socket: Option<Box<WebSocket>>,
    channel: Channel,
    /// Zero of the channel's clock.
    begun: Instant,
    phase: Phase,
    /// When the phase, or a wait within it, is over.
    until: Option<Instant>,
    /// The next message for the socket.
    next: Option<Bytes>,
    /// The newest message outside the numbering, if it waits for the socket.
    aside: Option<Bytes>,
    paused: bool,
    output_end: u64,
    /// What waits for room in the channel, with where the input ends behind it.
    outgoing: VecDeque<(PayloadType, Bytes, u64)>,
    outgoing_bytes: usize,
    input_end: u64,
    input_acked: u64,
    /// For each queued message that is not acknowledged: where the input ends with it.
    unacknowledged: VecDeque<u64>,
    exit: Option<i32>,
    ending: bool,
    /// The agent has said on the data channel that nothing more comes.
    said_all: bool,
    complete: Option<AgentTaskComplete>,
    /// When the data channel of a session that is over is read no more, whatever still comes.
    last_words: Option<Instant>,
    broken: u32,
}

impl<'l> Session<'l> {
    fn new(
        link: &'l AwsLink,
        grant: Grant,
        kind: Kind,
        start: &StartOnNode,
        stream: FrameStream,
        arrivals: mpsc::Receiver<Arrival>,
    ) -> Self {
        let now = Instant::now();
        let mut session = Self {
            link,
            grant,
            kind,
            stream,
            arrivals,
            socket: None,
            channel: Channel::new(Role::Client, random::bytes(), ChannelLimits::towards_agent()),
            begun: now,
            phase: Phase::Ordered,
            until: Some(now + DATA_CHANNEL_LIMIT),
            next: None,
            aside: None,
            paused: false,
            output_end: 0,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            input_end: 0,
            input_acked: 0,
            unacknowledged: VecDeque::new(),
            exit: None,
            ending: false,
            said_all: false,
            complete: None,
            last_words: None,
            broken: 0,
        };
        session.channel.pause();
        if let Some(size) = start.pty.as_ref().and_then(Pty::size).filter(|_| kind.has_terminal()) {
            session.resize(size.columns, size.rows);
        }
        session
    }

    async fn run(&mut self) {
        loop {
            self.deliver();
            self.acknowledge_input();
            self.fill();
            self.prepare();
            let goes = match self.next().await {
                Happened::Frame(Ok(Some(frame))) => self.heard_hub(frame).await,
                // The hub is gone, or speaks nonsense: the session ends on the node too.
                Happened::Frame(Ok(None) | Err(_)) | Happened::Flushed(Err(_)) => Goes::Break(()),
                Happened::Flushed(Ok(())) => Goes::Continue(()),
                Happened::Socket(Ok(Event::Writable)) => self.write(),
                Happened::Socket(Ok(Event::Received(message))) => self.heard_agent(message),
                Happened::Socket(Err(error)) => self.lose_socket(&error.to_string()),
                Happened::Arrived(Some(arrival)) => self.arrived(arrival),
                Happened::Arrived(None) => Goes::Break(()),
                Happened::TimePassed => self.time_passed(),
            };
            if goes.is_break() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Happened {
        let timer = self.due();
        let wants_to_send = self.next.is_some();
        let Self { stream, socket, arrivals, .. } = self;
        let FrameStream { reader, writer, .. } = stream;
        let unsent = !writer.is_flushed();
        tokio::select! {
            biased;
            flushed = writer.flush(), if unsent => Happened::Flushed(flushed),
            frame = reader.read(FrameSet::TO_AGENT) => Happened::Frame(frame),
            arrival = arrivals.recv() => Happened::Arrived(arrival),
            event = event(socket.as_deref_mut(), wants_to_send) => Happened::Socket(event),
            () = sleep_until(timer) => Happened::TimePassed,
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Returns when something is to be done though nothing happens.
    fn due(&self) -> Option<Instant> {
        let has_socket = self.socket.is_some() && self.next.is_none();
        let channel = self.channel.next_timeout().filter(|_| has_socket);
        let channel = channel.map(|at| self.begun + Duration::from_millis(at.0.max(self.now().0.saturating_add(1))));
        [self.until, channel].into_iter().flatten().min()
    }

    async fn heard_hub(&mut self, frame: Frame) -> Goes {
        match frame {
            Frame::Input { offset, data } if offset == self.input_end => {
                let length = data.len() as u64;
                if self.queue(PayloadType::Output, data) {
                    self.input_end += length;
                }
            }
            Frame::InputEnd { .. } if self.kind.has_terminal() => self.key(END_OF_FILE),
            Frame::Resize(size) if self.kind.has_terminal() => self.resize(size.columns, size.rows),
            Frame::Signal(Signal::Interrupt) => self.key(INTERRUPT),
            Frame::Signal(Signal::Quit) => self.key(QUIT),
            Frame::Signal(Signal::Hangup | Signal::Terminate | Signal::Kill) => self.end("").await,
            Frame::Signal(Signal::User1 | Signal::User2) => {
                self.notify("AWS's agent cannot give this signal to the program");
            }
            Frame::End(_) if self.phase == Phase::Told => return Goes::Break(()),
            Frame::End(end) => self.end(&end.message).await,
            // Acknowledged output is nothing to this agent, and input out of turn cannot be.
            _ => {}
        }
        Goes::Continue(())
    }

    /// Has the agent end the session, by both channels: either may be gone.
    async fn end(&mut self, reason: &str) {
        if self.ending || self.phase == Phase::Told {
            return;
        }
        self.ending = true;
        self.until = Some(Instant::now() + COMPLETE_LIMIT);
        let payload = channel_closed(&self.grant.session, &self.link.node, reason);
        self.link.send(MessageType::ChannelClosed, payload).await;
    }

    fn heard_agent(&mut self, message: Message) -> Goes {
        let decoded = match message {
            Message::Binary(bytes) => AgentMessage::decode(bytes, Reader::Agent).ok(),
            Message::Text(_) => None,
        };
        let now = self.now();
        let understood = match decoded {
            Some(message) if message.kind == MessageType::AgentSessionState => self.state(&message.payload),
            Some(message) => self.channel.receive(message, now).is_ok(),
            None => false,
        };
        if let Some(most) = self.last_words {
            self.until = Some(most.min(Instant::now() + LAST_WORDS));
        }
        self.broken += u32::from(!understood);
        if self.broken >= MAX_BROKEN {
            return self.lose_socket("too many messages that are none of a data channel");
        }
        Goes::Continue(())
    }

    fn state(&mut self, payload: &[u8]) -> bool {
        let Ok(state) = parse::<AgentSessionState>("session state", payload) else { return false };
        if state.session_state == "Terminating" {
            self.said_all = true;
            if self.complete.is_none() && !self.ending {
                self.ending = true;
                self.until = Some(Instant::now() + COMPLETE_LIMIT);
            }
        }
        true
    }

    fn arrived(&mut self, arrival: Arrival) -> Goes {
        match arrival {
            Arrival::DataChannel(socket) => {
                self.socket = Some(socket);
                self.next = None;
                self.aside = None;
                self.paused = false;
                self.broken = 0;
                let now = self.now();
                self.channel.resume(now);
                if self.phase == Phase::Ordered {
                    self.phase = Phase::Settling;
                    self.until = Some(Instant::now() + SETTLE);
                } else if self.phase == Phase::Running && !self.ending {
                    self.until = None;
                    self.notify("the node is reachable again");
                }
            }
            Arrival::Complete(complete) if self.phase != Phase::Told => {
                self.complete.get_or_insert(*complete);
                let now = Instant::now();
                self.last_words.get_or_insert(now + LAST_WORDS_MOST);
                self.until = Some(now + LAST_WORDS);
            }
            Arrival::Complete(_) => {}
        }
        Goes::Continue(())
    }

    fn lose_socket(&mut self, why: &str) -> Goes {
        tracing::debug!(session = %self.grant.session, why, "a data channel's connection ended");
        self.socket = None;
        self.next = None;
        self.channel.pause();
        if self.phase == Phase::Running && !self.ending && self.complete.is_none() {
            self.until = Some(Instant::now() + AWAY_LIMIT);
            self.notify("the node is out of reach; the session goes on when it is back");
        }
        Goes::Continue(())
    }

    fn time_passed(&mut self) -> Goes {
        if self.until.is_none_or(|until| Instant::now() < until) {
            // Only the channel had something to do: `prepare` does it.
            return Goes::Continue(());
        }
        self.until = None;
        match self.phase {
            Phase::Told => return Goes::Break(()),
            // Nothing more is read; `deliver` tells the end.
            _ if self.complete.is_some() => self.socket = None,
            Phase::Ordered => self.refuse(format!(
                "AWS's agent on the node did not open a data channel within {} s; its log on the node says why",
                DATA_CHANNEL_LIMIT.as_secs()
            )),
            _ if self.ending => {
                // The program's own end, said on the data channel, counts; an ordered end has its reason already.
                let detail = "AWS's agent did not confirm the end".to_owned();
                self.tell_exit(self.exit, detail);
            }
            Phase::Settling => self.accept(),
            Phase::Running => {
                let detail = "AWS's agent did not bring the session's data channel back".to_owned();
                self.tell_exit(None, detail);
            }
        }
        Goes::Continue(())
    }
}

async fn event(
    socket: Option<&mut WebSocket>,
    wants_to_send: bool,
) -> Result<Event, crate::gateway::websocket::WebSocketError> {
    match socket {
        Some(socket) => socket.event(wants_to_send).await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
