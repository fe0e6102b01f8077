//! One connection whose bytes are the payloads of the channel themselves: what the basic and the stdio way share.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::mpsc;

use crate::gateway::ports::send;

use super::data_channel::{DataChannel, MAX_PAYLOAD, Outgoing};

/// How long a destination may go on sending to a client that has closed its connection, before it is cut.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(30);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Over {
    /// The destination has nothing more to say.
    DestinationEnded,
    /// Reading or writing failed.
    Broken(io::Error),
    /// The client's local connection was closed.
    Disconnected,
    /// The client ends the session.
    Terminated,
    /// The client is gone for good.
    Gone,
}

/// Carries bytes until something ends. `pending` goes to the destination first.
pub(super) async fn carry<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    channel: &mut DataChannel,
    connection: S,
    mut pending: Bytes,
) -> Over {
    let (mut read, mut write) = split(connection);
    let mut buffer = BytesMut::new();
    let mut unflushed = false;
    loop {
        tokio::select! {
            sent = send(&mut write, &mut pending, &mut unflushed), if unflushed || !pending.is_empty() => {
                if let Err(error) = sent {
                    return Over::Broken(error);
                }
            }
            // Not received while the destination is slow: then the client is held back.
            payload = channel.incoming.recv(), if pending.is_empty() => match payload {
                Some((PayloadType::Output, bytes)) => pending = bytes,
                Some((PayloadType::Flag, payload)) => match Flag::parse(&payload) {
                    Some(Flag::DisconnectToPort) => {
                        tokio::spawn(hear_out(read.unsplit(write)));
                        return Over::Disconnected;
                    }
                    Some(Flag::TerminateSession) => return Over::Terminated,
                    _ => {}
                },
                // Handshakes and sizes belong to no port.
                Some(_) => {}
                None => return Over::Gone,
            },
            came = take(&channel.outgoing, &mut read, &mut buffer) => match came {
                Ok(Some(())) => {}
                Ok(None) => return Over::Gone,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Over::DestinationEnded,
                Err(error) => return Over::Broken(error),
            },
        }
    }
}

/// The client has closed the connection: the destination is told, and may finish what it is saying to nobody, so that
/// no reset overtakes what the client sent last.
pub(super) async fn hear_out<S: AsyncRead + AsyncWrite + Unpin>(mut connection: S) {
    // A connection that is broken by now has ended as well.
    let _ = tokio::time::timeout(LAST_WORDS, async {
        connection.shutdown().await?;
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await
    })
    .await;
}

/// Reads once, when the channel has room for it. Safe to drop and call again. `None`: the client is gone.
async fn take<R: AsyncRead + Unpin>(
    outgoing: &mpsc::Sender<Outgoing>,
    read: &mut R,
    buffer: &mut BytesMut,
) -> io::Result<Option<()>> {
    let Ok(permit) = outgoing.reserve().await else { return Ok(None) };
    buffer.reserve(MAX_PAYLOAD);
    let count = read.take(MAX_PAYLOAD as u64).read_buf(buffer).await?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    permit.send(Outgoing::Payload(PayloadType::Output, buffer.split().freeze()));
    Ok(Some(()))
}
