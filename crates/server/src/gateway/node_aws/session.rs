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
use munjigi_core::session::{OutputStream, Signal};
use munjigi_core::wire::aws::payload::{
    AgentSessionState, AgentTaskComplete, HandshakeComplete, HandshakeRequest, HandshakeResponse, ProcessedAction,
    RequestedAction, Size, json, parse, parse_exit_code,
};
use munjigi_core::wire::aws::{AgentMessage, Channel, ChannelLimits, MessageType, Millis, PayloadType, Reader, Role};
use munjigi_core::wire::frame::MAX_DATA;
use munjigi_core::wire::message::{Accepted, Exit, Notice, Pty, Refused, StartOnNode, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::FramedError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::order::{self, Kind};
use super::{ARRIVALS, Arrival, AwsLink, Live, channel_closed, unix_ms};
use crate::gateway::close_in_background;
use crate::gateway::peer::FrameStream;
use crate::gateway::websocket::{Event, Message, WebSocket};
use crate::{Server, lock, random};

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
/// How long the data channel is read on after the agent said on the other channel that the session is over.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Input and the like that may wait for the channel, bytes. A client sends at most 256 KiB unacknowledged.
const INPUT_FULL: usize = 512 * 1024;
/// Pieces of it.
const MAX_OUTGOING: usize = 16 * 1024;
/// Messages that cannot be read before the connection is dropped.
const MAX_BROKEN: u32 = 16;
/// What we say we are in the handshake: a version that knows separate output and error.
const CLIENT_VERSION: &str = "1.2.707.0";
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
    complete: Option<AgentTaskComplete>,
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
            complete: None,
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
        let FrameStream { reader, writer } = stream;
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

    /// Gives the hub what the channel has, as long as the hub takes it.
    fn deliver(&mut self) {
        while self.stream.writer.pending() < OUTPUT_MOST && self.phase != Phase::Told {
            let Some((kind, payload)) = self.channel.next_delivery() else { break };
            self.delivered(kind, payload);
        }
        let full = self.stream.writer.pending() >= if self.paused { OUTPUT_RESUMED } else { OUTPUT_AHEAD };
        if full != self.paused && self.socket.is_some() {
            self.publication(full);
        }
        // The agent drops the data channel before it says that the session is over, so that this waits for nothing.
        let all_is_delivered = self.stream.writer.pending() < OUTPUT_MOST && self.socket.is_none();
        if all_is_delivered && self.complete.is_some() && self.phase != Phase::Told {
            self.tell_end();
        }
    }

    fn delivered(&mut self, kind: PayloadType, payload: Bytes) {
        match kind {
            PayloadType::Output => self.output(OutputStream::Stdout, payload),
            PayloadType::StdErr => self.output(OutputStream::Stderr, payload),
            PayloadType::ExitCode => self.exit = parse_exit_code(&payload),
            PayloadType::HandshakeRequest => self.handshake(&payload),
            PayloadType::HandshakeComplete => {
                self.accept();
                if let Ok(complete) = parse::<HandshakeComplete>("end of a handshake", &payload) {
                    self.notify(&complete.customer_message);
                }
            }
            // Nothing else means anything in a shell or command.
            _ => {}
        }
    }

    fn output(&mut self, stream: OutputStream, mut data: Bytes) {
        self.accept();
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DATA));
            let offset = self.output_end;
            self.output_end += piece.len() as u64;
            self.stream.feed(&Frame::Output { offset, stream, data: piece });
        }
    }

    /// Answers what the agent asks before a session begins. It does not ask for encryption, since no key was named.
    fn handshake(&mut self, payload: &[u8]) {
        let Ok(request) = parse::<HandshakeRequest>("handshake", payload) else { return };
        let answer = |action: &RequestedAction| {
            let (name, good) = match action {
                RequestedAction::SessionType { session_type, .. } => ("SessionType", *session_type == self.kind.name()),
                RequestedAction::KmsEncryption { .. } => ("KMSEncryption", false),
                RequestedAction::Other { action_type, .. } => (action_type.as_str(), false),
            };
            ProcessedAction {
                action_type: name.to_owned(),
                action_status: if good { ProcessedAction::SUCCESS } else { ProcessedAction::UNSUPPORTED },
                action_result: serde_json::Value::Null,
                error: if good { String::new() } else { "not asked for by this server".to_owned() },
            }
        };
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: request.requested_client_actions.iter().map(answer).collect(),
            errors: None,
        };
        self.queue(PayloadType::HandshakeResponse, json(&response));
    }

    /// The program runs: says so once.
    fn accept(&mut self) {
        if !matches!(self.phase, Phase::Ordered | Phase::Settling) {
            return;
        }
        self.phase = Phase::Running;
        if !self.ending && self.complete.is_none() {
            self.until = None;
        }
        let accepted = Accepted {
            session_id: self.grant.session.to_string(),
            node_id: self.link.node.to_string(),
            os_user: self.grant.os_user.clone(),
            has_pty: self.kind.has_terminal(),
            ..Accepted::default()
        };
        self.stream.feed(&Frame::Accepted(Box::new(accepted)));
    }

    fn notify(&mut self, text: &str) {
        if !text.is_empty() && self.phase == Phase::Running {
            let text: String = text.chars().take(1024).collect();
            self.stream.feed(&Frame::Notice(Notice { text }));
        }
    }

    /// Tells the hub how it ended: as the start that failed, or as the program's end.
    fn tell_end(&mut self) {
        let complete = self.complete.clone();
        let failed = complete.as_ref().filter(|complete| complete.final_task_status != "Success");
        let why = failed.map(|complete| {
            let said = Some(complete.output.trim()).filter(|text| !text.is_empty());
            format!(
                "AWS's agent ended the session as {}: {}",
                complete.final_task_status,
                said.unwrap_or("no reason given")
            )
        });
        match why {
            Some(message) if self.phase != Phase::Running => return self.refuse(message),
            Some(message) => self.notify(&message),
            None => self.accept(),
        }
        // A shell's status does not travel: the agent says no more than that it went well.
        let code = self.exit.or(complete.map(|complete| i32::from(complete.final_task_status != "Success")));
        self.tell_exit(code, String::new());
    }

    fn refuse(&mut self, message: String) {
        let code = "TargetNotConnected".to_owned();
        self.stream.feed(&Frame::Refused(Refused { code, message, ..Refused::default() }));
        self.told();
    }

    fn tell_exit(&mut self, code: Option<i32>, detail: String) {
        self.accept();
        self.stream.feed(&Frame::Exit(Exit { output_end: self.output_end, code, detail, ..Exit::default() }));
        self.told();
    }

    fn told(&mut self) {
        self.phase = Phase::Told;
        self.until = Some(Instant::now() + FAREWELL_LIMIT);
    }

    /// Takes something for the agent. What is beyond [`INPUT_FULL`] is left out: nobody sends as much unacknowledged.
    fn queue(&mut self, kind: PayloadType, payload: Bytes) -> bool {
        let fits = self.outgoing_bytes + payload.len() <= INPUT_FULL && self.outgoing.len() < MAX_OUTGOING;
        if fits {
            self.outgoing_bytes += payload.len();
            let end = self.input_end + if kind == PayloadType::Output { payload.len() as u64 } else { 0 };
            self.outgoing.push_back((kind, payload, end));
        }
        fits
    }

    /// Puts what waits into the channel as far as there is room, and remembers where the input ends with each message.
    fn fill(&mut self) {
        while let Some((_, payload, _)) = self.outgoing.front()
            && payload.len() <= self.channel.room()
            && let Some((kind, payload, end)) = self.outgoing.pop_front()
        {
            self.outgoing_bytes -= payload.len();
            let before = self.channel.unacknowledged();
            // There is room for it.
            let _ = self.channel.queue(kind, payload);
            let added = self.channel.unacknowledged().saturating_sub(before);
            self.unacknowledged.extend(std::iter::repeat_n(end, added));
        }
    }

    /// Tells the hub which input the agent has taken.
    fn acknowledge_input(&mut self) {
        let open = self.channel.unacknowledged();
        while self.unacknowledged.len() > open
            && let Some(end) = self.unacknowledged.pop_front()
        {
            // Of a payload in several messages the last one counts.
            let more = self.unacknowledged.front().is_some_and(|next| *next == end);
            if !more && end > self.input_acked && self.phase == Phase::Running {
                self.input_acked = end;
                self.stream.feed(&Frame::InputAck(end));
            }
        }
    }

    fn resize(&mut self, columns: u16, rows: u16) {
        let size = Size { cols: u32::from(columns), rows: u32::from(rows) };
        self.queue(PayloadType::Size, json(&size));
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

    /// Types a key; it is no input of the session's count.
    fn key(&mut self, key: &'static [u8]) {
        if self.queue(PayloadType::Output, Bytes::from_static(key))
            && let Some((_, _, end)) = self.outgoing.back_mut()
        {
            *end = self.input_end;
        }
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
        self.broken += u32::from(!understood);
        if self.broken >= MAX_BROKEN {
            return self.lose_socket("too many messages that are none of a data channel");
        }
        Goes::Continue(())
    }

    fn state(&mut self, payload: &[u8]) -> bool {
        let Ok(state) = parse::<AgentSessionState>("session state", payload) else { return false };
        if state.session_state == "Terminating" && self.complete.is_none() && !self.ending {
            self.ending = true;
            self.until = Some(Instant::now() + COMPLETE_LIMIT);
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
                self.until = Some(Instant::now() + LAST_WORDS);
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

    /// Makes the next message for the socket.
    fn prepare(&mut self) {
        if self.socket.is_none() || self.next.is_some() {
            return;
        }
        self.next = self.aside.take();
        if self.next.is_none() {
            let now = self.now();
            self.next = self.channel.next_transmission(now, unix_ms());
            if self.next.is_some() && self.paused {
                // Whatever it hears lets the agent go on; it is asked to pause again.
                self.publication(true);
            }
        }
    }

    fn write(&mut self) -> Goes {
        while let Some(socket) = self.socket.as_deref_mut().filter(|socket| socket.has_room()) {
            let Some(message) = self.next.take() else { break };
            if let Err(error) = socket.put(Message::Binary(message)) {
                return self.lose_socket(&error.to_string());
            }
            self.prepare();
        }
        Goes::Continue(())
    }

    /// Asks the agent to stop printing, or to go on.
    fn publication(&mut self, pause: bool) {
        self.paused = pause;
        let kind = if pause { MessageType::PausePublication } else { MessageType::StartPublication };
        // The content is not looked at, but must not be empty.
        self.aside = self.channel.control(kind, Bytes::from_static(b"{}"), unix_ms()).ok();
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
