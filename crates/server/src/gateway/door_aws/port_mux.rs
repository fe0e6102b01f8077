//! The mux way (session-manager-protocol 3.4): many connections in smux version 1, one stream each.
//!
//! One task owns the multiplexer and polls all connections. A connection is read only while its stream has room, and
//! the client is held back while unread bytes fill the multiplexer. An end on either side ends the stream in both
//! directions: smux version 1 has no half-close.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use munjigi_core::wire::aws::smux::{Mux, MuxEvent, MuxLimits, Read, Side};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::io::poll_read_buf;

use super::data_channel::{DataChannel, MAX_PAYLOAD, Outgoing};
use super::port::Finish;
use super::port_one::{LAST_WORDS, hear_out};
use crate::gateway::ports::PortError;

/// Most bytes read from a connection at once.
const CHUNK: usize = 32 * 1024;
/// How often old clients must hear something: they end the multiplexer after 30 s of silence.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Carries connections until the session ends. With `keep_alive` the client hears something that often.
pub(super) async fn carry<S, F>(
    channel: &mut DataChannel,
    connect: impl Fn() -> F,
    keep_alive: Option<Duration>,
) -> Finish
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<S, PortError>>,
{
    let mut ports = Ports {
        mux: Mux::new(Side::Server, MuxLimits::default()),
        carriers: BTreeMap::new(),
        buffer: BytesMut::new(),
        turn: 0,
    };
    let mut dialing = FuturesUnordered::new();
    let mut failed = false;
    let mut ready = None;
    let period = keep_alive.unwrap_or(KEEP_ALIVE);
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while let Some(event) = ports.mux.next_event() {
            if let MuxEvent::Opened(id) = event {
                let dialed = connect();
                // Bounded by the multiplexer's streams; the session itself refuses far fewer at once.
                dialing.push(async move { (id, dialed.await) });
            }
        }
        if ready.is_none() {
            ready = next_outgoing(&mut ports.mux, &mut failed);
        }
        tokio::select! {
            permit = channel.outgoing.reserve(), if ready.is_some() => match (permit, ready.take()) {
                (Ok(permit), Some(outgoing)) => permit.send(outgoing),
                _ => return Finish::Gone,
            },
            payload = channel.incoming.recv(), if ports.mux.wants_input() => match payload {
                Some((PayloadType::Output, bytes)) => {
                    if let Err(error) = ports.mux.receive(bytes) {
                        return Finish::Broken(format!("the client broke the protocol: {error}"));
                    }
                }
                Some((PayloadType::Flag, payload)) if Flag::parse(&payload) == Some(Flag::TerminateSession) => {
                    return Finish::Terminated;
                }
                // What belongs to no multiplexed port.
                Some(_) => {}
                None => return Finish::Gone,
            },
            Some((id, dialed)) = dialing.next(), if !dialing.is_empty() => match dialed {
                Ok(connection) => ports.begin(id, connection),
                Err(error) => {
                    tracing::debug!(%error, "a connection was refused");
                    failed = true;
                    ports.mux.close(id);
                }
            },
            () = poll_fn(|cx| ports.poll(cx)) => {}
            _ = ticks.tick(), if keep_alive.is_some() => ports.mux.keep_alive(),
        }
    }
}

/// Takes what goes to the client next: a sign that a connection failed, then bytes of the multiplexer.
fn next_outgoing(mux: &mut Mux, failed: &mut bool) -> Option<Outgoing> {
    if std::mem::take(failed) {
        return Some(Outgoing::Payload(PayloadType::Flag, Flag::ConnectToPortError.bytes()));
    }
    mux.next_output(MAX_PAYLOAD).map(|bytes| Outgoing::Payload(PayloadType::Output, bytes))
}

/// A connection and what it has not taken yet.
struct Carrier<S> {
    connection: S,
    inward: Bytes,
    /// Bytes were written that may not be on their way yet.
    unflushed: bool,
}

struct Ports<S> {
    mux: Mux,
    carriers: BTreeMap<u32, Carrier<S>>,
    /// Where connections are read into; what was read shares its memory.
    buffer: BytesMut,
    /// Which stream is polled first, so that the first ones do not take all the room.
    turn: u32,
}

/// What polling a connection gave.
enum Polled {
    /// Nothing can be done now; its waker is registered.
    Pending,
    /// Bytes moved.
    Moved,
    /// It broke.
    Broken,
    /// The destination has nothing more to say.
    DestinationEnded,
    /// The client has closed it, and the destination has everything.
    ClientEnded,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Ports<S> {
    fn begin(&mut self, id: u32, connection: S) {
        self.carriers.insert(id, Carrier { connection, inward: Bytes::new(), unflushed: false });
    }

    /// Moves what can be moved; ready if anything was.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (mut before, mut ids): (Vec<u32>, Vec<u32>) = self.carriers.keys().partition(|id| **id < self.turn);
        ids.append(&mut before);
        self.turn = ids.get(1).copied().unwrap_or_default();
        let mut moved = false;
        for id in ids {
            let Some(carrier) = self.carriers.get_mut(&id) else { continue };
            let mut polled = poll_inward(carrier, &mut self.mux, id, cx);
            if matches!(polled, Polled::Pending | Polled::Moved) {
                let outward = poll_outward(carrier, &mut self.mux, &mut self.buffer, id, cx);
                polled = if matches!(outward, Polled::Pending) { polled } else { outward };
            }
            moved |= !matches!(polled, Polled::Pending);
            match polled {
                Polled::Pending | Polled::Moved => {}
                Polled::Broken => drop(self.end(id)),
                Polled::DestinationEnded => drop(self.end(id).map(|connection| tokio::spawn(hang_up(connection)))),
                Polled::ClientEnded => drop(self.end(id).map(|connection| tokio::spawn(hear_out(connection)))),
            }
        }
        if moved { Poll::Ready(()) } else { Poll::Pending }
    }

    fn end(&mut self, id: u32) -> Option<S> {
        self.mux.close(id);
        self.carriers.remove(&id).map(|carrier| carrier.connection)
    }
}

/// Writes what the client sent to the destination.
fn poll_inward<S: AsyncWrite + Unpin>(
    carrier: &mut Carrier<S>,
    mux: &mut Mux,
    id: u32,
    cx: &mut Context<'_>,
) -> Polled {
    let mut polled = Polled::Pending;
    loop {
        if carrier.inward.is_empty() {
            match mux.read(id) {
                Read::Data(bytes) => carrier.inward = bytes,
                Read::Nothing if carrier.unflushed => match Pin::new(&mut carrier.connection).poll_flush(cx) {
                    Poll::Ready(Ok(())) => {
                        carrier.unflushed = false;
                        return polled;
                    }
                    Poll::Ready(Err(_)) => return Polled::Broken,
                    Poll::Pending => return polled,
                },
                Read::Nothing => return polled,
                Read::End => return Polled::ClientEnded,
            }
        }
        match Pin::new(&mut carrier.connection).poll_write(cx, &carrier.inward) {
            Poll::Ready(Ok(count @ 1..)) => {
                carrier.inward.advance(count);
                carrier.unflushed = true;
            }
            Poll::Ready(_) => return Polled::Broken,
            Poll::Pending => return polled,
        }
        polled = Polled::Moved;
    }
}

/// Reads once from the destination, if its stream has room.
fn poll_outward<S: AsyncRead + Unpin>(
    carrier: &mut Carrier<S>,
    mux: &mut Mux,
    buffer: &mut BytesMut,
    id: u32,
    cx: &mut Context<'_>,
) -> Polled {
    let room = mux.room(id).min(CHUNK);
    // Reads stay worth their system call; what is sent makes room again, and this task with it.
    if room < CHUNK {
        return Polled::Pending;
    }
    if buffer.capacity() < CHUNK / 4 {
        buffer.reserve(CHUNK);
    }
    let mut limited = bytes::BufMut::limit(&mut *buffer, room);
    match poll_read_buf(Pin::new(&mut carrier.connection), cx, &mut limited) {
        Poll::Ready(Ok(0)) => Polled::DestinationEnded,
        Poll::Ready(Ok(_)) => match mux.write(id, buffer.split().freeze()) {
            Ok(()) => Polled::Moved,
            // The room was just looked at, so the client has closed the stream.
            Err(_) => Polled::Broken,
        },
        Poll::Ready(Err(_)) => Polled::Broken,
        Poll::Pending => Polled::Pending,
    }
}

/// The destination has ended the connection: ends the other direction too.
async fn hang_up<S: AsyncWrite + Unpin>(mut connection: S) {
    // A connection that is broken by now has ended as well.
    let _ = tokio::time::timeout(LAST_WORDS, connection.shutdown()).await;
}
