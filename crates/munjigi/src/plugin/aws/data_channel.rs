//! The data channel of one session, over as many WebSockets as it takes: what is queued arrives once and in order, what
//! arrives is acknowledged when it is taken.
//!
//! Numbers and what is unacknowledged are [`Channel`]'s; dialling and `ResumeSession` are [`connecting`](super::connecting)'s.
//! What payloads mean is the business of whoever uses this.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use munjigi_core::wire::aws::payload::{self, ChannelClosed};
use munjigi_core::wire::aws::{
    AgentMessage, Channel, ChannelLimits, Full, MessageType, Millis, PayloadType, Reader, Role,
};
use munjigi_link::websocket::{self, Message, WebSocket, WebSocketError};
use tokio::time::{Instant, Sleep, sleep_until};

use super::connecting::{Connected, Connecting, Dialer};
use crate::client::clock;
use crate::client::text::{duration, escaped};

/// A ping is sent so often; AWS's service and ours answer, which tells a dead connection from a quiet one.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// A connection on which nothing was heard for so long is given up: three pings unanswered.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// What the original writes into its pings.
const PING: &[u8] = b"keepalive";
/// A loss that is over within this time is not worth a message.
const SILENT_LOSS: Duration = Duration::from_secs(1);
/// For how long a lost session is sought. Longer than any session waits that was not told otherwise.
const SEARCH_LIMIT: Duration = Duration::from_secs(20 * 60);
/// So many connections in a row on which nothing at all was heard mean that the service does not want us.
const MAX_FRUITLESS: u32 = 5;
/// Less room than this counts as none, bytes: whoever needs some for a header of his own would wait for ever.
const LEAST_ROOM: usize = 1024;
/// How long the last messages may take when this side leaves.
const GOODBYE: Duration = Duration::from_secs(3);

/// What happened on the channel.
#[derive(Debug)]
pub(crate) enum Happened {
    /// The next payload in order.
    Delivered(PayloadType, Bytes),
    /// There is room again for what is to be queued.
    Room,
    /// Something to tell the person, about connection and reconnection.
    Say(String),
    /// The service ended the session, with its reason if it gave one.
    Closed(String),
    /// The session was over when this side came back to it.
    Gone,
    /// The channel cannot be had (again), and why.
    Failed(String),
}

/// See the head of this file.
pub(crate) struct DataChannel {
    channel: Channel,
    dialer: Dialer,
    way: Way,
    /// Zero of the channel's clock.
    zero: Instant,
    timer: Pin<Box<Sleep>>,
    /// Nothing could be queued when it was last looked at.
    was_full: bool,
    /// The service's last word; given out once everything before it was taken.
    closed: Option<String>,
    trouble: Option<Trouble>,
    fruitless: u32,
    /// Whether there was a connection at all.
    was_open: bool,
    /// Whether a message ever came.
    was_heard: bool,
}

enum Way {
    Connecting(Connecting),
    Open(Box<Open>),
    /// There will be no other.
    None,
}

/// A WebSocket in use.
struct Open {
    socket: Box<WebSocket>,
    /// Taken from the channel while the socket had no room.
    unsent: Option<Message>,
    unflushed: bool,
    heard: Instant,
    ping_due: Instant,
    /// Whether anything but the answer to the upgrade was heard.
    fruitful: bool,
}

/// A lost connection.
struct Trouble {
    since: Instant,
    told: bool,
    last: String,
}

impl DataChannel {
    /// Begins to dial. `seed` is random.
    pub(crate) fn open(mut dialer: Dialer, limits: ChannelLimits, seed: [u8; 16]) -> Self {
        let now = Instant::now();
        let mut channel = Channel::new(Role::Client, seed, limits);
        channel.pause();
        Self {
            channel,
            way: Way::Connecting(dialer.first()),
            dialer,
            zero: now,
            timer: Box::pin(sleep_until(now)),
            was_full: false,
            closed: None,
            trouble: None,
            fruitless: 0,
            was_open: false,
            was_heard: false,
        }
    }

    /// Returns how many bytes may be queued: none, or [`LEAST_ROOM`] and more. [`Happened::Room`] tells when there is
    /// room again.
    pub(crate) fn room(&mut self) -> usize {
        let room = self.channel.room();
        self.was_full = room < LEAST_ROOM;
        if self.was_full { 0 } else { room }
    }

    /// Puts a payload next. Small ones (flags, sizes) may be queued at any time.
    pub(crate) fn queue(&mut self, kind: PayloadType, payload: Bytes) -> Result<(), Full> {
        self.channel.queue(kind, payload)
    }

    /// Tells whether there is no connection, or none yet, and the person may want to leave.
    pub(crate) fn is_lost(&self) -> bool {
        !self.was_open || self.trouble.as_ref().is_some_and(|trouble| trouble.told)
    }

    /// Waits for what happens next, and meanwhile sends what is queued. Payloads are given out only if one is
    /// `wanted`; what is not wanted stays unacknowledged and holds the other side back. Safe to drop and call again.
    pub(crate) async fn next(&mut self, wanted: bool) -> Happened {
        std::future::poll_fn(|cx| self.poll_next(cx, wanted)).await
    }

    /// Sends what is queued and waits, for a moment, until the other side has it all.
    pub(crate) async fn finish(mut self) {
        let sent = async {
            while self.channel.unacknowledged() > 0 && !matches!(self.way, Way::None) {
                match self.next(false).await {
                    Happened::Room | Happened::Say(_) | Happened::Delivered(..) => {}
                    Happened::Closed(_) | Happened::Gone | Happened::Failed(_) => return,
                }
            }
        };
        // What is not acknowledged by then has nobody to take it.
        let _ = tokio::time::timeout(GOODBYE, sent).await;
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.zero.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, wanted: bool) -> Poll<Happened> {
        loop {
            if let Some(happened) = self.lies_ready(wanted) {
                return Poll::Ready(happened);
            }
            if let Some(happened) = self.trouble_due() {
                return Poll::Ready(happened);
            }
            let step = match &mut self.way {
                Way::Connecting(connecting) => connecting.poll(cx).map(Step::Connected),
                Way::Open(_) => self.poll_open(cx),
                Way::None => Poll::Pending,
            };
            match step {
                Poll::Ready(Step::Again) => {}
                Poll::Ready(Step::Connected(connected)) => {
                    if let Some(happened) = self.connected(connected) {
                        return Poll::Ready(happened);
                    }
                }
                Poll::Ready(Step::Broken(why)) => {
                    if let Some(happened) = self.broke(why) {
                        return Poll::Ready(happened);
                    }
                }
                Poll::Pending => {
                    let due = self.next_due();
                    if self.timer.deadline() != due {
                        self.timer.as_mut().reset(due);
                    }
                    ready!(self.timer.as_mut().poll(cx));
                }
            }
        }
    }

    /// Returns what lies ready without looking at the socket.
    fn lies_ready(&mut self, wanted: bool) -> Option<Happened> {
        if wanted && let Some((kind, payload)) = self.channel.next_delivery() {
            return Some(Happened::Delivered(kind, payload));
        }
        if self.was_full && self.channel.room() >= LEAST_ROOM {
            self.was_full = false;
            return Some(Happened::Room);
        }
        // Only now: what came before the last word was taken first.
        self.closed.take_if(|_| wanted).map(Happened::Closed)
    }

    /// Sends, receives and watches for silence.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let (now, unix_ms) = (self.now(), unix_ms());
        let Way::Open(open) = &mut self.way else { return Poll::Ready(Step::Again) };
        let channel = &mut self.channel;
        if let Err(error) = open.send(cx, || channel.next_transmission(now, unix_ms)) {
            return Poll::Ready(Step::Broken(websocket::reason(error).to_string()));
        }
        if self.closed.is_some() || !self.channel.wants_input() {
            return Poll::Pending;
        }
        match open.poll_receive(cx) {
            Poll::Ready(Ok(Some(frame))) => {
                self.fruitless = 0;
                self.was_heard = true;
                self.received(frame);
                Poll::Ready(Step::Again)
            }
            Poll::Ready(Ok(None)) => Poll::Ready(Step::Again),
            Poll::Ready(Err(why)) => Poll::Ready(Step::Broken(why)),
            Poll::Pending if open.heard.elapsed() >= SILENCE_LIMIT => {
                Poll::Ready(Step::Broken(format!("nothing was heard for {}", duration(SILENCE_LIMIT))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Takes one message. Whatever cannot be read is dropped without a word, as the original does.
    fn received(&mut self, frame: Bytes) {
        let message = match AgentMessage::decode(frame, Reader::Client) {
            Ok(message) => message,
            Err(error) => return tracing::debug!(%error, "a message was dropped"),
        };
        match message.kind {
            MessageType::ChannelClosed => {
                let closed: ChannelClosed = payload::parse("channel_closed", &message.payload).unwrap_or_default();
                self.closed = Some(closed.output);
            }
            MessageType::StartPublication | MessageType::PausePublication => {}
            _ => {
                if let Err(error) = self.channel.receive(message, self.now()) {
                    tracing::debug!(%error, "a message was dropped");
                }
            }
        }
    }

    fn connected(&mut self, connected: Connected) -> Option<Happened> {
        match connected {
            Connected::Open(socket) => {
                let now = Instant::now();
                self.dialer.opened();
                self.was_open = true;
                self.channel.resume(self.now());
                self.way = Way::Open(Box::new(Open {
                    socket,
                    unsent: None,
                    unflushed: false,
                    heard: now,
                    ping_due: now,
                    fruitful: false,
                }));
                let told = self.trouble.take().filter(|trouble| trouble.told)?;
                Some(Happened::Say(format!("reconnected after {}", duration(told.since.elapsed()))))
            }
            Connected::Over => {
                self.way = Way::None;
                // A session on which nothing was ever heard is no old one that has ended: it could not be opened.
                let refused = self.trouble.take().filter(|_| !self.was_heard);
                Some(refused.map_or(Happened::Gone, |trouble| Happened::Failed(trouble.last)))
            }
            Connected::Never(why) => {
                self.way = Way::None;
                Some(Happened::Failed(why))
            }
            Connected::Later(why) => {
                self.note_trouble(why);
                self.way = Way::Connecting(self.dialer.again());
                None
            }
        }
    }

    /// The connection is gone: the session waits for us, and we come back to it.
    fn broke(&mut self, why: String) -> Option<Happened> {
        let fruitful = matches!(&self.way, Way::Open(open) if open.fruitful);
        self.fruitless = if fruitful { 0 } else { self.fruitless + 1 };
        if self.fruitless >= MAX_FRUITLESS {
            return Some(Happened::Failed(format!("the service does not keep the data channel open: {why}")));
        }
        self.channel.pause();
        self.note_trouble(why);
        self.way = Way::Connecting(if fruitful { self.dialer.first() } else { self.dialer.again() });
        None
    }

    fn note_trouble(&mut self, why: String) {
        match &mut self.trouble {
            Some(trouble) => trouble.last = why,
            None => self.trouble = Some(Trouble { since: Instant::now(), told: false, last: why }),
        }
    }

    /// Returns what is to be said or given up by now.
    fn trouble_due(&mut self) -> Option<Happened> {
        let trouble = self.trouble.as_mut()?;
        let lasted = trouble.since.elapsed();
        if lasted >= SEARCH_LIMIT {
            return Some(Happened::Failed(format!(
                "the service could not be reached for {} ({}); the session is given up",
                duration(SEARCH_LIMIT),
                escaped(&trouble.last)
            )));
        }
        if !trouble.told && lasted >= SILENT_LOSS {
            trouble.told = true;
            return Some(Happened::Say(format!(
                "reconnecting: {}; what you type is kept; Ctrl-C leaves",
                escaped(&trouble.last)
            )));
        }
        None
    }

    fn next_due(&self) -> Instant {
        let trouble =
            self.trouble.as_ref().map(|trouble| trouble.since + if trouble.told { SEARCH_LIMIT } else { SILENT_LOSS });
        let (ping, takes_more) = match &self.way {
            Way::Open(open) => (Some(open.ping_due), open.unsent.is_none()),
            Way::Connecting(_) | Way::None => (None, false),
        };
        // What is due while the socket takes nothing goes when it does.
        let channel = self.channel.next_timeout().filter(|_| takes_more);
        let channel = channel.map(|at| self.zero + Duration::from_millis(at.0));
        // Nothing: a day is as good as never, and the caller asks again.
        [trouble, channel, ping]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(86_400))
    }
}

/// How the wait goes on.
enum Step {
    Again,
    Connected(Connected),
    Broken(String),
}

impl Open {
    /// Hands over as much as the socket takes, and flushes.
    fn send(&mut self, cx: &mut Context<'_>, mut next: impl FnMut() -> Option<Bytes>) -> Result<(), WebSocketError> {
        if self.ping_due <= Instant::now() {
            self.ping_due = Instant::now() + PING_INTERVAL;
            // A socket that takes nothing would not carry the ping either.
            self.unsent.get_or_insert(Message::Ping(Bytes::from_static(PING)));
        }
        while let Some(message) = self.unsent.take().or_else(|| next().map(Message::Binary)) {
            match self.socket.poll_ready(cx) {
                Poll::Ready(Ok(())) => self.socket.start_send(message)?,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.unsent = Some(message);
                    return Ok(());
                }
            }
            self.unflushed = true;
        }
        if self.unflushed
            && let Poll::Ready(flushed) = self.socket.poll_flush(cx)
        {
            flushed?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Waits for the next message; `None` for what is not one of the channel's.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, String>> {
        let message = match ready!(self.socket.poll_next(cx)) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Poll::Ready(Err(websocket::reason(error).to_string())),
            None => return Poll::Ready(Err("the service closed the connection".to_owned())),
        };
        self.heard = Instant::now();
        Poll::Ready(match message {
            Message::Binary(frame) => {
                self.fruitful = true;
                Ok(Some(frame))
            }
            Message::Close(Some(close)) if !close.reason.is_empty() => {
                Err(format!("the service closed the connection: {}", escaped(&close.reason)))
            }
            Message::Close(_) => Err("the service closed the connection".to_owned()),
            // The WebSocket answers by itself, with its next write.
            Message::Ping(_) => {
                self.unflushed = true;
                Ok(None)
            }
            Message::Pong(_) | Message::Text(_) | Message::Frame(_) => Ok(None),
        })
    }
}

fn unix_ms() -> u64 {
    u64::try_from(clock::now().0 / 1000).unwrap_or_default()
}
