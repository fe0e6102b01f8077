//! A port session over the link: every local connection is a stream of its own, with its own window and both ends of
//! each direction kept apart.

use std::io;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use munjigi_core::session::{EndReason, OutputStream};
use munjigi_core::wire::aws::payload::{LOCAL_PORT_FORWARDING, PortProperties};
use munjigi_core::wire::message::{Accepted, Connect, End, Open, open};
use munjigi_core::wire::{Frame, FrameSet};
use munjigi_link::framed::{FrameReader, FrameWriter};
use munjigi_link::{Opener, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, timeout};

use super::local::{Listener, Reader, Writer};
use super::note;
use super::words::Words;
use crate::client::road::{Dialer, Road, RoadEvent, Way, why};
use crate::client::signals::{Came, Signals};
use crate::client::stdio::{Screen, Source};
use crate::client::text::{duration, escaped};
use crate::client::wish::{self, Outcome};

/// How long the node may take to connect to the destination; its own limit comes first.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// What is copied at once in each direction.
const COPY_BYTES: usize = 64 * 1024;
/// Most connections at a time; a link carries no more streams.
const MAX_CONNECTIONS: usize = 500;
/// How long the server may take to hear that the session shall end.
const GOODBYE: Duration = Duration::from_secs(2);
/// A loss that is over within this time is not worth a message.
const SILENT_LOSS: Duration = Duration::from_secs(1);

/// Carries the session to its end.
pub(crate) async fn run(
    dialer: Dialer,
    way: Way,
    granted: &Accepted,
    words: &Words,
    mut signals: Signals,
) -> anyhow::Result<Outcome> {
    let properties = properties(granted)?;
    let mut session = Session {
        id: granted.session_id.clone(),
        resume_window: Duration::from_secs(granted.resume_window_secs.into()),
        dialer,
        opener: Some(way.connection.opener()),
        road: Road::Open(Box::new(way)),
        lost: None,
        tasks: JoinSet::new(),
        any: false,
    };
    if properties.kind.as_deref() != Some(LOCAL_PORT_FORWARDING) {
        return session.stdio(&mut signals).await;
    }
    let listener = match Listener::open(&properties).await {
        Ok(listener) => listener,
        Err(error) => {
            session.end().await;
            return Err(error);
        }
    };
    words.starting()?;
    words.listening(&listener.place()?)?;
    let outcome = session.forward(&listener, words, &mut signals).await?;
    if matches!(outcome, Outcome::Ended { .. }) {
        words.exiting()?;
    }
    Ok(outcome)
}

fn properties(granted: &Accepted) -> anyhow::Result<PortProperties> {
    let map = serde_json::to_value(&granted.port_properties)?;
    serde_json::from_value(map).context("the properties of the port session are not usable")
}

struct Session {
    id: String,
    resume_window: Duration,
    dialer: Dialer,
    road: Road,
    /// Opens streams while there is a link.
    opener: Option<Opener>,
    /// Since when there is no link, and whether that was said.
    lost: Option<(Instant, bool)>,
    /// The connections.
    tasks: JoinSet<Result<(), String>>,
    /// Whether there was a connection yet.
    any: bool,
}

impl Session {
    async fn forward(&mut self, listener: &Listener, words: &Words, signals: &mut Signals) -> anyhow::Result<Outcome> {
        loop {
            let takes_more = self.opener.is_some() && self.tasks.len() < MAX_CONNECTIONS;
            let due = self.due();
            let frames = if self.opener.is_some() { FrameSet::TO_CLIENT } else { FrameSet::ANSWER };
            let Self { road, tasks, .. } = self;
            tokio::select! {
                came = signals.next() => match came {
                    Came::Signal(_) => {
                        words.terminating()?;
                        self.end().await;
                        return Ok(ended());
                    }
                    Came::WindowChanged => {}
                },
                accepted = listener.accept(), if takes_more => match accepted {
                    Ok((reader, writer)) => self.accepted(reader, writer, words)?,
                    Err(error) => tracing::debug!(%error, "a connection was not accepted"),
                },
                Some(done) = tasks.join_next() => if let Ok(Err(why)) = done {
                    words.unreachable()?;
                    note(&escaped(&why));
                },
                event = road.next(Some(frames)) => {
                    if let Some(outcome) = self.happened(event) {
                        return Ok(outcome);
                    }
                }
                () = tokio::time::sleep_until(due) => if let Some(outcome) = self.overdue() { return Ok(outcome) },
            }
        }
    }

    fn accepted(&mut self, reader: Reader, writer: Writer, words: &Words) -> io::Result<()> {
        let Some(opener) = self.opener.clone() else { return Ok(()) };
        if !std::mem::replace(&mut self.any, true) {
            words.connected()?;
        }
        let id = self.id.clone();
        self.tasks.spawn(async move {
            let mut far = connect(&opener, id).await?;
            let mut near = tokio::io::join(reader, writer);
            // How a connection ends is the business of its two ends.
            let copied = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, COPY_BYTES, COPY_BYTES).await;
            tracing::debug!(?copied, "a connection has ended");
            Ok(())
        });
        Ok(())
    }

    /// Carries the one connection that is standard input and output.
    async fn stdio(&mut self, signals: &mut Signals) -> anyhow::Result<Outcome> {
        let Some(opener) = self.opener.clone() else { bail!("there is no link") };
        let carried = tokio::select! {
            carried = stdio(&opener, self.id.clone()) => carried,
            signal = signals.next_ending() => {
                self.end().await;
                return Ok(Outcome::Interrupted(signal));
            }
        };
        self.end().await;
        match carried {
            Ok(()) => Ok(ended()),
            Err(why) => Ok(Outcome::Lost(why)),
        }
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
                self.opener = self.road.open().map(|way| way.connection.opener());
                if let Some((since, true)) = self.lost.take() {
                    note(&format!("reconnected after {}", duration(since.elapsed())));
                }
                None
            }
            Frame::Refused(refused) => Some(Outcome::Refused { code: refused.code, message: refused.message }),
            Frame::End(end) => Some(Outcome::of(end)),
            Frame::Notice(notice) => {
                note(&escaped(&notice.text));
                None
            }
            // A port session's stream carries no bytes.
            _ => None,
        }
    }

    /// The link is gone, and with it the connections; the session waits for us.
    fn broke(&mut self, why: &str) {
        tracing::debug!(why, "the link of a port session broke");
        self.opener = None;
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
        note("reconnecting; new connections wait, Ctrl-C leaves");
        None
    }

    /// Ends the session at the server.
    async fn end(&mut self) {
        self.tasks.abort_all();
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
fn ended() -> Outcome {
    Outcome::Ended {
        reason: Some(EndReason::Exited),
        message: String::new(),
        exit: Some(munjigi_core::session::ExitStatus::Code(0)),
    }
}

/// The far end of a connection, as bytes.
type Far = tokio::io::Join<tokio::io::Chain<std::io::Cursor<BytesMut>, ReadHalf<Stream>>, WriteHalf<Stream>>;

/// Makes a connection of the session on the node.
async fn connect(opener: &Opener, session_id: String) -> Result<Far, String> {
    let work = async {
        let stream = opener.open().await.map_err(|error| error.to_string())?;
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let wish = open::Wish::Connect(Connect { session_id, ..Connect::default() });
        writer.feed(&Frame::Open(Box::new(Open { wish: Some(wish) }))).map_err(|error| error.to_string())?;
        writer.flush().await.map_err(|error| why(&error))?;
        match reader.read(FrameSet::ANSWER).await {
            Ok(Some(Frame::Accepted(_))) => {}
            Ok(Some(Frame::Refused(refused))) => return Err(format!("{} ({})", refused.message, refused.code)),
            Ok(_) => return Err("the server closed the connection".to_owned()),
            Err(error) => return Err(why(&error)),
        }
        let (read, early) = reader.into_parts();
        Ok(tokio::io::join(std::io::Cursor::new(early).chain(read), writer.into_inner()))
    };
    timeout(CONNECT_LIMIT, work)
        .await
        .unwrap_or_else(|_| Err(format!("the node did not connect within {} s", CONNECT_LIMIT.as_secs())))
}

/// Carries standard input and output until the peer, or whoever reads our output, is done.
async fn stdio(opener: &Opener, session_id: String) -> Result<(), String> {
    let far = connect(opener, session_id).await?;
    let (read, mut write) = tokio::io::split(far);
    let mut source = Source::stdin().map_err(|error| error.to_string())?;
    let sending = async {
        loop {
            let bytes =
                source.read(COPY_BYTES).await.map_err(|error| format!("cannot read standard input: {error}"))?;
            if bytes.is_empty() {
                // The peer learns that nothing follows, and may go on itself.
                let _ = write.shutdown().await;
                break;
            }
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The other direction decides when it is over.
        std::future::pending::<Result<(), String>>().await
    };
    tokio::select! {
        sent = sending => sent,
        received = receive(read) => received,
    }
}

async fn receive(mut read: impl AsyncRead + Unpin) -> Result<(), String> {
    let mut screen = Screen::new().map_err(|error| error.to_string())?;
    loop {
        let mut buffer = BytesMut::with_capacity(COPY_BYTES);
        let count = read.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
        screen.push(OutputStream::Stdout, buffer.freeze());
        let shown = if count == 0 { break } else { screen.drain().await };
        match shown {
            Err(error) if error.reader_is_gone() => return Ok(()),
            shown => shown.map_err(|error| error.to_string())?,
        }
    }
    match screen.finish().await {
        Err(error) if !error.reader_is_gone() => Err(error.to_string()),
        _ => Ok(()),
    }
}
