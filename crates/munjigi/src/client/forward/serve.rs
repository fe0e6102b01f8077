//! A connection through the node for every program that connects to a listener.

use std::io;
use std::time::Duration;

use tokio::task::JoinSet;

use super::connect::{ConnectError, Connected};
use super::{Connector, Listener, Near};

/// What is copied at once in each direction.
pub(super) const COPY_BYTES: usize = 64 * 1024;
/// The pause after an accept that failed for want of something (descriptors, memory) that comes back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What happened at a listener.
#[derive(Debug)]
pub(crate) enum Served {
    /// A program has connected.
    Accepted,
    /// Its connection could not be made, and it was told by a reset.
    Failed(ConnectError),
}

/// Serves a listener until `tell`, which is told of everything, returns an error. Dropping the future ends every
/// connection that was made.
pub(crate) async fn serve(
    listener: &Listener,
    connector: &Connector,
    mut tell: impl FnMut(Served) -> io::Result<()>,
) -> io::Error {
    let mut tasks = JoinSet::new();
    loop {
        let told = tokio::select! {
            accepted = accept(listener, connector) => match accepted {
                Ok((near, connecting)) => {
                    tasks.spawn(carry(near, connecting));
                    tell(Served::Accepted)
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Ok(())
                }
            },
            Some(done) = tasks.join_next() => match done {
                Ok(Err(error)) => tell(Served::Failed(error)),
                _ => Ok(()),
            },
        };
        if let Err(error) = told {
            return error;
        }
    }
}

/// Takes the next connection when there is room for it: whoever is beyond waits in the system's queue.
async fn accept(
    listener: &Listener,
    connector: &Connector,
) -> io::Result<(Near, impl Future<Output = Result<Connected, ConnectError>> + Send + use<>)> {
    let place = connector.place().await;
    let near = listener.accept().await?;
    let connector = connector.clone();
    Ok((near, async move { connector.connect_in(place).await }))
}

async fn carry(
    near: Near,
    connecting: impl Future<Output = Result<Connected, ConnectError>>,
) -> Result<(), ConnectError> {
    match connecting.await {
        Ok(mut connected) => {
            copy(near, &mut connected).await;
            Ok(())
        }
        Err(error) => {
            near.reset();
            Err(error)
        }
    }
}

/// Carries the bytes of a connection until both directions have ended, or one of them broke; that is a reset for both
/// ends.
pub(super) async fn copy(mut near: Near, connected: &mut Connected) {
    let far = &mut connected.far;
    let copied = tokio::io::copy_bidirectional_with_sizes(&mut near, far, COPY_BYTES, COPY_BYTES).await;
    tracing::debug!(?copied, "a connection has ended");
    if copied.is_err() {
        near.reset();
    }
}
