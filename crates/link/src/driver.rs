//! The one task of a link: it alone polls the multiplexer and through it the socket.
//!
//! Streams reach the multiplexer through its own queues; only opening and accepting pass through here. A panic in the
//! multiplexer (it had two that a peer could cause) ends this link and no other.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::Sleep;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};
use tokio_util::sync::WaitForCancellationFutureOwned;
use yamux::{Config, ConnectionError, DEFAULT_CREDIT, Mode};

use crate::carrier::{Carrier, SPLIT_SEND_SIZE};
use crate::connection::{Limits, Shared, Side, Slot, TaskEnds};
use crate::error::EndReason;
use crate::own_wake::OwnWake;
use crate::stream::Stream;

/// Streams opened in one go before the socket has its turn again.
const OPENS_AT_ONCE: usize = 32;

/// Starts the task. `make` builds the carrier inside it.
pub(crate) fn spawn<S, F>(make: F, mode: Mode, limits: Limits, ends: TaskEnds, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Carrier<S>> + Send + 'static,
{
    let finish = Finish(Arc::clone(&shared));
    // On the heap, as the driver below: else the task's future would hold the connection several times over for the
    // life of the link (G17).
    let make = Box::pin(make);
    tokio::spawn(async move {
        // Also runs when the runtime drops the task.
        let finish = finish;
        let served = AssertUnwindSafe(serve(make, mode, limits, ends, Arc::clone(&shared))).catch_unwind().await;
        match served {
            Ok(reason) => shared.set_reason(reason),
            Err(_panic) => {
                tracing::error!("the task of a link panicked; the link is lost, others are not affected");
                shared.set_reason(EndReason::Internal);
            }
        }
        drop(finish);
    });
}

/// Tells everybody that the link is over, whatever happened to the task.
struct Finish(Arc<Shared>);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish();
    }
}

async fn serve<S, F>(make: F, mode: Mode, limits: Limits, ends: TaskEnds, shared: Arc<Shared>) -> EndReason
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = Carrier<S>>,
{
    let mut driver = Box::new(Driver {
        yamux: yamux::Connection::new(make.await.compat(), config(&limits), mode),
        close_wanted: Box::pin(shared.close_wanted.clone().cancelled_owned()),
        closing: None,
        close_limit: limits.close,
        ends,
        waiting: None,
        refused: 0,
        shared: Arc::clone(&shared),
    });
    let own = OwnWake::new();
    let reason = poll_fn(|cx| own.poll(cx, |cx| driver.poll(cx))).await;
    // Before the multiplexer goes and streams notice.
    shared.set_reason(reason.clone());
    reason
}

fn config(limits: &Limits) -> Config {
    // Our own slots bound the live streams; here is room for those that were dropped but not yet cleared away. Above
    // its limit the multiplexer would end the connection.
    let streams = limits.max_streams.saturating_mul(4).saturating_add(64).min(4096);
    let mut config = Config::default();
    config.set_max_num_streams(streams);
    // Exactly the windows that every stream begins with, so that none ever grows (T-95).
    config.set_max_connection_receive_window(Some(streams * DEFAULT_CREDIT as usize));
    config.set_split_send_size(SPLIT_SEND_SIZE);
    config
}

struct Driver<S> {
    yamux: yamux::Connection<Compat<Carrier<S>>>,
    ends: TaskEnds,
    /// A wish to open that the multiplexer could not fulfil yet.
    waiting: Option<oneshot::Sender<yamux::Stream>>,
    close_wanted: Pin<Box<WaitForCancellationFutureOwned>>,
    /// An orderly close is under way, at most until this.
    closing: Option<Pin<Box<Sleep>>>,
    close_limit: Duration,
    /// Streams of the other side that were refused so far.
    refused: u64,
    shared: Arc<Shared>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if self.closing.is_none() && self.close_wanted.as_mut().poll(cx).is_ready() {
            self.shared.set_reason(EndReason::ClosedHere);
            self.closing = Some(Box::pin(tokio::time::sleep(self.close_limit)));
        }
        if let Some(limit) = &mut self.closing {
            let over = self.yamux.poll_close(cx).is_ready() || limit.as_mut().poll(cx).is_ready();
            return if over { Poll::Ready(EndReason::ClosedHere) } else { Poll::Pending };
        }
        let mut was_blocked = self.shared.is_blocked();
        self.poll_opens(cx);
        loop {
            match self.yamux.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(raw))) => self.deliver(raw),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.reason_of(&error)),
                Poll::Ready(None) => return Poll::Ready(EndReason::ClosedByPeer),
                Poll::Pending if was_blocked && !self.shared.is_blocked() => {
                    was_blocked = false;
                    self.poll_opens(cx);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_opens(&mut self, cx: &mut Context<'_>) {
        for _ in 0..OPENS_AT_ONCE {
            if self.shared.is_blocked() {
                return; // The socket wakes this task when it takes bytes again.
            }
            let Some(wish) = self.waiting.take().or_else(|| match self.ends.opens.poll_recv(cx) {
                Poll::Ready(wish) => wish,
                Poll::Pending => None,
            }) else {
                return;
            };
            if wish.is_closed() {
                continue;
            }
            match self.yamux.poll_new_outbound(cx) {
                Poll::Ready(Ok(raw)) => {
                    // Whoever asked may be gone; then the stream is dropped without a byte sent.
                    let _gone = wish.send(raw);
                }
                // The error shows again in the next call for inbound streams, which ends the task.
                Poll::Ready(Err(_)) => return,
                Poll::Pending => {
                    self.waiting = Some(wish);
                    return;
                }
            }
        }
        // More may wait: come back after the socket had its turn.
        cx.waker().wake_by_ref();
    }

    fn deliver(&mut self, raw: yamux::Stream) {
        // Dropping the stream refuses it: the other side sees a reset, others are not affected.
        let Ok(slot) = Slot::take(&self.shared, Side::Peer) else {
            return self.refused();
        };
        if self.ends.accepted.try_send(Box::new(Stream::new(raw, slot))).is_err() {
            self.refused();
        }
    }

    /// Says so in the log, ever more rarely: the other side decides how often it happens.
    fn refused(&mut self) {
        self.refused += 1;
        if self.refused.is_power_of_two() {
            tracing::warn!(times = self.refused, "refused a stream: the other side has opened too many");
        }
    }

    fn reason_of(&self, error: &ConnectionError) -> EndReason {
        // What the carrier recorded is nearer to the cause.
        self.shared.reason().unwrap_or_else(|| match error {
            ConnectionError::Io(error) => EndReason::Broken(error.to_string()),
            ConnectionError::Closed => EndReason::ClosedByPeer,
            other => EndReason::Protocol(other.to_string()),
        })
    }
}
