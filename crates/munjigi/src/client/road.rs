//! A session's way to the server and back to it: dialling, the open stream, the pause before the next attempt.
//!
//! Knows links and frames; what the frames mean is `session`'s business.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use munjigi_core::wire::{Frame, FrameError, FrameSet};
use munjigi_link::backoff::Backoff;
use munjigi_link::dial::DialOptions;
use munjigi_link::framed::{FrameReader, FrameWriter, FramedError};
use munjigi_link::{Connection, DialError, LinkError, Refusal, Stream};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::{Instant, Sleep, sleep};

use super::context::Context;
use super::link::connect;

/// Most bytes of frames that wait for the link; what is beyond stays in the input buffer, where it can be repeated.
pub(crate) const MAX_FED: usize = 64 * 1024;
/// Longest pause between attempts to come back: a person waits, and a link that is back is used within 3 s.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long each step of an attempt to come back may take in the first minute; a packet lost to the broken link
/// must not hold up the attempt that would succeed.
const QUICK_CONNECT: Duration = Duration::from_secs(2);
/// As [`QUICK_CONNECT`], for TLS with its own round trips.
const QUICK_TLS: Duration = Duration::from_millis(2500);
/// After this long the network is slow rather than cut: attempts get the usual limits.
const QUICK_FOR: Duration = Duration::from_secs(60);

/// An open stream of the session's link.
pub(crate) struct Way {
    /// Kept for as long as the stream is used: dropping it closes the link.
    pub(crate) connection: Connection,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    since: Instant,
}

impl Way {
    /// Puts a frame into the buffer towards the server.
    pub(crate) fn feed(&mut self, frame: &Frame) -> Result<(), FrameError> {
        self.writer.feed(frame)
    }

    /// Tells whether more frames may be fed.
    pub(crate) fn has_room(&self) -> bool {
        self.writer.pending() < MAX_FED
    }

    /// Sends everything fed.
    pub(crate) async fn flush(&mut self) -> Result<(), FramedError> {
        self.writer.flush().await
    }
}

/// Where the session stands with its link.
pub(crate) enum Road {
    /// A link is being dialled.
    Dialing(Pin<Box<dyn Future<Output = Result<Way, DialError>> + Send>>),
    /// The stream is open.
    Open(Box<Way>),
    /// The next attempt comes later.
    Pausing(Pin<Box<Sleep>>),
}

/// What happened on the road.
pub(crate) enum RoadEvent {
    /// Dialling is over.
    Dialed(Result<Way, DialError>),
    /// A frame came, or the stream's end.
    Frame(Result<Option<Frame>, FramedError>),
    /// The server has opened a stream.
    Opened(Stream),
    /// Everything fed was sent, or the stream broke.
    Sent(Result<(), FramedError>),
    /// It is time for the next attempt.
    PauseOver,
}

/// Dials, again and again.
pub(crate) struct Dialer {
    context: Arc<Context>,
    options: DialOptions,
    backoff: Backoff,
}

impl Dialer {
    /// Prepares dialling of a context's server.
    pub(crate) fn new(context: Arc<Context>) -> anyhow::Result<Self> {
        let options = super::link::dial_options(&context)?;
        Ok(Self::with_options(context, options))
    }

    /// Prepares dialling of a context's server in another way than the usual one.
    pub(crate) fn with_options(context: Arc<Context>, options: DialOptions) -> Self {
        Self { context, options, backoff: Backoff::new() }
    }

    /// Begins an attempt. `lost_for` is how long there has been no link, `None` for the first.
    pub(crate) fn dial(&self, lost_for: Option<Duration>) -> Road {
        let (context, mut options) = (Arc::clone(&self.context), self.options.clone());
        if lost_for.is_some_and(|lost_for| lost_for < QUICK_FOR) {
            options.timeouts.connect = QUICK_CONNECT;
            options.timeouts.tls = QUICK_TLS;
        }
        Road::Dialing(Box::pin(async move {
            let dialed = connect(&context, &options).await?;
            let connection = dialed.connection;
            connection.set_lanes(super::link::lanes(context, options));
            let stream = match connection.opener().open().await {
                Ok(stream) => stream,
                Err(LinkError::Ended(reason)) => return Err(reason.into()),
                Err(error) => return Err(DialError::BadRequest(error.to_string())),
            };
            let (read, write) = tokio::io::split(stream);
            let (reader, writer) = (FrameReader::new(read), FrameWriter::new(write));
            Ok(Way { connection, reader, writer, since: Instant::now() })
        }))
    }

    /// Begins the pause before the next attempt. `lasted` is how long the link was up that broke.
    pub(crate) fn pause(&mut self, lasted: Option<Duration>) -> Road {
        if let Some(lasted) = lasted {
            self.backoff.after_connection(lasted);
        }
        Road::Pausing(Box::pin(sleep(self.backoff.after_failure().min(LONGEST_PAUSE))))
    }
}

impl Road {
    /// Waits for the next event; frames are read only if they are `wanted`. Safe to drop and call again.
    pub(crate) async fn next(&mut self, wanted: Option<FrameSet>) -> RoadEvent {
        match self {
            Self::Dialing(dialing) => RoadEvent::Dialed(dialing.await),
            Self::Pausing(pause) => {
                pause.await;
                RoadEvent::PauseOver
            }
            Self::Open(way) => {
                let Way { connection, reader, writer, .. } = way.as_mut();
                let to_send = !writer.is_flushed();
                tokio::select! {
                    sent = writer.flush(), if to_send => RoadEvent::Sent(sent),
                    frame = async { reader.read(wanted.unwrap_or(FrameSet::of(&[]))).await }, if wanted.is_some() => RoadEvent::Frame(frame),
                    // `None`: the link has ended, which the stream tells.
                    Some(stream) = connection.accept() => RoadEvent::Opened(stream),
                    // Neither is wanted: what changes that comes from elsewhere.
                    () = std::future::pending(), if !to_send && wanted.is_none() => RoadEvent::PauseOver,
                }
            }
        }
    }

    /// Returns the open stream.
    pub(crate) fn open(&mut self) -> Option<&mut Way> {
        match self {
            Self::Open(way) => Some(way),
            Self::Dialing(_) | Self::Pausing(_) => None,
        }
    }

    /// Returns how long the open stream has lasted.
    pub(crate) fn lasted(&self) -> Option<Duration> {
        match self {
            Self::Open(way) => Some(way.since.elapsed()),
            Self::Dialing(_) | Self::Pausing(_) => None,
        }
    }
}

/// Returns the server's refusal of the link behind an error of its stream.
pub(crate) fn refusal_in(error: &FramedError) -> Option<Refusal> {
    let FramedError::Io(io) = error else { return None };
    match LinkError::of(io)? {
        LinkError::Ended(munjigi_link::EndReason::Refused(refusal)) => Some(refusal.clone()),
        _ => None,
    }
}

/// Says in the fewest words why a stream ended.
pub(crate) fn why(error: &FramedError) -> String {
    if let FramedError::Io(io) = error
        && let Some(LinkError::Ended(reason)) = LinkError::of(io)
    {
        return reason.to_string();
    }
    error.to_string()
}
