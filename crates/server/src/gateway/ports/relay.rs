//! Carries a connection between a door's stream of bytes and the node.

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

use super::PortStream;

/// Bytes read at once in each direction: two of the link's data frames.
const BUFFER: usize = 32 * 1024;

/// Carries bytes until both directions have ended, each by itself. What breaks on one side breaks on the other, since
/// both are dropped then.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut door: S, mut connection: PortStream) {
    if let Err(error) = copy_bidirectional_with_sizes(&mut door, &mut connection, BUFFER, BUFFER).await {
        tracing::debug!(%error, address = connection.address(), "a connection broke");
    }
}
