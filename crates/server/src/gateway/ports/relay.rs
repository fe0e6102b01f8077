//! Carries a connection between a door's stream of bytes and the node.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::PortStream;

/// Carries bytes until both directions have ended, each by itself. What breaks on one side breaks on the other, since
/// both are dropped then.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut door: S, mut connection: PortStream) {
    if let Err(error) = munjigi_link::relay::relay(&mut door, &mut connection).await {
        tracing::debug!(%error, address = connection.address(), "a connection broke");
    }
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
