//! MySQL and MariaDB with eyes: the gateway logs in with the stored credential and reads statements along.
//!
//! What the protocol means is `munjigi_core::mysql`'s; here are its sockets, TLS, time and the recording.

mod login;
mod relay;

use std::io;

use munjigi_core::mysql::{AuthError, LoginError, Violation};

use super::{Context, TlsError};
use crate::gateway::nodes::NodeStream;
use crate::gateway::ports::PortError;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("the client or the server left in the middle of the login")]
    Left,
    #[error("the login took more than {} s", login::LIMIT.as_secs())]
    TimedOut,
    #[error("a packet of the login is too long")]
    TooLong,
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("{0}; this is about the target's credential, not yours")]
    Auth(#[from] AuthError),
    #[error("no TLS with the database: {0}")]
    TargetTls(TlsError),
    #[error("no TLS with the client: {0}")]
    ClientTls(TlsError),
    #[error("the target's settings ask for TLS, and the server does not offer it")]
    NoTls,
    #[error("the server sent something before TLS began that does not belong there")]
    BeforeTls,
    #[error("the server's key for passwords cannot be used")]
    Key,
    #[error(transparent)]
    Violation(#[from] Violation),
    #[error(transparent)]
    Session(#[from] PortError),
}

/// Serves one connection until it ends.
pub(super) async fn serve(context: Context, client: NodeStream, target: NodeStream) {
    let logged_in = match login::both(client, target, &context).await {
        Ok(logged_in) => logged_in,
        Err(error) => {
            tracing::info!(target_name = %context.target, %error, "a login to MySQL failed");
            return;
        }
    };
    if let Err(error) = relay::run(logged_in, &context.journal).await {
        tracing::info!(target_name = %context.target, %error, "a connection to MySQL was cut");
    }
}
