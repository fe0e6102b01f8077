//! The basic way (session-manager-protocol 3.3), for clients before 1.1.70: one connection after the other, made when
//! the client sends its first bytes.

use munjigi_core::wire::aws::PayloadType;
use munjigi_core::wire::aws::payload::Flag;
use tokio::io::{AsyncRead, AsyncWrite};

use super::data_channel::DataChannel;
use super::port::Finish;
use super::port_one::{self, Over};
use crate::gateway::ports::PortError;

/// Carries one connection after the other until the session ends.
pub(super) async fn carry<S, F>(channel: &mut DataChannel, connect: impl Fn() -> F) -> Finish
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Result<S, PortError>>,
{
    loop {
        let first = match channel.incoming.recv().await {
            Some((PayloadType::Output, bytes)) => bytes,
            Some((PayloadType::Flag, payload)) if Flag::parse(&payload) == Some(Flag::TerminateSession) => {
                return Finish::Terminated;
            }
            // A connection that is closed already, and what belongs to no port.
            Some(_) => continue,
            None => return Finish::Gone,
        };
        let connection = match connect().await {
            Ok(connection) => connection,
            // Such a client would write a flag to its local connection like any bytes: only the end tells it anything.
            Err(error) => return Finish::Broken(error.to_string()),
        };
        match port_one::carry(channel, connection, first).await {
            // As AWS's agent: closed here, made again with the next bytes.
            Over::DestinationEnded | Over::Disconnected | Over::Broken(_) => {}
            Over::Terminated => return Finish::Terminated,
            Over::Gone => return Finish::Gone,
        }
    }
}
