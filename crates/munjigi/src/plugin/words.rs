//! The lines of the original on standard output: scripts wait for them, and people know them.

use std::io::{self, Write as _};

use crate::client::text::escaped;

/// The lines about one session.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    session_id: String,
}

impl Words {
    /// For this session.
    pub(crate) fn of(session_id: &str) -> Self {
        Self { session_id: session_id.to_owned() }
    }

    /// The session is there.
    pub(crate) fn starting(&self) -> io::Result<()> {
        say(&format!("\nStarting session with SessionId: {}\n", self.session_id))
    }

    /// The session is over.
    pub(crate) fn exiting(&self) -> io::Result<()> {
        say(&format!("\n\nExiting session with sessionId: {}.\n\n", self.session_id))
    }

    /// The session is over, and the service says why.
    pub(crate) fn ended(&self, why: &str) -> io::Result<()> {
        say(&format!("\n\nSessionId: {} : {}\n\n", self.session_id, escaped(why)))
    }

    /// The session was over when this program came back to it.
    pub(crate) fn timed_out(&self) -> io::Result<()> {
        say(&format!("Session: {} timed out.\n", self.session_id))
    }

    /// Ctrl-C ended a port session.
    pub(crate) fn terminating(&self) -> io::Result<()> {
        say("Terminate signal received, exiting.\n")
    }

    /// Where a port session listens.
    pub(crate) fn listening(&self, place: &str) -> io::Result<()> {
        say(&format!("{place} opened for sessionId {}.\nWaiting for connections...\n", self.session_id))
    }

    /// The first program has connected to a port session.
    pub(crate) fn connected(&self) -> io::Result<()> {
        say(&format!("\nConnection accepted for session [{}]\n", self.session_id))
    }

    /// A port session's destination does not answer.
    pub(crate) fn unreachable(&self) -> io::Result<()> {
        say("Connection to destination port failed, check SSM Agent logs.\n")
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
