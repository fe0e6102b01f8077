//! The PostgreSQL protocol, version 3, as somebody in the middle needs it: the first packet of a client, the few messages
//! that are made here, and every statement with its outcome.
//!
//! One end is a person's client, which proves nothing here, the other a server that gets the stored credential. Once both
//! are logged in, messages pass unchanged and [`Conversation`] reads along. Bytes and state only: sockets, TLS, time and
//! randomness are the caller's. A message is never held as a whole: of each only the beginning that is recorded is kept.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol".

mod conversation;
mod frame;
mod mask;
mod names;
mod reply;
mod startup;
#[cfg(test)]
mod tests;

pub use conversation::Conversation;
pub use frame::{Framer, Message};
pub use mask::mask;
pub use reply::{
    AUTHENTICATION_OK, FATAL_PROTOCOL, Readiness, authentication_ok, backend_key, error_code, fatal, negotiate,
    ready_or_error,
};
pub use startup::{First, Login, MAX_FIRST_PACKET};

/// Why a connection cannot go on: somebody does not speak the protocol, or speaks a part of it that is not let through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length that no message of its kind has.
    #[error("the {from} sent a message {kind:?} of {length} bytes")]
    Length {
        /// Who: "client" or "server".
        from: &'static str,
        /// The message's first byte.
        kind: char,
        /// What it says of its length.
        length: i64,
    },
    /// A message that may not come from there, or not now.
    #[error("the {from} sent a message {kind:?}, which may not come here")]
    Kind {
        /// Who: "client" or "server".
        from: &'static str,
        /// The message's first byte.
        kind: char,
    },
    /// A message whose fields cannot be read.
    #[error("the {from} sent a malformed {what}")]
    Malformed {
        /// Who: "client" or "server".
        from: &'static str,
        /// What it should have been.
        what: &'static str,
    },
    /// The client asked for a version of the protocol that is not spoken here.
    #[error("the client speaks version {major}.{minor} of the protocol, and only 3 is spoken here")]
    Version {
        /// Before the point.
        major: u16,
        /// Behind it.
        minor: u16,
    },
}
