//! A connection through the node for every program that connects to a listener.

use std::io;
use std::time::Duration;

use munjigi_core::endpoint::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;

use super::connect::{ConnectError, Early};
use super::proxy::{self, Negotiated};
use super::{Connector, Listener, Near};

/// What is copied at once in each direction.
pub(super) const COPY_BYTES: usize = 64 * 1024;
/// The pause after an accept that failed for want of something (descriptors, memory) that comes back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where the connections of a listener lead.
#[derive(Debug, Clone)]
pub(crate) enum Lead {
    /// To one place; `None` is the only one that the session has.
    To(Option<Endpoint>),
    /// Wherever each program says, in the words of SOCKS or HTTP.
    Proxy,
}

/// What happened at a listener.
#[derive(Debug)]
pub(crate) enum Served {
    /// A program has connected.
    Accepted,
    /// Its connection could not be made; it was told so by a reset, or as a proxy tells.
    Failed(Failed),
}

/// A connection that was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// To the listener's only place.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// To a place that a program had asked for.
    #[error("{to}: {error}")]
    Asked {
        /// As it was asked for.
        to: String,
        /// Why.
        error: ConnectError,
    },
    /// The program asked for nothing that a proxy can do.
    #[error("a program cannot use the proxy: {0}")]
    Wrong(#[from] munjigi_core::proxy::Wrong),
}

/// Serves a listener until `tell`, which is told of everything, returns an error. Dropping the future ends every
/// connection that was made.
pub(crate) async fn serve(
    listener: &Listener,
    connector: &Connector,
    lead: &Lead,
    mut tell: impl FnMut(Served) -> io::Result<()>,
) -> io::Error {
    let mut tasks = JoinSet::new();
    loop {
        let told = tokio::select! {
            accepted = accept(listener, connector) => match accepted {
                Ok((near, place)) => {
                    tasks.spawn(carry(near, place, connector.clone(), lead.clone()));
                    tell(Served::Accepted)
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Ok(())
                }
            },
            Some(done) = tasks.join_next() => match done {
                Ok(Err(failed)) => tell(Served::Failed(failed)),
                _ => Ok(()),
            },
        };
        if let Err(error) = told {
            return error;
        }
    }
}

/// Takes the next connection when there is room for it: whoever is beyond waits in the system's queue (T-95).
async fn accept(listener: &Listener, connector: &Connector) -> io::Result<(Near, OwnedSemaphorePermit)> {
    let place = connector.place().await;
    Ok((listener.accept().await?, place))
}

async fn carry(mut near: Near, place: OwnedSemaphorePermit, connector: Connector, lead: Lead) -> Result<(), Failed> {
    match lead {
        Lead::To(endpoint) => match connector.connect_in(place, endpoint.as_ref(), &mut Early::from(&mut near)).await {
            Ok(mut connected) => {
                tracing::debug!(address = connected.address, "a connection stands");
                copy(near, &mut connected.far).await;
                Ok(())
            }
            Err(error) => {
                near.reset();
                Err(error.into())
            }
        },
        Lead::Proxy => match proxy::negotiate(near, place, &connector).await? {
            Negotiated::Connected { near, mut connected, early } => {
                // What came behind the request without waiting for the answer.
                if connected.far.write_all(&early).await.is_ok() && connected.far.flush().await.is_ok() {
                    copy(near, &mut connected.far).await;
                } else {
                    near.reset();
                }
                Ok(())
            }
            Negotiated::Gone => Ok(()),
        },
    }
}

/// Carries the bytes of a connection until both directions have ended, or one of them broke; that is a reset for both
/// ends.
pub(super) async fn copy(mut near: Near, far: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let copied = munjigi_link::relay::relay(&mut near, far).await;
    tracing::debug!(?copied, "a connection has ended");
    if copied.is_err() {
        near.reset();
    }
}
