//! The pump of one data channel: the one task that owns its state, over as many sockets as it takes.
//!
//! It moves bytes between the client's socket, the [`Channel`] and the kind's task, and keeps the channel while the
//! client is away. What payloads mean is the kind's. The loop names everything that can happen in [`Happened`].

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use munjigi_core::id::SessionId;
use munjigi_core::session::SessionKind;
use munjigi_core::wire::aws::message::{AgentMessage, MessageType, Reader};
use munjigi_core::wire::aws::payload::{ChannelClosed, json};
use munjigi_core::wire::aws::{Channel, ChannelLimits, Millis, PayloadType, Role};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use uuid::Uuid;

use super::data_channel::{DataChannel, MAX_PAYLOAD, Outgoing, Presence, PumpEnd};
use super::registry::Place;
use super::{port, shell};
use crate::gateway::websocket::{Event, Message, WebSocket, WebSocketError};
use crate::gateway::{Handle, Prepared};
use crate::service_event::service_event;
use crate::{Server, clock, random};

/// How long the end of a session waits for acknowledgements without any coming. The plugin never repeats one that was
/// lost with a socket, so that waiting for all of them could last for ever.
const DRAIN_STALL: Duration = Duration::from_secs(20);
/// How long the channel of a session that is over waits for its client to come back for the rest, at most; not longer
/// than the session itself would have waited.
pub(super) const LINGER: Duration = Duration::from_secs(45);
/// Messages of one socket that cannot be read before it is closed. AWS's programs drop such messages without a word, and
/// so do we; a client that sends nothing else is not one of them.
const MOST_BAD: u32 = 64;
/// What the former client is told.
const TAKEN_OVER: &str = "another client of yours took this session over";

/// How a channel begins.
pub(super) enum Beginning {
    /// The session starts now.
    Start(Box<Prepared>),
    /// The session runs; its owner comes with a new client.
    TakeOver(Handle),
}

impl Beginning {
    fn facts(&self) -> &crate::gateway::facts::SessionFacts {
        match self {
            Self::Start(prepared) => &prepared.facts,
            Self::TakeOver(handle) => &handle.facts,
        }
    }
}

/// Begins a channel on a socket: enters it into the registry and starts its pump and its kind.
pub(super) fn begin(server: &Arc<Server>, socket: WebSocket, client_id: String, beginning: Beginning) {
    let (session, kind) = (beginning.facts().id.clone(), beginning.facts().kind);
    let linger = beginning.facts().limits.resume_window.min(LINGER);
    let place = server.gateway.channels.enter(&session, client_id.clone());
    let (channel, end) = DataChannel::new();
    let limits = ChannelLimits::towards_plugin();
    let pump = Box::new(Pump {
        server: server.clone(),
        session,
        client_id,
        channel: Channel::new(Role::Agent, random::bytes(), limits),
        socket: Some(socket),
        place,
        end,
        transmission: None,
        delivery: None,
        closing: None,
        linger,
        kind_is_gone: false,
        may_arrive: true,
        begun: Instant::now(),
        bad: 0,
    });
    let stop = server.stop.clone();
    server.tasks.spawn(async move { stop.run_until_cancelled(pump.run()).await });
    let (stop, server_in_task) = (server.stop.clone(), server.clone());
    server.tasks.spawn(async move {
        let serving = async {
            match kind {
                SessionKind::Shell | SessionKind::Command => shell::serve(&server_in_task, channel, beginning).await,
                SessionKind::Port => port::serve(&server_in_task, channel, beginning).await,
            }
        };
        Box::pin(stop.run_until_cancelled(serving)).await
    });
}

/// Ends a client that has no channel: it prints the reason and exits, where a closed socket would make it come back.
pub(super) async fn farewell(mut socket: WebSocket, session: &SessionId, client_id: &str, reason: &str) {
    let mut channel = Channel::new(Role::Agent, random::bytes(), ChannelLimits::towards_plugin());
    if let Some(message) = closed(&mut channel, session, client_id, reason)
        && socket.put(Message::Binary(message)).is_ok()
    {
        socket.close(CloseCode::Normal, "").await;
    }
}

/// Makes `channel_closed`.
fn closed(channel: &mut Channel, session: &SessionId, client_id: &str, output: &str) -> Option<Bytes> {
    let payload = ChannelClosed {
        message_id: Uuid::new_v4().to_string(),
        created_date: clock::now().to_iso_seconds(),
        destination_id: client_id.to_owned(),
        session_id: session.to_string(),
        output: output.to_owned(),
        ..ChannelClosed::default()
    };
    channel.control(MessageType::ChannelClosed, json(&payload), unix_ms()).ok()
}

fn unix_ms() -> u64 {
    u64::try_from(clock::now().0 / 1000).unwrap_or(1)
}

/// Everything that can happen to a channel.
enum Happened {
    Socket(Result<Event, WebSocketError>),
    Arrived(Option<WebSocket>),
    FromKind(Option<Outgoing>),
    /// The kind has room for the payload that waits for it.
    KindReady(bool),
    /// The kind is done.
    KindLeft,
    Displaced,
    TimePassed,
}

/// The session is over for this client.
struct Closing {
    output: String,
    /// When waiting ends.
    until: Instant,
    /// Messages not acknowledged when last looked.
    left: usize,
}

struct Pump {
    server: Arc<Server>,
    session: SessionId,
    client_id: String,
    channel: Channel,
    socket: Option<WebSocket>,
    place: Place,
    end: PumpEnd,
    /// The next message for the socket.
    transmission: Option<Bytes>,
    /// The next payload for the kind.
    delivery: Option<(PayloadType, Bytes)>,
    closing: Option<Closing>,
    linger: Duration,
    kind_is_gone: bool,
    /// Whether the client may still come with a new socket.
    may_arrive: bool,
    begun: Instant,
    /// Messages of this socket that could not be read.
    bad: u32,
}

impl Pump {
    async fn run(mut self: Box<Self>) {
        let timer = sleep_until(self.begun);
        tokio::pin!(timer);
        while !self.is_over() {
            self.prepare();
            let due = self.due();
            // An idle channel has nothing due; the timer is left where it is then.
            if let Some(due) = due {
                timer.as_mut().reset(due);
            }
            match self.next(timer.as_mut(), due.is_some()).await {
                Happened::Socket(Ok(Event::Received(message))) => self.received(message).await,
                Happened::Socket(Ok(Event::Writable)) => self.transmit().await,
                Happened::Socket(Err(error)) => self.socket_lost(&error),
                Happened::Arrived(Some(socket)) => self.arrived(socket),
                Happened::FromKind(Some(outgoing)) => self.heard_kind(outgoing),
                Happened::FromKind(None) => self.kind_gone(),
                // What it said last is heard first.
                Happened::KindLeft | Happened::KindReady(false) if self.end.from_kind.is_empty() => self.kind_gone(),
                Happened::KindLeft => {}
                Happened::KindReady(false) => self.delivery = None,
                Happened::KindReady(true) => self.deliver(),
                Happened::Displaced => self.close(TAKEN_OVER.to_owned()),
                // Another client has the place.
                Happened::Arrived(None) => self.may_arrive = false,
                Happened::TimePassed => {}
            }
        }
        self.over().await;
    }

    async fn next(&mut self, timer: Pin<&mut Sleep>, timed: bool) -> Happened {
        // Acknowledgements come on the same socket as input. While any are missing it is read, else the end that waits
        // for them and the end that waits for its input to be taken would wait for each other.
        let reads = self.channel.wants_input() || self.channel.unacknowledged() > 0;
        let takes = self.closing.is_none() && !self.kind_is_gone && self.channel.room() >= MAX_PAYLOAD;
        let displaced = &self.place.displaced;
        tokio::select! {
            biased;
            () = displaced.cancelled(), if self.closing.is_none() => Happened::Displaced,
            socket = self.place.arrivals.recv(), if self.may_arrive => Happened::Arrived(socket),
            room = self.end.to_kind.reserve(), if self.delivery.is_some() && !self.kind_is_gone => {
                Happened::KindReady(room.is_ok())
            }
            event = socket_event(self.socket.as_mut(), reads, self.transmission.is_some()) => Happened::Socket(event),
            () = self.end.to_kind.closed(), if !self.kind_is_gone && self.end.from_kind.is_empty() => {
                Happened::KindLeft
            }
            outgoing = self.end.from_kind.recv(), if takes => Happened::FromKind(outgoing),
            () = timer, if timed => Happened::TimePassed,
        }
    }

    /// Fetches what is next in both directions.
    fn prepare(&mut self) {
        if self.delivery.is_none() {
            self.delivery = self.channel.next_delivery();
        }
        if self.transmission.is_none() && self.socket.is_some() {
            self.transmission = self.channel.next_transmission(self.now(), unix_ms());
        }
    }

    fn deliver(&mut self) {
        if let Some(delivery) = self.delivery.take()
            && let Err(error) = self.end.to_kind.try_send(delivery)
        {
            // Room was reserved a moment ago, by the only sender.
            tracing::error!(session = %self.session, %error, "a payload found no room");
        }
    }

    /// Writes what there is until the socket has enough.
    async fn transmit(&mut self) {
        let Some(mut socket) = self.socket.take() else { return };
        let mut result = Ok(());
        while let Some(message) = self.transmission.take() {
            result = socket.put(Message::Binary(message));
            if result.is_err() || !socket.has_room() {
                break;
            }
            self.transmission = self.channel.next_transmission(self.now(), unix_ms());
        }
        match result {
            Ok(()) => self.socket = Some(socket),
            Err(error) => self.socket_lost(&error),
        }
    }

    async fn received(&mut self, message: Message) {
        let now = self.now();
        let taken = match message {
            Message::Binary(bytes) => match AgentMessage::decode(bytes, Reader::Agent) {
                Ok(message) => self.channel.receive(message, now).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            Message::Text(_) => Err("a text message after the open message".to_owned()),
        };
        match taken {
            Ok(()) => {}
            Err(error) => self.bad_message(&error).await,
        }
    }

    async fn bad_message(&mut self, error: &str) {
        self.bad += 1;
        tracing::debug!(session = %self.session, error, "a message of a data channel was dropped");
        if self.bad < MOST_BAD {
            return;
        }
        let details = json!({ "sessionId": self.session, "clientId": self.client_id });
        let failure =
            Some(("InvalidMessage", format!("{MOST_BAD} messages could not be read, the last because {error}")));
        let event = service_event(&self.server, "DataChannelClosed", details, failure);
        if let Err(error) = self.server.audit.append(event).await {
            tracing::error!(%error, "a bad data channel could not be audited");
        }
        if let Some(socket) = self.socket.take() {
            let why = "too many messages that are not those of a data channel";
            self.server.tasks.spawn(socket.close(CloseCode::Policy, why));
        }
        self.away();
    }

    fn socket_lost(&mut self, error: &WebSocketError) {
        tracing::debug!(session = %self.session, %error, "data channel lost its socket");
        self.socket = None;
        self.away();
    }

    fn away(&mut self) {
        self.channel.pause();
        // What was prepared for the old socket is among what is sent again.
        self.transmission = None;
        self.end.presence.send_replace(Presence::Away);
        if let Some(closing) = &mut self.closing {
            closing.until = Instant::now() + self.linger;
        }
    }

    /// The client is back; a socket that it still had is dead without our knowing.
    fn arrived(&mut self, socket: WebSocket) {
        self.socket = Some(socket);
        self.bad = 0;
        self.transmission = None;
        self.channel.resume(self.now());
        self.end.presence.send_replace(Presence::Here);
        if let Some(closing) = &mut self.closing {
            closing.until = Instant::now() + DRAIN_STALL;
        }
    }

    fn heard_kind(&mut self, outgoing: Outgoing) {
        match outgoing {
            Outgoing::Payload(kind, payload) => {
                // The room was looked at before it was taken.
                if let Err(error) = self.channel.queue(kind, payload) {
                    tracing::error!(session = %self.session, %error, "a payload was left out");
                }
            }
            Outgoing::End(output) => self.close(output),
        }
    }

    /// The kind is done. One that had something to say has said it before.
    fn kind_gone(&mut self) {
        self.kind_is_gone = true;
        if self.closing.is_none() {
            self.close("the session is over".to_owned());
            if let Some(closing) = self.closing.as_mut().filter(|_| self.socket.is_none()) {
                // It waited for the client already.
                closing.until = Instant::now();
            }
        }
    }

    fn close(&mut self, output: String) {
        let wait = if self.socket.is_some() { DRAIN_STALL } else { self.linger };
        let left = self.channel.unacknowledged();
        self.closing = Some(Closing { output, until: Instant::now() + wait, left });
    }

    /// When something is to be done without anything happening.
    fn due(&self) -> Option<Instant> {
        // With a message at hand the channel has no say: it goes out when the socket has room.
        let idle = self.socket.is_some() && self.transmission.is_none();
        let retransmission = idle.then(|| self.channel.next_timeout()).flatten();
        let retransmission = retransmission.map(|at| self.begun + Duration::from_millis(at.0));
        let closing = self.closing.as_ref().map(|closing| closing.until);
        [retransmission, closing].into_iter().flatten().min()
    }

    /// The session is over, and the client has everything or will not get it.
    fn is_over(&mut self) -> bool {
        let left = self.channel.unacknowledged();
        let Some(closing) = &mut self.closing else { return false };
        if left < closing.left && self.socket.is_some() {
            closing.left = left;
            closing.until = Instant::now() + DRAIN_STALL;
        }
        (self.socket.is_some() && left == 0) || closing.until <= Instant::now()
    }

    async fn over(mut self: Box<Self>) {
        self.server.gateway.channels.leave(&self.session, &self.place);
        let output = self.closing.take().map(|closing| closing.output).unwrap_or_default();
        let message = closed(&mut self.channel, &self.session, &self.client_id, &output);
        if let (Some(mut socket), Some(message)) = (self.socket.take(), message) {
            // Acknowledgements of what came last.
            while let Some(last) = self.channel.next_transmission(self.now(), unix_ms()).filter(|_| socket.has_room()) {
                if socket.put(Message::Binary(last)).is_err() {
                    return;
                }
            }
            if socket.put(Message::Binary(message)).is_ok() {
                self.server.gateway.channels.told(&self.session);
                socket.close(CloseCode::Normal, "").await;
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

async fn socket_event(socket: Option<&mut WebSocket>, reads: bool, writes: bool) -> Result<Event, WebSocketError> {
    match socket {
        Some(socket) if reads => socket.event(writes).await,
        Some(socket) if writes => socket.writable().await.map(|()| Event::Writable),
        _ => std::future::pending().await,
    }
}
