//! Reads along with a connection that is logged in: which statements go to the server, and what becomes of each.
//!
//! What a client sends goes into a queue of what it asked for; the server answers in that order. A server that meets an
//! error in the extended protocol passes over everything up to the next `Sync`, and so does the queue. Names are tried:
//! what a `Parse` or `Bind` that failed would have meant is taken back, and executions that were recorded with it are
//! corrected.

use std::collections::VecDeque;
use std::sync::Arc;

use super::frame::{Framer, Rule};
use super::names::{Name, Names};
use super::{Violation, mask};
use crate::recording::{
    EventKind, MAX_STATEMENT_PARAMETERS, MAX_STATEMENT_TEXT, Statement, StatementEnd, StatementKind, StatementOutcome,
};

mod bind;
mod client;
mod server;
mod undo;

/// Longest message with a text or values, bytes: PostgreSQL's own limit.
const MAX_LARGE: usize = (1 << 30) - 1 - 4;
/// Longest other message of a client, bytes: PostgreSQL's own limit.
const MAX_SMALL: usize = 10_000;
/// Longest message of a server, bytes.
const MAX_FROM_SERVER: usize = i32::MAX as usize - 4;
/// Room for a name before a text, bytes.
const NAME_ROOM: usize = 1024;
/// What is kept of a server's tag or error, bytes: an error's code stands near its beginning.
const WORD_ROOM: usize = 512;
/// Most that a client may have asked for without an answer before it is no longer read. A server holds answers back until
/// it has 8 KiB of them, and each has five bytes at least: with fewer places both would wait for each other.
const MAX_PENDING: usize = 4096;
/// Most names of prepared statements that are known at once.
const MAX_STATEMENTS: usize = 4096;
/// Most names of portals that are known at once.
const MAX_PORTALS: usize = 256;
/// Most of a prepared statement's text that is kept for its executions, bytes.
const KEPT_TEXT: usize = 1024;
/// Most bytes of such texts of a connection.
const KEPT_TEXTS: usize = 256 * 1024;
/// Longest tag of a text with several statements, bytes.
const MAX_TAG: usize = 128;

/// A statement that was prepared, as far as its executions tell of it.
#[derive(Debug)]
struct Prepared {
    /// Its number among the statements; 0 if it is not known what the name stands for.
    number: u64,
    /// The beginning of its text, or else the name.
    text: String,
    cut: bool,
    masked: bool,
    bytes: u64,
}

/// What was asked of the server and is not answered yet.
#[derive(Debug)]
enum Asked {
    /// To prepare. `recorded`: as a statement of its own, which ends with the answer.
    Parse { number: u64, name: Name, made: Arc<Prepared>, before: Option<Arc<Prepared>>, recorded: bool },
    /// To bind a portal.
    Bind { portal: Name, bound: Arc<Prepared>, before: Option<Arc<Prepared>> },
    /// To close a name.
    Close { is_portal: bool, name: Name, before: Option<Arc<Prepared>> },
    /// To describe.
    Describe,
    /// To run a portal.
    Execute { number: u64, portal: Name, of: Arc<Prepared> },
    /// To run a text.
    Query { number: u64 },
    /// To call a function.
    Call { number: u64 },
    /// To say when everything before is done.
    Sync,
}

#[derive(Debug)]
struct Pending {
    asked: Asked,
    /// When it was sent, microseconds of the caller's clock.
    sent: u64,
}

/// What the answers to the first pending request have said so far.
#[derive(Debug, Default)]
struct Answer {
    rows: u64,
    counted: Option<u64>,
    tag: String,
    code: Option<String>,
}

/// The text of the nameless statement, until it is known whether it is run at once or only prepared.
#[derive(Debug)]
struct Nameless {
    statement: Statement,
    /// The server has taken it already.
    taken: bool,
}

/// What has failed, for an execution that comes only after the answer.
#[derive(Debug)]
struct Skipping {
    code: Option<String>,
    of: Option<Arc<Prepared>>,
}

/// Both directions of a connection that is logged in.
#[derive(Debug)]
pub struct Conversation {
    client: Framer,
    server: Framer,
    state: State,
}

#[derive(Debug)]
struct State {
    connection: u64,
    last_number: u64,
    record_parameters: bool,
    pending: VecDeque<Pending>,
    answer: Answer,
    /// The server passes over everything up to a `Sync` that has not come yet.
    skipping: Option<Skipping>,
    /// The client sends data of a COPY.
    copying_in: bool,
    nameless: Option<Nameless>,
    /// The values of the portal that was bound last, where they are recorded.
    values: Option<(Arc<Prepared>, Vec<Option<String>>)>,
    statements: Names<Arc<Prepared>>,
    portals: Names<Arc<Prepared>>,
    /// Bytes of texts among the prepared statements, about: what was replaced is still counted until they are few.
    kept_texts: usize,
    /// The client said good-bye.
    is_over: bool,
}

impl Conversation {
    /// Begins when the server is ready. `connection` is its number in the session, `last_number` that of the newest
    /// statement before.
    pub fn new(connection: u64, last_number: u64, record_parameters: bool) -> Self {
        let client = if record_parameters { client_rule_with_values } else { client_rule };
        Self {
            client: Framer::new("client", client),
            server: Framer::new("server", server_rule),
            state: State {
                connection,
                last_number,
                record_parameters,
                pending: VecDeque::new(),
                answer: Answer::default(),
                skipping: None,
                copying_in: false,
                nameless: None,
                values: None,
                statements: Names::new(MAX_STATEMENTS),
                portals: Names::new(MAX_PORTALS),
                kept_texts: 0,
                is_over: false,
            },
        }
    }

    /// Takes bytes from the client, which may go on once everything in `events` is noted. `now` is in microseconds.
    pub fn from_client(&mut self, mut input: &[u8], now: u64, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        let Self { client, state, .. } = self;
        while let Some(message) = client.next(&mut input)? {
            state.asked(&message, now, events)?;
        }
        Ok(())
    }

    /// Takes bytes from the server, which may go on to the client. `now` is in microseconds.
    pub fn from_server(&mut self, mut input: &[u8], now: u64, events: &mut Vec<EventKind>) -> Result<(), Violation> {
        let Self { server, state, .. } = self;
        while let Some(message) = server.next(&mut input)? {
            state.answered(&message, now, events)?;
        }
        Ok(())
    }

    /// Tells whether the client is to be read: it has not asked for too much that is not answered.
    pub fn takes_more(&self) -> bool {
        self.state.pending.len() < MAX_PENDING
    }

    /// Tells whether the client has said good-bye.
    pub fn is_over(&self) -> bool {
        self.state.is_over
    }

    /// Tells whether what came from the server ends between two messages.
    pub fn server_is_between(&self) -> bool {
        self.server.is_between()
    }

    /// Ends whatever is still open: the connection is gone.
    pub fn lost(&mut self, now: u64, events: &mut Vec<EventKind>) {
        self.state.record_nameless(events);
        for pending in std::mem::take(&mut self.state.pending) {
            if let Some(number) = pending.number() {
                let tag = std::mem::take(&mut self.state.answer.tag);
                let outcome = StatementOutcome::Lost;
                events.push(self.state.ended(number, outcome, None, tag, String::new(), micros(now, &pending)));
            }
        }
    }
}

impl Pending {
    /// Returns the statement whose end is the answer to this.
    const fn number(&self) -> Option<u64> {
        match &self.asked {
            Asked::Parse { number, recorded: true, .. }
            | Asked::Execute { number, .. }
            | Asked::Query { number }
            | Asked::Call { number } => Some(*number),
            _ => None,
        }
    }
}

const fn micros(now: u64, pending: &Pending) -> u64 {
    now.saturating_sub(pending.sent)
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn ended(
        &self,
        number: u64,
        outcome: StatementOutcome,
        rows: Option<u64>,
        tag: String,
        code: String,
        micros: u64,
    ) -> EventKind {
        let connection = self.connection;
        EventKind::StatementEnd(Box::new(StatementEnd { connection, number, outcome, rows, tag, code, micros }))
    }

    /// Makes a statement of a text that came as bytes, of which the beginning is there.
    fn statement(&self, number: u64, kind: StatementKind, text: &[u8], whole: usize) -> Statement {
        let text_read = String::from_utf8_lossy(text);
        let masked = mask(&text_read);
        let mut statement = Statement::new(self.connection, number, kind, masked.as_deref().unwrap_or(&text_read));
        statement.masked = masked.is_some();
        statement.cut |= text.len() < whole;
        statement.bytes = whole as u64;
        statement
    }

    /// Records the nameless statement as one that was prepared, if nothing has run it yet.
    fn record_nameless(&mut self, events: &mut Vec<EventKind>) {
        let Some(Nameless { statement, taken }) = self.nameless.take() else { return };
        let number = statement.number;
        events.push(EventKind::Statement(Box::new(statement)));
        let place = self.pending.iter_mut().find_map(|pending| match &mut pending.asked {
            Asked::Parse { number: own, recorded, .. } if *own == number => Some(recorded),
            _ => None,
        });
        match place {
            Some(recorded) => *recorded = true,
            None if taken => {
                let end = self.ended(number, StatementOutcome::Done, None, String::new(), String::new(), 0);
                events.push(end);
            }
            None => {}
        }
    }
}

fn client_rule(kind: u8) -> Option<Rule> {
    rule_of_client(kind, NAME_ROOM)
}

fn client_rule_with_values(kind: u8) -> Option<Rule> {
    rule_of_client(kind, 4 * MAX_STATEMENT_PARAMETERS)
}

fn rule_of_client(kind: u8, bind: usize) -> Option<Rule> {
    let rule = |longest, keep| Some(Rule { longest, keep });
    match kind {
        b'Q' => rule(MAX_LARGE, MAX_STATEMENT_TEXT + 1),
        b'P' => rule(MAX_LARGE, NAME_ROOM + MAX_STATEMENT_TEXT),
        b'B' => rule(MAX_LARGE, bind),
        b'F' => rule(MAX_LARGE, 4),
        b'd' => rule(MAX_LARGE, 0),
        b'E' | b'C' | b'D' => rule(MAX_SMALL, MAX_SMALL),
        b'S' | b'H' | b'X' | b'c' | b'f' => rule(MAX_SMALL, 0),
        _ => None,
    }
}

fn server_rule(kind: u8) -> Option<Rule> {
    let keep = match kind {
        b'C' | b'E' => WORD_ROOM,
        b'Z' => 1,
        b'1' | b'2' | b'3' | b't' | b'T' | b'n' | b'D' | b'I' | b's' | b'V' | b'G' | b'H' | b'W' | b'd' | b'c'
        | b'N' | b'A' | b'S' => 0,
        _ => return None,
    };
    Some(Rule { longest: MAX_FROM_SERVER, keep })
}
