//! A data channel as the kinds of session see it: payloads in order both ways, and whether the client is there.
//!
//! Numbers, acknowledgements, retransmission and sockets are behind it, in the [`pump`](super::pump). A kind is one
//! task that owns a [`DataChannel`]; not receiving holds the client back, and sending waits while the client is slow.

use bytes::Bytes;
use munjigi_core::wire::aws::PayloadType;
use tokio::sync::{mpsc, watch};

/// Payloads that may wait for the kind. They are acknowledged: the session lives as long as they do.
const INCOMING: usize = 8;
/// Payloads that may wait for the pump.
const OUTGOING: usize = 2;

/// Largest payload that [`DataChannel::outgoing`] takes, bytes: what one frame of the link brings.
pub(super) const MAX_PAYLOAD: usize = munjigi_core::wire::MAX_DATA;

/// The kind's end.
pub(super) struct DataChannel {
    /// Payloads of the client, in order. Sent by the pump, received by the kind. `None`: the pump is gone.
    pub(super) incoming: mpsc::Receiver<(PayloadType, Bytes)>,
    /// For the client. Sent by the kind, received by the pump.
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    /// Whether the client has a socket.
    pub(super) presence: watch::Receiver<Presence>,
}

/// The pump's end.
pub(super) struct PumpEnd {
    pub(super) to_kind: mpsc::Sender<(PayloadType, Bytes)>,
    pub(super) from_kind: mpsc::Receiver<Outgoing>,
    pub(super) presence: watch::Sender<Presence>,
}

/// What a kind sends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A payload of at most [`MAX_PAYLOAD`] bytes, next in the stream.
    Payload(PayloadType, Bytes),
    /// The session is over. Everything sent before reaches the client first. The text is for the person; empty for an
    /// ordinary end.
    End(String),
}

/// Whether the client has a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has.
    Here,
    /// It lost its socket and may come back.
    Away,
}

impl DataChannel {
    /// Makes both ends of a channel whose client is here.
    pub(super) fn new() -> (Self, PumpEnd) {
        let (to_kind, incoming) = mpsc::channel(INCOMING);
        let (outgoing, from_kind) = mpsc::channel(OUTGOING);
        let (here, presence) = watch::channel(Presence::Here);
        let kind = Self { incoming, outgoing, presence };
        (kind, PumpEnd { to_kind, from_kind, presence: here })
    }

    /// Sends, waiting while the client is slow or away. `Err`: the pump is gone, and with it the client.
    pub(super) async fn send(&self, outgoing: Outgoing) -> Result<(), Gone> {
        self.outgoing.send(outgoing).await.map_err(|_| Gone)
    }
}

/// The client will not come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;
