//! Carries a connection between a door's stream of bytes and the node.

use std::io;

use bytes::Bytes;
use munjigi_link::MovingStream;
use munjigi_link::relay::Relay;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::PortStream;
use crate::Server;

/// Carries bytes until both directions have ended, each by itself. What breaks on one side breaks on the other, since
/// both are dropped then.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(door: S, connection: PortStream) {
    told(Relay::new(door, connection)).await;
}

/// As [`relay`] for a client's stream that may get a lane. Once both sides have one, the bytes are carried where they
/// hold up nothing else.
pub async fn relay_bulk(server: &Server, client: MovingStream, connection: PortStream) {
    let Some(far) = connection.berth() else { return relay(client, connection).await };
    let near = client.berth();
    let mut carrying = Relay::new(client, connection);
    let carried = carrying.run_until(|_, _| near.has_lane() && far.has_lane()).await;
    match carried {
        Ok(None) => {
            near.goes_elsewhere();
            far.goes_elsewhere();
            server.bulk.run(told(carrying)).await;
        }
        Ok(Some(_)) => {}
        Err(error) => broke(&error, &mut carrying),
    }
}

async fn told<S: AsyncRead + AsyncWrite + Unpin>(mut carrying: Relay<S, PortStream>) {
    if let Err(error) = carrying.run().await {
        broke(&error, &mut carrying);
    }
}

fn broke<S: AsyncRead + AsyncWrite + Unpin>(error: &io::Error, carrying: &mut Relay<S, PortStream>) {
    let (_, connection) = carrying.ends_mut();
    tracing::debug!(%error, address = connection.address(), "a connection broke");
}

/// Takes one step for a door that reads in pieces: writes some of `pending`, or flushes what was written, without which it
/// may stay where it is. `unflushed` says whether there is something to flush. Safe to drop and call again.
pub(in crate::gateway) async fn send<W: AsyncWrite + Unpin>(
    connection: &mut W,
    pending: &mut Bytes,
    unflushed: &mut bool,
) -> io::Result<()> {
    if pending.is_empty() {
        connection.flush().await?;
        *unflushed = false;
    } else if connection.write_buf(pending).await? == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    } else {
        *unflushed = true;
    }
    Ok(())
}
