//! The MySQL protocol as somebody in the middle needs it: both logins, and every statement with its outcome.
//!
//! One end is a person's client, which proves nothing here, the other a MySQL or MariaDB server, which gets the stored
//! credential. Once both are logged in, packets pass unchanged and [`Conversation`] reads along. Bytes and state only:
//! sockets, TLS, time and randomness are the caller's. Nothing is parsed beyond what the recording and the safety of
//! the connection need; compression, replication and changing the user are not let through.
//!
//! Sources: "MySQL Source Code Documentation, Client/Server Protocol" and "MariaDB Knowledge Base, Clients & Utilities,
//! Client/Server Protocol".

mod auth;
pub mod capability;
mod command;
mod conversation;
mod field;
mod greeting;
mod login;
mod mask;
mod packet;
mod parameters;
mod prepared;
mod reply;
#[cfg(test)]
mod tests;

pub use auth::{Auth, AuthError, AuthStep, Channel};
pub use conversation::{Conversation, FromClient, HOLD_BYTES};
pub use greeting::Greeting;
pub use login::{ClientLogin, LoginError, NATIVE_PASSWORD, ServerLogin};
pub use packet::{HEADER_BYTES, Head, MAX_LOGIN_PACKET, MAX_PAYLOAD, write_packet};
pub use reply::ServerError;

/// Why a connection cannot go on: somebody does not speak the protocol, or speaks a part of it that is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A packet is shorter than its kind, or has a value that cannot be.
    #[error("the {from} sent a malformed {what}")]
    Malformed {
        /// Who: "client" or "server".
        from: &'static str,
        /// What it should have been.
        what: &'static str,
    },
    /// The server sent something although nothing was asked.
    #[error("the server sent a packet that nobody asked for")]
    Unasked,
    /// The server asked the client for a file although that was not agreed on.
    #[error("the server asked for a file of the client, which is not allowed here")]
    FileNotAllowed,
    /// The client sent commands behind one whose data it was to send.
    #[error("the client did not wait for the server to ask for the file's data")]
    FileOutOfTurn,
    /// The server answered before it had the whole file.
    #[error("the server answered before the client had sent the whole file")]
    FileNotTaken,
}

impl Violation {
    fn client(what: &'static str) -> Self {
        Self::Malformed { from: "client", what }
    }

    fn server(what: &'static str) -> Self {
        Self::Malformed { from: "server", what }
    }
}
