//! One connection of a port session as its door holds it: bytes both ways, counted and hashed as they pass.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use munjigi_link::Berth;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::ledger::{Ledger, Live};
use super::rate::Paced;
use crate::gateway::nodes::NodeStream;

/// A connection. `shutdown` ends the direction to the destination and leaves the other one open; dropping it breaks
/// what has not ended. When the session ends both directions fail with [`io::ErrorKind::ConnectionAborted`].
pub struct PortStream {
    raw: NodeStream,
    /// What knows of its lanes, if it may have any.
    berth: Option<Arc<Berth>>,
    /// What came behind the node's answer.
    early: BytesMut,
    address: String,
    live: Arc<Live>,
    ledger: Arc<Ledger>,
    // One for each direction: they may belong to different tasks.
    over: [Pin<Box<WaitForCancellationFutureOwned>>; 2],
    read_ended: bool,
    write_ended: bool,
    broken: Option<String>,
    listener: u64,
    /// What limits how fast it carries, if something does.
    paced: Option<Box<Paced>>,
}

const READING: usize = 0;
const WRITING: usize = 1;

impl PortStream {
    pub(super) fn new(raw: NodeStream, early: BytesMut, address: String, live: Arc<Live>, ledger: Arc<Ledger>) -> Self {
        let paced = ledger.paced(live.endpoint()).map(Box::new);
        let over = [(); 2].map(|()| Box::pin(live.cut().clone().cancelled_owned()));
        Self {
            raw,
            berth: None,
            early,
            address,
            live,
            ledger,
            over,
            read_ended: false,
            write_ended: false,
            broken: None,
            listener: 0,
            paced,
        }
    }

    /// Says what knows of the node's lanes.
    pub(super) fn with_berth(mut self, berth: Option<Arc<Berth>>) -> Self {
        self.berth = berth;
        self
    }

    /// Returns what knows of the node's lanes, if it may have any.
    pub(super) fn berth(&self) -> Option<Arc<Berth>> {
        self.berth.clone()
    }

    /// Names the listener that this stream stands for.
    pub(super) fn with_listener(mut self, listener: u64) -> Self {
        self.listener = listener;
        self
    }

    /// Returns the node's number of the listener that this stream stands for; 0 for any other connection.
    pub fn listener(&self) -> u64 {
        self.listener
    }

    /// Returns the connection's number in its session.
    pub fn number(&self) -> u64 {
        self.live.number
    }

    /// Returns `address:port` that the node connected to.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Says why the connection is dropped.
    pub fn break_off(&mut self, why: &str) {
        self.broken.get_or_insert_with(|| why.to_owned());
    }

    /// Fails once the session is over; else sees to it that the task hears of it.
    fn check(&mut self, direction: usize, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self.over.get_mut(direction).is_some_and(|over| over.as_mut().poll(cx).is_ready());
        if over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Waits until a direction may carry more (T-92).
    fn poll_pace(&mut self, direction: usize, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.paced {
            Some(paced) => paced.poll(direction, cx, || self.ledger.held_up()),
            None => Poll::Ready(()),
        }
    }

    fn carried(&self, count: usize) {
        if let Some(paced) = &self.paced {
            paced.took(count);
        }
    }

    fn note<T>(&mut self, result: &io::Result<T>) {
        if let Err(error) = result {
            self.broken.get_or_insert_with(|| error.to_string());
        }
    }
}

impl AsyncRead for PortStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(READING, cx)?;
        ready!(this.poll_pace(READING, cx));
        let before = buf.filled().len();
        let result = if this.early.is_empty() {
            ready!(Pin::new(&mut this.raw).poll_read(cx, buf))
        } else {
            let count = this.early.len().min(buf.remaining());
            buf.put_slice(this.early.get(..count).unwrap_or_default());
            this.early.advance(count);
            Ok(())
        };
        let new = buf.filled().get(before..).unwrap_or_default();
        this.ledger.carried_out(&this.live, new);
        this.carried(new.len());
        this.read_ended |= result.is_ok() && new.is_empty() && buf.remaining() > 0;
        this.note(&result);
        Poll::Ready(result)
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(WRITING, cx)?;
        ready!(this.poll_pace(WRITING, cx));
        let result = ready!(Pin::new(&mut this.raw).poll_write(cx, buf));
        if let Ok(count) = &result {
            this.carried(*count);
            this.ledger.carried_in(&this.live, buf.get(..*count).unwrap_or_default());
        }
        this.note(&result);
        Poll::Ready(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(WRITING, cx)?;
        let result = ready!(Pin::new(&mut this.raw).poll_flush(cx));
        this.note(&result);
        Poll::Ready(result)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check(WRITING, cx)?;
        let result = ready!(Pin::new(&mut this.raw).poll_shutdown(cx));
        this.write_ended |= result.is_ok();
        this.note(&result);
        Poll::Ready(result)
    }
}

impl Drop for PortStream {
    fn drop(&mut self) {
        let why = match (&self.broken, self.read_ended, self.write_ended) {
            (Some(error), ..) => format!("the node's side broke: {error}"),
            (None, true, true) => "both sides ended it".to_owned(),
            (None, true, false) => "the destination ended it and the client left".to_owned(),
            (None, false, _) => "the client left".to_owned(),
        };
        // Nothing happens if the session's end has closed it already.
        self.ledger.closed(&self.live, &why);
    }
}
