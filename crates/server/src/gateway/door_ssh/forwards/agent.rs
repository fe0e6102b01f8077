//! The client's SSH agent, offered to a program on the node: a socket of the OS user's there, for as long as the program
//! runs. `munjigi:ForwardAgent` on the node must be allowed; what is said to the agent is not read.

use std::sync::Arc;

use munjigi_core::endpoint::Endpoint;

use super::Refusal;
use super::remote::{Place, cancel, listen};
use crate::gateway::door_ssh::Conn;

/// An agent that is offered until this is dropped.
pub(crate) struct OfferedAgent {
    conn: Arc<Conn>,
    place: Place,
    path: String,
}

impl OfferedAgent {
    /// Has the node make a socket that leads to the client's agent.
    pub(crate) async fn offer(conn: &Arc<Conn>) -> Result<Self, Refusal> {
        let listening = listen(conn, Endpoint::Agent).await?;
        let path = listening.connection.address().to_owned();
        let place = Place::Agent(listening.connection.listener());
        listening.keep(place.clone())?;
        Ok(Self { conn: conn.clone(), place, path })
    }

    /// Returns the value of `SSH_AUTH_SOCK`.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for OfferedAgent {
    fn drop(&mut self) {
        cancel(&self.conn, &self.place);
    }
}
