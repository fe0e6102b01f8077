//! The stdio way (session-manager-protocol 3.5): one connection for the client's standard input and output, as ssh's
//! `ProxyCommand` wants it. Its end is the session's.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::data_channel::DataChannel;
use super::port::Finish;
use super::port_one::{self, Over};
use crate::gateway::ports::PortError;

/// Connects at once and carries bytes until either side ends it.
pub(super) async fn carry<S, F>(channel: &mut DataChannel, connect: impl Fn() -> F) -> Finish
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<S, PortError>>,
{
    let connection = match connect().await {
        Ok(connection) => connection,
        Err(error) => return Finish::Broken(error.to_string()),
    };
    match port_one::carry(channel, connection, Bytes::new()).await {
        Over::DestinationEnded | Over::Disconnected => Finish::Completed,
        Over::Broken(error) => Finish::Broken(format!("the connection broke: {error}")),
        Over::Terminated => Finish::Terminated,
        Over::Gone => Finish::Gone,
    }
}
