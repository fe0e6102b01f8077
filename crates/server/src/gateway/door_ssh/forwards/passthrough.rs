//! The way through to a node's own sshd for our own client, which brings the whole SSH connection over its link.

use std::sync::Arc;

use munjigi_core::session::EndReason;
use munjigi_link::MovingStream;

use super::refusal::Refusal;
use super::sessions::{Aim, begin};
use crate::Server;
use crate::door::RequestMeta;
use crate::gateway::peer::FrameStream;
use crate::gateway::ports::{self, PortSession, PortStream};
use crate::identity::Caller;

/// A connection to a node's own sshd, and the session that it is.
pub(crate) struct PassedThrough {
    session: PortSession,
    connection: PortStream,
    /// As long as it is held the session has a client.
    _control: FrameStream,
}

impl PassedThrough {
    /// Begins the session and makes the connection.
    pub(crate) async fn open(
        server: &Arc<Server>,
        caller: &Caller,
        request: &RequestMeta,
        node: &str,
    ) -> Result<Self, Refusal> {
        let aim = Aim::Passthrough(node.to_owned());
        let (session, control) = begin(server, caller, request.clone(), aim.input(None)).await?;
        match session.connect_to(None, caller, request).await {
            Ok(connection) => Ok(Self { session, connection, _control: control }),
            Err(error) => {
                end(server, &session, &error.to_string()).await;
                Err(error.into())
            }
        }
    }

    /// Returns the public key of the node's sshd, as its agent says: whoever named the node needs to know no more.
    pub(crate) fn host_key(&self, server: &Server) -> Option<String> {
        server.gateway.nodes.get(&self.session.handle().facts.node)?.ssh_host_key
    }

    /// Carries the client's bytes, if it is still there, and ends the session with them.
    pub(crate) async fn carry(self, server: &Arc<Server>, client: Option<MovingStream>) {
        let Self { session, connection, _control } = self;
        match client {
            Some(client) => ports::relay_bulk(server, client, connection).await,
            None => drop(connection),
        }
        end(server, &session, "the SSH connection ended").await;
    }
}

async fn end(server: &Server, session: &PortSession, message: &str) {
    server.gateway.end_session(&session.handle().facts.id, EndReason::Exited, message).await;
}
