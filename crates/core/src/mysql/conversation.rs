//! What is said once both ends are logged in: the client's commands and the server's answers, read along as they pass.
//!
//! The caller keeps what it received from each end in a buffer and asks how much of it may go on. Commands may be sent
//! before earlier ones are answered; answers come in the same order. Nothing is held but the beginning of a command
//! ([`HOLD_BYTES`]) and of an answer.

use std::collections::VecDeque;

use super::Violation;
use super::capability;
use super::command::{self, Answer, Command, Meaning};
use super::mask::masked;
use super::packet::{HEADER_BYTES, Head, write_packet};
use super::parameters::Parameters;
use super::prepared::{Prepared, Text};
use super::reply::{Reply, ServerError, Verdict};
use crate::recording::{
    MAX_STATEMENT_PARAMETERS, MAX_STATEMENT_TEXT, Statement, StatementEnd, StatementKind, StatementOutcome,
};

/// Commands that may wait for their answers before the client is no longer read.
const MAX_OUTSTANDING: usize = 16;
/// Bytes of the client that must fit the caller's buffer: the beginning of a command that is looked at.
pub const HOLD_BYTES: usize = HEADER_BYTES + 1 + MAX_STATEMENT_TEXT;
/// Bytes of other commands that are looked at.
const SHORT_BYTES: usize = 512;
/// Bytes of an execution that are looked at where its values are recorded: types and values that a recording keeps.
const EXECUTION_BYTES: usize = 4 * 1024 + MAX_STATEMENT_PARAMETERS;
/// Status bit: a backslash in a text is only that.
const NO_BACKSLASH_ESCAPES: u16 = 0x0200;
/// MySQL's `ER_UNKNOWN_COM_ERROR` and `ER_MAX_PREPARED_STMT_COUNT_REACHED`.
const NOT_LET_THROUGH: (u16, &str) = (1047, "08S01");
const TOO_MANY_PREPARED: (u16, &str) = (1461, "42000");

/// What is to be done with the client's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromClient {
    /// Nothing until there are more of them.
    More,
    /// Nothing until the server has answered something: too much waits for an answer.
    Full,
    /// So many bytes go to the server; `statement` (if any) is to be recorded before.
    Pass {
        /// How many.
        bytes: usize,
        /// What they begin.
        statement: Option<Box<Statement>>,
    },
    /// So many bytes are dropped; an answer of our own follows by [`Conversation::answer`].
    Drop {
        /// How many.
        bytes: usize,
        /// What was not let through.
        statement: Option<Box<Statement>>,
    },
}

/// Where in a message one direction is.
#[derive(Debug, Default)]
struct Position {
    /// Bytes of the packet that are still to come.
    left: usize,
    /// The message goes on in another packet.
    goes_on: bool,
}

impl Position {
    fn is_between(&self) -> bool {
        self.left == 0 && !self.goes_on
    }

    fn begin(&mut self, head: Head) {
        self.left = HEADER_BYTES + head.length;
        self.goes_on = head.goes_on();
    }

    fn take(&mut self, available: usize) -> usize {
        let taken = self.left.min(available);
        self.left -= taken;
        taken
    }
}

#[derive(Debug)]
enum Awaited {
    Reply(Reply),
    /// Ours, as a whole packet.
    Own(Vec<u8>, ServerError),
}

#[derive(Debug)]
struct Outstanding {
    /// The statement's number, if it is recorded.
    number: Option<u64>,
    awaited: Awaited,
    prepares: Option<Text>,
    resets: bool,
}

/// One connection behind its logins.
pub struct Conversation {
    agreed: u64,
    /// Number of the connection in its session.
    connection: u64,
    client: Position,
    server: Position,
    drops: bool,
    /// The client sends a file, packet by packet, up to an empty one.
    file: bool,
    has_quit: bool,
    outstanding: VecDeque<Outstanding>,
    ended: VecDeque<StatementEnd>,
    prepared: Prepared,
    records_parameters: bool,
    last_number: u64,
    status: u16,
}

impl Conversation {
    /// Begins behind the logins. `agreed` are the capabilities that both ends use; statements are those of a
    /// `connection` of the session and counted on from `last_number`.
    pub fn new(agreed: u64, connection: u64, last_number: u64) -> Self {
        Self {
            agreed,
            connection,
            client: Position::default(),
            server: Position::default(),
            drops: false,
            file: false,
            has_quit: false,
            outstanding: VecDeque::new(),
            ended: VecDeque::new(),
            prepared: Prepared::default(),
            records_parameters: false,
            last_number,
            status: 0,
        }
    }

    /// Has the values recorded that are bound to prepared statements, or not.
    pub fn record_parameters(mut self, yes: bool) -> Self {
        self.records_parameters = yes;
        self
    }

    /// Tells whether the client said that it leaves: nothing of it follows.
    pub fn has_quit(&self) -> bool {
        self.has_quit
    }

    /// Returns what came of a statement, oldest first. Its duration is the caller's, who has a clock.
    pub fn ended(&mut self) -> Option<StatementEnd> {
        self.ended.pop_front()
    }

    /// Gives up what waits for an answer: the connection is over.
    pub fn abandon(&mut self) {
        let numbers: Vec<u64> = self.outstanding.drain(..).filter_map(|waiting| waiting.number).collect();
        for number in numbers {
            self.end(number, StatementOutcome::Lost, None, None);
        }
    }

    fn end(&mut self, number: u64, outcome: StatementOutcome, rows: Option<u64>, error: Option<&ServerError>) {
        let (connection, tag) = (self.connection, String::new());
        let code = error.map(ServerError::code).unwrap_or_default();
        self.ended.push_back(StatementEnd { connection, number, outcome, rows, tag, code, micros: 0 });
    }

    /// Looks at what the client sent. To be asked again until it says [`FromClient::More`] or [`FromClient::Full`].
    pub fn from_client(&mut self, available: &[u8]) -> Result<FromClient, Violation> {
        if self.client.left == 0 {
            if self.has_quit {
                return Ok(FromClient::More);
            }
            let Some(head) = Head::read(available) else { return Ok(FromClient::More) };
            if !self.client.goes_on && !self.file {
                return self.command(head, available);
            }
            if self.file && !self.client.goes_on && head.length == 0 {
                self.file = false;
            }
            self.client.begin(head);
        }
        Ok(self.go_on(available, None))
    }

    fn go_on(&mut self, available: &[u8], statement: Option<Box<Statement>>) -> FromClient {
        match self.client.take(available.len()) {
            0 => FromClient::More,
            bytes if self.drops => {
                self.drops = !self.client.is_between();
                FromClient::Drop { bytes, statement }
            }
            bytes => FromClient::Pass { bytes, statement },
        }
    }

    fn command(&mut self, head: Head, available: &[u8]) -> Result<FromClient, Violation> {
        if self.outstanding.len() >= MAX_OUTSTANDING {
            return Ok(FromClient::Full);
        }
        if head.length == 0 {
            return Err(Violation::client("command"));
        }
        let Some(payload) = available.get(HEADER_BYTES..).filter(|payload| !payload.is_empty()) else {
            return Ok(FromClient::More);
        };
        let byte = payload.first().copied().unwrap_or_default();
        let known = Command::of(byte);
        let wanted = head.length.min(match known.map(|known| known.meaning) {
            Some(Meaning::Query | Meaning::Prepare) => 1 + MAX_STATEMENT_TEXT,
            Some(Meaning::Execute) if self.records_parameters => EXECUTION_BYTES,
            _ => SHORT_BYTES,
        });
        let Some(looked_at) = payload.get(1..wanted) else { return Ok(FromClient::More) };
        let statement = match known {
            None => self.refuse(head, NOT_LET_THROUGH, &command::refused_name(byte)),
            Some(known) if known.meaning == Meaning::Prepare && self.prepared.is_full() => {
                self.refuse(head, TOO_MANY_PREPARED, "another prepared statement")
            }
            Some(known) => self.admit(known, byte, looked_at, head)?,
        };
        self.client.begin(head);
        Ok(self.go_on(available, statement))
    }

    /// Answers a command ourselves.
    fn refuse(&mut self, head: Head, (code, state): (u16, &str), name: &str) -> Option<Box<Statement>> {
        let message = format!("{name} is not let through a recorded connection; a plain forward carries it");
        let error = ServerError { code, state: state.to_owned(), message };
        let mut packet = Vec::new();
        write_packet(&mut packet, head.sequence.wrapping_add(1), &error.write());
        let statement = self.statement(StatementKind::Command, &format!("({name})"));
        let number = Some(statement.number);
        let awaited = Awaited::Own(packet, error);
        self.outstanding.push_back(Outstanding { number, awaited, prepares: None, resets: false });
        self.drops = true;
        Some(statement)
    }

    fn admit(
        &mut self,
        known: Command,
        byte: u8,
        payload: &[u8],
        head: Head,
    ) -> Result<Option<Box<Statement>>, Violation> {
        let id = || command::statement_id(payload).ok_or(Violation::client("command on a prepared statement"));
        let mut prepares = None;
        let statement = match known.meaning {
            Meaning::Query => Some(self.with_text(StatementKind::Query, payload, head)),
            Meaning::Prepare => {
                let statement = self.with_text(StatementKind::Prepare, payload, head);
                let text = Text::of(&statement);
                self.prepared.sent(text.clone());
                prepares = Some(text);
                Some(statement)
            }
            Meaning::Execute => {
                let id = id()?;
                let mut statement = self.executed(id);
                let behind = payload.get(4..).unwrap_or_default();
                if self.records_parameters {
                    statement.parameters = self.prepared.parameters(id, |known| known.read(behind)).flatten();
                }
                Some(statement)
            }
            Meaning::Bulk => Some(self.executed(id()?)),
            Meaning::Ahead => {
                let behind = payload.get(4..).unwrap_or_default();
                if self.records_parameters {
                    self.prepared.parameters(id()?, |known| known.sent_ahead(behind));
                }
                None
            }
            Meaning::Forget => {
                self.prepared.parameters(id()?, Parameters::reset);
                None
            }
            Meaning::Fetch => Some(self.fetched(id()?)),
            Meaning::Close => {
                self.prepared.forget(id()?);
                None
            }
            Meaning::Kill => Some(self.statement(StatementKind::Cancel, &command::words(byte, payload))),
            Meaning::Other => Some(self.statement(StatementKind::Command, &command::words(byte, payload))),
            Meaning::Quit => {
                self.has_quit = true;
                None
            }
            Meaning::Reset | Meaning::Unrecorded => None,
        };
        if known.answer != Answer::Nothing {
            let number = statement.as_ref().map(|statement| statement.number);
            let awaited = Awaited::Reply(Reply::new(known.answer, self.agreed));
            let resets = known.meaning == Meaning::Reset;
            self.outstanding.push_back(Outstanding { number, awaited, prepares, resets });
        }
        Ok(statement)
    }

    fn executed(&mut self, id: u32) -> Box<Statement> {
        let Some(text) = self.prepared.get(id).cloned() else {
            return self.statement(StatementKind::Execute, &format!("(prepared statement {id}, which is not known)"));
        };
        let words = text.text.as_deref().unwrap_or("(its text is no longer kept: see where it was prepared)");
        let mut statement = self.statement(StatementKind::Execute, words);
        statement.prepared = text.number;
        if text.text.is_some() {
            (statement.bytes, statement.cut, statement.masked) = (text.bytes, text.is_cut, text.is_masked);
        }
        statement
    }

    fn fetched(&mut self, id: u32) -> Box<Statement> {
        let prepared = self.prepared.get(id).map_or(0, |text| text.number);
        let mut statement = self.statement(StatementKind::Command, "(further rows)");
        statement.prepared = prepared;
        statement
    }

    fn statement(&mut self, kind: StatementKind, text: &str) -> Box<Statement> {
        self.last_number += 1;
        Box::new(Statement::new(self.connection, self.last_number, kind, text))
    }

    fn with_text(&mut self, kind: StatementKind, payload: &[u8], head: Head) -> Box<Statement> {
        let (text, is_masked) = masked(payload, self.status & NO_BACKSLASH_ESCAPES != 0);
        let mut statement = self.statement(kind, &text);
        // Of a text of several packets (16 MiB and more) the first is counted.
        statement.bytes = head.length as u64 - 1;
        statement.cut |= head.length - 1 > payload.len();
        statement.masked = is_masked;
        statement
    }

    /// Looks at what the server sent and returns how many bytes may go to the client. What remains waits for more
    /// bytes, or for [`Self::answer`].
    pub fn from_server(&mut self, available: &[u8]) -> Result<usize, Violation> {
        let mut passed = 0;
        while let Some(rest) = available.get(passed..) {
            if self.server.left == 0 {
                let Some(head) = Head::read(rest) else { break };
                if !self.server.goes_on && !self.answered(head, rest.get(HEADER_BYTES..).unwrap_or_default())? {
                    break;
                }
                self.server.begin(head);
            }
            match self.server.take(rest.len()) {
                0 => break,
                taken => passed += taken,
            }
        }
        Ok(passed)
    }

    /// Judges the beginning of a message; `false` if it has to wait.
    fn answered(&mut self, head: Head, payload: &[u8]) -> Result<bool, Violation> {
        let first = payload.first().copied();
        if first.is_none() && head.length > 0 {
            return Ok(false);
        }
        let Some(front) = self.outstanding.front_mut() else {
            // A server may say why it hangs up.
            return if first == Some(0xff) { Ok(true) } else { Err(Violation::Unasked) };
        };
        let Awaited::Reply(reply) = &mut front.awaited else { return Ok(false) };
        let wanted = first.map_or(0, |first| reply.wants(head, first));
        let Some(look) = payload.get(..wanted) else { return Ok(false) };
        let verdict = reply.packet(head, look)?;
        if let Some(status) = reply.status {
            self.status = status;
        }
        match verdict {
            Verdict::GoesOn => {}
            Verdict::Over => self.over()?,
            Verdict::File => self.file_asked()?,
        }
        Ok(true)
    }

    fn file_asked(&mut self) -> Result<(), Violation> {
        if self.agreed & capability::LOCAL_FILES == 0 {
            return Err(Violation::FileNotAllowed);
        }
        if self.file || self.outstanding.len() > 1 || !self.client.is_between() {
            return Err(Violation::FileOutOfTurn);
        }
        self.file = true;
        Ok(())
    }

    fn over(&mut self) -> Result<(), Violation> {
        if self.file {
            return Err(Violation::FileNotTaken);
        }
        let Some(Outstanding { number, awaited: Awaited::Reply(reply), prepares, resets }) =
            self.outstanding.pop_front()
        else {
            return Ok(());
        };
        if let Some(((id, parameters), mut text)) = reply.prepared.zip(prepares) {
            text.parameters.count = parameters;
            self.prepared.insert(id, text);
        }
        if resets && reply.error.is_none() {
            self.prepared.clear();
        }
        if let Some(number) = number {
            let outcome = match &reply.error {
                Some(_) => StatementOutcome::Failed,
                None if reply.has_more_to_fetch => StatementOutcome::Suspended,
                None => StatementOutcome::Done,
            };
            self.end(number, outcome, reply.rows, reply.error.as_ref());
        }
        Ok(())
    }

    /// Returns an answer of our own whose turn it is, to be sent to the client behind what [`Self::from_server`] let go.
    pub fn answer(&mut self) -> Option<Vec<u8>> {
        let is_due = self.server.is_between()
            && !self.drops
            && matches!(self.outstanding.front(), Some(Outstanding { awaited: Awaited::Own(..), .. }));
        match is_due.then(|| self.outstanding.pop_front()).flatten()? {
            Outstanding { awaited: Awaited::Own(packet, error), number: Some(number), .. } => {
                self.end(number, StatementOutcome::Failed, None, Some(&error));
                Some(packet)
            }
            _ => None,
        }
    }
}
