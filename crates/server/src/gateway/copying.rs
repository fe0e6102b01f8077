//! Copies of files pass here: the gateway reads the protocol along, asks policy about the real path of every file before
//! a byte of it goes on, and hands each file's outcome to recording and trail.
//!
//! Bytes go through as they are; data is only counted. What is denied ends the copy, and the client is told why.

mod eye;
mod follow;
pub(in crate::gateway) mod outbox;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use munjigi_core::endpoint::Endpoint;
use munjigi_core::recording::FileDirection;
use tokio::io::{AsyncRead, AsyncWrite};

use super::facts::SessionFacts;
use super::ports::{Journal, PortStream};
use crate::Server;
use eye::Eye;
use follow::Followed;
use outbox::Outbox;

/// Answers whether a file at this real path may be copied; the error is for people.
pub(crate) type PathJudge = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Returns which way files go at an endpoint, if it is one for files.
pub(crate) fn direction(endpoint: &Endpoint) -> Option<FileDirection> {
    match endpoint {
        Endpoint::Upload(_) => Some(FileDirection::Upload),
        Endpoint::Download(_) => Some(FileDirection::Download),
        Endpoint::Tcp(_) | Endpoint::Unix(_) | Endpoint::Listen(_) | Endpoint::ListenUnix(_) | Endpoint::Agent => None,
        Endpoint::Files(_) | Endpoint::Rsync(_) => None,
    }
}

/// Carries a copy between a client and the node to its end.
pub(super) async fn relay<S: AsyncRead + AsyncWrite + Unpin>(
    server: &Arc<Server>,
    facts: &Arc<SessionFacts>,
    mut door: S,
    connection: PortStream,
    journal: Journal,
    (direction, judge): (FileDirection, PathJudge),
) {
    let outbox = Arc::new(Outbox::default());
    let written = tokio::spawn(Arc::clone(&outbox).write(Arc::clone(server), Arc::clone(facts), journal));
    let eye = Eye::new(direction, connection.number(), judge);
    let mut followed = Followed::new(connection, PortStream::break_off, eye, outbox);
    if let Err(error) = munjigi_link::relay::relay(&mut door, &mut followed).await {
        tracing::debug!(%error, "a copy broke");
    }
    drop(followed);
    // What the copy did is written before its stream is forgotten; nobody waits for this task but the server's end.
    let _ = written.await;
}
