//! Carries a connection between a door's stream of bytes and the node.

use tokio::io::{AsyncRead, AsyncWrite};

use super::PortStream;

/// Carries bytes until both directions have ended, each by itself. What breaks on one side breaks on the other, since
/// both are dropped then.
pub async fn relay<S: AsyncRead + AsyncWrite + Unpin>(mut door: S, mut connection: PortStream) {
    if let Err(error) = munjigi_link::relay::relay(&mut door, &mut connection).await {
        tracing::debug!(%error, address = connection.address(), "a connection broke");
    }
}
