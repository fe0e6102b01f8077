//! What a client wants of a session and how the session ended for it: the words around `session`'s loop.

use munjigi_core::session::{EndReason, ExitStatus, Signal};
use munjigi_core::wire::message::{AttachSession, End, OpenSession, Parameter, Pty, open::Wish};

use super::terminal;

/// What to do on the server.
#[derive(Debug, Clone)]
pub(crate) enum Start {
    /// Start a session.
    New {
        /// Node by name, id, id prefix or tag.
        target: String,
        /// The command; empty for the login shell.
        command: Vec<String>,
        /// Wished OS user; empty for the one that policy gives.
        os_user: String,
        /// Why.
        reason: String,
        /// Session document; empty for the default one.
        document: String,
        /// Its parameters.
        parameters: Vec<Parameter>,
    },
    /// Go on with a session that runs.
    Attach {
        /// Its id.
        session_id: String,
        /// Show its output from the beginning instead of from now on.
        from_start: bool,
    },
}

/// How the session meets the person or the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Face {
    /// The program has a terminal, and ours is in raw mode for it.
    Terminal,
    /// The program has a terminal, but our standard input is none.
    RemoteTerminal,
    /// Pipes on both ends.
    Pipes,
}

impl Start {
    /// Returns the wish for the first stream. `token` makes a repeated wish the same one for the server.
    pub(crate) fn wish(&self, token: &str, pty: Option<Pty>) -> Wish {
        match self {
            Self::New { target, command, os_user, reason, document, parameters } => Wish::Session(OpenSession {
                target: target.clone(),
                document: document.clone(),
                reason: reason.clone(),
                command: command.clone(),
                os_user: os_user.clone(),
                pty,
                environment: terminal::environment(),
                client_token: token.to_owned(),
                parameters: parameters.clone(),
                ..OpenSession::default()
            }),
            Self::Attach { session_id, from_start } => Wish::Attach(AttachSession {
                session_id: session_id.clone(),
                watch: false,
                output_from: 0,
                from_end: !from_start,
                pty,
            }),
        }
    }
}

/// Returns the wish with which a client comes back to its session after a broken link.
pub(crate) fn resume(session_id: &str, output_from: u64, pty: Option<Pty>) -> Wish {
    Wish::Attach(AttachSession { session_id: session_id.to_owned(), watch: false, output_from, from_end: false, pty })
}

/// How a session ended for this client.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The session is over.
    Ended {
        /// Why.
        reason: Option<EndReason>,
        /// The server's words.
        message: String,
        /// How the program ended.
        exit: Option<ExitStatus>,
    },
    /// The server refused.
    Refused {
        /// For example `AccessDeniedException`.
        code: String,
        /// Its words.
        message: String,
    },
    /// The person left the session running.
    Detached {
        /// Its id.
        session_id: String,
    },
    /// This client gave up; the session runs on (with its id) or is being ended.
    Left {
        /// The session that runs on.
        running: Option<String>,
    },
    /// Nobody reads standard output any more.
    OutputClosed,
    /// A signal ended this client before there was a program to send it to.
    Interrupted(Signal),
    /// The server could not be reached (again).
    Lost(String),
}

impl Outcome {
    /// Reads the server's word that a session is over.
    pub(crate) fn of(end: End) -> Self {
        let exit = end.exit.and_then(|exit| match (exit.code, exit.signal) {
            (Some(code), _) => Some(ExitStatus::Code(code)),
            (None, Some(name)) => Some(ExitStatus::Signal { name, core_dumped: exit.core_dumped }),
            (None, None) => None,
        });
        Self::Ended { reason: EndReason::parse(&end.reason), message: end.message, exit }
    }
}
