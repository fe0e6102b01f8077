//! PostgreSQL with eyes: a client that proved itself to Munjigi is logged in at the server with the stored credential, and
//! whatever the two say passes unchanged, read along by [`munjigi_core::postgres::Conversation`].

mod cancel;
mod first;
mod login;
mod message;
mod password;
mod relay;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use munjigi_core::postgres::{self, Violation};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

pub(crate) use cancel::CancelKeys;
use first::Wish;

use super::Context;
use crate::Server;
use crate::gateway::nodes::NodeStream;
use crate::gateway::ports::PortError;

/// How long a client may take until it has said what it wants. No person types anything then.
const FIRST_LIMIT: Duration = Duration::from_secs(60);
/// How long the server may take for the login; its own limit is as long.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// How long the last words of a connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Why a connection ends before its time. The texts are for the client's program, which shows them.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Somebody does not speak the protocol.
    #[error("{0}")]
    Violation(#[from] Violation),
    /// A stream broke.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// The session is over.
    #[error("the session of this connection is over")]
    Over(#[from] PortError),
    /// What was waited for did not come.
    #[error("{0}")]
    TimedOut(&'static str),
    /// The login is not possible; PostgreSQL's code for it.
    #[error("{1}")]
    Refused(&'static str, String),
    /// The server has said why itself, and the client was told.
    #[error("the server refused the login")]
    ByServer {
        /// Its code.
        code: String,
    },
}

impl Failure {
    /// Returns PostgreSQL's code for it.
    fn code(&self) -> &str {
        match self {
            Self::Violation(_) => postgres::FATAL_PROTOCOL,
            Self::Io(_) => "08006",
            Self::Over(_) => "57P01",
            Self::TimedOut(_) => "08001",
            Self::Refused(code, _) => code,
            Self::ByServer { code } => code,
        }
    }
}

/// Serves one connection until its end. `target` is the connection to the server.
pub(super) async fn serve(server: &Arc<Server>, context: Context, client: NodeStream, target: NodeStream) {
    let keys = &server.gateway.cancel_keys;
    let wished = timeout(FIRST_LIMIT, first::wish(&context, client)).await;
    let (client, wish) = match wished {
        Ok(Ok(wished)) => wished,
        Ok(Err((Some(client), failure))) => return refuse(client, &failure).await,
        // Nobody is there to be told, or nobody said anything.
        Ok(Err((None, _))) | Err(_) => return,
    };
    let ended = match wish {
        Wish::Cancel { process_id, secret } => cancel::forward(keys, &context, target, process_id, secret).await,
        Wish::Login(login) => return login::serve(keys, context, client, target, login).await,
    };
    if let Err(failure) = ended {
        tracing::debug!(%failure, "a request to cancel was not passed on");
    }
    // Whoever asks to cancel is told nothing, only that the connection ends.
    close(client).await;
}

/// Tells the client why and ends the connection.
async fn refuse(mut client: NodeStream, failure: &Failure) {
    let mut error = Vec::new();
    postgres::fatal(failure.code(), &failure.to_string(), &mut error);
    // One that takes nothing more loses the last words.
    let _ = timeout(CLOSE_LIMIT, client.write_all(&error)).await;
    close(client).await;
}

/// Ends a connection in order, as far as the other end lets it.
async fn close(mut client: NodeStream) {
    let _ = timeout(CLOSE_LIMIT, client.shutdown()).await;
}
